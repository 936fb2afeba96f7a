"""`dertwin ports --test`: checks two serial ports that are wired together, at each baud rate."""

import json
import os
import random
import select
import time
from statistics import median
from typing import NamedTuple

from pydantic import ValidationError
from serial import Serial

from bench.links.link import LinkDown
from bench.links.settings import open_port
from bench.ports import choose, look
from dertwin.bindings import RtuBinding
from dertwin.config_errors import validation_errors
from dertwin.port_match import PortMatch

BAUDRATES = (1200, 2400, 4800, 9600, 19200, 38400, 57600, 115200, 230400, 460800, 921600)
BITS_PER_CHARACTER = 10
LONGEST_BLOCK = 256
EXCHANGES = 20
REQUEST_LENGTH = 8
# How long blocks are sent at each baud rate (s), and how late the last byte of one may come.
BLOCKS_FOR_S = 0.2
PATIENCE_S = 0.2
# Where this many blocks in a row got lost there is no line: waiting for more would only take time.
MOST_LOST_BLOCKS = 2


class Outcome(NamedTuple):
    """What happened at one baud rate: bytes sent, bytes damaged or lost, round trips (s)."""

    sent: int
    errors: int
    round_trips_s: list[float]


def check_pair(first: str, second: str) -> bool:
    """Print a line for each baud rate; tell whether every byte arrived at every baud rate.

    Raises LinkDown if a port cannot be found or opened, or vanishes.
    """
    paths = _path(first), _path(second)
    if os.path.realpath(paths[0]) == os.path.realpath(paths[1]):
        raise LinkDown(f"{first} and {second} are the same port; take two that are wired together")
    print("          BYTES  BYTES  ROUND TRIP, 8 BYTES EACH, ms")
    print("   BAUD    SENT  WRONG   MEDIAN     MAX   ON WIRE")
    rng = random.Random(1)
    good = True
    hear_themselves: set[str] = set()
    for baudrate in BAUDRATES:
        with _open(paths[0], baudrate) as one, _open(paths[1], baudrate) as other:
            line = _Line(one, other, baudrate)
            hear_themselves |= {str(port.port) for port in line.find_echoes(rng)}
            outcome = line.measure(rng)
        print(_told(baudrate, outcome), flush=True)
        good = good and not outcome.errors
    for path in sorted(hear_themselves):
        print(f'{path} hears what it sends: write "suppress_echo": true for its line')
    print("good: every byte arrived" if good else "BAD: bytes were damaged or lost")
    return good


class _Line:
    """Two open ports and what is known of the line between them."""

    def __init__(self, one: Serial, other: Serial, baudrate: int) -> None:
        self._directions = ((one, other), (other, one))
        self._character_s = BITS_PER_CHARACTER / baudrate
        self._hear_themselves: list[Serial] = []

    def find_echoes(self, rng: random.Random) -> list[Serial]:
        """Return the ports that hear what they send, as those of many two-wire adapters do."""
        found = []
        for source, sink in self._directions:
            block = rng.randbytes(REQUEST_LENGTH)
            source.write(block)
            heard = _listen({source: len(block), sink: len(block)}, len(block) * self._character_s)
            if heard[source] == block:
                found.append(source)
        self._hear_themselves = found
        return found

    def measure(self, rng: random.Random) -> Outcome:
        """Send blocks to and fro for a while, then short requests with their replies."""
        length = max(REQUEST_LENGTH, min(LONGEST_BLOCK, int(BLOCKS_FOR_S / 4 / self._character_s)))
        sent = errors = lost = 0
        until = time.monotonic() + BLOCKS_FOR_S
        while time.monotonic() < until and lost < MOST_LOST_BLOCKS:
            for source, sink in self._directions:
                block = rng.randbytes(length)
                heard = self._send(source, sink, block)
                lost = 0 if heard else lost + 1
                sent += length
                errors += wrong_bytes(block, heard)
        round_trips_s: list[float] = []
        while not errors and len(round_trips_s) < EXCHANGES:
            start = time.monotonic()
            for source, sink in self._directions:
                block = rng.randbytes(REQUEST_LENGTH)
                sent += REQUEST_LENGTH
                errors += wrong_bytes(block, self._send(source, sink, block))
            round_trips_s.append(time.monotonic() - start)
        return Outcome(sent, errors, round_trips_s)

    def _send(self, source: Serial, sink: Serial, block: bytes) -> bytes:
        """Return what of a block arrives; its echo has then come, too."""
        source.write(block)
        awaited = {
            port: len(block) for port in (sink, source) if port is sink or port in self._hear_themselves
        }
        return _listen(awaited, len(block) * self._character_s)[sink]


def wrong_bytes(sent: bytes, heard: bytes) -> int:
    """Return how many bytes were damaged, lost or made up."""
    damaged = sum(a != b for a, b in zip(sent, heard, strict=False))
    return damaged + abs(len(sent) - len(heard))


def _listen(awaited: dict[Serial, int], wire_s: float) -> dict[Serial, bytes]:
    """Return what each port hears until all have what they await, or nothing more can be expected."""
    heard = dict.fromkeys(awaited, b"")
    until = time.monotonic() + wire_s + PATIENCE_S
    while waiting := [port for port, length in awaited.items() if len(heard[port]) < length]:
        ready = select.select(waiting, [], [], max(0.0, until - time.monotonic()))[0]
        if not ready:
            break
        for port in ready:
            data = os.read(port.fileno(), 4096)
            if not data:
                raise LinkDown(f"{port.port}: the port has gone")
            heard[port] += data
    return heard


def _told(baudrate: int, outcome: Outcome) -> str:
    line = f"{baudrate:>7} {outcome.sent:>7} {outcome.errors:>6}"
    if not outcome.errors:
        wire_s = 2 * REQUEST_LENGTH * BITS_PER_CHARACTER / baudrate
        times_s = (median(outcome.round_trips_s), max(outcome.round_trips_s), wire_s)
        line += " " + "".join(f"{time_s * 1000:>8.2f}" for time_s in times_s)
    return line


def _open(path: str, baudrate: int) -> Serial:
    return open_port(path, RtuBinding(kind="modbus_rtu", port=path, baudrate=baudrate))


def _path(text: str) -> str:
    """Return the device that is meant now: by a path, `usb:SERIAL`, or a match in JSON."""
    document: dict[str, object] = {"kind": "modbus_rtu", "port": text}
    try:
        if text.startswith("{"):
            document["port"] = json.loads(text)
        port = RtuBinding.model_validate(document).port
    except ValidationError as error:
        fault = validation_errors(error, RtuBinding, document, "")[0]
        raise LinkDown(str(fault)) from error
    except json.JSONDecodeError as error:
        raise LinkDown(f"{text} is not JSON: {error}") from error
    if isinstance(port, PortMatch):
        return choose(port, look().values()).node
    if port.startswith("pty:"):
        raise LinkDown(f"{text} is made by `dertwin run`; give the path of a port that is there")
    return port
