"""What requests and replies of Modbus say, as far as verdict packs look at it.

Source: MODBUS Application Protocol V1.1b3, 6 and 7.
"""

import struct
from typing import Literal

from pydantic import Field

from dertwin.scenario.record import Exchange
from dertwin.schema import FrozenModel

WRITES = frozenset((5, 6, 15, 16, 22, 23))
ILLEGAL_FUNCTION, ILLEGAL_ADDRESS, ILLEGAL_VALUE, BUSY = 1, 2, 3, 6

_READ_WRITE = 23
_READS: dict[int | None, tuple[int, ...]] = {3: (3, _READ_WRITE), 4: (4,), None: (3, 4, _READ_WRITE)}
_FORMATS = {"uint16": "H", "int16": "h", "uint32": "I", "int32": "i", "float32": "f"}


class Word(FrozenModel):
    """A value on the wire: where it is, how it is coded, and how much one of it is in the unit of interest.

    `function` is the one that reads it, 3 (holding registers) or 4 (input registers); left out, either.
    `word_order` is that of values of two registers.
    """

    device: str = Field(min_length=1)
    function: Literal[3, 4] | None = None
    address: int = Field(ge=0, le=65535)
    type: Literal["uint16", "int16", "uint32", "int32", "float32"] = "int16"
    word_order: Literal["big", "little"] = "big"
    scale: float = 1.0

    def read_in(self, exchange: Exchange) -> float | None:
        """Return the value that a reply served; None if the exchange did not serve it."""
        request, reply = exchange.request, exchange.reply
        if exchange.device != self.device or not answered(exchange) or len(request) < 5:
            return None
        return self._value(_number(request, 1), reply[2:]) if request[0] in _READS[self.function] else None

    def written_in(self, exchange: Exchange) -> float | None:
        """Return the value that a request wrote; None if it did not write it, or was refused."""
        if exchange.device != self.device or not exchange.request or refusal(exchange):
            return None
        request = exchange.request
        if request[0] == 6:
            return self._value(_number(request, 1), request[3:])
        if request[0] == 16:
            return self._value(_number(request, 1), request[6:])
        return self._value(_number(request, 5), request[10:]) if request[0] == _READ_WRITE else None

    def _value(self, first: int, data: bytes) -> float | None:
        code = _FORMATS[self.type]
        size = struct.calcsize(">" + code)
        at = 2 * (self.address - first)
        words = data[at : at + size] if at >= 0 else b""
        if len(words) != size:
            return None
        if self.word_order == "little":
            words = words[-2:] + words[:-2]
        return float(struct.unpack(">" + code, words)[0]) * self.scale


def answered(exchange: Exchange) -> bool:
    """Tell whether there was a reply that is no exception."""
    return bool(exchange.reply) and exchange.reply[0] < 0x80


def refusal(exchange: Exchange) -> int:
    """Return the exception code of a reply; 0 if it is none."""
    return exchange.reply[1] if len(exchange.reply) > 1 and exchange.reply[0] >= 0x80 else 0


def writes(exchange: Exchange) -> bool:
    """Tell whether a request writes something."""
    return exchange.request[:1] != b"" and exchange.request[0] in WRITES


def _number(pdu: bytes, at: int) -> int:
    return int.from_bytes(pdu[at : at + 2], "big")
