import json
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from sample_map import command, entry

from dertwin.registers.map import MapErrors, RegisterMap, load_map
from dertwin.registers.register import COIL, DISCRETE_INPUT, HOLDING, INPUT
from dertwin.registers.table import Row, table

EXISTING_MAP = """
protocol: modbus_tcp
device_type: bess
description: "A map as users have them"

registers:
  - name: system_soc
    internal_name: system_soc
    address: 32002
    func: 0x04
    direction: read
    type: uint16
    count: 1
    scale: 0.1
    unit: "%"

  - name: on_grid_power
    internal_name: on_grid_power
    address: 10126
    func: 0x03
    direction: read
    type: int32
    count: 2
    scale: 0.1
    endian: little
    unit: kW

  - name: on_grid_power_setpoint
    internal_name: active_power_setpoint
    address: 10126
    func: 0x10
    direction: write
    type: int32
    count: 2
    scale: 0.1
    endian: little
    unit: ""
    description: |
      Positive = discharge,
      negative = charge

  - name: engine_running
    internal_name: engine_running
    address: 10034
    func: 0x02
    direction: read
    type: uint16
    count: 1

  - name: remote_on_off
    internal_name: remote_on_off
    address: 65535
    func: 0x06
    direction: write
    type: uint16
    count: 1
    options:
      0: Off
      1: On
"""


def load(path: Path, text: str) -> RegisterMap:
    file = path / "map.yaml"
    file.write_text(text, encoding="utf-8")
    return load_map(file)


def faults(path: Path, *entries: Any, **keys: Any) -> list[str]:
    """Return the faults of a map of these entries, without the file's name."""
    with pytest.raises(MapErrors) as refusal:
        load(path, json.dumps({"registers": list(entries), **keys}))
    assert all(error.file == str(path / "map.yaml") for error in refusal.value.errors)
    return [f"{error.place}: {error.message}" for error in refusal.value.errors]


def test_an_existing_map_loads_unchanged(tmp_path: Path) -> None:
    register_map = load(tmp_path, EXISTING_MAP)
    soc, power, setpoint, running, switch = register_map.registers
    assert (soc.address, soc.scale, soc.unit, soc.func) == (32002, 0.1, "%", 4)
    assert power.codec.pack(-2).hex() == "fffeffff"
    assert setpoint.description == "Positive = discharge,\nnegative = charge\n"
    assert (running.scale, running.codec.size) == (1.0, 1)
    assert switch.options == {0: "Off", 1: "On"}
    assert register_map.gaps == "error"


@pytest.mark.parametrize(
    ("changes", "place", "message"),
    [
        ({"address": -1}, "address", "-1 is not allowed; use an integer from 0 to 65535"),
        ({"address": 70000}, "address", "70000 is not allowed; use an integer from 0 to 65535"),
        ({"address": "0x10"}, "address", '"0x10" is not allowed; use an integer'),
        ({"address": True}, "address", "true is not allowed; use an integer"),
        ({"address": 65535, "type": "uint32", "count": 2}, "count", "use at most 1 at address 65535"),
        ({"type": "uint32"}, "count", "1 is not allowed; use 2 for uint32"),
        ({"type": "bitfield", "count": 3}, "count", "3 is not allowed; use 1 or 2 or 4 for bitfield"),
        ({"type": "string", "count": 0}, "count", "0 is not allowed; use 1 to 125 for string"),
        ({"type": "int17"}, "type", "the closest is int16"),
        ({"scale": 0}, "scale", "use a number other than 0"),
        ({"scale": "big"}, "scale", '"big" is not allowed; use a number'),
        ({"func": 0x63}, "func", "0x63 is not allowed; use one of 0x01, 0x02, 0x03, 0x04, 0x05"),
        ({"func": "0x04"}, "func", '"0x04" is not allowed; use an integer'),
        ({"func": 0x06}, "direction", '"read" is not allowed; use write with func 0x06'),
        ({"direction": "write"}, "direction", '"write" is not allowed; use read with func 0x04'),
        ({"direction": "readwrite"}, "direction", "use one of read, write"),
        ({"access": "wo"}, "access", '"wo" is not allowed; use ro with direction read'),
        ({"endian": "middle"}, "endian", "use one of big, little"),
        ({"func": 0x02, "type": "int16"}, "type", "use uint16 for a coil or discrete input"),
        ({"func": 0x10, "direction": "write", "type": "string"}, "type", "commands have no other values"),
        ({"sentinel": 0x10000}, "sentinel", "65536 is not allowed; use an integer of 16 bits"),
        ({"type": "string", "sentinel": 0}, "sentinel", "use none with a string"),
        ({"type": "float32", "count": 2, "wrap": True}, "wrap", "a float32 does not wrap"),
        ({"bits": {"0": "a"}}, "bits", "use "),
        ({"internal_name": None}, "internal_name", "is missing"),
        ({"scal": 1}, "scal", "unknown key; the closest is scale"),
    ],
)
def test_a_fault_is_shown_with_its_place_its_value_and_what_is_allowed(
    tmp_path: Path, changes: dict[str, Any], place: str, message: str
) -> None:
    (fault,) = faults(tmp_path, entry(address=1, name="good"), {**entry(), **changes})
    where, _, what = fault.partition(": ")
    assert where.startswith(f"registers[1].{place}")
    assert message in what


@pytest.mark.parametrize("key", ["name", "address", "type", "count", "func", "direction", "internal_name"])
def test_a_missing_key_is_named(tmp_path: Path, key: str) -> None:
    (fault,) = faults(tmp_path, {k: v for k, v in entry().items() if k != key})
    assert fault.startswith(f"registers[0].{key}: is missing")


def test_all_faults_are_shown_at_once(tmp_path: Path) -> None:
    shown = faults(
        tmp_path,
        entry(address=1, type="uint32"),
        entry(address=-1),
        entry("a", 5, "int32"),
        entry("b", 6),
        gaps="none",
        vendor="me",
    )
    assert [line.partition(":")[0] for line in sorted(shown)] == [
        "gaps",
        "registers[0].count",
        "registers[1].address",
        "registers[3].address",
        "vendor",
    ]


def test_two_registers_at_one_address_are_both_named(tmp_path: Path) -> None:
    (fault,) = faults(tmp_path, entry("volts", 10, "int32"), entry("amps", 11))
    assert fault == (
        "registers[1].address: 11 is not allowed for 'amps'; use one that is free: "
        "'volts' (registers[0]) has 10 to 11"
    )


def test_registers_that_only_touch_do_not_overlap(tmp_path: Path) -> None:
    both = [entry("a", 10, "int32"), entry("b", 12), entry("b", 11, func=0x03)]
    assert len(load(tmp_path, json.dumps({"registers": both})).registers) == 3


def test_a_setpoint_and_its_readback_share_a_register_only_if_it_is_of_one_type(tmp_path: Path) -> None:
    shared = [entry("shown", 10, "int32", func=0x03), command("set", 10, "int32")]
    assert len(load(tmp_path, json.dumps({"registers": shared})).registers) == 2
    (fault,) = faults(tmp_path, shared[0], command("set", 10, "uint32"))
    assert "registers[1].address" in fault
    assert "the same type" in fault


def test_two_commands_cannot_share_a_register(tmp_path: Path) -> None:
    (fault,) = faults(tmp_path, command("one", 10), command("two", 10))
    assert "'two'" in fault
    assert "'one'" in fault


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "is empty"),
        ("# nothing\n", "has no keys"),
        ("[1, 2]", "has no keys"),
        ("registers: []", "registers: [] is not allowed; use a list that is not empty"),
        ("registers: 5", "registers: 5 is not allowed; use a list"),
        ("description: no registers", "registers: is missing"),
        ("registers:\n  - name: a\n   address: 5\n", "line 3, column 4"),
        ("registers: [\n", "line 2"),
        ("registers: \0", "control characters are not allowed"),
        ("a: *b", "line 1"),
    ],
)
def test_what_is_no_map_is_refused_with_its_line(tmp_path: Path, text: str, message: str) -> None:
    with pytest.raises(MapErrors) as refusal:
        load(tmp_path, text)
    assert message in str(refusal.value)
    assert "\n" not in str(refusal.value)


def test_a_missing_file_and_a_folder_are_refused(tmp_path: Path) -> None:
    for path in (tmp_path / "none.yaml", tmp_path):
        with pytest.raises(MapErrors, match="cannot be read"):
            load_map(path)


def test_a_key_that_is_there_twice_is_refused(tmp_path: Path) -> None:
    with pytest.raises(MapErrors) as refusal:
        load(tmp_path, EXISTING_MAP.replace("scale: 0.1", "scale: 0.1\n    scale: 0.01", 1))
    (error,) = refusal.value.errors
    assert "registers[0].scale" in error.place


@given(
    st.recursive(
        st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=5),
        lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.sampled_from([*entry()]), inner),
        max_leaves=20,
    )
)
@settings(max_examples=200, deadline=None)
def test_any_document_is_a_map_or_is_refused_in_lines(tmp_path_factory: Any, content: object) -> None:
    path = tmp_path_factory.getbasetemp()
    for document in ({"registers": content}, {"registers": [content]}, content):
        try:
            load(path, json.dumps(document))
        except MapErrors as refusal:
            lines = str(refusal).split("\n")
            assert len(lines) == len(refusal.errors)  # noqa: PT017 (most documents are refused, some are not)


def names(register_map: RegisterMap, kind: int) -> list[str]:
    return [register.name for register in register_map.readable(kind)]


def a_map(*entries: dict[str, Any]) -> RegisterMap:
    return RegisterMap.model_validate({"registers": list(entries)})


def test_what_is_read_is_in_both_register_tables_and_commands_only_in_the_holding_one() -> None:
    mixed = a_map(entry("a", 5), entry("b", 4, func=0x03), command("c", 6))
    assert names(mixed, INPUT) == ["b", "a"]
    assert names(mixed, HOLDING) == ["b", "a", "c"]


def test_tables_that_would_collide_anywhere_are_separate_everywhere() -> None:
    clash = a_map(entry("a", 5, "int32"), entry("b", 4, func=0x03), command("c", 6))
    assert names(clash, INPUT) == ["a"]
    assert names(clash, HOLDING) == ["b", "c"]


def test_bits_are_in_both_bit_tables_unless_these_collide() -> None:
    bits = [entry("a", 5, func=0x02), command("b", 6, func=0x05)]
    assert names(a_map(*bits), COIL) == ["a", "b"]
    assert names(a_map(*bits), DISCRETE_INPUT) == ["a"]
    clash = a_map(*bits, command("c", 5, func=0x0F))
    assert names(clash, COIL) == ["c", "b"]
    assert names(clash, DISCRETE_INPUT) == ["a"]


def test_colliding_bits_leave_the_register_tables_together() -> None:
    both = a_map(entry("a", 5, func=0x02), command("b", 5, func=0x05), entry("c", 5))
    assert names(both, HOLDING) == names(both, INPUT) == ["c"]


def test_a_command_that_is_write_only_is_not_read() -> None:
    assert names(a_map(entry("a"), command("b", access="wo")), HOLDING) == ["a"]


def test_a_map_is_shown_as_a_table_with_the_functions_that_work() -> None:
    rows = table(
        a_map(
            command("b", 7, "int32", unit="kW", scale=0.1, endian="little"),
            entry("a", 5, options={0: "off", 1: "on"}, description="a\nswitch"),
            entry("c", 1, "bitfield", internal_name=None, bits={0: "x", 3: "y"}),
        )
    )
    assert [row.address for row in rows] == ["1", "5", "7"]
    assert rows[0].internal_name == "0 x, 3 y"
    assert rows[1] == Row("5", "1", "03 04", "", "uint16", "1", "", "a", "a", "0 off; 1 on; a switch")
    assert rows[2] == Row("7", "2", "03", "10", "int32 low word first", "0.1", "kW", "b", "b", "")
