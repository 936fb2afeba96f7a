"""The registers of one device as its clients see them."""

from bisect import bisect_right
from collections.abc import Mapping, Sequence
from typing import Any, NoReturn

from dertwin.registers.layout import CommandRegister, Layout, Measured


class UnmappedAddress(Exception):
    """The request touches an address that the map does not have, or has but not for this."""


class ValueRefused(Exception):
    """The written value is not one that the command takes."""


class RegisterImage:
    """Holds the registers of one device: published measurements to read, accepted writes to drain.

    `requests_since_tick` counts the requests answered from the image; who takes it sets it to 0.
    `saturated` counts the values that did not fit into their register, once per encoding and register;
    `saturated_by` does so by the register's name.
    """

    __slots__ = (
        "_buffer",
        "_held",
        "_layout",
        "_measurements",
        "_stale",
        "_writes",
        "requests_since_tick",
        "saturated",
        "saturated_by",
    )

    def __init__(self, layout: Layout, writes: list[tuple[str, float]] | None = None) -> None:
        """Start with zeros: nothing should be served before the first `publish`.

        Images of one device share the list `writes`, so that their writes are drained in the order in
        which they came.
        """
        self._layout = layout
        self._buffer = layout.initial
        self._measurements: Sequence[Any] = ()
        self._stale = False
        self._writes = [] if writes is None else writes
        self._held: dict[int, bytes] = {}
        self.requests_since_tick = 0
        self.saturated = 0
        self.saturated_by: dict[str, int] = {}

    @property
    def identification(self) -> Mapping[int, bytes]:
        """Return the objects of function 43/14; 0, 1 and 2 are always there."""
        return self._layout.identification

    def publish(self, measurements: Sequence[Any]) -> None:
        """Take the measurements of a step; they are encoded when the next request comes."""
        self._measurements = measurements
        self._stale = True

    def count_on_from(self, former: "RegisterImage") -> None:
        """Go on with the counts of the image that this one replaces."""
        self.saturated = former.saturated
        self.saturated_by = former.saturated_by

    def drain(self) -> list[tuple[str, float]]:
        """Return and forget the accepted writes since the last call, in order: SI name and SI value."""
        writes = self._writes.copy()
        self._writes.clear()
        return writes

    def read_registers(self, function: int, address: int, count: int) -> bytes:
        """Return holding (function 3) or input registers (4) as big-endian words. Raises UnmappedAddress."""
        if self._stale:
            self._encode()
        width, starts, stops, origins = self._layout.tables[function]
        block = bisect_right(starts, address) - 1
        if address + count > stops[block]:
            return self._read_across_gaps(function, address, count)
        start = origins[block] + width * address
        return self._buffer[start : start + width * count]

    def read_bits(self, function: int, address: int, count: int) -> bytes:
        """Return coils (function 1) or discrete inputs (2), packed, the first in the lowest bit.

        Raises UnmappedAddress.
        """
        bits = self.read_registers(function, address, count)
        return int(bits[::-1].translate(_DIGITS), 2).to_bytes((count + 7) // 8, "little")

    def read_holding_word(self, address: int) -> int:
        """Return one holding register. Raises UnmappedAddress."""
        return int.from_bytes(self.read_registers(3, address, 1), "big")

    def write_registers(self, address: int, data: bytes) -> None:
        """Take the words of one or more commands, all or none. Raises UnmappedAddress or ValueRefused."""
        self._write(
            self._layout.holding, self._held, address, [data[i : i + 2] for i in range(0, len(data), 2)]
        )

    def write_bits(self, address: int, bits: Sequence[bool]) -> None:
        """Take coils, all or none. Raises UnmappedAddress or ValueRefused."""
        self._write(self._layout.coils, {}, address, [b"\1" if bit else b"\0" for bit in bits])

    def _read_across_gaps(self, function: int, address: int, count: int) -> bytes:
        width, starts, stops, origins = self._layout.tables[function]
        lowest = starts[1] if len(starts) > 1 else 65536  # the first block is the empty one at -1
        if not (self._layout.gaps_read_zero and lowest <= address and address + count <= stops[-1]):
            raise UnmappedAddress
        answer = bytearray(width * count)
        for start, stop, origin in zip(starts, stops, origins, strict=True):
            first, last = max(start, address), min(stop, address + count)
            if first < last:
                part = self._buffer[origin + width * first : origin + width * last]
                answer[width * (first - address) : width * (last - address)] = part
        return bytes(answer)

    def _encode(self) -> None:
        layout, values = self._layout, self._measurements
        try:
            raws = [
                raw if low <= (raw := round(values[source] * raw_per_si)) <= high else _misfit()
                for source, raw_per_si, low, high in layout.integers
            ]
            raws += [
                raw if low <= (raw := values[source] * raw_per_si) <= high else _misfit()
                for source, raw_per_si, low, high in layout.floats
            ]
        except (ValueError, OverflowError):
            raws = [self._fit(m, values[m.source]) for m in layout.numbers]
        raws += [_compose(m, values) for m in layout.others]
        self._buffer = bytes(layout.place(layout.pack(*raws) + self._buffer))
        self._stale = False

    def _fit(self, measured: Measured, value: float) -> float:
        raw, fits = measured.codec.fit(value * measured.raw_per_si)
        if not fits:
            self.saturated += 1
            self.saturated_by[measured.name] = self.saturated_by.get(measured.name, 0) + 1
        return raw

    def _write(
        self,
        commands: Mapping[int, CommandRegister],
        held: dict[int, bytes],
        address: int,
        words: Sequence[bytes],
    ) -> None:
        stop = address + len(words)
        pieces = {**held, **dict(enumerate(words, address))}
        written = []
        while address < stop:
            command = commands.get(address)
            if command is None:
                raise UnmappedAddress
            if all(piece in pieces for piece in range(command.start, command.stop)):
                written.append(command)
            elif not self._layout.holds_partial_writes:
                raise UnmappedAddress
            address = command.stop
        accepted = [
            (command, *_accept(command, b"".join(pieces.pop(a) for a in range(command.start, command.stop))))
            for command in written
        ]
        # Nothing is refused from here on. What was published before a write must not cover it later.
        if self._stale:
            self._encode()
        held.clear()
        held.update(pieces)
        buffer = bytearray(self._buffer)
        for command, value, data in accepted:
            buffer[command.offset : command.offset + len(data)] = data
            self._writes.append((command.command, value))
        self._buffer = bytes(buffer)


# Bits lie as bytes of 0 and 1 in the buffer; as digits they make a number of base 2.
_DIGITS = bytes.maketrans(b"\0\1", b"01")


def _misfit() -> NoReturn:
    """Leave the encoding that is fast because every value fits."""
    raise ValueError


def _compose(measured: Measured, values: Sequence[Any]) -> int | bytes:
    if measured.bits:
        return sum(1 << bit for bit, source in measured.bits if values[source])
    return measured.codec.fit_text(str(values[measured.source]))


def _accept(command: CommandRegister, data: bytes) -> tuple[float, bytes]:
    """Return the SI value of written words and what reads back. Raises ValueRefused."""
    raw: Any = command.codec.unpack(data)
    value = raw / command.raw_per_si
    taken = command.accept(value)
    if taken is None or raw == command.codec.sentinel:
        raise ValueRefused
    if taken != value:
        data = command.codec.pack(command.codec.fit(taken * command.raw_per_si)[0])
    return taken, data
