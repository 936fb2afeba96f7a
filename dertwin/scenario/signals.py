"""Signals: what a scenario can look at, by name, in SI units.

- `DEVICE.MEASUREMENT`: what a device measures; NaN when it has failed
- `DEVICE.shown.MEASUREMENT`: what its registers show of it, faults included
- `DEVICE.command.COMMAND`: the value that was written last (NaN before); with `.age_s` the time since
  (infinite before), with `.count` how often
- `DEVICE.requests`, `DEVICE.writes`, `DEVICE.exceptions`: how many requests it got since the start, how many
  of them wrote, how many it refused; `DEVICE.silence_s`: the time since the last one
- `pcc.active_power_w`, `pcc.reactive_power_var`: the flow at the grid connection, + is import
- `site.frequency_hz` and the other surroundings: voltage_ll_v, irradiance_w_m2, ambient_temp_c, load_w,
  time_s (s since midnight of the first day)
"""

import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import NamedTuple

from dertwin.config_errors import use
from dertwin.devices.device import Command, Conditions, Device, PccFlow
from dertwin.site import SiteSnapshot

CONDITIONS = tuple(name for name in Conditions._fields if name != "nominal_voltage_ll_v")
COUNTS = ("requests", "writes", "exceptions")


class Requests(NamedTuple):
    """How many requests a device got since the start of the scenario, how many wrote, how many it refused."""

    requests: int = 0
    writes: int = 0
    exceptions: int = 0


NO_REQUESTS = Requests()


def nobody_asks(asset_id: str) -> Requests:
    """Return the counts of a device that has no registers."""
    return NO_REQUESTS


class Observation(NamedTuple):
    """What a scenario sees of a site after a step: its outcome, and what led to it.

    `commands` are the writes that the step took, by asset id; `requests` tells the counts of a device by
    its asset id.
    """

    snapshot: SiteSnapshot
    commands: Mapping[str, Sequence[Command]]
    requests: Callable[[str], Requests]


class Memory:
    """What must be remembered of former steps.

    `last` has value, time and count of each command, `requested` the count of requests and when it last
    rose, of the devices whose `asked` is wanted; `base` the counts at the start.
    """

    def __init__(self) -> None:
        self.last: dict[tuple[str, str], tuple[float, float, int]] = {}
        self.asked: set[str] = set()
        self.base: dict[str, Requests] = {}
        self.requested: dict[str, tuple[int, float]] = {}

    def note(self, observation: Observation) -> None:
        """Take in what a step brought."""
        now_s = observation.snapshot.time_s
        for asset_id, batch in observation.commands.items():
            for name, value in batch:
                _, _, count = self.last.get((asset_id, name), (0.0, 0.0, 0))
                self.last[asset_id, name] = (value, now_s, count + 1)
        for asset_id in self.asked:
            counts = observation.requests(asset_id)
            self.base.setdefault(asset_id, counts)
            if self.requested.get(asset_id, (-1, 0.0))[0] != counts.requests:
                self.requested[asset_id] = (counts.requests, now_s)


Reader = Callable[[Observation], float]


def reader(name: str, devices: Mapping[str, Device], memory: Memory) -> Reader:
    """Return what reads a signal; `memory` is that of the run, and is told what to keep for it.

    Raises ValueError for an unknown name.
    """
    owner, _, rest = name.partition(".")
    if owner == "pcc":
        return _field(rest, PccFlow._fields, name, lambda seen: seen.snapshot.pcc)
    if owner == "site":
        return _field(rest, CONDITIONS, name, lambda seen: seen.snapshot.conditions)
    asset_id = max((d for d in devices if name.startswith(f"{d}.")), key=len, default=None)
    if asset_id is None:
        raise ValueError(f'"{name}" is no signal; {use([*devices, "pcc", "site"], owner)}, a dot and a name')
    return _of_device(asset_id, devices[asset_id], name.removeprefix(f"{asset_id}."), name, memory)


def _of_device(asset_id: str, device: Device, rest: str, name: str, memory: Memory) -> Reader:
    if rest in COUNTS:
        memory.asked.add(asset_id)
        index = COUNTS.index(rest)
        return lambda seen: seen.requests(asset_id)[index] - memory.base[asset_id][index]
    if rest == "silence_s":
        memory.asked.add(asset_id)
        return lambda seen: seen.snapshot.time_s - memory.requested[asset_id][1]
    kind, _, inner = rest.partition(".")
    if kind == "command":
        return _command(asset_id, device, inner, name, memory)
    fields = device.measurements._fields
    if kind == "shown":
        return _field(inner, fields, name, lambda seen: seen.snapshot.shown.get(asset_id))
    known = [*fields, *COUNTS, "silence_s", "shown.", "command."]
    return _field(rest, fields, name, lambda seen: seen.snapshot.measurements.get(asset_id), known)


def _command(asset_id: str, device: Device, rest: str, name: str, memory: Memory) -> Reader:
    command, _, what = rest.partition(".")
    if command not in device.commands or what not in ("", "age_s", "count"):
        wrong = command if command not in device.commands else what
        known = device.commands if command not in device.commands else ("age_s", "count")
        raise ValueError(f'"{name}" is no signal; {use(known, wrong)}')
    key = asset_id, command
    if what == "age_s":
        return lambda seen: seen.snapshot.time_s - memory.last[key][1] if key in memory.last else math.inf
    if what == "count":
        return lambda _: memory.last[key][2] if key in memory.last else 0
    return lambda _: memory.last[key][0] if key in memory.last else math.nan


def _field(
    field: str,
    fields: Sequence[str],
    name: str,
    owner: Callable[[Observation], Sequence[float] | None],
    known: Iterable[str] = (),
) -> Reader:
    if field not in fields:
        raise ValueError(f'"{name}" is no signal; {use(list(known) or fields, field)}')
    index = fields.index(field)

    def read(seen: Observation) -> float:
        values = owner(seen)
        return math.nan if values is None else values[index]  # a device that has failed measures nothing

    return read
