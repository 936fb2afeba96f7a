"""Seeded fuzz of a real service: streams of noise, damaged frames, every kind of request, all at once."""

import contextlib
import random
import struct
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest
from support.service import Service, free_port, service
from support.tcp import Client, ask
from support.tcp import frame as tcp_frame

from dertwin.modbus.rtu import crc16
from dertwin.modbus.rtu import frame as rtu_frame

ATTACK_S = 4.0
UNITS = {1: "bess", 2: "inverter", 3: "chp", 4: "energy_meter"}
READ_HEARTBEAT = {
    1: b"\x03\x03\xf4\x00\x01",
    2: b"\x03\x03\xec\x00\x01",
    3: b"\x03\x03\xeb\x00\x01",
    4: b"\x03\x03\xee\x00\x01",
}
EXCEPTIONS = {1, 2, 3, 0x0B}  # and not 4: the service has no defect that any input could show

# The numbers that break things: ends of types, NaN, infinities.
NASTY = [bytes.fromhex(w) for w in ("0000", "0001", "7fff", "8000", "ffff", "7f80", "ff80", "7fc0", "ff00")]
ADDRESSES = (range(51), range(998, 1015), range(1995, 2025), range(65530, 65536))


class Target:
    """Where the service under attack is reached."""

    def __init__(self, running: Service, tcp: int, rtu: int) -> None:
        self.service = running
        self.tcp = tcp
        self.rtu = rtu


@pytest.fixture
def target(tmp_path: Path) -> Iterator[Target]:
    tcp, rtu = free_port(), free_port()
    assets: list[dict[str, Any]] = [
        {
            "type": kind,
            "protocols": [
                {"kind": "modbus_tcp", "ip": "127.0.0.1", "port": tcp, "unit_id": unit_id},
                {"kind": "modbus_rtu_over_tcp", "ip": "127.0.0.1", "port": rtu, "unit_id": unit_id},
            ],
        }
        for unit_id, kind in UNITS.items()
    ]
    # Fast, so that many steps see what was written.
    with service({"assets": assets, "start_time_h": 12.0, "speed": 20.0}, tmp_path) as running:
        yield Target(running, tcp, rtu)


def random_pdu(rng: random.Random) -> bytes:
    """Return a request that is likely to be a good one, with a function that needs no luck to be offered."""
    address = struct.pack(">H", rng.choice(rng.choice(ADDRESSES)))
    count = rng.choice((1, 1, 2, 2, 4, 10, 50, 125, 126, 2001, 0, 65535))
    words = b"".join(
        rng.choice(NASTY) if rng.random() < 0.7 else rng.randbytes(2) for _ in range(count % 124)
    )
    many = struct.pack(">HB", len(words) // 2, len(words) & 0xFF) + words
    function = rng.choice((1, 2, 3, 4, 5, 6, 8, 15, 16, 16, 16, 22, 23, 43, 7, 0, rng.randrange(128)))
    body = {
        5: address + rng.choice(NASTY),
        6: address + rng.choice(NASTY),
        8: rng.choice((b"\0\0", b"\0\1")) + words,
        15: address + struct.pack(">HB", 16 * len(words), len(words) & 0xFF) + words,
        16: address + many,
        22: address + rng.choice(NASTY) + rng.choice(NASTY),
        23: struct.pack(">HH", rng.randrange(1000, 1010), 1) + address + many,
        43: b"\x0e" + rng.randbytes(2),
    }
    pdu = bytes((function,)) + body.get(function, address + struct.pack(">H", count))
    return damaged(rng, pdu)[:253] if rng.random() < 0.1 else pdu[:253]


def damaged(rng: random.Random, data: bytes) -> bytes:
    """Return the data with bytes changed, removed or inserted, never empty."""
    changed = bytearray(data)
    for _ in range(rng.randrange(1, 4)):
        place = rng.randrange(len(changed) + 1)
        changed[place : place + rng.choice((0, 1, 1, 2))] = rng.randbytes(rng.choice((0, 1, 1, 2)))
    return bytes(changed) or b"\0"


def is_legal(request: bytes, reply: bytes) -> bool:
    if reply[0] == request[0] | 0x80:
        return len(reply) == 2 and reply[1] in EXCEPTIONS
    return reply[0] == request[0] and 2 <= len(reply) <= 253


def noise(target: Target, rng: random.Random) -> None:
    with Client(rng.choice((target.tcp, target.rtu))) as client, contextlib.suppress(ConnectionError):
        for _ in range(rng.randrange(1, 5)):
            client.send(rng.randbytes(rng.choice((1, 6, 7, 12, 300, 3000))))
        if rng.random() < 0.5:
            client.reset()
        else:
            client.is_closed(0.02)


def damaged_frames(target: Target, rng: random.Random) -> None:
    """Glue good frames, damage some bytes: whatever comes back must still be frames of known requests."""
    frames = b"".join(tcp_frame(i, random_pdu(rng), rng.randrange(6)) for i in range(20))
    with Client(target.tcp) as client, contextlib.suppress(ConnectionError, TimeoutError, AssertionError):
        client.socket.settimeout(0.05)
        client.send(damaged(rng, frames))
        while True:
            reply = client.receive()  # checks the header
            if not reply.pdu[0] & 0x80 or reply.pdu[1] in EXCEPTIONS:
                continue
            pytest.fail(f"illegal reply {reply}")


def good_frames(target: Target, rng: random.Random) -> None:
    """Pipeline whatever requests in good frames: each is answered in turn, legally."""
    requests = [(rng.choice((1, 2, 3, 4, 4, 9)), random_pdu(rng)) for _ in range(40)]
    stream = b"".join(tcp_frame(i, pdu, unit_id) for i, (unit_id, pdu) in enumerate(requests))
    with Client(target.tcp) as client:
        while stream:
            cut = rng.choice((1, 12, 100, 5000))
            client.send(stream[:cut])
            stream = stream[cut:]
        for i, (unit_id, pdu) in enumerate(requests):
            if pdu[0] < 0x80:
                reply = client.receive()
                assert reply[:2] == (i, unit_id)
                assert is_legal(pdu, reply.pdu), f"{pdu.hex()} got {reply.pdu.hex()}"


def rtu_frames(target: Target, rng: random.Random) -> None:
    """Send good and damaged RTU frames; a reply is a whole frame of one of our units."""
    with Client(target.rtu) as client:
        unit_id, pdu = rng.choice((0, 1, 2, 3, 4, 9)), random_pdu(rng)
        request = rtu_frame(unit_id, pdu)
        client.send(damaged(rng, request) if rng.random() < 0.3 else request)
        client.socket.settimeout(0.13)
        with contextlib.suppress(TimeoutError):
            reply = client.socket.recv(4096)
            assert crc16(reply) == 0
            assert reply[0] in UNITS
            assert reply[1] < 0x80 or (len(reply) == 5 and reply[2] in EXCEPTIONS)


def attack(target: Target, how: Callable[[Target, random.Random], None], seed: int) -> int:
    rng = random.Random(seed)
    until = time.monotonic() + ATTACK_S
    rounds = 0
    while time.monotonic() < until:
        how(target, rng)
        rounds += 1
    return rounds


def test_no_input_stops_the_service_or_makes_it_answer_wrongly_or_fills_its_log(
    target: Target,
) -> None:
    attacks = (noise, damaged_frames, good_frames, good_frames, rtu_frames, rtu_frames)
    slowest_s = 0.0
    with ThreadPoolExecutor() as pool:
        under_way = [pool.submit(attack, target, how, seed) for seed, how in enumerate(attacks)]
        while not all(each.done() for each in under_way):
            for unit_id, request in READ_HEARTBEAT.items():
                start = time.monotonic()
                assert len(ask(target.tcp, request, unit_id)) == 4
                slowest_s = max(slowest_s, time.monotonic() - start)
        assert all(each.result() > 3 for each in under_way)
    assert slowest_s < 1.0
    for unit_id, request in READ_HEARTBEAT.items():
        with Client(target.rtu) as client:
            client.send(rtu_frame(unit_id, request))
            assert len(client.socket.recv(7)) == 7
        assert len(ask(target.tcp, b"\x04\x00\x00\x00\x14", unit_id)) == 42
    assert target.service.stop()[0] == 0
    assert target.service.events("stopped")[0]["steps"] > 10 * ATTACK_S
    unusual = [line for line in target.service.log() if line["level"] != "info"]
    assert [(line["event"], line["level"]) for line in unusual] == [("connection closed", "warning")]
