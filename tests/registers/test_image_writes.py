import math
import struct
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from sample_map import command, entry, image, maps

from dertwin.devices.classic import CLASSIC
from dertwin.devices.device import CommandRange
from dertwin.registers.image import RegisterImage, UnmappedAddress, ValueRefused

INPUT, HOLDING = 4, 3


def words(*values: int) -> bytes:
    return struct.pack(f">{len(values)}H", *values)


def test_a_write_reads_back_at_once_and_is_drained_once_in_si() -> None:
    served = image(
        command("active_power_setpoint", 10, "int32", scale=0.1),
        fields=(),
        ranges={"active_power_setpoint_w": CommandRange(-50e3, 50e3)},
        classic=CLASSIC["bess"],
    )
    served.write_registers(10, struct.pack(">i", -200))
    assert served.read_registers(HOLDING, 10, 2) == struct.pack(">i", -200)
    assert served.read_holding_word(11) == 0x10000 - 200
    assert served.drain() == [("active_power_setpoint_w", -20000.0)]
    assert served.drain() == []


def test_every_write_is_an_event_also_one_that_repeats_the_value() -> None:
    served = image(command("heartbeat", 0))
    for word in (7, 7, 8):
        served.write_registers(0, words(word))
    assert served.drain() == [("heartbeat", 7.0), ("heartbeat", 7.0), ("heartbeat", 8.0)]


def test_a_command_that_is_no_measurement_keeps_its_last_accepted_words() -> None:
    served = image(entry(), command("fault_reset", 5))
    served.publish((1.0,))
    assert served.read_registers(HOLDING, 5, 1) == words(0)
    served.write_registers(5, words(1))
    for power in (2.0, 3.0):
        served.publish((power,))
        assert served.read_registers(HOLDING, 0, 1) == words(int(power))
        assert served.read_registers(HOLDING, 5, 1) == words(1)


def test_a_command_that_is_also_a_measurement_shows_after_a_publish_what_the_device_made_of_it() -> None:
    served = image(command("power", 5))
    served.publish((30.0,))
    served.write_registers(5, words(80))
    assert served.read_registers(HOLDING, 5, 1) == words(80)
    served.publish((50.0,))
    assert served.read_registers(HOLDING, 5, 1) == words(50)


def test_a_readback_entry_in_the_same_register_shows_its_own_measurement() -> None:
    served = image(entry("accepted", 5, func=0x03), command("setpoint", 5), fields=("accepted", "setpoint"))
    served.write_registers(5, words(80))
    assert served.read_registers(INPUT, 5, 1) == words(80)
    served.publish((50.0, 70.0))
    assert served.read_registers(HOLDING, 5, 1) == words(50)


def test_measurements_published_before_a_write_do_not_cover_it_when_they_are_encoded_late() -> None:
    served = image(command("power", 5), entry("power", 0))
    served.publish((30.0,))
    served.write_registers(5, words(80))  # nobody has read since the publish
    assert served.read_registers(HOLDING, 5, 1) == words(80)
    assert served.read_registers(INPUT, 0, 1) == words(30)


def test_a_value_outside_its_range_is_clamped_and_reads_back_clamped() -> None:
    served = image(command(kind="int16", scale=0.1), ranges={"setpoint": CommandRange(-5.0, 100.0)})
    served.write_registers(100, words(5000))
    assert served.read_registers(HOLDING, 100, 1) == words(1000)
    served.write_registers(100, words(0x10000 - 5000))
    assert served.read_registers(HOLDING, 100, 1) == words(0x10000 - 50)
    assert served.drain() == [("setpoint", 100.0), ("setpoint", -5.0)]


def test_a_value_that_is_none_of_the_allowed_ones_is_refused() -> None:
    served = image(command(), ranges={"setpoint": CommandRange(1.0, 3.0, frozenset((1.0, 2.0, 3.0)))})
    served.write_registers(100, words(3))
    for word in (0, 4, 65535):
        with pytest.raises(ValueRefused):
            served.write_registers(100, words(word))
    assert served.read_registers(HOLDING, 100, 1) == words(3)
    assert served.drain() == [("setpoint", 3.0)]


def test_a_value_in_the_gap_around_zero_is_refused_with_all_that_is_written_with_it() -> None:
    gap = CommandRange(-1.0, 1.0, least_size=0.1)
    served = image(
        command(kind="int16", scale=0.01), command("other", 101), ranges={"setpoint": gap, "other": gap}
    )
    for word in (0, 9, 0x10000 - 9):
        with pytest.raises(ValueRefused):
            served.write_registers(100, words(word, 1))
    served.write_registers(100, words(0x10000 - 10))
    assert served.drain() == [("setpoint", -0.1)]


def test_what_is_no_number_is_refused_and_infinity_clamped_where_there_is_a_limit() -> None:
    served = image(command(kind="float32"), ranges={"setpoint": CommandRange(-math.inf, 100.0)})
    for value in (math.nan, -math.inf):
        with pytest.raises(ValueRefused):
            served.write_registers(100, struct.pack(">f", value))
    served.write_registers(100, struct.pack(">f", math.inf))
    assert served.drain() == [("setpoint", 100.0)]
    assert served.read_registers(HOLDING, 100, 2) == struct.pack(">f", 100.0)


def test_writing_the_not_available_value_is_refused() -> None:
    served = image(command(kind="int32", sentinel=0x80000000))
    with pytest.raises(ValueRefused):
        served.write_registers(100, words(0x8000, 0))
    assert served.drain() == []


def two_commands(**keys: Any) -> RegisterImage:
    return image(
        command("first", 10, "uint32"),
        command("second", 12),
        entry("power", 14),
        ranges={"first": CommandRange(0.0, 1e9), "second": CommandRange(0.0, 1.0, frozenset((0.0, 1.0)))},
        **keys,
    )


def test_a_write_of_several_commands_takes_all_in_order() -> None:
    served = two_commands()
    served.write_registers(10, words(1, 2, 1))
    assert served.drain() == [("first", 65538.0), ("second", 1.0)]


@pytest.mark.parametrize(
    ("address", "data", "refusal"),
    [
        (10, words(1, 2, 5), ValueRefused),
        (10, words(1, 2, 1, 7), UnmappedAddress),
        (10, words(1, 2, 5, 7), UnmappedAddress),  # the address counts first
        (9, words(0, 1, 2), UnmappedAddress),
        (12, words(1, 2, 3), UnmappedAddress),
        (14, words(3), UnmappedAddress),
        (10, words(1), UnmappedAddress),
        (11, words(1), UnmappedAddress),
        (11, words(1, 1), UnmappedAddress),
    ],
)
def test_a_write_that_is_refused_anywhere_changes_nothing(
    address: int, data: bytes, refusal: type[Exception]
) -> None:
    served = two_commands()
    with pytest.raises(refusal):
        served.write_registers(address, data)
    assert served.drain() == []
    assert served.read_registers(HOLDING, 10, 3) == bytes(6)


@pytest.mark.parametrize("order", [(10, 11), (11, 10)])
def test_half_a_value_is_held_until_the_other_half_arrives_if_the_map_says_so(order: tuple[int, int]) -> None:
    served = two_commands(partial_writes="hold")
    halves = {10: words(1), 11: words(2)}
    served.write_registers(order[0], halves[order[0]])
    assert served.drain() == []
    assert served.read_registers(HOLDING, 10, 2) == words(0, 0)
    served.write_registers(order[1], halves[order[1]])
    assert served.drain() == [("first", 65538.0)]
    assert served.read_registers(HOLDING, 10, 2) == words(1, 2)
    served.write_registers(order[0], halves[order[0]])
    assert served.drain() == []


def test_a_held_half_is_replaced_by_a_later_one_and_dropped_by_a_whole_value() -> None:
    served = two_commands(partial_writes="hold")
    served.write_registers(10, words(9))
    served.write_registers(10, words(8))
    served.write_registers(11, words(1, 1))
    assert served.drain() == [("first", 8 * 65536 + 1.0), ("second", 1.0)]
    served.write_registers(10, words(9))
    served.write_registers(10, words(0, 5))
    served.write_registers(11, words(6))
    assert served.drain() == [("first", 5.0)]


def test_a_refused_write_holds_nothing() -> None:
    served = two_commands(partial_writes="hold")
    with pytest.raises(ValueRefused):
        served.write_registers(11, words(7, 9))
    served.write_registers(10, words(1))
    assert served.drain() == []


def test_a_write_only_command_is_written_and_not_read() -> None:
    served = image(entry(), command("reset", 1, access="wo"), command("setpoint", 2))
    served.write_registers(1, words(1, 5))
    assert served.drain() == [("reset", 1.0), ("setpoint", 5.0)]
    assert served.read_registers(HOLDING, 2, 1) == words(5)
    for address, count in ((1, 1), (0, 3), (1, 2)):
        with pytest.raises(UnmappedAddress):
            served.read_registers(HOLDING, address, count)


def test_a_coil_takes_a_command_and_reads_back() -> None:
    served = image(command("start", 7, func=0x05), entry("power", 8, func=0x02))
    served.write_bits(7, [True])
    assert served.drain() == [("start", 1.0)]
    assert served.read_bits(1, 7, 1) == b"\1"
    with pytest.raises(UnmappedAddress):
        served.write_bits(7, [False, True])
    assert served.drain() == []


def test_a_device_may_be_a_single_coil() -> None:
    served = image(command("power", 7, func=0x05))
    for power in (1, 0):
        served.publish((power,))
        assert served.read_bits(1, 7, 1) == bytes((power,))


@given(maps(), st.integers(0, 65535), st.binary(min_size=2, max_size=20))
def test_a_write_anywhere_is_taken_as_a_whole_or_changes_nothing(
    a_map: tuple[list[dict[str, Any]], bool], offset: int, data: bytes
) -> None:
    entries, _ = a_map
    first, data = entries[0]["address"], data[: len(data) // 2 * 2]
    served = image(*entries, fields=[e["internal_name"] for e in entries if e["direction"] == "read"])
    address = min(65535, first + offset % 12)
    span = range(address, address + len(data) // 2)
    commands = [e for e in entries if e["direction"] == "write"]
    whole = [range(e["address"], e["address"] + e["count"]) for e in commands]
    covered = [r for r in whole if r.start in span and r.stop - 1 in span]
    try:
        served.write_registers(address, data)
    except (UnmappedAddress, ValueRefused):
        assert all(served.read_registers(HOLDING, r.start, len(r)) == bytes(2 * len(r)) for r in whole)
        assert served.drain() == []
    else:
        assert sum(map(len, covered)) == len(span)
        assert served.read_registers(HOLDING, address, len(span)) == data
        assert len(served.drain()) == len(covered)
