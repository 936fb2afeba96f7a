"""The arithmetic of the FCR-D ramp test against closed forms."""

import math
import time
from typing import Any

import pytest
from pydantic import ValidationError
from support.responses import (
    Response,
    delayed,
    droop,
    frequency_of,
    judged,
    lagging,
    rate_limited,
    run,
    unmet,
)

from dertwin.scenario.packs import PACKS
from dertwin.scenario.packs.fcr_d import Params
from dertwin.scenario.record import Record, Requirement

RATED_W = 80e3
UP: dict[str, Any] = {"devices": ["bess-1"], "direction": "up", "capacity_w": RATED_W}
DOWN = UP | {"direction": "down"}
POWER = "bess-1.active_power_w"

# Of the sequence, in s since the start of ramp 1: when the droop saturates (0.4 Hz at 0.14 Hz/s), and when
# it leaves saturation again (ramp 2 begins at 4.9 s, 0.05 Hz at 0.09 Hz/s). Slopes in full responses per s.
SATURATED_S, LEAVES_S = 0.4 / 0.14, 4.9 + 0.05 / 0.09
RISE, FALL = 0.14 / 0.4, 0.09 / 0.4
RAMP_5_S = 0.4 / 0.24


def ideal(params: dict[str, Any]) -> list[tuple[float, float]]:
    ends = (49.9, 49.5) if params["direction"] == "up" else (50.1, 50.5)
    return list(droop(frequency_of("fcr_d", params), *ends))


def results(response: Response, params: dict[str, Any] = UP, dt_s: float = 0.1) -> dict[str, Requirement]:
    return judged("fcr_d", params, run("fcr_d", params, {POWER: response}, dt_s))


def with_delay(delay_s: float, lag_s: float = 0.0, **more: Any) -> dict[str, Requirement]:
    return results(lagging(ideal(UP), delay_s, lag_s, RATED_W), **more)


def excess_after_delay(delay_s: float) -> float:
    """The energy of requirement 4 in full responses x s, for a pure delay of 1.55 to 4.4 s."""
    at_nadir = RISE * (4.4 - delay_s)
    level = min(at_nadir, 0.5)
    above = 1.0 - level
    rising = (above**2 - (at_nadir - level) ** 2) / 2 / RISE
    return rising + above * (LEAVES_S - SATURATED_S) + above**2 / 2 / FALL


def energy_with_lag(delay_s: float, lag_s: float) -> float:
    """The energy of requirement 3: a lag holds back its time constant times what its output has gained."""
    since_s = 7.5 - delay_s
    if lag_s == 0.0:
        return since_s - RAMP_5_S / 2
    missing = lag_s / RAMP_5_S * (1 - math.exp(-RAMP_5_S / lag_s)) * math.exp(-(since_s - RAMP_5_S) / lag_s)
    return since_s - RAMP_5_S / 2 - lag_s * (1 - missing)


def test_an_ideal_droop_meets_everything_with_the_full_capacity() -> None:
    requirements = results(delayed(ideal(UP), 0.0, RATED_W))
    assert unmet(requirements) == []
    assert requirements["requirement 1: steady state"].measured == pytest.approx(0.0, abs=1e-9)
    assert requirements["requirement 2: power at 7.5 s"].measured == pytest.approx(100.0)
    assert requirements["capacity"].measured == pytest.approx(RATED_W)


@pytest.mark.parametrize("delay_s", [2.0, 3.0, 3.5, 4.0])
def test_the_energy_after_the_nadir_is_that_of_the_closed_form(delay_s: float) -> None:
    measured = with_delay(delay_s)["requirement 4: deactivation"].measured
    assert measured == pytest.approx(excess_after_delay(delay_s), abs=0.002)


@pytest.mark.parametrize(("delay_s", "excess_s", "met"), [(3.0, 2.27, True), (3.5, 3.49, False)])
def test_deactivation_passes_at_a_delay_of_3_s_and_fails_at_3_5_s(
    delay_s: float, excess_s: float, met: bool
) -> None:
    requirement = with_delay(delay_s)["requirement 4: deactivation"]
    assert requirement.measured == pytest.approx(excess_s, abs=0.006)
    assert requirement.met is met
    assert requirement.margin == pytest.approx(2.5 - requirement.measured)


@pytest.mark.parametrize(("delay_s", "lag_s"), [(0.0, 0.0), (1.0, 0.5), (2.0, 1.0), (3.0, 0.2)])
def test_energy_and_power_in_7_5_s_are_those_of_the_closed_form(delay_s: float, lag_s: float) -> None:
    requirements = with_delay(delay_s, lag_s)
    assert requirements["requirement 3: energy in 7.5 s"].measured == pytest.approx(
        energy_with_lag(delay_s, lag_s), abs=0.002
    )
    since_s = 7.5 - delay_s
    missing = (
        lag_s / RAMP_5_S * (1 - math.exp(-RAMP_5_S / lag_s)) * math.exp(-(since_s - RAMP_5_S) / lag_s)
        if lag_s
        else 0.0
    )
    assert requirements["requirement 2: power at 7.5 s"].measured == pytest.approx(100 * (1 - missing))


# The delays that an ideal droop and a first-order lag may have, rounded to 10 ms.
@pytest.mark.parametrize(
    ("lag_s", "for_2_and_3_s", "for_4_s"), [(0.0, 3.47, 3.10), (0.5, 2.97, 2.65), (1.0, 2.48, 2.33)]
)
def test_the_latency_budget_is_reproduced(lag_s: float, for_2_and_3_s: float, for_4_s: float) -> None:
    activation = {"requirement 2: power at 7.5 s", "requirement 3: energy in 7.5 s"}
    assert not activation & set(unmet(with_delay(for_2_and_3_s - 0.01, lag_s)))
    assert activation & set(unmet(with_delay(for_2_and_3_s + 0.01, lag_s)))
    assert "requirement 4: deactivation" not in unmet(with_delay(for_4_s - 0.01, lag_s))
    assert "requirement 4: deactivation" in unmet(with_delay(for_4_s + 0.01, lag_s))


@pytest.mark.parametrize("dt_s", [0.02, 0.05, 0.1])
def test_the_results_do_not_depend_on_the_step(dt_s: float) -> None:
    requirements = with_delay(2.9, 0.1, dt_s=dt_s)
    reference = with_delay(2.9, 0.1, dt_s=0.01)
    for name in ("requirement 3: energy in 7.5 s", "requirement 4: deactivation"):
        assert requirements[name].measured == pytest.approx(reference[name].measured, abs=0.002)


def test_a_ramp_limit_costs_half_of_the_time_it_takes() -> None:
    per_s = 0.2  # full response in 5 s, slower than ramp 5
    response = rate_limited(ideal(UP), per_s, RATED_W)
    requirements = results(response)
    assert requirements["requirement 2: power at 7.5 s"].measured == pytest.approx(100.0, abs=0.1)
    energy = requirements["requirement 3: energy in 7.5 s"].measured
    assert energy == pytest.approx(7.5 - 5.0 / 2, abs=0.003)


def test_downwards_is_the_mirror_image_of_upwards() -> None:
    down = results(lagging(ideal(DOWN), 2.0, 0.3, -RATED_W), DOWN)
    up = with_delay(2.0, 0.3)
    assert unmet(down) == unmet(up) == []
    for name, requirement in up.items():
        assert down[name].measured == pytest.approx(requirement.measured, abs=1e-6)


def test_a_baseline_and_a_second_device_do_not_matter() -> None:
    params = UP | {"devices": ["bess-1", "bess-2"]}
    half = delayed(ideal(UP), 1.0, RATED_W / 2)
    powers = {POWER: lambda t: 7e3 + half(t), "bess-2.active_power_w": lambda t: half(t) - 21e3}
    both = judged("fcr_d", params, run("fcr_d", params, powers))
    alone = with_delay(1.0)
    for name, requirement in alone.items():
        assert both[name].measured == pytest.approx(requirement.measured, abs=1e-6)


def test_a_plan_that_began_later_is_judged_the_same() -> None:
    response = delayed(ideal(UP), 1.0, RATED_W)
    later = judged("fcr_d", UP, run("fcr_d", UP, {POWER: response}, start_s=123.4), 123.4)
    for name, requirement in with_delay(1.0).items():
        assert later[name].measured == pytest.approx(requirement.measured, abs=1e-6)


@pytest.mark.parametrize(
    ("share", "met", "factor"),
    [(0.94, False, 0.94 / 0.95), (0.96, True, 1.0), (1.19, True, 1.0), (1.21, False, 0)],
)
def test_steady_state_may_be_5_percent_too_small_or_20_too_large(
    share: float, met: bool, factor: float
) -> None:
    requirements = results(delayed(ideal(UP), 0.5, share * RATED_W))
    assert requirements["requirement 1: steady state"].measured == pytest.approx(100 * (share - 1))
    assert requirements["requirement 1: steady state"].met is met
    assert requirements["capacity"].measured == pytest.approx(factor * RATED_W)


@pytest.mark.parametrize(
    ("share", "claimed", "met"), [(0.8, 0.8, True), (0.8, 0.9, False), (0.7, 0.75, False)]
)
def test_a_claimed_reduction_factor_reduces_requirements_1_to_3(
    share: float, claimed: float, met: bool
) -> None:
    params = UP | {"reduction_factor": claimed}
    requirements = results(delayed(ideal(UP), 0.5, share * RATED_W), params)
    assert ("requirement 1: steady state" not in unmet(requirements)) is met
    assert ("capacity" not in unmet(requirements)) is met


def test_a_capacity_below_the_smallest_factor_is_none() -> None:
    requirements = results(delayed(ideal(UP), 0.5, 0.7 * RATED_W))
    assert requirements["capacity"].measured == 0.0


def test_a_response_that_fades_is_not_kept() -> None:
    kept = delayed(ideal(UP), 0.5, RATED_W)
    requirements = results(lambda t: kept(t) * (1 - 0.1 * (300 < t < 310 or 720 < t < 725)))
    assert unmet(requirements) == ["no decrease after 7.5 s", "requirement 12: stays activated"]
    assert requirements["no decrease after 7.5 s"].measured == pytest.approx(-10.0)


def test_no_response_and_the_wrong_sign_are_failures_that_say_so() -> None:
    nothing = results(lambda _: 0.0)
    assert {name[:13] for name in unmet(nothing)} >= {"requirement 1", "requirement 2", "requirement 3"}
    assert nothing["capacity"].measured == 0.0
    wrong = results(delayed(ideal(UP), 0.5, -RATED_W))
    assert "wrong direction" in wrong["requirement 1: steady state"].detail
    assert wrong["requirement 2: power at 7.5 s"].measured == pytest.approx(-100.0)


def test_a_saturated_battery_delivers_what_it_can() -> None:
    full = delayed(ideal(UP), 0.5, RATED_W)
    requirements = results(lambda t: min(full(t), 0.5 * RATED_W))
    assert requirements["requirement 1: steady state"].measured == pytest.approx(-50.0)
    assert "requirement 4: deactivation" not in unmet(requirements)


def test_what_could_not_be_measured_is_not_met_and_says_why() -> None:
    response = delayed(ideal(UP), 0.5, RATED_W)
    holed = results(lambda t: math.nan if 692 < t < 693 else response(t))
    assert "no numbers, the first at 692.1 s" in holed["requirement 3: energy in 7.5 s"].detail
    assert math.isnan(holed["requirement 3: energy in 7.5 s"].measured)
    assert math.isnan(holed["capacity"].measured)
    assert holed["requirement 4: deactivation"].met

    short = judged("fcr_d", UP, run("fcr_d", UP, {POWER: response}, until_s=500.0))
    assert "the record ends at 500 s of 1050 s" in short["requirement 2: power at 7.5 s"].detail

    for record in (Record([]), Record(["site.frequency_hz", POWER])):
        empty = judged("fcr_d", UP, record)
        assert unmet(empty) == list(empty)
        assert all(requirement.detail for requirement in empty.values())


def test_a_run_with_another_frequency_is_no_test() -> None:
    record = run("fcr_d", UP, {POWER: delayed(ideal(UP), 0.5, RATED_W)})
    record.columns["site.frequency_hz"][5000] += 0.02
    assert unmet(judged("fcr_d", UP, record)) == ["frequency as planned"]


def test_samples_further_apart_than_10_hz_are_told() -> None:
    requirements = results(delayed(ideal(UP), 0.5, RATED_W), dt_s=0.2)
    assert unmet(requirements) == ["sampling"]
    assert requirements["sampling"].measured == pytest.approx(0.2)


def test_endurance_keeps_the_level_after_ramp_3_for_900_s() -> None:
    params = UP | {"endurance": True}
    points = frequency_of("fcr_d", params)
    assert (990.0, 49.5) in points
    assert PACKS["fcr_d"].plan(Params(**params)).duration_s == 1650.0
    requirements = results(delayed(droop(points, 49.9, 49.5), 0.5, RATED_W), params)
    assert unmet(requirements) == []


def test_the_sequence_is_that_of_the_document() -> None:
    points = frequency_of("fcr_d", UP)
    ends = [(0, 49.9), (33.2, 49.45), (39.9, 49.9), (91.7, 49.5), (391.7, 49.9), (693.8, 49.0), (754.2, 50.0)]
    assert [points[0], *points[2::2]] == [pytest.approx(end, abs=0.05) for end in ends]
    assert frequency_of("fcr_d", DOWN)[2] == pytest.approx((33.2143, 50.55))


def test_a_factor_that_the_document_does_not_allow_is_refused() -> None:
    with pytest.raises(ValidationError, match=r"greater than or equal to 0\.75"):
        Params(**UP | {"reduction_factor": 0.7})


def test_a_whole_ramp_test_is_judged_in_well_under_half_a_second() -> None:
    record = run("fcr_d", UP, {POWER: delayed(ideal(UP), 1.0, RATED_W)})
    params = Params(**UP)
    fastest = math.inf
    for _ in range(3):
        start = time.perf_counter()
        PACKS["fcr_d"].judge(params, record, 0.0)
        fastest = min(fastest, time.perf_counter() - start)
    assert fastest < 0.5
