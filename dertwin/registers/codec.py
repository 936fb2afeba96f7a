"""Register types: a raw value to the bytes of its registers and back.

A codec knows nothing of scales, names or addresses. It saturates instead of wrapping, and says so.
"""

import math
import struct
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from typing import Literal

RegisterType = Literal[
    "uint16",
    "int16",
    "uint32",
    "int32",
    "uint64",
    "int64",
    "float32",
    "float64",
    "string",
    "bitfield",
    "enum",
]
Order = Literal["big", "little"]
Raw = int | float | bytes

# The numbers of registers each type may have.
COUNTS: Mapping[RegisterType, Sequence[int]] = {
    "uint16": (1,),
    "int16": (1,),
    "uint32": (2,),
    "int32": (2,),
    "uint64": (4,),
    "int64": (4,),
    "float32": (2,),
    "float64": (4,),
    "string": range(1, 126),
    "bitfield": (1, 2, 4),
    "enum": (1, 2),
}

_UNSIGNED = {2: "H", 4: "I", 8: "Q"}
_FLOATS = {4: "f", 8: "d"}
_FLOAT_MAX = {"f": struct.unpack(">f", b"\x7f\x7f\xff\xff")[0], "d": sys.float_info.max}


@dataclass(frozen=True, slots=True)
class Codec:
    """One register type in one order of words and bytes.

    `format` is that of `struct` for the big-endian value, `size` its bytes (a coil has one, 0 or 1),
    `low` and `high` the raw range. `sentinel` is the raw value that means "not available"; it is never
    the result of saturation. `wrap` lets a counter start again at `low` instead of saturating.
    """

    format: str
    size: int
    low: float
    high: float
    sentinel: int | float | None = None
    swap_words: bool = False
    swap_bytes: bool = False
    wrap: bool = False

    @property
    def is_float(self) -> bool:
        """Tell the types that need no rounding from the others."""
        return self.format in _FLOAT_MAX

    @property
    def is_text(self) -> bool:
        """Tell strings from numbers."""
        return self.format.endswith("s")

    def fit(self, value: float) -> tuple[int | float, bool]:
        """Return the raw value nearest to `value`, and whether it says the same.

        NaN becomes the sentinel; without one a float register holds NaN, any other 0, which says
        something else.
        """
        if value != value:
            if self.sentinel is not None:
                return self.sentinel, True
            return (value, True) if self.is_float else (0, False)
        if not math.isinf(value):
            raw = value if self.is_float else round(value)
            if self.low <= raw <= self.high:
                return raw, True
            if self.wrap:
                low, high = int(self.low), int(self.high)
                return (round(value) - low) % (high - low + 1) + low, True
        return (self.low if value < 0 else self.high), False

    def fit_text(self, text: str) -> bytes:
        """Return ASCII in the size of the register: cut, or padded with NUL."""
        return text.encode("ascii", "replace")[: self.size].ljust(self.size, b"\0")

    def pack(self, raw: Raw) -> bytes:
        """Return the bytes of a raw value in the order of the wire."""
        return self.reorder(struct.pack(">" + self.format, raw))

    def unpack(self, data: bytes) -> Raw:
        """Return the raw value that the bytes of the wire say."""
        raw: Raw = struct.unpack(">" + self.format, self.reorder(data))[0]
        return raw

    def reorder(self, data: bytes) -> bytes:
        """Bring big-endian bytes into the order of the wire, or back: both are the same move."""
        if self.swap_words:
            data = data[::-1]
        if self.swap_words != self.swap_bytes:
            pairs = bytearray(data)
            pairs[::2], pairs[1::2] = data[1::2], data[::2]
            data = bytes(pairs)
        return data


BIT = Codec("?", 1, 0, 1)


@cache
def codec(
    register_type: RegisterType,
    count: int,
    endian: Order = "big",
    byte_order: Order = "big",
    sentinel: int | None = None,
    wrap: bool = False,
) -> Codec:
    """Return the codec of a register type; equal ones are one object.

    `endian` is the order of words, `byte_order` that of the bytes in a word, `sentinel` the bits of the
    not-available value.
    """
    size = 2 * count
    orders = {"swap_words": endian == "little", "swap_bytes": byte_order == "little"}
    if register_type == "string":
        return Codec(f"{size}s", size, 0, 0, **orders)
    if register_type.startswith("float"):
        form = _FLOATS[size]
        low, high = -_FLOAT_MAX[form], _FLOAT_MAX[form]
    elif register_type.startswith("int"):
        form = _UNSIGNED[size].lower()
        low, high = -(1 << 8 * size - 1), (1 << 8 * size - 1) - 1
    else:
        form = _UNSIGNED[size]
        low, high = 0, (1 << 8 * size) - 1
    if sentinel is None:
        return Codec(form, size, low, high, None, wrap=wrap, **orders)
    absent = struct.unpack(">" + form, (sentinel % (1 << 8 * size)).to_bytes(size, "big"))[0]
    if absent != 0:
        low, high = low + (absent == low), high - (absent == high)
    return Codec(form, size, low, high, absent, wrap=wrap, **orders)
