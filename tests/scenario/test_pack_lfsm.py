"""The arithmetic of the LFSM response against closed forms."""

import math
from typing import Any

import pytest
from pydantic import ValidationError
from support.responses import Response, delayed, frequency_of, judged, lagging, run, unmet

from dertwin.scenario.packs.lfsm import Params
from dertwin.scenario.record import Record, Requirement

RATED_W = 100e3
OVER: dict[str, Any] = {"devices": ["pv-1"], "mode": "over", "rated_w": RATED_W}
UNDER = OVER | {"mode": "under"}
POWER = "pv-1.active_power_w"
START_W = 60e3


def ideal(
    params: dict[str, Any] = OVER, threshold_hz: float = 50.2, droop: float = 0.05
) -> list[tuple[float, float]]:
    """The change of power as a share of the rated one, for the frequency of the plan."""
    outwards = 1.0 if params["mode"] == "over" else -1.0
    points = frequency_of("lfsm", params)
    # No point of the plan's jumps lies on the threshold, so their corners are those of the frequency.
    return [(t, -outwards * max(0.0, outwards * (hz - threshold_hz)) / 50.0 / droop) for t, hz in points]


def results(change: Response, params: dict[str, Any] = OVER) -> dict[str, Requirement]:
    record = run("lfsm", params, {POWER: lambda t: START_W + change(t)})
    return judged("lfsm", params, record)


@pytest.mark.parametrize(("params", "threshold_hz"), [(OVER, 50.2), (UNDER, 49.8)])
def test_an_ideal_droop_meets_everything(params: dict[str, Any], threshold_hz: float) -> None:
    requirements = results(delayed(ideal(params, threshold_hz), 0.5, RATED_W), params)
    assert unmet(requirements) == []
    assert requirements["droop"].measured == pytest.approx(5.0)
    assert requirements["threshold"].measured == pytest.approx(threshold_hz)
    assert requirements["change of power"].measured == pytest.approx(30.0)
    for step in (1, 2, 3):
        assert requirements[f"step {step}: settling time"].measured == pytest.approx(0.5, abs=0.1)


@pytest.mark.parametrize("lag_s", [1.0, 3.0, 9.0])
def test_the_settling_time_of_a_lag_is_that_of_the_closed_form(lag_s: float) -> None:
    requirements = results(lagging(ideal(), 0.4, lag_s, RATED_W))
    # Each step changes the power by 10 % of the rated one; settled is within 2 % of it.
    expected_s = 0.4 + lag_s * math.log(10 / 2)
    for step in (1, 2, 3):
        measured = requirements[f"step {step}: settling time"].measured
        assert measured == pytest.approx(expected_s, abs=0.03)


def test_another_droop_and_another_threshold_are_found_out() -> None:
    droop = results(delayed(ideal(droop=0.06), 0.2, RATED_W))
    assert droop["droop"].measured == pytest.approx(6.0)
    assert "droop" in unmet(droop)
    assert droop["threshold"].measured == pytest.approx(50.2)
    threshold = results(delayed(ideal(threshold_hz=50.25), 0.2, RATED_W))
    assert threshold["threshold"].measured == pytest.approx(50.25)
    assert "threshold" in unmet(threshold)
    assert threshold["droop"].measured == pytest.approx(5.0)


def test_own_settings_are_what_is_judged() -> None:
    params = OVER | {"threshold_hz": 50.5, "droop_percent": 8.0, "shares": [0.1, 0.15], "settling_s": 2.0}
    requirements = results(delayed(ideal(params, 50.5, 0.08), 1.0, RATED_W), params)
    assert unmet(requirements) == []
    assert requirements["threshold"].source == "the scenario, threshold_hz"
    late = results(delayed(ideal(params, 50.5, 0.08), 3.0, RATED_W), params)
    assert unmet(late) == ["step 1: settling time", "step 2: settling time"]


def test_a_response_within_the_threshold_is_one_too_many() -> None:
    requirements = results(delayed(ideal(threshold_hz=50.05), 0.2, RATED_W))
    assert "no response within the threshold" in unmet(requirements)
    # 50.15 Hz is 0.1 Hz beyond 50.05 Hz
    assert requirements["no response within the threshold"].measured == pytest.approx(-4.0)


def test_an_oscillation_that_does_not_die_is_told() -> None:
    steady = delayed(ideal(), 0.2, RATED_W)
    ringing = results(
        lambda t: steady(t) + (0.015 * RATED_W * math.sin(2 * math.pi * t / 4) if t > 120 else 0)
    )
    assert ringing["step 1: oscillation"].measured == pytest.approx(3.0, abs=0.01)
    assert "step 1: oscillation" in unmet(ringing)


def test_saturation_the_wrong_sign_no_response_and_no_record_are_failures_that_say_so() -> None:
    steady = delayed(ideal(), 0.2, RATED_W)
    saturated = results(lambda t: max(steady(t), -0.15 * RATED_W))
    assert "step 1: size" not in unmet(saturated)
    assert saturated["step 3: size"].measured == pytest.approx(15.0)
    assert (
        "did not settle there: -15 % at the end, expected -30 %" in saturated["step 3: settling time"].detail
    )
    wrong = results(lambda t: -steady(t))
    assert wrong["droop"].measured == pytest.approx(-5.0)
    assert not wrong["droop"].met
    nothing = results(lambda _: 0.0)
    assert {"droop", "threshold", "change of power"} <= set(unmet(nothing))
    holed = results(lambda t: math.nan if 170 < t < 171 else steady(t))
    assert "are no numbers" in holed["step 1: size"].detail
    empty = judged("lfsm", OVER, Record([]))
    assert unmet(empty) == list(empty)


def test_shares_must_rise() -> None:
    with pytest.raises(ValidationError, match="use shares above 0 that rise"):
        Params(**OVER | {"shares": [0.2, 0.2]})
