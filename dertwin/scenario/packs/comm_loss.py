"""Communication loss: each device is cut off in turn; is the site safe in time, does the EMS come back."""

import math
from collections.abc import Iterator, Sequence
from typing import Literal, NamedTuple

from pydantic import Field

from dertwin.scenario.pack import Plan
from dertwin.scenario.packs.evidence import Evidence, of_scenario, unless_given
from dertwin.scenario.packs.figures import shipped
from dertwin.scenario.packs.sampled import settled_at, spacing, stretch
from dertwin.scenario.packs.wire_words import answered
from dertwin.scenario.record import Record, Requirement, Signal
from dertwin.schema import FrozenModel

FIGURES = shipped("comm_loss")


class Safe(FrozenModel):
    """A band (SI unit of the signal) in which a signal must be for the site to be safe."""

    signal: str = Field(min_length=1)
    low: float
    high: float


class Cut(FrozenModel):
    """One device that is cut off, and what must come of it.

    `lose`: request (the device hears nothing, and its watchdog runs) or reply (it hears and acts, but the
    EMS hears nothing). `watchdog_s` is the time of the device's watchdog, `stopping_s` how long what
    follows from it may take besides, such as a ramp. What is `safe` is for the site to say: the power of
    the device, the flow at the grid connection.
    """

    device: str = Field(min_length=1)
    lose: Literal["request", "reply"] = "request"
    watchdog_s: float = Field(gt=0)
    stopping_s: float = Field(default=0.0, ge=0)
    safe: list[Safe] = Field(min_length=1)
    again_within_s: float = Field(default=FIGURES.value("again"), gt=0)


class Params(FrozenModel):
    """What is cut, one after the other."""

    cuts: list[Cut] = Field(min_length=1)


class _Turn(NamedTuple):
    """When a cut begins and ends, and how long the EMS is watched then (s)."""

    cut: Cut
    start_s: float
    end_s: float
    watched_s: float


def plan(params: Params) -> Plan:
    """Return the cuts, each with time for the EMS to come back."""
    turns = _turns(params)
    actions = [
        (
            turn.start_s,
            {
                "wire_fault": "no_reply",
                "device": turn.cut.device,
                "lose": turn.cut.lose,
                "duration": turn.end_s - turn.start_s,
            },
        )
        for turn in turns
    ]
    signals = list(dict.fromkeys(safe.signal for cut in params.cuts for safe in cut.safe))
    return Plan(turns[-1].watched_s, actions, signals, exchanges=True)


def judge(params: Params, record: Record, start_s: float) -> list[Requirement]:
    """Judge a run of the plan that began at start_s (s)."""
    turns = _turns(params)
    return [
        requirement
        for number, turn in enumerate(turns, 1)
        for requirement in _judge_turn(turn, record, start_s, turns[-1].watched_s, _name(turns, number))
    ]


def _judge_turn(
    turn: _Turn, record: Record, start_s: float, duration_s: float, name: str
) -> Iterator[Requirement]:
    evidence = Evidence(record, start_s, duration_s)
    exchanges = [exchange for exchange in record.exchanges if exchange.device == turn.cut.device]
    before_s, cut_s, end_s = start_s, start_s + turn.start_s, start_s + turn.end_s
    until_s = start_s + turn.watched_s
    talked = any(answered(e) and before_s <= e.time_s < cut_s for e in exchanges)
    slack_s = 2 * spacing(Signal(record.times, record.times))  # the cut acts from the next step on
    heard = sum(answered(e) and cut_s + slack_s < e.time_s < end_s for e in exchanges)
    figure = FIGURES.numbers["unanswered"]
    yield evidence.require(
        f"{name}: cut off", heard if talked else math.nan, figure, high=figure.value,
        detail="requests answered during the cut" if talked else "the EMS did not talk to it before the cut",
    )  # fmt: skip
    for safe in turn.cut.safe:
        yield _safe(turn, evidence, safe, name)
    again = [e.replied_s for e in exchanges if answered(e) and end_s <= e.time_s <= until_s]
    yield _again(turn, evidence, f"{name}: talks again", min(again, default=math.nan) - end_s)
    writes = [took.time_s for took in record.received if took.device == turn.cut.device]
    if any(before_s <= time_s < cut_s for time_s in writes):
        after = [time_s for time_s in writes if end_s <= time_s <= until_s]
        yield _again(turn, evidence, f"{name}: commands again", min(after, default=math.nan) - end_s)


def _safe(turn: _Turn, evidence: Evidence, safe: Safe, name: str) -> Requirement:
    points = stretch(evidence.signal(safe.signal), turn.start_s, turn.end_s)
    settled_s = settled_at(points, safe.low, safe.high) - turn.start_s
    detail = f"from the cut until {safe.signal} stays within {safe.low:g} to {safe.high:g}"
    if points and math.isnan(settled_s):
        detail = f"{safe.signal} was {points[-1][1]:.6g} at the end of the cut"
    limit_s = turn.cut.watchdog_s + turn.cut.stopping_s
    figure = of_scenario("watchdog_s and stopping_s", "s")
    return evidence.require(f"{name}: {safe.signal} is safe", settled_s, figure, high=limit_s, detail=detail)


def _again(turn: _Turn, evidence: Evidence, name: str, after_s: float) -> Requirement:
    detail = "from the end of the cut" if math.isfinite(after_s) else "it did not, as long as it was watched"
    limit_s = turn.cut.again_within_s
    figure = unless_given(FIGURES.numbers["again"], limit_s, "again_within_s")
    return evidence.require(name, after_s, figure, high=limit_s, detail=detail)


def _name(turns: Sequence[_Turn], number: int) -> str:
    cut = turns[number - 1].cut
    return f"{number}. {cut.device} loses {'requests' if cut.lose == 'request' else 'replies'}"


def _turns(params: Params) -> list[_Turn]:
    turns = []
    start_s = FIGURES.value("before")
    for cut in params.cuts:
        end_s = start_s + cut.watchdog_s + cut.stopping_s + FIGURES.value("longer")
        watched_s = end_s + cut.again_within_s + FIGURES.value("after")
        turns.append(_Turn(cut, start_s, end_s, watched_s))
        start_s = watched_s
    return turns
