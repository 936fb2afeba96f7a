"""Arithmetic on sampled signals, exact for what is linear between its samples.

A power or a frequency of the site is a continuous quantity whose samples are its true values at their
instants, so it is taken to be linear between them: areas, extremes and times are then exact for ramps
wherever the samples lie, and off by the square of the sampling interval for a lag. (Holding each sample
would shift every ramp by half an interval.) A jump is only known to lie between two samples: times
are within one interval of it.

All functions take points, (time in s, value) with rising times, as `stretch` returns them; of no points
nothing is known, which is NaN.
"""

import math
from bisect import bisect_left, bisect_right
from collections.abc import Sequence
from itertools import pairwise

from dertwin.scenario.record import Signal

Points = Sequence[tuple[float, float]]
TOLERANCE_S = 1e-6


def spacing(signal: Signal) -> float:
    """Return the mean time between samples (s); 0 if there are none."""
    count = len(signal.times)
    return (signal.times[-1] - signal.times[0]) / (count - 1) if count > 1 else 0.0


def value_at(signal: Signal, time_s: float) -> float:
    """Return the value at a time; NaN where the record does not reach.

    The first and the last sample stand for one and a half mean intervals beyond them: a run's first step
    ends after its start, its last one may end before the end.
    """
    times, values = signal
    if not times:
        return math.nan
    after = bisect_right(times, time_s)
    reach = 1.5 * spacing(signal) + TOLERANCE_S
    if after == 0:
        return values[0] if times[0] - time_s <= reach else math.nan
    if after == len(times):
        return values[-1] if time_s - times[-1] <= reach else math.nan
    start_s = times[after - 1]
    share = (time_s - start_s) / (times[after] - start_s)
    return values[after - 1] + (values[after] - values[after - 1]) * share


def stretch(signal: Signal, start_s: float, end_s: float) -> Points:
    """Return the signal from start_s to end_s, both ends included.

    Nothing if the record does not reach so far, or if a sample in it is no finite number.
    """
    first, last = value_at(signal, start_s), value_at(signal, end_s)
    low, high = bisect_right(signal.times, start_s), bisect_left(signal.times, end_s)
    inner = zip(signal.times[low:high], signal.values[low:high], strict=True)
    points = [(start_s, first), *inner, (end_s, last)]
    return points if all(math.isfinite(value) for _, value in points) else []


def area(points: Points) -> float:
    """Return the integral over the whole stretch (value times s)."""
    if not points:
        return math.nan
    return math.fsum((end - start) * (a + b) / 2 for (start, a), (end, b) in pairwise(points))


def mean(points: Points) -> float:
    """Return the mean over time."""
    return area(points) / (points[-1][0] - points[0][0]) if points else math.nan


def lowest(points: Points) -> float:
    """Return the lowest value."""
    return min((value for _, value in points), default=math.nan)


def highest(points: Points) -> float:
    """Return the highest value."""
    return max((value for _, value in points), default=math.nan)


def largest_area_above(points: Points, level: float) -> float:
    """Return the largest integral of (value - level) from the start to any time within the stretch."""
    if not points:
        return math.nan
    so_far = largest = 0.0
    for (start, a), (end, b) in pairwise(points):
        above, below = a - level, b - level
        if above > 0.0 > below:  # the largest lies where the level is crossed
            crossed = above / (above - below) * (end - start)
            largest = max(largest, so_far + above * crossed / 2)
        so_far += (above + below) / 2 * (end - start)
        largest = max(largest, so_far)
    return largest


def first_at_least(points: Points, level: float) -> float:
    """Return the first time at which the value is not below a level; NaN if that never happens."""
    if not points:
        return math.nan
    if points[0][1] >= level:
        return points[0][0]
    for (start, a), (end, b) in pairwise(points):
        if b >= level:
            return start + (level - a) / (b - a) * (end - start)
    return math.nan


def settled_at(points: Points, low: float, high: float) -> float:
    """Return the time from which the value stays within low..high to the end; NaN if it ends outside."""
    if not points or not low <= points[-1][1] <= high:
        return math.nan
    for (start, a), (end, b) in pairwise(reversed(points)):
        if not low <= b <= high:
            limit = low if b < low else high
            return end + (limit - b) / (a - b) * (start - end)
    return points[0][0]


def steepest_fall(signal: Signal, start_s: float, end_s: float, window_s: float) -> float:
    """Return how much the value falls at most within window_s (s), both ends of it within the stretch."""
    points = stretch(signal, start_s, end_s)
    if not points:
        return math.nan
    # The difference of two piecewise linear signals is extreme at a corner of one of them.
    ends = {end for time_s, _ in points for end in (time_s, time_s + window_s)}
    inside = [end for end in ends if start_s + window_s <= end <= end_s]
    return max((value_at(signal, end - window_s) - value_at(signal, end) for end in inside), default=math.nan)


def percentile(values: Sequence[float], share: float) -> float:
    """Return what a share (0..1) of the values does not exceed, linear between ranks; NaN if none."""
    if not values:
        return math.nan
    ranked = sorted(values)
    rank = share * (len(ranked) - 1)
    below = int(rank)
    above = min(below + 1, len(ranked) - 1)
    return ranked[below] + (ranked[above] - ranked[below]) * (rank - below)


def least(*values: float) -> float:
    """Return the least of values; NaN if one of them is NaN."""
    return math.nan if any(map(math.isnan, values)) else min(values)


def most(*values: float) -> float:
    """Return the greatest of values; NaN if one of them is NaN."""
    return math.nan if any(map(math.isnan, values)) else max(values)
