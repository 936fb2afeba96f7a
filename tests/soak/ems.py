"""What an EMS asks of its devices, and what must come back: every reply is checked, byte by byte."""

import random
import struct
import time
from collections import defaultdict
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field, fields

from plant import Unit
from replies import IDENTIFICATION_AT, IDENTIFICATION_REGISTERS, Values, faults, layout, values

READ_HOLDING, READ_INPUT, WRITE_ONE, WRITE_MANY = 3, 4, 6, 16
UNMAPPED_AT = 3000
GIVE_UP_S, REPLY_WITHIN_S = 5.0, 1.0
SERVED_AGAIN_WITHIN_S = 2.0
EXCEPTION_LENGTH, WRITE_REPLY_LENGTH = 2, 5

Ask = Callable[[int, bytes, int], bytes]
"""Sends a request PDU to a unit id; returns the PDU of the reply, of that length if all is well.

What is no frame, or not this unit's, comes back as it is; nothing within GIVE_UP_S is empty.
"""


@dataclass
class Tally:
    """What one client has seen, or several.

    How long replies took, but for those `untimed`; what was wrong, in words. `uncertain` requests were sent
    when nobody may have been there: the service has them or not.
    """

    reply_s: list[float] = field(default_factory=list)
    untimed: int = 0
    wrong: list[str] = field(default_factory=list)
    unanswered: list[str] = field(default_factory=list)
    late: list[str] = field(default_factory=list)
    uncertain: int = 0
    served_again_s: list[float] = field(default_factory=list)
    stood_in_s: list[float] = field(default_factory=list)
    connections: int = 0


def merged(tallies: Iterable[Tally]) -> Tally:
    """Return what several clients have seen."""
    total = Tally()
    for tally in tallies:
        for name in (each.name for each in fields(Tally)):
            setattr(total, name, getattr(total, name) + getattr(tally, name))
    return total


class Ems:
    """The only client that writes to some units of one link, so it knows what they must hold."""

    def __init__(self, units: Sequence[Unit], rng: random.Random, tally: Tally) -> None:
        self.units = units
        self.tally = tally
        self._rng = rng
        # What a written register may hold: more than one value only after a request that was cut off.
        self._held: dict[tuple[Unit, int], set[bytes]] = defaultdict(set)
        self._before: dict[Unit, Values] = {}
        self._actions = {
            self.read_measurements: 60,
            self.read_heartbeat: 15,
            self.write_heartbeat: 10,
            self.write_setpoint: 10,
            self.read_identification: 3,
            self.read_unmapped: 2,
        }

    def start(self, ask: Ask) -> None:
        """Let batteries and CHPs run."""
        for unit in self.units:
            if unit.type in ("bess", "chp"):
                name = "start_stop_standby" if unit.type == "bess" else "start_stop"
                self._write(ask, unit, layout(unit.type).commands[name].address, b"\0\1")

    def poll(self, ask: Ask) -> None:
        """Make one of the usual exchanges with one of the units."""
        (action,) = self._rng.choices(list(self._actions), list(self._actions.values()))
        action(ask, self._rng.choice(self.units))

    def read_measurements(self, ask: Ask, unit: Unit) -> None:
        request = measurements_request(unit)
        self.check_measurements(unit, self._exchange(ask, unit, request, measurements_length(unit)))

    def check_measurements(self, unit: Unit, reply: bytes) -> None:
        data = self._data(unit, reply, READ_INPUT, layout(unit.type).registers)
        if data:
            now = values(unit.type, data)
            for fault in faults(unit, now, self._before.get(unit, {})):
                self._is_wrong(unit, fault)
            self._before[unit] = now

    def read_heartbeat(self, ask: Ask, unit: Unit) -> None:
        self._read_back(ask, unit, heartbeat_at(unit), 1)

    def write_heartbeat(self, ask: Ask, unit: Unit) -> None:
        self._write(ask, unit, heartbeat_at(unit), self._rng.randbytes(2))
        self.read_heartbeat(ask, unit)

    def write_setpoint(self, ask: Ask, unit: Unit) -> None:
        if unit.type != "bess":
            return self.write_heartbeat(ask, unit)
        address = layout("bess").commands["active_power_setpoint"].address
        rating_w = int(unit.rated_kw * 1e3)
        self._write(ask, unit, address, struct.pack(">i", self._rng.randint(-rating_w, rating_w)))
        return self._read_back(ask, unit, address, 2)

    def read_identification(self, ask: Ask, unit: Unit) -> None:
        request = _read(READ_INPUT, IDENTIFICATION_AT, IDENTIFICATION_REGISTERS)
        reply = self._exchange(ask, unit, request, 2 + 2 * IDENTIFICATION_REGISTERS)
        data = self._data(unit, reply, READ_INPUT, IDENTIFICATION_REGISTERS)
        if data and data != layout(unit.type).identification:
            self._is_wrong(unit, f"identified itself as {data!r}")

    def read_unmapped(self, ask: Ask, unit: Unit) -> None:
        reply = self._exchange(ask, unit, _read(READ_INPUT, UNMAPPED_AT, 1), EXCEPTION_LENGTH)
        if reply and reply != bytes((0x80 + READ_INPUT, 2)):
            self._is_wrong(unit, f"answered {reply.hex()} to a read of no register")

    def cut_off(self, send: Callable[[int, bytes], None]) -> None:
        """Send a write and do not wait for what comes of it."""
        unit, data = self._rng.choice(self.units), self._rng.randbytes(2)
        self._held[unit, heartbeat_at(unit)].add(data)
        self.tally.uncertain += 1
        send(unit.unit_id, struct.pack(">BH", WRITE_ONE, heartbeat_at(unit)) + data)

    def _write(self, ask: Ask, unit: Unit, address: int, data: bytes) -> None:
        if len(data) == 2:
            request = expected = struct.pack(">BH", WRITE_ONE, address) + data
        else:
            head = struct.pack(">BHH", WRITE_MANY, address, len(data) // 2)
            request, expected = head + bytes((len(data),)) + data, head
        held = self._held[unit, address]
        held.add(data)
        reply = self._exchange(ask, unit, request, WRITE_REPLY_LENGTH)
        if reply == expected:
            held.intersection_update({data})
        elif reply:
            self._is_wrong(unit, f"answered {reply.hex()} to {request.hex()}")

    def _read_back(self, ask: Ask, unit: Unit, address: int, registers: int) -> None:
        held = self._held[unit, address]
        reply = self._exchange(ask, unit, _read(READ_HOLDING, address, registers), 2 + 2 * registers)
        if data := self._data(unit, reply, READ_HOLDING, registers):
            if held and data not in held:
                may_be = " or ".join(each.hex() for each in held)
                self._is_wrong(unit, f"register {address} is {data.hex()}, was written {may_be}")
            held.clear()
            held.add(data)

    def _exchange(self, ask: Ask, unit: Unit, request: bytes, length: int) -> bytes:
        start = time.monotonic()
        reply = ask(unit.unit_id, request, length)
        if reply:
            self.tally.reply_s.append(took_s := time.monotonic() - start)
            if took_s > REPLY_WITHIN_S:
                self.tally.late.append(f"{unit.asset_id}: {took_s:.2f} s for {request.hex()}")
        else:
            self.tally.unanswered.append(f"{unit.asset_id}: {request.hex()}")
            self.tally.uncertain += 1
        return reply

    def _data(self, unit: Unit, reply: bytes, function: int, registers: int) -> bytes:
        """Return the data of the reply to a read; empty if it is none, which is noted."""
        if reply and (reply[:2] != bytes((function, 2 * registers)) or len(reply) != 2 + 2 * registers):
            self._is_wrong(unit, f"answered {reply.hex()} to a read of {registers} registers")
            return b""
        return reply[2:]

    def _is_wrong(self, unit: Unit, what: str) -> None:
        self.tally.wrong.append(f"{unit.asset_id}: {what}")


def measurements_request(unit: Unit) -> bytes:
    """Return the request for all measurements of a unit."""
    return _read(READ_INPUT, 0, layout(unit.type).registers)


def measurements_length(unit: Unit) -> int:
    """Return how long the PDU of the reply to that is."""
    return 2 + 2 * layout(unit.type).registers


def heartbeat_at(unit: Unit) -> int:
    """Return the address of the heartbeat, which any device has and keeps."""
    return layout(unit.type).commands["heartbeat"].address


def _read(function: int, address: int, registers: int) -> bytes:
    return struct.pack(">BHH", function, address, registers)
