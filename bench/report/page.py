"""The report for people: one HTML page that needs nothing else, to be read on a screen or printed."""

import json
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path

from bench.report.case import case_section, counted
from bench.report.context import Context
from bench.report.html import Cell, cell, figure, table, verdict_of, word
from bench.report.plot import HATCH
from bench.report.rows import Row
from bench.report.words import number, text
from bench.verdict import versions
from dertwin.scenario.run import CaseResult, ScenarioResult

_STYLE = Path(__file__).with_name("page.css")
_MOST_FAILURES = 12
_LEGEND = """\
Times are in seconds since the start of a case. The margin is how far inside its limits a value was at
the worst moment, and is negative outside; for what never became true it tells how near it came. In the
plots green is where a signal was expected: pale, with dotted limits, while it still had time to get
there; darker, with solid limits, when it had to be there. Hatched areas are where it must not be, a
cross is where an expectation failed. Vertical lines are events, numbered as in the table below the
plots. The figures at the right above a plot are the least and the greatest value; every peak is drawn,
however short. All samples, events, commands and results are in the CSV files and in result.json beside
this page."""


def page(result: ScenarioResult, context: Context, judged: Sequence[Sequence[Row]]) -> str:
    """Return the text of the page, which is XML as well as HTML; `judged` are the rows of each case."""
    sources = _sources(judged)
    only = len(context.scenario.cases) == 1
    body = [
        *_head(result, context, judged),
        *([] if only else _overview(result, context, judged)),
        *(
            case_section(place, case, each, sources, only)
            for place, (case, each) in enumerate(zip(result.cases, judged, strict=True), start=1)
        ),
        *_appendix(context, sources),
    ]
    return "\n".join(
        [
            "<!DOCTYPE html>",
            '<html lang="en" xmlns="http://www.w3.org/1999/xhtml"><head><meta charset="utf-8"/>',
            '<meta name="viewport" content="width=device-width, initial-scale=1"/>',
            f"<title>{text(result.scenario)}: {word(verdict_of(result))}</title>",
            f"<style>\n{_STYLE.read_text()}</style></head>",
            f"<body>{HATCH}<main>\n{chr(10).join(body)}\n</main></body></html>\n",
        ]
    )


def _head(result: ScenarioResult, context: Context, judged: Sequence[Sequence[Row]]) -> Iterator[str]:
    outcome = verdict_of(result)
    every = [row for each in judged for row in each]
    yield '<header><p class="kind">Test report</p>'
    yield f"<h1>{text(result.scenario)}</h1>"
    for paragraph in filter(None, result.description.strip().split("\n\n")):
        yield f'<p class="about">{text(paragraph)}</p>'
    said = counted(every)
    if not result.complete:
        over, count = len(result.cases), len(context.scenario.cases)
        said = f"Stopped before its end, in case {over} of {count}. {said}"
    stamp = f"<strong>{word(outcome)}</strong>{text(said)}"
    yield f'<div class="verdict {outcome}">{stamp}{_failures(judged)}</div>'
    yield _facts(result, context)
    yield "</header>"


def _failures(judged: Sequence[Sequence[Row]]) -> str:
    """List what was not met, with what was measured: what a reader wants to know first."""
    failed = [
        (place, row) for place, each in enumerate(judged, start=1) for row in each if row.outcome != "passed"
    ]
    if not failed:
        return ""
    lines = [
        f'<li><a href="#c{place}-{row.label}">{_in_case(place, judged)}{row.label}</a> '
        f"<b>{text(row.name)}</b>: {text(row.why)}</li>"
        for place, row in failed[:_MOST_FAILURES]
    ]
    if len(failed) > _MOST_FAILURES:
        lines.append(f"<li>and {len(failed) - _MOST_FAILURES} more below</li>")
    return f"<ul>{''.join(lines)}</ul>"


def _in_case(place: int, judged: Sequence[object]) -> str:
    return f"case {place}, " if len(judged) > 1 else ""


def _facts(result: ScenarioResult, context: Context) -> str:
    known = versions()
    simulated_s = sum(case.duration_s for case in result.cases)
    packs = dict.fromkeys(
        f"{verdict.pack} ({verdict.edition})" for case in result.cases for verdict in case.verdicts
    )
    facts: dict[str, object] = {
        "Site": result.site,
        "Started": f"{context.started_at:%Y-%m-%d %H:%M:%S %Z}",
        "Site config": context.config_file,
        "Duration": f"{number(simulated_s)} s of the site, {context.took_s:.1f} s on the clock",
        "Scenario": context.scenario.file,
        "Seed": result.seed,
        "EMS": context.ems or "attached from outside",
        "dertwin": known.pop("dertwin"),
        "Host": known.pop("system"),
        "Python": ", ".join([known.pop("python"), *(f"{name} {each}" for name, each in known.items())]),
    }
    if packs:
        facts["Verdict packs"] = "; ".join(packs)
    return f"<dl>{''.join(f'<dt>{name}</dt><dd>{text(value)}</dd>' for name, value in facts.items())}</dl>"


def _overview(result: ScenarioResult, context: Context, judged: Sequence[Sequence[Row]]) -> Iterator[str]:
    yield "<section><h2>Cases</h2>"
    lines = [
        (
            _css(case),
            [
                Cell(f'<a href="#c{place}">{place}</a>', "tag"),
                cell(_named(case.parameters, case.name)),
                Cell(f'<span class="{_css(case)}">{word(_css(case))}</span>'),
                figure(f"{sum(row.outcome == 'passed' for row in each)} of {len(each)}"),
                figure(number(case.duration_s)),
                cell(_first_failure(each)),
            ],
        )
        for place, (case, each) in enumerate(zip(result.cases, judged, strict=True), start=1)
    ]
    for place, case in enumerate(context.scenario.cases[len(result.cases) :], start=len(result.cases) + 1):
        row = [cell(place, kind="tag"), cell(case.name), Cell('<span class="pending">NOT RUN</span>')]
        lines.append(("", [*row, figure(""), figure(""), cell("")]))
    yield table(("", "Case", "Verdict", "Met:n", "Lasted (s):n", "First failure"), lines)
    yield "</section>"


def _css(case: CaseResult) -> str:
    return "passed" if case.passed else "failed"


def _named(parameters: Mapping[str, object], name: str) -> str:
    return name or ", ".join(f"{key} {value}" for key, value in parameters.items())


def _first_failure(judged: Iterable[Row]) -> str:
    return next((f"{row.label} {row.name}" for row in judged if row.outcome != "passed"), "")


def _sources(judged: Sequence[Sequence[Row]]) -> dict[str, int]:
    """Number the sources of the requirements."""
    named = dict.fromkeys(row.source for each in judged for row in each if row.source)
    return {source: number for number, source in enumerate(named, start=1)}


def _appendix(context: Context, sources: Mapping[str, int]) -> Iterator[str]:
    if sources:
        lines = [("", [cell(f"[{place}]", kind="tag"), cell(source)]) for source, place in sources.items()]
        yield f"<section><h2>Sources of the requirements</h2>{table(('', 'Source'), lines)}</section>"
    yield f'<section><h2>How to read it</h2><p class="note">{_LEGEND}</p></section>'
    yield f"<section><h2>Scenario file</h2><pre>{text(context.scenario.text)}</pre></section>"
    config = context.config.model_dump(mode="json", by_alias=True, exclude_unset=True)
    written = json.dumps(config, indent=2, ensure_ascii=False)
    yield f"<section><h2>Site config</h2><pre>{text(written)}</pre></section>"
    yield f"<footer>Written by dertwin {versions()['dertwin']}.</footer>"
