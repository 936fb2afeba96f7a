"""What the example programs share: a device behind Modbus, the battery cycle, one turn a second.

The addresses are those of the shipped register maps (`dertwin map FILE` prints one); an EMS for other
devices has those of their manuals here. Powers are in W, energies in Wh.
"""

import argparse
import contextlib
import logging
import time
from collections.abc import Callable, Sequence
from typing import NamedTuple, Protocol

from pymodbus import ModbusException
from pymodbus.client import ModbusSerialClient, ModbusTcpClient
from pymodbus.pdu import ModbusPDU

UINT16 = ModbusTcpClient.DATATYPE.UINT16
INT32 = ModbusTcpClient.DATATYPE.INT32
UINT64 = ModbusTcpClient.DATATYPE.UINT64

TURN_S = 1.0
REPLY_TIMEOUT_S = 0.5


class Register(NamedTuple):
    """One value of a register map: its name there, its first address, raw x scale is the value."""

    name: str
    address: int
    type: ModbusTcpClient.DATATYPE = UINT16
    scale: float = 1.0


# bess_modbus.yaml; power positive = discharge
BESS_STATUS = Register("working_status", 0)
BESS_SOC = Register("soc", 4, scale=0.01)
BESS_POWER = Register("active_power", 10, INT32)
BESS_START_STOP_STANDBY = Register("start_stop_standby", 1000)
BESS_POWER_SETPOINT = Register("active_power_setpoint", 1004, INT32)
BESS_STATUS_NAMES = {0: "stopped", 1: "running", 2: "fault"}
BESS_RUNNING, BESS_RUN, BESS_STOP = 1, 1, 2

# pv_inverter_modbus.yaml; power positive = generation
PV_STATUS = Register("inverter_status", 0)
PV_POWER = Register("active_power", 6, INT32)
PV_TODAY_ENERGY = Register("today_energy", 20, UINT64)
PV_STATUS_NAMES = {0: "not producing", 1: "producing"}

# energy_meter_modbus.yaml; power positive = import
METER_POWER = Register("active_power", 12, INT32)
METER_FREQUENCY = Register("frequency", 36, scale=0.001)
METER_IMPORT_ENERGY = Register("import_energy", 44, UINT64)
METER_EXPORT_ENERGY = Register("export_energy", 48, UINT64)


class NoAnswer(Exception):
    """A device cannot be reached or refuses; the message says which, and what helps."""


class Device:
    """One unit behind a Modbus client, which connects again by itself."""

    def __init__(self, client: ModbusTcpClient | ModbusSerialClient, where: str, unit_id: int = 1) -> None:
        self._client = client
        self._where = where
        self._unit_id = unit_id

    def read(self, register: Register) -> float:
        """Return the value of an input register. Raises NoAnswer."""
        reply = self._ask(
            lambda: self._client.read_input_registers(
                register.address, count=register.type.value[1], device_id=self._unit_id
            )
        )
        raw = self._client.convert_from_registers(reply.registers, register.type)
        assert isinstance(raw, int)
        return raw * register.scale

    def write(self, register: Register, value: float) -> None:
        """Write a value to a holding register. Raises NoAnswer."""
        words = self._client.convert_to_registers(round(value / register.scale), register.type)
        self._ask(lambda: self._client.write_registers(register.address, words, device_id=self._unit_id))

    def _ask(self, request: Callable[[], ModbusPDU]) -> ModbusPDU:
        if not self._client.connect():
            raise NoAnswer(f"cannot open {self._where} (is the service running?)")
        try:
            reply = request()
        except (ModbusException, OSError) as error:
            raise NoAnswer(f"no answer from {self._where}") from error
        if reply.isError():
            raise NoAnswer(f"{self._where} refuses: {reply}")
        return reply


def tcp_device(host: str, port: int) -> Device:
    """Return the device at a Modbus TCP port; it need not be there yet."""
    client = ModbusTcpClient(host, port=port, timeout=REPLY_TIMEOUT_S, retries=0)
    return Device(client, f"{host}:{port}")


def serial_device(path: str) -> Device:
    """Return the device on a serial port (9600 8N1); it need not be there yet."""
    return Device(ModbusSerialClient(path, baudrate=9600, timeout=REPLY_TIMEOUT_S, retries=0), path)


class Unit(Protocol):
    """What takes part in `run`: has a name, takes a turn a second, can be left in a safe state."""

    @property
    def name(self) -> str: ...

    def turn(self) -> str:
        """Read, decide, write; return the line to show. Raises NoAnswer."""
        ...

    def stop(self) -> None:
        """Leave the device in a safe state. Raises NoAnswer."""
        ...


class Battery:
    """A battery that is charged to 60 % and discharged to 40 %, again and again."""

    HIGH_SOC, LOW_SOC = 60.0, 40.0

    def __init__(self, name: str, device: Device, power_w: float) -> None:
        self.name = name
        self._device = device
        self._power_w = power_w
        self._charging = True

    def turn(self) -> str:
        status, soc = self._device.read(BESS_STATUS), self._device.read(BESS_SOC)
        if self._charging and soc >= self.HIGH_SOC:
            self._charging = False
            show(self.name, f"SOC has reached {self.HIGH_SOC:g} %, now discharging")
        elif not self._charging and soc <= self.LOW_SOC:
            self._charging = True
            show(self.name, f"SOC has reached {self.LOW_SOC:g} %, now charging")
        # Written each second: a device that was replaced or restarted takes up its work again.
        if status != BESS_RUNNING:
            self._device.write(BESS_START_STOP_STANDBY, BESS_RUN)
        self._device.write(BESS_POWER_SETPOINT, -self._power_w if self._charging else self._power_w)
        power_kw = self._device.read(BESS_POWER) / 1000
        return (
            f"{BESS_STATUS_NAMES.get(int(status), '?'):<9} SOC {soc:6.2f} %  P {power_kw:+8.2f} kW  "
            f"{'charging' if self._charging else 'discharging'}"
        )

    def stop(self) -> None:
        self._device.write(BESS_POWER_SETPOINT, 0)
        self._device.write(BESS_START_STOP_STANDBY, BESS_STOP)


class PvInverter:
    """A PV inverter that is only watched."""

    def __init__(self, name: str, device: Device) -> None:
        self.name = name
        self._device = device

    def turn(self) -> str:
        read = self._device.read
        status = PV_STATUS_NAMES.get(int(read(PV_STATUS)), "?")
        return f"{status}  P {read(PV_POWER) / 1000:+8.2f} kW  today {read(PV_TODAY_ENERGY) / 1000:.3f} kWh"

    def stop(self) -> None:
        pass


class Meter:
    """A meter at the grid connection."""

    def __init__(self, name: str, device: Device) -> None:
        self.name = name
        self._device = device

    def turn(self) -> str:
        read = self._device.read
        power_w = read(METER_POWER)
        return (
            f"{'import' if power_w >= 0 else 'export'}  P {power_w / 1000:+8.2f} kW  "
            f"{read(METER_FREQUENCY):.3f} Hz  imported {read(METER_IMPORT_ENERGY) / 1000:.3f} kWh, "
            f"exported {read(METER_EXPORT_ENERGY) / 1000:.3f} kWh"
        )

    def stop(self) -> None:
        pass


def show(name: str, text: str) -> None:
    """Print a line about a device."""
    print(f"{name:<8} {text}", flush=True)


def arguments(description: str | None) -> argparse.ArgumentParser:
    """Return the options that all examples have."""
    parser = argparse.ArgumentParser(description=description)
    parser.add_argument("--host", default="127.0.0.1", help="where the service runs (default: this machine)")
    parser.add_argument("--seconds", type=float, help="stop after this time (default: on Ctrl-C)")
    return parser


def run(units: Sequence[Unit], seconds: float | None) -> None:
    """Give each unit its turn once a second until the time is over or Ctrl-C; then stop them all.

    A unit that does not answer gets a line when it goes, and another chance in each turn.
    """
    logging.getLogger("pymodbus").setLevel(logging.CRITICAL)  # what goes wrong is shown once, here
    start = time.monotonic()
    trouble: dict[str, str] = {}
    with contextlib.suppress(KeyboardInterrupt):
        while seconds is None or time.monotonic() - start < seconds:
            for unit in units:
                try:
                    show(unit.name, unit.turn())
                    trouble.pop(unit.name, None)
                except NoAnswer as reason:
                    if trouble.get(unit.name) != str(reason):
                        show(unit.name, f"{reason}; trying again each second")
                    trouble[unit.name] = str(reason)
            time.sleep(TURN_S - (time.monotonic() - start) % TURN_S)
    for unit in units:
        with contextlib.suppress(NoAnswer, KeyboardInterrupt):
            unit.stop()
