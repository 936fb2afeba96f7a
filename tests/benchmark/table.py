"""The table that the benchmark prints and keeps."""

import platform
from collections.abc import Callable, Mapping, Sequence
from datetime import date
from importlib.metadata import version
from os import cpu_count
from pathlib import Path
from typing import NamedTuple

START, END = "<!-- bench:start -->", "<!-- bench:end -->"
HEADER = ("figure", "unit", "ours", "pymodbus", "libmodbus (C)", "must reach", "reached")


class Figure(NamedTuple):
    """One line of the table.

    `measured` has the values by program: ours, pymodbus, libmodbus; one that could not be measured
    is left out and `remark` says why. `reached` judges them.
    """

    name: str
    unit: str
    measured: Mapping[str, float]
    must: str
    reached: Callable[[Mapping[str, float]], bool]
    remark: str = ""


def markdown(figures: Sequence[Figure], disturbance: float) -> str:
    """Return the machine, the table and the remarks as Markdown.

    `disturbance` is how many cores other programs kept busy meanwhile.
    """
    rows = [HEADER, *map(_cells, figures)]
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    rows.insert(1, tuple("-" * width for width in widths))
    lines = [" | ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)) for row in rows]
    remarks = [f"- {figure.name}: {figure.remark}" for figure in figures if figure.remark]
    where = f"{_machine()} Other programs used {disturbance:.0%} of a core meanwhile."
    return "\n".join([where, "", *(f"| {line} |" for line in lines), "", *remarks]).rstrip()


def write_between_markers(path: Path, text: str) -> None:
    """Replace what stands between the two marker lines of a file; raises ValueError if they are missing."""
    before, start, rest = path.read_text().partition(START)
    _, end, after = rest.partition(END)
    if not start or not end:
        raise ValueError(f"{path} needs the lines {START} and {END}")
    path.write_text(f"{before}{START}\n\n{text}\n\n{END}{after}")


def _machine() -> str:
    return (
        f"Measured on {date.today().isoformat()}: {cpu_count()} cores of {_cpu_model()}, "
        f"Python {platform.python_version()}, pymodbus {version('pymodbus')}."
    )


def _cpu_model() -> str:
    for line in Path("/proc/cpuinfo").read_text().splitlines():
        if line.startswith(("model name", "Model")):
            return line.partition(":")[2].strip()
    return platform.machine()


def _cells(figure: Figure) -> tuple[str, ...]:
    values = (_number(figure.measured.get(name)) for name in ("ours", "pymodbus", "libmodbus"))
    return (figure.name, figure.unit, *values, figure.must, _judgement(figure))


def _judgement(figure: Figure) -> str:
    try:
        return "yes" if figure.reached(figure.measured) else "NO"
    except KeyError:  # something it is measured against is missing
        return "unknown"


def _number(value: float | None) -> str:
    if value is None:
        return "-"
    return f"{value:,.0f}" if abs(value) >= 100 else f"{value:.3g}"
