"""Arithmetic on sampled signals: exact for what is linear between samples, NaN for what is not known."""

import math

import pytest

from dertwin.scenario.packs import sampled
from dertwin.scenario.record import Signal

# A trapezoid: up from 0 to 10 within 2 s to 4 s, held, down to 0 within 7 s to 8 s.
CORNERS = [(0.0, 0.0), (2.0, 0.0), (4.0, 10.0), (7.0, 10.0), (8.0, 0.0), (10.0, 0.0)]


def trapezoid(dt_s: float) -> Signal:
    corners = Signal([t for t, _ in CORNERS], [value for _, value in CORNERS])
    times = [index * dt_s for index in range(round(10 / dt_s) + 1)]
    return Signal(times, [sampled.value_at(corners, min(t, 10.0)) for t in times])


@pytest.mark.parametrize("dt_s", [0.1, 0.25, 0.5, 1.0])
def test_areas_extremes_and_times_are_exact_whatever_the_step(dt_s: float) -> None:
    signal = trapezoid(dt_s)
    whole = sampled.stretch(signal, 0.0, 10.0)
    assert sampled.area(whole) == pytest.approx(10 + 30 + 5)
    assert sampled.mean(whole) == pytest.approx(4.5)
    assert sampled.area(sampled.stretch(signal, 2.33, 3.77)) == pytest.approx(2.5 * (1.77**2 - 0.33**2))
    assert (sampled.lowest(whole), sampled.highest(whole)) == (0.0, 10.0)
    assert sampled.first_at_least(whole, 6.0) == pytest.approx(3.2)
    assert sampled.settled_at(whole, -1.0, 4.0) == pytest.approx(7.6)
    assert sampled.settled_at(sampled.stretch(signal, 0.0, 6.0), 9.0, 11.0) == pytest.approx(3.8)
    assert sampled.steepest_fall(signal, 0.0, 10.0, 0.5) == pytest.approx(5.0)
    assert sampled.steepest_fall(signal, 0.0, 10.0, 3.0) == pytest.approx(10.0)


@pytest.mark.parametrize("dt_s", [0.1, 0.5, 1.0])
def test_the_largest_area_above_a_level_ends_where_the_level_is_crossed(dt_s: float) -> None:
    # Up to 7.6 s the signal is above 4: 3 s of 6, a triangle up from 2.8 s, one down to 7.6 s; then below.
    points = sampled.stretch(trapezoid(dt_s), 2.8, 10.0)
    assert sampled.largest_area_above(points, 4.0) == pytest.approx(18 + 6 * 1.2 / 2 + 6 * 0.6 / 2)
    assert sampled.largest_area_above(points, 20.0) == 0.0
    assert sampled.largest_area_above(points, -1.0) == pytest.approx(sampled.area(points) + 7.2)


def test_a_record_reaches_one_and_a_half_steps_beyond_its_ends() -> None:
    signal = Signal([1.0, 2.0, 3.0], [5.0, 6.0, 7.0])
    assert sampled.value_at(signal, -0.4) == 5.0
    assert sampled.value_at(signal, 4.4) == 7.0
    assert math.isnan(sampled.value_at(signal, -0.6))
    assert math.isnan(sampled.value_at(signal, 4.6))


@pytest.mark.parametrize(
    "points",
    [
        sampled.stretch(Signal([], []), 0.0, 1.0),
        sampled.stretch(trapezoid(0.5), 5.0, 20.0),
        sampled.stretch(trapezoid(0.5), math.nan, 5.0),
        sampled.stretch(Signal([0.0, 1.0, 2.0], [1.0, math.nan, 3.0]), 0.5, 2.0),
        sampled.stretch(Signal([0.0, 1.0, 2.0], [1.0, math.inf, 3.0]), 0.0, 2.0),
    ],
)
def test_of_what_is_not_known_nothing_is_said(points: sampled.Points) -> None:
    assert points == []
    for measured in (
        sampled.area(points),
        sampled.mean(points),
        sampled.lowest(points),
        sampled.highest(points),
        sampled.largest_area_above(points, 0.0),
        sampled.first_at_least(points, 0.0),
        sampled.settled_at(points, 0.0, 1.0),
    ):
        assert math.isnan(measured)


def test_what_never_happens_has_no_time() -> None:
    whole = sampled.stretch(trapezoid(0.5), 0.0, 10.0)
    assert math.isnan(sampled.first_at_least(whole, 11.0))
    assert math.isnan(sampled.settled_at(whole, 5.0, 11.0))
    assert sampled.settled_at(whole, -1.0, 11.0) == 0.0


def test_the_least_and_the_most_of_something_unknown_are_unknown() -> None:
    assert (sampled.least(3.0, 1.0, 2.0), sampled.most(3.0, 1.0)) == (1.0, 3.0)
    assert math.isnan(sampled.least(1.0, math.nan))
    assert math.isnan(sampled.most(math.nan, 1.0))
