"""`dertwin read` and `dertwin write`: a device's registers by name, as any client sees them."""

import argparse
import json
import os
import sys
import time
from collections.abc import Iterator, Sequence
from decimal import Decimal
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

from bench.check import shipped_maps
from dertwin.config_errors import ConfigError, ConfigErrors, show, use
from dertwin.registers.map import RegisterMap, load_map
from dertwin.registers.register import COIL, DISCRETE_INPUT, Register

if TYPE_CHECKING:
    from pymodbus.client.base import ModbusBaseSyncClient

MOST_REGISTERS = 125
MOST_BITS = 2000


class ClientError(Exception):
    """The device cannot be reached or refuses; the message says what and what helps."""


class Reading(NamedTuple):
    """One register's value in the map's unit, exactly as the raw value and the scale give it."""

    name: str
    value: Decimal | float | str | None
    unit: str
    label: str


def find_map(name: str) -> RegisterMap:
    """Load a register map by path or, if there is none, by the name of a shipped one. Raises MapErrors."""
    path = Path(name)
    shipped = shipped_maps() / name
    return load_map(shipped if not path.exists() and shipped.exists() else path)


def read(options: argparse.Namespace) -> int:
    """Print registers once, or for ever with --watch; return the exit status."""
    register_map = find_map(options.map)
    registers = _chosen(register_map, options.names)
    while True:
        try:
            with _connected(options) as device:
                while True:
                    _show(list(device.read(registers)), options)
                    if options.watch is None:
                        return 0
                    time.sleep(options.watch)
        except ClientError as error:
            print(f"dertwin read: {error}", file=sys.stderr)
            if options.watch is None:
                return 1
            time.sleep(max(options.watch, 1.0))


def write(options: argparse.Namespace) -> int:
    """Write NAME=VALUE pairs in their order; return the exit status."""
    register_map = find_map(options.map)
    values = [_assignment(register_map, text) for text in options.values]
    try:
        with _connected(options) as device:
            for register, value in values:
                device.write(register, value)
                if register.access != "wo":  # shown is what the device made of it
                    name, accepted, unit, label = next(device.read([register]))
                    print(f"{name} = {_text(accepted)} {unit} {label}".rstrip())
    except ClientError as error:
        print(f"dertwin write: {error}", file=sys.stderr)
        return 1
    return 0


class Device:
    """One unit behind a connected client."""

    def __init__(self, client: "ModbusBaseSyncClient", unit_id: int) -> None:
        self._client = client
        self._unit_id = unit_id

    def __enter__(self) -> "Device":
        return self

    def __exit__(self, *_: object) -> None:
        self._client.close()  # type: ignore[no-untyped-call]

    def read(self, registers: Sequence[Register]) -> Iterator[Reading]:
        """Read registers in as few requests as gaps allow. Raises ClientError."""
        for block in _blocks(registers):
            first, count = block[0], block[-1].stop - block[0].address
            reply = self._ask(_READS[first.table], first.address, count=count)
            words = reply.bits if first.table in (COIL, DISCRETE_INPUT) else reply.registers
            for register in block:
                start = register.address - first.address
                yield _reading(register, words[start : start + register.count])

    def write(self, register: Register, value: float) -> None:
        """Write one value in the map's unit. Raises ClientError."""
        if register.table == COIL:
            self._ask("write_coil", register.address, bool(value))
            return
        codec = register.codec
        raw, says_the_same = codec.fit(value / register.scale)
        if not says_the_same:
            raise ClientError(
                f"{register.name}: {value:g} does not fit into {register.type} x {register.scale:g}"
            )
        data = codec.pack(raw)
        words = [int.from_bytes(data[i : i + 2], "big") for i in range(0, len(data), 2)]
        if len(words) == 1:
            self._ask("write_register", register.address, words[0])
        else:
            self._ask("write_registers", register.address, words)

    def _ask(self, method: str, address: int, *arguments: Any, **keywords: Any) -> Any:
        from pymodbus import ModbusException

        what = f"{method.replace('_', ' ')} at {address} of unit {self._unit_id}"
        try:
            reply = getattr(self._client, method)(address, *arguments, **keywords, device_id=self._unit_id)
        except (ModbusException, OSError) as error:
            raise ClientError(f"{what}: no reply; check address, wiring, baud rate and unit id") from error
        if reply.isError():
            code = getattr(reply, "exception_code", 0)
            raise ClientError(f"{what}: exception {code:02d}, {_MEANINGS.get(code, 'see the device manual')}")
        return reply


_READS = {1: "read_coils", 2: "read_discrete_inputs", 3: "read_holding_registers", 4: "read_input_registers"}
_MEANINGS = {
    1: "the device does not offer this function",
    2: "the device has no such address; is this its register map?",
    3: "the device refuses this value or length",
    4: "the device failed",
    11: "no such unit id behind this address",
}


def _connected(options: argparse.Namespace) -> Device:
    from pymodbus import FramerType, pymodbus_apply_logging_config
    from pymodbus.client import ModbusSerialClient, ModbusTcpClient

    pymodbus_apply_logging_config("CRITICAL")  # what goes wrong is told once, by us
    host, colon, port = options.target.rpartition(":")
    client: ModbusTcpClient | ModbusSerialClient
    if colon and port.isdecimal() and not os.path.exists(options.target):
        framer = FramerType.RTU if options.rtu_over_tcp else FramerType.SOCKET
        client = ModbusTcpClient(
            host.strip("[]"), port=int(port), framer=framer, timeout=options.timeout, retries=1
        )
    else:
        # Pseudo-terminals have no parity and may refuse one.
        virtual = os.path.realpath(options.target).startswith("/dev/pts/")
        client = ModbusSerialClient(
            options.target,
            baudrate=options.baudrate,
            parity="N" if virtual else options.parity,
            stopbits=options.stopbits,
            timeout=options.timeout,
            retries=1,
        )
    if not client.connect():
        raise ClientError(f"cannot open {options.target}; is the service running, and the address right?")
    return Device(client, options.unit)


def _chosen(register_map: RegisterMap, names: Sequence[str]) -> list[Register]:
    """Return the registers to read: those named, or all that can be read; each address of a table once."""
    readable = [register for register in register_map.registers if register.access != "wo"]
    if names:
        return [_by_name(readable, name, register_map, "read") for name in names]
    first: dict[tuple[int, int], Register] = {}
    for register in readable:
        first.setdefault((register.table, register.address), register)
    return sorted(first.values(), key=lambda r: (-r.table, r.address))


def _by_name(registers: Sequence[Register], name: str, register_map: RegisterMap, done: str) -> Register:
    """Return the register of this name among those that can be `done` (read or written)."""
    for register in registers:
        if register.name == name:
            return register
    there = any(register.name == name for register in register_map.registers)
    problem = f"{show(name)} cannot be {done}" if there else f"{show(name)} is no register"
    known = use([register.name for register in registers], name)
    raise ConfigErrors([ConfigError(register_map.file, "", f"{problem}; {known}")])


def _assignment(register_map: RegisterMap, text: str) -> tuple[Register, float]:
    name, _, value = text.partition("=")
    writable = [register for register in register_map.registers if register.direction == "write"]
    register = _by_name(writable, name, register_map, "written")
    try:
        return register, float(int(value, 0) if value.startswith("0x") else float(value))
    except ValueError:
        message = f"{show(text)} is not NAME=VALUE with a number"
        raise ConfigErrors([ConfigError(register_map.file, "", message)]) from None


def _blocks(registers: Sequence[Register]) -> Iterator[list[Register]]:
    """Yield runs of registers without gaps that one request reads."""
    block: list[Register] = []
    for register in registers:
        most = MOST_BITS if register.table in (COIL, DISCRETE_INPUT) else MOST_REGISTERS
        goes_on = (
            block
            and register.table == block[0].table
            and register.address == block[-1].stop
            and register.stop - block[0].address <= most
        )
        if not goes_on:
            if block:
                yield block
            block = []
        block.append(register)
    if block:
        yield block


def _reading(register: Register, words: Sequence[int]) -> Reading:
    codec = register.codec
    unit = register.unit or ""
    if register.table in (COIL, DISCRETE_INPUT):
        raw: Any = int(words[0])
    else:
        raw = codec.unpack(b"".join(word.to_bytes(2, "big") for word in words))
    if isinstance(raw, bytes):
        return Reading(register.name, raw.rstrip(b"\0").decode("ascii", "replace"), unit, "")
    if raw != raw or (codec.sentinel is not None and raw == codec.sentinel):
        return Reading(register.name, None, unit, "not available")
    label = (register.options or {}).get(int(raw), "") if isinstance(raw, int) else ""
    # Exactly raw x scale: 49987 x 0.001 is 49.987, not 49.987000000000002.
    scale = Decimal(repr(register.scale)) if register.scale % 1 else int(register.scale)
    value = Decimal(raw) * scale if isinstance(raw, int) else raw * register.scale
    return Reading(register.name, value, unit, label)


def _show(readings: Sequence[Reading], options: argparse.Namespace) -> None:
    if options.json:
        values = {r.name: float(r.value) if isinstance(r.value, Decimal) else r.value for r in readings}
        print(json.dumps(values), flush=True)
        return
    if options.watch is not None and sys.stdout.isatty():
        print("\033[H\033[2J", end="")
    width = max(len(reading.name) for reading in readings)
    for name, value, unit, label in readings:
        print(f"{name:<{width}}  {_text(value):>16} {unit:<6} {label}".rstrip())
    if options.watch is not None and not sys.stdout.isatty():
        print(flush=True)


def _text(value: Decimal | float | str | None) -> str:
    if isinstance(value, Decimal):
        return f"{value:f}"
    return "-" if value is None else f"{value:.7g}" if isinstance(value, float) else value
