"""The fast ramp test of Nordic FCR-D: requirements 1 to 4 and 12, and the capacity they leave."""

from collections.abc import Mapping
from datetime import datetime
from typing import Literal, NamedTuple

from pydantic import Field

from dertwin.scenario.pack import Plan
from dertwin.scenario.packs import fcr
from dertwin.scenario.packs.evidence import Evidence, power_signals
from dertwin.scenario.packs.fcr_csv import Resource, Sheet, csv_text, file_name
from dertwin.scenario.packs.figures import shipped
from dertwin.scenario.packs.frequency import FREQUENCY, NOMINAL_HZ, Ramps, played, sampled_often
from dertwin.scenario.packs.sampled import area, largest_area_above, least, lowest, mean, stretch, value_at
from dertwin.scenario.record import Record, Requirement, Signal
from dertwin.schema import FrozenModel

FIGURES = shipped("fcr_d")
_SMALLEST_FACTOR = FIGURES.value("smallest_factor")


class Params(FrozenModel):
    """Which devices provide FCR-D, in which direction, and how much.

    `capacity_w` is the theoretical steady state response (W) from 49.9 to 49.5 Hz (50.1 to 50.5 Hz
    downwards), for all `devices` together. `reduction_factor` is the one that the provider claims, 1 for
    all of the capacity. With `endurance` the level after ramp 3 lasts 900 s instead of 300 s. With `csv`
    a report has the file for the TSO's tool.
    """

    devices: list[str] = Field(min_length=1)
    direction: Literal["up", "down"]
    capacity_w: float = Field(gt=0)
    reduction_factor: float = Field(default=1.0, ge=_SMALLEST_FACTOR, le=1)
    endurance: bool = False
    csv: Resource | None = None


class _Ramp(NamedTuple):
    start_s: float
    slope_hz_per_s: float
    to_hz: float


def plan(params: Params) -> Plan:
    """Return the frequency sequence, as the site's frequency."""
    duration_s = FIGURES.value("end") + _longer_s(params)
    signals = [FREQUENCY, *power_signals(params.devices), *fcr.extra_signals(params.csv)]
    return Plan(duration_s, [(0.0, _sequence(params).action(duration_s))], signals)


def judge(params: Params, record: Record, start_s: float) -> list[Requirement]:
    """Judge a run of the plan that began at start_s (s)."""
    evidence = Evidence(record, start_s, plan(params).duration_s)
    power = evidence.signal(*power_signals(params.devices))
    ramps = _ramps(params)
    after_3, after_4 = (fcr.settled(power, ramps[n].start_s, FIGURES) for n in (4, 5))
    steady = _sign(params) * (after_3 - after_4) / params.capacity_w
    from_4 = _response(params, power, after_4)
    dynamic, factor = _activation(params, evidence, from_4, ramps[5].start_s, ramps[6].start_s)
    kept = fcr.stays_activated(
        evidence, "requirement 12: stays activated", from_4, ramps[3].start_s, ramps[4].start_s,
        params.reduction_factor * params.capacity_w, FIGURES,
    )  # fmt: skip
    detail = f"{_sign(params) * (after_3 - after_4):.6g} W of {params.capacity_w:.6g} W"
    least_factor = least(fcr.steady_factor(steady, FIGURES), factor)
    return [
        fcr.steady_state(
            evidence, "requirement 1: steady state", steady, params.reduction_factor, FIGURES, detail
        ),
        *dynamic,
        _deactivation(params, evidence, power, ramps[1].start_s),
        kept,
        fcr.capacity(evidence, least_factor, params.reduction_factor, params.capacity_w, FIGURES),
        played(evidence, _sequence(params).points, FIGURES.numbers["frequency_accuracy"]),
        sampled_often(evidence, FIGURES.numbers["sampling"]),
    ]


def files(params: Params, record: Record, start_s: float, began: datetime) -> Mapping[str, str]:
    """Return the TSO's file of a run of the plan that began at start_s (s), if the scenario asks for it."""
    if params.csv is None:
        return {}
    sheet = Sheet(
        **params.csv.model_dump(),
        service="FcrdUp" if params.direction == "up" else "FcrdDo",
        devices=params.devices,
        capacity_w=params.reduction_factor * params.capacity_w,
    )
    span = record, start_s, plan(params).duration_s, began
    return {file_name(sheet, *span): csv_text(sheet, *span)}


def _activation(
    params: Params, evidence: Evidence, response: Signal, start_s: float, end_s: float
) -> tuple[list[Requirement], float]:
    """Judge requirements 2 and 3, and return the largest factor with which both hold."""
    power_figure, energy_figure = FIGURES.numbers["power"], FIGURES.numbers["energy"]
    until_s = start_s + FIGURES.value("evaluated_after")
    rated_w, claimed = params.capacity_w, params.reduction_factor
    reached = value_at(response, until_s)
    power = reached / rated_w * fcr.PERCENT
    energy = area(stretch(response, start_s, until_s)) / rated_w
    dip = (lowest(stretch(response, until_s, end_s)) - reached) / rated_w * fcr.PERCENT
    no_decrease = FIGURES.numbers["no_decrease"]
    return [
        evidence.require(
            "requirement 2: power at 7.5 s", power, power_figure, low=power_figure.value * claimed,
            detail=f"{reached:.6g} W of {rated_w:.6g} W",
        ),
        evidence.require(
            "requirement 3: energy in 7.5 s", energy, energy_figure, low=energy_figure.value * claimed,
            detail="as seconds at full response",
        ),
        evidence.require(
            "no decrease after 7.5 s", dip, no_decrease, low=no_decrease.value,
            detail="the least response until ramp 6, less that at 7.5 s",
        ),
    ], least(power / power_figure.value, energy / energy_figure.value)  # fmt: skip


def _deactivation(params: Params, evidence: Evidence, power: Signal, start_s: float) -> Requirement:
    """Judge requirement 4: the energy delivered in excess of the response at the nadir."""
    figure = FIGURES.numbers["deactivation"]
    before_w = mean(stretch(power, start_s - FIGURES.value("baseline_window"), start_s))
    response = _response(params, power, before_w)
    nadir_s = start_s + FIGURES.value("nadir_after")
    at_nadir = abs(value_at(response, nadir_s))
    level = min(at_nadir, FIGURES.value("nadir_share") * params.capacity_w)
    after = stretch(response, nadir_s, nadir_s + FIGURES.value("deactivation_window"))
    excess = largest_area_above(after, level) / params.capacity_w
    detail = f"as seconds at full response; {at_nadir:.6g} W at the nadir"
    return evidence.require("requirement 4: deactivation", excess, figure, high=figure.value, detail=detail)


def _response(params: Params, power: Signal, before_w: float) -> Signal:
    """Return what was activated (W), positive in the direction of the product."""
    sign = _sign(params)
    return Signal(power.times, [sign * (value - before_w) for value in power.values])


def _sign(params: Params) -> float:
    return 1.0 if params.direction == "up" else -1.0


def _longer_s(params: Params) -> float:
    return FIGURES.value("longer_endurance") if params.endurance else 0.0


def _mirrored(params: Params, upwards_hz: float) -> float:
    return upwards_hz if params.direction == "up" else round(2 * NOMINAL_HZ - upwards_hz, 6)


def _ramps(params: Params) -> dict[int, _Ramp]:
    """Return the ramps by their number."""
    return {
        int(number): _Ramp(
            start_s + (_longer_s(params) if number >= 4 else 0.0), slope, _mirrored(params, to_hz)
        )
        for number, start_s, slope, to_hz in FIGURES.tables["ramps"].rows
    }


def _sequence(params: Params) -> Ramps:
    sequence = Ramps(_mirrored(params, FIGURES.value("start")))
    for ramp in _ramps(params).values():
        sequence.ramp(*ramp)
    return sequence
