"""The response of LFSM-O or LFSM-U to frequency steps: size, droop, threshold, settling, damping."""

import math
from collections.abc import Sequence
from itertools import pairwise
from typing import Literal, NamedTuple

from pydantic import Field, field_validator

from dertwin.scenario.pack import Plan
from dertwin.scenario.packs.evidence import Evidence, power_signals, unless_given
from dertwin.scenario.packs.figures import shipped
from dertwin.scenario.packs.frequency import FREQUENCY, NOMINAL_HZ, Ramps, played
from dertwin.scenario.packs.sampled import highest, lowest, mean, most, settled_at, stretch
from dertwin.scenario.record import Record, Requirement, Signal
from dertwin.schema import FrozenModel

FIGURES = shipped("lfsm")
PERCENT = 100.0


class Params(FrozenModel):
    """Which devices respond, to what, and how.

    `mode`: over is LFSM-O (less power above the threshold), under is LFSM-U (more power below it).
    `rated_w` (W) is what the droop refers to, for all `devices` together. `threshold_hz` is 50.2 and 49.8
    unless given, `droop_percent` 5, `settling_s` 30. `shares` are the changes of power, as shares of
    `rated_w`, that the steps ask for; the site must be able to make them from where it starts.
    """

    devices: list[str] = Field(min_length=1)
    mode: Literal["over", "under"]
    rated_w: float = Field(gt=0)
    threshold_hz: float | None = Field(default=None, gt=45, lt=55)
    droop_percent: float = Field(default=FIGURES.value("droop"), gt=0, le=20)
    settling_s: float = Field(default=FIGURES.value("settling"), gt=0, le=40)
    shares: list[float] = Field(default=[0.1, 0.2, 0.3], min_length=2)

    @field_validator("shares")
    @classmethod
    def _rising(cls, shares: list[float]) -> list[float]:
        if not all(low < high for low, high in pairwise([0.0, *shares])):
            raise ValueError(f"{shares} is not allowed; use shares above 0 that rise")
        return shares


class _Step(NamedTuple):
    """A level of frequency, from when to when (s), and the change of power it asks for (% of the rated)."""

    hz: float
    start_s: float
    end_s: float
    expected: float


def plan(params: Params) -> Plan:
    """Return frequency steps: one within the threshold, those beyond it, and back to 50 Hz."""
    steps = _steps(params)
    duration_s = steps[-1].end_s
    signals = [FREQUENCY, *power_signals(params.devices)]
    return Plan(duration_s, [(0.0, _sequence(steps).action(duration_s))], signals)


def judge(params: Params, record: Record, start_s: float) -> list[Requirement]:
    """Judge a run of the plan that began at start_s (s)."""
    steps = _steps(params)
    evidence = Evidence(record, start_s, steps[-1].end_s)
    response = _response(params, evidence.signal(*power_signals(params.devices)), steps[0])
    inside, *beyond, back = steps[1:]
    settled = [mean(stretch(response, step.end_s - _WINDOW_S, step.end_s)) for step in beyond]
    return [
        _size(evidence, "no response within the threshold", response, inside),
        *(
            requirement
            for number, step in enumerate(beyond, 1)
            for requirement in _step_response(params, evidence, response, step, f"step {number}")
        ),
        *_characteristic(params, evidence, beyond, settled),
        _size(evidence, "back at 50 Hz", response, back),
        played(evidence, _sequence(steps).points, FIGURES.numbers["frequency_accuracy"]),
    ]


_WINDOW_S = FIGURES.value("settled_window")


def _size(evidence: Evidence, name: str, response: Signal, step: _Step) -> Requirement:
    figure = FIGURES.numbers["tolerance"]
    reached = mean(stretch(response, step.end_s - _WINDOW_S, step.end_s))
    detail = f"{reached:.4g} % of the rated power at {step.hz:g} Hz, expected {step.expected:.4g} %"
    return evidence.require(name, reached - step.expected, figure, -figure.value, figure.value, detail)


def _step_response(
    params: Params, evidence: Evidence, response: Signal, step: _Step, name: str
) -> list[Requirement]:
    tolerance, damped = FIGURES.value("tolerance"), FIGURES.numbers["oscillation"]
    points = stretch(response, step.start_s, step.end_s)
    end = stretch(response, step.end_s - _WINDOW_S, step.end_s)
    after_s = settled_at(points, step.expected - tolerance, step.expected + tolerance) - step.start_s
    settling = unless_given(FIGURES.numbers["settling"], params.settling_s, "settling_s")
    detail = f"until the power stays within {tolerance:g} % of what the droop asks for"
    if points and math.isnan(after_s):
        detail = f"it did not settle there: {points[-1][1]:.4g} % at the end, expected {step.expected:.4g} %"
    return [
        _size(evidence, f"{name}: size", response, step),
        evidence.require(f"{name}: settling time", after_s, settling, high=params.settling_s, detail=detail),
        evidence.require(
            f"{name}: oscillation", highest(end) - lowest(end), damped, high=damped.value,
            detail=f"from the highest to the lowest in the last {_WINDOW_S:g} s",
        ),
    ]  # fmt: skip


def _characteristic(
    params: Params, evidence: Evidence, steps: Sequence[_Step], settled: Sequence[float]
) -> list[Requirement]:
    """Judge the straight line through the settled responses: droop and threshold."""
    slope, zero_hz = _line([step.hz for step in steps], settled)
    droop = -(PERCENT**2) / NOMINAL_HZ / slope if slope else math.nan
    wide = FIGURES.value("droop_tolerance") / PERCENT
    set_droop, threshold_hz = params.droop_percent, _threshold_hz(params)
    own_threshold = FIGURES.numbers[f"threshold_{params.mode}"]
    near_hz = FIGURES.value("threshold_tolerance")
    triggered = FIGURES.numbers["triggered"]
    return [
        evidence.require(
            "droop", droop, unless_given(FIGURES.numbers["droop"], set_droop, "droop_percent"),
            set_droop * (1 - wide), set_droop * (1 + wide),
            f"of a straight line through the steps; set to {set_droop:g} %",
        ),
        evidence.require(
            "threshold", zero_hz, unless_given(own_threshold, threshold_hz, "threshold_hz"),
            threshold_hz - near_hz, threshold_hz + near_hz,
            f"where that line is zero; set to {threshold_hz:g} Hz",
        ),
        evidence.require(
            "change of power", most(*map(abs, settled)), triggered, low=triggered.value - 1e-6,
            detail="the largest settled response, of the rated power",
        ),
    ]  # fmt: skip


def _line(hz: Sequence[float], values: Sequence[float]) -> tuple[float, float]:
    """Return the slope of the least-squares line, and where it is zero."""
    middle_hz, middle = math.fsum(hz) / len(hz), math.fsum(values) / len(values)
    spread = math.fsum((f - middle_hz) ** 2 for f in hz)
    slope = math.fsum((f - middle_hz) * (v - middle) for f, v in zip(hz, values, strict=True)) / spread
    return slope, (middle_hz - middle / slope if slope else math.nan)


def _response(params: Params, power: Signal, before: _Step) -> Signal:
    """Return the change of power since before the steps, in % of the rated power."""
    before_w = mean(stretch(power, before.end_s - _WINDOW_S, before.end_s))
    return Signal(power.times, [(value - before_w) / params.rated_w * PERCENT for value in power.values])


def _threshold_hz(params: Params) -> float:
    if params.threshold_hz is not None:
        return params.threshold_hz
    return FIGURES.value(f"threshold_{params.mode}")


def _steps(params: Params) -> list[_Step]:
    outwards = 1.0 if params.mode == "over" else -1.0
    threshold_hz, per_hz = _threshold_hz(params), PERCENT / (params.droop_percent / PERCENT * NOMINAL_HZ)
    levels = [(NOMINAL_HZ, 0.0), (threshold_hz - outwards * FIGURES.value("inside"), 0.0)]
    for share in params.shares:
        deviation_hz = share * PERCENT / per_hz
        levels.append((threshold_hz + outwards * deviation_hz, -outwards * share * PERCENT))
    levels.append((NOMINAL_HZ, 0.0))
    hold_s = FIGURES.value("hold")
    return [
        _Step(round(hz, 6), index * hold_s, (index + 1) * hold_s, expected)
        for index, (hz, expected) in enumerate(levels)
    ]


def _sequence(steps: Sequence[_Step]) -> Ramps:
    sequence = Ramps(steps[0].hz)
    for step in steps[1:]:
        sequence.jump(step.start_s, step.hz)
    return sequence
