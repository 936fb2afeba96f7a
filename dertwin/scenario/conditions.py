"""Conditions over signals, and by how much they hold.

A comparison is written as text: `bess-1.soc >= 0.2`, `pcc.active_power_w in -100..100`,
`meter-1.active_power_w == pcc.active_power_w +- 50`; `all`, `any` and `not` join them.
"""

import math
import re
from collections.abc import Callable, Iterator
from typing import Annotated, Any, NamedTuple, TypeAlias, Union

from pydantic import AfterValidator, ConfigDict, Discriminator, Field, Tag

from dertwin.schema import FrozenModel

_NUMBER = r"[-+]?(?:\d+\.?\d*|\.\d+)(?:[eE][-+]?\d+)?"
_BAND = re.compile(rf"\s*(\S+)\s+in\s+({_NUMBER})\s*\.\.\s*({_NUMBER})\s*")
_COMPARISON = re.compile(rf"\s*([^\s<>=!]+)\s*(<=|>=|==|!=|<|>)\s*(\S+)(?:\s*(?:\+-|±)\s*({_NUMBER}))?\s*")
_AS_NUMBER = re.compile(_NUMBER)
FORM = (
    "use SIGNAL <= VALUE (or < > >= == !=), SIGNAL == VALUE +- TOLERANCE, or SIGNAL in LOW..HIGH; "
    "VALUE is a number or a signal"
)


class Comparison(NamedTuple):
    """One comparison; `other` is a number or the name of a signal, or the low end of a band to `high`."""

    signal: str
    operator: str
    other: float | str
    tolerance: float = 0.0
    high: float = 0.0

    def names(self) -> Iterator[str]:
        """Yield the signals that it looks at."""
        yield self.signal
        if isinstance(self.other, str):
            yield self.other


def parse(text: str) -> Comparison:
    """Return a comparison that was written as text. Raises ValueError."""
    if band := _BAND.fullmatch(text):
        signal, low, high = band.groups()
        if float(low) > float(high):
            raise ValueError(f'"{text}" is not allowed; the low end {low} is above the high one {high}')
        return Comparison(signal, "in", float(low), 0.0, float(high))
    match = _COMPARISON.fullmatch(text)
    if match is None:
        raise ValueError(f'"{text}" is not allowed; {FORM}')
    signal, operator, other, tolerance = match.groups()
    if tolerance is not None and operator not in ("==", "!="):
        raise ValueError(f'"{text}" is not allowed; a tolerance goes with == or !=')
    if tolerance is not None and float(tolerance) < 0.0:
        raise ValueError(f'"{text}" is not allowed; use a tolerance of at least 0')
    value: float | str = float(other) if _AS_NUMBER.fullmatch(other) else other
    return Comparison(signal, operator, value, float(tolerance or 0.0))


def _parsable(text: str) -> str:
    parse(text)
    return text


class All(FrozenModel):
    """Holds when all of its conditions hold."""

    all: Annotated[list["Condition"], Field(min_length=1)]


class Any_(FrozenModel):
    """Holds when one of its conditions holds."""

    any: Annotated[list["Condition"], Field(min_length=1)]


class Not(FrozenModel):
    """Holds when its condition does not."""

    model_config = ConfigDict(title="Not")

    not_: "Condition" = Field(alias="not")


def _kind(value: Any) -> str:
    for kind, model in (("all", All), ("any", Any_), ("not", Not)):
        if isinstance(value, model) or (isinstance(value, dict) and kind in value):
            return kind
    return "text"


Condition: TypeAlias = Annotated[
    Union[  # noqa: UP007 - the members are still to come when this is read
        Annotated[Annotated[str, AfterValidator(_parsable)], Tag("text")],
        Annotated[All, Tag("all")],
        Annotated[Any_, Tag("any")],
        Annotated[Not, Tag("not")],
    ],
    Discriminator(_kind),
]
for _model in (All, Any_, Not):
    _model.model_rebuild()

Read = Callable[[str], float]
"""Returns the value of a signal now."""


def names(condition: Condition) -> Iterator[str]:
    """Yield the signals that a condition looks at."""
    match condition:
        case str():
            yield from parse(condition).names()
        case Not():
            yield from names(condition.not_)
        case All(all=parts) | Any_(any=parts):
            for part in parts:
                yield from names(part)


def compiled(condition: Condition) -> Callable[[Read], float]:
    """Return what tells by how much a condition holds, in the unit of its signals: >= 0 if it does.

    A comparison with a signal that has no value (NaN) does not hold.
    """
    match condition:
        case str():
            comparison = parse(condition)
            return lambda read: margin(comparison, read)
        case Not():
            inner = compiled(condition.not_)
            return lambda read: _negated(inner(read))
        case All(all=parts):
            every = [compiled(part) for part in parts]
            return lambda read: min(part(read) for part in every)
        case Any_(any=parts):
            some = [compiled(part) for part in parts]
            return lambda read: max(part(read) for part in some)
    raise TypeError(condition)


# What `<` misses by when both sides are equal: below zero, and nothing is closer to it.
_JUST_NOT = -5e-324


def _negated(value: float) -> float:
    return -value if value else _JUST_NOT


def margin(comparison: Comparison, read: Read) -> float:
    """Return by how much a comparison holds; negative if it does not."""
    signal, operator, other, tolerance, high = comparison
    value = read(signal)
    wanted = read(other) if isinstance(other, str) else other
    if math.isnan(value) or math.isnan(wanted):
        return -math.inf
    difference = value - wanted
    match operator:
        case "in":
            return min(difference, high - value)
        case "==":
            return tolerance - abs(difference)
        case "!=":
            return _negated(tolerance - abs(difference))
        case ">=":
            return difference
        case "<=":
            return -difference
        case ">":
            return difference if difference else _JUST_NOT
        case _:
            return -difference if difference else _JUST_NOT
