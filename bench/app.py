"""Serves a site: one tick loop, one task for each link."""

import asyncio
import time
from collections import defaultdict
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from types import MappingProxyType, TracebackType
from typing import Any, Protocol, Self

import structlog

from bench.check import CheckedSite, check_asset
from bench.clock import StepClock
from bench.counters import Writes
from bench.faults import Faults
from bench.links.link import LinkDown, ModbusLink
from bench.links.serial import SerialLink
from bench.links.supervise import LinkStatus, supervise
from bench.links.tcp import TcpLink
from bench.log import OncePerMinute
from bench.ports import PortWatcher
from bench.power import switched_off
from bench.recorder import Recorder
from bench.unit import Unit
from dertwin.bindings import GpioPower, TcpBinding, UsbPower
from dertwin.config import parse_asset
from dertwin.config_errors import ConfigErrors
from dertwin.config_links import link_errors, link_name, link_settings
from dertwin.devices.asset import AssetConfig
from dertwin.devices.device import Command
from dertwin.registers.image import RegisterImage
from dertwin.registers.layout import Layout
from dertwin.scenario.signals import Requests
from dertwin.site import NO_COMMANDS, Site, SiteSnapshot, build_site

log = structlog.get_logger()

# A burst of steps (catching up, or a high simulation speed) lets requests in at least this often.
BURST_S = 0.005
WRITES = frozenset((0x05, 0x06, 0x0F, 0x10, 0x16, 0x17))
NO_UNITS: Mapping[str, Mapping[int, Unit]] = MappingProxyType({})


@dataclass(slots=True)
class StepSeconds:
    """How long (s) the last step took to make, and the longest of all."""

    last: float = 0.0
    longest: float = 0.0


class Scenario(Protocol):
    """What looks at each step of a site, and acts on it before the next one."""

    def after_step(
        self, snapshot: SiteSnapshot, commands: Mapping[str, Sequence[Command]]
    ) -> Mapping[str, Sequence[Command]]:
        """Take in the outcome of a step and return commands for the next one, as if an EMS wrote them."""
        ...

    def stop(self) -> None:
        """End before the time: the site is not what it was any more."""
        ...


class Bench:
    """A site and the links that serve it.

    Use as an async context manager: inside, the links are served and, with `real_time`, the clock
    runs. Without `real_time` the caller makes each step with `tick`. `observers` are called with the
    snapshot of each step; one that raises is called no more.
    """

    def __init__(self, checked: CheckedSite, recorder: Recorder | None = None) -> None:
        """Build the site; nothing is opened yet. What the links do goes to the recorder, if there is one."""
        self.site: Site = build_site(checked.config)
        self.recorder = recorder
        self.clock: StepClock | None = None
        self.tick_s = StepSeconds()
        self.links: dict[str, ModbusLink] = {}
        self.status: dict[str, LinkStatus] = {}
        self.ports = PortWatcher()
        self.writes = Writes()
        self.scenario: Scenario | None = None
        self.orders: Mapping[str, Sequence[Command]] = NO_COMMANDS
        self.observers: list[Callable[[SiteSnapshot], None]] = []
        self.faults = Faults(self)
        self._images: dict[str, list[RegisterImage]] = {}
        self._tasks: dict[str, asyncio.Task[None]] = {}
        self._interrupted: dict[str, asyncio.Event] = {}
        self._turns: defaultdict[str, asyncio.Lock] = defaultdict(asyncio.Lock)
        self._group: asyncio.TaskGroup | None = None
        self.map_roots = checked.map_roots
        self._log_protocol_error = OncePerMinute()
        self._failures = OncePerMinute()
        for asset_id, layouts in checked.layouts.items():
            self._bind(asset_id, layouts)
        self._publish()

    async def __aenter__(self) -> Self:
        self._group = await asyncio.TaskGroup().__aenter__()
        for key in self.links:
            self._start(key)
        self._set_pace()
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        assert self._group is not None
        for task in self._tasks.values():
            task.cancel()
        self._tasks.clear()
        try:
            await self._group.__aexit__(kind, error, traceback)
        finally:
            self._group = None
            self.ports.close()

    def tick(self, dt_s: float | None = None) -> SiteSnapshot:
        """Make one step of dt_s (s, the config's `step` if left out).

        Take the accepted writes, step the site, show the result in the registers. The units of a device
        that has failed answer exception 04 from then on.
        """
        start = time.perf_counter()
        commands: dict[str, list[Command]] = {}
        requests: dict[str, int] = {}
        for asset_id, images in self._images.items():
            for image in images:
                if image.requests_since_tick:
                    requests[asset_id] = requests.get(asset_id, 0) + image.requests_since_tick
                    image.requests_since_tick = 0
            # The images of a device share one list of writes.
            if images and (writes := images[0].drain()):
                commands[asset_id] = [Command(*write) for write in writes]
                self.writes.note(asset_id, (name for name, _ in writes))
        for asset_id, orders in self.orders.items():
            commands.setdefault(asset_id, []).extend(orders)
        if dt_s is None:
            dt_s = self.site.config.step
        if self.recorder:
            self.recorder.ticks.note(self.site, dt_s, commands, requests)
        snapshot = self.site.step(commands, dt_s, requests)
        self._publish()
        self.orders = self.scenario.after_step(snapshot, commands) if self.scenario else NO_COMMANDS
        self._show(snapshot)
        taken = self.tick_s
        taken.last = time.perf_counter() - start
        if taken.last > taken.longest:
            taken.longest = taken.last
        return snapshot

    def go_on_from(self, time_s: float, states: Mapping[str, Any]) -> None:
        """Let the site go on from an earlier run, and its registers show that; see Site."""
        self.site.go_on_from(time_s, states)
        if self.recorder:
            self.recorder.ticks.restart()
        self._publish()

    def requests_of(self, asset_id: str) -> Requests:
        """Return how many requests the units of a device have answered since the start."""
        total = writes = refused = 0
        for link in self.links.values():
            for unit in link.units.values():
                if unit.asset_id == asset_id:
                    for (function, code), count in unit.requests.items():
                        total += count
                        writes += count if function in WRITES else 0
                        refused += count if code else 0
        return Requests(total, writes, refused)

    @property
    def ready(self) -> bool:
        """Tell whether each link is up or has failed once, and all that do not wait for hardware are up."""
        return all(
            status.up or (status.settled.is_set() and not self.links[key].required)
            for key, status in self.status.items()
        )

    async def settled(self) -> None:
        """Wait until each link is up or has failed once."""
        await asyncio.gather(*(status.settled.wait() for status in self.status.values()))

    def add_asset(self, config: AssetConfig | Mapping[str, Any]) -> str:
        """Add a device and serve it at once; it counts in the next balance. Return its asset id.

        Raises ValueError if its id is taken, ConfigErrors if its bindings cannot be served beside the
        others or for a register map, pydantic.ValidationError if a mapping is no asset config.
        """
        asset = config if isinstance(config, AssetConfig) else parse_asset(config)
        layouts = check_asset(asset, self.map_roots)
        bindings = {
            f"{asset_id}.protocols[{i}]": binding
            for asset_id, config in [*self._configs(), ("the new asset", asset)]
            for i, binding in enumerate(config.protocols)
        }
        if conflicts := list(link_errors("", bindings)):
            raise ConfigErrors(conflicts)
        asset_id = self.site.add_asset(asset)
        self._bind(asset_id, layouts)
        self.faults.arrange()
        return asset_id

    def remove_asset(self, asset_id: str) -> None:
        """Take a device off its links and out of the site; a link without units is closed.

        Raises ValueError for an unknown id.
        """
        self.site.remove_asset(asset_id)
        self.orders = {name: batch for name, batch in self.orders.items() if name != asset_id}
        self._images.pop(asset_id, None)
        self.writes.by_device.pop(asset_id, None)
        for key, link in list(self.links.items()):
            for unit_id in [unit_id for unit_id, unit in link.units.items() if unit.asset_id == asset_id]:
                del link.units[unit_id]
            if not link.units:
                del self.links[key], self.status[key]
                if task := self._tasks.pop(key, None):
                    task.cancel()

    async def reload(self, checked: CheckedSite) -> None:
        """Serve another config: links and devices that are the same in it go on as if nothing had been.

        Links that changed or went are closed, with their clients; see Site.successor for devices and time.
        """
        if self.scenario is not None:
            self.scenario.stop()
        now = _settings(config for _, config in self._configs())
        then = _settings(checked.config.assets)
        gone = [key for key in self.links if now.get(key) != then.get(key)]
        closing = [task for key in gone if (task := self._tasks.pop(key, None))]
        for task in closing:
            task.cancel()
        await asyncio.gather(*closing, return_exceptions=True)
        for key in gone:
            del self.links[key], self.status[key]

        self.tick(0.0)  # what was accepted since the last step belongs to the site as it was
        self.site = self.site.successor(checked.config)
        self.map_roots = checked.map_roots
        self._images.clear()
        units = {key: dict(link.units) for key, link in self.links.items()}
        for link in self.links.values():
            link.units.clear()
        for asset_id, layouts in checked.layouts.items():
            self._bind(asset_id, layouts, units)
        self._publish()
        self.faults.arrange()
        self._set_pace()

    def interrupt(self, key: str, reason: str, power: UsbPower | GpioPower | None) -> None:
        """Close a link, and cut what has a power switch off from its power, until `resume`."""
        link, status = self.links[key], self.status[key]
        status.up, status.reason = False, reason
        status.settled.set()
        log.warning("link down", link=link.name, reason=reason)
        if self._group and (task := self._tasks.pop(key, None)):
            task.cancel()
            over = self._interrupted[key] = asyncio.Event()
            self._tasks[key] = self._group.create_task(self._keep_closed(key, link, power, over))

    def resume(self, key: str) -> None:
        """Serve a link again that was interrupted."""
        if over := self._interrupted.pop(key, None):
            over.set()

    def _configs(self) -> Iterator[tuple[str, AssetConfig]]:
        for asset_id, device in self.site.devices.items():
            yield asset_id, device.config

    def _bind(
        self, asset_id: str, layouts: Sequence[Layout], units: Mapping[str, Mapping[int, Unit]] = NO_UNITS
    ) -> None:
        """Put a device on its links; it takes over those of its units that are in `units`, by link."""
        device = self.site.devices[asset_id]
        measurements: Any = device.measurements
        self._images[asset_id] = []
        writes: list[tuple[str, float]] = []
        for binding, layout in zip(device.config.protocols, layouts, strict=True):
            image = RegisterImage(layout, writes)
            image.publish(measurements)
            self._images[asset_id].append(image)
            key = link_name(binding)
            if key not in self.links:
                self.links[key] = (
                    TcpLink(binding, self._log_protocol_error, self.recorder)
                    if isinstance(binding, TcpBinding)
                    else SerialLink(binding, self.ports, self.recorder)
                )
                self.status[key] = LinkStatus()
                self._start(key)
            unit = units.get(key, {}).get(binding.unit_id)
            if unit is not None and unit.asset_id == asset_id:
                image.count_on_from(unit.image)
                unit.image = image
                unit.failed = False
            else:
                unit = Unit(asset_id, image, self._failures)
            self.links[key].units[binding.unit_id] = unit

    def _publish(self) -> None:
        for asset_id, error in self.site.failed.items():
            if asset_id in self._images:
                self._give_up(asset_id, error)
        shown = self.site.snapshot.shown
        for asset_id, images in self._images.items():
            for image in images:
                image.publish(shown[asset_id])

    def _show(self, snapshot: SiteSnapshot) -> None:
        for observe in self.observers:
            try:
                observe(snapshot)
            except Exception:
                log.exception("observer failed", observer=str(observe))
                self.observers = [other for other in self.observers if other != observe]

    def _give_up(self, asset_id: str, error: Exception) -> None:
        del self._images[asset_id]
        for link in self.links.values():
            for unit in link.units.values():
                if unit.asset_id == asset_id:
                    unit.failed = True
        log.error("device failed", device=asset_id, remedy="reload or restart the service", exc_info=error)

    def _start(self, key: str) -> None:
        if self._group is not None:
            link = self.links[key]
            self._tasks[key] = self._group.create_task(self._serve(key, link), name=link.name)

    async def _serve(self, key: str, link: ModbusLink) -> None:
        # A link to the same place that was removed a moment ago must have freed it.
        async with self._turns[key]:
            await supervise(link, self.status[key])

    async def _keep_closed(
        self, key: str, link: ModbusLink, power: UsbPower | GpioPower | None, over: asyncio.Event
    ) -> None:
        async with self._turns[key]:
            try:
                async with switched_off(power):
                    await over.wait()
            except LinkDown as error:
                log.error("power not switched", link=link.name, reason=str(error))
                await over.wait()
        await self._serve(key, link)

    def _set_pace(self) -> None:
        """Let the clock run, stand still, or change its pace, as the config has it."""
        assert self._group is not None
        config = self.site.config
        period_s = config.step / config.speed if config.real_time else None
        if period_s == (self.clock.period_s if self.clock else None):
            return
        if task := self._tasks.pop("tick", None):
            task.cancel()
        if period_s is None:
            self.clock = None
            return
        if self.clock is None:
            self.clock = StepClock(period_s)
        else:
            self.clock.set_period(period_s)
        self._tasks["tick"] = self._group.create_task(self._run_clock(self.clock), name="tick")

    async def _run_clock(self, clock: StepClock) -> None:
        # Not renewed after `due`: when steps are always due, that lets nobody else in.
        burst_ends = time.monotonic() + BURST_S
        while True:
            for _ in range(await clock.due()):
                self.tick()
                if time.monotonic() >= burst_ends:
                    await asyncio.sleep(0)
                    burst_ends = time.monotonic() + BURST_S


def _settings(assets: Iterable[AssetConfig]) -> dict[str, tuple[object, ...]]:
    """Return the settings of each link that assets are reached through."""
    return {link_name(binding): link_settings(binding) for asset in assets for binding in asset.protocols}
