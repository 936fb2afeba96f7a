"""The same seed gives the same run, bit for bit, on every machine and every Python."""

import ast
import hashlib
import struct
from collections.abc import Iterator
from pathlib import Path

import pytest

import dertwin
from dertwin.devices.device import Command
from dertwin.site import Site, build_site

PACKAGE = Path(dertwin.__file__).parent

# An hour of the site below. It changes when the physics changes, and then on purpose: take the new
# one from the failing test, and check it on the oldest and the newest Python.
GOLDEN = "02bf54884fc123a86309de8252916b278f28772537e7ad19211a69dd1a7b16ba"

SITE = {
    "step": 1.0,
    "start_time_h": 9.5,
    "external_models": {
        "irradiance": {},
        "ambient_temperature": {},
        "grid_frequency": {"noise_std": 0.01, "drift_std": 0.02, "seed": 7},
        "grid_voltage": {"noise_std": 0.5, "drift_std": 2.0},
    },
    "load": {"profile": [[0, 20_000], [10, 45_000], [19, 60_000]]},
    "events": [
        {
            "kind": "cloud_passage",
            "start_time": 700,
            "duration": 300,
            "delta_irradiance": -0.7,
            "shape": "ramp",
        },
        {"kind": "voltage_sag", "start_time": 1500, "duration": 3, "delta_v": -0.25},
        {"kind": "frequency_deviation", "start_time": 2000, "duration": 30, "delta_hz": -3.0},
        {
            "kind": "load_step",
            "start_time": 2500,
            "duration": 200,
            "delta_w": 9000,
            "shape": "table",
            "table": [[0, 0], [50, 1], [90, 0.3]],
        },
    ],
    "assets": [
        {"type": "bess", "initial_soc": 62, "max_charge_kw": 40, "max_discharge_kw": 40},
        {
            "type": "bess",
            "capacity_kwh": 5,
            "watchdog": {"timeout_s": 20, "fallback": {"active_power_setpoint": -3}},
        },
        {"type": "inverter", "rated_kw": 30},
        {"type": "chp", "rated_kw": 50},
        {"type": "energy_meter"},
    ],
}

# Seconds into the hour and what the EMS then writes.
WRITES = {
    0: {
        "bess-1": [("start_stop_standby", 1)],
        "bess-2": [("start_stop_standby", 1)],
        "chp-1": [("start_stop", 1)],
    },
    5: {"bess-1": [("active_power_setpoint_w", 35_000), ("reactive_power_setpoint_var", -7_000)]},
    300: {"bess-2": [("active_power_setpoint_w", 12_000)], "chp-1": [("power_setpoint_ratio", 0.83)]},
    900: {"inverter-1": [("active_power_limit", 0.4), ("reactive_power_ratio", 0.2)]},
    1200: {"bess-1": [("active_power_setpoint_w", -40_000)], "inverter-1": [("active_power_limit", 2.55)]},
    2200: {"chp-1": [("remote_acknowledgment", 4321), ("start_stop", 1)]},
    3000: {"chp-1": [("start_stop", 0)]},
}


def an_hour() -> Iterator[Site]:
    """Yield the site after each step: ten minutes in tenths of a second, then seconds, minutes at the end."""
    site = build_site(SITE)
    written = set()
    while site.time_s < 3600.0:
        second = int(site.time_s)
        batch = WRITES.get(second, {}) if second not in written else {}
        written.add(second)
        commands = {
            key: [Command(name, float(value)) for name, value in pairs] for key, pairs in batch.items()
        }
        dt_s = 0.1 if second < 600 else 1.0 if second < 3300 else 60.0
        site.step(commands, dt_s)
        yield site


def numbers(site: Site) -> Iterator[float]:
    snapshot = site.snapshot
    yield snapshot.time_s
    yield from snapshot.conditions
    yield from snapshot.pcc
    for asset_id in sorted(snapshot.measurements):
        yield from snapshot.measurements[asset_id]


def digest() -> str:
    """The SHA-256 of all numbers of all steps, as little-endian doubles."""
    hashed = hashlib.sha256()
    for site in an_hour():
        values = tuple(numbers(site))
        hashed.update(struct.pack(f"<{len(values)}d", *values))
    return hashed.hexdigest()


def test_an_hour_of_a_mixed_site_gives_the_golden_digest() -> None:
    assert digest() == GOLDEN


def test_the_hour_is_worth_a_digest() -> None:
    seen: dict[str, set[int]] = {"unit_state": set(), "working_status": set(), "watchdog_expired": set()}
    trips = set()
    for site in an_hour():
        measurements = site.snapshot.measurements
        seen["unit_state"].add(measurements["chp-1"].unit_state)
        seen["working_status"].add(measurements["bess-1"].working_status)
        seen["watchdog_expired"].add(measurements["bess-2"].watchdog_expired)
        trips.add(measurements["inverter-1"].fault_code)
    assert seen["unit_state"] >= {0, 1, 2, 3, 4, 5, 6, 18}
    assert seen["working_status"] == {1, 2}
    assert seen["watchdog_expired"] == {0, 1}
    assert trips == {0, 1, 2}


# What gives the same bits everywhere: IEEE 754 + - * / and square root, comparisons, and what is built
# of these alone. The mathematical functions of the C library are not, nor is sum() since Python 3.12.
EXACT_MATH = {
    "sqrt",
    "floor",
    "ceil",
    "pi",
    "inf",
    "nan",
    "isfinite",
    "isinf",
    "isnan",
    "factorial",
    "copysign",
}
FORBIDDEN_BUILTINS = {"sum", "pow", "hash", "id", "eval", "exec"}
FORBIDDEN_MODULES = {
    "time",
    "datetime",
    "os",
    "asyncio",
    "socket",
    "threading",
    "statistics",
    "cmath",
    "numpy",
    "secrets",
}
STEPPED = ["stepping.py", "events.py", "environment.py", "site.py", "physics", "devices"]


def faults(tree: ast.AST) -> Iterator[str]:
    for node in ast.walk(tree):
        line = getattr(node, "lineno", 0)
        match node:
            case ast.Attribute(value=ast.Name(id="math"), attr=name) if name not in EXACT_MATH:
                yield f"{line}: math.{name}"
            case ast.ImportFrom(module="math", names=names) if any(n.name not in EXACT_MATH for n in names):
                yield f"{line}: from math import"
            case ast.ImportFrom(module="random", names=names) if any(n.name != "Random" for n in names):
                yield f"{line}: from random import"
            case ast.Import(names=names) if any(
                n.name.split(".")[0] in FORBIDDEN_MODULES | {"random"} for n in names
            ):
                yield f"{line}: import"
            case ast.ImportFrom(module=str(module)) if module.split(".")[0] in FORBIDDEN_MODULES:
                yield f"{line}: from {module} import"
            case ast.Call(func=ast.Name(id=name)) if name in FORBIDDEN_BUILTINS:
                yield f"{line}: {name}()"
            case ast.BinOp(op=ast.Pow()) | ast.AugAssign(op=ast.Pow()):
                yield f"{line}: **"
            case ast.Call(func=ast.Attribute(attr=name)) if name in RANDOM_METHODS:
                yield f"{line}: .{name}()"


RANDOM_METHODS = {
    "gauss",
    "normalvariate",
    "expovariate",
    "betavariate",
    "shuffle",
    "sample",
    "choices",
    "uniform",
}


def stepped_files() -> list[Path]:
    files = [
        path
        for name in STEPPED
        for path in [PACKAGE / name, *(PACKAGE / name).rglob("*.py")]
        if path.is_file()
    ]
    assert len(files) > 15
    return files


def test_nothing_that_runs_in_a_step_depends_on_the_machine_or_the_python() -> None:
    found = [
        f"{path.relative_to(PACKAGE)}:{fault}"
        for path in stepped_files()
        for fault in faults(ast.parse(path.read_text()))
    ]
    assert found == []


@pytest.mark.parametrize(
    "code",
    [
        "import math\nmath.exp(1.0)",
        "from math import sin",
        "x = y ** 2.0",
        "x **= 2",
        "sum([0.1, 0.2])",
        "pow(2.0, 0.5)",
        "import random",
        "from random import gauss",
        "generator.gauss(0.0, 1.0)",
        "import time",
        "from datetime import datetime",
        "import os.path",
    ],
)
def test_the_walk_finds_what_it_looks_for(code: str) -> None:
    assert len(list(faults(ast.parse(code)))) == 1
