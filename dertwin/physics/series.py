"""A value over time given by points, and how it is read from a CSV file."""

import csv
import math
from array import array
from bisect import bisect_right
from collections.abc import Sequence
from itertools import pairwise
from pathlib import Path

from dertwin.documents import LARGEST, SMALLEST


class Series:
    """Points of time (s) and value: linear between them, the first and last value held outside.

    With `repeat` the points from first to last start over for ever; the last is the first of the next round.
    Raises ValueError unless the times rise.
    """

    def __init__(self, times: Sequence[float], values: Sequence[float], repeat: bool = False) -> None:
        for earlier, later in pairwise(times):
            if later <= earlier:
                raise ValueError(f"times must rise, {later:g} comes after {earlier:g}")
        if not times or (repeat and len(times) < 2):
            raise ValueError("at least one point is needed, to repeat two")
        self.times = array("d", times)
        self.values = array("d", values)
        self.period_s = times[-1] - times[0] if repeat else 0.0

    def at(self, time_s: float) -> float:
        """Return the value at a time (s)."""
        times = self.times
        if self.period_s:
            time_s = times[0] + (time_s - times[0]) % self.period_s
        after = bisect_right(times, time_s)
        if after == 0:
            return self.values[0]
        if after == len(times):
            return self.values[-1]
        start_s = times[after - 1]
        start = self.values[after - 1]
        share = (time_s - start_s) / (times[after] - start_s)
        return start + (self.values[after] - start) * share


def read_series(path: Path, repeat: bool) -> Series:
    """Read a CSV file of `time,value` lines (s since midnight of the first day; one header line is allowed).

    Raises ValueError naming file and line.
    """
    times: list[float] = []
    values: list[float] = []
    try:
        with path.open(newline="", encoding="utf-8-sig") as file:
            rows = csv.reader(file)
            for row in rows:
                if not row or row[0].startswith("#"):
                    continue
                point = _point(row)
                if point is None:
                    if rows.line_num == 1:
                        continue
                    raise ValueError(f"line {rows.line_num}: {','.join(row)!r} is not a line of time,value")
                for text, number in zip(row, point, strict=True):
                    if number != 0.0 and not SMALLEST <= abs(number) <= LARGEST:
                        allowed = f"use 0 or a size from {SMALLEST:g} to {LARGEST:g}"
                        raise ValueError(f"line {rows.line_num}: {text.strip()} is not allowed; {allowed}")
                if times and point[0] <= times[-1]:
                    raise ValueError(
                        f"line {rows.line_num}: time {row[0].strip()} does not come after {times[-1]:g}"
                    )
                times.append(point[0])
                values.append(point[1])
            return Series(times, values, repeat)
    except OSError as error:
        raise ValueError(f"{path}: cannot be read: {error.strerror}") from None
    except UnicodeDecodeError:
        raise ValueError(f"{path}: is not a text file") from None
    except (ValueError, csv.Error) as error:
        raise ValueError(f"{path}: {error}") from None


def _point(row: Sequence[str]) -> tuple[float, float] | None:
    try:
        time_s, value = row
        point = float(time_s), float(value)
    except ValueError:
        return None
    return point if math.isfinite(point[0]) and math.isfinite(point[1]) else None
