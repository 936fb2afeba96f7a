"""A config is read again while its site is served: what is the same in it goes on, the rest is replaced."""

import contextlib
import json
import os
import pty
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from support.bus import Bus
from support.inprocess import Running, running
from support.service import free_port, service, wait_for
from support.sites import MAP, READ_SETPOINT, battery, rtu, setpoint_is, site, write_setpoint
from support.tcp import Client, ask

from bench.check import check_site
from bench.links.pty import client_end
from dertwin.modbus.rtu import frame

READ_SHIFTED = b"\x03\x00\x05\x00\x01"
NOT_THERE = b"\x83\x0b"


class Site:
    """A served site that stands still between calls of `tick`, and its config file."""

    def __init__(self, run: Running, folder: Path) -> None:
        self.bench = run.bench
        self._run = run
        self._folder = folder

    def tick(self, dt_s: float | None = None) -> Any:
        return self._run.call(self.bench.tick, dt_s)

    def reload(self, *assets: dict[str, Any], **config: Any) -> None:
        path = self._folder / "site.json"
        path.write_text(json.dumps(site(self._folder, *assets, **{"real_time": False} | config)))
        self.reload_file()

    def reload_file(self) -> None:
        checked = check_site(self._folder / "site.json")
        self._run.wait(self.bench.reload(checked))
        self._run.wait(self.bench.settled())


def reply(bus: Bus, unit_id: int) -> bytes:
    bus.send(frame(unit_id, READ_SETPOINT))
    return bus.receive(7)


@pytest.fixture
def port() -> int:
    return free_port()


@pytest.fixture
def served(tmp_path: Path, port: int) -> Iterator[Site]:
    with running(site(tmp_path, battery({"port": port}), real_time=False), tmp_path) as run:
        yield Site(run, tmp_path)


def test_a_client_of_a_link_that_stays_notices_nothing(served: Site, port: int) -> None:
    with Client(port) as client:
        client.ask(write_setpoint(3))
        served.reload(battery({"port": port}), battery({"port": free_port()}))
        assert client.ask(READ_SETPOINT) == setpoint_is(3)
        served.tick()  # the write was accepted before the reload, the step comes after it
        assert client.ask(READ_SETPOINT) == setpoint_is(3)
        assert served.bench.site.devices["bess-1"].state.active_power_setpoint_w == 3.0


def test_links_and_units_that_stay_count_on(served: Site, port: int) -> None:
    ask(port)
    (link,) = served.bench.links.values()
    (status,) = served.bench.status.values()
    served.reload(battery({"port": port}), battery({"port": free_port()}))
    ask(port)
    assert link in served.bench.links.values()
    assert status.times_up == 1
    assert link.units[1].requests[3, 0] == 2


def test_a_link_with_other_settings_is_opened_anew_at_the_same_place(served: Site, port: int) -> None:
    with Client(port) as client:
        client.ask(write_setpoint(3))
        served.tick()
        served.reload(battery({"port": port, "max_connections": 5}))
        assert client.is_closed()
    assert ask(port) == setpoint_is(3)


def test_an_address_may_grow_to_all_addresses(served: Site, port: int) -> None:
    served.reload(battery({"port": port, "ip": "0.0.0.0"}))
    assert all(status.up for status in served.bench.status.values())
    assert ask(port)


def test_links_go_with_their_last_unit_and_come_with_their_first(served: Site, port: int) -> None:
    new = free_port()
    served.reload(battery({"port": new}))
    with pytest.raises(ConnectionRefusedError):
        ask(port)
    assert ask(new)


def test_units_come_and_go_on_a_link_that_stays(served: Site, port: int) -> None:
    with Client(port) as client:
        one, two = battery({"port": port}), battery({"port": port, "unit_id": 2}, asset_id="two")
        served.reload(one, two)
        assert client.ask(READ_SETPOINT, unit_id=2)
        served.reload(two)
        assert client.ask(READ_SETPOINT, unit_id=2)
        served.reload(one, battery({"port": port, "unit_id": 3}, asset_id="three"))
        assert client.ask(READ_SETPOINT, unit_id=2) == NOT_THERE
        assert client.ask(READ_SETPOINT, unit_id=3)


@pytest.mark.parametrize(
    ("change", "setpoint"),
    [({"watchdog": {"timeout_s": 60}}, 3), ({"capacity_kwh": 70}, 0), ({"asset_id": "another"}, 0)],
)
def test_a_device_goes_on_if_it_is_still_the_same(
    served: Site, port: int, change: dict[str, Any], setpoint: int
) -> None:
    ask(port, write_setpoint(3))
    served.tick()
    served.reload(battery({"port": port}, **change))
    assert ask(port) == setpoint_is(setpoint)


def test_a_write_to_a_device_that_is_replaced_does_not_reach_its_successor(served: Site, port: int) -> None:
    ask(port, write_setpoint(3))
    served.reload(battery({"port": port}, capacity_kwh=70))
    served.tick()
    assert ask(port) == setpoint_is(0)


def test_a_changed_register_map_is_served_to_clients_that_stay(
    served: Site, port: int, tmp_path: Path
) -> None:
    with Client(port) as client:
        client.ask(write_setpoint(3))
        served.tick()
        (tmp_path / "map.yaml").write_text(MAP.replace("address: 0,", "address: 5,"))
        served.reload_file()
        assert client.ask(READ_SHIFTED) == setpoint_is(3)


def test_time_goes_on_in_changed_surroundings(served: Site, port: int) -> None:
    served.tick(100.0)
    served.reload(battery({"port": port}), start_time_h=6, load={"base_w": 700})
    snapshot = served.tick(1.0)
    assert snapshot.time_s == 101.0
    assert snapshot.conditions.time_s == 6 * 3600 + 101.0
    assert snapshot.conditions.load_w == 700


def test_the_grid_makes_no_jump_when_its_config_stays(tmp_path: Path, port: int) -> None:
    grid = {"external_models": {"grid_frequency": {"drift_std": 0.1, "noise_std": 0.02}}}
    config = site(tmp_path, battery({"port": port}), real_time=False, **grid)
    frequencies = []
    for reload in (False, True):
        with running(config, tmp_path) as run:
            served = Site(run, tmp_path)
            served.tick(60.0)
            if reload:
                served.reload(battery({"port": port}, capacity_kwh=5), **grid)
                served.tick(0.0)
            frequencies.append(served.bench.site.snapshot.conditions.frequency_hz)
    assert frequencies[0] == frequencies[1]


def test_the_clock_takes_the_new_pace_at_once(served: Site, port: int) -> None:
    bench = served.bench
    assert bench.clock is None
    served.reload(battery({"port": port}), real_time=True, step=3600)
    slow = bench.clock
    served.reload(battery({"port": port}), real_time=True, step=0.01)
    assert bench.clock is slow
    wait_for(lambda: bench.clock.steps >= 3)
    served.reload(battery({"port": port}), real_time=False)
    assert bench.clock is None
    stands_at = bench.site.time_s
    served.tick()
    assert bench.site.time_s == stands_at + 0.1


def test_a_virtual_line_that_stays_keeps_its_terminals(tmp_path: Path) -> None:
    line = str(tmp_path / "line")
    bindings = rtu(line, fallback="pty")
    with running(site(tmp_path, battery(bindings), real_time=False), tmp_path) as run:
        served = Site(run, tmp_path)
        terminals = os.readlink(line), os.readlink(client_end(line))
        with contextlib.closing(Bus(client_end(line))) as bus:
            assert reply(bus, 1) == frame(1, setpoint_is(0))
            served.reload(battery(bindings), battery(rtu(line, 2, fallback="pty")))
            assert reply(bus, 2) == frame(2, setpoint_is(0))
            assert reply(bus, 1) == frame(1, setpoint_is(0))
        assert (os.readlink(line), os.readlink(client_end(line))) == terminals


def test_a_bad_config_is_told_fault_by_fault_and_the_site_goes_on(tmp_path: Path, port: int) -> None:
    good = site(tmp_path, battery({"port": port}))
    with service(good, tmp_path) as run, Client(port) as client:
        client.ask(write_setpoint(3))
        faulty = good | {"step": -1, "speed": "fast"}
        (tmp_path / "site.json").write_text(json.dumps(faulty))
        run.process.send_signal(signal.SIGHUP)
        wait_for(lambda: len(run.events("config refused")) == 2)
        assert client.ask(READ_SETPOINT) == setpoint_is(3)
        (tmp_path / "site.json").write_text(json.dumps(good | {"step": 0.05}))
        run.process.send_signal(signal.SIGHUP)
        wait_for(lambda: run.events("config reloaded"))
        assert client.ask(READ_SETPOINT) == setpoint_is(3)
        assert run.stop()[0] == 0


def test_a_config_that_is_gone_or_no_document_is_bad_too(tmp_path: Path, port: int) -> None:
    with service(site(tmp_path, battery({"port": port})), tmp_path) as run:
        for count, damage in enumerate((lambda path: path.write_text("{"), lambda path: path.unlink()), 1):
            damage(tmp_path / "site.json")
            run.process.send_signal(signal.SIGHUP)
            wait_for(lambda count=count: len(run.events("config refused")) == count)
        assert ask(port)


def test_links_that_stay_answer_in_time_during_a_reload(tmp_path: Path, port: int) -> None:
    config = site(tmp_path, battery({"port": port}))
    more = [battery({"port": free_port()}, asset_id=f"more-{n}") for n in range(20)]
    with service(config, tmp_path) as run, Client(port) as client:
        (tmp_path / "site.json").write_text(json.dumps(config | {"assets": config["assets"] + more}))
        run.process.send_signal(signal.SIGHUP)
        slowest_s = 0.0
        while not run.events("config reloaded"):
            start = time.monotonic()
            client.ask(READ_SETPOINT)
            slowest_s = max(slowest_s, time.monotonic() - start)
        assert slowest_s < 0.5


def test_a_service_ends_with_its_terminal(tmp_path: Path, port: int) -> None:
    path = tmp_path / "site.json"
    path.write_text(json.dumps(site(tmp_path, battery({"port": port}))))
    ours, theirs = pty.openpty()
    command = [sys.executable, "-m", "bench.cli", "run", "-c", str(path), "--state-dir", str(tmp_path / "s")]
    in_terminal = ["setsid", "--ctty", "--wait", *command]
    with subprocess.Popen(in_terminal, stdin=theirs, stdout=theirs, stderr=theirs) as process:
        os.close(theirs)
        printed = b""
        while b"127.0.0.1" not in printed.partition(b"Serving")[2]:
            printed += os.read(ours, 4096)
        os.close(ours)
        assert process.wait(10) == 0
    assert (tmp_path / "s/site.json").exists()
