"""Requests and replies of an imagined EMS, as they are recorded."""

import math
import struct
from collections.abc import Iterable

from dertwin.scenario.record import Exchange

LINE = "rtu /dev/line"


def read(
    time_s: float,
    device: str = "bess-1",
    address: int = 0,
    words: Iterable[int] = (0,),
    **more: float | str | bytes,
) -> Exchange:
    """Return a read of holding registers that was answered after 10 ms, or as `more` says."""
    data = b"".join(struct.pack(">H", word & 0xFFFF) for word in words)
    request = struct.pack(">BHH", 3, address, len(data) // 2)
    return _exchange(time_s, device, request, bytes((3, len(data))) + data, more)


def write(
    time_s: float, device: str = "bess-1", address: int = 10, word: int = 0, **more: float | str | bytes
) -> Exchange:
    """Return a write of one register that was answered after 10 ms, or as `more` says."""
    request = struct.pack(">BHH", 6, address, word & 0xFFFF)
    return _exchange(time_s, device, request, request, more)


def refused(exchange: Exchange, code: int) -> Exchange:
    """Return the exchange with an exception reply."""
    return exchange._replace(reply=bytes((exchange.request[0] | 0x80, code)))


def lost(exchange: Exchange) -> Exchange:
    """Return the exchange without a reply."""
    return exchange._replace(replied_s=math.nan, reply=b"")


def _exchange(
    time_s: float, device: str, request: bytes, reply: bytes, more: dict[str, float | str | bytes]
) -> Exchange:
    usual = Exchange(time_s, time_s + 0.01, LINE, "", 1, device, request, reply)
    return usual._replace(**more)
