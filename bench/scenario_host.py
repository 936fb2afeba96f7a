"""Scenarios on a running service: one at a time, told to start and to stop from outside."""

from __future__ import annotations

import asyncio
import math
import shutil
import time
from collections import deque
from collections.abc import Callable, Mapping
from datetime import UTC, datetime
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING, Any, NamedTuple

import structlog

from bench.app import Bench
from dertwin.config_errors import ConfigError, ConfigErrors
from dertwin.devices.device import Device

if TYPE_CHECKING:  # a service that runs no scenario shall not wait for this
    from bench.scenarios import BenchScenario
    from dertwin.scenario.document import LoadedScenario
    from dertwin.scenario.record import Happened
    from dertwin.scenario.run import CaseResult, ScenarioResult

log = structlog.get_logger()

KEPT_EVENTS = 50
KEPT_REPORTS = 20


class Event(NamedTuple):
    """Something that happened, and when on the clock of the wall (s since 1970)."""

    at: float
    happened: Happened


class ScenarioHost:
    """Runs scenarios on a bench.

    `current` is the one that runs, or ran last, `events` the last of the `told` ones that it told.
    """

    def __init__(
        self,
        bench: Bench,
        kept: Path | None = None,
        now: Callable[[], float] = time.time,
    ) -> None:
        """Run nothing yet. Below `kept`, if that is given, `reports` has those of the
        last scenarios and `incidents` the bundles of those that failed."""
        self.current: BenchScenario | None = None
        self.events: deque[Event] = deque(maxlen=KEPT_EVENTS)
        self.told = 0
        self._bench = bench
        self._kept = kept
        self._report: Path | None = None
        self._keeping: set[asyncio.Task[None]] = set()
        self._now = now

    @property
    def running(self) -> bool:
        """Tell whether a scenario is under way."""
        return self.current is not None and not self.current.over.is_set()

    async def start(self, name: str, files: Mapping[str, str]) -> dict[str, Any]:
        """Start the scenario `name` among files, given by name and content; return its status.

        Files beside it are what it reads, such as recordings. Raises ConfigErrors if it has faults, or
        when another one is running.
        """
        devices = self._bench.site.devices
        # Beside the loop, which has requests to answer meanwhile.
        loaded = await asyncio.to_thread(_load, name, files, devices)
        if self.running:
            assert self.current is not None
            running = f"the scenario {self.current.name!r} is running; stop it first, or wait"
            raise ConfigErrors([ConfigError(name, "", running)])
        from bench.scenarios import BenchScenario, check_wires, recorded_exchanges

        check_wires(self._bench, loaded)
        self.events.clear()
        self.told = 0
        log.info("scenario started", scenario=loaded.name, cases=len(loaded.cases))
        self._loaded, self._began_at, self._began = loaded, datetime.now(UTC), time.monotonic()
        self._report = None
        source = recorded_exchanges(self._bench)
        self.current = BenchScenario(self._bench, loaded, source, self._tell, self._over)
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
            "report": str(self._report) if self._report else None,
            "told": self.told,
            "events": [{"at": event.at, **event.happened._asdict()} for event in self.events],
        }

    def _tell(self, happened: Happened) -> None:
        self.events.append(Event(self._now(), happened))
        self.told += 1
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
        if self._kept:
            keeping = asyncio.create_task(self._keep(result, self._kept))
            self._keeping.add(keeping)
            keeping.add_done_callback(self._keeping.discard)

    async def _keep(self, result: ScenarioResult, folder: Path) -> None:
        """Write the report of a result, and the bundle of a bench whose EMS has failed."""
        from bench.incident import keep_incident
        from bench.report import Context, write_report

        config = self._bench.site.config
        took_s = time.monotonic() - self._began
        context = Context(self._loaded, config.site_name, config, "", self._began_at, took_s)
        report = folder / "reports" / f"{self._began_at:%Y%m%dT%H%M%SZ}"
        try:
            await asyncio.to_thread(write_report, result, context, report)
            for old in sorted((folder / "reports").iterdir())[:-KEPT_REPORTS]:
                await asyncio.to_thread(shutil.rmtree, old)
        except OSError as error:
            log.error("report not kept", folder=str(report), reason=error.strerror)
        else:
            self._report = report
            log.info("report kept", folder=str(report), scenario=result.scenario)
        if result.complete and not result.passed:
            await keep_incident(self._bench, folder / "incidents", f"the scenario {result.scenario} failed")


def _load(name: str, files: Mapping[str, str], devices: Mapping[str, Device]) -> LoadedScenario:
    """Return the scenario `name` among files. Raises ConfigErrors, which name files as they were given."""
    from dertwin.scenario.document import load_scenario

    with TemporaryDirectory() as folder:
        for file, content in files.items():
            path = Path(folder, file)
            if not path.resolve().is_relative_to(Path(folder).resolve()):
                problem = f"{file} is in another folder; put it beside the scenario, or below"
                raise ConfigErrors([ConfigError(name, "", problem)])
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(content)
        try:
            return load_scenario(Path(folder, name), devices)._replace(file=name)
        except ConfigErrors as errors:
            raise errors.without(folder) from None


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
