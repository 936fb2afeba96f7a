"""RTU framing on a shared line: which bytes are a request to us, and which are somebody else's.

A line carries requests to us, requests to other servers and their replies, and noise. Software
sees neither the silences of the wire (USB adapters deliver in chunks) nor who sent what, so
frames are told apart by length and CRC first and by silence only where those leave doubt:

- At a frame boundary, a valid frame that begins with one of our unit ids is a request to us;
  one that begins with another id is that server's request or reply, and its bytes are never
  searched for requests, whatever its payload looks like.
- A frame that is still incomplete is waited for. Bytes that cannot be a frame are set aside
  until the line falls silent; then a request to us that ends exactly there is still taken. On a
  line that never falls silent, a request and its reply one after the other show where frames begin.

Source: MODBUS over Serial Line V1.02, 2.5; lengths of MODBUS Application Protocol V1.1b3, 6.
"""

from collections.abc import Callable, Collection
from dataclasses import dataclass
from enum import Enum
from typing import NamedTuple

MAX_ADU = 256
BROADCAST = 0

# An incomplete frame is waited for this long after its last byte: under load, requests have been
# seen to arrive byte by byte with far more than 1.5 characters between them.
PARTIAL_HOLD_S = 0.100
# Bytes that no frame explains are searched after this silence: longer than the 16 ms that an FTDI
# adapter may wait between two chunks of one frame.
HUNT_SILENCE_S = 0.020

# Function -> (fixed length, index of the byte count to add, if any), for whole ADUs.
_Length = tuple[int, int | None]
_REQUEST_LENGTH: dict[int, _Length] = {
    **dict.fromkeys((1, 2, 3, 4, 5, 6, 8), (8, None)),
    **dict.fromkeys((7, 11, 12, 17), (4, None)),
    **dict.fromkeys((15, 16), (9, 6)),
    **dict.fromkeys((20, 21), (5, 2)),
    22: (10, None),
    23: (13, 10),
    24: (6, None),
    43: (7, None),
}
# What a broadcast may be: among zeros, a shorter list keeps chance matches rarer.
_WRITES = (5, 6, 15, 16, 22)
_REPLY_LENGTH: dict[int, _Length] = {
    **dict.fromkeys((1, 2, 3, 4, 12, 17, 20, 21, 23), (5, 2)),
    **dict.fromkeys((5, 6, 8, 11, 15, 16), (8, None)),
    7: (5, None),
    22: (10, None),
    **dict.fromkeys(range(0x81, 0x100), (5, None)),
}


def _crc_table() -> tuple[int, ...]:
    table = []
    for value in range(256):
        for _ in range(8):
            value = (value >> 1) ^ 0xA001 if value & 1 else value >> 1
        table.append(value)
    return tuple(table)


_CRC_TABLE = _crc_table()


def crc16(data: bytes | bytearray | memoryview) -> int:
    """Compute the CRC-16 of Modbus (polynomial 0xA001 reflected, start 0xFFFF).

    It is sent low byte first; over a frame with its CRC the result is 0.
    Source: MODBUS over Serial Line V1.02, 6.2.2.
    """
    crc = 0xFFFF
    table = _CRC_TABLE
    for byte in data:
        crc = (crc >> 8) ^ table[(crc ^ byte) & 0xFF]
    return crc


def frame(unit_id: int, pdu: bytes) -> bytes:
    """Build the ADU of a PDU: unit id, PDU, CRC with its low byte first."""
    body = bytes((unit_id,)) + pdu
    return body + crc16(body).to_bytes(2, "little")


def silent_interval_s(baudrate: int, bits_per_character: int) -> float:
    """Return the silence that separates two frames (s): 3.5 characters, 1.75 ms above 19200 Bd.

    Source: MODBUS over Serial Line V1.02, 2.5.1.1.
    """
    return 0.00175 if baudrate > 19200 else 3.5 * bits_per_character / baudrate


class Kind(Enum):
    """Whom a frame on the line concerns."""

    OWN = "own"
    BROADCAST = "broadcast"
    FOREIGN = "foreign"


class RtuFrame(NamedTuple):
    """One valid frame seen on the line."""

    kind: Kind
    unit_id: int
    pdu: bytes


@dataclass(slots=True)
class LineCounters:
    """What happened on a line: frames by kind, wrong CRCs, bytes nobody explains, replies not sent, bytes."""

    own: int = 0
    broadcast: int = 0
    foreign: int = 0
    crc_errors: int = 0
    garbage_bytes: int = 0
    replies_dropped: int = 0
    received_bytes: int = 0
    sent_bytes: int = 0


class RtuDecoder:
    """Tells the frames on a line apart; bytes and times in, frames out, no I/O.

    `units` are the unit ids served here and may change while in use. Call `receive` with what
    arrives and `silence` once `deadline` has passed without another byte. Times are in seconds
    of any monotonic clock. `last_reply` is the last frame that we sent: its echo is no request.
    `observe`, if set, is told all bytes in order as they are cut, and whether they are a frame.
    """

    def __init__(
        self, units: Collection[int], counters: LineCounters, silent_interval_s: float = 0.0
    ) -> None:
        """Start at a frame boundary of a line whose frames are `silent_interval_s` apart."""
        self.observe: Callable[[bytes, bool], None] | None = None
        self.units = units
        self.counters = counters
        self.last_reply = b""
        self._hunt_s = max(HUNT_SILENCE_S, silent_interval_s)
        self._hold_s = max(PARTIAL_HOLD_S, silent_interval_s)
        self._buffer = bytearray()
        self._last_byte_at = 0.0
        self._patience_s = 0.0
        self._lost = False
        self._awaited: tuple[int, int] | None = None

    @property
    def deadline(self) -> float | None:
        """Return when to call `silence` unless bytes come before; None while nothing is pending."""
        return self._last_byte_at + self._patience_s if self._buffer else None

    def receive(self, data: bytes, now: float) -> list[RtuFrame]:
        """Take what arrived at `now` and return the frames that are complete with it."""
        self._buffer += data
        self.counters.received_bytes += len(data)
        self._last_byte_at = now
        frames: list[RtuFrame] = []
        while self._buffer and (not self._lost or self._resynchronise()):
            length = self._frame_length()
            if length is None:
                break
            frames.append(self._take(length))
        # A suffix of at most one ADU is ever searched, so older unexplained bytes need not be kept.
        surplus = len(self._buffer) - 2 * MAX_ADU
        if surplus > 0:
            self._drop(surplus)
        return frames

    def silence(self) -> list[RtuFrame]:
        """Settle what is pending once the line has been silent until `deadline`.

        Return the one frame that all of it is (of a function whose length is not known), else a
        request to us that ends where the line fell silent, else nothing. The next byte is again at
        a frame boundary.
        """
        start = self._request_at_end()
        self._drop(len(self._buffer) if start is None else start)
        frames = [] if start is None else [self._take(len(self._buffer))]
        self._lost = False
        return frames

    def _frame_length(self) -> int | None:
        """Return the length of the valid frame that the buffer begins with; None: not yet, or never.

        Sets how long to wait for more, and `_lost` when no frame can begin here.
        """
        buffer = self._buffer
        available = len(buffer)
        unit_id = buffer[0]
        self._patience_s = self._hold_s
        if available < 2:
            # A stray byte, as drivers make when they let go of the line, must not cost much time.
            self._patience_s = self._hold_s if unit_id in self.units else self._hunt_s
            return None
        function = buffer[1]
        ours = unit_id in self.units or unit_id == BROADCAST
        request = _declared_length(_REQUEST_LENGTH, buffer)
        reply = None if ours else _declared_length(_REPLY_LENGTH, buffer)
        for length in (reply, request):
            if length and length <= available and crc16(memoryview(buffer)[:length]) == 0:
                return length
        if request is None and reply is None:
            self._patience_s = self._hunt_s
        elif (request or 0) <= available and (reply or 0) <= available:
            self._lost = True
            self._patience_s = self._hunt_s
            self.counters.crc_errors += 1
        elif (request or 0) <= available and self._awaited != (unit_id, function & 0x7F):
            # Only a reply to a request that nobody made could still become of this: more likely noise.
            self._patience_s = self._hunt_s
        return None

    def _take(self, length: int) -> RtuFrame:
        adu = self._cut(length, True)
        unit_id, pdu = adu[0], adu[1:-2]
        if unit_id in self.units:
            kind = Kind.OWN
            self.counters.own += 1
        elif unit_id == BROADCAST:
            kind = Kind.BROADCAST
            self.counters.broadcast += 1
        else:
            kind = Kind.FOREIGN
            self.counters.foreign += 1
        self._awaited = (unit_id, pdu[0]) if kind is Kind.FOREIGN else None
        return RtuFrame(kind, unit_id, pdu)

    def _drop(self, length: int) -> None:
        if length:
            self.counters.garbage_bytes += length
            self._cut(length, False)

    def _cut(self, length: int, is_frame: bool) -> bytes:
        cut = bytes(self._buffer[:length])
        del self._buffer[:length]
        if self.observe:
            self.observe(cut, is_frame)
        return cut

    def _resynchronise(self) -> bool:
        """Drop what comes before another server's request and reply that end the buffer, if they do."""
        buffer = self._buffer
        end = len(buffer)
        for start in range(end - 8):
            if buffer[start] in self.units:
                continue
            request = _declared_length(_REQUEST_LENGTH, buffer, start)
            middle = start + (request or end)
            if middle >= end - 4 or buffer[middle] != buffer[start]:
                continue
            reply = _declared_length(_REPLY_LENGTH, buffer, middle)
            whole = memoryview(buffer)
            if middle + (reply or 0) == end and crc16(whole[start:middle]) == 0 == crc16(whole[middle:]):
                whole.release()
                self._drop(start)
                self._lost = False
                return True
        return False

    def _request_at_end(self) -> int | None:
        """Return where a frame begins that ends with the buffer: all of it, or a request to us or all."""
        buffer = self._buffer
        end = len(buffer)
        if end >= 4 and crc16(buffer) == 0:
            return None if buffer == self.last_reply else 0
        for start in range(max(0, end - MAX_ADU), end - 3):
            unit_id = buffer[start]
            if unit_id not in self.units and (unit_id != BROADCAST or buffer[start + 1] not in _WRITES):
                continue
            length = _declared_length(_REQUEST_LENGTH, buffer, start)
            if length == end - start and crc16(memoryview(buffer)[start:]) == 0:
                return start
        return None


def _declared_length(rules: dict[int, _Length], buffer: bytearray, start: int = 0) -> int | None:
    """Return the ADU length by function and byte count; the least possible while the count is missing."""
    rule = rules.get(buffer[start + 1])
    if rule is None:
        return None
    fixed, count_index = rule
    if count_index is None:
        return fixed
    if start + count_index >= len(buffer):
        return fixed + 1
    count = buffer[start + count_index]
    return None if count == 0 and rules is _REPLY_LENGTH else fixed + count
