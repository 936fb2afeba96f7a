import math
import struct

import pytest
from hypothesis import given
from hypothesis import strategies as st

from dertwin.registers.codec import BIT, COUNTS, Codec, codec

NUMBERS = [(kind, count) for kind, counts in COUNTS.items() if kind != "string" for count in counts]
ORDERS = [(endian, byte_order) for endian in ("big", "little") for byte_order in ("big", "little")]
number_types = st.sampled_from(NUMBERS)
codecs = st.builds(
    lambda kind, orders, sentinel: codec(*kind, *orders, sentinel),
    number_types,
    st.sampled_from(ORDERS),
    st.none() | st.integers(-(2**15), 2**16 - 1),
)


@given(codecs, st.data())
def test_every_raw_value_survives_the_way_to_the_wire_and_back(codec: Codec, data: st.DataObject) -> None:
    if codec.is_float:
        raw = data.draw(st.floats(allow_nan=False, allow_infinity=False, width=32 if codec.size == 4 else 64))
    else:
        raw = data.draw(st.integers(int(codec.low), int(codec.high)))
    wire = codec.pack(raw)
    assert len(wire) == codec.size
    assert codec.unpack(wire) == raw


@given(codecs, st.binary(min_size=8, max_size=8))
def test_any_bytes_are_a_raw_value_and_give_the_same_bytes_again(codec: Codec, data: bytes) -> None:
    raw = codec.unpack(data[: codec.size])
    if raw == raw:  # a NaN may change its unused bits
        assert codec.pack(raw) == data[: codec.size]


@pytest.mark.parametrize(
    ("endian", "byte_order", "wire"),
    [
        ("big", "big", "12345678"),
        ("little", "big", "56781234"),
        ("big", "little", "34127856"),
        ("little", "little", "78563412"),
    ],
)
def test_the_four_orders_of_a_32_bit_value(endian: str, byte_order: str, wire: str) -> None:
    assert codec("uint32", 2, endian, byte_order).pack(0x12345678).hex() == wire


@pytest.mark.parametrize(
    ("kind", "count", "raw", "wire"),
    [
        ("uint16", 1, 65535, "ffff"),
        ("int16", 1, -2, "fffe"),
        ("int32", 2, -200, "ffffff38"),
        ("uint64", 4, 2**64 - 1, "ff" * 8),
        ("int64", 4, -(2**63), "8000000000000000"),
        ("float32", 2, -1.5, "bfc00000"),
        ("float64", 4, 50.0, "4049000000000000"),
        ("enum", 1, 18, "0012"),
        ("bitfield", 2, 0x80000001, "80000001"),
        ("string", 2, b"ab\0\0", "61620000"),
    ],
)
def test_known_values_of_each_type(kind: str, count: int, raw: int, wire: str) -> None:
    assert codec(kind, count).pack(raw).hex() == wire


@given(codecs, st.floats() | st.integers(-(2**70), 2**70))
def test_whatever_the_value_it_fits_into_the_register_or_the_codec_says_so(
    codec: Codec, value: float
) -> None:
    raw, fits = codec.fit(value)
    codec.pack(raw)  # struct refuses what is out of range
    if math.isnan(value):
        # Only a float or a sentinel can say "not a number".
        assert fits == (codec.is_float or codec.sentinel is not None)
        return
    nearest = value if codec.is_float or math.isinf(value) else round(value)
    assert fits == (codec.low <= nearest <= codec.high)
    assert raw == min(max(nearest, codec.low), codec.high)


@given(number_types, st.floats(allow_nan=False))
def test_saturation_never_looks_like_not_available(kind: tuple[str, int], value: float) -> None:
    ones = codec(*kind, sentinel=(1 << 16 * kind[1]) - 1)
    raw, says_the_same = ones.fit(value)
    assert says_the_same or raw != ones.sentinel


def test_nan_becomes_the_sentinel() -> None:
    absent = codec("int16", 1, sentinel=0x8000)
    assert absent.fit(math.nan) == (-32768, True)
    assert absent.pack(absent.fit(math.nan)[0]).hex() == "8000"
    assert absent.fit(-1e9) == (-32767, False)


def test_a_sentinel_of_zero_takes_nothing_from_the_range() -> None:
    assert codec("uint32", 2, sentinel=0).fit(0.0) == (0, True)


def test_a_float_register_holds_nan_and_saturates_infinity() -> None:
    raw, fits = codec("float32", 2).fit(math.nan)
    assert math.isnan(raw)
    assert fits
    raw, fits = codec("float32", 2).fit(math.inf)
    assert codec("float32", 2).pack(raw).hex() == "7f7fffff"
    assert not fits


def test_a_counter_that_may_wrap_starts_again_and_any_other_stays_at_its_end() -> None:
    assert codec("uint16", 1, wrap=True).fit(65536.0 + 7) == (7, True)
    assert codec("uint16", 1).fit(65536.0 + 7) == (65535, False)
    assert codec("int16", 1, wrap=True).fit(32768.0) == (-32768, True)
    assert codec("uint16", 1, wrap=True).fit(math.inf) == (65535, False)


@given(st.text(max_size=20), st.integers(1, 8))
def test_text_is_ascii_cut_or_padded_to_its_registers(text: str, count: int) -> None:
    wire = codec("string", count).fit_text(text)
    assert len(wire) == 2 * count
    assert wire.isascii()
    shown = wire.rstrip(b"\0").decode()
    assert all(a in (b, "?") for a, b in zip(shown, text, strict=False))


def test_a_text_with_swapped_bytes_is_swapped_in_each_register() -> None:
    assert codec("string", 2, byte_order="little").pack(b"abcd") == b"badc"


def test_a_bit_is_zero_or_one() -> None:
    assert BIT.fit(1.0) == (1, True)
    assert BIT.fit(2.0) == (1, False)
    assert struct.unpack("?", BIT.pack(1)) == (True,)


def test_equal_codecs_are_one_object() -> None:
    assert codec("int32", 2, "little") is codec("int32", 2, "little")
