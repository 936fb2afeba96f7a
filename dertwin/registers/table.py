"""A register map as a table for people."""

from typing import NamedTuple

from dertwin.registers.map import RegisterMap
from dertwin.registers.register import COIL, DISCRETE_INPUT, HOLDING, INPUT, Register


class Row(NamedTuple):
    """One entry of a register map as text; `read` and `write` are the function codes that do it."""

    address: str
    registers: str
    read: str
    write: str
    type: str
    scale: str
    unit: str
    name: str
    internal_name: str
    notes: str


def table(register_map: RegisterMap) -> list[Row]:
    """Return a register map as rows of text: what is read, then what is written, by table and address."""
    shown = {kind: register_map.readable(kind) for kind in (COIL, DISCRETE_INPUT, HOLDING, INPUT)}
    return [
        _row(
            register, [kind for kind, entries in shown.items() if any(register is entry for entry in entries)]
        )
        for register in sorted(register_map.registers, key=lambda r: (r.direction, -r.table, r.address))
    ]


def _row(register: Register, reads: list[int]) -> Row:
    bits = register.bits or {}
    kind: str = register.type
    if register.endian == "little":
        kind += " low word first"
    if register.byte_order == "little":
        kind += " low byte first"
    notes = [f"{value} {label}" for value, label in (register.options or {}).items()]
    notes += [" ".join(register.description.split())] if register.description else []
    return Row(
        address=str(register.address),
        registers=str(register.count),
        read=_codes(reads),
        write=_codes(_write_functions(register)),
        type=kind,
        scale=f"{register.scale:g}",
        unit=register.unit or "",
        name=register.name,
        internal_name=register.internal_name or ", ".join(f"{bit} {name}" for bit, name in bits.items()),
        notes="; ".join(notes),
    )


def _write_functions(register: Register) -> list[int]:
    if register.direction == "read":
        return []
    if register.table == COIL:
        return [0x05, 0x0F]
    return [0x06, 0x10] if register.count == 1 else [0x10]


def _codes(functions: list[int]) -> str:
    return " ".join(f"{function:02X}" for function in functions)
