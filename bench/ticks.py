"""Keeps what the last steps of a site were made of, so that they can be made again.

The log is cut into blocks, each of which begins with the state of the site; the oldest go. While
something is overridden or faulty a block goes on, as such a state would not be all there is.
"""

from __future__ import annotations

import marshal
import pickle
import zlib
from collections import deque
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from time import monotonic
from typing import TYPE_CHECKING, NamedTuple, TypeAlias

from dertwin.devices.device import Command, Device
from dertwin.faults import Fault
from dertwin.overrides import Override
from dertwin.scenario.signals import Requests
from dertwin.site import Site, SiteSnapshot, SiteState
from dertwin.stepping import TOLERANCE

if TYPE_CHECKING:  # a service that runs no scenario shall not wait for this
    from dertwin.scenario.document import LoadedScenario

MAX_BYTES = 8 * 1024 * 1024
MAX_AGE_S = 600.0
BLOCK_STEPS, BLOCK_S = 600, 60.0
# What Python needs for a step, and for each command or count in it.
STEP_BYTES, ITEM_BYTES = 320, 100


class Step(NamedTuple):
    """One step: when it was made (s of time.monotonic), from which simulated time (s), and of what.

    `digest` is that of the snapshot which the step before it has left.
    """

    at: float
    time_s: float
    dt_s: float
    commands: Mapping[str, Sequence[Command]]
    requests: Mapping[str, int]
    digest: int


class Act(NamedTuple):
    """What was done to the site between two steps: an override or a fault began, or (None) all ended."""

    what: Override | Fault | None
    at_s: float = 0.0
    seed: str = ""


class Counted(NamedTuple):
    """What a scenario was told of the requests of a device after a step."""

    device: str
    requests: Requests


class Stopped(NamedTuple):
    """The scenario was stopped after a step."""


Entry: TypeAlias = Step | Act | Counted | Stopped


class Ticks(NamedTuple):
    """Steps of a site from a state on, and the digest of what the last one has left.

    `scenario` is the one that began with the first of them.
    """

    state: SiteState
    entries: Sequence[Entry]
    digest: int
    scenario: LoadedScenario | None


@dataclass(slots=True)
class _Block:
    # Pickled: it is small then and quickly made, and never leaves this process.
    state: bytes
    began_at: float
    ended_at: float
    size: int
    scenario: LoadedScenario | None = None
    entries: list[Entry] = field(default_factory=list)
    steps: int = 0

    def is_full(self) -> bool:
        return self.steps >= BLOCK_STEPS or self.ended_at - self.began_at >= BLOCK_S


class TickLog:
    """The steps of the last `max_age_s` seconds, fewer if they need more than `max_bytes`.

    What a scenario needs is kept from its beginning on, whatever its age.
    """

    def __init__(
        self,
        max_bytes: int = MAX_BYTES,
        max_age_s: float = MAX_AGE_S,
        now: Callable[[], float] = monotonic,
    ) -> None:
        """Start empty."""
        self.max_bytes = max_bytes
        self.max_age_s = max_age_s
        self._now = now
        self._blocks: deque[_Block] = deque()
        self._size = 0
        self._devices: Mapping[str, Device] = {}
        self._counts: dict[str, Requests] = {}

    def restart(self) -> None:
        """Forget everything: the site is not what the steps have made of it any more."""
        self._blocks.clear()
        self._size = 0

    def note(
        self,
        site: Site,
        dt_s: float,
        commands: Mapping[str, Sequence[Command]],
        requests: Mapping[str, int],
    ) -> None:
        """Take in a step that is about to be made."""
        if site.devices is not self._devices:  # it is another mapping once a device comes or goes
            self.restart()
            self._devices = site.devices
        at = self._now()
        if not self._blocks or self._blocks[-1].is_full():
            self._open(site, at)
        if not self._blocks:
            return
        block = self._blocks[-1]
        block.entries.append(Step(at, site.time_s, dt_s, commands, requests, digest(site.snapshot)))
        size = STEP_BYTES + ITEM_BYTES * (len(requests) + 2 * sum(map(len, commands.values())))
        block.size += size
        self._size += size
        block.steps += 1
        block.ended_at = at
        if self._size > self.max_bytes:
            self._drop_oldest()

    def acted(self, act: Act | Stopped) -> None:
        """Take in what is done to the site, or to the scenario, between two steps."""
        if self._blocks:
            self._blocks[-1].entries.append(act)

    def counted(self, device: str, requests: Requests) -> None:
        """Take in what a scenario is told of the requests of a device."""
        if self._counts.get(device) != requests and self._blocks:
            self._counts[device] = requests
            self._blocks[-1].entries.append(Counted(device, requests))

    def begin(self, site: Site, scenario: LoadedScenario) -> None:
        """Begin anew with a scenario, which begins with the site as it is."""
        self.restart()
        self._devices = site.devices
        self._counts.clear()
        self._open(site, self._now())
        if self._blocks:
            self._blocks[-1].scenario = scenario

    def ticks(self, site: Site) -> Ticks | None:
        """Return all that is kept; None if that is nothing."""
        if not self._blocks:
            return None
        first = self._blocks[0]
        entries = [entry for block in self._blocks for entry in block.entries]
        return Ticks(pickle.loads(first.state), entries, digest(site.snapshot), first.scenario)

    def when(self, time_s: float) -> float:
        """Return when (s of time.monotonic) the site had reached a simulated time (s)."""
        reached = self._blocks[0].began_at if self._blocks else self._now()
        for block in self._blocks:
            for entry in block.entries:
                if isinstance(entry, Step):
                    if entry.time_s >= time_s - TOLERANCE:
                        return reached
                    reached = entry.at
        return reached

    def _open(self, site: Site, at: float) -> None:
        if not site.is_undisturbed:
            return
        state = pickle.dumps(site.state, pickle.HIGHEST_PROTOCOL)
        self._blocks.append(_Block(state, at, at, len(state)))
        self._size += len(state)
        while self._blocks[0].scenario is None and self._blocks[0].ended_at < at - self.max_age_s:
            self._drop_oldest()

    def _drop_oldest(self) -> None:
        self._size -= self._blocks.popleft().size


def digest(snapshot: SiteSnapshot) -> int:
    """Return a checksum of all numbers of a snapshot, bit by bit."""
    measured = [(asset_id, tuple(values)) for asset_id, values in snapshot.measurements.items()]
    content = (snapshot.time_s, tuple(snapshot.conditions), tuple(snapshot.pcc), measured)
    # Version 2 is the last one that writes equal values equally, whoever else refers to them.
    return zlib.crc32(marshal.dumps(content, 2))
