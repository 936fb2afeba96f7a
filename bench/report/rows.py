"""Everything that was judged in a case, as rows of one form."""

import math
from collections.abc import Iterator, Sequence
from typing import Literal, NamedTuple

from bench.report.bands import bands
from bench.report.words import limits, number, quantity, unit
from dertwin.scenario.conditions import names
from dertwin.scenario.expectations import Checked, Outcome
from dertwin.scenario.record import Record, Requirement
from dertwin.scenario.run import CaseResult, PackVerdict


class Row(NamedTuple):
    """Something that was judged: an expectation, a requirement of a pack, or a step that never came.

    `measured` is the value that decided the margin; it and the ends of its band (`low`, `high`) are NaN where
    no single one did. `began_s`, `became_s` and `decided_s` are s since the start of the case.
    """

    label: str
    kind: Literal["expectation", "requirement", "step"]
    group: str
    name: str
    outcome: Outcome
    measured: float
    low: float
    high: float
    margin: float
    unit: str
    began_s: float
    became_s: float
    decided_s: float
    source: str
    detail: str

    @property
    def why(self) -> str:
        """Tell in words what was measured, and what had to be."""
        if self.kind == "requirement":
            must = f"must be {limits(self.low, self.high, self.unit)}"
            measured = "not measured" if math.isnan(self.measured) else quantity(self.measured, self.unit)
            return ", ".join(filter(None, (measured, must, self.detail)))
        return self.detail


def rows(case: CaseResult) -> Iterator[Row]:
    """Yield what was judged in a case: expectations, requirements, and missed steps."""
    for place, check in enumerate(case.checks, start=1):
        yield _of_check(f"E{place}", check, case.record)
    place = 0
    for verdict in case.verdicts:
        for requirement in verdict.requirements:
            place += 1
            yield _of_requirement(f"R{place}", verdict, requirement)
    for place, name in enumerate(case.missed, start=1):
        nan = math.nan
        detail = "never came: what it waits for did not happen"
        yield Row(f"S{place}", "step", "", name, "failed", nan, nan, nan, nan, "", nan, nan, nan, "", detail)


def window(check: Checked, record: Record) -> tuple[float, float]:
    """Return from when to when (s) a check held; if it never came to that, how long it was tried."""
    end_s = record.times[-1] if math.isnan(check.decided_s) and record.times else check.decided_s
    # What is expected from a step on is judged from the next one on.
    start_s = check.armed_s + 1e-6 if math.isnan(check.became_s) else check.armed_s + check.became_s
    return min(max(start_s, check.armed_s + 1e-6), end_s), end_s


def seen(check: Checked, record: Record) -> list[str]:
    """Return in words which values each signal of a check had while it was judged."""
    return [_spread(name, _judged(name, check, record)) for name in _signals(check)]


def margin_unit(check: Checked) -> str:
    """Return the unit of the margin of a check; empty if its signals have several."""
    units = {unit(name) for name in _signals(check)}
    return units.pop() if len(units) == 1 else ""


def _of_check(label: str, check: Checked, record: Record) -> Row:
    low, high, measured = _deciding(check, record)
    return Row(
        label,
        "expectation",
        "",
        check.text,
        check.outcome,
        measured,
        low,
        high,
        check.margin,
        margin_unit(check),
        check.armed_s,
        check.armed_s + check.became_s,
        check.decided_s,
        "",
        f"{check.expectation.terms()}; seen: {', '.join(seen(check, record))}",
    )


def _of_requirement(label: str, verdict: PackVerdict, requirement: Requirement) -> Row:
    return Row(
        label,
        "requirement",
        verdict.title,
        requirement.name,
        "passed" if requirement.met else "failed",
        requirement.measured,
        requirement.low,
        requirement.high,
        requirement.margin,
        requirement.unit,
        verdict.started_s,
        math.nan,
        math.nan,
        requirement.source,
        requirement.detail,
    )


def _deciding(check: Checked, record: Record) -> tuple[float, float, float]:
    """Return the ends of the only band of a check, and the value with its margin; NaN if there is none."""
    found = bands(check.expectation)
    if len(found) != 1 or not math.isfinite(check.margin):
        return math.nan, math.nan, math.nan
    signal, low_edge, high_edge, allowed = found[0]
    if any(edge and edge.signal for edge in (low_edge, high_edge)):
        return math.nan, math.nan, math.nan
    low = low_edge.offset if low_edge else -math.inf
    high = high_edge.offset if high_edge else math.inf
    sign = 1.0 if allowed else -1.0

    def apart(value: float) -> float:
        return abs(sign * min(value - low, high - value) - check.margin)

    values = [each for each in _judged(signal, check, record) if math.isfinite(each)]
    return low, high, min(values, key=apart, default=math.nan)


def _judged(name: str, check: Checked, record: Record) -> Sequence[float]:
    return record.signal(name).between(*window(check, record)).values


def _signals(check: Checked) -> list[str]:
    expectation = check.expectation
    condition = expectation.that if expectation.that is not None else expectation.never
    assert condition is not None
    return list(dict.fromkeys(names(condition)))


def _spread(name: str, values: Sequence[float]) -> str:
    finite = [value for value in values if math.isfinite(value)]
    if not finite:
        return f"{name} no value"
    low, high, of = min(finite), max(finite), unit(name)
    span = f"{number(low)}\u00a0…\u00a0{quantity(high, of)}"
    return f"{name} {quantity(low, of) if low == high else span}"
