"""Prometheus itself reads a running site, and every dashboard and rule finds what it asks for."""

import contextlib
import importlib.util
import json
import re
import subprocess
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
import yaml
from support.bus import Bus, read_request
from support.prometheus import ROOT, Prometheus, needs_prometheus, prometheus
from support.service import RUN, free_port, service, wait_for
from support.tcp import Client
from support.udev import needs_umockdev, udev

from bench.web_config import WebConfig
from dertwin.registers.map import load_map

RULES = sorted((ROOT / "configs/prometheus/rules").glob("*.yml"))
DASHBOARDS = sorted((ROOT / "configs/grafana/dashboards").glob("*.json"))

# Expressions that have nothing to show on a healthy site, and why.
EMPTY_WHEN_HEALTHY = {
    "dertwin_saturated_register_values_total": "a register is listed once a value did not fit into it",
    "dertwin_scenario_expectations": "no scenario has run",
    "dertwin_scenario_event_timestamp_seconds": "no scenario has run",
}
SETPOINT = "power_setpoint_percent"
# Alerts that a machine busy with other tests may rightly raise.
ABOUT_THE_MACHINE = {
    "DertwinTickLag", "DertwinTicksSkipped", "DertwinTicksLate", "DertwinStepTooSlow", "DertwinSlowReplies",
}  # fmt: skip


def expressions_of_dashboards() -> Iterator[tuple[str, str]]:
    """Yield each query of each panel, and each list of a variable, with `All` chosen everywhere."""
    for path in DASHBOARDS:
        dashboard = json.loads(path.read_text())
        for panel in dashboard["panels"]:
            for target in panel["targets"]:
                expr = target["expr"].replace("$__rate_interval", "30s")
                yield f"{path.stem}: {panel['title']}", re.sub(r"\$\w+", ".*", expr)
        for annotation in dashboard["annotations"]["list"]:
            yield f"{path.stem}: {annotation['name']}", re.sub(r"\$\w+", ".*", annotation["expr"])
        for variable in dashboard["templating"]["list"]:
            if variable["type"] == "query":
                listed = re.fullmatch(r"label_values\((.*), \w+\)", variable["query"]["query"])
                assert listed
                yield f"{path.stem}: ${variable['name']}", re.sub(r"\$\w+", ".*", listed[1])


def rules() -> Iterator[dict[str, Any]]:
    for path in RULES:
        for group in yaml.safe_load(path.read_text())["groups"]:
            yield from group["rules"]


def full_site(folder: Path) -> tuple[dict[str, Any], dict[int, list[int]], Path]:
    """Return the full site on free ports with two more batteries, on a virtual line and on an adapter.

    And, by TCP port, the addresses that an EMS may write words to, and the client's end of the line.
    """
    site = json.loads((ROOT / "configs/full_site_config.json").read_text())
    writable = {}
    for asset in site["assets"]:
        (binding,) = asset["protocols"]
        binding |= {"ip": "127.0.0.1", "port": free_port()}
        registers = load_map(ROOT / "register_maps" / binding["register_map"]).registers
        writable[binding["port"]] = [
            r.address
            for r in registers
            if r.direction == "write" and r.count == 1 and r.internal_name in ("heartbeat", SETPOINT)
        ]
    line = folder / "line"
    binding = {"kind": "modbus_rtu", "port": str(line), "baudrate": 115200, "fallback": "pty", "unit_id": 1}
    site["assets"].append({"type": "bess", "asset_id": "bess-3", "protocols": [binding]})
    binding = {"kind": "modbus_rtu", "port": "usb:FT1"}
    site["assets"].append({"type": "bess", "asset_id": "bess-4", "protocols": [binding]})
    return site, writable, Path(f"{line}_client")


@contextlib.contextmanager
def polled(*requests: Callable[[], object]) -> Iterator[None]:
    """Make the requests over and over while the context lasts."""
    stop = threading.Event()

    def poll() -> None:
        while not stop.wait(0.05):
            for request in requests:
                request()

    thread = threading.Thread(target=poll)
    thread.start()
    try:
        yield
    finally:
        stop.set()
        thread.join(10.0)


@pytest.fixture(scope="module")
def watched(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Prometheus]:
    """A Prometheus that has seen a healthy site with two EMS for some seconds."""
    folder = tmp_path_factory.mktemp("watched")
    site, writable, line = full_site(folder)
    port = free_port()
    with contextlib.ExitStack() as stack:
        bed = stack.enter_context(udev())
        bed.plug("ttyUSB0", "FT1")
        listen = "--listen-metrics", f"127.0.0.1:{port}"
        stack.enter_context(service(site, folder, *listen, command=bed.command(*RUN)))
        bus = stack.enter_context(contextlib.closing(Bus(str(line))))
        clients = [(stack.enter_context(Client(p)), addresses) for p, addresses in writable.items()]

        def ask_by_rtu() -> None:
            bus.send(read_request(1, 1000))
            bus.receive(7)

        def write_by_tcp() -> None:
            for client, addresses in clients:
                for address in addresses:
                    assert client.ask(b"\x06" + address.to_bytes(2, "big") + b"\x00\x01")[0] == 6

        stack.enter_context(polled(ask_by_rtu, write_by_tcp))
        server = stack.enter_context(prometheus(port, folder))
        scraped = 'min(count_over_time(up{job="dertwin"}[1m])) >= 5'
        wait_for(lambda: server.ask(scraped), 30.0, "five scrapes")
        yield server


@needs_prometheus
def test_promtool_finds_the_config_and_the_rules_good() -> None:
    for command in (["config", ROOT / "configs/prometheus/prometheus.yml"], ["rules", *RULES]):
        done = subprocess.run(["promtool", "check", *command], capture_output=True, text=True)
        assert done.returncode == 0, done.stderr


@needs_prometheus
def test_the_alerts_come_and_go_as_they_should() -> None:
    tests = sorted((ROOT / "configs/prometheus/tests").glob("*.yml"))
    done = subprocess.run(["promtool", "test", "rules", *tests], capture_output=True, text=True)
    assert done.returncode == 0, done.stdout + done.stderr
    text = "".join(path.read_text() for path in tests)
    untested = [rule["alert"] for rule in rules() if "alert" in rule and rule["alert"] not in text]
    assert untested == []


@needs_umockdev
@needs_prometheus
def test_every_query_of_every_dashboard_returns_data(watched: Prometheus) -> None:
    queries = list(expressions_of_dashboards())
    assert len({place.split(":")[0] for place, _ in queries}) == 7
    for place, expr in queries:
        expected_empty = any(metric in expr for metric in EMPTY_WHEN_HEALTHY)
        if expected_empty:
            assert watched.ask(expr) == [], f"{place} has data after all: {expr}"
        else:
            wait_for(lambda expr=expr: watched.ask(expr), 15.0, f"{place}: data for {expr}")


@needs_umockdev
@needs_prometheus
def test_every_rule_finds_its_series_and_no_alert_is_raised_on_a_healthy_site(watched: Prometheus) -> None:
    for rule in rules():
        if "record" in rule:
            wait_for(lambda rule=rule: watched.ask(rule["record"]), 15.0, rule["record"])
            continue
        compared = re.fullmatch(r"(.*) (?:>|<|==) [\d.]+", rule["expr"].strip(), re.DOTALL)
        assert compared, rule["expr"]
        wait_for(lambda expr=compared[1]: watched.ask(expr), 15.0, f"{rule['alert']}: {compared[1]}")
        if rule["alert"] not in ABOUT_THE_MACHINE:
            assert watched.ask(rule["expr"]) == [], rule["alert"]


@needs_umockdev
@needs_prometheus
def test_prometheus_loads_the_rules_and_evaluates_them_without_errors(watched: Prometheus) -> None:
    groups = watched.get("rules")["groups"]
    loaded = {rule["name"] for group in groups for rule in group["rules"]}
    assert loaded == {rule.get("record") or rule["alert"] for rule in rules()}
    assert [rule["lastError"] for group in groups for rule in group["rules"] if rule.get("lastError")] == []


@needs_umockdev
@needs_prometheus
def test_what_an_ems_does_is_counted_as_it_did_it(watched: Prometheus) -> None:
    (writes,) = watched.ask('dertwin_register_writes_total{device="bess-1"}')
    assert writes["metric"]["command"] == "heartbeat"
    requests = watched.ask('dertwin_modbus_requests_total{device="bess-1"}')
    assert {(r["metric"]["function"], r["metric"]["outcome"]) for r in requests} == {
        ("write_single_register", "ok")
    }
    (frames,) = watched.ask('dertwin_line_frames_total{frame="own",link!="rtu usb:FT1"}')
    (replies,) = watched.ask('dertwin_modbus_request_duration_seconds_count{kind="rtu",link!="rtu usb:FT1"}')
    assert 0 < float(frames["value"][1]) - float(replies["value"][1]) + 2 < 4


@needs_prometheus
def test_what_we_write_is_good_by_the_linter_of_prometheus(tmp_path: Path) -> None:
    site, _, _ = full_site(tmp_path)
    port = free_port()
    with service(site, tmp_path, "--listen-metrics", f"127.0.0.1:{port}"):
        text = subprocess.run(
            ["curl", "-sf", f"http://127.0.0.1:{port}/metrics"], capture_output=True, check=True
        ).stdout
    done = subprocess.run(["promtool", "check", "metrics"], input=text, capture_output=True)
    assert done.returncode == 0, done.stdout + done.stderr


def generator() -> ModuleType:
    spec = importlib.util.spec_from_file_location("generate", ROOT / "configs/grafana/generate.py")
    assert spec
    assert spec.loader
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_the_dashboards_are_those_that_the_generator_writes() -> None:
    written = generator().dashboards()
    assert sorted(written) == DASHBOARDS
    for path, text in written.items():
        assert path.read_text() == text, f"{path.name} is out of date: python configs/grafana/generate.py"


def test_grafana_and_the_compose_file_find_what_they_name() -> None:
    compose = yaml.safe_load((ROOT / "compose.dashboards.yml").read_text())
    mounted = {}
    for container in compose["services"].values():
        for volume in container["volumes"]:
            source, target, *_ = volume.split(":")
            if source.startswith("."):
                assert (ROOT / source).is_dir(), source
                mounted[target] = ROOT / source
            else:
                assert source in compose["volumes"]
    (provider,) = yaml.safe_load((ROOT / "configs/grafana/provisioning/dashboards/dertwin.yml").read_text())[
        "providers"
    ]
    assert mounted[provider["options"]["path"]] == ROOT / "configs/grafana/dashboards"
    (source,) = yaml.safe_load(
        (ROOT / "configs/grafana/provisioning/datasources/prometheus.yml").read_text()
    )["datasources"]
    listens = next(w for w in compose["services"]["prometheus"]["command"] if "listen-address" in w)
    assert source["url"] == f"http://{listens.split('=')[1]}"


def test_the_documentation_has_every_dashboard_and_alert() -> None:
    page = (ROOT / "docs/metrics.md").read_text()
    rows = set(re.findall(r"^\| ([^|`]+) \|", page, re.MULTILINE))
    titles = {json.loads(path.read_text())["title"].removeprefix("dertwin: ") for path in DASHBOARDS}
    assert titles <= rows
    assert {rule["alert"] for rule in rules() if "alert" in rule} <= rows


def test_the_web_config_of_the_documentation_is_good() -> None:
    (block,) = re.findall(
        r"^```yaml\n(.*?)^```", (ROOT / "docs/metrics.md").read_text(), re.MULTILINE | re.DOTALL
    )
    assert WebConfig.model_validate(yaml.safe_load(block)).basic_auth_users
