"""Plots of recorded signals as SVG: what was expected is shaded, what happened is marked."""

import math
from bisect import bisect_left
from collections.abc import Iterator, Sequence
from typing import NamedTuple

from bench.report.bands import Band, Edge, bands
from bench.report.words import attribute, number, quantity, text, unit
from dertwin.scenario.expectations import Checked
from dertwin.scenario.record import Record, Signal

WIDTH, LEFT, RIGHT = 800, 66, 790
TOP, HEIGHT, BOTTOM = 34, 92, 20
MARK_GAP = 24
_EDGE_POINTS = 400
# How a line is drawn, before its name: told apart without colour too.
_DASHES = {"command": "\u2013 \u2013", "shown": "\u00b7 \u00b7 \u00b7", "main": ""}
# A limit further away than this many times the range of the signal would flatten it.
_FAR = 4.0


HATCH = (
    '<svg class="defs" width="0" height="0" aria-hidden="true"><defs>'
    '<pattern id="hatch" width="6" height="6" patternUnits="userSpaceOnUse" patternTransform="rotate(45)">'
    '<path d="M0 0V6"/></pattern></defs></svg>'
)
"""What areas that a signal must not enter are filled with; once in a page."""


class Mark(NamedTuple):
    """A moment (s) with the label that stands for it in the tables; `bad` if it is a failure."""

    time_s: float
    label: str
    bad: bool = False


class Panel(NamedTuple):
    """A plot: one signal, and those that belong to it: its setpoint, and what its registers show."""

    signal: str
    with_: Sequence[str]


class Axes(NamedTuple):
    """Where times (0..end_s) and values (low..high) are in a plot."""

    end_s: float
    low: float
    high: float

    def x(self, time_s: float) -> float:
        """Return where a time is, in the plot or at its edge."""
        return LEFT + (RIGHT - LEFT) * min(1.0, max(0.0, time_s / self.end_s))

    def y(self, value: float) -> float:
        """Return where a value is, in the plot or at its edge."""
        share = (value - self.low) / (self.high - self.low)
        return TOP + HEIGHT * (1.0 - min(1.0, max(0.0, share)))


def panels(names: Sequence[str]) -> list[Panel]:
    """Return the plots of signals, in their order."""
    found: dict[str, list[str]] = {}
    for name in names:
        main = name.replace(".shown.", ".").replace(".command.", ".").replace("_setpoint", "")
        if main != name and main in names:
            found.setdefault(main, []).append(name)
        else:
            found.setdefault(name, [])
    return [Panel(name, found[name]) for name in sorted(found, key=list(names).index)]


def plot(panel: Panel, record: Record, end_s: float, checks: Sequence[Checked], marks: Sequence[Mark]) -> str:
    """Return a plot as an SVG element. `checks` are all of the case: the number of one is its place."""
    judged = [
        (f"E{place}", check, band)
        for place, check in enumerate(checks, start=1)
        for band in bands(check.expectation)
        if band.signal == panel.signal
    ]
    names = [panel.signal, *panel.with_]
    values = [value for name in names for value in record.columns[name] if math.isfinite(value)]
    axes = Axes(end_s or 1.0, *_range(values, [band for _, _, band in judged]))
    drawing = [
        *_grid(axes),
        *(piece for each in judged for piece in _expected(*each, record, axes)),
        *_marked(marks, axes),
        *(_line(name, record.signal(name), axes) for name in names),
        *(_failure(label, check, band, record, axes) for label, check, band in judged),
        *_title(panel, values),
    ]
    bottom = TOP + HEIGHT + BOTTOM
    head = f'<svg viewBox="0 0 {WIDTH} {bottom}" role="img" aria-label={attribute(panel.signal)}>'
    return "\n".join([head, *filter(None, drawing), "</svg>"])


def trace(signal: Signal, axes: Axes) -> str:
    """Return the path of a signal: in each column of pixels its extremes, so that no peak is lost."""
    times, values = signal
    path: list[str] = []
    start, now = 0, ""
    width = RIGHT - LEFT
    for column in range(width + 1):
        end = bisect_left(times, axes.end_s * (column + 0.5) / width, start)
        if end == start:
            continue
        chunk, start = _finite(values[start:end]), end
        if not chunk:
            path += [f"H{LEFT + column}"] if now else []
            now = ""
            continue
        stops = [f"{axes.y(value):.1f}" for value in (min(chunk), max(chunk), chunk[-1])]
        if not now:
            now = f"{axes.y(chunk[0]):.1f}"
            path.append(f"M{LEFT + column} {now}")
        elif any(stop != now for stop in stops):
            path.append(f"H{LEFT + column}")
        for stop in stops:
            if stop != now:
                path.append(f"V{stop}")
                now = stop
    return "".join([*path, f"H{RIGHT}"] if now else path)


def ticks(low: float, high: float, count: int) -> list[float]:
    """Return round numbers from low to high, about so many."""
    rough = (high - low) / count
    power = 10.0 ** math.floor(math.log10(rough))
    step = next(power * factor for factor in (1, 2, 2.5, 5, 10) if power * factor >= rough * 0.999)
    first = math.ceil(low / step - 1e-9)
    return [step * index for index in range(first, math.floor(high / step + 1e-9) + 1)]


def _finite(values: Sequence[float]) -> Sequence[float]:
    return values if math.isfinite(sum(values)) else [value for value in values if math.isfinite(value)]


def _range(values: Sequence[float], judged: Sequence[Band]) -> tuple[float, float]:
    """Return what the value axis covers: the values, and the limits that are not too far from them."""
    low, high = (min(values), max(values)) if values else (0.0, 0.0)
    reach = _FAR * (high - low) or 0.5 * abs(high) or 1.0
    for band in judged:
        for edge in (band.low, band.high):
            if edge and not edge.signal and low - reach <= edge.offset <= high + reach:
                low, high = min(low, edge.offset), max(high, edge.offset)
    room = 0.08 * (high - low) or 0.05 * abs(high) or 1.0
    return low - room, high + room


def _grid(axes: Axes) -> Iterator[str]:
    yield f'<rect class="frame" x="{LEFT}" y="{TOP}" width="{RIGHT - LEFT}" height="{HEIGHT}"/>'
    for value in ticks(axes.low, axes.high, 4):
        y = f"{axes.y(value):.1f}"
        yield f'<path class="grid" d="M{LEFT} {y}H{RIGHT}"/>'
        yield f'<text class="tick" x="{LEFT - 6}" y="{y}" dy="4" text-anchor="end">{number(value)}</text>'
    for time_s in ticks(0.0, axes.end_s, 10):
        x = f"{axes.x(time_s):.1f}"
        yield f'<path class="grid" d="M{x} {TOP}v{HEIGHT}"/>'
        yield (
            f'<text class="tick" x="{x}" y="{TOP + HEIGHT + 14}" text-anchor="middle">'
            f"{number(time_s) if time_s else '0 s'}</text>"
        )


def _title(panel: Panel, values: Sequence[float]) -> Iterator[str]:
    of = unit(panel.signal)
    parts = [f'<tspan class="name">{text(panel.signal)}</tspan>']
    parts += [
        f'<tspan dx="14" class="{_kind(name)}">{_DASHES[_kind(name)]} {text(name)}</tspan>'
        for name in panel.with_
    ]
    yield f'<text class="title" x="{LEFT}" y="12">{"".join(parts)}</text>'
    spread = f"{number(min(values))} … {quantity(max(values), of)}" if values else "no value"
    yield f'<text class="tick" x="{RIGHT}" y="12" text-anchor="end">{spread}</text>'


def _kind(name: str) -> str:
    return "command" if ".command." in name else "shown" if ".shown." in name else "main"


def _line(name: str, signal: Signal, axes: Axes) -> str:
    return f'<path class="{_kind(name)}" d="{trace(signal, axes)}"/>'


def _marked(marks: Sequence[Mark], axes: Axes) -> Iterator[str]:
    """Draw moments; the labels of those too close to each other to be told apart are joined."""
    groups: list[list[Mark]] = []
    for mark in sorted(marks):
        kind = "bad mark" if mark.bad else "mark"
        yield f'<path class="{kind}" d="M{axes.x(mark.time_s):.1f} {TOP - 4}v{HEIGHT + 4}"/>'
        if groups and axes.x(mark.time_s) - axes.x(groups[-1][0].time_s) < MARK_GAP:
            groups[-1].append(mark)
        else:
            groups.append([mark])
    for group in groups:
        label = group[0].label if len(group) == 1 else f"{group[0].label}\u2013{group[-1].label}"
        kind = "bad label" if any(mark.bad for mark in group) else "label"
        x = axes.x(group[0].time_s)
        yield f'<text class="{kind}" x="{x:.1f}" y="{TOP - 7}" text-anchor="middle">{text(label)}</text>'


def _expected(label: str, check: Checked, band: Band, record: Record, axes: Axes) -> Iterator[str]:
    """Shade where a signal had to lie: lighter while it still had time to get there."""
    end_s = axes.end_s if math.isnan(check.decided_s) else check.decided_s
    for start_s, until_s, kind in _phases(check, end_s):
        shape = "band" if band.allowed else "ban"
        low, high = (_edge(edge, start_s, until_s, record, axes) for edge in (band.low, band.high))
        area = [*(high or _corners(start_s, until_s, TOP, axes))]
        area += reversed(low or _corners(start_s, until_s, TOP + HEIGHT, axes))
        yield f'<path class="{shape} area {kind}" d="{_joined(area)}Z"/>'
        for points in filter(None, (low, high)):
            # A limit beyond the axis is not at its end: there is only the area.
            if any(TOP < y < TOP + HEIGHT for _, y in points):
                yield f'<path class="{shape} limit {kind}" d="{_joined(points)}"/>'
    at = _edge(band.high or band.low, check.armed_s, end_s, record, axes)
    if at:
        x, y = at[0]
        below = y < TOP + HEIGHT / 2 if band.high else y < TOP + HEIGHT - 14
        dy = 11 if below else -4
        kind = "bad label" if check.outcome == "failed" else "label"
        yield f'<text class="{kind}" x="{min(x + 3, RIGHT - 18):.1f}" y="{y:.1f}" dy="{dy}">{label}</text>'


def _phases(check: Checked, end_s: float) -> Iterator[tuple[float, float, str]]:
    """Yield from when to when a check waited, and when it had to hold."""
    held_s = check.armed_s
    if check.expectation.within is not None:
        held_s = end_s if math.isnan(check.became_s) else check.armed_s + check.became_s
    if held_s > check.armed_s:
        yield check.armed_s, held_s, "waiting"
    if end_s > held_s:
        yield held_s, end_s, "held"


Points = list[tuple[float, float]]


def _corners(start_s: float, end_s: float, y: float, axes: Axes) -> Points:
    return [(axes.x(start_s), y), (axes.x(end_s), y)]


def _edge(edge: Edge | None, start_s: float, end_s: float, record: Record, axes: Axes) -> Points:
    """Return the line of an edge; none if it is open, or the signal that it follows has no value."""
    if edge is None:
        return []
    if not edge.signal:
        return _corners(start_s, end_s, axes.y(edge.offset), axes)
    times, values = record.signal(edge.signal).between(start_s, end_s)
    stride = max(1, len(times) // _EDGE_POINTS)
    return [
        (axes.x(time_s), axes.y(value + edge.offset))
        for time_s, value in zip(times[::stride], values[::stride], strict=True)
        if math.isfinite(value)
    ]


def _joined(points: Points) -> str:
    return "M" + "L".join(f"{x:.1f} {y:.1f}" for x, y in points)


def _failure(label: str, check: Checked, band: Band, record: Record, axes: Axes) -> str:
    """Cross out where a signal was when the check failed."""
    if check.outcome != "failed":
        return ""
    value = record.signal(band.signal).at(check.decided_s)
    x, y = axes.x(check.decided_s), axes.y(value) if math.isfinite(value) else TOP + HEIGHT
    cross = f"M{x - 4:.1f} {y - 4:.1f}l8 8m0 -8l-8 8"
    return f'<path class="cross" d="{cross}"><title>{text(label)}: {text(check.text)}</title></path>'
