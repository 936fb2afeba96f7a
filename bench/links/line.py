"""The half-duplex conversation on one serial line: when to answer, and what never to send."""

import os
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Protocol

from bench.counters import Latency
from bench.disturbance import Disturbance
from bench.links.outbox import Outbox
from bench.links.timer import PreciseTimer
from bench.recorder import NOISE, RECEIVED, SENT, Tap
from bench.unit import Unit
from dertwin.modbus import rtu
from dertwin.scenario.wire import Header

ECHO_WINDOW_S = 0.100


@dataclass(frozen=True, slots=True)
class LineTiming:
    """The times of one line: s of silence before a reply, s that one character takes."""

    reply_after_s: float
    silent_interval_s: float
    character_s: float


class Served(Protocol):
    """What a line is served with: units by unit id, what is counted, and the faults that act, if any do."""

    units: dict[int, Unit]
    counters: rtu.LineCounters
    latency: Latency
    disturbance: Disturbance | None


class Line:
    """Reads frames from an open serial port and answers those for its units.

    Each reply goes out when the line has been silent for `reply_after_s` since the last byte. What
    begins after the request holds the reply back: if it becomes a frame, the client does not wait any
    more, and only the last request is answered. Broadcasts act and get no reply.
    """

    def __init__(
        self,
        fd: int,
        served: Served,
        timing: LineTiming,
        suppress_echo: bool,
        broken: Callable[[str], None],
        tap: Tap | None = None,
    ) -> None:
        """Serve the open, non-blocking port `fd`; `broken` is called once when it fails."""
        self.decoder = rtu.RtuDecoder(served.units, served.counters, timing.silent_interval_s)
        self._tap = tap
        self._fd = fd
        self._served = served
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
        self.outbox = Outbox(self.send, timing.character_s)

    def close(self) -> None:
        """Free the timer; the port stays its owner's."""
        self._timer.close()
        self.outbox.close()

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
        if self._served.disturbance is not None:
            self._hear_disturbed(self._served.disturbance, frames)
            return
        for kind, unit_id, pdu in frames:
            self._reply = b""
            if kind is rtu.Kind.OWN:
                reply = self._served.units[unit_id].respond(pdu)
                self._reply = rtu.frame(unit_id, reply) if reply else b""
            elif kind is rtu.Kind.BROADCAST:
                for unit in self._served.units.values():
                    unit.respond(pdu)

    def _hear_disturbed(self, disturbance: Disturbance, frames: list[rtu.RtuFrame]) -> None:
        """Answer as faults have it; only a reply that they left alone is held back by what follows."""
        due = self._last_byte_at + self._timing.reply_after_s
        for kind, unit_id, pdu in frames:
            self._reply = b""
            if kind is rtu.Kind.OWN:
                unit = self._served.units[unit_id]
                chunks = disturbance.answer(unit.asset_id, Header(unit_id), pdu, unit.respond)
                if len(chunks) == 1 and chunks[0].delay_s == 0:
                    self._reply = chunks[0].data
                else:
                    self.outbox.put(chunks, due)
            elif kind is rtu.Kind.BROADCAST:
                disturbance.broadcast(self._served.units, pdu)

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
            self._send_reply()
        self._arm()

    def _send_reply(self) -> None:
        reply, self._reply = self._reply, b""
        if self.send(reply):
            self._served.latency.observe(time.monotonic() - self._last_byte_at, 1)

    def send(self, data: bytes) -> bool:
        """Put bytes on the line; tell whether the port took all of them."""
        now = time.monotonic()
        try:
            sent = os.write(self._fd, data)
        except BlockingIOError:
            sent = 0
        except OSError as error:
            self._broken(error.strerror or str(error))
            return False
        if self._tap and sent:
            self._tap(SENT, now, data[:sent])
        counters = self.decoder.counters
        self.decoder.last_reply = data
        counters.sent_bytes += sent
        if self._suppress_echo:
            self._echo = data[:sent]
            self._echo_until = now + sent * self._timing.character_s + ECHO_WINDOW_S
        if sent < len(data):
            counters.replies_dropped += 1
            return False
        return True

    def _without_echo(self, data: bytes, now: float) -> bytes:
        """Return what of `data` is not the expected echo of the last reply."""
        echo = self._echo
        length = min(len(data), len(echo))
        if now > self._echo_until or data[:length] != echo[:length]:
            self._echo = b""
            return data
        self._echo = echo[length:]
        return data[length:]
