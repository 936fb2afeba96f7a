"""What a reply must be: what the register maps say is where, and what is true of the values at any time.

The registers are decoded here by hand, not by the code that encoded them.
"""

import math
from collections.abc import Callable, Mapping
from functools import cache
from pathlib import Path
from typing import Any, NamedTuple

import yaml
from plant import Unit

MAPS = Path(__file__).parent.parent.parent / "register_maps"
MAP_OF = {
    "bess": "bess_modbus.yaml",
    "inverter": "pv_inverter_modbus.yaml",
    "chp": "chp_modbus.yaml",
    "energy_meter": "energy_meter_modbus.yaml",
}
IDENTIFICATION_AT, IDENTIFICATION_REGISTERS = 2000, 20
_COUNTERS = ("energy", "cycles", "counter", "hours")

Values = Mapping[str, float]


class Place(NamedTuple):
    """Where a value is, and how much one of its digits is worth."""

    address: int
    registers: int
    signed: bool
    scale: float


class Layout(NamedTuple):
    """What a client needs to know of a type of device."""

    measurements: dict[str, Place]
    commands: dict[str, Place]
    identification: bytes

    @property
    def registers(self) -> int:
        """Return how many registers the block of measurements has; it begins at 0."""
        return max(place.address + place.registers for place in self.measurements.values())


@cache
def layout(device_type: str) -> Layout:
    """Read the shipped register map of a type of device."""
    document = yaml.safe_load((MAPS / MAP_OF[device_type]).read_text())
    tables: dict[tuple[str, bool], dict[str, Place]] = {}
    for row in document["registers"]:
        if row["type"] not in ("string", "bitfield", "float32"):
            place = Place(row["address"], row["count"], row["type"].startswith("int"), row.get("scale", 1))
            tables.setdefault((row["direction"], row["func"] == 0x02), {})[row["name"]] = place
    names = document["identification"]
    texts = (("vendor_name", 16), ("product_code", 16), ("revision", 8))
    identification = b"".join(names[name].encode().ljust(length, b"\0") for name, length in texts)
    return Layout(tables["read", False], tables["write", False], identification)


def values(device_type: str, data: bytes) -> Values:
    """Return what the bytes of the block of measurements mean."""
    found = {}
    for name, (address, registers, signed, scale) in layout(device_type).measurements.items():
        raw = data[2 * address : 2 * (address + registers)]
        found[name] = int.from_bytes(raw, "big", signed=signed) * scale
    return found


def faults(unit: Unit, now: Values, before: Values) -> list[str]:
    """Return what cannot be true of the values of a device, given those of the reply before."""
    found = [
        f"{name} fell from {before[name]:g} to {value:g}"
        for name, value in now.items()
        if any(word in name for word in _COUNTERS) and name != "stored_energy" and value < before.get(name, 0)
    ]
    if not 49 < now["frequency"] < 51:
        found.append(f"frequency is {now['frequency']:g}")
    return found + [text for text, holds in _RULES[unit.type].items() if not holds(now, unit)]


def _near(a: float, b: float, within: float) -> bool:
    return abs(a - b) <= within


def _apparent(v: Values, _: Unit) -> bool:
    return _near(v["apparent_power"], math.hypot(v["active_power"], v["reactive_power"]), 2)


def _stored(v: Values, unit: Unit) -> bool:
    capacity_wh = unit.capacity_kwh * 1e3 * v["soh"] / 100
    return _near(v["stored_energy"], capacity_wh * v["soc"] / 100, 2e-4 * capacity_wh + 1)


def _phases(v: Values, _: Unit) -> bool:
    return all(
        _near(v[power], sum(v[f"{power}_{phase}"] for phase in "abc"), 2)
        for power in ("active_power", "reactive_power", "apparent_power")
    )


_RULES: Mapping[str, Mapping[str, Callable[[Values, Unit], Any]]] = {
    "bess": {
        "apparent power is not that of active and reactive power": _apparent,
        "the stored energy is not the state of charge of this battery": _stored,
        "the rating is another battery's": lambda v, unit: (
            v["max_charge_power"] == v["max_discharge_power"] == unit.rated_kw * 1e3
        ),
        "power is above the rating": lambda v, unit: abs(v["active_power"]) <= unit.rated_kw * 1e3,
        "voltages differ": lambda v, _: v["voltage_ab"] == v["voltage_bc"] == v["voltage_ca"],
    },
    "inverter": {
        "apparent power is not that of active and reactive power": _apparent,
        "power is not between 0 and the rating": lambda v, unit: (
            0 <= v["active_power"] <= unit.rated_kw * 1e3
        ),
        "more comes out than goes in": lambda v, _: v["active_power"] <= v["dc_power"],
        "irradiance is not that of noon": lambda v, _: 100 < v["irradiance"] < 1200,
    },
    "chp": {
        "power is not that of this unit": lambda v, unit: _near(
            v["active_power"], v["active_power_percent"] * unit.rated_kw * 10, unit.rated_kw
        ),
        "the unit state is none": lambda v, _: v["unit_state"] in (*range(8), 18),
        "the unit has a fault": lambda v, _: v["fault_code"] == 0,
    },
    "energy_meter": {
        "the phases are not the total": _phases,
        "apparent power is not that of active and reactive power": _apparent,
        "voltages differ": lambda v, _: v["voltage_an"] == v["voltage_bn"] == v["voltage_cn"],
    },
}
