"""The inverter's efficiency, and the sharing of its rating."""

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pvlib.inverter import pvwatts

from dertwin.physics.converter import NOMINAL_EFFICIENCY, ac_power_w, dc_power_w, reactive_within

RATED_W = 10_000.0
FULL_DC_W = RATED_W / NOMINAL_EFFICIENCY


def test_an_inverter_gives_its_rating_at_96_percent() -> None:
    assert ac_power_w(FULL_DC_W, RATED_W) == pytest.approx(RATED_W, rel=1e-12)


@pytest.mark.parametrize("load", [0.0, 0.003, 0.01, 0.05, 0.1, 0.2, 0.3, 0.5, 0.75, 0.9, 1.0, 1.01, 1.5, 5.0])
def test_the_efficiency_curve_is_that_of_pvlib(load: float) -> None:
    dc_w = load * FULL_DC_W
    assert ac_power_w(dc_w, RATED_W) == pytest.approx(float(pvwatts(dc_w, FULL_DC_W)), rel=1e-12, abs=1e-9)


def test_an_array_too_big_for_the_curve_is_clipped_all_the_same() -> None:
    # The quadratic loss term alone would eat all power at 60 times the rating.
    assert ac_power_w(100.0 * FULL_DC_W, RATED_W) == RATED_W


def test_nothing_comes_out_before_the_inverter_has_fed_itself() -> None:
    assert ac_power_w(0.005 * FULL_DC_W, RATED_W) == 0.0
    assert dc_power_w(0.0, RATED_W) == 0.0


@given(st.floats(1e-6, 1.0), st.floats(100.0, 1e8))
def test_dc_power_undoes_ac_power(load: float, rated_w: float) -> None:
    power_w = load * rated_w
    dc_w = dc_power_w(power_w, rated_w)
    assert dc_w > power_w
    assert ac_power_w(dc_w, rated_w) == pytest.approx(power_w, rel=1e-9, abs=1e-9 * rated_w)


def test_reactive_power_gets_what_active_power_leaves() -> None:
    assert reactive_within(9000.0, 6000.0, 10_000.0) == pytest.approx(8000.0)  # 6-8-10
    assert reactive_within(-9000.0, 6000.0, 10_000.0) == pytest.approx(-8000.0)


def test_reactive_power_within_the_rating_is_untouched() -> None:
    assert reactive_within(5000.0, 6000.0, 10_000.0) == 5000.0


def test_no_room_is_left_at_or_beyond_the_rating() -> None:
    assert reactive_within(5000.0, 10_000.0, 10_000.0) == 0.0
    assert reactive_within(5000.0, 11_000.0, 10_000.0) == 0.0


@given(st.floats(-1e6, 1e6), st.floats(-1.0, 1.0), st.floats(1.0, 1e6))
def test_the_rating_holds(reactive_var: float, load: float, rating_va: float) -> None:
    power_w = load * rating_va
    within = reactive_within(reactive_var, power_w, rating_va)
    assert math.hypot(within, power_w) <= rating_va * (1.0 + 1e-12)
    assert abs(within) <= abs(reactive_var)
