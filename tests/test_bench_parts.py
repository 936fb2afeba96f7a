"""A bench from a mapping: what joins devices, maps and images when nothing is read from a site file."""

import asyncio
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, ClassVar, Literal, NamedTuple

import pytest
from pydantic import Field
from support.service import free_port
from support.tcp import ask

from bench.app import Bench
from bench.check import check_asset, check_site
from bench.serve import RunOptions, serve
from dertwin.config_errors import ConfigErrors
from dertwin.devices.asset import AssetConfig
from dertwin.devices.device import Command, CommandRange, Conditions
from dertwin.registers.image import RegisterImage

SETPOINT = "active_power_setpoint_w"


def test_a_bench_serves_a_mapping() -> None:
    port = free_port()
    battery = {"type": "bess", "ip": "127.0.0.1", "port": port}

    async def first_answer() -> bytes:
        async with Bench(check_site({"real_time": False, "assets": [battery]})) as bench:
            await bench.settled()
            return await asyncio.to_thread(ask, port, b"\x04\x00\x00\x00\x01")

    assert asyncio.run(first_answer())[0] == 4


def bench_with_images(*bindings: dict[str, Any]) -> tuple[Bench, list[RegisterImage]]:
    protocols = [{"kind": "modbus_tcp", "port": 55001 + i, **binding} for i, binding in enumerate(bindings)]
    bench = Bench(check_site({"step": 1.0, "assets": [{"type": "bess", "protocols": protocols}]}))
    return bench, [unit.image for link in bench.links.values() for unit in link.units.values()]


def test_a_write_is_taken_by_the_next_step_whether_or_not_a_request_was_counted() -> None:
    bench, (image,) = bench_with_images({})
    (address,) = [
        address
        for address, register in image._layout.holding.items()
        if register.command == "heartbeat" and register.start == address
    ]
    image.write_registers(address, b"\x12\x34")
    assert bench.tick().measurements["bess-1"].heartbeat == 0x1234


def test_the_writes_of_all_bindings_are_taken_once() -> None:
    bench, images = bench_with_images({}, {})
    for image in images:
        image.requests_since_tick = 2
    bench.tick()
    assert [image.requests_since_tick for image in images] == [0, 0]
    assert [image.drain() for image in images] == [[], []]


class WindMeasurements(NamedTuple):
    active_power_w: float
    reactive_power_var: float
    heartbeat: int


class WindConfig(AssetConfig):
    """A device type that nobody but this file knows of."""

    default_map: ClassVar[str] = "wind.yaml"

    type: Literal["wind"] = "wind"
    rated_kw: float = Field(default=3000.0, gt=0)

    def build(self) -> "Wind":
        return Wind(self)


class Wind:
    state = None
    commands: Mapping[str, CommandRange] = {"heartbeat": CommandRange(0, 65535)}

    def __init__(self, config: WindConfig) -> None:
        self.config = config
        self.measurements = WindMeasurements(0.0, 0.0, 0)

    def step(
        self, conditions: Conditions, commands: Sequence[Command], requests: int, dt_s: float
    ) -> WindMeasurements:
        heartbeat = int(commands[-1].value) if commands else self.measurements.heartbeat
        self.measurements = WindMeasurements(1000.0 * self.config.rated_kw, 0.0, heartbeat)
        return self.measurements


def test_a_new_type_of_device_needs_its_file_and_its_map_only(tmp_path: Path) -> None:
    (tmp_path / "wind.yaml").write_text(
        "registers:\n"
        "- {name: p, internal_name: active_power_w, address: 0, type: int32, count: 2,"
        "   func: 4, direction: read}"
    )
    binding = {"kind": "modbus_tcp", "port": 55001}
    watchdog = {"timeout_s": 5.0, "fallback": {"heartbeat": 0}}
    asset = WindConfig.model_validate({"protocols": [binding], "watchdog": watchdog})
    (layout,) = check_asset(asset, [tmp_path])
    bench = Bench(check_site({"assets": [{"type": "energy_meter"}]})._replace(map_roots=[tmp_path]))
    assert bench.add_asset(asset) == "wind-1"
    snapshot = bench.tick()
    assert snapshot.measurements["wind-1"].active_power_w == 3e6
    assert snapshot.measurements["energy_meter-1"].active_power_w == snapshot.conditions.load_w - 3e6
    image = RegisterImage(layout)
    image.publish(snapshot.measurements["wind-1"])
    assert image.read_registers(4, 0, 2) == (3_000_000).to_bytes(4, "big")


def test_lines_that_only_their_virtual_pairs_bring_together_are_refused_when_these_are_asked_for(
    tmp_path: Path,
) -> None:
    (tmp_path / "site.yaml").write_text(
        "assets:\n"
        "- {type: bess, protocols: [{kind: modbus_rtu, port: /dev/a}]}\n"
        "- {type: chp, protocols: [{kind: modbus_rtu, port: /dev/b/a}]}\n"
    )
    assert check_site(tmp_path / "site.yaml")
    with pytest.raises(ConfigErrors, match=r'site.yaml: assets\[1\].protocols\[0\].port: "/dev/b/a" is not'):
        serve(RunOptions(tmp_path / "site.yaml", "pty"))
