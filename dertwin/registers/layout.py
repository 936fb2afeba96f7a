"""A register map bound to a device: where every value lies in the image, worked out once.

The buffer of an image has no gaps: all registers of a table in the order of their addresses, then those
of the next table; a register takes two bytes of it, a coil or discrete input one (0 or 1).
"""

import struct
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from operator import itemgetter
from typing import NamedTuple, Protocol

from dertwin.config_errors import ConfigError, show, use
from dertwin.registers.codec import Codec
from dertwin.registers.map import MapErrors, RegisterMap, Sound, overlaps
from dertwin.registers.register import COIL, DISCRETE_INPUT, HOLDING, TABLES, Register

# Classic name -> SI name and factor: classic value = SI value x factor.
Classic = Mapping[str, tuple[str, float]]


class Accepts(Protocol):
    """Which values a command takes."""

    def accept(self, value: float, /) -> float | None:
        """Return what a device makes of an SI value, None if it is refused."""
        ...


class Table(NamedTuple):
    """Where the addresses that one function code reads lie in the buffer.

    Block i covers the addresses starts[i] up to, not including, stops[i]; an address in it lies at
    origins[i] + width * address. The first block is empty and starts at -1, so that every address has a
    block that starts before it.
    """

    width: int
    starts: tuple[int, ...]
    stops: tuple[int, ...]
    origins: tuple[int, ...]


class Measured(NamedTuple):
    """A register that shows a measurement, or several as `bits`: pairs of bit number and measurement."""

    name: str
    codec: Codec
    raw_per_si: float
    source: int
    offset: int
    bits: tuple[tuple[int, int], ...] = ()


class CommandRegister(NamedTuple):
    """A register that takes a command."""

    command: str
    codec: Codec
    raw_per_si: float
    accept: Callable[[float], float | None]
    start: int
    stop: int
    offset: int


@dataclass(frozen=True, slots=True)
class Layout:
    """A register map bound to a device; immutable, so all images of equal devices share it.

    `coils` and `holding` give the command of every address that can be written. `numbers` and `others` are
    all that is measured, in the order in which `pack` takes the raw values; `integers` and `floats` are
    `numbers` reduced to what encoding needs: source, raw per SI unit, low and high end. `place` picks the
    bytes of the next buffer out of the packed ones followed by the present buffer: so it does the order of
    words and bytes, and keeps what is not measured.
    """

    tables: Mapping[int, Table]
    coils: Mapping[int, CommandRegister]
    holding: Mapping[int, CommandRegister]
    integers: tuple[tuple[int, float, float, float], ...]
    floats: tuple[tuple[int, float, float, float], ...]
    numbers: tuple[Measured, ...]
    others: tuple[Measured, ...]
    pack: Callable[..., bytes]
    place: Callable[[bytes], tuple[int, ...]]
    initial: bytes
    gaps_read_zero: bool
    holds_partial_writes: bool
    identification: Mapping[int, bytes]


def bind(
    register_map: RegisterMap, fields: Sequence[str], ranges: Mapping[str, Accepts], classic: Classic
) -> Layout:
    """Bind a map to a device with these measurements (in order) and commands, named in SI.

    Classic names are known too, and win over SI names of the same spelling. Raises MapErrors that name
    every entry whose `internal_name` the device does not have.
    """
    faults = [
        *overlaps(enumerate(register_map.registers), register_map.file),
        *unknown_names(register_map.sound(), register_map.file, fields, ranges, classic),
    ]
    if faults:
        raise MapErrors(faults)
    offsets, size = _offsets(register_map)
    tables = {table: _table(table, register_map.readable(table), offsets) for table in TABLES}
    measured = list(_measured(register_map, fields, classic, offsets))
    others = tuple(m for m in measured if m.codec.is_text or m.bits)
    integers = tuple(m for m in measured if m not in others and not m.codec.is_float)
    floats = tuple(m for m in measured if m.codec.is_float)
    order = (*integers, *floats, *others)
    commands = [
        (r.table, _command(r, ranges, classic, offsets[r.table, r.address]))
        for r in register_map.registers
        if r.direction == "write"
    ]
    return Layout(
        tables=tables,
        coils={a: c for table, c in commands if table == COIL for a in range(c.start, c.stop)},
        holding={a: c for table, c in commands if table == HOLDING for a in range(c.start, c.stop)},
        integers=tuple((m.source, m.raw_per_si, m.codec.low, m.codec.high) for m in integers),
        floats=tuple((m.source, m.raw_per_si, m.codec.low, m.codec.high) for m in floats),
        numbers=(*integers, *floats),
        others=others,
        pack=struct.Struct(">" + "".join(m.codec.format for m in order)).pack,
        place=_placing(order, size),
        initial=_initial(register_map, fields, offsets, size),
        gaps_read_zero=register_map.gaps == "zero",
        holds_partial_writes=register_map.partial_writes == "hold",
        identification=register_map.identification_objects(),
    )


def _si(name: str, classic: Classic) -> tuple[str, float]:
    return classic.get(name, (name, 1.0))


def unknown_names(
    sound: Sound, file: str, fields: Sequence[str], ranges: Mapping[str, Accepts], classic: Classic
) -> Iterator[ConfigError]:
    """Yield a fault for each name in a map that a device does not have; see bind."""
    for index, register in sound.registers:
        known, what = (fields, "measurement") if register.direction == "read" else (tuple(ranges), "command")
        for key, name in register.names:
            if _si(name, classic)[0] in known or (register.type == "string" and name in sound.texts):
                continue
            spellings = [n for n in (*known, *classic) if _si(n, classic)[0] in known]
            message = f"{show(name)} is no {what} of this device; {use(spellings, name)}"
            yield ConfigError(file, f"registers[{index}].{key}", message)


def _offsets(register_map: RegisterMap) -> tuple[dict[tuple[int, int], int], int]:
    """Return where each (table, address) lies in the buffer, and the size of the buffer."""
    offsets: dict[tuple[int, int], int] = {}
    size = 0
    for pool in register_map.pools():
        codecs = {r.address: r.codec for r in register_map.registers if r.table in pool}
        for address in sorted(codecs):
            offsets.update({(table, address): size for table in pool})
            size += codecs[address].size
    # Two bytes at least: itemgetter of a single one would return no tuple.
    return offsets, max(size, 2)


def _table(table: int, registers: Iterable[Register], offsets: Mapping[tuple[int, int], int]) -> Table:
    width = 1 if table in (COIL, DISCRETE_INPUT) else 2
    starts, stops, origins = [-1], [-1], [0]
    for register in registers:
        if register.address != stops[-1]:
            starts.append(register.address)
            stops.append(register.address)
            origins.append(offsets[table, register.address] - width * register.address)
        stops[-1] = register.stop
    return Table(width, tuple(starts), tuple(stops), tuple(origins))


def _measured(
    register_map: RegisterMap, fields: Sequence[str], classic: Classic, offsets: Mapping[tuple[int, int], int]
) -> Iterator[Measured]:
    sources = {field: index for index, field in enumerate(fields)}
    done: set[int] = set()
    for table in TABLES:
        for register in register_map.readable(table):
            offset = offsets[table, register.address]
            names = [_si(name, classic) for _, name in register.names]
            if offset in done or not all(si_name in sources for si_name, _ in names):
                continue
            done.add(offset)
            (si_name, factor), codec = names[0], register.codec
            bits = tuple((bit, sources[_si(name, classic)[0]]) for bit, name in (register.bits or {}).items())
            yield Measured(register.name, codec, factor / register.scale, sources[si_name], offset, bits)


def _command(
    register: Register, ranges: Mapping[str, Accepts], classic: Classic, offset: int
) -> CommandRegister:
    ((_, name),) = register.names
    si_name, factor = _si(name, classic)
    return CommandRegister(
        command=si_name,
        codec=register.codec,
        raw_per_si=factor / register.scale,
        accept=ranges[si_name].accept,
        start=register.address,
        stop=register.stop,
        offset=offset,
    )


def _placing(order: Sequence[Measured], size: int) -> Callable[[bytes], tuple[int, ...]]:
    packed_size = sum(m.codec.size for m in order)
    sources = list(range(packed_size, packed_size + size))
    packed = 0
    for m in order:
        # What the codec does to the bytes 0, 1, 2... tells which of them comes where.
        moved = m.codec.reorder(bytes(range(m.codec.size)))
        sources[m.offset : m.offset + m.codec.size] = [packed + byte for byte in moved]
        packed += m.codec.size
    return itemgetter(*sources)


def _initial(
    register_map: RegisterMap, fields: Sequence[str], offsets: Mapping[tuple[int, int], int], size: int
) -> bytes:
    """Return the buffer before the first measurement: zeros, and the texts that never change."""
    buffer = bytearray(size)
    texts = register_map.identification.texts()
    for register in register_map.registers:
        name = register.internal_name or ""
        if register.type == "string" and name in texts and name not in fields:
            offset = offsets[register.table, register.address]
            buffer[offset : offset + register.codec.size] = register.codec.pack(
                register.codec.fit_text(texts[name])
            )
    return bytes(buffer)
