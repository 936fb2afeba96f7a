"""What a person sees of a scenario while it runs: a live view on a terminal, lines elsewhere."""

import math
from collections import deque
from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext

from rich.console import Console, Group
from rich.live import Live
from rich.table import Table
from rich.text import Text

from bench.scenarios import BenchScenario
from dertwin.scenario.record import Happened
from dertwin.scenario.run import CaseResult, ScenarioResult

_SHOWN_EVENTS = 8
_STYLES = {"passed": "green", "failed": "bold red", "pending": "yellow"}
_MARKS = {"passed": "ok", "failed": "FAILED", "pending": "..."}


class ScenarioView:
    """Shows one scenario; `tell` takes what happens, `refresh` shows how things stand."""

    def __init__(self) -> None:
        self._console = Console(highlight=False)
        self._last: deque[Happened] = deque(maxlen=_SHOWN_EVENTS)
        self._live: Live | None = None

    def shown(self) -> AbstractContextManager[object]:
        """Return the context in which the live view is there; it does nothing when nobody watches."""
        if not self._console.is_terminal:
            return nullcontext()
        self._live = Live(console=self._console, auto_refresh=False)
        return self._live

    def tell(self, happened: Happened) -> None:
        """Take something that happened."""
        self._last.append(happened)
        if self._live is None:
            print(line(happened), flush=True)

    def refresh(self, scenario: BenchScenario) -> None:
        """Show how things stand now."""
        if self._live is not None:
            self._live.update(self._picture(scenario), refresh=True)

    def _picture(self, scenario: BenchScenario) -> Group:
        number, count = scenario.run.progress
        case = scenario.result().cases[-1]
        title = f"{scenario.name}  {case.duration_s:.0f} s"
        if count > 1:
            title += f"  case {number} of {count}: {case.name}"
        table = Table(box=None, show_header=False, padding=(0, 1))
        for check in case.checks:
            margin = f"margin {check.margin:.4g}" if math.isfinite(check.margin) else ""
            table.add_row(
                Text(_MARKS[check.outcome], _STYLES[check.outcome]), check.text, Text(margin, "dim")
            )
        events = [Text(line(each), _STYLES.get(each.kind, "dim")) for each in self._last]
        return Group(Text(title, "bold"), table, *events)


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
    for verdict in case.verdicts:
        lines.append(f"  {verdict.title} ({verdict.edition})")
        lines += [
            f"    {'ok' if r.met else 'FAILED':<7} {r.name}: {r.measured:.4g} {r.unit}, "
            f"must be {_band(r.low, r.high)}{f' ({r.detail})' if r.detail else ''}"
            for r in verdict.requirements
        ]
    return lines + [f"  FAILED  never came: {step}" for step in case.missed]


def _by(margin: float) -> str:
    return f", margin {margin:.4g}" if math.isfinite(margin) else ""


def _band(low: float, high: float) -> str:
    if math.isinf(low):
        return f"at most {high:g}"
    return f"at least {low:g}" if math.isinf(high) else f"{low:g} to {high:g}"
