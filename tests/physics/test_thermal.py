"""The temperature of a body that is heated inside and cooled outside."""

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from dertwin.physics.thermal import temperature_after

CAPACITY, CONDUCTANCE = 600_000.0, 100.0  # J/K, W/K: a time constant of 6000 s


def test_one_kilowatt_has_warmed_the_body_by_63_percent_of_10_k_after_its_time_constant() -> None:
    after = temperature_after(20.0, 20.0, 1000.0, CAPACITY, CONDUCTANCE, 6000.0)
    assert after == pytest.approx(20.0 + 10.0 * (1.0 - math.exp(-1.0)))


def test_without_heat_a_body_of_ambient_temperature_keeps_it() -> None:
    assert temperature_after(20.0, 20.0, 0.0, CAPACITY, CONDUCTANCE, 3600.0) == 20.0


def test_after_a_long_time_the_heat_goes_through_the_conductance() -> None:
    after = temperature_after(-10.0, 30.0, 500.0, CAPACITY, CONDUCTANCE, 1e6)
    assert after == pytest.approx(30.0 + 500.0 / CONDUCTANCE)


def test_in_a_short_time_all_heat_stays_in_the_body() -> None:
    after = temperature_after(20.0, 20.0, 1000.0, CAPACITY, CONDUCTANCE, 0.1)
    assert after - 20.0 == pytest.approx(1000.0 * 0.1 / CAPACITY, rel=1e-4)


@given(st.floats(0.01, 3600.0), st.integers(2, 20))
def test_the_length_of_the_steps_does_not_matter(dt_s: float, steps: int) -> None:
    temp_c = 45.0
    for _ in range(steps):
        temp_c = temperature_after(temp_c, 10.0, 300.0, CAPACITY, CONDUCTANCE, dt_s)
    at_once = temperature_after(45.0, 10.0, 300.0, CAPACITY, CONDUCTANCE, dt_s * steps)
    assert temp_c == pytest.approx(at_once, rel=1e-10)
