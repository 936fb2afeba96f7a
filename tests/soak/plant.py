"""The site of the soak: twenty devices, two on each of five serial lines, the rest behind three TCP ports.

Devices of one type have ratings of their own, so that a reply with another one's values is seen.
"""

import os
from collections.abc import Sequence
from itertools import cycle
from typing import Any, NamedTuple

TYPES = ("bess", "inverter", "chp", "energy_meter")
LOAD_W = 40_000.0
STEP_S = 0.1
UNITS_ON_A_LINE = 2
UNITS_ON_A_PORT = (4, 3, 3)
# Serial numbers of this run: what stands in for an adapter is named by it, in /tmp.
SERIALS = tuple(f"SOAK{os.getpid()}{letter}" for letter in "ABCDE")
WITH_STAND_IN = SERIALS[-1]


class Unit(NamedTuple):
    """A device as a client knows it: its type, where it answers, and its rating (kW)."""

    asset_id: str
    type: str
    unit_id: int
    rated_kw: float

    @property
    def capacity_kwh(self) -> float:
        """Return the capacity of a battery."""
        return 5 * self.rated_kw

    def config(self, binding: dict[str, Any]) -> dict[str, Any]:
        """Return the config of the device with one binding."""
        ratings: dict[str, dict[str, Any]] = {
            "bess": {
                "capacity_kwh": self.capacity_kwh,
                "max_charge_kw": self.rated_kw,
                "max_discharge_kw": self.rated_kw,
            },
            "energy_meter": {},
        }
        rating = ratings.get(self.type, {"rated_kw": self.rated_kw})
        own = {"type": self.type, "asset_id": self.asset_id, "watchdog": {"timeout_s": 3600}}
        return {**own, **rating, "protocols": [{**binding, "unit_id": self.unit_id}]}


class Plant(NamedTuple):
    """The site config, and who is to be reached where: by serial number, and by TCP port."""

    config: dict[str, Any]
    on_lines: dict[str, list[Unit]]
    on_tcp: dict[int, list[Unit]]

    @property
    def a_battery(self) -> tuple[int, Unit]:
        """Return a battery and the port that it is at."""
        return next(
            (port, unit) for port, units in self.on_tcp.items() for unit in units if unit.type == "bess"
        )


def plant(ports: Sequence[int]) -> Plant:
    """Return the plant with these three TCP ports."""
    types, numbers = cycle(TYPES), iter(range(1, 21))

    def units(count: int) -> list[Unit]:
        made = [(next(numbers), next(types), unit_id) for unit_id in range(1, count + 1)]
        return [Unit(f"{kind}-{number}", kind, unit_id, 10.0 + number) for number, kind, unit_id in made]

    on_lines = {serial: units(UNITS_ON_A_LINE) for serial in SERIALS}
    on_tcp = {port: units(count) for port, count in zip(ports, UNITS_ON_A_PORT, strict=True)}
    config = {
        "site_name": "soak",
        "step": STEP_S,
        "start_time_h": 11.0,
        "load": {"base_w": LOAD_W},
        "assets": [
            *(unit.config(_line(serial)) for serial, on_line in on_lines.items() for unit in on_line),
            *(
                unit.config({"kind": "modbus_tcp", "ip": "127.0.0.1", "port": port})
                for port, on_port in on_tcp.items()
                for unit in on_port
            ),
        ],
    }
    return Plant(config, on_lines, on_tcp)


def _line(serial: str) -> dict[str, Any]:
    fallback = "pty" if serial == WITH_STAND_IN else "none"
    return {"kind": "modbus_rtu", "port": f"usb:{serial}", "baudrate": 115200, "fallback": fallback}
