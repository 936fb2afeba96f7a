from typing import Any

import pytest
from sample_map import command, entry

from dertwin.devices.classic import CLASSIC
from dertwin.devices.device import CommandRange
from dertwin.registers.layout import bind
from dertwin.registers.map import MapErrors, RegisterMap

FIELDS = ("soc", "active_power_w", "fault_code", "heartbeat")
RANGES = {"active_power_setpoint_w": CommandRange(-1.0, 1.0), "heartbeat": CommandRange(0.0, 65535.0)}


def faults(*entries: dict[str, Any], **keys: Any) -> list[str]:
    register_map = RegisterMap.model_validate({"registers": list(entries), **keys})
    with pytest.raises(MapErrors) as refusal:
        bind(register_map, FIELDS, RANGES, CLASSIC["bess"])
    return [str(error) for error in refusal.value.errors]


@pytest.mark.parametrize(
    ("wrong", "closest"),
    [("active_powr_w", "active_power_w"), ("system_sock", "system_soc"), ("fault_kode", "fault_code")],
)
def test_an_unknown_measurement_is_an_error_that_offers_the_closest_known_one(
    wrong: str, closest: str
) -> None:
    (fault,) = faults(entry("soc", 5), entry(wrong, 0))
    start = (
        f'registers[1].internal_name: "{wrong}" is no measurement of this device; the closest is {closest}'
    )
    assert fault.startswith(start)


def test_only_what_the_device_has_is_offered() -> None:
    (fault,) = faults(entry("nothing_like_it"))
    assert "system_soc" in fault  # the classic name of soc
    assert "battery_temperature" not in fault  # known in general, but not to this device


def test_a_command_is_no_measurement_and_a_measurement_no_command() -> None:
    shown = faults(entry("active_power_setpoint_w"), command("soc"))
    assert "is no measurement" in shown[0]
    assert "is no command" in shown[1]


def test_unknown_names_of_bits_are_errors_each_in_its_place() -> None:
    shown = faults(entry("x", 0, "bitfield", internal_name=None, bits={0: "soc", 3: "a", 7: "b"}))
    assert [line.partition(":")[0] for line in shown] == ["registers[0].bits[3]", "registers[0].bits[7]"]


def test_overlaps_and_unknown_names_are_shown_together() -> None:
    assert len(faults(entry("soc", 0), entry("fault_code", 0), entry("unknown", 5))) == 2


def test_only_a_text_register_may_show_the_identification() -> None:
    text = entry("product_code", 0, "string", count=4)
    assert len(faults({**text, "type": "uint64"}, identification={"product_code": "X1"})) == 1
    assert len(faults({**text, "internal_name": "model_name"}, identification={"product_code": "X1"})) == 1


def test_what_function_43_says_comes_from_the_map() -> None:
    register_map = RegisterMap.model_validate(
        {
            "registers": [entry("soc")],
            "device_type": "bess",
            "description": "A battery",
            "identification": {"vendor_name": "Ünique", "model_name": "B2"},
        }
    )
    objects = bind(register_map, FIELDS, RANGES, {}).identification
    assert objects == {0: b"?nique", 1: b"bess", 2: b"1.0", 4: b"A battery", 5: b"B2"}


def test_the_mandatory_identification_is_there_without_a_word_in_the_map() -> None:
    register_map = RegisterMap.model_validate({"registers": [entry("soc")]})
    objects = bind(register_map, FIELDS, RANGES, {}).identification
    assert sorted(objects) == [0, 1, 2]
    assert all(objects.values())


def test_registers_far_apart_cost_nothing_for_what_is_between_them() -> None:
    far = [entry("soc", 0), entry("fault_code", 65535), command("heartbeat", 30000)]
    register_map = RegisterMap.model_validate({"registers": far, "gaps": "zero"})
    assert len(bind(register_map, FIELDS, RANGES, {}).initial) == 6
