"""The sliding mean against a mean over the full history."""

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from dertwin.physics.sliding import SlidingMean

Held = st.tuples(st.floats(-1e6, 1e6), st.sampled_from([0.0, 0.01, 0.1, 0.7, 1.0, 3.3, 10.0, 47.0, 3600.0]))


def mean_of_history(held: list[tuple[float, float]], start: float, window_s: float, bucket_s: float) -> float:
    """The mean over the last window; what is left of the oldest bucket counts with that bucket's mean."""
    end_s = sum(dt for _, dt in held)
    first = int(end_s / bucket_s + 1e-9) * bucket_s - window_s  # where the oldest bucket begins

    def integral(begin_s: float, until_s: float) -> float:
        total, t = start * max(0.0, min(until_s, 0.0) - begin_s), 0.0
        for value, dt in held:
            total += value * max(0.0, min(until_s, t + dt) - max(begin_s, t))
            t += dt
        return total

    kept = 1.0 - (end_s - window_s - first) / bucket_s
    oldest = integral(first, first + bucket_s) * kept
    return (oldest + integral(first + bucket_s, end_s)) / window_s


@settings(max_examples=200, deadline=None)
@given(st.lists(Held, max_size=30))
def test_it_is_the_mean_of_the_window_whatever_the_steps(held: list[tuple[float, float]]) -> None:
    mean = SlidingMean.of(5.0, 1.0, 10)
    result = 5.0
    for value, dt_s in held:
        result = mean.push(value, dt_s)
    assert result == pytest.approx(mean_of_history(held, 5.0, 10.0, 1.0), rel=1e-9, abs=1e-6)


def test_a_constant_stays_itself() -> None:
    mean = SlidingMean.of(230.1, 30.0, 20)
    assert all(abs(mean.push(230.1, 0.1) - 230.1) < 1e-9 for _ in range(100_000))


def test_rounding_does_not_add_up_over_a_week() -> None:
    mean = SlidingMean.of(0.0, 1.0, 900)
    for second in range(7 * 24 * 3600):
        mean.push(1e9 if second % 2 else -1e9 / 3.0, 1.0)
    for _ in range(900):
        result = mean.push(0.1, 1.0)
    assert abs(result - 0.1) < 1e-12


def test_memory_is_bounded_at_any_step() -> None:
    mean = SlidingMean.of(0.0, 1.0, 900)
    for dt_s in (0.01, 0.1, 1.0, 60.0, 3600.0):
        for _ in range(1000):
            mean.push(1.0, dt_s)
    assert len(mean.buckets) == 900
