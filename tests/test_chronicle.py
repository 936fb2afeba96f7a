"""What the log tells of a site: each change once, with the device it is about."""

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from structlog.testing import capture_logs
from structlog.typing import EventDict
from support.inprocess import running
from support.service import free_port, service, wait_for
from support.sites import battery, site

from bench.app import Bench
from bench.check import check_site
from bench.chronicle import LOOK_FOR_MISFITS_S, Chronicle

SAG = {"kind": "voltage_sag", "start_time": 2, "duration": 3, "delta_v": -0.4}
LOAD = {"kind": "load_step", "start_time": 3, "duration": 1, "delta_w": 500}
NIGHT = {"kind": "cloud_passage", "start_time": 0, "duration": 9, "delta_irradiance": -1}
# Trips at once and returns 2 s after the voltage.
QUICK = {"under_voltage_s": 0, "reconnect_s": 2}


@pytest.fixture
def log() -> Iterator[list[EventDict]]:
    with capture_logs() as entries:
        yield entries


def bench_of(*assets: dict[str, Any], **config: Any) -> Bench:
    bench = Bench(check_site({"step": 1.0, "real_time": False, "assets": list(assets), **config}))
    bench.observers.append(Chronicle(bench).observe)
    return bench


def ticks(bench: Bench, count: int) -> None:
    for _ in range(count):
        bench.tick()


def told(log: list[EventDict], *fields: str) -> list[tuple[Any, ...]]:
    """Return the events of the log, each with some of its fields."""
    return [(entry["event"], *(entry.get(name) for name in fields)) for entry in log]


def test_a_site_on_which_nothing_happens_is_not_told_of(log: list[EventDict]) -> None:
    ticks(bench_of({"type": "bess"}, {"type": "inverter"}, {"type": "chp"}, {"type": "energy_meter"}), 100)
    assert log == []


def test_an_event_is_told_when_it_begins_and_when_it_has_ended(log: list[EventDict]) -> None:
    ticks(bench_of({"type": "energy_meter"}, events=[SAG, LOAD]), 10)
    assert told(log, "kind", "time_s") == [
        ("site event began", "voltage_sag", 3.0),
        ("site event began", "load_step", 4.0),
        ("site event ended", "load_step", 5.0),
        ("site event ended", "voltage_sag", 6.0),
    ]
    assert (log[0]["delta_v"], log[0]["duration"]) == (-0.4, 3.0)


@pytest.mark.parametrize(("kind", "code"), [("bess", 3001), ("inverter", 1)])
def test_a_trip_and_the_reconnection_are_told_with_cause_and_code(
    log: list[EventDict], kind: str, code: int
) -> None:
    ticks(bench_of({"type": kind, "grid_protection": QUICK}, events=[SAG]), 10)
    assert told(log, "device", "cause", "code", "time_s")[1:] == [
        ("grid protection tripped", f"{kind}-1", "voltage", code, 3.0),
        ("site event ended", None, None, None, 6.0),
        ("grid protection released", f"{kind}-1", "voltage", 0, 7.0),
    ]


def test_a_unit_off_the_grid_trips_without_a_fault(log: list[EventDict]) -> None:
    ticks(bench_of({"type": "chp", "grid_protection": QUICK}, events=[SAG]), 10)
    assert told(log, "code")[1::2] == [("grid protection tripped", 0), ("grid protection released", 0)]


def test_a_silent_ems_is_told_when_the_watchdog_expires_and_when_it_is_fed_again(
    log: list[EventDict],
) -> None:
    watched = {"watchdog": {"timeout_s": 3}}
    port = free_port()
    bench = bench_of(
        {"type": "bess", **watched, "port": port, "ip": "127.0.0.1"}, {"type": "energy_meter", **watched}
    )
    ticks(bench, 5)
    (link,) = bench.links.values()
    link.units[1].respond(b"\x04\x00\x00\x00\x01")
    ticks(bench, 2)
    assert told(log, "device", "time_s") == [
        ("watchdog expired", "bess-1", 3.0),
        ("watchdog expired", "energy_meter-1", 3.0),
        ("watchdog fed again", "bess-1", 6.0),
    ]
    assert [entry["log_level"] for entry in log] == ["warning", "warning", "info"]


def test_a_fault_code_is_told_when_it_appears_changes_and_clears(log: list[EventDict]) -> None:
    bench = bench_of({"type": "bess"})
    state = bench.site.devices["bess-1"].state
    state.battery_temp_c = 80.0
    ticks(bench, 3)
    state.battery_temp_c, state.fault_code = 20.0, 0
    ticks(bench, 3)
    state.initial_energy_wh = 0.0
    ticks(bench, 1)
    state.battery_temp_c = 80.0
    ticks(bench, 2)
    assert told(log, "code") == [
        ("device fault", 1001),
        ("device fault cleared", 1001),
        ("device fault", 2001),
        ("device fault", 1001),
    ]


def test_an_emergency_stop_is_told_and_its_release_and_the_fault_that_stays(log: list[EventDict]) -> None:
    bench = bench_of({"type": "chp"})
    state = bench.site.devices["chp-1"].state
    state.e_stop_request = 1
    ticks(bench, 2)
    state.e_stop_request = 0
    ticks(bench, 2)
    state.fault_code = 0
    ticks(bench, 2)
    assert told(log, "device", "code") == [
        ("emergency stop", "chp-1", 3),
        ("emergency stop released", "chp-1", 3),
        ("device fault cleared", "chp-1", 3),
    ]


def test_a_trip_of_an_earlier_run_is_told_at_the_start(log: list[EventDict]) -> None:
    before = bench_of({"type": "inverter", "grid_protection": QUICK}, events=[SAG])
    ticks(before, 4)
    log.clear()
    bench = bench_of({"type": "inverter", "grid_protection": QUICK}, events=[SAG])
    bench.go_on_from(4.0, {"inverter-1": before.site.devices["inverter-1"].state})
    ticks(bench, 1)
    assert told(log) == [("site event began",), ("grid protection tripped",)]


def test_devices_that_come_go_and_fail_are_followed(log: list[EventDict]) -> None:
    bench = bench_of({"type": "inverter", "grid_protection": QUICK}, {"type": "bess"}, events=[SAG])
    ticks(bench, 1)
    bench.site.devices["bess-1"].state = None
    ticks(bench, 1)
    bench.add_asset({"type": "bess", "asset_id": "late", "grid_protection": QUICK})
    ticks(bench, 1)
    bench.remove_asset("inverter-1")
    ticks(bench, 6)
    assert told(log, "device") == [
        ("device failed", "bess-1"),
        ("site event began", None),
        ("grid protection tripped", "inverter-1"),
        ("grid protection tripped", "late"),
        ("site event ended", None),
        ("grid protection released", "late"),
    ]


def test_what_goes_on_over_a_reload_is_not_told_again(tmp_path: Path) -> None:
    config = site(
        tmp_path,
        battery({"port": free_port()}, grid_protection=QUICK),
        real_time=False,
        step=1.0,
        events=[SAG],
    )
    with running(config, tmp_path) as run, capture_logs() as log:
        run.bench.observers.append(Chronicle(run.bench).observe)
        run.call(ticks, run.bench, 4)
        (tmp_path / "site.json").write_text(json.dumps(config | {"site_name": "another"}))
        run.wait(run.bench.reload(check_site(tmp_path / "site.json")))
        run.call(ticks, run.bench, 4)
    assert [event for (event,) in told(log) if event != "link up"] == [
        "site event began",
        "grid protection tripped",
        "site event ended",
        "grid protection released",
    ]


def test_a_register_that_saturates_is_told_once(tmp_path: Path, log: list[EventDict]) -> None:
    (tmp_path / "map.yaml").write_text(
        "registers:\n"
        + "".join(
            f"  - {{name: {name}, internal_name: active_power_setpoint_w, address: {address}, type: int16,"
            " count: 1, func: 0x04, direction: read, scale: 1e-3}\n"
            for address, name in enumerate(("power", "again"))
        )
    )
    binding = {"kind": "modbus_tcp", "port": free_port(), "register_map": "map.yaml"}
    bench = bench_of({"type": "bess", "protocols": [binding]}, register_map_root=str(tmp_path))
    now = 0.0
    bench.observers[:] = [Chronicle(bench, lambda: now).observe]
    (link,) = bench.links.values()
    bench.site.devices["bess-1"].state.active_power_setpoint_w = 15_000.0
    for _ in range(3):
        bench.tick()
        link.units[1].respond(b"\x04\0\0\0\2")
        now += LOOK_FOR_MISFITS_S
    assert told(log, "device", "link", "register") == [
        ("register saturated", "bess-1", link.name, "power"),
        ("register saturated", "bess-1", link.name, "again"),
    ]


def test_an_observer_that_raises_is_told_once_and_called_no_more(log: list[EventDict]) -> None:
    bench = bench_of({"type": "bess"})
    seen = []

    def defect(_: Any) -> None:
        raise ZeroDivisionError

    bench.observers = [defect, seen.append]
    ticks(bench, 3)
    assert told(log) == [("observer failed",)]
    assert len(seen) == 3


def test_the_service_tells_it(tmp_path: Path) -> None:
    config = site(tmp_path, battery({"port": free_port()}), events=[NIGHT])
    with service(config, tmp_path) as run:
        (line,) = wait_for(lambda: run.events("site event began"))
    assert (line["kind"], line["delta_irradiance"]) == ("cloud_passage", -1)
