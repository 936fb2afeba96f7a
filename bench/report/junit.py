"""The verdict as JUnit XML, for build servers: a test case for each expectation, requirement and step."""

from collections.abc import Sequence

from bench.report.context import Context
from bench.report.rows import Row
from bench.report.words import attribute, text
from bench.verdict import versions
from dertwin.scenario.run import CaseResult, ScenarioResult


def junit(result: ScenarioResult, context: Context, judged: Sequence[Sequence[Row]]) -> str:
    """Return the text of a JUnit XML file; `judged` are the rows of each case."""
    suites = [_suite(result, context, case, each) for case, each in zip(result.cases, judged, strict=True)]
    if not result.complete:
        suites.append(_stopped(result, context))
    head = f"<testsuites name={attribute(result.scenario)}>"
    return "\n".join(['<?xml version="1.0" encoding="utf-8"?>', head, *suites, "</testsuites>", ""])


def _suite(result: ScenarioResult, context: Context, case: CaseResult, judged: Sequence[Row]) -> str:
    failures = sum(row.outcome != "passed" for row in judged)
    name = f"{result.scenario}: {case.name}" if case.name else result.scenario
    known = {
        "site": result.site,
        "seed": result.seed,
        "ems": context.ems,
        **{f"parameter {name}": value for name, value in case.parameters.items()},
        **{f"version {name}": value for name, value in versions().items()},
    }
    return "\n".join(
        [
            _head(name, context, len(judged), failures, case.duration_s),
            "<properties>",
            *(f"<property name={attribute(key)} value={attribute(each)}/>" for key, each in known.items()),
            "</properties>",
            *(_testcase(name, row) for row in judged),
            "</testsuite>",
        ]
    )


def _head(name: str, context: Context, tests: int, failures: int, duration_s: float) -> str:
    started = context.started_at.isoformat(timespec="seconds")
    return (
        f'<testsuite name={attribute(name)} tests="{tests}" failures="{failures}" errors="0" skipped="0" '
        f'time="{duration_s:.3f}" timestamp="{started}">'
    )


def _testcase(suite: str, row: Row) -> str:
    lasted_s = row.decided_s - row.began_s if row.decided_s >= row.began_s else 0.0
    name = f"{row.label} {row.name}"
    classname = f"{suite}: {row.group}" if row.group else suite
    head = f'<testcase name={attribute(name)} classname={attribute(classname)} time="{lasted_s:.3f}"'
    if row.outcome == "passed":
        return f"{head}/>"
    body = "\n".join(filter(None, (row.why, row.source)))
    return f'{head}><failure message={attribute(row.why)} type="{row.kind}">{text(body)}</failure></testcase>'


def _stopped(result: ScenarioResult, context: Context) -> str:
    """Return a suite that fails, so that nobody takes what was stopped for what has passed."""
    over, count = len(result.cases), len(context.scenario.cases)
    message = f"stopped before its end, in case {over} of {count}"
    return (
        _head(result.scenario, context, 1, 1, 0.0)
        + f'<testcase name="it ran to its end" classname={attribute(result.scenario)} time="0.000">'
        f'<failure message="{message}" type="stopped">{message}</failure></testcase></testsuite>'
    )
