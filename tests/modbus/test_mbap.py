"""Modbus TCP framing: streams cut anywhere, glued frames, foreign protocols, lengths that cannot be."""

from itertools import pairwise

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from dertwin.modbus.mbap import Frame, UntrustedStream, frame, take_frames

frames = st.tuples(st.integers(0, 0xFFFF), st.integers(0, 0xFF), st.binary(min_size=1, max_size=253))


def all_frames(chunks: list[bytes]) -> list[Frame]:
    buffer = bytearray()
    found: list[Frame] = []
    for chunk in chunks:
        buffer += chunk
        found += take_frames(buffer)
    assert not buffer
    return found


def cut(stream: bytes, places: list[int]) -> list[bytes]:
    bounds = [0, *sorted(place % (len(stream) + 1) for place in places), len(stream)]
    return [stream[a:b] for a, b in pairwise(bounds)]


def test_a_frame_is_built_and_taken_as_in_the_specification() -> None:
    adu = bytes.fromhex("15 01 00 00 00 06 FF 03 00 04 00 01")
    assert frame(0x1501, 0xFF, bytes.fromhex("03 00 04 00 01")) == adu
    assert take_frames(bytearray(adu)) == [(0x1501, 0xFF, bytes.fromhex("03 00 04 00 01"))]


@settings(deadline=None)
@given(st.lists(frames, max_size=20), st.lists(st.integers(0, 10_000), max_size=40))
def test_a_stream_gives_the_same_frames_wherever_it_is_cut(sent: list[Frame], places: list[int]) -> None:
    stream = b"".join(frame(*each) for each in sent)
    assert all_frames(cut(stream, places)) == sent


def test_a_stream_of_single_bytes_gives_every_frame() -> None:
    sent = [(n, 1, bytes([3, 0, n, 0, 1])) for n in range(20)]
    stream = b"".join(frame(*each) for each in sent)
    assert all_frames([bytes([byte]) for byte in stream]) == sent


def test_an_incomplete_frame_stays_in_the_buffer() -> None:
    whole = frame(7, 1, b"\x03\x00\x00\x00\x01")
    buffer = bytearray(whole + whole[:-1])
    assert take_frames(buffer) == [(7, 1, b"\x03\x00\x00\x00\x01")]
    assert buffer == whole[:-1]


@pytest.mark.parametrize("pdu_length", [1, 253])
def test_the_shortest_and_the_longest_pdu_are_taken(pdu_length: int) -> None:
    pdu = bytes(pdu_length)
    assert take_frames(bytearray(frame(1, 2, pdu))) == [(1, 2, pdu)]


@settings(deadline=None)
@given(st.integers(1, 0xFFFF), frames)
def test_a_frame_of_another_protocol_is_dropped_and_the_next_one_taken(protocol_id: int, good: Frame) -> None:
    foreign = bytearray(frame(9, 9, b"\x03\x00\x00\x00\x01"))
    foreign[2:4] = protocol_id.to_bytes(2, "big")
    assert all_frames([bytes(foreign) + frame(*good)]) == [good]


@pytest.mark.parametrize("length", [0, 1, 255, 0xFFFF])
@pytest.mark.parametrize("protocol_id", [0, 1])
def test_a_length_that_no_frame_has_ends_the_trust_in_the_stream(length: int, protocol_id: int) -> None:
    header = bytes((0, 1)) + protocol_id.to_bytes(2, "big") + length.to_bytes(2, "big") + b"\x01"
    with pytest.raises(UntrustedStream, match=str(length)) as caught:
        take_frames(bytearray(header))
    assert caught.value.frames == []


@settings(deadline=None)
@given(st.lists(frames, max_size=5))
def test_good_frames_before_an_impossible_length_are_handed_over(sent: list[Frame]) -> None:
    stream = b"".join(frame(*each) for each in sent) + b"\0\1\0\0\0\0\1"
    with pytest.raises(UntrustedStream) as caught:
        take_frames(bytearray(stream))
    assert caught.value.frames == sent


@pytest.mark.parametrize(
    "other_protocol",
    [
        b"GET / HTTP/1.1\r\nHost: x\r\n\r\n",
        bytes.fromhex("16 03 01 02 00 01 00 01 FC 03 03"),
        b"SSH-2.0-x\r\n",
    ],
)
def test_the_opening_of_another_protocol_is_not_waited_on(other_protocol: bytes) -> None:
    with pytest.raises(UntrustedStream):
        take_frames(bytearray(other_protocol))


@settings(deadline=None)
@given(st.binary(max_size=2000))
def test_any_bytes_leave_less_than_one_frame_behind(noise: bytes) -> None:
    buffer = bytearray(noise)
    try:
        found = take_frames(buffer)
    except UntrustedStream:
        return
    assert len(buffer) < 6 + 254
    assert all(1 <= len(pdu) <= 253 for _, _, pdu in found)
