"""Scenarios on a running service: one at a time, told to start and to stop from outside."""

import math
import time
from collections import deque
from collections.abc import Callable, Mapping
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any, NamedTuple

import structlog

from bench.app import Bench
from bench.scenarios import BenchScenario, check_wires
from dertwin.config_errors import ConfigError, ConfigErrors
from dertwin.scenario.document import load_scenario
from dertwin.scenario.record import Happened
from dertwin.scenario.run import CaseResult, Exchanges, ScenarioResult

log = structlog.get_logger()

KEPT_EVENTS = 50


class Event(NamedTuple):
    """Something that happened, and when on the clock of the wall (s since 1970)."""

    at: float
    happened: Happened


class ScenarioHost:
    """Runs scenarios on a bench. `current` is the one that runs, or ran last, `events` what it told."""

    def __init__(
        self,
        bench: Bench,
        exchanges: Exchanges = lambda _: (),
        failed: Callable[[Bench, ScenarioResult], None] | None = None,
        now: Callable[[], float] = time.time,
    ) -> None:
        """Run nothing yet. `failed` hears of each result that is no pass."""
        self.current: BenchScenario | None = None
        self.events: deque[Event] = deque(maxlen=KEPT_EVENTS)
        self._bench = bench
        self._exchanges = exchanges
        self._failed = failed
        self._now = now

    @property
    def running(self) -> bool:
        """Tell whether a scenario is under way."""
        return self.current is not None and not self.current.over.is_set()

    def start(self, name: str, files: Mapping[str, str]) -> dict[str, Any]:
        """Start the scenario `name` among files, given by name and content; return its status.

        Files beside it are what it reads, such as recordings. Raises ConfigErrors if it has faults, or
        when another one is running.
        """
        if self.running:
            assert self.current is not None
            running = f"the scenario {self.current.name!r} is running; stop it first, or wait"
            raise ConfigErrors([ConfigError(name, "", running)])
        with TemporaryDirectory() as folder:
            for file, content in files.items():
                path = Path(folder, file)
                if not path.resolve().is_relative_to(Path(folder).resolve()):
                    raise ConfigErrors([ConfigError(name, "", f"{file!r} lies outside of its folder")])
                path.parent.mkdir(parents=True, exist_ok=True)
                path.write_text(content)
            try:
                loaded = load_scenario(Path(folder, name), self._bench.site.devices)
                check_wires(self._bench, loaded)
            except ConfigErrors as errors:
                raise ConfigErrors(
                    [each._replace(file=each.file.removeprefix(f"{folder}/")) for each in errors.errors]
                ) from None
        self.events.clear()
        log.info("scenario started", scenario=loaded.name, cases=len(loaded.cases))
        self.current = BenchScenario(self._bench, loaded, self._exchanges, self._tell, self._over)
        return self.status()

    def stop(self) -> dict[str, Any]:
        """Stop what is running, if anything, and return its status."""
        if self.running:
            assert self.current is not None
            self.current.stop()
        return self.status()

    def status(self) -> dict[str, Any]:
        """Return how the scenario stands that runs, or ran last, ready to become JSON."""
        if self.current is None:
            return {"scenario": None, "running": False}
        result = self.current.result()
        number, count = self.current.run.progress
        return {
            "scenario": result.scenario,
            "running": self.running,
            "complete": result.complete,
            "passed": result.passed if not self.running else None,
            "case": number,
            "cases": [_case(case) for case in result.cases],
            "count": count,
            "events": [{"at": event.at, **event.happened._asdict()} for event in self.events],
        }

    def _tell(self, happened: Happened) -> None:
        self.events.append(Event(self._now(), happened))
        log.info(
            "scenario event",
            kind=happened.kind,
            text=happened.text,
            time_s=happened.time_s,
            device=happened.device,
        )

    def _over(self, result: ScenarioResult) -> None:
        verdict = "passed" if result.passed else "failed" if result.complete else "not complete"
        log.info("scenario over", scenario=result.scenario, verdict=verdict)
        if self._failed and result.complete and not result.passed:
            self._failed(self._bench, result)


def _case(case: CaseResult) -> dict[str, Any]:
    return {
        "name": case.name,
        "passed": case.passed,
        "time_s": case.duration_s,
        "expectations": [
            {
                "text": check.text,
                "outcome": check.outcome,
                "margin": check.margin if math.isfinite(check.margin) else None,
            }
            for check in case.checks
        ],
        "verdicts": [
            {
                "title": verdict.title,
                "edition": verdict.edition,
                "passed": verdict.passed,
                "requirements": [
                    {
                        "name": requirement.name,
                        "measured": requirement.measured if math.isfinite(requirement.measured) else None,
                        "met": requirement.met,
                    }
                    for requirement in verdict.requirements
                ],
            }
            for verdict in case.verdicts
        ],
        "missed": list(case.missed),
    }
