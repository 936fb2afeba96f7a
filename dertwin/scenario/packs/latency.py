"""Closed-loop latency: from a changed value on the wire to the write that reflects it, to the power."""

import math
from bisect import bisect_right
from collections.abc import Iterator, Sequence
from typing import Literal, NamedTuple

from pydantic import Field

from dertwin.scenario.pack import Plan
from dertwin.scenario.packs.evidence import Evidence, of_scenario
from dertwin.scenario.packs.figures import shipped
from dertwin.scenario.packs.frequency import Ramps
from dertwin.scenario.packs.sampled import first_at_least, percentile, stretch
from dertwin.scenario.packs.wire_words import Word
from dertwin.scenario.record import Record, Requirement, Signal
from dertwin.schema import FrozenModel

FIGURES = shipped("latency")
_PERCENT = 100.0
# In simulated time an EMS may write at the very time of the reply.
_AT_ONCE_S = 1e-6
# Upper ends of the bins of a histogram (s); what is longer is in one more.
BINS_S = (0.05, 0.1, 0.2, 0.5, 1.0, 2.0, 5.0, 10.0)

Quantity = Literal["frequency_hz", "voltage_ll_v", "irradiance_w_m2", "ambient_temp_c", "load_w"]
Series = Sequence[tuple[float, float]]


class Params(FrozenModel):
    """What changes, where the EMS reads it, what it writes in answer, and what comes of that.

    `quantity` of the surroundings jumps `count` times between the two `levels`, every `period_s` (s; best
    no multiple of the polling interval). `measurement` is where the EMS reads the consequence,
    `measurement_change` how much it must differ from what was served before the jump to be a change;
    `command` and `command_change` the same for what it writes. `power` is the signal that follows.
    `write_within_s` and `power_within_s` are what 95 % of the latencies must not exceed, both counted from
    the reply that first served the change.
    """

    quantity: Quantity
    levels: tuple[float, float] = Field(strict=False)
    count: int = Field(default=20, ge=1, le=1000)
    period_s: float = Field(default=7.3, gt=0)
    measurement: Word
    measurement_change: float = Field(gt=0)
    command: Word
    command_change: float = Field(gt=0)
    power: str = Field(min_length=1)
    write_within_s: float = Field(gt=0)
    power_within_s: float = Field(gt=0)


class _Answer(NamedTuple):
    """When a change was served first, written, and delivered (s); NaN for what did not come."""

    served_s: float
    written_s: float
    delivered_s: float


def plan(params: Params) -> Plan:
    """Return the jumps of the quantity."""
    jumps_s, end_s = _jumps(params)
    sequence = Ramps(params.levels[0])
    for index, jump_s in enumerate(jumps_s, 1):
        sequence.jump(jump_s, params.levels[index % 2])
    table = [list(point) for point in sequence.points]
    action = {"environment": params.quantity, "table": table, "duration": end_s}
    return Plan(end_s, [(0.0, action)], [params.power], exchanges=True)


def judge(params: Params, record: Record, start_s: float) -> list[Requirement]:
    """Judge a run of the plan that began at start_s (s)."""
    _, end_s = _jumps(params)
    evidence = Evidence(record, start_s, end_s)
    answers = list(_answers(params, evidence))
    to_write = [a.written_s - a.served_s for a in answers if not math.isnan(a.written_s)]
    to_power = [a.delivered_s - a.served_s for a in answers if not math.isnan(a.delivered_s)]
    served = sum(not math.isnan(a.served_s) for a in answers)
    counts = f"{served} of {params.count} changes served, {len(to_write)} written, {len(to_power)} delivered"
    reflected = FIGURES.numbers["reflected"]
    requirements = [
        evidence.require(name, float(len(found)), reflected, low=params.count, detail=counts)
        for name, found in (("changes written", to_write), ("changes delivered", to_power))
    ]
    to_write_s, to_power_s = params.write_within_s, params.power_within_s
    requirements += _spread(evidence, "served to write", to_write, to_write_s, "write_within_s")
    requirements += _spread(evidence, "served to power", to_power, to_power_s, "power_within_s")
    return requirements


def histogram(latencies: Sequence[float]) -> list[tuple[float, int]]:
    """Return how many latencies lie in each bin: (its upper end in s, count); the last has no upper end."""
    ends = [*BINS_S, math.inf]
    starts = [-math.inf, *BINS_S]
    return [
        (end, sum(start < latency <= end for latency in latencies))
        for start, end in zip(starts, ends, strict=True)
    ]


def _spread(
    evidence: Evidence, name: str, latencies: Sequence[float], limit_s: float, parameter: str
) -> Iterator[Requirement]:
    bins = [
        (f"up to {end:g} s" if math.isfinite(end) else "longer", count) for end, count in histogram(latencies)
    ]
    detail = ", ".join(f"{label}: {count}" for label, count in bins if count)
    figure = of_scenario(parameter, "s")
    for share, label, high in (
        (0.5, "median", math.inf),
        (0.95, "95 %", limit_s),
        (1.0, "longest", math.inf),
    ):
        yield evidence.require(
            f"{name}: {label}", percentile(latencies, share), figure, high=high, detail=detail
        )


def _answers(params: Params, evidence: Evidence) -> Iterator[_Answer]:
    reads, writes = _served(params, evidence), _written(params, evidence)
    power = evidence.signal(params.power)
    jumps_s, end_s = _jumps(params)
    for jump_s, next_s in zip(jumps_s, [*jumps_s[1:], end_s], strict=True):
        served_s = _first_served(params, reads, jump_s, next_s)
        written_s = _first_written(params, writes, served_s, next_s)
        yield _Answer(served_s, written_s, _delivered(power, written_s, next_s))


def _first_served(params: Params, reads: Series, jump_s: float, next_s: float) -> float:
    old = _value_at(reads, jump_s)
    return math.nan if old is None else _changed(reads, old, jump_s, next_s, params.measurement_change)


def _first_written(params: Params, writes: Series, served_s: float, next_s: float) -> float:
    if math.isnan(served_s):
        return math.nan
    before_s = served_s - _AT_ONCE_S
    old = _value_at(writes, before_s)
    if old is None:  # one that has not written yet says something with its first write, whatever it is
        return _changed(writes, 0.0, before_s, next_s, 0.0)
    return _changed(writes, old, before_s, next_s, params.command_change)


def _value_at(series: Series, time_s: float) -> float | None:
    after = bisect_right(series, (time_s, math.inf))
    return series[after - 1][1] if after else None


def _changed(series: Series, old: float, from_s: float, until_s: float, least: float) -> float:
    """Return when a value first differs from the old one by `least`, after from_s and not after until_s."""
    first, last = bisect_right(series, (from_s, math.inf)), bisect_right(series, (until_s, math.inf))
    return next((time_s for time_s, value in series[first:last] if abs(value - old) >= least), math.nan)


def _delivered(power: Signal, written_s: float, next_s: float) -> float:
    points = stretch(power, written_s, next_s) if not math.isnan(written_s) else []
    if not points or points[-1][1] == points[0][1]:
        return math.nan
    start, end = points[0][1], points[-1][1]
    share = [(time_s, (value - start) / (end - start)) for time_s, value in points]
    return first_at_least(share, FIGURES.value("delivered") / _PERCENT)


def _served(params: Params, evidence: Evidence) -> Series:
    """Return the values that were served, at the times of their replies since the plan's start (s)."""
    found = (
        (exchange.replied_s - evidence.start_s, params.measurement.read_in(exchange))
        for exchange in evidence.record.exchanges
    )
    return sorted((time_s, value) for time_s, value in found if value is not None)


def _written(params: Params, evidence: Evidence) -> Series:
    """Return the values that were written, at the times of the requests since the plan's start (s)."""
    found = (
        (exchange.time_s - evidence.start_s, params.command.written_in(exchange))
        for exchange in evidence.record.exchanges
    )
    return sorted((time_s, value) for time_s, value in found if value is not None)


def _jumps(params: Params) -> tuple[list[float], float]:
    """Return when the quantity jumps, and when the last answer is waited for no more (s)."""
    lead_s = FIGURES.value("lead")
    jumps_s = [lead_s + index * params.period_s for index in range(params.count)]
    return jumps_s, jumps_s[-1] + params.period_s
