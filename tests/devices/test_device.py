"""What a command takes."""

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from dertwin.devices.device import CommandRange

SETPOINT = CommandRange(-20.0, 50.0)
SWITCH = CommandRange(0.0, 1.0, frozenset((0.0, 1.0)))
POWER_FACTOR = CommandRange(-1.0, 1.0, least_size=0.1)


@given(st.floats(allow_nan=False))
def test_a_value_is_taken_as_the_closest_within_the_range(value: float) -> None:
    assert SETPOINT.accept(value) == min(50.0, max(-20.0, value))


@pytest.mark.parametrize("accepts", [SETPOINT, SWITCH, POWER_FACTOR, CommandRange(-math.inf, math.inf)])
def test_what_is_no_number_is_refused(accepts: CommandRange) -> None:
    assert accepts.accept(math.nan) is None


def test_infinity_is_taken_only_where_there_is_an_end_to_it() -> None:
    half_open = CommandRange(-math.inf, 100.0)
    assert (half_open.accept(math.inf), half_open.accept(-math.inf)) == (100.0, None)


@pytest.mark.parametrize(
    ("value", "taken"), [(0.0, 0.0), (1.0, 1.0), (0.5, None), (2.0, None), (math.inf, None)]
)
def test_only_allowed_values_are_taken_where_they_are_listed(value: float, taken: float | None) -> None:
    assert SWITCH.accept(value) == taken


@pytest.mark.parametrize(
    ("value", "taken"), [(0.0, None), (-0.0, None), (0.099, None), (-0.099, None), (0.1, 0.1), (-7.0, -1.0)]
)
def test_nothing_closer_to_zero_than_the_least_size_is_taken(value: float, taken: float | None) -> None:
    assert POWER_FACTOR.accept(value) == taken


def test_it_says_what_to_use_in_the_unit_asked_for() -> None:
    assert CommandRange(-20e3, 50e3).in_words(0.001) == "use -20 to 50"
    assert SWITCH.in_words() == "use one of 0, 1"
    assert POWER_FACTOR.in_words() == "use -1 to -0.1 or 0.1 to 1"
