"""The units: what systemd makes of them here, and of the service that they run in a container."""

import json
import re
import shutil
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from support.container import OWN_CONFIG, Container, container, install, make
from support.service import wait_for
from support.sites import MAP, READ_SETPOINT, battery, rtu, setpoint_is, write_setpoint

ROOT = Path(__file__).parent.parent
UNITS = sorted((ROOT / "systemd").glob("*.service"))
HIGHEST_EXPOSURE = 2.0
LOW_PORT = 502
RESTART_S = 1.5
SITE = "dertwin.service"

needs_systemd = pytest.mark.skipif(shutil.which("systemd-analyze") is None, reason="needs systemd-analyze")


@pytest.fixture(scope="module")
def installed(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return install(tmp_path_factory)


@pytest.fixture(scope="module")
def host(installed: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Container]:
    with container(installed, tmp_path_factory.mktemp("container")) as host:
        (host.root / "etc/dertwin/map.yaml").write_text(MAP)
        # The limit of the unit, 20 s, is long for a test.
        drop_in = host.root / "etc/systemd/system/dertwin.service.d/quick.conf"
        drop_in.parent.mkdir(parents=True)
        drop_in.write_text("[Service]\nWatchdogSec=2\nRestartSec=100ms\n")
        host.run("systemctl", "daemon-reload")
        yield host


@pytest.fixture
def service(host: Container) -> Iterator[Container]:
    """A started service with a battery on port 502, a virtual line, and an adapter that is not there."""
    host.run("rm", "-rf", "/var/lib/dertwin")
    configure(host, site())
    host.run("systemctl", "start", SITE)
    yield host
    host.run("systemctl", "stop", SITE)
    host.run("systemctl", "reset-failed", SITE, check=False)


def site(**battery_config: Any) -> dict[str, Any]:
    bindings = {"port": LOW_PORT}, rtu("pty:bench"), rtu("/dev/ttyUSB77")
    asset = battery(*bindings, asset_id="bess-1", **battery_config)
    return {"register_map_root": ".", "assets": [asset]}


def configure(host: Container, config: dict[str, Any], name: str = "site") -> None:
    (host.root / f"etc/dertwin/{name}.json").write_text(json.dumps(config))


def status(host: Container) -> str:
    return host.show(SITE)["StatusText"]


@needs_systemd
@pytest.mark.parametrize("unit", UNITS, ids=lambda unit: unit.name)
def test_systemd_finds_nothing_wrong_with_a_unit(unit: Path, tmp_path: Path) -> None:
    text = unit.read_text()
    assert "/opt/dertwin/bin/python3" in text
    copy = tmp_path / unit.name.replace("@", "@test")
    copy.write_text(text.replace("/opt/dertwin/bin/python3", sys.executable))
    verified = subprocess.run(["systemd-analyze", "verify", copy], capture_output=True, text=True)
    assert (verified.returncode, verified.stderr) == (0, "")


@needs_systemd
@pytest.mark.parametrize("unit", UNITS, ids=lambda unit: unit.name)
def test_the_exposure_of_a_unit_is_low(unit: Path) -> None:
    command = ["systemd-analyze", "security", "--offline=true", "--no-pager", unit]
    printed = subprocess.run(command, capture_output=True, text=True).stdout
    (exposure,) = re.findall(r"Overall exposure level for \S+: ([\d.]+)", printed)
    assert float(exposure) <= HIGHEST_EXPOSURE


def test_the_template_is_the_same_unit_for_another_site() -> None:
    single, template = (unit.read_text() for unit in (UNITS[0], UNITS[1]))
    for one, other in (
        ("Modbus\n", "Modbus (%i)\n"),
        ("/site.", "/%i."),
        ("StateDirectory=dertwin", "StateDirectory=dertwin/%i"),
        ("RuntimeDirectory=dertwin", "RuntimeDirectory=dertwin-%i"),
    ):
        assert one in single
        single = single.replace(one, other)
    assert single == template


def test_what_is_installed_is_uninstalled_again_but_for_the_config(installed: Path, tmp_path: Path) -> None:
    copy = tmp_path / "copy"
    shutil.copytree(installed, copy, symlinks=True)
    assert (copy / "usr/lib/systemd/system/dertwin@.service").exists()
    assert str((copy / "usr/bin/dertwin").readlink()) == "/opt/dertwin/bin/dertwin"
    assert (copy / "opt/dertwin/bin/dertwin").read_text().startswith("#!/opt/dertwin/bin/python3\n")
    make(copy, "uninstall")
    (left,) = [path for path in copy.rglob("*") if not path.is_dir()]
    assert left == copy / "etc/dertwin/site.json"
    assert left.read_text() == OWN_CONFIG


def test_the_service_is_active_once_it_answers_on_a_port_below_1024(service: Container) -> None:
    assert service.ask(LOW_PORT, READ_SETPOINT) == setpoint_is(0)
    unit = service.show(SITE)
    assert (unit["ActiveState"], unit["SubState"], unit["NRestarts"]) == ("active", "running", "0")
    assert "1 devices, 2 of 3 links up" in unit["StatusText"]
    assert "ttyUSB77" in unit["StatusText"]


def test_the_service_runs_as_its_own_user_ahead_of_other_programs(service: Container) -> None:
    process = service.show(SITE)["MainPID"]
    assert service.run("ps", "-o", "user=,cls=", "-p", process).split() == ["dertwin", "RR"]
    groups = service.run("ps", "-o", "supgrp=", "-p", process).strip()
    assert set(groups.split(",")) == {"dertwin", "dialout"}


def test_any_user_can_open_the_client_end_of_a_virtual_line(service: Container) -> None:
    link = "/run/dertwin/dertwin_bench_client"
    service.run("runuser", "-u", "nobody", "--", "test", "-r", link, "-a", "-w", link)


def test_the_journal_can_be_asked_for_a_device(service: Container) -> None:
    entries = service.journal("-u", SITE, "DEVICE=bess-1", "EVENT=link up")
    assert {entry["LINK"] for entry in entries} == {f"tcp 127.0.0.1:{LOW_PORT}", "rtu pty:bench"}
    assert {entry["PRIORITY"] for entry in entries} == {"6"}
    down = service.journal("-u", SITE, "DEVICE=bess-1", "PRIORITY=4")
    assert any("/dev/ttyUSB77" in entry["MESSAGE"] for entry in down)


def test_a_killed_service_is_back_with_its_state(service: Container) -> None:
    service.ask(LOW_PORT, write_setpoint(7))
    service.run("systemctl", "restart", SITE)  # saves it
    assert service.ask(LOW_PORT, READ_SETPOINT) == setpoint_is(7)
    service.run("kill", "-KILL", service.show(SITE)["MainPID"])
    wait_for(lambda: service.show(SITE)["NRestarts"] == "1", 10.0)
    wait_for(lambda: service.ask(LOW_PORT, READ_SETPOINT) == setpoint_is(7), 10.0)


def test_a_service_whose_clock_stands_still_is_restarted(service: Container) -> None:
    process = service.show(SITE)["MainPID"]
    service.run("kill", "-STOP", process)
    wait_for(lambda: service.show(SITE)["NRestarts"] == "1", 20.0)
    wait_for(lambda: service.ask(LOW_PORT, READ_SETPOINT), 10.0)
    assert any("Watchdog timeout" in entry["MESSAGE"] for entry in service.journal("-u", SITE))


def test_the_journal_shows_where_a_service_was_stuck(service: Container) -> None:
    # As systemd does when nothing feeds the watchdog.
    service.run("kill", "-ABRT", service.show(SITE)["MainPID"])
    wait_for(lambda: service.show(SITE)["NRestarts"] == "1", 10.0)
    messages = [entry["MESSAGE"] for entry in service.journal("-u", SITE)]
    assert any("Fatal Python error: Aborted" in message for message in messages)
    assert any("serve.py" in message for message in messages)


def test_a_reload_with_a_bad_config_leaves_the_service_as_it_is_and_says_so(service: Container) -> None:
    before = service.show(SITE)["MainPID"]
    configure(service, site(capacity_kwh=-1))
    service.run("systemctl", "reload", SITE)
    wait_for(lambda: "config refused" in status(service) and "capacity_kwh" in status(service))
    assert service.show(SITE)["ActiveState"] == "active"
    assert service.ask(LOW_PORT, READ_SETPOINT)
    configure(service, site(capacity_kwh=80))
    service.run("systemctl", "reload", SITE)
    wait_for(lambda: status(service).startswith("1 devices"))
    assert service.show(SITE)["MainPID"] == before


def test_a_service_with_a_bad_config_is_not_restarted(service: Container) -> None:
    service.run("systemctl", "stop", SITE)
    configure(service, site(capacity_kwh=-1))
    service.run("systemctl", "start", SITE, check=False)
    unit = service.show(SITE)
    assert (unit["ActiveState"], unit["ExecMainStatus"], unit["NRestarts"]) == ("failed", "78", "0")
    assert any("capacity_kwh" in entry["MESSAGE"] for entry in service.journal("-u", SITE))


def test_a_restart_takes_less_than_its_limit(service: Container) -> None:
    start = time.monotonic()
    service.run("systemctl", "restart", SITE)
    restarted_s = time.monotonic() - start
    assert service.ask(LOW_PORT, READ_SETPOINT)
    assert restarted_s <= RESTART_S


def test_several_sites_run_on_one_host(service: Container) -> None:
    config = {"register_map_root": ".", "assets": [battery({"port": 1502}, asset_id="other")]}
    configure(service, config, "second")
    service.run("systemctl", "start", "dertwin@second.service")
    assert service.ask(1502, READ_SETPOINT)
    assert service.ask(LOW_PORT, READ_SETPOINT)
    service.run("systemctl", "stop", SITE, "dertwin@second.service")
    states = service.root / "var/lib/dertwin"
    assert (states / "site.json").exists()
    assert (states / "second/site.json").exists()
