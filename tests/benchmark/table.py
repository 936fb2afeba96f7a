"""The table that the benchmark prints and keeps."""

from collections.abc import Callable, Mapping, Sequence
from importlib.metadata import version
from typing import NamedTuple

from support import record

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
    remarks = [f"- {figure.name}: {figure.remark}" for figure in figures if figure.remark]
    measured = f"{record.machine()}, pymodbus {version('pymodbus')}."
    where = f"{measured} Other programs used {disturbance:.0%} of a core meanwhile."
    return "\n".join([where, "", record.table(rows), "", *remarks]).rstrip()


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
