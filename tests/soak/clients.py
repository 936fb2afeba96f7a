"""The clients of the soak: one on each serial line, whose adapter it pulls, and one on each TCP port.

A client knows when its own adapter is in, so any reply that is missing then is a broken promise.
"""

import random
import threading
import time
from collections.abc import Callable, Sequence
from pathlib import Path

import ems
from ems import Ems, Tally
from plant import WITH_STAND_IN, Unit
from support import tcp
from support.bus import Bus, pause
from support.udev import Adapter, Udev

from dertwin.modbus.rtu import crc16, frame

NEVER_S = 20.0
# Longer than a reply takes on a busy machine: a further question makes the one before void.
PROBE_S = 0.3
PAUSES_S = (0.002, 0.02)


class Rack:
    """The USB sockets of the bench; adapters get another name and socket each time."""

    def __init__(self, bed: Udev, rng: random.Random) -> None:
        self._bed = bed
        self._rng = rng
        self._in: dict[int, Adapter] = {}
        self._lock = threading.Lock()

    def plug(self, serial: str) -> tuple[Adapter, float]:
        """Plug in an adapter; return it and when that began."""
        with self._lock:
            number = self._rng.choice([n for n in range(1, 30) if n not in self._in])
            start = time.monotonic()
            self._in[number] = self._bed.plug(f"ttyUSB{number}", serial, socket=str(number))
            return self._in[number], start

    def pull(self, adapter: Adapter) -> None:
        """Pull an adapter out."""
        with self._lock:
            self._bed.unplug(adapter)
            self._in = {number: other for number, other in self._in.items() if other is not adapter}


class LineClient:
    """An EMS on a serial line whose adapter is pulled and put back at random."""

    def __init__(self, serial: str, units: Sequence[Unit], rack: Rack, rng: random.Random) -> None:
        """Plug the adapter in."""
        self.tally = Tally()
        self._ems = Ems(units, rng, self.tally)
        self._serial = serial
        self._rack = rack
        self._rng = rng
        self._adapter, _ = rack.plug(serial)

    def run(self, until: float) -> None:
        """Poll until a time (s of time.monotonic); the adapter is in and served in the end."""
        bus, _ = self._served(self._adapter.client)
        self._ems.start(_asking(bus))
        while True:
            self._poll(bus, min(until, time.monotonic() + self._rng.uniform(1.0, 10.0)))
            if time.monotonic() >= until:
                bus.close()
                return
            bus = self._replug(bus)

    def _replug(self, bus: Bus) -> Bus:
        """Pull the adapter at any moment of an exchange, and put it back after a while."""
        if self._rng.random() < 0.7:
            self._ems.cut_off(lambda unit_id, pdu: bus.send(frame(unit_id, pdu)))
            pause(self._rng.uniform(0.0, 0.006))
        start = time.monotonic()
        self._rack.pull(self._adapter)
        bus.close()
        back_at = time.monotonic() + self._rng.uniform(0.0, 4.0)
        if self._serial == WITH_STAND_IN:
            bus, served_at = self._served(Path(f"/tmp/dertwin_usb-{self._serial}_client"))
            self._note(self.tally.stood_in_s, served_at - start, "on its pair")
            self._poll(bus, back_at)
            bus.close()
        pause(max(0.0, back_at - time.monotonic()))
        self._adapter, start = self._rack.plug(self._serial)
        bus, served_at = self._served(self._adapter.client)
        self._note(self.tally.served_again_s, served_at - start, "on its adapter")
        return bus

    def _note(self, times: list[float], took_s: float, where: str) -> None:
        times.append(took_s)
        if took_s > ems.SERVED_AGAIN_WITHIN_S:
            self.tally.late.append(f"{self._serial}: {took_s:.2f} s until it was served {where}")

    def _poll(self, bus: Bus, until: float) -> None:
        ask = _asking(bus)
        while time.monotonic() < until:
            self._ems.poll(ask)
            pause(self._rng.uniform(*PAUSES_S))

    def _served(self, client: Path) -> tuple[Bus, float]:
        """Ask until a unit answers; return when it did."""
        unit = self._ems.units[0]
        request, length = ems.measurements_request(unit), ems.measurements_length(unit) + 3
        until = time.monotonic() + NEVER_S
        while time.monotonic() < until:
            try:
                bus = Bus(str(client))
            except OSError:
                pause(0.005)
                continue
            self.tally.uncertain += 1
            try:
                bus.send(frame(unit.unit_id, request))
                if crc16(reply := bus.receive(length, PROBE_S)) == 0 and len(reply) == length:
                    served_at = time.monotonic()
                    bus.heard_within(PROBE_S)  # replies to questions that were given up
                    return bus, served_at
            except OSError:
                pass
            bus.close()
        raise RuntimeError(f"{self._serial} was not served within {NEVER_S:g} s at {client}")


def _asking(bus: Bus) -> ems.Ask:
    def ask(unit_id: int, pdu: bytes, length: int) -> bytes:
        bus.send(frame(unit_id, pdu))
        reply = bus.receive(length + 3, ems.GIVE_UP_S)
        good = len(reply) > 3 and reply[0] == unit_id and crc16(reply) == 0
        return reply[1:-2] if good else reply

    return ask


class TcpClient:
    """An EMS on a TCP port that comes and goes, and has several requests under way now and then."""

    def __init__(self, port: int, units: Sequence[Unit], rng: random.Random) -> None:
        self.tally = Tally()
        self._ems = Ems(units, rng, self.tally)
        self._port = port
        self._rng = rng
        self._transaction_id = 0

    def run(self, until: float) -> None:
        """Poll until a time (s of time.monotonic)."""
        with tcp.Client(self._port) as client:
            self._ems.start(self._asking(client))
        while time.monotonic() < until:
            self.tally.connections += 1
            with tcp.Client(self._port) as client:
                client.socket.settimeout(ems.GIVE_UP_S)
                try:
                    self._poll(client, min(until, time.monotonic() + self._rng.uniform(0.0, 5.0)))
                except TimeoutError:
                    self.tally.unanswered.append(f"tcp {self._port}")
                    self.tally.uncertain += 1
                except (AssertionError, KeyError, OSError) as error:
                    self.tally.wrong.append(f"tcp {self._port}: {error!r}")

    def fill(self, full: Callable[[], bool]) -> None:
        """Ask as fast as it goes until the service has as much to keep as it can."""
        with tcp.Client(self._port) as client:
            while not full():
                for _ in range(20):
                    self._ask_many(client, 100)
                    self.tally.untimed += 100

    def _poll(self, client: tcp.Client, until: float) -> None:
        ask = self._asking(client)
        while time.monotonic() < until:
            if self._rng.random() < 0.1:
                start, count = time.monotonic(), self._rng.randint(2, 10)
                self._ask_many(client, count)
                self.tally.reply_s += [time.monotonic() - start] * count
            else:
                self._ems.poll(ask)
            pause(self._rng.uniform(*PAUSES_S))
        if self._rng.random() < 0.5:
            self._ems.cut_off(lambda unit_id, pdu: client.send(tcp.frame(0, pdu, unit_id)))
            client.reset()

    def _asking(self, client: tcp.Client) -> ems.Ask:
        return lambda unit_id, pdu, length: client.ask(pdu, unit_id, self._next_id())

    def _ask_many(self, client: tcp.Client, count: int) -> None:
        """Send requests at once; each must be answered once, in whatever order."""
        asked = {self._next_id(): self._rng.choice(self._ems.units) for _ in range(count)}
        client.send(
            b"".join(
                tcp.frame(number, ems.measurements_request(unit), unit.unit_id)
                for number, unit in asked.items()
            )
        )
        while asked:
            reply = client.receive()
            unit = asked.pop(reply.transaction_id)
            assert reply.unit_id == unit.unit_id
            self._ems.check_measurements(unit, reply.pdu)

    def _next_id(self) -> int:
        self._transaction_id = (self._transaction_id + 1) % 0x10000
        return self._transaction_id
