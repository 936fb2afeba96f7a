"""Limit, ramp, lag and count: what everything moves with."""

import decimal
import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from dertwin.stepping import clamp, count, decay, lag, ramp

values = st.floats(-1e9, 1e9)
steps = st.floats(0.01, 3600.0)


def test_clamp_returns_what_is_within_and_the_nearer_bound_of_what_is_not() -> None:
    assert clamp(0.5, -1.0, 1.0) == 0.5
    assert clamp(7.0, -1.0, 1.0) == 1.0
    assert clamp(-7.0, -1.0, 1.0) == -1.0
    assert clamp(math.inf, -1.0, 1.0) == 1.0


def test_clamp_to_reversed_bounds_returns_the_low_one() -> None:
    assert clamp(5.0, 2.0, 1.0) == 2.0
    assert clamp(0.0, 2.0, 1.0) == 2.0


def test_ramp_moves_at_its_rate() -> None:
    assert ramp(1000.0, 20_000.0, 100.0, 0.5) == 1050.0
    assert ramp(1000.0, -20_000.0, 100.0, 0.5) == 950.0


def test_ramp_arrives_exactly_when_the_target_is_within_reach() -> None:
    assert ramp(0.1, 0.3, 1.0, 3600.0) == 0.3
    assert ramp(0.3, 0.1, 1.0, 3600.0) == 0.1


def test_ramp_stands_still_in_no_time_or_at_no_rate() -> None:
    assert ramp(3.0, 9.0, 100.0, 0.0) == 3.0
    assert ramp(3.0, 9.0, 0.0, 100.0) == 3.0


@given(values, values, st.floats(0.0, 1e6), steps)
def test_ramp_never_leaves_the_way_to_its_target(
    current: float, target: float, rate: float, dt_s: float
) -> None:
    low, high = min(current, target), max(current, target)
    assert low <= ramp(current, target, rate, dt_s) <= high


@given(values, st.floats(1.0, 1e6), steps)
def test_ramp_stays_at_its_target(target: float, rate: float, dt_s: float) -> None:
    assert ramp(target, target, rate, dt_s) == target


def test_lag_has_gone_63_percent_of_the_way_after_its_time_constant() -> None:
    assert lag(0.0, 100.0, 10.0, 10.0) == pytest.approx(63.21205588285577, rel=1e-15)


def test_lag_without_time_constant_is_at_its_target_at_once() -> None:
    assert lag(5.0, 9.0, 0.0, 0.1) == 9.0


def test_lag_stands_still_in_no_time() -> None:
    assert lag(5.0, 9.0, 10.0, 0.0) == 5.0


@given(values, values, st.floats(0.1, 1e5), steps)
def test_lag_stays_between_start_and_target_however_long_the_step(
    current: float, target: float, tau_s: float, dt_s: float
) -> None:
    margin = 1e-15 * (abs(current) + abs(target))  # a rounding of the difference
    after = lag(current, target, tau_s, dt_s)
    assert min(current, target) - margin <= after <= max(current, target) + margin


@given(st.floats(0.1, 1e5), steps)
def test_two_lags_of_half_a_step_are_one_of_the_whole(tau_s: float, dt_s: float) -> None:
    halfway = lag(20.0, 75.0, tau_s, dt_s / 2)
    assert lag(halfway, 75.0, tau_s, dt_s / 2) == pytest.approx(lag(20.0, 75.0, tau_s, dt_s), rel=1e-12)


def test_decay_is_the_same_number_to_the_last_bit_everywhere() -> None:
    # exp(-1) and exp(-6), rounded to the nearest double from more digits than it holds.
    assert decay(1.0, 1.0).hex() == "0x1.78b56362cef38p-2"
    assert decay(3600.0, 600.0).hex() == "0x1.44e51f113d4d6p-9"


def test_decay_is_whole_in_no_time_and_gone_without_time_constant_or_after_ages() -> None:
    assert decay(0.0, 5.0) == 1.0
    assert decay(1.0, 0.0) == 0.0
    assert decay(3600.0, 1e-6) == 0.0


@given(steps, st.floats(0.01, 1e6))
def test_decay_is_the_exponential_function(dt_s: float, tau_s: float) -> None:
    assert decay(dt_s, tau_s) == pytest.approx(math.exp(-dt_s / tau_s), rel=1e-11, abs=1e-300)


def test_decay_does_not_depend_on_the_decimal_context_of_the_caller() -> None:
    decay.cache_clear()
    with decimal.localcontext(prec=3, rounding=decimal.ROUND_UP):
        coarse = decay(0.1, 6000.0)
    decay.cache_clear()
    assert coarse == decay(0.1, 6000.0)


def test_a_counter_of_a_million_small_amounts_is_right_to_its_last_digit() -> None:
    # Plain addition is off by 1e-6 here: each 0.1 is rounded to the digits of the growing total.
    total = rest = 0.0
    for _ in range(1_000_000):
        total, rest = count(total, rest, 0.1)
    assert total == 100_000.0


@given(st.floats(0.0, 1e9), st.lists(st.floats(0.0, 1e3)))
def test_a_counter_never_falls_and_loses_nothing(total: float, amounts: list[float]) -> None:
    start, rest = total, 0.0
    for amount in amounts:
        before = total
        total, rest = count(total, rest, amount)
        assert total >= before
    assert total == pytest.approx(math.fsum([start, *amounts]), rel=3e-16)


def test_a_counter_whose_last_digit_was_rounded_up_does_not_fall_again() -> None:
    total, rest = 3618.3293682952176, -2.2737367544323206e-13
    assert count(total, rest, 4.5e-28)[0] == total
