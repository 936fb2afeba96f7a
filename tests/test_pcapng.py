"""Recorded frames as Wireshark reads them: what tshark decodes is what real clients sent and got."""

import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest
from support.foreign import HOLDING, Pymodbus, Reach
from support.inprocess import running
from support.service import free_port
from support.sites import battery, rtu, site
from support.tcp import frame
from support.tshark import packets, tshark

from bench.pcapng import capture, decoding
from bench.recorder import CLOSED, NOISE, RECEIVED, SENT, Recorder
from dertwin.modbus.rtu import frame as rtu_frame

UNIX_NS = 1_750_000_000_123_456_789
SETPOINT, HEARTBEAT = 0, 199
FIELDS = (
    "frame.interface_name",
    "frame.packet_flags_direction",
    "modbus.func_code",
    "modbus.reference_num",
    "modbus.word_cnt",
    "modbus.regval_uint16",
    "modbus.data",
    "modbus.request_frame",
)
LINK = "tcp 0.0.0.0:55001"
READ = b"\x03\x00\x00\x00\x02"
VALUES = b"\x03\x04\x00\x0a\xff\xfe"


def write(folder: Path, recorder: Recorder, unix_ns: int = UNIX_NS) -> Path:
    file = folder / "frames.pcapng"
    file.write_bytes(b"".join(capture(recorder.frames(), unix_ns)))
    return file


@pytest.fixture
def recorder() -> Recorder:
    return Recorder(now=lambda: 100.0)


@pytest.mark.parametrize("way", ["tcp", "rtu_over_tcp", "rtu"])
def test_what_a_foreign_client_sent_and_got_is_what_wireshark_decodes(tmp_path: Path, way: str) -> None:
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
        client.write(HOLDING, 1, HEARTBEAT, [4711])
        before = time.time()
        got = client.read(HOLDING, 1, SETPOINT, 2), client.read(HOLDING, 1, HEARTBEAT, 1)
        links = [link.name for link in served.bench.links.values()]
    file = write(tmp_path, recorder, time.time_ns() - time.monotonic_ns())
    found = [
        packet
        for packet in packets(file, (*FIELDS, "frame.time_epoch"), *decoding(links))
        if "modbus.func_code" in packet
    ]
    assert got[1] == [4711]
    assert {packet["frame.interface_name"].split()[0] for packet in found} == {way.replace("_", "-")}
    asked, answered = found[::2], found[1::2]
    assert [direction(p) for p in asked + answered] == [1] * 3 + [2] * 3
    assert [p["modbus.func_code"] for p in asked] == [p["modbus.func_code"] for p in answered]
    assert [p["modbus.reference_num"] for p in asked[1:]] == [str(SETPOINT), str(HEARTBEAT)]
    assert [p["modbus.word_cnt"] for p in asked[1:]] == ["2", "1"]
    registers = [p["modbus.regval_uint16"] for p in answered[1:]]
    assert registers == [[str(value) for value in got[0]], str(got[1][0])]
    assert before <= float(asked[1]["frame.time_epoch"]) <= time.time()
    assert problems(file, links) == []


def direction(packet: dict[str, Any]) -> int:
    """Return 1 for what we received, 2 for what we sent."""
    return int(packet["frame.packet_flags_direction"], 0)


def problems(file: Path, links: Sequence[str]) -> list[dict[str, Any]]:
    """Return what Wireshark finds wrong: checksums, gaps and repetitions in TCP, broken packets."""
    fields = (
        "frame.number",
        "ip.checksum.status",
        "tcp.checksum.status",
        "tcp.analysis.flags",
        "_ws.malformed",
    )
    return [
        packet
        for packet in packets(file, fields, *decoding(links))
        if {"tcp.analysis.flags", "_ws.malformed"} & set(packet)
        or packet.get("ip.checksum.status", "1") != "1"
        or packet.get("tcp.checksum.status", "1") != "1"
    ]


@pytest.mark.parametrize(
    ("peer", "own"),
    [
        (("192.0.2.7", 40000), ("192.0.2.1", 55001)),
        (("fe80::7%eth0", 40000), ("fe80::1%eth0", 55001)),
        (("", 0), ("192.0.2.1", 55001)),
    ],
    ids=["IPv4", "IPv6", "a client that was gone before we looked"],
)
def test_a_tcp_conversation_has_its_addresses_and_sound_streams(
    tmp_path: Path, recorder: Recorder, peer: tuple[str, int], own: tuple[str, int]
) -> None:
    tap = recorder.begin(LINK, peer, own)
    for number in range(50):
        tap(RECEIVED, 101.0 + number, frame(number, READ))
        tap(SENT, 101.25 + number, frame(number, VALUES))
    tap(CLOSED, 200.0, b"")
    file = write(tmp_path, recorder)
    assert problems(file, [LINK]) == []
    version = "ipv6" if ":" in peer[0] else "ip"
    fields = (
        f"{version}.src",
        "tcp.srcport",
        "tcp.stream",
        "mbtcp.trans_id",
        "tcp.flags.str",
        "modbus.request_frame",
    )
    found = packets(file, fields, *decoding([LINK]))
    modbus = [packet for packet in found if "mbtcp.trans_id" in packet]
    sender = [(packet[f"{version}.src"], int(packet["tcp.srcport"])) for packet in modbus]
    shown = [(ip.partition("%")[0] or "0.0.0.0", port) for ip, port in (peer, own)]
    assert sender == shown * 50
    assert [int(packet["mbtcp.trans_id"]) for packet in modbus] == [n for n in range(50) for _ in (0, 1)]
    assert sum("modbus.request_frame" in packet for packet in modbus) == 50
    assert {packet["tcp.stream"] for packet in found} == {"0"}
    flags = [packet["tcp.flags.str"].strip("·") for packet in found]
    assert (flags[0], flags[-1]) == ("S", "A···F")


def test_frames_in_pieces_and_many_in_one_piece_are_put_together(tmp_path: Path, recorder: Recorder) -> None:
    tap = recorder.begin(LINK, ("192.0.2.7", 40000), ("192.0.2.1", 55001))
    requests = b"".join(frame(number, b"\x03\x00\x00\x00\x7d") for number in range(100))
    replies = b"".join(frame(number, b"\x03\xfa" + bytes(250)) for number in range(100))
    for start in range(0, len(requests), 50):
        tap(RECEIVED, 101.0, requests[start : start + 50])
    tap(SENT, 102.0, replies)
    file = write(tmp_path, recorder)
    assert problems(file, [LINK]) == []
    fields = ("mbtcp.trans_id", "modbus.func_code", "tcp.len")
    found = packets(file, fields, *decoding([LINK]))
    ids = [text for packet in found for text in listed(packet.get("mbtcp.trans_id", []))]
    assert [int(text) for text in ids] == [*range(100), *range(100)]
    assert max(int(packet["tcp.len"]) for packet in found) <= 1460


def listed(value: str | Sequence[str]) -> Sequence[str]:
    return [value] if isinstance(value, str) else value


def test_a_serial_line_has_each_frame_with_its_direction_and_what_was_none(
    tmp_path: Path, recorder: Recorder
) -> None:
    tap = recorder.begin("rtu /dev/ttyUSB0")
    tap(RECEIVED, 101.0, rtu_frame(17, READ))
    tap(SENT, 101.000000001, rtu_frame(17, VALUES))
    tap(NOISE, 102.0, b"\xf7\xff\x00")
    tap(RECEIVED, 103.0, rtu_frame(17, b"\x06\x00\x00\x00\x05"))
    tap(CLOSED, 104.0, b"")
    file = write(tmp_path, recorder)
    fields = (
        "rtacser.eventtype",
        "rtacser.timestamp",
        "frame.time_epoch",
        "frame.packet_flags_direction",
        "frame.comment",
        "mbrtu.unit_id",
        "mbrtu.crc16.status",
        "modbus.func_code",
        "modbus.regval_uint16",
    )
    found = packets(file, fields, *decoding(["rtu /dev/ttyUSB0"]))
    assert [int(packet["rtacser.eventtype"], 0) for packet in found] == [0, 2, 1, 2, 2, 0]
    assert [direction(packet) for packet in found[1:5]] == [1, 2, 1, 1]
    opened, request, reply, noise, write_request, _ = found
    assert (request["mbrtu.unit_id"], request["modbus.func_code"]) == ("17", "3")
    assert reply["modbus.regval_uint16"] == ["10", "65534"]
    assert write_request["modbus.func_code"] == "6"
    assert [p["mbrtu.crc16.status"] for p in (request, reply, write_request)] == ["1"] * 3
    assert noise["frame.comment"] == "no frame"
    assert float(request["frame.time_epoch"]) - float(opened["frame.time_epoch"]) == pytest.approx(1.0)
    assert request["frame.time_epoch"] == "1750000101.123456789"
    assert reply["frame.time_epoch"] == "1750000101.123456790"
    assert request["rtacser.timestamp"].endswith("1750000101.123456000")


def test_each_link_is_an_interface_that_says_how_to_decode_it(tmp_path: Path, recorder: Recorder) -> None:
    recorder.begin("tcp 0.0.0.0:502", ("192.0.2.7", 40000), ("192.0.2.1", 502))
    recorder.begin("rtu-over-tcp [::]:503", ("2001:db8::7", 40000), ("2001:db8::1", 503))
    recorder.begin("rtu pty:one")
    file = write(tmp_path, recorder)
    found = packets(file, ("frame.interface_name", "frame.interface_description", "frame.encap_type"))
    told = {packet["frame.interface_name"]: packet["frame.interface_description"] for packet in found}
    assert told == {
        "tcp 0.0.0.0:502": "decode with: -o mbtcp.tcp.port:502",
        "rtu-over-tcp [::]:503": "decode with: -o mbrtu.tcp.port:503",
        "rtu pty:one": "decode with: -d rtacser.data,mbrtu",
    }
    assert len({packet["frame.encap_type"] for packet in found}) == 2


def test_no_frames_make_a_good_file(tmp_path: Path, recorder: Recorder) -> None:
    assert tshark(write(tmp_path, recorder)) == ""
