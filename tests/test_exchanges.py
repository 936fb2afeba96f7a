"""Which reply belongs to which request, and what happens to those that get none."""

import math
from pathlib import Path

import pytest
from support.foreign import HOLDING, Pymodbus, Reach
from support.inprocess import running
from support.service import free_port
from support.sites import battery, rtu, site
from support.tcp import frame

from bench.exchanges import exchanges
from bench.recorder import NOISE, RECEIVED, SENT, Recorder, Tap
from dertwin.modbus.rtu import frame as rtu_frame
from dertwin.scenario.record import Exchange

LINK, RTU_LINK, LINE = "tcp 0.0.0.0:502", "rtu-over-tcp 0.0.0.0:503", "rtu /dev/ttyUSB0"
DEVICES = {link: {1: "bess-1", 2: "pv-1"} for link in (LINK, RTU_LINK, LINE)}
READ, OTHER, VALUE = b"\x03\x00\x00\x00\x01", b"\x03\x00\x05\x00\x01", b"\x03\x02\x00\x0a"


@pytest.fixture
def recorder() -> Recorder:
    return Recorder(now=lambda: 0.0)


@pytest.fixture
def tcp(recorder: Recorder) -> Tap:
    return recorder.begin(LINK, ("192.0.2.7", 40000), ("192.0.2.1", 502))


@pytest.fixture
def line(recorder: Recorder) -> Tap:
    return recorder.begin(LINE)


def short(recorder: Recorder) -> list[tuple[float, float, int, bytes, bytes]]:
    """Return time, time of the reply (0 if none), unit, request and reply of each exchange."""
    return [
        (e.time_s, 0.0 if math.isnan(e.replied_s) else e.replied_s, e.unit_id, e.request, e.reply)
        for e in exchanges(recorder.frames(), DEVICES, 0.0)
    ]


def test_replies_on_tcp_are_told_apart_by_transaction_id(recorder: Recorder, tcp: Tap) -> None:
    tcp(RECEIVED, 1.0, frame(5, READ) + frame(6, OTHER, 2) + frame(7, READ))
    tcp(SENT, 2.0, frame(6, b"\x83\x02", 2))
    tcp(SENT, 3.0, frame(5, VALUE))
    assert short(recorder) == [
        (1.0, 3.0, 1, READ, VALUE),
        (1.0, 2.0, 2, OTHER, b"\x83\x02"),
        (1.0, 0.0, 1, READ, b""),
    ]


def test_an_exchange_tells_link_client_and_device_in_the_time_of_the_scenario(
    recorder: Recorder, tcp: Tap
) -> None:
    other = recorder.begin(LINK, ("2001:db8::7", 1234), ("2001:db8::1", 502))
    tcp(RECEIVED, 11.0, frame(1, READ, 2))
    other(RECEIVED, 12.0, frame(1, READ, 9))
    tcp(SENT, 12.5, frame(1, VALUE, 2))
    first, second = exchanges(recorder.frames(), DEVICES, start=10.0, speed=4.0)
    assert first == Exchange(4.0, 10.0, LINK, "192.0.2.7:40000", 2, "pv-1", READ, VALUE)
    assert (second.time_s, second.client, second.unit_id, second.device) == (8.0, "[2001:db8::7]:1234", 9, "")


@pytest.mark.parametrize(("unit_id", "device"), [(0, "bess-1"), (255, "bess-1"), (7, "bess-1"), (8, "")])
def test_unit_ids_that_mean_the_server_itself_are_its_only_device(
    recorder: Recorder, tcp: Tap, unit_id: int, device: str
) -> None:
    tcp(RECEIVED, 1.0, frame(1, READ, unit_id))
    (only,) = exchanges(recorder.frames(), {LINK: {7: "bess-1"}}, 0.0)
    assert (only.unit_id, only.device) == (unit_id, device)


def test_a_retry_with_the_same_transaction_id_waits_its_turn(recorder: Recorder, tcp: Tap) -> None:
    tcp(RECEIVED, 1.0, frame(5, READ))
    tcp(RECEIVED, 2.0, frame(5, READ))
    tcp(SENT, 2.5, frame(5, VALUE))
    tcp(SENT, 2.6, frame(9, VALUE))
    assert short(recorder) == [(1.0, 2.5, 1, READ, VALUE), (2.0, 0.0, 1, READ, b"")]


def test_frames_on_tcp_may_come_and_go_in_any_pieces(recorder: Recorder, tcp: Tap) -> None:
    for index, byte in enumerate(frame(5, READ)):
        tcp(RECEIVED, 1.0 + index, bytes((byte,)))
    for index, byte in enumerate(frame(5, VALUE)):
        tcp(SENT, 20.0 + index, bytes((byte,)))
    assert short(recorder) == [(12.0, 30.0, 1, READ, VALUE)]


def test_after_bytes_that_are_no_stream_of_frames_the_next_piece_is_a_new_beginning(
    recorder: Recorder, tcp: Tap
) -> None:
    tcp(RECEIVED, 1.0, b"GET / HTTP/1.1\r\n\r\n")
    tcp(RECEIVED, 2.0, frame(5, READ))
    tcp(SENT, 3.0, frame(5, VALUE))
    assert short(recorder) == [(2.0, 3.0, 1, READ, VALUE)]


def test_on_a_line_a_reply_belongs_to_the_last_request(recorder: Recorder, line: Tap) -> None:
    line(RECEIVED, 1.0, rtu_frame(1, READ))
    line(RECEIVED, 2.0, rtu_frame(2, OTHER))
    line(SENT, 3.0, rtu_frame(2, VALUE))
    line(RECEIVED, 4.0, rtu_frame(1, READ))
    assert short(recorder) == [
        (1.0, 0.0, 1, READ, b""),
        (2.0, 3.0, 2, OTHER, VALUE),
        (4.0, 0.0, 1, READ, b""),
    ]


def test_what_others_say_on_a_line_and_noise_are_no_exchanges_but_broadcasts_are(
    recorder: Recorder, line: Tap
) -> None:
    write = b"\x06\x00\x00\x00\x01"
    line(RECEIVED, 1.0, rtu_frame(9, READ))
    line(RECEIVED, 2.0, rtu_frame(9, VALUE))
    line(NOISE, 3.0, rtu_frame(1, VALUE))
    line(NOISE, 4.0, b"\xff")
    line(RECEIVED, 5.0, rtu_frame(0, write))
    assert short(recorder) == [(5.0, 0.0, 0, write, b"")]


@pytest.mark.parametrize(
    ("pieces", "reply", "at"),
    [
        ([b"\x01\x03\x02", rtu_frame(1, VALUE)[3:]], VALUE, 3.0),
        ([rtu_frame(1, VALUE)[:-1] + b"\x00"], b"", 0.0),
        ([rtu_frame(1, VALUE)[:-1] + b"\x00", rtu_frame(1, VALUE)], VALUE, 3.0),
        ([rtu_frame(2, VALUE)], b"", 0.0),
        ([rtu_frame(1, VALUE), rtu_frame(1, VALUE)], VALUE, 2.0),
    ],
    ids=["in pieces", "wrong CRC", "wrong, then right", "of another unit", "twice"],
)
@pytest.mark.parametrize("link", [LINE, RTU_LINK])
def test_only_a_valid_frame_is_a_reply(
    recorder: Recorder, link: str, pieces: list[bytes], reply: bytes, at: float
) -> None:
    ends = () if link == LINE else (("192.0.2.7", 40000), ("192.0.2.1", 503))
    tap = recorder.begin(link, *ends)
    tap(RECEIVED, 1.0, rtu_frame(1, READ))
    for index, piece in enumerate(pieces):
        tap(SENT, 2.0 + index, piece)
    assert short(recorder) == [(1.0, at, 1, READ, reply)]


def test_rtu_frames_on_tcp_may_come_in_pieces_and_several_at_once(recorder: Recorder) -> None:
    tap = recorder.begin(RTU_LINK, ("192.0.2.7", 40000), ("192.0.2.1", 503))
    both = rtu_frame(1, READ) + rtu_frame(2, OTHER)
    tap(RECEIVED, 1.0, both[:5])
    tap(RECEIVED, 1.01, both[5:])
    tap(SENT, 2.0, rtu_frame(1, VALUE))
    tap(SENT, 3.0, rtu_frame(2, VALUE))
    assert short(recorder) == [(1.01, 2.0, 1, READ, VALUE), (1.01, 3.0, 2, OTHER, VALUE)]


@pytest.mark.parametrize("way", ["tcp", "rtu_over_tcp", "rtu"])
def test_exchanges_of_a_foreign_client_are_those_that_it_made(tmp_path: Path, way: str) -> None:
    reach = Reach(free_port(), free_port(), str(tmp_path / "line_client"))
    config = site(
        tmp_path,
        battery(
            {"port": reach.tcp},
            {"port": reach.rtu_over_tcp, "kind": "modbus_rtu_over_tcp"},
            rtu(tmp_path / "line", fallback="pty", baudrate=115200),
        ),
    )
    recorder = Recorder()
    with running(config, tmp_path, recorder) as served, Pymodbus(way, reach) as client:
        for value in range(5):
            client.write(HOLDING, 1, 199, [value])
            assert client.read(HOLDING, 1, 199, 1) == [value]
        devices = {
            link.name: {unit_id: unit.asset_id for unit_id, unit in link.units.items()}
            for link in served.bench.links.values()
        }
    found = exchanges(recorder.frames(), devices, 0.0)
    assert [(e.device, e.unit_id, e.request, e.reply) for e in found] == [
        exchange
        for value in range(5)
        for exchange in (
            ("bess-1", 1, bytes((6, 0, 199, 0, value)), bytes((6, 0, 199, 0, value))),
            ("bess-1", 1, bytes((3, 0, 199, 0, 1)), bytes((3, 2, 0, value))),
        )
    ]
    assert all(0.0 < e.replied_s - e.time_s < 1.0 for e in found)
