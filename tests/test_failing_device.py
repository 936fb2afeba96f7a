"""A device whose step raises: it is out, is refused and named; the others go on."""

import asyncio
import json
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from structlog.testing import capture_logs
from support.inprocess import Running, running
from support.service import free_port, service, wait_for
from support.sites import READ_SETPOINT, battery, setpoint_is, site, write_setpoint
from support.tcp import Client, ask
from support.watch import get, watched

from bench.app import Bench
from bench.check import check_site
from bench.exposition import exposition
from bench.metrics import registry
from bench.notify import Notifier
from bench.state import capture
from dertwin.devices.device import Command
from dertwin.faults import Frozen
from dertwin.modbus.rtu import frame
from dertwin.site import Site, build_site

REASON = "bess-1 has failed: AttributeError: 'NoneType' object has no attribute"
DISCHARGE = (Command("start_stop_standby", 1.0), Command("active_power_setpoint_w", 3000.0))
EVERY_REQUEST = [READ_SETPOINT, write_setpoint(7), b"\x04\x00\x00\x00\x01", b"\x08\x00\x00\x00\x01", b"\x63"]


def break_down(site: Site, *asset_ids: str) -> None:
    """Let all further steps of devices raise, as a defect in their model would."""
    for asset_id in asset_ids:
        site.devices[asset_id].state = None


def plant() -> Site:
    assets = [{"type": "bess"}, {"type": "bess"}, {"type": "energy_meter"}]
    twin = build_site({"assets": assets, "load": {"base_w": 10_000.0}, "step": 1.0})
    twin.step({"bess-1": DISCHARGE, "bess-2": DISCHARGE})
    return twin


def test_its_power_counts_as_none_from_the_step_on_in_which_it_fails_and_the_others_go_on() -> None:
    twin = plant()
    assert twin.step().pcc.active_power_w == 4000.0
    break_down(twin, "bess-1")
    for _ in range(2):
        snapshot = twin.step()
        assert snapshot.pcc.active_power_w == 7000.0
        assert snapshot.measurements["energy_meter-1"].active_power_w == 7000.0
        assert set(snapshot.measurements) == {"bess-2", "energy_meter-1"}
    assert twin.time_s == 4.0
    (error,) = twin.failed.values()
    assert isinstance(error, AttributeError)


def test_a_power_that_is_not_there_is_a_failure_too_and_spoils_no_balance() -> None:
    twin = plant()
    measured = twin.devices["bess-1"].measurements
    twin.devices["bess-1"].step = lambda *_: measured[:3]
    assert twin.step().pcc == (7000.0, 0.0)
    assert set(twin.failed) == {"bess-1"}


def test_a_meter_may_fail_as_well() -> None:
    twin = plant()
    break_down(twin, "energy_meter-1")
    assert set(twin.step().measurements) == {"bess-1", "bess-2"}
    assert set(twin.failed) == {"energy_meter-1"}


def test_commands_for_it_are_dropped() -> None:
    twin = plant()
    break_down(twin, "bess-1")
    for _ in range(2):
        twin.step({"bess-1": DISCHARGE, "bess-2": (Command("active_power_setpoint_w", 0.0),)})
    assert twin.snapshot.pcc.active_power_w == 10_000.0


def test_it_may_be_removed_and_another_take_its_place() -> None:
    twin = plant()
    break_down(twin, "bess-1")
    twin.step()
    twin.remove_asset("bess-1")
    assert not twin.failed
    assert twin.add_asset({"type": "bess"}) == "bess-1"
    assert set(twin.step().measurements) == {"bess-1", "bess-2", "energy_meter-1"}


def test_the_successor_of_its_site_builds_it_anew_and_only_it() -> None:
    twin = plant()
    break_down(twin, "bess-1")
    twin.step()
    after = twin.successor(twin.config)
    assert not after.failed
    assert after.step().pcc.active_power_w == 7000.0
    assert after.snapshot.measurements["bess-1"].start_stop_standby == 2


def test_a_device_that_fails_at_once_is_not_added(monkeypatch: pytest.MonkeyPatch) -> None:
    twin = plant()
    built = []

    def fail(*_: Any) -> None:
        if built:
            raise ZeroDivisionError
        built.append(1)

    monkeypatch.setattr("dertwin.devices.chp.Chp.step", fail)
    with pytest.raises(ZeroDivisionError):
        twin.add_asset({"type": "chp"})
    assert set(twin.devices) == set(twin.step().measurements) == {"bess-1", "bess-2", "energy_meter-1"}


def test_it_can_have_no_fault_on_purpose_any_more() -> None:
    twin = plant()
    break_down(twin, "bess-1")
    twin.step()
    with pytest.raises(ValueError, match="bess-1 has failed"):
        twin.start_fault(Frozen(device_fault="frozen", device="bess-1", duration=1.0))
    twin.start_fault(Frozen(device_fault="frozen", device="bess-2", duration=1.0))
    assert "bess-1" not in twin.step().shown


def test_nothing_is_saved_of_it() -> None:
    twin = plant()
    break_down(twin, "bess-1")
    twin.step()
    assert set(capture(twin).assets) == {"bess-2", "energy_meter-1"}


def test_a_broadcast_to_a_line_passes_it_by(tmp_path: Path) -> None:
    line = {"kind": "modbus_rtu_over_tcp", "port": free_port()}
    config = site(tmp_path, battery({**line, "unit_id": 1}), battery({**line, "unit_id": 2}), real_time=False)
    with running(config, tmp_path) as run, Client(line["port"]) as client:
        break_down(run.bench.site, "bess-1")
        run.call(run.bench.tick)
        client.send(frame(0, write_setpoint(7)) + frame(2, READ_SETPOINT))
        assert client.socket.recv(100) == frame(2, setpoint_is(7))
        assert run.call(run.bench.tick).measurements["bess-2"].active_power_setpoint_w == 7.0


@pytest.fixture
def ports() -> tuple[int, int]:
    return free_port(), free_port()


@pytest.fixture
def run(tmp_path: Path, ports: tuple[int, int]) -> Iterator[Running]:
    """Two batteries; the first, at both ports, has failed in the last step."""
    first, second = ports
    config = site(
        tmp_path,
        battery({"port": first}, {"port": second, "unit_id": 9}),
        battery({"port": second}),
        real_time=False,
    )
    with running(config, tmp_path) as run:
        run.call(run.bench.tick)
        ask(first, write_setpoint(5))  # accepted, and on its way to the device when that fails
        break_down(run.bench.site, "bess-1")
        run.call(run.bench.tick)
        yield run


@pytest.mark.parametrize("request_pdu", EVERY_REQUEST, ids=bytes.hex)
def test_every_request_to_it_gets_exception_04_on_each_of_its_links(
    run: Running, ports: tuple[int, int], request_pdu: bytes
) -> None:
    refused = bytes((request_pdu[0] | 0x80, 4))
    assert ask(ports[0], request_pdu) == ask(ports[1], request_pdu, 9) == refused
    run.call(run.bench.tick)
    assert ask(ports[1], write_setpoint(3)) == write_setpoint(3)
    assert run.call(run.bench.tick).measurements["bess-2"].active_power_setpoint_w == 3.0


def test_the_log_tells_it_once_with_its_traceback(tmp_path: Path) -> None:
    with (
        running(site(tmp_path, battery({"port": free_port()}), real_time=False), tmp_path) as run,
        capture_logs() as log,
    ):
        break_down(run.bench.site, "bess-1")
        for _ in range(3):
            run.call(run.bench.tick)
    (line,) = log
    assert (line["event"], line["device"], line["log_level"]) == ("device failed", "bess-1", "error")
    assert line["exc_info"].__traceback__


def test_readiness_status_metrics_and_systemd_name_it(run: Running) -> None:
    with watched(run) as port:
        status, text, _ = get(port, "/readyz")
        assert status == 503
        assert text.startswith(REASON)
        assert get(port, "/healthz").status == 200
        document = json.loads(get(port, "/status").text)
        failed, works = document["devices"]
        assert failed["failed"].startswith("AttributeError")
        assert works["failed"] is None
        metrics = get(port, "/metrics").text
        assert 'dertwin_device_failed{site="site",device="bess-1",type="bess"} 1\n' in metrics
        assert 'dertwin_device_failed{site="site",device="bess-2",type="bess"} 0\n' in metrics
        assert 'dertwin_active_power_watts{site="site",device="bess-1"' not in metrics
    assert REASON in Notifier(run.bench).status()


def test_a_reload_builds_it_anew_on_the_same_links(
    run: Running, ports: tuple[int, int], tmp_path: Path
) -> None:
    with Client(ports[0]) as client:
        assert client.ask(READ_SETPOINT) == b"\x83\x04"
        run.wait(run.bench.reload(check_site(tmp_path / "site.json")))
        assert client.ask(READ_SETPOINT) == setpoint_is(0)
        assert client.ask(write_setpoint(4)) == write_setpoint(4)
    assert run.call(run.bench.tick).measurements["bess-1"].active_power_setpoint_w == 4.0
    with watched(run) as port:
        assert get(port, "/readyz")[:2] == (200, "ok\n")


def test_it_may_be_taken_off_the_bench(run: Running, ports: tuple[int, int]) -> None:
    run.call(run.bench.remove_asset, "bess-1")
    run.call(run.bench.tick)
    with watched(run) as port:
        assert get(port, "/readyz").status == 200
    assert run.call(run.bench.add_asset, battery({"port": ports[1], "unit_id": 9})) == "bess-1"
    assert ask(ports[1], READ_SETPOINT, 9) == setpoint_is(0)


def test_a_restored_state_that_makes_it_fail_is_told_before_anybody_asks(tmp_path: Path) -> None:
    path = tmp_path / "site.json"
    path.write_text(json.dumps(site(tmp_path, battery({"port": free_port()}))))
    bench = Bench(check_site(path))
    with capture_logs() as log:
        bench.go_on_from(10.0, {"bess-1": None})
    assert [line["event"] for line in log] == ["device failed"]
    (link,) = bench.links.values()
    assert link.units[1].respond(READ_SETPOINT) == b"\x83\x04"
    assert "dertwin_device_failed" in asyncio.run(exposition(registry(bench))).decode()


DEFECT = """
import sys
import bench.cli
from {module} import {name}

step, steps = {name}.step, []

def fail_after_a_while(self, *arguments):
    steps.append(self)
    if len(steps) > 20:
        raise ZeroDivisionError("a defect")
    return step(self, *arguments)

{name}.step = fail_after_a_while
sys.exit(bench.cli.main(["run", *sys.argv[1:]]))
"""


def with_a_defect_in(module: str, name: str) -> tuple[str, ...]:
    return sys.executable, "-c", DEFECT.format(module=module, name=name)


def test_surroundings_that_fail_end_the_service(tmp_path: Path) -> None:
    config = site(tmp_path, battery({"port": free_port()}))
    command = with_a_defect_in("dertwin.environment", "Environment")
    with service(config, tmp_path, command=command) as run:
        assert run.process.wait(10.0) == 1
    assert "a defect" in (tmp_path / "service.log").read_text()


def test_a_service_with_a_device_that_fails_goes_on_and_its_log_has_the_traceback(tmp_path: Path) -> None:
    port = free_port()
    config = site(tmp_path, battery({"port": port}))
    with service(config, tmp_path, command=with_a_defect_in("dertwin.devices.bess", "Bess")) as run:
        (line,) = wait_for(lambda: run.events("device failed"))
        assert line["device"] == "bess-1"
        assert "in fail_after_a_while" in line["exception"]
        assert ask(port) == b"\x83\x04"
        assert run.stop()[0] == 0
