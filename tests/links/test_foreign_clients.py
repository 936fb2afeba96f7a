"""Clients that others wrote see what `dertwin read` sees, on TCP, on a serial line, on RTU over TCP."""

import contextlib
import io
import json
import os
import shutil
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, fields
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

import pytest
import yaml
from pymodbus.client import ModbusTcpClient
from support.foreign import (
    BAUDRATE,
    COIL,
    DISCRETE_INPUT,
    HOLDING,
    HOST,
    INPUT,
    AsyncPymodbus,
    Mbpoll,
    Pymodbus,
    Reach,
)
from support.service import free_port, service, wait_for

from bench import cli

SHIPPED = Path(__file__).parents[2] / "register_maps"

ORDERS_MAP = "orders.yaml"  # what the shipped maps do not have
ORDERS_UNIT = 5

DEVICES: Mapping[str, dict[str, Any]] = {
    "bess_modbus.yaml": {"type": "bess", "initial_soc": 42.17},
    "pv_inverter_modbus.yaml": {"type": "inverter"},
    "chp_modbus.yaml": {"type": "chp"},
    "energy_meter_modbus.yaml": {"type": "energy_meter"},
    ORDERS_MAP: {"type": "chp"},
}
UNIT_IDS = {file: unit_id for unit_id, file in enumerate(DEVICES, 1)}

# A value for every command, in the unit of the map; none is what the device starts with.
WRITES: Mapping[str, Mapping[str, float]] = {
    "bess_modbus.yaml": {
        "start_stop_standby": 1,
        "local_remote_settings": 0,
        "power_control_mode": 3,
        "fault_reset": 1,
        "active_power_setpoint": -12345,
        "reactive_power_setpoint": 6789,
        "upper_soc_limit_1": 80.25,
        "upper_soc_limit_2": 91.5,
        "lower_soc_limit_1": 15.75,
        "lower_soc_limit_2": 10.5,
        "heartbeat": 0xCAFE,
    },
    "pv_inverter_modbus.yaml": {
        "remote_on_off": 0,
        "active_power_limit": 60.5,
        "reactive_power_setpoint": -20.5,
        "power_factor_setpoint": -0.9512,
        "heartbeat": 0xCAFE,
    },
    "chp_modbus.yaml": {
        "start_stop": 1,
        "power_setpoint": 80.5,
        "remote_acknowledgment": 4321,
        "regulator_setpoint": -12.625,
        "heartbeat": 0xCAFE,
    },
    "energy_meter_modbus.yaml": {
        "current_transformer_ratio": 1234.56,
        "voltage_transformer_ratio": 2.5,
        "interval_time": 65537,
        "heartbeat": 0xCAFE,
    },
    ORDERS_MAP: {
        "start": 1,
        "beat": 1,
        "setpoint": -12.625,
        "setpoint_low_first": 1e-3,
        "word": 0xBEEF,
        "word_low_first": 0xBEEF,
    },
}

needs_mbpoll = pytest.mark.skipif(  # but never in CI, where what is missing must be seen
    shutil.which("mbpoll") is None and os.environ.get("CI") != "true",
    reason="mbpoll is not installed (make test installs it)",
)
CLIENTS = [
    *(
        pytest.param(kind, way, id=f"{kind.__name__} {way}")
        for kind in (Pymodbus, AsyncPymodbus)
        for way in ("tcp", "rtu_over_tcp", "rtu")
    ),
    *(pytest.param(Mbpoll, way, id=f"mbpoll {way}", marks=needs_mbpoll) for way in ("tcp", "rtu")),
]


@dataclass(frozen=True)
class Entry:
    """One register of a map, read here without any help from the package."""

    name: str
    address: int
    type: str
    count: int
    func: int
    direction: str
    scale: float = 1.0
    endian: Any = "big"

    @property
    def table(self) -> int:
        return {0x05: 1, 0x0F: 1, 0x06: 3, 0x10: 3}.get(self.func, self.func)

    @property
    def kind(self) -> ModbusTcpClient.DATATYPE:
        words = "UINT16" if self.type in ("bitfield", "enum") else self.type.upper()
        return ModbusTcpClient.DATATYPE[words]

    def value(self, words: list[int]) -> Any:
        """Return the value in the unit of the map as pymodbus decodes it."""
        assert len(words) == self.count
        raw: Any = ModbusTcpClient.convert_from_registers(words, self.kind, self.endian)
        return raw if isinstance(raw, str) else raw * self.scale

    def words(self, value: float) -> list[int]:
        """Return what to write for a value in the unit of the map, as pymodbus encodes it."""
        raw = value if self.type.startswith("float") else round(value / self.scale)
        return ModbusTcpClient.convert_to_registers(raw, self.kind, self.endian)


ENTRY_KEYS = {field.name for field in fields(Entry)}


class Site(NamedTuple):
    """A running service whose clock stands still, so that all must see the same."""

    reach: Reach
    maps: Path

    def entries(self, file: str, direction: str) -> list[Entry]:
        document = yaml.safe_load((self.maps / file).read_text())
        entries = [
            Entry(**{key: value for key, value in row.items() if key in ENTRY_KEYS})
            for row in document["registers"]
            if row["direction"] == direction
        ]
        return sorted(entries, key=lambda entry: (entry.table, entry.address))

    def dertwin_read(self, way: str, file: str, *names: str) -> dict[str, Any]:
        """Return what `dertwin read --json` prints."""
        target = f"{HOST}:{self.reach.tcp}" if way == "tcp" else self.reach.rtu
        options = ["--json", "-u", str(UNIT_IDS[file]), "--baudrate", str(BAUDRATE)]
        printed = io.StringIO()
        with contextlib.redirect_stdout(printed):
            assert cli.main(["read", target, str(self.maps / file), *names, *options]) == 0
        values: dict[str, Any] = json.loads(printed.getvalue())
        return values


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Site]:
    folder = tmp_path_factory.mktemp("foreign")
    shutil.copytree(SHIPPED, folder / "maps")
    shutil.copy(Path(__file__).with_name(ORDERS_MAP), folder / "maps")
    reach = Reach(free_port(), free_port(), f"{folder / 'line'}_client")
    config = {"real_time": False, "start_time_h": 11.0, "register_map_root": "maps", **assets(reach)}
    with service(config, folder):
        yield Site(reach, folder / "maps")


def assets(reach: Reach) -> dict[str, Any]:
    """Return the assets of a config: each device on all three ways, with its own unit id."""
    links = [
        {"kind": "modbus_tcp", "ip": HOST, "port": reach.tcp},
        {"kind": "modbus_rtu_over_tcp", "ip": HOST, "port": reach.rtu_over_tcp},
        {
            "kind": "modbus_rtu",
            "port": reach.rtu.removesuffix("_client"),
            "baudrate": BAUDRATE,
            "fallback": "pty",
        },
    ]
    return {
        "assets": [
            {
                **device,
                "protocols": [{**link, "unit_id": UNIT_IDS[file], "register_map": file} for link in links],
            }
            for file, device in DEVICES.items()
        ]
    }


def blocks(entries: list[Entry]) -> Iterator[list[Entry]]:
    """Yield runs of neighbours that one request reads."""
    block: list[Entry] = []
    for entry in entries:
        if block and (entry.table, entry.address) != (block[0].table, block[-1].address + block[-1].count):
            yield block
            block = []
        block.append(entry)
    yield block


@pytest.mark.parametrize("file", DEVICES)
@pytest.mark.parametrize(("kind", "way"), CLIENTS)
def test_a_foreign_client_reads_every_measurement_in_blocks_as_dertwin_does(
    site: Site, kind: type[Pymodbus], way: str, file: str
) -> None:
    entries = site.entries(file, "read")
    seen: dict[str, Any] = {}
    with kind(way, site.reach) as client:
        for block in blocks(entries):
            start, stop = block[0].address, block[-1].address + block[-1].count
            words = client.read(block[0].table, UNIT_IDS[file], start, stop - start)
            for entry in block:
                value = entry.value(words[entry.address - start : entry.address - start + entry.count])
                # A map may name a discrete input as the register that shows the same.
                assert seen.setdefault(entry.name, value) == value
    expected = site.dertwin_read("rtu" if way == "rtu" else "tcp", file)
    assert set(seen) <= set(expected)
    for name, value in seen.items():
        # The scale is applied in floats here, in decimals there.
        assert expected[name] == (value if isinstance(value, str) else pytest.approx(value, rel=1e-12)), name
    assert sum(map(bool, seen.values())) > 4


@pytest.mark.parametrize("file", DEVICES)
def test_dertwin_reads_the_same_over_tcp_and_over_a_serial_line(site: Site, file: str) -> None:
    names = {entry.name for entry in site.entries(file, "read")}
    assert site.dertwin_read("tcp", file, *names) == site.dertwin_read("rtu", file, *names)


@pytest.mark.parametrize("file", DEVICES)
@pytest.mark.parametrize(("kind", "way"), CLIENTS)
def test_a_foreign_client_writes_every_command_and_all_read_it_back(
    site: Site, kind: type[Pymodbus], way: str, file: str
) -> None:
    unit_id, values, before = UNIT_IDS[file], WRITES[file], {}
    entries = site.entries(file, "write")
    assert {entry.name for entry in entries} == set(values)
    with kind(way, site.reach) as client:
        for entry in entries:
            before[entry.name] = client.read(entry.table, unit_id, entry.address, entry.count)
            words = entry.words(values[entry.name])
            assert words != before[entry.name]
            client.write(entry.table, unit_id, entry.address, words)
            assert client.read(entry.table, unit_id, entry.address, entry.count) == words
    if way != "rtu_over_tcp":
        assert site.dertwin_read(way, file, *values) == pytest.approx(values, rel=1e-7)
    with kind(way, site.reach) as client:
        for entry in entries:
            client.write(entry.table, unit_id, entry.address, before[entry.name])
            assert client.read(entry.table, unit_id, entry.address, entry.count) == before[entry.name]


@pytest.mark.parametrize(("kind", "way"), CLIENTS)
def test_several_coils_are_written_at_once(site: Site, kind: type[Pymodbus], way: str) -> None:
    with kind(way, site.reach) as client:
        for bits in ([1, 0], [0, 1], [1, 1], [0, 0]):
            client.write(COIL, ORDERS_UNIT, 0, bits)
            assert client.read(COIL, ORDERS_UNIT, 0, 2) == bits
        assert client.read(DISCRETE_INPUT, ORDERS_UNIT, 20, 3) == [1, 0, 1]


@needs_mbpoll
@pytest.mark.parametrize("way", ["tcp", "rtu"])
def test_mbpoll_understands_numbers_of_two_registers_in_both_orders_of_words(site: Site, way: str) -> None:
    client = Mbpoll(way, site.reach)
    shown = site.dertwin_read(way, ORDERS_MAP)
    for low_word_first, suffix in ((False, ""), (True, "_low_first")):
        for entry in site.entries(ORDERS_MAP, "read"):
            for type_, kind in (("uint32", "int"), ("float32", "float")):
                if entry.name == type_ + suffix:
                    value = client.read_as(kind, entry.table, ORDERS_UNIT, entry.address, low_word_first)
                    assert value * entry.scale == pytest.approx(shown[entry.name])
    for low_word_first, address, value in ((False, 100, 2.75), (True, 102, -0.375)):
        client.write_as("float", ORDERS_UNIT, address, value, low_word_first)
        assert client.read_as("float", HOLDING, ORDERS_UNIT, address, low_word_first) == value
    assert site.dertwin_read(way, ORDERS_MAP, "setpoint", "setpoint_low_first") == {
        "setpoint": 2.75,
        "setpoint_low_first": -0.375,
    }
    for low_word_first, address in ((False, 100), (True, 102)):
        client.write_as("float", ORDERS_UNIT, address, 0.0, low_word_first)


def test_what_one_client_writes_on_one_link_the_next_sees_on_another(tmp_path: Path) -> None:
    reach = Reach(free_port(), free_port(), f"{tmp_path / 'line'}_client")
    (entry,) = (
        entry
        for entry in Site(reach, SHIPPED).entries("bess_modbus.yaml", "read")
        if entry.name == "accepted_active_power_setpoint"
    )
    config = assets(reach)
    del config["assets"][1:]

    def sees(reader: Pymodbus, words: list[int]) -> bool:
        return reader.read(INPUT, 1, entry.address, 2) == words

    with service(config, tmp_path), contextlib.ExitStack() as stack:
        clients = [stack.enter_context(Pymodbus(way, reach)) for way in ("tcp", "rtu", "rtu_over_tcp")]
        for power_w, writer in zip((1000, -2000, 3000), clients, strict=True):
            writer.write(HOLDING, 1, 1004, entry.words(power_w))
            for reader in clients:
                wait_for(partial(sees, reader, entry.words(power_w)))
