"""Healthy serial lines of a real service: virtual pairs, settings, when a reply comes, echo, noise."""

import os
import random
import signal
import statistics
import time
import uuid
from collections.abc import Iterator
from pathlib import Path

import pytest
from support.bus import Bus, pause
from support.lines import Pair, echoing_line, pair
from support.service import Service, service, wait_for
from support.sites import READ_MOST, READ_SETPOINT, battery, rtu, setpoint_is, site, write_setpoint

from dertwin.modbus.rtu import crc16, frame

PTY_NAME = f"test-{uuid.uuid4().hex[:8]}"

TURNAROUND = {
    # name: settings, s that must pass between request and reply
    "slow": ({"baudrate": 9600, "min_turnaround_ms": 0}, 3.5 * 10 / 9600),
    "standard": ({"baudrate": 9600, "parity": "E", "min_turnaround_ms": 0}, 3.5 * 11 / 9600),
    "fast": ({"baudrate": 115200, "min_turnaround_ms": 0}, 0.00175),
    "usual": ({"baudrate": 115200}, 0.002),
    "patient": ({"baudrate": 115200, "min_turnaround_ms": 12.5}, 0.0125),
}
FRAMINGS = {
    "8E1": {"parity": "E"},
    "8O2": {"parity": "O", "stopbits": 2},
    "7E1": {"parity": "E", "bytesize": 7},
    "custom_rate": {"baudrate": 31250},
}


class Lines:
    """The lines of a running service, each with units 1 and 2 by the name of their test."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def open(self, name: str) -> Bus:
        return Bus(str(self.folder / f"{name}_client"))


@pytest.fixture(scope="module")
def lines(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Lines]:
    folder = tmp_path_factory.mktemp("lines")
    settings = {**{name: each for name, (each, _) in TURNAROUND.items()}, **FRAMINGS, "noisy": {}}
    bindings = [
        rtu(folder / name, unit_id, fallback="pty", **each)
        for name, each in settings.items()
        for unit_id in (1, 2)
    ]
    bindings.append(rtu(f"pty:{PTY_NAME}"))
    with service(site(folder, *map(battery, bindings)), folder) as running:
        yield Lines(folder)
        status, stopping_s = running.stop()
        assert (status, stopping_s < 1.0) == (0, True)
        assert [line for line in running.log() if line["level"] != "info"] == []
    left = [path for path in folder.iterdir() if path.is_symlink()]
    assert left == [], "virtual pairs end with the service"


def answers(client: Bus, unit_id: int = 1) -> bool:
    client.send(frame(unit_id, READ_SETPOINT))
    reply = client.receive(7)
    return reply[:3] == bytes((unit_id, 3, 2)) and crc16(reply) == 0


@pytest.mark.parametrize("name", list(TURNAROUND))
def test_no_reply_comes_before_the_silence_that_the_line_needs(lines: Lines, name: str) -> None:
    needed_s = TURNAROUND[name][1]
    client = lines.open(name)
    took_s = []
    for i in range(50):
        start = time.monotonic()
        client.send(frame(1 + i % 2, READ_SETPOINT))
        assert len(client.receive(1)) == 1
        took_s.append(time.monotonic() - start)
        assert len(client.receive(6)) == 6
    client.close()
    assert min(took_s) >= needed_s
    assert statistics.median(took_s) < needed_s + 0.005


@pytest.mark.parametrize("name", list(FRAMINGS))
def test_a_virtual_pair_takes_any_framing_and_may_be_opened_again(lines: Lines, name: str) -> None:
    for _ in range(3):
        client = lines.open(name)
        assert answers(client)
        client.close()


def test_a_named_pair_is_under_tmp(lines: Lines) -> None:
    client = Bus(f"/tmp/dertwin_{PTY_NAME}_client")
    assert answers(client)
    client.close()


def test_after_seconds_of_noise_each_unit_answers_the_next_request(lines: Lines) -> None:
    rng = random.Random(7)
    client = lines.open("noisy")
    for _ in range(3):
        until = time.monotonic() + 1.0
        while time.monotonic() < until:
            noise = rng.randbytes(rng.choice((1, 2, 7, 8, 9, 60, 300)))
            client.send(noise)
            pause(rng.choice((0.0, 0.001, 0.004, 0.030)))
        client.heard_within(0.15)
        assert all(answers(client, unit_id) for unit_id in (1, 2, 1, 2))
    client.close()


def test_whatever_the_request_is_the_reply_is_legal_and_the_next_request_is_answered(lines: Lines) -> None:
    rng = random.Random(8)
    client = lines.open("noisy")
    until = time.monotonic() + 2.0
    while time.monotonic() < until:
        function = rng.choice((1, 2, 3, 4, 5, 6, 8, 15, 16, 22, 23, 43, rng.randrange(256)))
        client.send(frame(2, bytes((function,)) + rng.randbytes(rng.choice((0, 1, 3, 4, 4, 5, 9)))))
        reply = client.heard_within(0.250)
        if reply:
            assert crc16(reply) == 0
            assert reply[0] == 2
            assert reply[1] in (function, function | 0x80)
            assert reply[1] < 0x80 or (len(reply) == 5 and reply[2] in (1, 2, 3, 4))
        assert answers(client)
    client.close()


def test_a_client_that_did_not_read_its_replies_is_answered_once_it_does(lines: Lines) -> None:
    client = lines.open("fast")
    for _ in range(300):
        client.send(frame(1, READ_MOST))
        pause(0.0025)
    while client.heard_within(0.1):
        pass
    assert all(answers(client, unit_id) for unit_id in (1, 2))
    client.close()


def test_a_wake_up_without_data_does_not_look_like_a_port_that_has_gone(lines: Lines) -> None:
    # The settings of a terminal belong to all who have it open: ours shows what the service would read.
    port = os.open(lines.folder / "noisy", os.O_RDONLY | os.O_NOCTTY | os.O_NONBLOCK)
    with pytest.raises(BlockingIOError):
        os.read(port, 1)
    os.close(port)


def test_with_suppress_echo_a_line_that_echoes_answers_each_request_once(tmp_path: Path) -> None:
    port = tmp_path / "echo"
    config = site(tmp_path, battery(rtu(port, baudrate=115200, suppress_echo=True)))
    with echoing_line(port) as far_end, service(config, tmp_path):
        client = Bus(str(far_end))
        for i in range(100):
            write = frame(1, write_setpoint(i))
            client.send(write)
            assert client.receive(8) == write
            client.send(frame(1, READ_SETPOINT))
            assert client.receive(7) == frame(1, setpoint_is(i))
        assert client.heard_within(0.15) == b""
        client.close()


def test_the_echo_of_a_read_reply_is_no_request_even_without_suppress_echo(tmp_path: Path) -> None:
    port = tmp_path / "echo"
    config = site(tmp_path, battery(rtu(port, baudrate=115200)))
    with echoing_line(port) as far_end, service(config, tmp_path):
        client = Bus(str(far_end))
        for _ in range(20):
            assert answers(client)
        assert client.heard_within(0.15) == b""
        client.close()


@pytest.fixture
def pairs(tmp_path: Path) -> Iterator[Pair]:
    with pair(tmp_path / "port") as made:
        yield made


def _of_two_services(first: Service, config: dict[str, object], folder: Path, client: str) -> None:
    """Check that a second service on the same port says so, and takes over when the first one ends."""
    (folder / "second").mkdir()
    with service(config, folder / "second") as second:
        assert any("not yet" in line and "in use by another program" in line for line in second.lines)
        bus = Bus(client)
        assert all(answers(bus) for _ in range(20))
        first.stop()
        ended = time.monotonic()
        wait_for(lambda: second.events("link up"))
        bus.close()
        bus = Bus(client)
        assert answers(bus)
        bus.close()
        assert time.monotonic() - ended < 2.0
        assert [len(second.events(event)) for event in ("link down", "link up")] == [1, 1]


def test_a_second_service_on_a_port_waits_until_the_first_one_ends(tmp_path: Path, pairs: Pair) -> None:
    pairs.appear()
    config = site(tmp_path, battery(rtu(pairs.port, parity="E")))
    with service(config, tmp_path) as first:
        _of_two_services(first, config, tmp_path, str(pairs.client))


def test_a_second_service_on_a_named_pair_waits_until_the_first_one_ends(tmp_path: Path) -> None:
    name = f"test-{uuid.uuid4().hex[:8]}"
    config = site(tmp_path, battery(rtu(f"pty:{name}")))
    with service(config, tmp_path) as first:
        _of_two_services(first, config, tmp_path, f"/tmp/dertwin_{name}_client")


def test_a_killed_service_leaves_no_line_and_the_next_one_serves(tmp_path: Path) -> None:
    config = site(tmp_path, battery(rtu(tmp_path / "line", fallback="pty")))
    for _ in range(2):
        with service(config, tmp_path) as running:
            client = Bus(str(tmp_path / "line_client"))
            assert answers(client)
            client.close()
            os.kill(running.process.pid, signal.SIGKILL)
            wait_for(lambda: not (tmp_path / "line").is_symlink(), what="the end of socat")
