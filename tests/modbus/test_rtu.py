"""The RTU decoder in memory: bytes and times in, frames out."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from dertwin.modbus.rtu import (
    HUNT_SILENCE_S,
    PARTIAL_HOLD_S,
    Kind,
    LineCounters,
    RtuDecoder,
    RtuFrame,
    crc16,
    frame,
    silent_interval_s,
)

OWN, OTHER_OWN, FOREIGN = 1, 2, 9


def request(unit_id: int, count: int = 10) -> bytes:
    return frame(unit_id, b"\x03\x00\x00" + count.to_bytes(2, "big"))


def reply(unit_id: int, payload: bytes) -> bytes:
    return frame(unit_id, bytes((3, len(payload))) + payload)


@pytest.fixture
def decoder() -> RtuDecoder:
    return RtuDecoder({OWN, OTHER_OWN}, LineCounters(), silent_interval_s(9600, 10))


def requests_to_us(frames: list[RtuFrame]) -> list[int]:
    return [f.unit_id for f in frames if f.kind is Kind.OWN]


def test_the_crc_of_the_serial_line_specification_is_reproduced() -> None:
    # MODBUS over Serial Line V1.02, 6.2.2: the frame 02 07 has the CRC 0x1241, sent 41 12.
    assert frame(2, b"\x07") == bytes.fromhex("02 07 41 12")


def test_crc_over_a_frame_with_its_crc_is_zero() -> None:
    assert crc16(request(17)) == 0


@pytest.mark.parametrize(
    ("baudrate", "bits", "milliseconds"),
    [(9600, 11, 4.01), (19200, 11, 2.005), (38400, 11, 1.75), (115200, 10, 1.75)],
)
def test_silence_between_frames_follows_the_baud_rate(baudrate: int, bits: int, milliseconds: float) -> None:
    assert silent_interval_s(baudrate, bits) * 1000 == pytest.approx(milliseconds, abs=0.01)


def test_a_request_to_us_is_complete_with_its_last_byte(decoder: RtuDecoder) -> None:
    whole = request(OWN)
    assert decoder.receive(whole[:-1], 0.0) == []
    assert decoder.receive(whole[-1:], 0.001) == [RtuFrame(Kind.OWN, OWN, b"\x03\x00\x00\x00\x0a")]
    assert decoder.deadline is None


@pytest.mark.parametrize("registers", range(1, 126))
def test_a_foreign_reply_hides_a_request_to_us_in_its_payload(decoder: RtuDecoder, registers: int) -> None:
    payload = (request(OWN) * 32)[: 2 * registers]
    frames = decoder.receive(request(FOREIGN, registers) + reply(FOREIGN, payload) + request(OTHER_OWN), 0.0)
    assert [f.kind for f in frames] == [Kind.FOREIGN, Kind.FOREIGN, Kind.OWN]
    assert requests_to_us(frames) == [OTHER_OWN]


def test_an_adapter_that_pauses_inside_a_foreign_reply_does_not_expose_its_payload(
    decoder: RtuDecoder,
) -> None:
    """8-byte chunks, one of which is a whole valid request to us, with 16 ms between them."""
    decoder.receive(request(FOREIGN, 12), 0.0)
    whole = reply(FOREIGN, b"\0" * 5 + request(OWN) + b"\0" * 11)
    now, seen = 0.005, []
    for start in range(0, len(whole), 8):
        seen += decoder.receive(whole[start : start + 8], now)
        assert decoder.deadline is None or decoder.deadline > now + 0.016
        now += 0.016
    assert [f.kind for f in seen] == [Kind.FOREIGN]


def test_a_foreign_single_register_reply_is_shorter_than_any_request(decoder: RtuDecoder) -> None:
    frames = decoder.receive(request(FOREIGN, 1) + reply(FOREIGN, b"\x01\x02") + request(OWN), 0.0)
    assert requests_to_us(frames) == [OWN]


@pytest.mark.parametrize(
    "pdus",
    [
        (b"\x05\x00\x01\xff\x00", b"\x05\x00\x01\xff\x00"),
        (b"\x06\x00\x01\x00\x03", b"\x06\x00\x01\x00\x03"),
        (b"\x0f\x00\x01\x00\x0a\x02\xcd\x01", b"\x0f\x00\x01\x00\x0a"),
        (b"\x10\x00\x01\x00\x02\x04\x00\x0a\x01\x02", b"\x10\x00\x01\x00\x02"),
        (b"\x16\x00\x04\x00\xf2\x00\x25", b"\x16\x00\x04\x00\xf2\x00\x25"),
        (b"\x17\x00\x03\x00\x01\x00\x0e\x00\x01\x02\x00\xff", b"\x17\x02\x00\xfe"),
        (b"\x01\x00\x13\x00\x13", b"\x01\x03\xcd\x6b\x05"),
        (b"\x03\x00\x00\x00\x01", b"\x83\x02"),
        (b"\x07", b"\x07\x6d"),
        (b"\x11", b"\x11\x03\x05\xff\x01"),
    ],
)
def test_foreign_exchanges_of_all_functions_leave_us_in_step(
    decoder: RtuDecoder, pdus: tuple[bytes, bytes]
) -> None:
    frames = decoder.receive(b"".join(frame(FOREIGN, pdu) for pdu in pdus) + request(OWN), 0.0)
    assert [f.kind for f in frames] == [Kind.FOREIGN, Kind.FOREIGN, Kind.OWN]


def test_a_request_after_garbage_is_found_once_the_line_is_silent(decoder: RtuDecoder) -> None:
    assert decoder.receive(b"\x55\xaa\x10\xff" + request(OWN), 1.0) == []
    assert decoder.deadline == pytest.approx(1.0 + HUNT_SILENCE_S)
    assert requests_to_us(decoder.silence()) == [OWN]
    assert decoder.counters.garbage_bytes == 4
    assert decoder.deadline is None


def test_a_request_inside_garbage_that_goes_on_after_it_is_not_taken(decoder: RtuDecoder) -> None:
    decoder.receive(b"\x55\xaa\x10\xff" + request(OWN) + b"\x00\x01", 1.0)
    assert decoder.silence() == []


def test_an_incomplete_request_is_waited_for_then_given_up(decoder: RtuDecoder) -> None:
    decoder.receive(request(OWN)[:5], 1.0)
    assert decoder.deadline == pytest.approx(1.0 + PARTIAL_HOLD_S)
    assert decoder.silence() == []
    assert requests_to_us(decoder.receive(request(OWN), 2.0)) == [OWN]


def test_a_wrong_crc_is_counted_and_the_next_request_answered(decoder: RtuDecoder) -> None:
    damaged = request(OWN)[:-1] + b"\x00"
    assert decoder.receive(damaged, 0.0) == []
    assert decoder.silence() == []
    assert decoder.counters.crc_errors == 1
    assert requests_to_us(decoder.receive(request(OWN), 1.0)) == [OWN]


def test_a_function_of_unknown_length_ends_at_the_silence(decoder: RtuDecoder) -> None:
    decoder.receive(frame(OWN, b"\x41\x01\x02\x03"), 0.0)
    assert decoder.silence() == [RtuFrame(Kind.OWN, OWN, b"\x41\x01\x02\x03")]


def test_the_echo_of_our_own_read_reply_is_no_request(decoder: RtuDecoder) -> None:
    decoder.last_reply = reply(OWN, bytes(20))
    decoder.receive(decoder.last_reply, 0.0)
    assert decoder.silence() == []


@pytest.mark.parametrize(
    "pdu",
    [
        "10 0000 0001 04 0001",
        "10 0000 0001 02 0001 0002",
        "03 0000 0001 00",
        "06 0000 01",
        "0f 0000 0008 02 ff",
    ],
)
def test_a_valid_frame_to_us_of_a_wrong_length_is_a_request(decoder: RtuDecoder, pdu: str) -> None:
    """So that it gets its exception 03, as on TCP."""
    content = bytes.fromhex(pdu)
    decoder.receive(frame(OWN, content), 0.0)
    assert decoder.silence() == [RtuFrame(Kind.OWN, OWN, content)]


def test_a_broadcast_is_told_apart(decoder: RtuDecoder) -> None:
    frames = decoder.receive(frame(0, b"\x06\x00\x01\x00\x03"), 0.0)
    assert [f.kind for f in frames] == [Kind.BROADCAST]


@pytest.mark.parametrize("noise", [b"\x00", b"\x55\xaa", bytes(30)])
def test_a_broadcast_after_noise_still_acts(decoder: RtuDecoder, noise: bytes) -> None:
    assert decoder.receive(noise + frame(0, b"\x06\x00\x01\x00\x03"), 0.0) == []
    assert decoder.silence() == [RtuFrame(Kind.BROADCAST, 0, b"\x06\x00\x01\x00\x03")]


def test_a_line_that_never_falls_silent_is_followed_again_after_a_damaged_frame(decoder: RtuDecoder) -> None:
    decoder.receive(b"\x09\x03\x00\x00\x00\x0a\xff\xff", 0.0)
    exchange = (request(FOREIGN), reply(FOREIGN, bytes(20)))
    frames = []
    for index in range(20):
        frames += decoder.receive(exchange[index % 2], 0.008 * (index + 1))
    assert [f.kind for f in frames] == [Kind.FOREIGN] * 20
    assert requests_to_us(decoder.receive(request(OWN), 0.2)) == [OWN]
    assert decoder.counters.garbage_bytes == 8


def test_endless_garbage_does_not_grow_the_buffer(decoder: RtuDecoder) -> None:
    for step in range(1000):
        decoder.receive(b"\xff" * 100, step * 0.001)
    decoder.receive(request(OWN), 1.001)
    assert requests_to_us(decoder.silence()) == [OWN]
    assert decoder.counters.garbage_bytes == 100_000


@given(st.lists(st.binary(max_size=300), max_size=8))
def test_no_bytes_crash_the_decoder_or_leave_it_deaf(chunks: list[bytes]) -> None:
    decoder = RtuDecoder({OWN}, LineCounters())
    for chunk in chunks:
        decoder.receive(chunk, 0.0)
    decoder.silence()
    assert requests_to_us(decoder.receive(request(OWN), 1.0)) == [OWN]


@given(st.binary(min_size=1, max_size=40), st.data())
def test_a_request_split_anywhere_is_the_same_request(payload: bytes, data: st.DataObject) -> None:
    whole = frame(OWN, b"\x10\x00\x00\x00\x01" + bytes((len(payload),)) + payload)
    cut = data.draw(st.integers(0, len(whole)))
    decoder = RtuDecoder({OWN}, LineCounters())
    frames = decoder.receive(whole[:cut], 0.0) + decoder.receive(whole[cut:], 0.01)
    assert frames == [RtuFrame(Kind.OWN, OWN, whole[1:-2])]
