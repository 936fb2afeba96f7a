"""The arithmetic of FFR activation against closed forms."""

import math
from typing import Any

import pytest
from pydantic import ValidationError
from support.responses import Response, judged, run, unmet

from dertwin.scenario.packs import PACKS
from dertwin.scenario.packs.ffr import Params
from dertwin.scenario.record import Record, Requirement

RATED_W = 30e3
FFR: dict[str, Any] = {"devices": ["bess-1"], "capacity_w": RATED_W}
POWER = "bess-1.active_power_w"
WITHIN_S = {49.7: 1.3, 49.6: 1.0, 49.5: 0.7}


def activates_s(level_hz: float = 49.7) -> float:
    """When the frequency, which falls by 0.24 Hz/s from 10 s on, reaches a level."""
    return 10.0 + (50.0 - level_hz) / 0.24


def pulse(
    delay_s: float, full_s: float, fall_per_s: float, rise_s: float = 0.0, level_hz: float = 49.7
) -> Response:
    """Full power from delay_s after activation on (after a linear rise), for full_s, then a linear fall."""

    def once(since_s: float) -> float:
        if since_s < delay_s:
            return 0.0
        if since_s < delay_s + rise_s:
            return (since_s - delay_s) / rise_s
        return min(1.0, max(0.0, 1.0 - (since_s - delay_s - rise_s - full_s) * fall_per_s))

    first_s = activates_s(level_hz)
    return lambda time_s: RATED_W * (once(time_s - first_s) + once(time_s - first_s - 900.0))


def results(response: Response, params: dict[str, Any] = FFR, dt_s: float = 0.1) -> dict[str, Requirement]:
    return judged("ffr", params, run("ffr", params, {POWER: response}, dt_s))


@pytest.mark.parametrize("level_hz", list(WITHIN_S))
@pytest.mark.parametrize(("early_s", "met"), [(0.15, True), (-0.15, False)])
def test_full_power_must_be_there_within_the_time_of_the_level(
    level_hz: float, early_s: float, met: bool
) -> None:
    params = FFR | {"activation_hz": level_hz}
    delay_s = WITHIN_S[level_hz] - early_s
    requirements = results(pulse(delay_s, 6.0, 0.15, level_hz=level_hz), params)
    for name in ("full activation", "full activation after 15 min"):
        # A jump is only known to lie between two samples.
        assert requirements[name].measured == pytest.approx(delay_s, abs=0.1)
        assert requirements[name].high == WITHIN_S[level_hz]
        assert requirements[name].met is met


def test_a_linear_rise_is_timed_within_a_sample() -> None:
    response = pulse(0.3, 6.0, 0.15, rise_s=0.8)
    for dt_s in (0.02, 0.1):
        measured = results(response, dt_s=dt_s)["full activation"].measured
        # 99 % of the capacity is full; the corner at 100 % lies between two samples.
        assert measured == pytest.approx(0.3 + 0.99 * 0.8, abs=dt_s)


@pytest.mark.parametrize(
    ("support", "full_s", "met"),
    [("short", 4.8, False), ("short", 5.1, True), ("long", 29.8, False), ("long", 30.1, True)],
)  # fmt: skip
def test_support_lasts_as_long_as_the_variant_asks_for(support: str, full_s: float, met: bool) -> None:
    requirements = results(pulse(0.5, full_s, 0.19, rise_s=0.5), FFR | {"support": support})
    requirement = requirements["support duration"]
    # from 99 % on the way up to 99 % on the way down
    assert requirement.measured == pytest.approx(full_s + 0.01 * 0.5 + 0.01 / 0.19, abs=0.1)
    assert requirement.met is met


@pytest.mark.parametrize(("fall_per_s", "met"), [(0.1, True), (0.199, True), (0.21, False), (5.0, False)])
def test_a_short_support_must_end_slowly(fall_per_s: float, met: bool) -> None:
    requirements = results(pulse(0.5, 6.0, fall_per_s))
    assert requirements["deactivation"].measured == pytest.approx(min(100.0, 100 * fall_per_s), abs=0.01)
    assert requirements["deactivation"].met is met
    assert ("deactivation" in results(pulse(0.5, 40.0, fall_per_s), FFR | {"support": "long"})) is False


def test_what_does_not_recover_within_15_minutes_fails() -> None:
    whole = pulse(0.5, 6.0, 0.15)
    requirements = results(lambda time_s: whole(time_s) if time_s < 500 else 0.0)
    assert unmet(requirements) == ["full activation after 15 min"]
    assert (
        "full power was not reached: 0 % of it at most" in requirements["full activation after 15 min"].detail
    )


def test_too_little_the_wrong_sign_holes_and_nothing_are_failures_that_say_so() -> None:
    little = pulse(0.5, 6.0, 0.15)
    assert "full power was not reached: 90 %" in results(lambda t: 0.9 * little(t))["full activation"].detail
    wrong = results(lambda t: -little(t))
    assert {"full activation", "support duration", "deactivation"} <= set(unmet(wrong))
    holed = results(lambda t: math.nan if 11 < t < 12 else little(t))
    assert "are no numbers" in holed["full activation"].detail
    empty = judged("ffr", FFR, Record([]))
    assert unmet(empty) == list(empty)


def test_two_dips_are_15_minutes_apart_and_unknown_levels_are_refused() -> None:
    plan = PACKS["ffr"].plan(Params(**FFR))
    ((_, action),) = plan.actions
    falls = [point for point in action["table"] if point[1] == pytest.approx(49.6)]
    assert falls[2][0] - falls[0][0] == pytest.approx(900.0)
    with pytest.raises(ValidationError, match=r"49\.8 is not allowed; use one of 49\.7, 49\.6, 49\.5"):
        Params(**FFR | {"activation_hz": 49.8})
