"""The arithmetic of the FCR-N step test against closed forms."""

import math
from typing import Any

import pytest
from support.responses import Response, delayed, frequency_of, judged, lagging, run, unmet

from dertwin.scenario.packs import PACKS
from dertwin.scenario.packs.fcr_n import Params
from dertwin.scenario.record import Record, Requirement

RATED_W = 50e3
N: dict[str, Any] = {"devices": ["bess-1"], "capacity_w": RATED_W}
POWER = "bess-1.active_power_w"
UPWARDS, DOWNWARDS = "requirement 1 upwards: steady state", "requirement 1 downwards: steady state"


def ideal(params: dict[str, Any] = N) -> list[tuple[float, float]]:
    return [(t, (50.0 - hz) / 0.1) for t, hz in frequency_of("fcr_n", params)]


def results(response: Response, params: dict[str, Any] = N, dt_s: float = 0.2) -> dict[str, Requirement]:
    return judged("fcr_n", params, run("fcr_n", params, {POWER: response}, dt_s))


def test_an_ideal_droop_meets_everything_with_the_full_capacity() -> None:
    requirements = results(delayed(ideal(), 2.0, RATED_W))
    assert unmet(requirements) == []
    for name in (UPWARDS, DOWNWARDS):
        assert requirements[name].measured == pytest.approx(0.0, abs=1e-6)
        assert requirements[name].margin == pytest.approx(5.0)
    assert requirements["capacity"].measured == pytest.approx(RATED_W)


def test_a_slow_lag_is_measured_as_the_mean_of_the_last_minute() -> None:
    lag_s = 60.0
    requirements = results(lagging(ideal(), 0.0, lag_s, RATED_W))

    def mean_error(error: float) -> float:  # what is left of an error at 240 s in the mean of the next 60 s
        return error * math.exp(-240 / lag_s) * lag_s / 60 * (1 - math.exp(-60 / lag_s))

    # Errors at the start of each level, as shares of the capacity, up to what is left of those before.
    left = math.exp(-300 / lag_s)
    first = 1 - left
    pre = 0.5 * (1 - math.exp(-30 / lag_s))
    level_0 = mean_error(pre)
    level_1 = 1 - mean_error(1 - pre * left)
    level_2 = -1 + mean_error(first + 1 + pre * left**2)
    at_end_of_2 = -1 + (first + 1 + pre * left**2) * left
    level_3 = mean_error(at_end_of_2)
    before = (level_0 + level_3) / 2
    assert requirements[UPWARDS].measured == pytest.approx(100 * (level_1 - before - 1), abs=0.005)
    assert requirements[DOWNWARDS].measured == pytest.approx(100 * (before - level_2 - 1), abs=0.005)


@pytest.mark.parametrize(
    ("share", "met", "factor"),
    [(0.94, False, 0.94 / 0.95), (0.96, True, 1), (1.21, False, 0), (0.8, False, 0)],
)
def test_steady_state_has_the_band_and_the_factor_of_the_document(
    share: float, met: bool, factor: float
) -> None:
    requirements = results(delayed(ideal(), 0.0, share * RATED_W))
    assert requirements[UPWARDS].measured == pytest.approx(100 * (share - 1), abs=1e-6)
    assert requirements[UPWARDS].met is requirements[DOWNWARDS].met is met
    assert requirements["capacity"].measured == pytest.approx(factor * RATED_W)


def test_a_claimed_factor_just_at_the_limit_is_met() -> None:
    requirements = results(delayed(ideal(), 0.0, 0.9 * 0.95 * RATED_W), N | {"reduction_factor": 0.9})
    assert requirements[UPWARDS].measured == -5.0
    assert requirements[UPWARDS].met
    assert requirements["capacity"].met


def test_one_direction_that_does_not_respond_fails_alone() -> None:
    both = delayed(ideal(), 0.0, RATED_W)
    requirements = results(lambda t: max(0.0, both(t)))
    assert [name for name in unmet(requirements) if "upwards" in name] == []
    assert requirements[DOWNWARDS].measured == pytest.approx(-100.0)


def test_a_response_that_fades_is_not_kept() -> None:
    kept = delayed(ideal(), 0.0, RATED_W)
    requirements = results(lambda t: kept(t) * (0.9 if 560 < t < 570 else 1.0))
    assert unmet(requirements) == ["requirement 12 upwards: stays activated"]


def test_a_wrong_sign_a_hole_and_an_empty_record_are_failures_that_say_so() -> None:
    wrong = results(delayed(ideal(), 0.0, -RATED_W))
    assert "wrong direction" in wrong[UPWARDS].detail
    assert wrong["capacity"].measured == 0.0
    holed = results(lambda t: math.nan if 600 < t < 601 else 0.0)
    assert "are no numbers" in holed[UPWARDS].detail
    empty = judged("fcr_n", N, Record([]))
    assert unmet(empty) == list(empty)


def test_the_sequence_is_that_of_the_document() -> None:
    assert PACKS["fcr_n"].plan(Params(**N)).duration_s == 21 * 60
    longer = N | {"endurance": True}
    assert PACKS["fcr_n"].plan(Params(**longer)).duration_s == 41 * 60
    jumps = [(t / 60, hz) for t, hz in frequency_of("fcr_n", longer)][2::2]
    expected = [(0.5, 49.95), (1, 50.0), (6, 49.9), (21, 50.1), (36, 50.0)]
    assert jumps == [pytest.approx(jump, abs=1e-4) for jump in expected]
    assert unmet(results(delayed(ideal(longer), 1.0, RATED_W), longer)) == []
