"""The step test of Nordic FCR-N: requirements 1 and 12, and the capacity they leave."""

from collections.abc import Mapping
from datetime import datetime

from pydantic import Field

from dertwin.scenario.pack import Plan
from dertwin.scenario.packs import fcr
from dertwin.scenario.packs.evidence import Evidence, power_signals
from dertwin.scenario.packs.fcr_csv import Resource, Sheet, csv_text, file_name
from dertwin.scenario.packs.figures import shipped
from dertwin.scenario.packs.frequency import FREQUENCY, Ramps, played, sampled_often
from dertwin.scenario.packs.sampled import least
from dertwin.scenario.record import Record, Requirement, Signal
from dertwin.schema import FrozenModel

FIGURES = shipped("fcr_n")
_SMALLEST_FACTOR = FIGURES.value("smallest_factor")
_SIGNS = {1: 1.0, 2: -1.0}
_NAMES = {1: "upwards", 2: "downwards"}


class Params(FrozenModel):
    """Which devices provide FCR-N, and how much.

    `capacity_w` is the theoretical steady state response (W) to a deviation of 0.1 Hz, for all `devices`
    together. `reduction_factor` is the one that the provider claims, 1 for all of the capacity. With
    `endurance` steps 1 and 2 last 15 min instead of 5 min. With `csv` a report has the file for the TSO's
    tool.
    """

    devices: list[str] = Field(min_length=1)
    capacity_w: float = Field(gt=0)
    reduction_factor: float = Field(default=1.0, ge=_SMALLEST_FACTOR, le=1)
    endurance: bool = False
    csv: Resource | None = None


def plan(params: Params) -> Plan:
    """Return the frequency sequence, as the site's frequency."""
    duration_s = _ends(params)[3]
    signals = [FREQUENCY, *power_signals(params.devices), *fcr.extra_signals(params.csv)]
    return Plan(duration_s, [(0.0, _sequence(params).action(duration_s))], signals)


def judge(params: Params, record: Record, start_s: float) -> list[Requirement]:
    """Judge a run of the plan that began at start_s (s)."""
    ends_s = _ends(params)
    evidence = Evidence(record, start_s, ends_s[3])
    power = evidence.signal(*power_signals(params.devices))
    levels = {number: fcr.settled(power, end_s, FIGURES) for number, end_s in ends_s.items() if number >= 0}
    before_w = (levels[0] + levels[3]) / 2
    requirements, factors = [], []
    claimed = params.reduction_factor
    for number, sign in _SIGNS.items():
        name = _NAMES[number]
        share = sign * (levels[number] - before_w) / params.capacity_w
        detail = f"{levels[number] - before_w:.6g} W of {sign * params.capacity_w:.6g} W"
        response = Signal(power.times, [sign * (value - before_w) for value in power.values])
        requirements += [
            fcr.steady_state(
                evidence, f"requirement 1 {name}: steady state", share, claimed, FIGURES, detail
            ),
            fcr.stays_activated(
                evidence, f"requirement 12 {name}: stays activated", response,
                ends_s[number - 1], ends_s[number], claimed * params.capacity_w, FIGURES,
            ),
        ]  # fmt: skip
        factors.append(fcr.steady_factor(share, FIGURES))
    return [
        *requirements,
        fcr.capacity(evidence, least(*factors), params.reduction_factor, params.capacity_w, FIGURES),
        played(evidence, _sequence(params).points, FIGURES.numbers["frequency_accuracy"]),
        sampled_often(evidence, FIGURES.numbers["sampling"]),
    ]


def files(params: Params, record: Record, start_s: float, began: datetime) -> Mapping[str, str]:
    """Return the TSO's file of a run of the plan that began at start_s (s), if the scenario asks for it."""
    if params.csv is None:
        return {}
    sheet = Sheet(
        **params.csv.model_dump(),
        service="Fcrn",
        devices=params.devices,
        capacity_w=params.reduction_factor * params.capacity_w,
    )
    span = record, start_s, plan(params).duration_s, began
    return {file_name(sheet, *span): csv_text(sheet, *span)}


def _starts(params: Params) -> dict[int, float]:
    """Return when each step begins (s), by its number."""
    longer_s = FIGURES.value("longer_endurance") if params.endurance else 0.0
    return {
        int(number): start_s + longer_s * max(0.0, number - 1.0)
        for number, start_s, _ in FIGURES.tables["steps"].rows
    }


def _ends(params: Params) -> dict[int, float]:
    """Return when the level after each step ends (s), by the step's number."""
    starts_s = _starts(params)
    end_s = FIGURES.value("end") + (starts_s[3] - FIGURES.tables["steps"].rows[-1][1])
    return dict(zip(starts_s, [*list(starts_s.values())[1:], end_s], strict=True))


def _sequence(params: Params) -> Ramps:
    starts_s = _starts(params)
    (_, _, start_hz), *steps = FIGURES.tables["steps"].rows
    sequence = Ramps(start_hz)
    for number, _, to_hz in steps:
        sequence.jump(starts_s[int(number)], to_hz)
    return sequence
