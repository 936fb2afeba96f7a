"""The half-duplex conversation on one serial line: when to answer, and what never to send."""

import os
import time
from collections.abc import Callable
from dataclasses import dataclass

from bench.counters import Latency
from bench.links.timer import PreciseTimer
from bench.recorder import NOISE, RECEIVED, SENT, Tap
from bench.unit import Unit
from dertwin.modbus import rtu

ECHO_WINDOW_S = 0.100


@dataclass(frozen=True, slots=True)
class LineTiming:
    """The times of one line: s of silence before a reply, s that one character takes."""

    reply_after_s: float
    silent_interval_s: float
    character_s: float


class Line:
    """Reads frames from an open serial port and answers those for its units.

    Each reply goes out when the line has been silent for `reply_after_s` since the last byte. What
    begins after the request holds the reply back: if it becomes a frame, the client does not wait any
    more, and only the last request is answered. Broadcasts act and get no reply.
    """

    def __init__(
        self,
        fd: int,
        units: dict[int, Unit],
        counters: rtu.LineCounters,
        latency: Latency,
        timing: LineTiming,
        suppress_echo: bool,
        broken: Callable[[str], None],
        tap: Tap | None = None,
    ) -> None:
        """Serve the open, non-blocking port `fd`; `broken` is called once when it fails."""
        self.decoder = rtu.RtuDecoder(units, counters, timing.silent_interval_s)
        self._tap = tap
        self._latency = latency
        self._fd = fd
        self._units = units
        self._timing = timing
        self._suppress_echo = suppress_echo
        self._broken = broken
        self._last_byte_at = 0.0
        if tap:
            self.decoder.observe = lambda heard, is_frame: tap(
                RECEIVED if is_frame else NOISE, self._last_byte_at, heard
            )
        self._reply = b""
        self._echo = b""
        self._echo_until = 0.0
        self._timer = PreciseTimer(self._expired)

    def close(self) -> None:
        """Free the timer; the port stays its owner's."""
        self._timer.close()

    def readable(self) -> None:
        """Take what has arrived."""
        try:
            data = os.read(self._fd, 4096)
        except BlockingIOError:
            return
        except OSError as error:
            self._broken(error.strerror or str(error))
            return
        if not data:
            self._broken("the port has gone")
            return
        now = time.monotonic()
        if self._echo:
            data = self._without_echo(data, now)
            if not data:
                return
        self._last_byte_at = now
        self._hear(self.decoder.receive(data, now))
        self._arm()

    def _hear(self, frames: list[rtu.RtuFrame]) -> None:
        for kind, unit_id, pdu in frames:
            self._reply = b""
            if kind is rtu.Kind.OWN:
                reply = self._units[unit_id].respond(pdu)
                self._reply = rtu.frame(unit_id, reply) if reply else b""
            elif kind is rtu.Kind.BROADCAST:
                for unit in self._units.values():
                    unit.respond(pdu)

    def _arm(self) -> None:
        deadline = self.decoder.deadline
        if deadline is None and self._reply:
            deadline = self._last_byte_at + self._timing.reply_after_s
        self._timer.arm(deadline)

    def _expired(self) -> None:
        # On a busy machine bytes may have come that nobody has read yet: then it was not silent.
        last_byte_at = self._last_byte_at
        self.readable()
        if self._last_byte_at != last_byte_at:
            return
        now = time.monotonic()
        deadline = self.decoder.deadline
        if deadline is not None and now >= deadline:
            self._hear(self.decoder.silence())
            deadline = None
        if deadline is None and self._reply and now >= self._last_byte_at + self._timing.reply_after_s:
            self._send(now)
        self._arm()

    def _send(self, now: float) -> None:
        reply, self._reply = self._reply, b""
        try:
            sent = os.write(self._fd, reply)
        except BlockingIOError:
            sent = 0
        except OSError as error:
            self._broken(error.strerror or str(error))
            return
        if self._tap:
            self._tap(SENT, now, reply[:sent])
        self.decoder.last_reply = reply
        self.decoder.counters.sent_bytes += sent
        if sent < len(reply):
            self.decoder.counters.replies_dropped += 1
        else:
            self._latency.observe(time.monotonic() - self._last_byte_at, 1)
        if self._suppress_echo:
            self._echo = reply[:sent]
            self._echo_until = now + sent * self._timing.character_s + ECHO_WINDOW_S

    def _without_echo(self, data: bytes, now: float) -> bytes:
        """Return what of `data` is not the expected echo of the last reply."""
        echo = self._echo
        length = min(len(data), len(echo))
        if now > self._echo_until or data[:length] != echo[:length]:
            self._echo = b""
            return data
        self._echo = echo[length:]
        return data[length:]
