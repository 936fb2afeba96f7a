"""Runs a scenario on a bench: steps with the site, and does to site, links and wires what it says."""

import asyncio
from collections.abc import Callable, Mapping, Sequence

import structlog

from bench.app import Bench
from bench.ticks import Act, Stopped
from dertwin.devices.device import Command
from dertwin.faults import Fault
from dertwin.overrides import Override
from dertwin.scenario.actions import WriteCommand
from dertwin.scenario.check import split_command
from dertwin.scenario.document import LoadedScenario
from dertwin.scenario.record import Happened
from dertwin.scenario.run import Acts, Due, Exchanges, ScenarioResult, ScenarioRun
from dertwin.scenario.signals import Observation, Requests
from dertwin.site import NO_COMMANDS, SiteSnapshot

log = structlog.get_logger()


class BenchScenario:
    """A scenario that runs on a bench from now on; `over` is set when it is done, or was stopped."""

    def __init__(
        self,
        bench: Bench,
        loaded: LoadedScenario,
        exchanges: Exchanges = lambda _: (),
        tell: Callable[[Happened], None] = lambda _: None,
    ) -> None:
        """Take the first steps at once; `tell` hears of everything that happens."""
        self.run = ScenarioRun(loaded, bench.site.config.site_name, bench.site.devices, exchanges)
        self.name = loaded.name
        self.over = asyncio.Event()
        self._bench = bench
        self._tell = tell
        bench.scenario = self
        if bench.recorder:
            bench.recorder.begin_scenario(bench.site, loaded, self.result)
        bench.orders = self.after_step(bench.site.snapshot, NO_COMMANDS)

    def after_step(
        self, snapshot: SiteSnapshot, commands: Mapping[str, Sequence[Command]]
    ) -> Mapping[str, Sequence[Command]]:
        """Look at a step, act, and return what is to be written with the next one."""
        try:
            acts = self.run.step(Observation(snapshot, commands, self._requests_of))
            orders = self._carry_out(acts)
        except Exception:
            log.exception("scenario failed", scenario=self.name)
            self.stop()
            return NO_COMMANDS
        if self.run.done:
            self._leave()
        return orders

    def stop(self) -> None:
        """End before the time, and everything that acts."""
        if recorder := self._bench.recorder:
            recorder.ticks.acted(Stopped())
        self._carry_out(self.run.stop())
        self._leave()

    def note(self, text: str) -> None:
        """Keep something that happened outside of the site among what happened."""
        self._carry_out(self.run.note(text))

    def result(self) -> ScenarioResult:
        """Return what has come of it so far."""
        return self.run.result()

    def _carry_out(self, acts: Acts) -> Mapping[str, Sequence[Command]]:
        if acts.clear:
            end_faults(self._bench)
        orders = carry_out(self._bench, acts.start)
        for each in acts.happened:
            self._tell(each)
        return orders

    def _requests_of(self, asset_id: str) -> Requests:
        requests = self._bench.requests_of(asset_id)
        if recorder := self._bench.recorder:
            recorder.ticks.counted(asset_id, requests)
        return requests

    def _leave(self) -> None:
        if self._bench.scenario is self:
            self._bench.scenario = None
        self.over.set()


def carry_out(bench: Bench, start: Sequence[Due]) -> Mapping[str, Sequence[Command]]:
    """Let actions begin on a bench; return what of them is to be written with the next step."""
    site = bench.site
    orders: dict[str, list[Command]] = {}
    for action, at_s, seed in start:
        match action:
            case WriteCommand():
                for target, value in action.write.items():
                    asset_id, command = split_command(target, site.devices)
                    orders.setdefault(asset_id, []).append(Command(command, value))
            case Override():
                site.override(action, at_s)
            case Fault():
                site.start_fault(action, at_s, seed)
        if bench.recorder and isinstance(action, Override | Fault):
            bench.recorder.ticks.acted(Act(action, at_s, seed))
    return orders


def end_faults(bench: Bench) -> None:
    """End everything that scenarios have begun on a bench."""
    bench.site.end_faults()
    if bench.recorder:
        bench.recorder.ticks.acted(Act(None))
