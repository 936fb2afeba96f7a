"""What a person sees of a scenario while it runs: a live view on a terminal, lines elsewhere."""

import math
import shutil
import sys
from collections import deque
from collections.abc import Callable

from bench.scenarios import BenchScenario
from dertwin.scenario.record import Happened
from dertwin.scenario.run import CaseResult, ScenarioResult

_SHOWN_EVENTS = 8
_COLOURS = {"passed": "32", "failed": "1;31", "pending": "33"}
_MARKS = {"passed": "ok", "failed": "FAILED", "pending": "..."}


class ScenarioView:
    """Shows one scenario; `tell` takes what happens, `refresh` shows how things stand."""

    def __init__(self) -> None:
        self.live = sys.stdout.isatty()
        self._last: deque[Happened] = deque(maxlen=_SHOWN_EVENTS)
        self._shown_lines = 0

    def tell(self, happened: Happened) -> None:
        """Take something that happened."""
        self._last.append(happened)
        if not self.live:
            print(line(happened), flush=True)

    def refresh(self, scenario: BenchScenario) -> None:
        """Show how things stand now, in the place of what was shown before."""
        if not self.live:
            return
        width = shutil.get_terminal_size().columns
        lines = [(text[: width - 1], colour) for text, colour in self._picture(scenario)]
        back = f"\033[{self._shown_lines}F\033[J" if self._shown_lines else ""
        print(back + "\n".join(f"\033[{colour}m{text}\033[0m" for text, colour in lines), flush=True)
        self._shown_lines = len(lines)

    def _picture(self, scenario: BenchScenario) -> list[tuple[str, str]]:
        """Return the lines to show, each with its colour."""
        number, count = scenario.run.progress
        case = scenario.result().cases[-1]
        title = f"{scenario.name}  {case.duration_s:.0f} s"
        if count > 1:
            title += f"  case {number} of {count}: {case.name}"
        return [
            (title, "1"),
            *(
                (f"  {_MARKS[check.outcome]:<7} {check.text}{_by(check.margin)}", _COLOURS[check.outcome])
                for check in case.checks
            ),
            *((line(each), _COLOURS.get(each.kind, "2")) for each in self._last),
        ]


def line(happened: Happened) -> str:
    """Return what happened as one line."""
    return f"{happened.time_s:9.1f} s  {happened.kind:<8} {happened.text}"


def summary(result: ScenarioResult, show: Callable[[str], object] = print) -> None:
    """Tell what came of a scenario: each case, what failed in it, and the verdict."""
    for case in result.cases:
        for text in case_lines(case):
            show(text)
    verdict = "passed" if result.passed else "failed" if result.complete else "not complete"
    show(f"{result.scenario}: {verdict}")


def case_lines(case: CaseResult) -> list[str]:
    """Return the lines about one case: expectations, requirements and steps that never came."""
    name = case.name or "all steps"
    lines = [f"{name}: {'passed' if case.passed else 'FAILED'} after {case.duration_s:g} s"]
    lines += [f"  {_MARKS[check.outcome]:<7} {check.text}{_by(check.margin)}" for check in case.checks]
    lines += [
        f"  note    {each.text} (at {each.time_s:g} s)"
        for each in case.record.happened
        if each.kind == "note"
    ]
    for verdict in case.verdicts:
        lines.append(f"  {verdict.title} ({verdict.edition})")
        lines += [
            f"    {'ok' if r.met else 'FAILED':<7} {r.name}: {_amount(r.measured, r.unit)}, "
            f"must be {_band(r.low, r.high)}{f' ({r.detail})' if r.detail else ''}"
            for r in verdict.requirements
        ]
    return lines + [f"  FAILED  never came: {step}" for step in case.missed]


def _amount(value: float, unit: str) -> str:
    number = f"{value:.0f}" if abs(value) >= 1000.0 else f"{value:.4g}"
    return number if unit == "1" else f"{number} {unit}"


def _by(margin: float) -> str:
    return f", margin {_amount(margin, '1')}" if math.isfinite(margin) else ""


def _band(low: float, high: float) -> str:
    if math.isinf(low):
        return f"at most {high:g}"
    return f"at least {low:g}" if math.isinf(high) else f"{low:g} to {high:g}"
