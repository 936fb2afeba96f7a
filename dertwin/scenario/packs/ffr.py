"""The activation of Nordic FFR: in time, for long enough, with a limited end, and again after 15 minutes."""

import math
from typing import Literal, NamedTuple

from pydantic import Field, field_validator

from dertwin.scenario.pack import Plan
from dertwin.scenario.packs.evidence import Evidence, power_signals
from dertwin.scenario.packs.figures import Figure, shipped
from dertwin.scenario.packs.frequency import FREQUENCY, NOMINAL_HZ, Ramps, played, sampled_often
from dertwin.scenario.packs.sampled import first_at_least, mean, steepest_fall, stretch
from dertwin.scenario.record import Record, Requirement, Signal
from dertwin.schema import FrozenModel

FIGURES = shipped("ffr")
_WITHIN_S = {row[0]: row[1] for row in FIGURES.tables["levels"].rows}
PERCENT = 100.0
_BELOW = 1e-6  # what is less than full by no more is rounding


class Params(FrozenModel):
    """Which devices provide FFR, how much, and in which of its variants.

    `capacity_w` (W) is for all `devices` together. `activation_hz` is 49.7, 49.6 or 49.5. With `support:
    short` the power may fall by 20 % a second at most after 5 s, with `long` as it likes after 30 s.
    """

    devices: list[str] = Field(min_length=1)
    capacity_w: float = Field(gt=0)
    activation_hz: float = 49.7
    support: Literal["short", "long"] = "short"

    @field_validator("activation_hz")
    @classmethod
    def _one_of_the_levels(cls, level_hz: float) -> float:
        if level_hz not in _WITHIN_S:
            known = ", ".join(f"{known_hz:g}" for known_hz in _WITHIN_S)
            raise ValueError(f"{level_hz:g} is not allowed; use one of {known}")
        return level_hz


class _Dip(NamedTuple):
    """One fall of the frequency: when it begins, reaches the activation level, and begins to end (s)."""

    falls_s: float
    activates_s: float
    rises_s: float
    over_s: float


def plan(params: Params) -> Plan:
    """Return two dips of the frequency below the activation level, 15 minutes apart."""
    sequence, dips = _sequence(params)
    duration_s = dips[1].over_s + FIGURES.value("before")
    signals = [FREQUENCY, *power_signals(params.devices)]
    return Plan(duration_s, [(0.0, sequence.action(duration_s))], signals)


def judge(params: Params, record: Record, start_s: float) -> list[Requirement]:
    """Judge a run of the plan that began at start_s (s)."""
    sequence, (first, second) = _sequence(params)
    evidence = Evidence(record, start_s, plan(params).duration_s)
    power = evidence.signal(*power_signals(params.devices))
    levels = FIGURES.tables["levels"]
    within = Figure(_WITHIN_S[params.activation_hz], "s", levels.source)
    response = _share(power, first, params)
    reached_s = _reached(response, first)
    again_s = _reached(_share(power, second, params), second)
    return [
        _in_time(evidence, "full activation", reached_s - first.activates_s, within, response, first),
        _support(params, evidence, response, reached_s, second.falls_s),
        *_deactivation(params, evidence, response, reached_s, second.falls_s),
        _in_time(
            evidence, "full activation after 15 min", again_s - second.activates_s, within,
            _share(power, second, params), second,
        ),
        played(evidence, sequence.points, FIGURES.numbers["frequency_accuracy"]),
        sampled_often(evidence, FIGURES.numbers["sampling"]),
    ]  # fmt: skip


def _in_time(
    evidence: Evidence, name: str, after_s: float, within: Figure, response: Signal, dip: _Dip
) -> Requirement:
    most = max((value for _, value in stretch(response, dip.activates_s, dip.rises_s)), default=math.nan)
    detail = "from the activation level to full power"
    if math.isnan(after_s) and not math.isnan(most):
        detail = f"full power was not reached: {most:.4g} % of it at most"
    return evidence.require(name, after_s, within, high=within.value, detail=detail)


def _support(
    params: Params, evidence: Evidence, response: Signal, reached_s: float, until_s: float
) -> Requirement:
    figure = FIGURES.numbers[f"{params.support}_support"]
    full = stretch(response, reached_s, until_s)
    falls = [(time_s, -value) for time_s, value in full[1:]]
    ended_s = first_at_least(falls, -FIGURES.value("full") + _BELOW) if falls else math.nan
    lasted_s = (until_s if falls and math.isnan(ended_s) else ended_s) - reached_s
    detail = "at full power without a break"
    return evidence.require("support duration", lasted_s, figure, low=figure.value, detail=detail)


def _deactivation(
    params: Params, evidence: Evidence, response: Signal, reached_s: float, until_s: float
) -> list[Requirement]:
    if params.support == "long":
        return []
    figure = FIGURES.numbers["deactivation"]
    window_s = FIGURES.value("deactivation_window")
    fall = steepest_fall(response, reached_s, until_s, window_s) / window_s
    detail = f"the largest fall within {window_s:g} s"
    return [evidence.require("deactivation", fall, figure, high=figure.value, detail=detail)]


def _share(power: Signal, dip: _Dip, params: Params) -> Signal:
    """Return what was activated since before a dip, in % of the capacity."""
    before_w = mean(stretch(power, dip.falls_s - FIGURES.value("before"), dip.falls_s))
    return Signal(power.times, [(value - before_w) / params.capacity_w * PERCENT for value in power.values])


def _reached(response: Signal, dip: _Dip) -> float:
    return first_at_least(stretch(response, dip.activates_s, dip.rises_s), FIGURES.value("full"))


def _sequence(params: Params) -> tuple[Ramps, tuple[_Dip, _Dip]]:
    sequence = Ramps(NOMINAL_HZ)
    first = _dip(sequence, FIGURES.value("before"), params)
    second = _dip(sequence, first.falls_s + FIGURES.value("ready_again"), params)
    return sequence, (first, second)


def _dip(sequence: Ramps, falls_s: float, params: Params) -> _Dip:
    slope = FIGURES.value("slope")
    low_s = sequence.ramp(falls_s, slope, params.activation_hz - FIGURES.value("below"))
    activates_s = low_s - FIGURES.value("below") / slope
    support_s = FIGURES.value(f"{params.support}_support")
    rises_s = activates_s + _WITHIN_S[params.activation_hz] + support_s + FIGURES.value("at_low")
    return _Dip(falls_s, activates_s, rises_s, sequence.ramp(rises_s, slope, NOMINAL_HZ))
