"""Runs a scenario on a bench: steps with the site, and does to site, links and wires what it says."""

import asyncio
from collections.abc import Callable, Mapping, Sequence
from time import monotonic

import structlog

from bench.app import WRITES, Bench
from bench.exchanges import exchanges, units_of
from bench.ticks import Act, Stopped
from dertwin.config_errors import ConfigError, ConfigErrors
from dertwin.devices.device import Command
from dertwin.faults import Fault, Reboot, RefusedCommands
from dertwin.overrides import Override
from dertwin.scenario.actions import WriteCommand
from dertwin.scenario.check import split_command
from dertwin.scenario.document import LoadedScenario
from dertwin.scenario.link import WholeLinkFault
from dertwin.scenario.record import Exchange, Happened
from dertwin.scenario.run import Acts, Due, Exchanges, ScenarioResult, ScenarioRun
from dertwin.scenario.signals import Observation, Requests
from dertwin.scenario.wire import ExceptionReply, ExchangeFault, NoReply
from dertwin.site import NO_COMMANDS, SiteSnapshot

log = structlog.get_logger()


class BenchScenario:
    """A scenario that runs on a bench from now on; `over` is set when it is done, or was stopped."""

    def __init__(
        self,
        bench: Bench,
        loaded: LoadedScenario,
        source: Exchanges = lambda _: (),
        tell: Callable[[Happened], None] = lambda _: None,
        ended: Callable[[ScenarioResult], None] = lambda _: None,
    ) -> None:
        """Take the first steps at once.

        Packs get requests and replies from `source`. `tell` hears of everything that happens, `ended` of
        the result. Raises ConfigErrors if a fault of it cannot be had on this bench.
        """
        check_wires(bench, loaded)
        self.run = ScenarioRun(loaded, bench.site.config.site_name, bench.site.devices, source)
        self.name = loaded.name
        self.over = asyncio.Event()
        self._bench = bench
        self._tell = tell
        self._ended = ended
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
        except Exception as error:
            log.exception("scenario failed", scenario=self.name)
            self.note(f"the scenario cannot go on: {error}")
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
        if not self.over.is_set():
            self.over.set()
            self._ended(self.run.result())


def check_wires(bench: Bench, loaded: LoadedScenario) -> None:
    """Raise ConfigErrors if a wire or link fault of a scenario cannot be had on a bench."""
    problems = dict.fromkeys(
        ConfigError(loaded.file, f"steps[{index}].do", problem)
        for case in loaded.cases
        for index, step in enumerate(case.scenario.steps)
        for action in step.do
        if isinstance(action, ExchangeFault | WholeLinkFault) and (problem := bench.faults.problem(action))
    )
    if problems:
        raise ConfigErrors(list(problems))


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
                for fault in _on_the_wire(action):
                    _start_fault(bench, fault, seed)
            case ExchangeFault() | WholeLinkFault():
                _start_fault(bench, action, seed)
        if bench.recorder and isinstance(action, Override | Fault):
            bench.recorder.ticks.acted(Act(action, at_s, seed))
    return orders


def end_faults(bench: Bench) -> None:
    """End everything that scenarios have begun on a bench."""
    bench.site.end_faults()
    bench.faults.clear()
    if bench.recorder:
        bench.recorder.ticks.acted(Act(None))


def _start_fault(bench: Bench, fault: ExchangeFault | WholeLinkFault, seed: str) -> None:
    """Let a fault act between clients and devices, for its duration in simulated time."""
    if fault.duration is not None:
        speed = bench.site.config.speed if bench.clock else 1.0
        fault = fault.model_copy(update={"duration": fault.duration / speed})
    bench.faults.start(fault, seed)


def _on_the_wire(fault: Fault) -> Sequence[ExchangeFault]:
    """Return what the client of a device with a fault sees of it besides its registers."""
    match fault:
        case Reboot():
            return (NoReply(wire_fault="no_reply", device=fault.device, duration=fault.duration),)
        case RefusedCommands():
            refusal = ExceptionReply(
                wire_fault="exception",
                device=fault.device,
                functions=sorted(WRITES),
                code=fault.code,
                duration=fault.duration,
            )
            return (refusal,)
    return ()


def recorded_exchanges(bench: Bench) -> Exchanges:
    """Return where scenarios on a bench that records get requests and replies from."""

    def since(since_s: float) -> Sequence[Exchange]:
        if bench.recorder is None:
            return ()
        site = bench.site
        start = monotonic() - (site.time_s - since_s) / site.config.speed
        units = units_of(bench.links.values())
        found = exchanges(bench.recorder.frames(), units, start, site.config.speed)
        return [each for each in found if each.time_s >= 0.0]

    return since
