"""Modbus manners of an EMS: what it asks for, how often, and how it takes a busy and a silent device."""

import math
from collections.abc import Callable, Iterator, Sequence
from itertools import pairwise
from typing import NamedTuple

from pydantic import Field

from dertwin.scenario.pack import Plan
from dertwin.scenario.packs.evidence import Evidence, unless_given
from dertwin.scenario.packs.figures import shipped
from dertwin.scenario.packs.sampled import TOLERANCE_S
from dertwin.scenario.packs.wire_words import (
    BUSY,
    ILLEGAL_ADDRESS,
    ILLEGAL_FUNCTION,
    ILLEGAL_VALUE,
    answered,
    refusal,
    writes,
)
from dertwin.scenario.record import Exchange, Record, Requirement
from dertwin.schema import FrozenModel

FIGURES = shipped("manners")
_STORM_S = 1.0


class Params(FrozenModel):
    """Which devices are watched, which one is busy and which one silent for a while, and the limits.

    `rate_per_s` (mean) and `gap_s` are about the requests to each device while nothing is wrong;
    `writes_in_1_s` is the most writes to one device within any second, `silent_rate_per_s` the mean
    rate of requests to a device that does not answer. `gap_s` is also how long the other devices on the
    line of the silent one may wait for an answered request.
    """

    devices: list[str] = Field(min_length=1)
    busy_device: str | None = None
    silent_device: str | None = None
    watched_s: float = Field(default=FIGURES.value("watched"), gt=0)
    rate_per_s: float = Field(default=FIGURES.value("rate"), gt=0)
    gap_s: float = Field(default=FIGURES.value("gap"), gt=0)
    writes_in_1_s: int = Field(default=int(FIGURES.value("write_storm")), ge=1)
    silent_rate_per_s: float = Field(default=FIGURES.value("silent_rate"), gt=0)


class _Phases(NamedTuple):
    """When a device is busy, when one is silent, and when the plan ends (s)."""

    busy_s: float
    busy_end_s: float
    silent_s: float
    silent_end_s: float
    end_s: float


def plan(params: Params) -> Plan:
    """Return the time to watch, then a busy device, then a silent one, as far as they are wanted."""
    phases = _phases(params)
    actions = []
    if params.busy_device is not None:
        fault = {"wire_fault": "exception", "device": params.busy_device, "code": BUSY}
        actions.append((phases.busy_s, fault | {"duration": phases.busy_end_s - phases.busy_s}))
    if params.silent_device is not None:
        fault = {"wire_fault": "no_reply", "device": params.silent_device}
        actions.append((phases.silent_s, fault | {"duration": phases.silent_end_s - phases.silent_s}))
    return Plan(phases.end_s, actions, (), exchanges=True)


def judge(params: Params, record: Record, start_s: float) -> list[Requirement]:
    """Judge a run of the plan that began at start_s (s)."""
    phases = _phases(params)
    evidence = Evidence(record, start_s, phases.end_s)
    shifted = (
        e._replace(time_s=e.time_s - start_s, replied_s=e.replied_s - start_s) for e in record.exchanges
    )
    exchanges = sorted((e for e in shifted if 0.0 <= e.time_s <= phases.end_s), key=lambda e: e.time_s)
    if not exchanges:
        evidence.faults.append("no request was recorded")
    requirements = [*_refused(evidence, exchanges)]
    for device in params.devices:
        requirements += _pace(params, evidence, device, [e for e in exchanges if e.device == device])
    if params.busy_device is not None:
        requirements += _busy(evidence, params.busy_device, exchanges, phases)
    if params.silent_device is not None:
        requirements += _silent(params, evidence, params.silent_device, exchanges, phases)
    return requirements


def _refused(evidence: Evidence, exchanges: Sequence[Exchange]) -> Iterator[Requirement]:
    counted: tuple[tuple[str, str, Callable[[Exchange], bool]], ...] = (
        ("unknown functions", "illegal_functions", lambda e: refusal(e) == ILLEGAL_FUNCTION),
        ("illegal addresses", "illegal_addresses", lambda e: refusal(e) == ILLEGAL_ADDRESS),
        ("refused writes", "illegal_values", lambda e: refusal(e) == ILLEGAL_VALUE and writes(e)),
        ("refused reads", "illegal_values", lambda e: refusal(e) == ILLEGAL_VALUE and not writes(e)),
    )
    for name, figure_name, is_one in counted:
        found = [e for e in exchanges if is_one(e)]
        figure = FIGURES.numbers[figure_name]
        detail = f"the first to {found[0].device}: {found[0].request[:6].hex(' ')}" if found else ""
        count = float(len(found)) if exchanges else math.nan
        yield evidence.require(name, count, figure, high=figure.value, detail=detail)


def _pace(
    params: Params, evidence: Evidence, device: str, exchanges: Sequence[Exchange]
) -> Iterator[Requirement]:
    times = [e.time_s for e in exchanges if e.time_s <= params.watched_s]
    rate = unless_given(FIGURES.numbers["rate"], params.rate_per_s, "rate_per_s")
    gap = unless_given(FIGURES.numbers["gap"], params.gap_s, "gap_s")
    storm = unless_given(FIGURES.numbers["write_storm"], params.writes_in_1_s, "writes_in_1_s")
    asked = f"{len(times)} requests in {params.watched_s:g} s"
    yield evidence.require(
        f"{device}: request rate", len(times) / params.watched_s if times else math.nan, rate,
        high=params.rate_per_s, detail=asked,
    )  # fmt: skip
    yield evidence.require(
        f"{device}: longest gap",
        _longest_gap(times, 0.0, params.watched_s),
        gap,
        high=params.gap_s,
        detail=asked,
    )
    most = _most_within([e.time_s for e in exchanges if writes(e)], _STORM_S)
    yield evidence.require(
        f"{device}: writes within 1 s", float(most) if exchanges else math.nan, storm,
        high=float(params.writes_in_1_s),
    )  # fmt: skip


def _busy(
    evidence: Evidence, device: str, exchanges: Sequence[Exchange], phases: _Phases
) -> Iterator[Requirement]:
    busy, again = _sent_again([e for e in exchanges if e.device == device])
    waits = [again_s - exchange.replied_s for exchange, again_s in zip(busy, again, strict=True)]
    late_s = phases.end_s - FIGURES.value("busy_again")
    forgotten = sum(
        math.isnan(wait_s) and exchange.replied_s < late_s
        for exchange, wait_s in zip(busy, waits, strict=True)
    )
    waits = [wait_s for wait_s in waits if not math.isnan(wait_s)]
    longest, shortest = FIGURES.numbers["busy_again"], FIGURES.numbers["busy_wait"]
    detail = f"{len(busy)} requests found the device busy"
    if forgotten:
        detail += f", {forgotten} were never sent again"
    yield evidence.require(
        f"{device} is busy: asked again", math.nan if forgotten else max(waits, default=math.nan), longest,
        high=longest.value, detail=detail,
    )  # fmt: skip
    yield evidence.require(
        f"{device} is busy: not at once",
        min(waits, default=math.nan),
        shortest,
        low=shortest.value,
        detail=detail,
    )


def _silent(
    params: Params, evidence: Evidence, device: str, exchanges: Sequence[Exchange], phases: _Phases
) -> Iterator[Requirement]:
    during = [e for e in exchanges if phases.silent_s <= e.time_s <= phases.silent_end_s]
    ours = [e for e in during if e.device == device and not e.reply]
    lasted_s = phases.silent_end_s - phases.silent_s
    rate = unless_given(FIGURES.numbers["silent_rate"], params.silent_rate_per_s, "silent_rate_per_s")
    gap = unless_given(FIGURES.numbers["gap"], params.gap_s, "gap_s")
    patience = FIGURES.numbers["patience"]
    yield evidence.require(
        f"{device} is silent: request rate", len(ours) / lasted_s if ours else math.nan, rate,
        high=params.silent_rate_per_s, detail=f"{len(ours)} requests without an answer in {lasted_s:g} s",
    )  # fmt: skip
    waits = _patience(device, during)
    yield evidence.require(
        f"{device} is silent: patience", min(waits, default=math.nan), patience, low=patience.value,
        detail="the shortest time from a request without an answer to the client's next one",
    )  # fmt: skip
    lines = {e.link for e in exchanges if e.device == device}
    others = {e.device for e in exchanges if e.link in lines and e.device != device}
    for other in sorted(others):
        times = [e.time_s for e in during if e.device == other and answered(e)]
        waited_s = _longest_gap(times, phases.silent_s, phases.silent_end_s)
        yield evidence.require(
            f"{device} is silent: {other} waits", waited_s if times else lasted_s, gap, high=params.gap_s,
            detail="the longest time without an answered request on the line of the silent device",
        )  # fmt: skip


def _sent_again(exchanges: Sequence[Exchange]) -> tuple[list[Exchange], list[float]]:
    """Return the requests that found a device busy, and when each was sent again (NaN: never)."""
    busy, again = [], []
    next_s: dict[bytes, float] = {}
    for exchange in reversed(exchanges):
        asked = _asked(exchange)
        if refusal(exchange) == BUSY:
            busy.append(exchange)
            again.append(next_s.get(asked, math.nan))
        next_s[asked] = exchange.time_s
    return busy, again


def _asked(exchange: Exchange) -> bytes:
    """Return what requests for the same have in common; a write may have another value by now."""
    return exchange.request[:3] if writes(exchange) else exchange.request


def _patience(device: str, during: Sequence[Exchange]) -> list[float]:
    """Return the times from each request without an answer to its client's next one on that line (s).

    Over TCP a client may have several requests under way: there it is the next one to the same device.
    """
    waits = []
    open_s: dict[tuple[str, str, str], float] = {}
    for exchange in during:
        on_tcp = exchange.link.startswith("tcp ")
        client = exchange.link, exchange.client, exchange.device if on_tcp else ""
        if client in open_s:
            waits.append(exchange.time_s - open_s.pop(client))
        if exchange.device == device and not exchange.reply:
            open_s[client] = exchange.time_s
    return waits


def _longest_gap(times: Sequence[float], start_s: float, end_s: float) -> float:
    if not times:
        return math.nan
    return max(later - earlier for earlier, later in pairwise([start_s, *times, end_s]))


def _most_within(times: Sequence[float], window_s: float) -> int:
    most = first = 0
    for index, time_s in enumerate(times):
        while time_s - times[first] >= window_s - TOLERANCE_S:
            first += 1
        most = max(most, index - first + 1)
    return most


def _phases(params: Params) -> _Phases:
    pause_s = FIGURES.value("pause")
    busy_end_s = params.watched_s + (FIGURES.value("busy") if params.busy_device else 0.0)
    silent_s = busy_end_s + (pause_s if params.busy_device else 0.0)
    silent_end_s = silent_s + (FIGURES.value("silent") if params.silent_device else 0.0)
    end_s = silent_end_s + (pause_s if params.silent_device else 0.0)
    return _Phases(params.watched_s, busy_end_s, silent_s, silent_end_s, end_s)
