"""Modbus TCP framing: a stream of bytes to requests, and replies to frames; no I/O.

A frame is a transaction id, protocol id 0 and length (of unit id and PDU), two bytes each, then
unit id and PDU. Source: MODBUS Messaging on TCP/IP Implementation Guide V1.0b, 3.1.3.
"""

from struct import Struct
from typing import TypeAlias

# Transaction id, unit id, PDU.
Frame: TypeAlias = tuple[int, int, bytes]

_HEADER = Struct(">HHHB")
_MIN_LENGTH, _MAX_LENGTH = 2, 254


class UntrustedStream(Exception):
    """The stream holds a length that no frame has, so nobody knows where the next frame begins.

    `frames` are the good frames before it: answer them, then close the connection.
    """

    def __init__(self, length: int, frames: list[Frame]) -> None:
        """Take the length in the header and the good frames before it."""
        super().__init__(f"length {length} is not within {_MIN_LENGTH}..{_MAX_LENGTH}")
        self.frames = frames


def take_frames(buffer: bytearray) -> list[Frame]:
    """Remove the complete frames from the front of a receive buffer and return them in order.

    Frames of another protocol than Modbus (protocol id not 0) are dropped. Raises UntrustedStream
    as soon as a header has a length outside 2..254.
    """
    frames: list[Frame] = []
    start, size = 0, len(buffer)
    while size - start >= 7:
        transaction_id, protocol_id, length, unit_id = _HEADER.unpack_from(buffer, start)
        if not _MIN_LENGTH <= length <= _MAX_LENGTH:
            raise UntrustedStream(length, frames)
        end = start + 6 + length
        if end > size:
            break
        if not protocol_id:
            frames.append((transaction_id, unit_id, bytes(buffer[start + 7 : end])))
        start = end
    # Once for all frames: removing each from the front of a long buffer would take quadratic time.
    del buffer[:start]
    return frames


def frame(transaction_id: int, unit_id: int, pdu: bytes) -> bytes:
    """Build the frame of a PDU."""
    return _HEADER.pack(transaction_id, 0, len(pdu) + 1, unit_id) + pdu
