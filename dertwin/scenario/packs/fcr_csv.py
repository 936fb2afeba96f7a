"""The CSV file of an FCR test that the tool of the Nordic TSOs evaluates.

ASCII, comma, decimal point, CR LF; one record for each sample, what does not apply is left blank.
The name follows the test program; the technical requirements have a date at its end besides, and
milliseconds for every sampling rate.

Source: Test Program for Prequalification of FCR in the Nordic Synchronous Area, 28 March 2025, 11.1 and
table 19; Technical Requirements for FCR Provision in the Nordic Synchronous Area, version 1.1, 28 March
2025, 6.2.1.
"""

import math
from collections.abc import Iterator, Mapping, Sequence
from datetime import datetime, timedelta
from typing import Annotated, Literal

from pydantic import Field

from dertwin.scenario.packs.evidence import Evidence, power_signals
from dertwin.scenario.packs.frequency import FREQUENCY
from dertwin.scenario.packs.sampled import spacing
from dertwin.scenario.record import Record
from dertwin.schema import FrozenModel

_MEGA, _PERCENT = 1e6, 100.0
# Underscores separate the parts of a file name.
_Part = Annotated[str, Field(pattern=r"^[A-Za-z0-9.-]+$")]


class Resource(FrozenModel):
    """What a file says of who is tested.

    `resource` is agreed with the TSO, `test_type` the id of the test (such as 2.1), `area` the bidding
    area. `control_mode` names the set of parameters. Powers in W: `baseline_w` without FCR, `min_w` and
    `max_w` of the devices together. `soc` is the signal of the state of charge (0..1).
    """

    resource: _Part
    test_type: _Part
    area: _Part
    control_mode: str = Field(pattern=r"^[A-Za-z0-9]+$")
    baseline_w: float = 0.0
    min_w: float
    max_w: float
    soc: str | None = None


class Sheet(Resource):
    """What a file says of a test besides its samples.

    `timezone` is that of the time stamps, `capacity_w` the capacity (W) that the `devices` maintain together.
    What the EMS alone knows of a limited reservoir (endurance, NEM, AEM) has columns, and stays blank.
    """

    service: Literal["Fcrn", "FcrdUp", "FcrdDo"]
    timezone: _Part = "UTC"
    devices: list[str] = Field(min_length=1)
    capacity_w: float = Field(gt=0)
    grid_frequency: str = FREQUENCY


def file_name(sheet: Sheet, record: Record, start_s: float, duration_s: float, began: datetime) -> str:
    """Return the name of the file; `began` is the time at start_s (s of the record), in the sheet's zone."""
    evidence = Evidence(record, start_s, duration_s)
    first, last = (f"{began + timedelta(seconds=s):%Y%m%dT%H%M}" for s in (0.0, duration_s))
    step_ms = round(1000 * spacing(evidence.signal(FREQUENCY)))
    rate = f"{step_ms}ms" if step_ms % 1000 else f"{step_ms // 1000}s"
    parts = (
        sheet.resource,
        sheet.service,
        sheet.test_type,
        sheet.area,
        sheet.timezone,
        f"{first}-{last}",
        rate,
    )
    return "_".join(parts) + ".csv"


def csv_text(sheet: Sheet, record: Record, start_s: float, duration_s: float, began: datetime) -> str:
    """Return the file's text; its header is there even if nothing was recorded."""
    evidence = Evidence(record, start_s, duration_s)
    columns = _columns(sheet, evidence)
    times = evidence.signal(FREQUENCY).times
    lines = [",".join(["DateTime", *columns])]
    rows = zip(times, *(_cells(cells, len(times)) for cells in columns.values()), strict=True)
    lines += [",".join([_stamp(began, time_s), *cells]) for time_s, *cells in rows]
    return "\r\n".join([*lines, ""])


def _columns(sheet: Sheet, evidence: Evidence) -> Mapping[str, Sequence[str] | str]:
    """Return the columns by header: a cell for each sample, or one for all of them."""
    service = sheet.service
    soc = evidence.signal(sheet.soc).values if sheet.soc is not None else ()
    return {
        "InsAcPow": list(_numbers(evidence.signal(*power_signals(sheet.devices)).values, 1 / _MEGA, 6)),
        "GridFreq": list(_numbers(evidence.signal(sheet.grid_frequency).values, 1.0, 4)),
        "ApplFreqSig": list(_numbers(evidence.signal(FREQUENCY).values, 1.0, 4)),
        f"ContMode_{service}": sheet.control_mode,
        f"Cap_{service}": _number(sheet.capacity_w / _MEGA, 6),
        f"ContStatus_{service}": "1",
        "Pmin": _number(sheet.min_w / _MEGA, 6),
        "Pmax": _number(sheet.max_w / _MEGA, 6),
        "CalcBaseline": _number(sheet.baseline_w / _MEGA, 6),
        "ContSetP": _number(sheet.baseline_w / _MEGA, 6),
        f"ResSize_{service}": "",
        f"NEM_MW_{service}": "",
        f"NEM_{service}": "",
        f"AEM_{service}": "",
        "SOC": list(_numbers(soc, _PERCENT, 3)) if soc else "",
    }


def _cells(cells: Sequence[str] | str, count: int) -> Sequence[str]:
    if isinstance(cells, str):
        return [cells] * count
    return cells if len(cells) == count else [""] * count


def _numbers(values: Sequence[float], factor: float, decimals: int) -> Iterator[str]:
    return (_number(value * factor, decimals) for value in values)


def _number(value: float, decimals: int) -> str:
    return f"{value:.{decimals}f}" if math.isfinite(value) else ""


def _stamp(began: datetime, time_s: float) -> str:
    time = began + timedelta(milliseconds=round(1000 * time_s))
    return f"{time:%Y%m%dT%H%M%S}.{time.microsecond // 1000:03d}"
