"""What is shown of a site is what the site has, under names that Prometheus likes."""

import asyncio
import json
import re
from pathlib import Path
from typing import Any, get_args

import pytest
from prometheus_client import CollectorRegistry, generate_latest
from prometheus_client.parser import text_string_to_metric_families
from support.inprocess import running
from support.service import free_port
from support.sites import battery, site, write_setpoint
from support.tcp import Client, frame
from support.watch import get, watched

from bench.app import Bench
from bench.check import check_site
from bench.counters import LATENCY_BOUNDS_S, Latency
from bench.exposition import exposition
from bench.http import pages
from bench.metrics import SiteCollector, registry
from bench.scenario_host import ScenarioHost
from bench.telemetry import METRICS, TELEMETRY
from dertwin.config import Asset
from dertwin.events import AnyEvent

TYPES = [get_args(model.model_fields["type"].annotation)[0] for model in get_args(get_args(Asset)[0])]
BASE_UNITS = (
    "watts", "vars", "voltamperes", "ratio", "volts", "amperes", "hertz", "joules", "celsius", "pascals",
    "watts_per_square_meter", "seconds", "rpm",
)  # fmt: skip
WITHOUT_UNIT = {
    "dertwin_battery_cycles", "dertwin_starts", "dertwin_operating_state", "dertwin_fault_code",
    "dertwin_mode", "dertwin_alarm_active", "dertwin_flag", "dertwin_regulator_setpoint", "dertwin_heartbeat",
}  # fmt: skip

Values = dict[tuple[str, frozenset[tuple[str, str]]], float]


def bench_of(folder: Path, *assets: dict[str, Any], **config: Any) -> Bench:
    path = folder / "site.json"
    path.write_text(json.dumps({"real_time": False, "assets": list(assets), **config}))
    return Bench(check_site(path))


def values(text: str) -> Values:
    return {
        (sample.name, frozenset(sample.labels.items())): sample.value
        for family in text_string_to_metric_families(text)
        for sample in family.samples
    }


def shown(bench: Bench) -> Values:
    return values(asyncio.run(exposition(registry(bench))).decode())


def value(all_values: Values, name: str, **labels: str) -> float:
    """Return the one sample that has these labels, and perhaps more."""
    (found,) = [
        number
        for (known, pairs), number in all_values.items()
        if known == name and labels.items() <= dict(pairs).items()
    ]
    return found


@pytest.mark.parametrize("device_type", TYPES)
def test_every_measurement_of_every_device_type_is_shown(tmp_path: Path, device_type: str) -> None:
    (device,) = bench_of(tmp_path, {"type": device_type}).site.devices.values()
    assert set(TELEMETRY[device_type]) == set(type(device.measurements)._fields)  # type: ignore[attr-defined]


@pytest.mark.parametrize("metric", METRICS)
def test_a_metric_is_named_by_its_base_unit_and_used(metric: str) -> None:
    assert metric in WITHOUT_UNIT or metric.endswith(tuple(f"_{unit}" for unit in BASE_UNITS))
    assert metric in {row.metric for table in TELEMETRY.values() for row in table.values()}


def test_nothing_is_shown_twice(tmp_path: Path) -> None:
    bench = bench_of(tmp_path, *({"type": device_type} for device_type in TYPES))
    text = asyncio.run(exposition(registry(bench))).decode()
    series = [line.rpartition(" ")[0] for line in text.splitlines() if not line.startswith("#")]
    assert len(series) == len(set(series))
    families = re.findall(r"^# TYPE (\S+)", text, re.MULTILINE)
    assert len(families) == len(set(families))


def test_our_text_says_what_the_client_library_would(tmp_path: Path) -> None:
    bench = bench_of(tmp_path, *({"type": device_type} for device_type in TYPES))
    known = CollectorRegistry()
    known.register(SiteCollector(bench))
    ours = asyncio.run(exposition(known)).decode()
    theirs = generate_latest(known).decode()
    assert values(ours) == values(theirs)
    heads = [[line for line in text.splitlines() if line.startswith("#")] for text in (ours, theirs)]
    assert heads[0] == heads[1]


def test_values_are_in_base_units(tmp_path: Path) -> None:
    bench = bench_of(tmp_path, {"type": "bess"}, {"type": "chp"}, {"type": "energy_meter"})
    for _ in range(3):
        bench.tick()
    all_values = shown(bench)
    battery_, chp, meter = (
        bench.site.snapshot.measurements[name] for name in ("bess-1", "chp-1", "energy_meter-1")
    )
    known: Any = battery_, chp, meter
    assert value(all_values, "dertwin_state_of_charge_ratio") == known[0].soc
    assert value(all_values, "dertwin_stored_energy_joules") == known[0].stored_energy_wh * 3600.0
    assert (
        value(all_values, "dertwin_energy_joules_total", flow="import") == known[2].import_energy_wh * 3600.0
    )
    assert known[2].import_energy_wh > 0
    assert (
        value(all_values, "dertwin_pressure_pascals", sensor="charge") == known[1].charge_pressure_bar * 1e5
    )
    phases = [value(all_values, "dertwin_phase_active_power_watts", phase=p) for p in "abc"]
    assert sum(phases) == pytest.approx(value(all_values, "dertwin_site_grid_power_watts"))


def test_a_counter_in_two_registers_is_one_metric(tmp_path: Path) -> None:
    bench = bench_of(tmp_path, {"type": "chp"})
    snapshot = bench.site.snapshot
    measured: Any = snapshot.measurements["chp-1"]
    long_run = measured._replace(
        operating_hours=12.5, operating_hours_10000=2, start_counter=7, start_counter_10000=1
    )
    bench.site.snapshot = snapshot._replace(measurements={"chp-1": long_run})
    all_values = shown(bench)
    assert value(all_values, "dertwin_operating_seconds_total") == 20_012.5 * 3600.0
    assert value(all_values, "dertwin_starts_total") == 10_007


def test_events_are_shown_while_they_act(tmp_path: Path) -> None:
    event = {"kind": "load_step", "start_time": 0.15, "duration": 0.2, "delta_w": 100.0}
    bench = bench_of(tmp_path, {"type": "bess"}, events=[event])
    seen = []
    for _ in range(5):
        seen.append(value(shown(bench), "dertwin_site_events_active", kind="load_step"))
        bench.tick()
    assert seen == [0, 0, 1, 1, 0]


def test_every_kind_of_event_has_a_value(tmp_path: Path) -> None:
    all_values = shown(bench_of(tmp_path, {"type": "bess"}))
    for model in get_args(get_args(AnyEvent)[0]):
        (kind,) = get_args(model.model_fields["kind"].annotation)
        assert value(all_values, "dertwin_site_events_active", kind=kind) == 0


def test_requests_writes_and_exceptions_are_counted(tmp_path: Path) -> None:
    port = free_port()
    config = site(tmp_path, battery({"port": port}))
    with running(config, tmp_path) as bench, watched(bench) as pages, Client(port) as client:
        client.ask(write_setpoint(3))
        client.ask(write_setpoint(3))
        client.ask(b"\x03\xff\xff\x00\x01")
        client.ask(b"\x63")
        client.ask(b"\x63", unit_id=9)
        bench.call(bench.bench.tick)
        all_values = values(get(pages, "/metrics").text)

        def requests(function: str, outcome: str) -> float:
            return value(
                all_values, "dertwin_modbus_requests_total", function=function, outcome=outcome, unit="1"
            )

        assert requests("write_single_register", "ok") == 2
        assert requests("read_holding_registers", "illegal_data_address") == 1
        assert requests("other", "illegal_function") == 1
        for code, count in {"01": 1, "02": 1, "03": 0, "04": 0, "0B": 1}.items():
            assert value(all_values, "dertwin_modbus_exceptions_total", code=code) == count
        assert value(all_values, "dertwin_modbus_unknown_unit_requests_total") == 1
        setpoint = {"command": "active_power_setpoint_w", "device": "bess-1", "type": "bess"}
        assert value(all_values, "dertwin_register_writes_total", **setpoint) == 2
        assert 0 <= value(all_values, "dertwin_register_last_write_age_seconds", **setpoint) < 60
        assert value(all_values, "dertwin_tcp_connections") == 1


def test_a_batch_of_requests_is_counted_request_by_request(tmp_path: Path) -> None:
    port = free_port()
    with running(site(tmp_path, battery({"port": port})), tmp_path) as bench, watched(bench) as pages:
        with Client(port) as client:
            client.send(b"".join(frame(i, b"\x03\0\0\0\1") for i in range(20)))
            for _ in range(20):
                client.receive()
        all_values = values(get(pages, "/metrics").text)
        assert value(all_values, "dertwin_modbus_request_duration_seconds_count") == 20
        assert value(all_values, "dertwin_modbus_request_duration_seconds_bucket", le="+Inf") == 20
        assert 0 < value(all_values, "dertwin_modbus_request_duration_seconds_sum") < 20


def test_registers_that_saturate_are_named(tmp_path: Path) -> None:
    (tmp_path / "map.yaml").write_text(
        "registers:\n  - {name: power, internal_name: active_power_setpoint_w, address: 0, type: int16,"
        " count: 1, func: 0x04, direction: read, scale: 1e-3}\n"
    )
    binding = {"kind": "modbus_tcp", "port": free_port(), "register_map": "map.yaml"}
    bench = bench_of(tmp_path, {"type": "bess", "protocols": [binding]}, register_map_root=str(tmp_path))
    (link,) = bench.links.values()
    bench.site.devices["bess-1"].state.active_power_setpoint_w = 15_000.0
    for _ in range(2):
        bench.tick()
        link.units[1].respond(b"\x04\0\0\0\1")
    all_values = shown(bench)
    assert value(all_values, "dertwin_saturated_values_total", device="bess-1") == 2
    assert value(all_values, "dertwin_saturated_register_values_total", register="power") == 2


def test_the_histogram_counts_a_bound_as_below_it() -> None:
    latency = Latency()
    latency.observe(LATENCY_BOUNDS_S[2], 3)
    latency.observe(LATENCY_BOUNDS_S[2] * 1.001, 1)
    latency.observe(1e9, 1)
    assert (latency.buckets[2], latency.buckets[3], latency.buckets[-1]) == (3, 1, 1)


def test_the_documentation_has_every_metric(tmp_path: Path) -> None:
    page = (Path(__file__).parents[2] / "docs/metrics.md").read_text()
    documented = set(re.findall(r"^\| `(dertwin_\w+)`", page, re.MULTILINE))
    bench = bench_of(tmp_path, *({"type": device_type} for device_type in TYPES))
    answer = asyncio.run(pages(bench, ScenarioHost(bench))["/metrics"]())
    shown = set(re.findall(r"^# TYPE (dertwin_\w+)", answer.body.decode(), re.MULTILINE))
    assert documented == shown
