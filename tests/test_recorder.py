"""What the recorder keeps, for how long, and that it keeps what was on the wire."""

import socket
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

import pytest
from support.bus import Bus
from support.inprocess import Running, running
from support.service import free_port, wait_for
from support.sites import READ_SETPOINT, battery, rtu, setpoint_is, site, write_setpoint
from support.tcp import Client, frame

from bench.recorder import CHUNK_BYTES, CHUNK_S, CLOSED, NOISE, OPENED, RECEIVED, SENT, Frame, Kind, Recorder
from dertwin.modbus.rtu import LineCounters, RtuDecoder
from dertwin.modbus.rtu import frame as rtu_frame


class Clock:
    def __init__(self) -> None:
        self.time_s = 1000.0

    def __call__(self) -> float:
        return self.time_s


@pytest.fixture
def clock() -> Clock:
    return Clock()


def test_frames_come_back_as_they_went_in(clock: Clock) -> None:
    recorder = Recorder(now=clock)
    client = recorder.begin("tcp 0.0.0.0:502", ("192.0.2.7", 40000), ("192.0.2.1", 502))
    line = recorder.begin("rtu /dev/ttyUSB0")
    client(RECEIVED, 1000.25, b"request")
    line(RECEIVED, 1000.5, b"\x00")
    client(SENT, 1000.75, b"reply")
    client(CLOSED, 1001.0, b"")
    frames = list(recorder.frames())
    assert [(f.at, f.kind, f.data) for f in frames] == [
        (1000.0, Kind.OPENED, b""),
        (1000.0, Kind.OPENED, b""),
        (1000.25, Kind.RECEIVED, b"request"),
        (1000.5, Kind.RECEIVED, b"\x00"),
        (1000.75, Kind.SENT, b"reply"),
        (1001.0, Kind.CLOSED, b""),
    ]
    assert frames[2].conversation == frames[4].conversation != frames[3].conversation
    assert frames[2].conversation.peer == ("192.0.2.7", 40000)
    assert frames[3].conversation.link == "rtu /dev/ttyUSB0"


def test_the_oldest_frames_make_room_for_new_ones(clock: Clock) -> None:
    recorder = Recorder(max_bytes=4 * CHUNK_BYTES, now=clock)
    tap = recorder.begin("tcp")
    for number in range(40_000):
        tap(RECEIVED, clock.time_s, number.to_bytes(4, "big") * 25)
        assert recorder.size <= 5 * CHUNK_BYTES + 200
    kept = [int.from_bytes(f.data[:4], "big") for f in recorder.frames()]
    assert kept == list(range(kept[0], 40_000))
    assert len(kept) * 100 > 3 * CHUNK_BYTES


def test_what_is_too_old_is_not_shown_and_soon_not_kept(clock: Clock) -> None:
    recorder = Recorder(max_age_s=600.0, now=clock)
    tap = recorder.begin("tcp")
    for number in range(1, 2001):
        clock.time_s += 1.0
        tap(RECEIVED, clock.time_s, b"x" * 100)
        assert recorder.size <= (600 + 2 * CHUNK_S) * 200
        if number % 100 == 0:
            shown = [f.at for f in recorder.frames()]
            assert min(shown) >= clock.time_s - 600.0
    assert len(shown) == 601


def test_a_storm_of_connections_needs_no_more_memory_than_a_storm_of_frames(clock: Clock) -> None:
    recorder = Recorder(max_bytes=4 * CHUNK_BYTES, now=clock)
    for port in range(20_000):
        tap = recorder.begin("tcp", ("192.0.2.7", port), ("192.0.2.1", 502))
        tap(CLOSED, clock.time_s, b"")
        assert recorder.size <= 6 * CHUNK_BYTES
    last = list(recorder.frames())[-1]
    assert last.conversation.peer == ("192.0.2.7", 19_999)


def test_frames_that_come_while_others_are_read_are_not_seen(clock: Clock) -> None:
    recorder = Recorder(now=clock)
    tap = recorder.begin("tcp")
    reading = recorder.frames()
    tap(RECEIVED, clock.time_s, b"later")
    assert [f.kind for f in reading] == [OPENED]
    assert len(list(recorder.frames())) == 2


def test_the_decoder_tells_every_byte_once_in_order_and_where_it_cut() -> None:
    cut: list[bytes] = []
    garbage: list[bytes] = []
    decoder = RtuDecoder({1}, LineCounters())

    def observe(data: bytes, is_frame: bool) -> None:
        cut.append(data)
        if not is_frame:
            garbage.append(data)

    decoder.observe = observe
    request, unknown, noise = rtu_frame(1, READ_SETPOINT), rtu_frame(1, b"\x41\x01\x02"), b"\xf7\xff\x00\xaa"
    foreign = rtu_frame(9, READ_SETPOINT), rtu_frame(9, setpoint_is(3))
    for data in (request[:3], request[3:] + request, unknown):
        decoder.receive(data, 0.0)
    decoder.silence()
    decoder.receive(noise + request, 1.0)
    decoder.silence()
    decoder.receive(noise + foreign[0], 2.0)
    decoder.receive(foreign[1], 2.0)
    decoder.receive(request + bytes(600), 3.0)
    decoder.silence()
    assert cut[:5] == [request, request, unknown, noise, request]
    assert cut[5:9] == [noise, *foreign, request]
    assert b"".join(cut[9:]) == bytes(600)
    assert garbage == [noise, noise, *cut[9:]]
    assert sum(map(len, cut)) == decoder.counters.received_bytes


class Links(NamedTuple):
    """A bench that records, and its links: Modbus TCP, RTU frames on TCP, a serial line's client end."""

    running: Running
    recorder: Recorder
    tcp: int
    rtu: int
    line: Path

    def frames(self, link: str) -> list[Frame]:
        """Return what was received and sent on a link so far."""
        return [
            f
            for f in self.running.call(lambda: list(self.recorder.frames()))
            if f.conversation.link.startswith(link) and f.data
        ]


@pytest.fixture
def links(tmp_path: Path) -> Iterator[Links]:
    tcp, rtu_port, line = free_port(), free_port(), tmp_path / "line"
    config = site(
        tmp_path,
        battery(
            {"port": tcp},
            {"port": rtu_port, "kind": "modbus_rtu_over_tcp"},
            rtu(line, fallback="pty", baudrate=115200),
        ),
    )
    recorder = Recorder()
    with running(config, tmp_path, recorder) as served:
        yield Links(served, recorder, tcp, rtu_port, tmp_path / "line_client")


def test_a_tcp_client_is_recorded_with_its_address_until_it_goes(links: Links) -> None:
    with Client(links.tcp) as client:
        own = client.socket.getsockname()
        client.ask(write_setpoint(5))
        client.send(frame(9, READ_SETPOINT)[:4])
        client.send(frame(9, READ_SETPOINT)[4:])
        client.receive()
    wait_for(lambda: [f for f in links.recorder.frames() if f.kind == CLOSED], what="the end of the client")
    frames = links.frames("tcp")
    received = b"".join(f.data for f in frames if f.kind == RECEIVED)
    assert received == frame(7, write_setpoint(5)) + frame(9, READ_SETPOINT)
    sent = [f.data for f in frames if f.kind == SENT]
    assert sent == [frame(7, write_setpoint(5)), frame(9, setpoint_is(5))]
    (conversation,) = {f.conversation for f in links.recorder.frames() if f.conversation.peer}
    assert conversation.link == f"tcp 127.0.0.1:{links.tcp}"
    assert (conversation.peer, conversation.own) == (own, ("127.0.0.1", links.tcp))
    times = [f.at for f in links.recorder.frames()]
    assert times == sorted(times)


def test_rtu_frames_on_tcp_are_recorded(links: Links) -> None:
    with socket.create_connection(("127.0.0.1", links.rtu), timeout=5) as client:
        client.sendall(rtu_frame(1, READ_SETPOINT))
        reply = client.recv(256)
    assert [(f.kind, f.data) for f in links.frames("rtu-over-tcp")] == [
        (RECEIVED, rtu_frame(1, READ_SETPOINT)),
        (SENT, reply),
    ]


def test_a_serial_line_is_recorded_frame_by_frame_and_so_is_what_was_none(links: Links) -> None:
    client, request = Bus(str(links.line)), rtu_frame(1, READ_SETPOINT)
    try:
        client.send(b"\xf7\xff")
        wait_for(lambda: links.frames("rtu /"), what="the noise")
        client.send(request[:3], request[3:], gap_s=0.005)
        reply = client.receive(7)
        client.send(rtu_frame(9, READ_SETPOINT))
        wait_for(lambda: len(links.frames("rtu /")) == 4, what="the foreign request")
    finally:
        client.close()
    assert [(f.kind, f.data) for f in links.frames("rtu /")] == [
        (NOISE, b"\xf7\xff"),
        (RECEIVED, request),
        (SENT, reply),
        (RECEIVED, rtu_frame(9, READ_SETPOINT)),
    ]
    (conversation,) = {f.conversation for f in links.frames("rtu /")}
    assert (conversation.peer, conversation.own) == (None, None)


def test_without_a_recorder_nothing_is_kept(tmp_path: Path) -> None:
    port = free_port()
    with running(site(tmp_path, battery({"port": port})), tmp_path) as served, Client(port) as client:
        client.ask(READ_SETPOINT)
        assert served.bench.recorder is None
