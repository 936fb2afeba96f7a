"""Where the signals of a condition must lie, to be drawn over their plots."""

from collections.abc import Iterator
from typing import NamedTuple

from dertwin.scenario.conditions import All, Any_, Comparison, Condition, Not, parse
from dertwin.scenario.expectations import Expectation


class Edge(NamedTuple):
    """An end of a band: a number, or so much more than another signal."""

    offset: float
    signal: str = ""


class Band(NamedTuple):
    """Where a signal must lie, or must not unless `allowed`; an end that is None is open."""

    signal: str
    low: Edge | None
    high: Edge | None
    allowed: bool = True


def bands(expectation: Expectation) -> list[Band]:
    """Return the bands of an expectation; none where one of several is enough."""
    if expectation.that is not None:
        return list(_of(expectation.that, True))
    assert expectation.never is not None
    return list(_of(expectation.never, False))


def _of(condition: Condition, wanted: bool) -> Iterator[Band]:
    match condition:
        case str():
            yield _band(parse(condition), wanted)
        case Not():
            yield from _of(condition.not_, not wanted)
        case All(all=parts) if wanted:
            for part in parts:
                yield from _of(part, True)
        case Any_(any=parts) if not wanted:
            for part in parts:
                yield from _of(part, False)


def _band(comparison: Comparison, wanted: bool) -> Band:
    signal, operator, other, tolerance, high = comparison
    name, value = (other, 0.0) if isinstance(other, str) else ("", other)
    match operator:
        case "in":
            return Band(signal, Edge(value), Edge(high), wanted)
        case "==" | "!=":
            ends = Edge(value - tolerance, name), Edge(value + tolerance, name)
            return Band(signal, *ends, wanted == (operator == "=="))
        case ">=" | ">":
            return Band(signal, Edge(value, name), None) if wanted else Band(signal, None, Edge(value, name))
        case _:
            return Band(signal, None, Edge(value, name)) if wanted else Band(signal, Edge(value, name), None)
