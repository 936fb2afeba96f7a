"""A shared RS-485 line as one client sees it, and everything that may happen on it.

Each disturbance is a generator over a `Bus`: it puts bytes on the line and yields what it asked of
our own units, so that the caller can count good replies and bytes that were nobody's reply.
"""

import os
import random
import select
import termios
import time
import tty
from collections.abc import Callable, Iterator
from typing import NamedTuple

from dertwin.modbus.rtu import crc16, frame

OWN_UNITS = (1, 2)
FOREIGN_UNIT = 9
REPLY_TIMEOUT_S = 1.0


class Bus:
    """The client's end of a serial line, raw."""

    def __init__(self, path: str) -> None:
        self._fd = os.open(path, os.O_RDWR | os.O_NOCTTY | os.O_NONBLOCK)
        tty.setraw(self._fd)
        termios.tcflush(self._fd, termios.TCIOFLUSH)

    def close(self) -> None:
        os.close(self._fd)

    def send(self, *chunks: bytes, gap_s: float = 0.0) -> None:
        """Put chunks on the line, each `gap_s` after the one before."""
        for index, chunk in enumerate(chunks):
            if index and gap_s:
                pause(gap_s)
            os.write(self._fd, chunk)

    def receive(self, length: int, timeout_s: float = REPLY_TIMEOUT_S) -> bytes:
        """Return `length` bytes, or fewer when they do not come in time."""
        data = b""
        until = time.monotonic() + timeout_s
        while len(data) < length and (left := until - time.monotonic()) > 0:
            if select.select([self._fd], [], [], left)[0]:
                data += os.read(self._fd, length - len(data))
        return data

    def heard_within(self, seconds: float) -> bytes:
        """Return whatever comes within the time, which is often meant to be nothing."""
        return self.receive(4096, seconds)


def pause(seconds: float) -> None:
    """Leave the line silent: the very thing that some disturbances are made of."""
    select.select([], [], [], seconds)


def read_request(unit_id: int, address: int = 1000, count: int = 1) -> bytes:
    return frame(unit_id, b"\x03" + address.to_bytes(2, "big") + count.to_bytes(2, "big"))


def read_reply(unit_id: int, payload: bytes) -> bytes:
    return frame(unit_id, bytes((3, len(payload))) + payload)


class Tally(NamedTuple):
    """What a disturbance led to: own requests made and answered well, bytes sent out of turn."""

    requests: int
    good: int
    out_of_turn: int


Case = Callable[[Bus, random.Random, int], Iterator[int]]
"""Puts one round on the line and yields the unit id of each own request that must now be answered."""

CASES: dict[str, Case] = {}


def case(function: Case) -> Case:
    CASES[function.__name__.replace("_", " ")] = function
    return function


def run(name: str, bus: Bus, rounds: int, seed: int = 1) -> Tally:
    """Run a disturbance for some rounds and count."""
    rng = random.Random(seed)
    requests = good = out_of_turn = 0
    for round_number in range(rounds):
        for unit_id in CASES[name](bus, rng, round_number):
            requests += 1
            reply = bus.receive(7)
            if len(reply) == 7 and reply[:3] == bytes((unit_id, 3, 2)) and crc16(reply) == 0:
                good += 1
            else:
                out_of_turn += len(reply)
    out_of_turn += len(bus.heard_within(0.15))
    return Tally(requests, good, out_of_turn)


def _foreign_exchange(rng: random.Random, count: int, payload: bytes = b"") -> tuple[bytes, bytes]:
    payload = (payload + rng.randbytes(2 * count))[: 2 * count]
    return read_request(FOREIGN_UNIT, rng.randrange(1000), count), read_reply(FOREIGN_UNIT, payload)


def _in_chunks(data: bytes) -> list[bytes]:
    return [data[i : i + 8] for i in range(0, len(data), 8)]


@case
def clean_traffic_for_two_units(bus: Bus, rng: random.Random, n: int) -> Iterator[int]:
    for unit_id in OWN_UNITS:
        bus.send(read_request(unit_id))
        yield unit_id


@case
def foreign_request_without_reply(bus: Bus, rng: random.Random, n: int) -> Iterator[int]:
    bus.send(read_request(FOREIGN_UNIT, n, 10))
    pause(0.005)
    bus.send(read_request(1))
    yield 1


@case
def foreign_exchange_in_one_chunk(bus: Bus, rng: random.Random, n: int) -> Iterator[int]:
    request, reply = _foreign_exchange(rng, n % 125 + 1)
    bus.send(request + reply)
    pause(0.003)
    bus.send(read_request(1))
    yield 1


@case
def foreign_exchange_in_chunks(bus: Bus, rng: random.Random, n: int) -> Iterator[int]:
    request, reply = _foreign_exchange(rng, (n * 7) % 125 + 1)
    bus.send(request, *_in_chunks(reply), gap_s=0.005)
    pause(0.003)
    bus.send(read_request(2))
    yield 2


@case
def foreign_exchange_glued_to_our_request(bus: Bus, rng: random.Random, n: int) -> Iterator[int]:
    request, reply = _foreign_exchange(rng, n % 125 + 1)
    bus.send(request + reply + read_request(1))
    yield 1


@case
def foreign_reply_at_once_followed_by_our_request(bus: Bus, rng: random.Random, n: int) -> Iterator[int]:
    request, reply = _foreign_exchange(rng, n % 125 + 1)
    bus.send(request)
    pause(0.004)
    bus.send(reply, read_request(1))
    yield 1


@case
def stray_reply_without_request(bus: Bus, rng: random.Random, n: int) -> Iterator[int]:
    bus.send(read_request(1))  # so that no foreign request is pending
    yield 1
    bus.send(_foreign_exchange(rng, n % 125 + 1)[1])
    pause(0.004)
    bus.send(read_request(2))
    yield 2


@case
def garbage_before_a_request_without_gap(bus: Bus, rng: random.Random, n: int) -> Iterator[int]:
    bus.send(rng.randbytes(rng.randrange(1, 40)) + read_request(1))
    yield 1


@case
def garbage_before_a_request_with_gap(bus: Bus, rng: random.Random, n: int) -> Iterator[int]:
    bus.send(rng.randbytes(rng.randrange(1, 40)))
    pause(0.010)
    bus.send(read_request(1))
    yield 1


@case
def truncated_frame_then_a_good_one(bus: Bus, rng: random.Random, n: int) -> Iterator[int]:
    bus.send(read_request(1)[: n % 7 + 1])
    pause(0.050)
    bus.send(read_request(1))
    yield 1


@case
def our_request_split_in_two(bus: Bus, rng: random.Random, n: int) -> Iterator[int]:
    request, cut = read_request(1), n % 7 + 1
    bus.send(request[:cut], request[cut:], gap_s=0.001)
    yield 1


@case
def two_of_our_requests_glued(bus: Bus, rng: random.Random, n: int) -> Iterator[int]:
    bus.send(read_request(1) + read_request(2))
    yield 2


@case
def a_client_that_does_not_wait_for_our_reply(bus: Bus, rng: random.Random, n: int) -> Iterator[int]:
    """It goes on with another request, which an adapter delivers with a pause inside."""
    unit_id = FOREIGN_UNIT if n % 2 else 1
    request = read_request(unit_id)
    bus.send(read_request(2) + request[:4], request[4:], gap_s=0.008)
    if unit_id == FOREIGN_UNIT:
        pause(0.005)
        bus.send(read_request(1))
    yield 1


@case
def foreign_writes_with_echo_replies(bus: Bus, rng: random.Random, n: int) -> Iterator[int]:
    values = rng.randbytes(2 * (n % 100 + 1))
    count = (len(values) // 2).to_bytes(2, "big")
    single = frame(FOREIGN_UNIT, bytes((5 + n % 2,)) + b"\x00\x07\xff\x00")
    many = frame(FOREIGN_UNIT, b"\x10\x00\x07" + count + bytes((len(values),)) + values)
    many_reply = frame(FOREIGN_UNIT, b"\x10\x00\x07" + count)
    coils = frame(FOREIGN_UNIT, b"\x0f\x00\x07\x00\x09\x02\xff\x01")
    coils_reply = frame(FOREIGN_UNIT, b"\x0f\x00\x07\x00\x09")
    for request, reply in ((single, single), (many, many_reply), (coils, coils_reply)):
        bus.send(request)
        pause(0.004)
        bus.send(reply)
        pause(0.003)
    bus.send(read_request(1))
    yield 1


@case
def foreign_exception_replies(bus: Bus, rng: random.Random, n: int) -> Iterator[int]:
    bus.send(read_request(FOREIGN_UNIT, n, 4) + frame(FOREIGN_UNIT, bytes((0x83, n % 4 + 1))))
    bus.send(read_request(1))
    yield 1


@case
def foreign_payload_that_contains_a_request_to_us(bus: Bus, rng: random.Random, n: int) -> Iterator[int]:
    """The worst chunking: a pause of the adapter exactly before and after the bytes that look like ours."""
    start = n % 60
    payload = rng.randbytes(start) + read_request(1)
    request, reply = _foreign_exchange(rng, 60, payload)
    inner = 3 + start
    bus.send(request, reply[:inner], reply[inner : inner + 8], reply[inner + 8 :], gap_s=0.005)
    pause(0.003)
    bus.send(read_request(2))
    yield 2


@case
def broadcasts(bus: Bus, rng: random.Random, n: int) -> Iterator[int]:
    bus.send(frame(0, b"\x06\x03\xe8\x00\x01"))
    pause(0.006)
    bus.send(read_request(1))
    yield 1


@case
def bit_errors_in_one_of_a_thousand_bytes(bus: Bus, rng: random.Random, n: int) -> Iterator[int]:
    unit_id = rng.choice(OWN_UNITS)
    request, reply = _foreign_exchange(rng, rng.randrange(1, 126))
    bus.send(_damaged(rng, request), _damaged(rng, reply), gap_s=0.004)
    pause(0.003)
    ours = read_request(unit_id)
    sent = _damaged(rng, ours)
    bus.send(sent)
    if sent == ours:
        yield unit_id
    else:
        pause(0.200)


def _damaged(rng: random.Random, data: bytes) -> bytes:
    return bytes(byte ^ (1 << rng.randrange(8)) if rng.random() < 0.001 else byte for byte in data)
