"""A power limit at the grid connection: reached, held, released, against closed forms."""

import math
from typing import Any

import pytest
from support.responses import Response, judged, unmet

from dertwin.scenario.packs import PACKS
from dertwin.scenario.packs.power_limit import Params
from dertwin.scenario.record import Record, Requirement

LIMIT: dict[str, Any] = {
    "reach_within_s": 60.0,
    "hold_s": 120.0,
    "release_within_s": 30.0,
    "load_w": 11e3,
    "announce": {"write": {"bess-1.active_power_setpoint_w": 1.0}},
}
PCC = "pcc.active_power_w"
START_S, END_S = 30.0, 30.0 + 60.0 + 120.0
ALLOWED_W = 4200.0 + 50.0


def results(
    power: Response, params: dict[str, Any] = LIMIT, name: str = PCC, start_s: float = 0.0
) -> dict[str, Requirement]:
    plan = PACKS["power_limit"].plan(Params(**params))
    record = Record([name])
    for index in range(round(plan.duration_s / 0.1) + 1):
        record.times.append(start_s + index * 0.1)
        record.columns[name].append(power(index * 0.1))
    return judged("power_limit", params, record, start_s)


def ramped(
    delay_s: float, per_s: float, low_w: float = 4000.0, high_w: float = 11e3, back_s: float = 5.0
) -> Response:
    """From high_w down to low_w, at per_s (W/s) from delay_s on, and up again back_s after the end."""

    def power(time_s: float) -> float:
        down = min(high_w, max(low_w, high_w - (time_s - START_S - delay_s) * per_s))
        return down if time_s < END_S + back_s else high_w

    return power


@pytest.mark.parametrize(("delay_s", "met"), [(5.0, True), (40.0, True), (52.0, False)])
def test_the_time_to_reach_a_limit_is_that_of_the_closed_form(delay_s: float, met: bool) -> None:
    requirements = results(ramped(delay_s, 500.0))
    expected_s = delay_s + (11e3 - ALLOWED_W) / 500.0
    assert requirements["limit reached"].measured == pytest.approx(expected_s)
    assert requirements["limit reached"].met is met
    assert requirements["limit held"].met is met


def test_a_limit_that_is_broken_for_a_moment_is_not_held() -> None:
    kept = ramped(5.0, 500.0)
    requirements = results(lambda t: 4400.0 if 150 < t < 151 else kept(t))
    assert unmet(requirements) == ["limit reached", "limit held"]
    assert requirements["limit held"].measured == 4400.0
    assert requirements["limit held"].high == ALLOWED_W


@pytest.mark.parametrize(("back_s", "met"), [(5.0, True), (31.0, False)])
def test_the_power_must_be_back_after_the_release(back_s: float, met: bool) -> None:
    requirements = results(ramped(5.0, 500.0, back_s=back_s))
    assert requirements["limit released"].measured == pytest.approx(back_s, abs=0.1)
    assert requirements["limit released"].met is met


def test_a_limit_that_never_ends_is_not_released() -> None:
    requirements = results(ramped(5.0, 500.0, back_s=1e6))
    assert unmet(requirements) == ["limit released"]
    assert "the power came no further than 4000 W" in requirements["limit released"].detail


def test_export_and_devices_have_their_own_signs() -> None:
    kept = ramped(5.0, 500.0)
    export = LIMIT | {"limits": "export"}
    assert unmet(results(lambda t: -kept(t), export)) == []
    charging = LIMIT | {"devices": ["bess-1"]}
    assert unmet(results(lambda t: -kept(t), charging, "bess-1.active_power_w")) == []
    delivering = charging | {"limits": "export"}
    assert unmet(results(kept, delivering, "bess-1.active_power_w", start_s=77.7)) == []
    assert "power to limit" in unmet(results(kept, charging, "bess-1.active_power_w"))


def test_a_limit_that_has_nothing_to_limit_says_so() -> None:
    requirements = results(lambda _: 2000.0)
    assert "power to limit" in unmet(requirements)
    assert "raise load_w" in requirements["power to limit"].detail


def test_a_limit_that_is_ignored_holes_and_nothing_are_failures_that_say_so() -> None:
    ignored = results(lambda _: 11e3)
    assert unmet(ignored) == ["limit reached", "limit held"]
    assert "the power was 11000 W when the limit ended" in ignored["limit reached"].detail
    kept = ramped(5.0, 500.0)
    holed = results(lambda t: math.nan if 100 < t < 101 else kept(t))
    assert unmet(holed) == ["limit reached", "limit held"]
    assert "are no numbers" in holed["limit held"].detail
    empty = judged("power_limit", LIMIT, Record([]))
    assert unmet(empty) == list(empty)
    assert "pcc.active_power_w was not recorded" in empty["limit held"].detail


def test_the_plan_tells_the_ems_when_the_limit_begins_and_ends() -> None:
    params = LIMIT | {"release": {"write": {"bess-1.active_power_setpoint_w": 2.0}}}
    plan = PACKS["power_limit"].plan(Params(**params))
    assert [(at_s, next(iter(action))) for at_s, action in plan.actions] == [
        (0.0, "environment"), (START_S, "write"), (END_S, "write"),
    ]  # fmt: skip
    assert plan.signals == [PCC]
