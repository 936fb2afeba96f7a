"""`dertwin read` and `dertwin write`: a device's registers by name, as any client sees them."""

import argparse
import json
import sys
import time
from collections.abc import Sequence
from decimal import Decimal
from pathlib import Path

from bench.check import shipped_maps
from bench.remote import ClientError, Reading, connected
from dertwin.config_errors import ConfigError, ConfigErrors, show, use
from dertwin.registers.map import RegisterMap, load_map
from dertwin.registers.register import Register


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
            with connected(options) as device:
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
        with connected(options) as device:
            for register, value in values:
                device.write(register, value)
                if device.broadcasts:
                    print(f"{register.name}: sent to all units; no reply is due")
                elif register.access != "wo":  # shown is what the device made of it
                    name, accepted, unit, label = next(device.read([register]))
                    print(" ".join(filter(None, (f"{name} = {_text(accepted)}", unit, label))))
    except ClientError as error:
        print(f"dertwin write: {error}", file=sys.stderr)
        return 1
    return 0


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
    """Return the register of this name among those that can be `done` (read or written).

    Or the one that has a bit of this name, under that name.
    """
    for register in registers:
        if register.name == name:
            return register
    for register in registers:
        if name in (register.bits or {}).values():
            return register.model_copy(update={"name": name})
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
        labels = {label.casefold(): raw for raw, label in (register.options or {}).items()}
        if value.casefold() in labels:
            return register, labels[value.casefold()] * register.scale
        message = f"{show(text)} is not NAME=VALUE with a number"
        if labels:
            message = f"{show(text)} is not NAME=VALUE with a number or a label; {use(labels, value)}"
        raise ConfigErrors([ConfigError(register_map.file, "", message)]) from None


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
