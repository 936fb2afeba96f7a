"""Starts and ends the faults between clients and devices, and tells each link which ones act on it."""

import asyncio
import math
from collections import Counter
from collections.abc import Callable, Iterator
from random import Random
from typing import TYPE_CHECKING

import structlog

from bench.disturbance import Disturbance, Ongoing
from bench.links.link import ModbusLink
from bench.links.serial import SerialLink
from bench.links.tcp import TcpLink
from bench.power import unavailable
from dertwin.config_errors import use
from dertwin.scenario.link import HalfOpen, Reset, Unplugged, WholeLinkFault
from dertwin.scenario.wire import ExchangeFault

if TYPE_CHECKING:
    from bench.app import Bench

log = structlog.get_logger()


class Faults:
    """The wire and link faults of a bench that act now; each ends by itself.

    `active` has them by the handle that `start` gave.
    """

    def __init__(self, bench: "Bench", now: Callable[[], float] | None = None) -> None:
        """Time faults by the event loop, or by `now` (s): then somebody calls `expire` after each step."""
        self.active: dict[int, Ongoing[ExchangeFault | WholeLinkFault]] = {}
        self._bench = bench
        self._now = now
        self._timers: dict[int, asyncio.TimerHandle] = {}
        self._kinds: set[str] = set()
        self._past: Counter[tuple[str, str]] = Counter()
        self._closed: dict[str, ModbusLink] = {}
        self._handles = 0
        self._started_since_clear = 0

    def start(self, fault: ExchangeFault | WholeLinkFault, seed: int | str = 0) -> int:
        """Let a fault act from now on and return its handle.

        The n-th fault since the last `clear` draws its chances from `random.Random(f"{seed} {n}")`. Raises
        ValueError if the bench cannot have it; see `problem`.
        """
        if problem := self.problem(fault):
            raise ValueError(problem)
        self._handles += 1
        self._started_since_clear += 1
        handle, random = self._handles, Random(f"{seed} {self._started_since_clear}")
        ends_at = math.inf
        if fault.duration is not None:
            ends_at = self._time() + fault.duration
            if self._now is None:
                self._timers[handle] = asyncio.get_running_loop().call_at(ends_at, self.end, handle)
        ongoing = self.active[handle] = Ongoing(fault, ends_at, random)
        self._kinds.add(fault.kind)
        log.info("fault started", fault=fault.kind, link=fault.link, device=fault.device)
        self.arrange()
        for link in self._tcp_links(fault):
            if isinstance(fault, HalfOpen):
                link.leave_half_open()
            elif isinstance(fault, Reset) and (count := link.reset_connections(half_open=False)):
                ongoing.acted[link.name] += count
        return handle

    def end(self, handle: int) -> None:
        """Let a fault act no more; nothing happens if it has ended already."""
        ongoing = self.active.pop(handle, None)
        if ongoing is None:
            return
        fault = ongoing.fault
        ongoing.over = True
        if timer := self._timers.pop(handle, None):
            timer.cancel()
        self._past.update({(fault.kind, link): count for link, count in ongoing.acted.items()})
        log.info(
            "fault ended", fault=fault.kind, link=fault.link, device=fault.device, acted=ongoing.acted.total()
        )
        self.arrange()
        if isinstance(fault, HalfOpen):
            for link in self._tcp_links(fault):
                link.reset_connections(half_open=True)

    def clear(self) -> None:
        """End all faults, as if none had ever been started."""
        for handle in list(self.active):
            self.end(handle)
        self._started_since_clear = 0

    def expire(self) -> None:
        """End all faults whose time is over."""
        now = self._time()
        for handle in [handle for handle, each in self.active.items() if each.ends_at <= now]:
            self.end(handle)

    def numbers(self) -> Counter[str]:
        """Return how many faults of each kind that there was so far act now."""
        numbers = Counter(dict.fromkeys(self._kinds, 0))
        numbers.update(each.fault.kind for each in self.active.values())
        return numbers

    def acted(self) -> Counter[tuple[str, str]]:
        """Return how often faults have acted so far, by kind and name of the link."""
        counts = self._past.copy()
        for each in self.active.values():
            counts.update({(each.fault.kind, link): count for link, count in each.acted.items()})
        return counts

    def problem(self, fault: ExchangeFault | WholeLinkFault) -> str:
        """Return why the bench cannot have a fault, and what helps; empty if it can."""
        links = list(self._bench.links.values())
        names = [link.name for link in links]
        if fault.link is not None and fault.link not in names:
            return f'link: "{fault.link}" is not allowed; {use(names, fault.link)}'
        if fault.device is not None and fault.device not in self._bench.site.devices:
            return f'device: "{fault.device}" is not allowed; {use(self._bench.site.devices, fault.device)}'
        concerned = [link for link in links if _concerns(fault, link)]
        if not concerned:
            able = [name for name in names if name.split()[0] in fault.links]
            return f"{fault.kind}: {use(able) if able else 'no link of the site can have it'}"
        powers = [link.binding.power for link in concerned if isinstance(link, SerialLink)]
        reasons = [unavailable(power) for power in powers if power and isinstance(fault, Unplugged)]
        return next((f"{fault.kind}: {reason}" for reason in reasons if reason), "")

    def arrange(self) -> None:
        """Tell each link the faults that act on it now; also after links have come."""
        for key, link in self._bench.links.items():
            ongoing = [each for each in self.active.values() if _concerns(each.fault, link)]
            if ongoing != (link.disturbance.ongoing if link.disturbance else []):
                link.disturb(Disturbance(link.name, ongoing, self._acted) if ongoing else None)
            closing = [each.fault.kind for each in ongoing if _closes(each.fault)]
            if closing and self._closed.get(key) is not link:
                self._closed[key] = link
                power = link.binding.power if isinstance(link, SerialLink) else None
                self._bench.interrupt(key, f"closed by the fault {closing[0]}", power)
            elif not closing and self._closed.pop(key, None) is link:
                self._bench.resume(key)

    def _acted(self, ongoing: Ongoing[ExchangeFault]) -> None:
        """End a fault that has acted as often as it was to."""
        count = ongoing.fault.count
        if count is not None and ongoing.acted.total() >= count:
            for handle in [handle for handle, each in self.active.items() if each is ongoing]:
                self.end(handle)

    def _time(self) -> float:
        return self._now() if self._now else asyncio.get_running_loop().time()

    def _tcp_links(self, fault: ExchangeFault | WholeLinkFault) -> Iterator[TcpLink]:
        for link in self._bench.links.values():
            if isinstance(link, TcpLink) and _concerns(fault, link):
                yield link


def _concerns(fault: ExchangeFault | WholeLinkFault, link: ModbusLink) -> bool:
    return (
        link.name.split()[0] in fault.links
        and fault.link in (None, link.name)
        and (fault.device is None or any(unit.asset_id == fault.device for unit in link.units.values()))
    )


def _closes(fault: ExchangeFault | WholeLinkFault) -> bool:
    return isinstance(fault, WholeLinkFault) and fault.closed
