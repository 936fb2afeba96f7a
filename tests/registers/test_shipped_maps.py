import struct
from pathlib import Path
from typing import Any, NamedTuple

import pytest

from dertwin.devices.bess import BessConfig
from dertwin.devices.chp import ChpConfig
from dertwin.devices.classic import CLASSIC
from dertwin.devices.device import Device
from dertwin.devices.meter import EnergyMeterConfig
from dertwin.devices.pv import PvInverterConfig
from dertwin.registers.image import RegisterImage, ValueRefused
from dertwin.registers.layout import bind
from dertwin.registers.map import RegisterMap, load_map
from dertwin.registers.register import COIL, DISCRETE_INPUT, HOLDING, INPUT, Register

FOLDER = Path(__file__).parents[2] / "register_maps"
SITE_W = 100e6  # the largest rating a map must serve
TEN_YEARS_H = 10 * 8766
UNITS = {"W", "VA", "var", "Wh", "V", "A", "Hz", "degC", "%", "W/m2", "bar", "1/min", "h", "s", ""}


class Shipped(NamedTuple):
    """A shipped map and a device with the default ratings that it is for."""

    type: str
    map: RegisterMap
    device: Device

    def image(self) -> RegisterImage:
        return RegisterImage(bind(self.map, self.fields, self.device.commands, CLASSIC[self.type]))

    @property
    def fields(self) -> tuple[str, ...]:
        return type(self.device.measurements)._fields  # type: ignore[attr-defined, no-any-return]

    def si(self, name: str) -> tuple[str, float]:
        return CLASSIC[self.type].get(name, (name, 1.0))

    def measured(self) -> list[tuple[Register, str]]:
        reads = [r for r in self.map.registers if r.direction == "read"]
        return [(r, self.si(name)[0]) for r in reads for _, name in r.names if r.type != "string"]

    def register(self, name: str) -> Register:
        return next(r for r, si_name in self.measured() if si_name == name and not r.bits)


FILES: dict[str, BessConfig | PvInverterConfig | ChpConfig | EnergyMeterConfig] = {
    "bess_modbus.yaml": BessConfig(type="bess"),
    "pv_inverter_modbus.yaml": PvInverterConfig(type="inverter"),
    "chp_modbus.yaml": ChpConfig(type="chp"),
    "energy_meter_modbus.yaml": EnergyMeterConfig(type="energy_meter"),
}


def load(file: str) -> Shipped:
    config = FILES[file]
    return Shipped(config.type, load_map(FOLDER / file), config.build())


@pytest.fixture(params=FILES)
def shipped(request: pytest.FixtureRequest) -> Shipped:
    return load(request.param)


def test_every_shipped_map_is_tested_here() -> None:
    assert {path.name for path in FOLDER.iterdir()} == set(FILES)


def test_the_map_shows_every_measurement_and_takes_every_command(shipped: Shipped) -> None:
    commands = [r for r in shipped.map.registers if r.direction == "write"]
    taken = {shipped.si(name)[0] for r in commands for _, name in r.names}
    shown = {name for _, name in shipped.measured()} | taken
    assert shown >= set(shipped.fields)
    assert taken == set(shipped.device.commands)


@pytest.mark.parametrize(("raw", "taken"), [(0, None), (500, None), (999, None), (1000, 0.1), (-9500, -0.95)])
def test_the_map_of_an_inverter_refuses_what_is_no_power_factor(raw: int, taken: float | None) -> None:
    inverter = load("pv_inverter_modbus.yaml")
    image = inverter.image()
    image.publish(inverter.device.measurements)
    address = next(
        r.address
        for r in inverter.map.registers
        if r.name == "power_factor_setpoint" and r.direction == "write"
    )
    before = image.read_registers(HOLDING, address, 1)
    word = struct.pack(">h", raw)
    if taken is None:
        with pytest.raises(ValueRefused):
            image.write_registers(address, word)
        assert image.read_registers(HOLDING, address, 1) == before
        assert image.drain() == []
    else:
        image.write_registers(address, word)
        assert image.drain() == [("power_factor_setpoint", taken)]


def test_the_measurements_are_one_block_that_one_request_reads(shipped: Shipped) -> None:
    image = shipped.image()
    image.publish(shipped.device.measurements)
    registers = [r for r, _ in shipped.measured() if r.table == INPUT]
    stop = max(r.stop for r in registers)
    assert len(image.read_registers(INPUT, 0, stop)) == 2 * stop <= 250
    assert image.read_registers(HOLDING, 0, stop) == image.read_registers(INPUT, 0, stop)
    # Even addresses, so that a client may poll pairs.
    assert all(r.address % 2 == 0 for r in registers if r.count > 1)


def test_the_devices_own_values_fit_and_come_back_through_the_map(shipped: Shipped) -> None:
    image = shipped.image()
    measurements = shipped.device.measurements
    image.publish(measurements)
    for register, name in shipped.measured():
        value = measurements[shipped.fields.index(name)]
        if register.table == DISCRETE_INPUT:
            assert image.read_bits(DISCRETE_INPUT, register.address, 1) == image.read_bits(
                COIL, register.address, 1
            )
            assert image.read_bits(DISCRETE_INPUT, register.address, 1)[0] == value
        elif not register.bits:
            raw: Any = register.codec.unpack(image.read_registers(INPUT, register.address, register.count))
            _, factor = shipped.si(register.internal_name or "")
            assert raw * register.scale / factor == pytest.approx(value, abs=register.scale / factor / 1.9)
    assert image.saturated == 0


def reach(shipped: Shipped, register: Register) -> tuple[float, float]:
    """Return the lowest and the highest value in SI that a register can show."""
    _, factor = shipped.si(register.internal_name or "")
    return register.codec.low * register.scale / factor, register.codec.high * register.scale / factor


def test_energy_counters_last_ten_years_of_full_power_on_the_largest_site(shipped: Shipped) -> None:
    counters = [register for register, name in shipped.measured() if name.endswith("_wh")]
    assert counters
    for register in counters:
        assert reach(shipped, register)[1] >= SITE_W * TEN_YEARS_H
        assert register.scale <= 1  # Wh, so that a short test sees it move


def test_powers_and_currents_of_the_largest_site_never_saturate(shipped: Shipped) -> None:
    for register, name in shipped.measured():
        low, high = reach(shipped, register)
        if name.endswith(("_w", "_var", "_va")):
            assert high >= 1.2 * SITE_W
        if name.startswith(("active_power", "reactive_power")) and name.endswith(("_w", "_var")):
            assert low <= -1.2 * SITE_W
        if name.startswith("current_"):
            assert -low >= 1.2 * SITE_W / 400 <= high


def test_frequency_is_in_millihertz_and_soc_in_hundredths_of_a_percent(shipped: Shipped) -> None:
    image = shipped.image()
    values = list(shipped.device.measurements)
    frequency = shipped.register("frequency_hz")
    for millihertz in (49_999, 50_001, 45_000, 65_000):
        values[shipped.fields.index("frequency_hz")] = millihertz / 1000
        image.publish(values)
        assert image.read_registers(INPUT, frequency.address, 1) == struct.pack(">H", millihertz)
    if "soc" in shipped.fields:
        values[shipped.fields.index("soc")] = 0.4217
        image.publish(values)
        assert image.read_registers(INPUT, shipped.register("soc").address, 1) == struct.pack(">H", 4217)


def test_units_are_those_of_the_si_and_enumerations_have_labels(shipped: Shipped) -> None:
    for register, name in shipped.measured():
        assert (register.unit or "") in UNITS | {"10000 h", "10000"}
        if name.endswith(("status", "state", "fault_code", "expired")) and register.table == INPUT:
            assert register.options or register.bits


def test_the_device_identifies_itself(shipped: Shipped) -> None:
    image = shipped.image()
    texts = {r.name: r for r in shipped.map.registers if r.type == "string"}
    for index, name in enumerate(("vendor_name", "product_code", "revision")):
        register = texts[name]
        text = image.read_registers(INPUT, register.address, register.count).rstrip(b"\0")
        assert text == image.identification[index] != b""


def test_a_heartbeat_can_be_written_with_one_register(shipped: Shipped) -> None:
    image = shipped.image()
    (heartbeat,) = (
        r for r in shipped.map.registers if r.direction == "write" and r.internal_name == "heartbeat"
    )
    image.write_registers(heartbeat.address, b"\x00\xff")
    assert image.drain() == [("heartbeat", 255.0)]


def test_a_battery_takes_a_charging_setpoint_in_watts() -> None:
    image = load("bess_modbus.yaml").image()
    image.write_registers(1004, struct.pack(">i", -12_345))
    assert image.drain() == [("active_power_setpoint_w", -12_345.0)]


@pytest.mark.parametrize("device_type", CLASSIC)
def test_every_classic_name_stands_for_something_the_device_has(device_type: str) -> None:
    device = next(config for config in FILES.values() if config.type == device_type).build()
    known = {*type(device.measurements)._fields, *device.commands}
    assert {si_name for si_name, _ in CLASSIC[device_type].values()} <= known
