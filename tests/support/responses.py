"""Analytically known responses to the frequency of a verdict pack, and a record of a run with one of them."""

import math
from bisect import bisect_right
from collections.abc import Callable, Iterator, Mapping, Sequence
from itertools import pairwise
from typing import Any

from dertwin.physics.series import Series
from dertwin.scenario.packs import PACKS
from dertwin.scenario.packs.frequency import FREQUENCY
from dertwin.scenario.record import Record, Requirement

Response = Callable[[float], float]
Points = Sequence[tuple[float, float]]


def frequency_of(pack: str, params: Mapping[str, Any]) -> Points:
    """Return the points of the frequency that a pack plays."""
    plan = PACKS[pack].plan(PACKS[pack].params(**params))
    ((_, action),) = plan.actions
    return [(time_s, hz) for time_s, hz in action["table"]]


def droop(points: Points, none_hz: float, full_hz: float) -> Points:
    """Return the response of an ideal droop: 0 at none_hz, 1 at full_hz, with all its corners."""
    corners = []
    for (start_s, start), (end_s, end) in pairwise(points):
        inside = [edge for edge in (none_hz, full_hz) if min(start, end) < edge < max(start, end)]
        at = [(start_s + (edge - start) / (end - start) * (end_s - start_s), edge) for edge in inside]
        corners += [(start_s, start), *sorted(at)]
    corners.append(points[-1])
    return [(t, min(1.0, max(0.0, (hz - none_hz) / (full_hz - none_hz)))) for t, hz in corners]


def delayed(points: Points, delay_s: float, rated_w: float = 1.0) -> Response:
    """Return rated_w times what the points said delay_s ago."""
    series = Series([t for t, _ in points], [value for _, value in points])
    return lambda time_s: rated_w * series.at(time_s - delay_s)


def lagging(points: Points, delay_s: float, lag_s: float, rated_w: float = 1.0) -> Response:
    """Return the exact output of a first-order lag whose input is linear between the delayed points."""
    times = [t + delay_s for t, _ in points]
    outputs = [points[0][1]]
    pieces = list(_pieces(points))
    for (duration_s, start, slope), _ in zip(pieces, times, strict=False):
        outputs.append(_lag_output(outputs[-1], start, slope, duration_s, lag_s))

    def at(time_s: float) -> float:
        index = bisect_right(times, time_s) - 1
        if index < 0:
            return rated_w * points[0][1]
        since_s = time_s - times[index]
        start, slope = (pieces[index][1], pieces[index][2]) if index < len(pieces) else (points[-1][1], 0.0)
        return rated_w * _lag_output(outputs[index], start, slope, since_s, lag_s)

    return at


def rate_limited(points: Points, per_s: float, rated_w: float = 1.0, dt_s: float = 0.001) -> Response:
    """Return what follows the points at no more than per_s (their unit per second), found in small steps."""
    series = Series([t for t, _ in points], [value for _, value in points])
    value = points[0][1]
    values = [value]
    for index in range(1, round(points[-1][0] / dt_s) + 1):
        wanted = series.at(index * dt_s)
        value += min(per_s * dt_s, max(-per_s * dt_s, wanted - value))
        values.append(value)
    return lambda time_s: rated_w * values[min(round(time_s / dt_s), len(values) - 1)]


def run(
    pack: str,
    params: Mapping[str, Any],
    powers: Mapping[str, Response],
    dt_s: float = 0.1,
    start_s: float = 0.0,
    until_s: float = math.inf,
) -> Record:
    """Return the record of a run of a pack's plan, begun at start_s, in which devices have these powers (W).

    `powers` has functions of the time since the plan's start (s) by the name of a signal.
    """
    plan = PACKS[pack].plan(PACKS[pack].params(**params))
    record = Record([FREQUENCY, *powers])
    points = frequency_of(pack, params)
    frequency = Series([t for t, _ in points], [hz for _, hz in points])
    for index in range(round(min(plan.duration_s, until_s) / dt_s) + 1):
        time_s = index * dt_s
        record.times.append(start_s + time_s)
        record.columns[FREQUENCY].append(frequency.at(time_s))
        for name, power in powers.items():
            record.columns[name].append(power(time_s))
    return record


def judged(
    pack: str, params: Mapping[str, Any], record: Record, start_s: float = 0.0
) -> dict[str, Requirement]:
    """Return the requirements of a pack by name."""
    requirements = PACKS[pack].judge(PACKS[pack].params(**params), record, start_s)
    by_name = {requirement.name: requirement for requirement in requirements}
    assert len(by_name) == len(requirements), "two requirements have one name"
    return by_name


def unmet(requirements: Mapping[str, Requirement]) -> list[str]:
    """Return the names of what is not met."""
    return [name for name, requirement in requirements.items() if not requirement.met]


def _pieces(points: Points) -> Iterator[tuple[float, float, float]]:
    for (start_s, start), (end_s, end) in pairwise(points):
        yield end_s - start_s, start, (end - start) / (end_s - start_s)


def _lag_output(output: float, start: float, slope: float, since_s: float, lag_s: float) -> float:
    """Return the lag's output after since_s of an input that begins at start and rises by slope."""
    if lag_s == 0.0:
        return start + slope * since_s
    ramp = start + slope * (since_s - lag_s)
    return ramp + (output - start + slope * lag_s) * math.exp(-since_s / lag_s)
