"""Devices for the tests of the protocol: the register image of a map with one entry an address."""

from collections.abc import Callable, Iterable, Iterator, Mapping
from typing import Any, TypedDict, Unpack

from dertwin.devices.device import CommandRange
from dertwin.registers.image import RegisterImage
from dertwin.registers.layout import bind
from dertwin.registers.map import Identification, RegisterMap


class Tables(TypedDict, total=False):
    """What a device has, by address: values to read, and addresses to write.

    `choices` are registers that take only the given values; `pairs` are where 32-bit commands start.
    """

    coils: Mapping[int, int]
    discrete_inputs: Mapping[int, int]
    holding_registers: Mapping[int, int]
    input_registers: Mapping[int, int]
    writable_coils: Iterable[int]
    writable_registers: Iterable[int]
    choices: Mapping[int, Iterable[int]]
    pairs: Iterable[int]
    identification: Mapping[int, bytes]


def device(**tables: Unpack[Tables]) -> RegisterImage:
    """Return the image of a device with these tables."""
    return blueprint(**tables)()


def blueprint(**tables: Unpack[Tables]) -> Callable[[], RegisterImage]:
    """Return what makes any number of such images, without reading the map again."""
    values = {(func, address): value for func, table in _measured(tables) for address, value in table.items()}
    entries = [_entry("measured", func, address) for func, address in values]
    ranges: dict[str, CommandRange] = {}
    for func, address, accepted in _commands(tables):
        entries.append(_entry("command", func, address))
        ranges[entries[-1]["name"]] = accepted
    if not entries:  # a map has at least one entry
        return blueprint(input_registers={0: 0}, identification=tables.get("identification", {}))
    keys = list(Identification.model_fields)
    identification = {keys[i]: text.decode() for i, text in tables.get("identification", {}).items()}
    register_map = RegisterMap.model_validate({"registers": entries, "identification": identification})
    layout = bind(register_map, [entry["name"] for entry in entries[: len(values)]], ranges, {})

    def image() -> RegisterImage:
        made = RegisterImage(layout)
        made.publish(list(values.values()))
        return made

    return image


def _measured(tables: Tables) -> Iterator[tuple[int, Mapping[int, int]]]:
    yield 1, tables.get("coils", {})
    yield 2, tables.get("discrete_inputs", {})
    yield 3, tables.get("holding_registers", {})
    yield 4, tables.get("input_registers", {})


def _commands(tables: Tables) -> Iterator[tuple[int, int, CommandRange]]:
    for address in tables.get("writable_coils", ()):
        yield 5, address, CommandRange(0.0, 1.0)
    for address in tables.get("writable_registers", ()):
        yield 6, address, CommandRange(0.0, 65535.0)
    for address, taken in tables.get("choices", {}).items():
        yield 6, address, CommandRange(0.0, 65535.0, frozenset(taken))
    for address in tables.get("pairs", ()):
        yield 16, address, CommandRange(-(2.0**31), 2.0**31 - 1.0)


def _entry(what: str, func: int, address: int) -> dict[str, Any]:
    name = f"{what}_{func}_{address}"
    kind, count = ("int32", 2) if func == 16 else ("uint16", 1)
    return {
        "name": name,
        "internal_name": name,
        "address": address,
        "func": func,
        "direction": "read" if func <= 4 else "write",
        "type": kind,
        "count": count,
    }
