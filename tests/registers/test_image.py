import math
import struct
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from sample_map import command, entry, image, maps

from dertwin.devices.classic import CLASSIC
from dertwin.devices.device import CommandRange
from dertwin.registers.image import RegisterImage, UnmappedAddress
from dertwin.registers.layout import bind
from dertwin.registers.map import RegisterMap

INPUT, HOLDING = 4, 3


def words(*values: int) -> bytes:
    return struct.pack(f">{len(values)}H", *values)


def test_a_measurement_is_served_scaled_and_rounded() -> None:
    served = image(entry(kind="int32", scale=0.1))
    served.publish((-12.36,))
    assert served.read_registers(INPUT, 0, 2) == struct.pack(">i", -124)


def test_only_the_last_published_measurements_count() -> None:
    served = image(entry())
    served.publish((1.0,))
    served.publish((2.0,))
    assert served.read_registers(INPUT, 0, 1) == words(2)
    served.publish((3.0,))
    assert served.read_registers(INPUT, 0, 1) == words(3)


@pytest.mark.parametrize(
    ("name", "scale", "value", "raw"),
    [
        ("total_active_power", 0.1, 16400.0, 164),  # read as 16.4 for 16.4 kW, whatever the unit says
        ("active_power_w", 0.1, 16400.0, 164000),
        ("active_power_rate", 1, 2.55, 255),
    ],
)
def test_classic_names_are_kilowatts_and_percent_and_si_names_are_si(
    name: str, scale: float, value: float, raw: int
) -> None:
    served = image(
        entry(name, 0, "uint32", scale=scale, unit="W"),
        fields=("active_power_w", "active_power_limit"),
        classic=CLASSIC["inverter"],
    )
    served.publish((value, value))
    assert served.read_registers(INPUT, 0, 2) == struct.pack(">I", raw)


def test_a_classic_name_wins_over_an_si_name_of_the_same_spelling() -> None:
    served = image(entry("throttle_position"), fields=("throttle_position",), classic=CLASSIC["chp"])
    served.publish((0.42,))
    assert served.read_registers(INPUT, 0, 1) == words(42)


def test_word_and_byte_orders_mix_in_one_read() -> None:
    orders = [(endian, byte_order) for endian in ("big", "little") for byte_order in ("big", "little")]
    served = image(
        *(
            entry(f"e{i}", 2 * i, "uint32", internal_name="power", endian=endian, byte_order=byte_order)
            for i, (endian, byte_order) in enumerate(orders)
        )
    )
    served.publish((0x12345678,))
    assert served.read_registers(INPUT, 0, 8).hex() == "12345678341278565678123478563412"


def test_a_read_may_begin_and_end_inside_a_value() -> None:
    served = image(entry(kind="uint32"), entry("more", 2, "uint32", internal_name="power"))
    served.publish((0x12345678,))
    assert served.read_registers(INPUT, 1, 2).hex() == "56781234"


def test_floats_texts_and_bits_stand_beside_integers() -> None:
    served = image(
        entry("text", 0, "string", count=2),
        entry("power", 2, "float32"),
        entry("flags", 4, "bitfield", internal_name=None, bits={0: "on", 2: "off", 15: "on"}),
        entry("on", 5, "enum"),
        fields=("power", "text", "on", "off"),
    )
    served.publish((-1.5, "abc", 1, 0))
    assert served.read_registers(INPUT, 0, 6) == b"abc\0" + struct.pack(">fHH", -1.5, 0x8001, 1)


def test_identification_can_be_read_as_text_registers() -> None:
    served = image(
        entry(),
        entry("product_code", 10, "string", count=4),
        identification={"product_code": "X1"},
    )
    served.publish((1.0,))
    assert served.read_registers(INPUT, 10, 4) == b"X1".ljust(8, b"\0")


def test_what_does_not_fit_saturates_and_is_counted_once_for_each_encoding() -> None:
    served = image(entry("a", 0, internal_name="power"), entry("b", 1, "int16", internal_name="power"))
    served.publish((40000.0,))
    for _ in range(3):
        assert served.read_registers(INPUT, 0, 2) == words(40000, 32767)
    assert (served.saturated, served.saturated_by) == (1, {"b": 1})
    served.publish((-1.0,))
    assert served.read_registers(INPUT, 0, 2) == words(0, 0xFFFF)
    assert (served.saturated, served.saturated_by) == (2, {"b": 1, "a": 1})
    served.publish((-40000.0,))
    assert served.read_registers(INPUT, 0, 2) == words(0, 0x8000)
    assert (served.saturated, served.saturated_by) == (4, {"b": 2, "a": 2})


@pytest.mark.parametrize(
    ("keys", "value", "wire", "saturated"),
    [
        ({}, math.nan, "0000", 1),
        ({"sentinel": 0xFFFF}, math.nan, "ffff", 0),
        ({"sentinel": 0xFFFF}, 65535.0, "fffe", 1),
        ({"type": "int16", "sentinel": 0x8000}, math.nan, "8000", 0),
        ({"type": "float32", "count": 2}, math.nan, "7fc00000", 0),
        ({"type": "float32", "count": 2}, -math.inf, "ff7fffff", 1),
        ({}, math.inf, "ffff", 1),
        ({"wrap": True}, 65536.0 * 3 + 5, "0005", 0),
    ],
)
def test_nan_infinity_and_wrapping(keys: dict[str, Any], value: float, wire: str, saturated: int) -> None:
    served = image(entry(**keys))
    served.publish((value,))
    assert served.read_registers(INPUT, 0, keys.get("count", 1)).hex() == wire
    assert served.saturated == saturated


@pytest.mark.parametrize(("address", "count"), [(0, 4), (2, 1), (5, 1), (65535, 1), (3, 65535), (4, 2)])
def test_reading_an_unmapped_address_is_refused(address: int, count: int) -> None:
    served = image(entry(kind="uint32"), entry("other", 3, "uint32", internal_name="power"))
    with pytest.raises(UnmappedAddress):
        served.read_registers(INPUT, address, count)


def test_gaps_read_zero_between_the_lowest_and_the_highest_register_of_the_table_if_the_map_says_so() -> None:
    served = image(entry("a", 10), entry("b", 13), command("c", 20), fields=("a", "b"), gaps="zero")
    served.publish((1, 2))
    assert served.read_registers(INPUT, 10, 4) == words(1, 0, 0, 2)
    assert served.read_registers(INPUT, 11, 2) == words(0, 0)
    assert served.read_registers(HOLDING, 12, 9) == words(0, 2, 0, 0, 0, 0, 0, 0, 0)
    for address, count in ((9, 2), (13, 2), (20, 1)):
        with pytest.raises(UnmappedAddress):
            served.read_registers(INPUT, address, count)
    with pytest.raises(UnmappedAddress):
        served.write_registers(19, words(0, 1))
    assert served.drain() == []


def test_bits_are_packed_with_the_first_in_the_lowest_place() -> None:
    names = [f"b{i}" for i in range(10)]
    served = image(*(entry(name, 5 + i, func=0x02) for i, name in enumerate(names)), fields=names)
    served.publish((1, 0, 1, 1, 0, 0, 0, 0, 0, 1))
    assert served.read_bits(2, 5, 10) == bytes([0b00001101, 0b10])
    assert served.read_bits(1, 8, 1) == b"\1"
    with pytest.raises(UnmappedAddress):
        served.read_bits(2, 5, 11)
    with pytest.raises(UnmappedAddress):
        served.read_registers(INPUT, 5, 1)


def test_tables_that_collide_show_different_values_at_one_address() -> None:
    served = image(entry("power", 0), command("remote_on_off", 0))
    served.publish((5.0,))
    served.write_registers(0, words(1))
    assert served.read_registers(INPUT, 0, 1) == words(5)
    assert served.read_registers(HOLDING, 0, 1) == words(1)


def test_images_of_one_layout_do_not_share_values() -> None:
    register_map = RegisterMap.model_validate({"registers": [entry(), command("setpoint", 1)]})
    layout = bind(register_map, ("power",), {"setpoint": CommandRange(0.0, 100.0)}, {})
    one, other = RegisterImage(layout), RegisterImage(layout)
    one.publish((5.0,))
    one.write_registers(1, words(7))
    assert one.read_registers(HOLDING, 0, 2) == words(5, 7)
    assert other.read_registers(HOLDING, 0, 2) == words(0, 0)
    assert other.drain() == []


@given(maps(), st.lists(st.floats(), min_size=8, max_size=8))
def test_every_mapped_address_can_be_read_and_no_other_whatever_the_map_and_the_values(
    a_map: tuple[list[dict[str, Any]], bool], values: list[float]
) -> None:
    entries, zero = a_map
    fields = [e["internal_name"] for e in entries if e["direction"] == "read"]
    served = image(*entries, fields=fields, gaps="zero" if zero else "error")
    served.publish(values)
    for function, kinds in ((HOLDING, ("read", "write")), (INPUT, ("read",))):
        here = [e for e in entries if e["direction"] in kinds]
        mapped = {a for e in here for a in range(e["address"], e["address"] + e["count"])}
        readable = set(range(min(mapped), max(mapped) + 1)) if zero and mapped else mapped
        for address in range(entries[0]["address"], min(65536, entries[-1]["address"] + 6)):
            if address in readable:
                assert len(served.read_registers(function, address, 1)) == 2
                assert address in mapped or served.read_registers(function, address, 1) == b"\0\0"
            else:
                with pytest.raises(UnmappedAddress):
                    served.read_registers(function, address, 1)
        for e in here:
            assert len(served.read_registers(function, e["address"], e["count"])) == 2 * e["count"]
