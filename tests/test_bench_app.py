"""A bench in use: devices that come and go while it serves, steps by hand, speed, several bindings."""

import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from pydantic import ValidationError
from support.bus import Bus
from support.inprocess import Running, running
from support.service import free_port, wait_for
from support.sites import MAP, READ_SETPOINT, battery, rtu, setpoint_is, site, write_setpoint
from support.tcp import Client, ask

from dertwin.config_errors import ConfigErrors
from dertwin.modbus.rtu import frame

LOAD_W = 5000.0
START = b"\x06\x00\x02\x00\x01"
MAP_WITH_START = (
    MAP
    + """
  - {name: start, internal_name: start_stop_standby, address: 2, type: uint16, count: 1,
     func: 0x06, direction: write}
"""
)


class Plant:
    """A running bench whose only battery is unit 1 at `port`; no step is made but by `tick`."""

    def __init__(self, run: Running, folder: Path, port: int) -> None:
        self.bench = run.bench
        self.folder = folder
        self.port = port
        self._run = run

    def tick(self) -> Any:
        return self._run.call(self.bench.tick)

    def add(self, config: dict[str, Any]) -> str:
        return self._run.call(self.bench.add_asset, config)

    def remove(self, asset_id: str) -> None:
        self._run.call(self.bench.remove_asset, asset_id)

    def settle(self) -> None:
        self._run.wait(self.bench.settled())

    def replace(self, asset_id: str, config: dict[str, Any]) -> str:
        """Remove a device and add another in one go, with no turn of the event loop between."""

        def both() -> str:
            self.bench.remove_asset(asset_id)
            return self.bench.add_asset(config)

        return self._run.call(both)


@pytest.fixture
def plant(tmp_path: Path) -> Iterator[Plant]:
    port = free_port()
    config = site(
        tmp_path, battery({"port": port}, asset_id="old"), real_time=False, load={"base_w": LOAD_W}, step=1.0
    )
    (tmp_path / "map.yaml").write_text(MAP_WITH_START)
    with running(config, tmp_path) as run:
        yield Plant(run, tmp_path, port)


def test_without_real_time_only_the_caller_makes_steps_and_a_write_shows_after_the_next_one(
    plant: Plant,
) -> None:
    ask(plant.port, write_setpoint(1234))
    assert plant.bench.site.time_s == 0.0
    assert plant.bench.clock is None
    assert ask(plant.port) == setpoint_is(1234)
    snapshot = plant.tick()
    assert plant.bench.site.time_s == 1.0
    assert snapshot.measurements["old"].active_power_setpoint_w == 1234.0


def test_a_device_added_at_a_new_address_is_served_and_counts_in_the_next_balance(
    plant: Plant,
) -> None:
    assert plant.tick().pcc.active_power_w == LOAD_W
    port = free_port()
    asset_id = plant.add(battery({"port": port, "unit_id": 9}, max_discharge_kw=100.0))
    plant.settle()
    assert ask(port, START, unit_id=9) == START
    ask(port, write_setpoint(3000), unit_id=9)
    for _ in range(30):
        snapshot = plant.tick()
    delivered_w = snapshot.measurements[asset_id].active_power_w
    assert delivered_w == pytest.approx(3000.0, rel=0.01)
    assert snapshot.pcc.active_power_w == pytest.approx(LOAD_W - delivered_w, rel=1e-9)


def test_a_device_added_to_a_link_in_use_answers_on_connections_that_are_already_open(plant: Plant) -> None:
    with Client(plant.port) as client:
        assert client.ask(READ_SETPOINT, 2) == b"\x83\x0b"
        plant.add(battery({"port": plant.port, "unit_id": 2}))
        client.ask(write_setpoint(22), 2)
        assert (client.ask(READ_SETPOINT, 2), client.ask(READ_SETPOINT, 1)) == (
            setpoint_is(22),
            setpoint_is(0),
        )


def test_a_serial_line_may_be_added_and_removed(plant: Plant) -> None:
    line = plant.folder / "line"
    asset_id = plant.add(battery(rtu(line, 1, fallback="pty"), rtu(line, 2, fallback="pty")))
    plant.settle()
    bus = Bus(f"{line}_client")
    for unit_id in (1, 2):
        bus.send(frame(unit_id, READ_SETPOINT))
        assert bus.receive(7) == frame(unit_id, setpoint_is(0))
    bus.close()
    plant.remove(asset_id)
    wait_for(lambda: not line.is_symlink(), what="the end of the pair")


def test_a_removed_device_is_gone_from_link_and_balance_while_its_neighbours_stay(plant: Plant) -> None:
    asset_id = plant.add(battery({"port": plant.port, "unit_id": 2}))
    with Client(plant.port) as client:
        assert len(client.ask(READ_SETPOINT, 2)) == 4
        plant.remove(asset_id)
        assert set(plant.tick().measurements) == {"old"}
        # The one that is left is alone again, and answers for 0 as a server of one unit does.
        assert client.ask(READ_SETPOINT, 2) == b"\x83\x0b"
        assert client.ask(READ_SETPOINT, 0) == client.ask(READ_SETPOINT, 1) == setpoint_is(0)


def test_a_link_is_closed_when_its_last_unit_goes_and_may_be_opened_again_at_once(plant: Plant) -> None:
    with Client(plant.port) as client:
        client.ask(READ_SETPOINT)
        plant.remove("old")
        assert client.is_closed()
    assert plant.bench.links == plant.bench.status == {}
    with pytest.raises(ConnectionRefusedError):
        Client(plant.port)
    plant.tick()
    plant.add(battery({"port": plant.port}, asset_id="old"))
    plant.settle()
    assert ask(plant.port) == setpoint_is(0)


def test_a_device_may_take_the_place_of_another_in_one_go(plant: Plant) -> None:
    line = plant.folder / "line"
    asset_id = plant.add(battery(rtu(line, fallback="pty")))
    plant.settle()
    for _ in range(3):
        plant.replace("old", battery({"port": plant.port}, asset_id="old"))
        asset_id = plant.replace(asset_id, battery(rtu(line, fallback="pty")))
    plant.settle()
    assert all(status.up for status in plant.bench.status.values())
    assert ask(plant.port) == setpoint_is(0)
    bus = Bus(f"{line}_client")
    bus.send(frame(1, READ_SETPOINT))
    assert bus.receive(7) == frame(1, setpoint_is(0))
    bus.close()


@pytest.mark.parametrize(
    ("config", "error", "message"),
    [
        ({"asset_id": "old", "unit_id": 2}, ValueError, "asset id 'old' is taken; the site has old"),
        (
            {"unit_id": 1},
            ConfigErrors,
            r"unit_id: 1 is not allowed; it is the unit_id of old\.",
        ),
        ({"unit_id": 2, "max_connections": 3}, ConfigErrors, "max_connections: 3 is not allowed; use 64"),
        ({"unit_id": 2, "ip": "0.0.0.0"}, ConfigErrors, "0.0.0.0.* is not allowed; port .* is taken by old"),
        ({"unit_id": 2, "register_map": "no.yaml"}, ConfigErrors, "no.yaml.* is not a file"),
        ({"unit_id": 256}, ValidationError, "unit_id"),
    ],
)
def test_what_cannot_be_added_is_named_and_leaves_nothing_behind(
    plant: Plant, config: dict[str, Any], error: type[Exception], message: str
) -> None:
    config = dict(config)
    name = {"asset_id": config.pop("asset_id")} if "asset_id" in config else {}
    other_port = free_port()
    links = dict(plant.bench.links)
    with pytest.raises(error, match=message):
        plant.add(battery({"port": other_port}, {"port": plant.port, **config}, **name))
    assert plant.bench.links == links
    assert set(plant.bench.site.devices) == set(plant.tick().measurements) == {"old"}
    with Client(plant.port) as client:
        assert client.ask(READ_SETPOINT, 1) == setpoint_is(0)
        assert client.ask(READ_SETPOINT, 2) == b"\x83\x0b"
    assert plant.add(battery({"port": other_port}, asset_id="new")) == "new"


def test_removing_what_is_not_there_is_an_error_that_names_what_is(plant: Plant) -> None:
    with pytest.raises(ValueError, match="no asset 'other'; the site has old"):
        plant.remove("other")
    assert len(ask(plant.port)) == 4


@pytest.fixture
def twice(tmp_path: Path) -> Iterator[Plant]:
    """One battery at two addresses, through two different maps."""
    port, other_port = free_port(), free_port()
    config = site(
        tmp_path,
        battery({"port": port}, {"port": other_port, "register_map": "other.yaml"}, asset_id="both"),
        real_time=False,
        step=1.0,
    )
    (tmp_path / "map.yaml").write_text(MAP_WITH_START)
    (tmp_path / "other.yaml").write_text(MAP.replace("address: 0", "address: 5"))
    with running(config, tmp_path) as run:
        yield Plant(run, tmp_path, port)


def test_a_device_with_two_bindings_is_stepped_once_and_both_show_the_same(twice: Plant) -> None:
    port, other_port = (int(link.name.rpartition(":")[2]) for link in twice.bench.links.values())
    read_other, write_other = b"\x03\x00\x05\x00\x01", b"\x06\x00\x05\x00\x07"
    assert ask(port, START) == START
    ask(port, write_setpoint(2000))
    measured = [twice.tick().measurements["both"] for _ in range(40)]
    assert ask(port) == ask(other_port, read_other) == setpoint_is(2000)
    # Twice the steps would be twice the energy.
    delivered_wh = measured[-1].discharged_energy_wh - measured[-11].discharged_energy_wh
    assert measured[-11].active_power_w == pytest.approx(2000.0)
    assert delivered_wh == pytest.approx(2000.0 * 10.0 / 3600.0)

    # The last write wins, whichever way it came.
    ask(other_port, write_other)
    ask(port, write_setpoint(5))
    twice.tick()
    assert ask(port) == ask(other_port, read_other) == setpoint_is(5)
    ask(port, write_setpoint(5))
    ask(other_port, write_other)
    twice.tick()
    assert ask(port) == ask(other_port, read_other) == setpoint_is(7)


def test_at_a_hundredfold_speed_a_hundred_simulated_seconds_take_one(tmp_path: Path) -> None:
    config = site(tmp_path, battery({"port": free_port()}), speed=100.0)
    with running(config, tmp_path) as run:
        start, start_s = time.monotonic(), run.bench.site.time_s
        wait_for(lambda: run.bench.site.time_s >= start_s + 100.0)
        took_s, simulated_s = time.monotonic() - start, run.bench.site.time_s - start_s
    assert simulated_s / took_s == pytest.approx(100.0, rel=0.1)


def test_a_site_too_fast_for_its_machine_skips_steps_but_answers_and_stops(tmp_path: Path) -> None:
    port = free_port()
    units = [battery({"port": port, "unit_id": unit_id}) for unit_id in range(1, 101)]
    with running(site(tmp_path, *units, speed=1000.0), tmp_path) as run:
        clock = wait_for(lambda: run.bench.clock)
        slowest_s = 0.0
        while not clock.skipped:
            start = time.monotonic()
            assert len(ask(port)) == 4
            slowest_s = max(slowest_s, time.monotonic() - start)
        assert slowest_s < 0.5
        start = time.monotonic()
    assert time.monotonic() - start < 1.0
