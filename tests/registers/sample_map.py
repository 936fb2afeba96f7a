"""Short ways to a register map and its image."""

from collections.abc import Mapping, Sequence
from typing import Any

from hypothesis import strategies as st

from dertwin.devices.device import CommandRange
from dertwin.registers.image import RegisterImage
from dertwin.registers.layout import Accepts, Classic, bind
from dertwin.registers.map import RegisterMap

COUNT = {"int32": 2, "uint32": 2, "float32": 2, "int64": 4, "uint64": 4, "float64": 4}


def entry(name: str = "power", address: int = 0, kind: str = "uint16", **keys: Any) -> dict[str, Any]:
    """Return an entry that reads one value with function 04, or what `keys` make of it."""
    written = {"func": 0x04, "direction": "read", "count": COUNT.get(kind, 1), "type": kind}
    return {"name": name, "internal_name": name, "address": address, **written, **keys}


def command(name: str = "setpoint", address: int = 100, kind: str = "uint16", **keys: Any) -> dict[str, Any]:
    """Return an entry that takes one command."""
    return entry(name, address, kind, **{"func": 0x10, "direction": "write", **keys})


def image(
    *entries: Mapping[str, Any],
    fields: Sequence[str] = ("power",),
    ranges: Mapping[str, Accepts] | None = None,
    classic: Classic | None = None,
    **keys: Any,
) -> RegisterImage:
    """Return the image of a device with these measurements and commands; commands take anything."""
    commands = [e["internal_name"] for e in entries if e["direction"] == "write"]
    anything = CommandRange(float("-inf"), float("inf"))
    known: Mapping[str, Accepts] = ranges if ranges is not None else dict.fromkeys(commands, anything)
    register_map = RegisterMap.model_validate({"registers": list(entries), **keys})
    return RegisterImage(bind(register_map, fields, known, classic or {}))


KINDS = ["uint16", "int16", "uint32", "int32", "uint64", "int64", "float32", "float64", "enum", "bitfield"]


@st.composite
def maps(draw: st.DrawFn) -> tuple[list[dict[str, Any]], bool]:
    """Return the entries of a random map, and whether its gaps read zero."""
    entries, address = [], draw(st.integers(0, 65000))
    for number in range(draw(st.integers(1, 8))):
        kind = draw(st.sampled_from(KINDS))
        count = COUNT.get(kind, 1)
        if address + count > 65536:
            break
        make = draw(st.sampled_from([entry, command]))
        keys = {"endian": draw(st.sampled_from(["big", "little"])), "scale": draw(st.sampled_from([1, 0.1]))}
        if make is entry:
            keys["func"] = draw(st.sampled_from([0x03, 0x04]))
        entries.append(make(f"e{number}", address, kind, **keys))
        address += count + draw(st.integers(0, 3))
    return entries or [entry()], draw(st.booleans())
