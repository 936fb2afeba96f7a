"""A site in the hands of a test, which steps it or waits, makes things go wrong, and sees what happened."""

import asyncio
import contextlib
import math
import threading
from collections import deque
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import Future
from itertools import count
from typing import Any, TypeVar

import uvloop

from bench.app import Bench
from bench.check import CheckedSite
from bench.exchanges import exchanges
from bench.links.link import ModbusLink
from bench.links.tcp import TcpLink
from bench.plant import Plant
from bench.recorder import Recorder
from bench.scenarios import carry_out, end_faults
from dertwin.config_errors import use
from dertwin.devices.device import Command
from dertwin.scenario.actions import CallPack, action_of
from dertwin.scenario.check import action_problems
from dertwin.scenario.conditions import Condition, compiled, names
from dertwin.scenario.record import Exchange, Received
from dertwin.scenario.run import Due
from dertwin.scenario.signals import Memory, Observation, Reader, reader
from dertwin.site import NO_COMMANDS, SiteSnapshot
from dertwin.stepping import TOLERANCE

KEPT_STEPS = 100
_T = TypeVar("_T")


class Stage:
    """What a test sees of a bench, and does to it; takes part in each of its steps."""

    def __init__(self, bench: Bench) -> None:
        """Look from now on; there must be no scenario on the bench."""
        self.bench = bench
        self.received: list[Received] = []
        self.watched: dict[str, deque[tuple[float, float]]] = {}
        self._memory = Memory()
        self._readers: dict[str, Reader] = {}
        self._orders: dict[str, list[Command]] = {}
        self._numbers = count(1)
        self._waiting: list[tuple[Callable[[], bool], Callable[[], object]]] = []
        bench.scenario = self
        for name in ("pcc.active_power_w", *(f"{d}.active_power_w" for d in bench.site.devices)):
            self._watch(name)
        self.after_step(bench.site.snapshot, NO_COMMANDS)

    def after_step(
        self, snapshot: SiteSnapshot, commands: Mapping[str, Sequence[Command]]
    ) -> Mapping[str, Sequence[Command]]:
        """Take in the outcome of a step; return what a test has ordered meanwhile."""
        now_s = snapshot.time_s
        self._seen = Observation(snapshot, commands, self.bench.requests_of)
        self._memory.note(self._seen)
        for device, batch in commands.items():
            self.received += [Received(now_s, device, name, value) for name, value in batch]
        for name, kept in self.watched.items():
            kept.append((now_s, self._readers[name](self._seen)))
        for is_due, call in list(self._waiting):
            if is_due():
                self._waiting.remove((is_due, call))
                call()
        orders, self._orders = self._orders, {}
        return orders

    def stop(self) -> None:
        """Look no more."""
        self.bench.scenario = None

    def value(self, name: str) -> float:
        """Return what a signal is now. Raises ValueError for an unknown name."""
        self._watch(name)
        return self._readers[name](self._seen)

    def margin(self, condition: Condition) -> float:
        """Return by how much a condition holds now; negative if it does not."""
        return compiled(condition)(self.value)

    def inject(self, action: Mapping[str, Any]) -> None:
        """Do what an action of a scenario file says. Raises ValueError if it does not fit the site."""
        what = action_of(action)
        if isinstance(what, CallPack):
            raise ValueError(f"verdict: {what.verdict} judges a scenario; use `dertwin scenario run`")
        for problem in action_problems(what, self.bench.site.devices):
            raise ValueError(problem)
        due = Due(what, self.bench.site.time_s, f"test {next(self._numbers)}")
        for device, batch in carry_out(self.bench, [due]).items():
            self._orders.setdefault(device, []).extend(batch)

    def call_when(self, is_due: Callable[[], bool], call: Callable[[], object]) -> None:
        """Call once after the first step in which something is due."""
        self._waiting.append((is_due, call))

    def _watch(self, name: str) -> None:
        if name not in self._readers:
            self._readers[name] = reader(name, self.bench.site.devices, self._memory)
            self.watched[name] = deque(maxlen=KEPT_STEPS)


class SteppedSite(Plant):
    """A site in simulated time without ports: `read`, `write`, and time that passes when the test says so."""

    def __init__(self, checked: CheckedSite) -> None:
        super().__init__(checked)
        self.stage = Stage(self.bench)

    def advance(self, seconds: float) -> SiteSnapshot:
        """Let simulated time pass (s, in whole steps of the site) and return what the site is then."""
        site = self.bench.site
        until_s = site.time_s + seconds
        while site.time_s < until_s - TOLERANCE:
            self.tick()
        return site.snapshot

    def wait_for(self, condition: Condition, within: float) -> float:
        """Let time pass until a condition holds and return how long it took (s).

        Raises AssertionError, with how close it came, if it does not hold `within` the time (s).
        """
        start_s, best = self.bench.site.time_s, -math.inf
        while (margin := self.stage.margin(condition)) < 0.0:
            best = max(best, margin)
            waited_s = self.bench.site.time_s - start_s
            assert waited_s < within - TOLERANCE, _missed(condition, within, best, self.stage)
            self.tick()
        return self.bench.site.time_s - start_s

    def value(self, name: str) -> float:
        """Return a signal, e.g. `bess-1.soc`. Raises ValueError for an unknown name."""
        return self.stage.value(name)

    def inject(self, action: Mapping[str, Any]) -> None:
        """Do what an action of a scenario file says. Raises ValueError if it does not fit the site."""
        self.stage.inject(action)

    def heal(self) -> None:
        """End all faults and overrides."""
        end_faults(self.bench)

    def received(self, device: str, command: str) -> list[Received]:
        """Return the accepted writes of a command (SI name), with the time (s) of the step that took each."""
        return _received(self.stage, device, command)

    def story(self) -> str:
        """Return the last requests and signals as text."""
        return story(self.exchanges, self.stage)


class ServedSite:
    """A site that is served in real time on an event loop of its own thread."""

    def __init__(self, checked: CheckedSite) -> None:
        """Serve a checked config; returns once every link is up or has failed."""
        self._started: Future[asyncio.AbstractEventLoop] = Future()
        self._stop = asyncio.Event()
        self._thread = threading.Thread(target=uvloop.run, args=(self._serve(checked),), daemon=True)
        self._thread.start()
        self._loop = self._started.result(10.0)

    def close(self) -> None:
        """Stop serving."""
        self._loop.call_soon_threadsafe(self._stop.set)
        self._thread.join(10.0)

    def address(self, device: str) -> tuple[str, int]:
        """Return host and port at which a device is reached over TCP. Raises ValueError if it is not."""
        for link in self._links(device):
            if isinstance(link, TcpLink):
                host, _, port = self.bench.status[self._key(link)].where.rpartition(":")
                return host.strip("[]"), int(port)
        raise ValueError(f"{device} is not on TCP")

    def line(self, device: str) -> str:
        """Return the port that a client opens to reach a device. Raises ValueError if it is on no line."""
        for link in self._links(device):
            if not isinstance(link, TcpLink):
                where = self.bench.status[self._key(link)].where
                return where.partition("open ")[2].partition(" in")[0] or where
        raise ValueError(f"{device} is on no serial line")

    def unit_id(self, device: str) -> int:
        """Return the unit id of a device on its first link."""
        units = self._links(device)[0].units
        return next(unit_id for unit_id, unit in units.items() if unit.asset_id == device)

    def wait_for(self, condition: Condition, within: float) -> None:
        """Wait until a condition holds after a step.

        Raises AssertionError if it does not hold `within` the time (s of simulated time).
        """
        held: Future[bool] = Future()

        def begin() -> None:
            until_s = self.bench.site.time_s + within
            stage = self.stage

            def decide() -> None:
                held.set_result(stage.margin(condition) >= 0.0)

            stage.call_when(
                lambda: stage.margin(condition) >= 0.0 or self.bench.site.time_s >= until_s, decide
            )

        self.call(begin)
        speed = self.bench.site.config.speed
        assert held.result(within / speed + 10.0), _missed(condition, within, math.nan, self.stage)

    def value(self, name: str) -> float:
        """Return a signal, e.g. `bess-1.soc`. Raises ValueError for an unknown name."""
        return self.call(self.stage.value, name)

    def inject(self, action: Mapping[str, Any]) -> None:
        """Do what an action of a scenario file says. Raises ValueError if it does not fit the site."""
        self.call(self.stage.inject, action)

    def heal(self) -> None:
        """End all faults and overrides."""
        self.call(end_faults, self.bench)

    def received(self, device: str, command: str) -> list[Received]:
        """Return the accepted writes of a command (SI name), with the time (s) of the step that took each."""
        return self.call(_received, self.stage, device, command)

    def call(self, function: Callable[..., _T], *arguments: Any) -> _T:
        """Call a function on the loop that serves the site, and return or raise what it does."""

        async def call() -> _T:
            return function(*arguments)

        return asyncio.run_coroutine_threadsafe(call(), self._loop).result(10.0)

    def story(self) -> str:
        """Return the last requests and signals as text."""
        devices = {
            link.name: {unit_id: unit.asset_id for unit_id, unit in link.units.items()}
            for link in self.bench.links.values()
        }
        begun = self.begun_at
        return self.call(lambda: story(exchanges(self.recorder.frames(), devices, begun), self.stage))

    async def _serve(self, checked: CheckedSite) -> None:
        try:
            self.recorder = Recorder()
            async with Bench(checked, self.recorder) as bench:
                self.bench = bench
                self.stage = Stage(bench)
                loop = asyncio.get_running_loop()
                self.begun_at = loop.time()
                await bench.settled()
                self._started.set_result(loop)
                await self._stop.wait()
        except BaseException as error:
            if self._started.done():
                raise
            self._started.set_exception(error)

    def _links(self, device: str) -> list[ModbusLink]:
        found = [
            link
            for link in self.bench.links.values()
            if any(unit.asset_id == device for unit in link.units.values())
        ]
        if not found:
            raise ValueError(f'"{device}" is not served; {use(self.bench.site.devices, device)}')
        return found

    def _key(self, link: object) -> str:
        return next(key for key, known in self.bench.links.items() if known is link)


@contextlib.contextmanager
def served(checked: CheckedSite) -> Iterator[ServedSite]:
    """Serve a site within a context."""
    site = ServedSite(checked)
    try:
        yield site
    finally:
        site.close()


def story(requests: Sequence[Exchange], stage: Stage, requests_shown: int = 20, steps_shown: int = 8) -> str:
    """Return the last requests and the last values of all signals that were looked at, as text."""
    lines = ["last requests:"]
    lines += [told(each) for each in requests[-requests_shown:]] or ["  none"]
    lines.append("last values:")
    for name, kept in stage.watched.items():
        values = [f"{value:.6g}" for _, value in list(kept)[-steps_shown:]]
        lines.append(f"  {name:<36} {' '.join(f'{value:>9}' for value in values)}")
    return "\n".join(lines)


def told(exchange: Exchange) -> str:
    """Return a request and its reply as one line."""
    if not exchange.reply:
        answer = "no reply"
    elif exchange.reply[0] & 0x80:
        answer = f"exception {exchange.reply[1]:02d}"
    else:
        answer = exchange.reply.hex(" ")
    device = exchange.device or f"unit {exchange.unit_id}"
    return f"  {exchange.time_s:10.3f} s  {device:<16} {exchange.request.hex(' ')} -> {answer}"


def _received(stage: Stage, device: str, command: str) -> list[Received]:
    known = stage.bench.site.devices[device].commands
    if command not in known:
        raise ValueError(f'"{command}" is no command of {device}; {use(known, command)}')
    return [each for each in stage.received if (each.device, each.command) == (device, command)]


def _missed(condition: Condition, within: float, best: float, stage: Stage) -> str:
    values = ", ".join(f"{name} is {stage.value(name):g}" for name in dict.fromkeys(names(condition)))
    close = f", it came as close as {-best:g}" if math.isfinite(best) else ""
    return f"{condition} did not become true within {within:g} s{close}; {values}"
