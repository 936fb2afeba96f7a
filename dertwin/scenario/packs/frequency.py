"""Frequency sequences of verdict packs, and whether a run really had them."""

import math
from bisect import bisect_left, bisect_right
from collections.abc import Mapping, Sequence
from itertools import pairwise
from typing import Any

from dertwin.physics.series import Series
from dertwin.scenario.packs.evidence import Evidence
from dertwin.scenario.packs.figures import Figure
from dertwin.scenario.packs.sampled import spacing
from dertwin.scenario.record import Requirement

FREQUENCY = "site.frequency_hz"
NOMINAL_HZ = 50.0
# A jump in a table that is linear between points: shorter than any sampling interval.
JUMP_S = 0.001

Point = tuple[float, float]


class Ramps:
    """A frequency over time (s) made of ramps; what lies between them is held."""

    def __init__(self, start_hz: float) -> None:
        """Begin at a frequency."""
        self.points: list[Point] = [(0.0, start_hz)]

    def ramp(self, start_s: float, slope_hz_per_s: float, to_hz: float) -> float:
        """Go to a frequency from start_s on; return the time at which it is there (s)."""
        from_hz = self.points[-1][1]
        end_s = start_s + abs(to_hz - from_hz) / slope_hz_per_s
        return self._go(start_s, end_s, to_hz)

    def jump(self, start_s: float, to_hz: float) -> None:
        """Be at another frequency from start_s on."""
        self._go(start_s, start_s + JUMP_S, to_hz)

    def _go(self, start_s: float, end_s: float, to_hz: float) -> float:
        from_hz = self.points[-1][1]
        if start_s > self.points[-1][0]:
            self.points.append((start_s, from_hz))
        if to_hz != from_hz:
            self.points.append((end_s, to_hz))
        return end_s

    def action(self, duration_s: float) -> Mapping[str, Any]:
        """Return the action that plays the sequence for duration_s (s)."""
        table = [list(point) for point in self.points]
        return {"environment": "frequency_hz", "table": table, "duration": duration_s}


def played(evidence: Evidence, points: Sequence[Point], allowed: Figure) -> Requirement:
    """Require that the site's frequency was the sequence, but for one sampling interval of time.

    What a device did in a run with another frequency says nothing of its EMS.
    """
    signal = evidence.signal(FREQUENCY)
    series = Series([time_s for time_s, _ in points], [hz for _, hz in points])
    slack_s = spacing(signal)
    worst = 0.0 if signal.times else math.nan
    for time_s, hz in zip(*signal, strict=True):
        if time_s <= 0.0:
            continue  # the sequence acts from the next step on
        off = abs(hz - series.at(time_s))
        if not off <= allowed.value:
            off = _off_nearby(series, time_s, slack_s, hz)
        if not off <= worst:
            worst = off
    detail = "the largest difference between the frequency of the site and the sequence"
    measured = worst if math.isnan(worst) else round(worst, 9)
    return evidence.require("frequency as planned", measured, allowed, high=allowed.value, detail=detail)


def _off_nearby(series: Series, time_s: float, slack_s: float, hz: float) -> float:
    start_s, end_s = time_s - slack_s, time_s + slack_s
    corners = series.values[bisect_left(series.times, start_s) : bisect_right(series.times, end_s)]
    near = [series.at(start_s), series.at(end_s), *corners]
    return max(min(near) - hz, hz - max(near), 0.0) if math.isfinite(hz) else math.nan


def sampled_often(evidence: Evidence, allowed: Figure) -> Requirement:
    """Require that no two samples are further apart than a document allows (s)."""
    times = evidence.signal(FREQUENCY).times
    gaps = [later - earlier for earlier, later in pairwise(times)]
    measured = round(max(gaps, default=math.nan), 6)
    detail = "the longest time between two samples"
    return evidence.require("sampling", measured, allowed, high=allowed.value, detail=detail)
