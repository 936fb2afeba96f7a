"""The part of a report that tells of one case: its verdicts, plots, events and commands."""

import math
from collections.abc import Iterator, Mapping, Sequence

from bench.report.html import Cell, cell, figure, table, word
from bench.report.plot import Mark, panels, plot
from bench.report.rows import Row, margin_unit, seen
from bench.report.words import limits, number, quantity, text
from dertwin.scenario.expectations import Checked
from dertwin.scenario.record import Happened
from dertwin.scenario.run import CaseResult

_MOST_EVENTS = 300
_UNMARKED = ("passed",)
_TELL = {"passed": "✔ met", "failed": "✘ NOT MET", "pending": "undecided"}


def case_section(
    place: int, case: CaseResult, judged: Sequence[Row], sources: Mapping[str, int], only: bool
) -> str:
    """Return the section of a case, the place of which counts from 1."""
    title = "Results" if only else f"Case {place}: {case.name}"
    outcome = "passed" if case.passed else "failed"
    parts = [
        f'<section class="case{" only" if only else ""}" id="c{place}"><h2>{text(title)}</h2>',
    ]
    if not only:
        said = f"after {number(case.duration_s)} s: {counted(judged)}"
        parts.append(f"<p><b>{word(outcome)}</b> {text(said)}</p>")
    if case.parameters:
        parts.append(
            f"<p>Parameters: {text(', '.join(f'{k} = {v}' for k, v in case.parameters.items()))}</p>"
        )
    parts += [
        *_expectations(place, case, judged),
        *_requirements(place, judged, sources),
        *_missed(place, judged),
    ]
    parts += [*_plots(case), *_events(case), *_commands(case), "</section>"]
    return "\n".join(parts)


def counted(judged: Sequence[Row]) -> str:
    """Tell in words how many of what was judged were met."""
    said = []
    for kind in ("expectation", "requirement"):
        these = [row for row in judged if row.kind == kind]
        if these:
            met = sum(row.outcome == "passed" for row in these)
            said.append(f"{met} of {len(these)} {kind}{'s' if len(these) > 1 else ''} met")
    missed = sum(row.kind == "step" for row in judged)
    if missed:
        said.append(f"{missed} step{'s' if missed > 1 else ''} never came")
    return ", ".join(said) or "nothing was expected"


def _verdict(row: Row) -> Cell:
    return Cell(f'<span class="{row.outcome}">{_TELL[row.outcome]}</span>')


def _line(row: Row) -> str:
    return "failed" if row.outcome == "failed" else ""


def _expectations(place: int, case: CaseResult, rows: Sequence[Row]) -> Iterator[str]:
    judged = [row for row in rows if row.kind == "expectation"]
    lines = [
        (
            _line(row),
            [
                cell(row.label, kind="tag"),
                Cell(_expected(check)),
                _verdict(row),
                Cell("<br/>".join(text(part) for part in seen(check, case.record))),
                cell(*_when(check)),
                figure(_margin(row.margin, margin_unit(check))),
            ],
        )
        for row, check in zip(judged, case.checks, strict=True)
    ]
    if lines:
        heads = ("", "Expectation", "Verdict", "Seen meanwhile", "When", "Margin:n")
        yield table(heads, lines, "Expectations", f"c{place}")


def _expected(check: Checked) -> str:
    terms = f"<code>{text(check.expectation.terms())}</code>"
    return f"{text(check.expectation.name)}<br/>{terms}" if check.expectation.name else terms


def _when(check: Checked) -> tuple[str, str]:
    """Return over which time a check was judged, and how long it took to become true."""
    until = "…" if math.isnan(check.decided_s) else number(check.decided_s)
    span = f"{number(check.armed_s)}\u00a0\u2013\u00a0{until}\u00a0s"
    within = check.expectation.within
    if within is None:
        return span, ""
    if math.isnan(check.became_s):
        return span, f"not true within {number(within)} s"
    return span, f"true after {number(check.became_s)} s of {number(within)} s"


def _margin(value: float, unit: str) -> str:
    return "no value" if not math.isfinite(value) else quantity(value, unit)


def _requirements(place: int, judged: Sequence[Row], sources: Mapping[str, int]) -> Iterator[str]:
    required = [row for row in judged if row.kind == "requirement"]
    for group in dict.fromkeys((row.group, row.began_s) for row in required):
        these = [row for row in required if (row.group, row.began_s) == group]
        lines = [
            (
                _line(row),
                [
                    cell(row.label, kind="tag"),
                    cell(row.name, row.detail),
                    _verdict(row),
                    figure(_measured(row)),
                    cell(limits(row.low, row.high, row.unit)),
                    figure(_margin(row.margin, row.unit)),
                    cell(f"[{sources[row.source]}]" if row.source else "", kind="tag"),
                ],
            )
            for row in these
        ]
        caption = f"{text(group[0])} <small>from {number(group[1])} s on</small>"
        heads = ("", "Requirement", "Verdict", "Measured:n", "Limit", "Margin:n", "Source")
        yield table(heads, lines, caption, f"c{place}")


def _measured(row: Row) -> str:
    return "not measured" if math.isnan(row.measured) else quantity(row.measured, row.unit)


def _missed(place: int, judged: Sequence[Row]) -> Iterator[str]:
    lines = [
        ("failed", [cell(row.label, kind="tag"), cell(row.name), _verdict(row), cell(row.detail)])
        for row in judged
        if row.kind == "step"
    ]
    if lines:
        yield table(("", "Step", "Verdict", "Why"), lines, "Steps that never came", f"c{place}")


def _plots(case: CaseResult) -> Iterator[str]:
    if not case.record.columns:
        return
    yield "<h3>Signals</h3>"
    marks = [
        Mark(each.time_s, str(number), each.kind == "failed")
        for number, each in enumerate(_shown(case), start=1)
        if each.kind not in _UNMARKED
    ]
    for panel in panels(list(case.record.columns)):
        yield f"<figure>{plot(panel, case.record, case.duration_s, case.checks, marks)}</figure>"


def _shown(case: CaseResult) -> Sequence[Happened]:
    return sorted(case.record.happened, key=lambda each: each.time_s)[:_MOST_EVENTS]


def _events(case: CaseResult) -> Iterator[str]:
    shown = _shown(case)
    lines = [
        (
            _kind(each),
            [
                cell(number_, kind="tag"),
                figure(number(each.time_s)),
                cell(each.kind, kind="word"),
                cell(each.text),
                cell(" ".join(filter(None, (each.device, each.link)))),
            ],
        )
        for number_, each in enumerate(shown, start=1)
    ]
    if lines:
        yield table(("", "Time (s):n", "Event", "", "Where"), lines, "What happened")
        more = len(case.record.happened) - len(shown)
        if more:
            yield f'<p class="note">And {more} more, in events.csv.</p>'


def _kind(each: Happened) -> str:
    return "failed" if each.kind == "failed" else ""


def _commands(case: CaseResult) -> Iterator[str]:
    found: dict[tuple[str, str], list[tuple[float, float]]] = {}
    for time_s, device, command, value in case.record.received:
        found.setdefault((device, command), []).append((time_s, value))
    lines = [
        (
            "",
            [
                cell(device),
                cell(command),
                figure(str(len(taken))),
                *(figure(number(each)) for each in _extent(taken)),
            ],
        )
        for (device, command), taken in sorted(found.items())
    ]
    if lines:
        heads = (
            "Device",
            "Command",
            "Writes:n",
            "First (s):n",
            "Last (s):n",
            "Least:n",
            "Greatest:n",
            "At the end:n",
        )
        yield table(heads, lines, "Commands received")


def _extent(taken: Sequence[tuple[float, float]]) -> tuple[float, ...]:
    values = [value for _, value in taken]
    return taken[0][0], taken[-1][0], min(values), max(values), values[-1]
