"""What scenarios cost in simulated time: everything but the EMS's own code."""

import time
from collections.abc import Iterator
from pathlib import Path
from statistics import median
from typing import Any

import yaml
from table import Figure

from bench.check import CheckedSite, check_site
from bench.plant import Ems, Plant, run_ems
from dertwin.scenario.document import load_scenario
from dertwin.site import build_site

ROUNDS = 5
RATED_W = 80e3
BATTERY = {"type": "bess", "port": 55001, "max_charge_kw": 80, "max_discharge_kw": 80, "capacity_kwh": 100}
METER = {"type": "energy_meter", "port": 55002}
CONTROL = {
    "scenario": "control",
    "duration": 1200,
    "steps": [
        {"do": {"environment": "load_w", "table": [[0, 5000], [600, 15000], [1200, 2000]]}},
        {"after": 5, "expect": {"that": "pcc.active_power_w in -300..300", "for": 1190}},
    ],
}
FCR_D = {
    "scenario": "fcr-d",
    "steps": [
        {
            "do": {
                "verdict": "fcr_d",
                "with": {"devices": ["bess-1"], "direction": "up", "capacity_w": RATED_W},
            }
        }
    ],
}


def figures(folder: Path) -> list[Figure]:
    """Run both scenarios with an EMS that does next to nothing itself, and return the medians."""
    return [
        _figure(
            folder, "20 minutes of a battery and an EMS in Python, steps of 1 s", 1.0, CONTROL, _follow, 0.3
        ),
        _figure(folder, "the same, steps of 0.1 s", 0.1, CONTROL, _follow, 0.3),
        _figure(folder, "FCR-D ramp test (1050 s at 10 Hz) with its verdict", 0.1, FCR_D, _droop, 2.0),
    ]


def _figure(
    folder: Path, name: str, step_s: float, scenario: dict[str, Any], ems: Ems, limit_s: float
) -> Figure:
    checked = check_site({"step": step_s, "real_time": False, "assets": [BATTERY, METER]})
    path = folder / "scenario.yaml"
    path.write_text(yaml.safe_dump(scenario))
    took_s = median(_seconds(path, checked, ems) for _ in range(ROUNDS))
    return Figure(name, "s", {"ours": took_s}, f"<= {limit_s:g}", lambda m: m["ours"] <= limit_s)


def _seconds(path: Path, checked: CheckedSite, ems: Ems) -> float:
    loaded = load_scenario(path, build_site(checked.config).devices)
    start = time.perf_counter()
    assert run_ems(checked, loaded, ems).passed
    return time.perf_counter() - start


def _follow(plant: Plant) -> Iterator[float]:
    """Let the battery cover the import, once a second."""
    plant.write("bess-1", "start_stop_standby", 1)
    power_w = 0.0
    while True:
        power_w += plant.read("energy_meter-1", "active_power")
        plant.write("bess-1", "active_power_setpoint", power_w)
        yield 1.0


def _droop(plant: Plant) -> Iterator[float]:
    """Answer the frequency with an ideal droop, twice a second."""
    plant.write("bess-1", "start_stop_standby", 1)
    while True:
        share = (49.9 - plant.read("energy_meter-1", "frequency")) / 0.4
        plant.write("bess-1", "active_power_setpoint", round(RATED_W * min(1.0, max(0.0, share))))
        yield 0.5
