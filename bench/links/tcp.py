"""Modbus on TCP sockets: Modbus TCP (MBAP), and RTU frames on a socket."""

import asyncio
import errno
import os
import socket
import struct
from abc import abstractmethod
from collections import OrderedDict
from collections.abc import Callable
from dataclasses import dataclass
from time import monotonic
from typing import cast

import structlog

from bench.counters import Latency
from bench.disturbance import UNDISTURBED, Disturbance, Respond
from bench.links.link import LinkDown
from bench.links.outbox import Outbox
from bench.links.peers import Peers
from bench.log import OncePerMinute
from bench.recorder import CLOSED, RECEIVED, SENT, Recorder, Tap
from bench.unit import Unit
from dertwin.bindings import TcpBinding
from dertwin.modbus import mbap, rtu
from dertwin.modbus.errors import GatewayTargetFailedToRespond
from dertwin.modbus.pdu import exception_reply
from dertwin.scenario.wire import Header

log = structlog.get_logger()

BACKLOG = 1024
IDLE_TIMEOUT_S = 600.0
HALF_FRAME_TIMEOUT_S = 10.0
NOT_READING_TIMEOUT_S = 5.0
SEND_BUFFER_BYTES = 64 * 1024
# What one client may make us do before others have their turn: some 1300 requests. The kernel
# doubles it. With its own choice, a client could have a third of a second, and megabytes of replies.
RECEIVE_BUFFER_BYTES = 8 * 1024
_SOCKET_OPTIONS = (
    (socket.SO_KEEPALIVE, 1),
    (socket.SO_SNDBUF, SEND_BUFFER_BYTES),
    (socket.SO_RCVBUF, RECEIVE_BUFFER_BYTES),
)
# Close without a farewell: the peer sees a reset connection.
_NO_LINGER = struct.pack("ii", 1, 0)


@dataclass(slots=True)
class TcpCounters:
    """What happened on one TCP address since the start."""

    connections: int = 0
    closed_for_room: int = 0
    closed_idle: int = 0
    closed_not_reading: int = 0
    protocol_errors: int = 0
    unknown_unit: int = 0


class TcpLink:
    """One TCP address and the units behind it.

    A single unit also answers unit ids 0 and 255, which on TCP mean the server itself.
    """

    def __init__(
        self, binding: TcpBinding, log_protocol_error: OncePerMinute, recorder: Recorder | None = None
    ) -> None:
        """Serve at the address and with the limits of the binding (of any of its units).

        All links of a site share `log_protocol_error`, so that a peer has one line whatever it tries.
        """
        self.recorder = recorder
        self.units: dict[int, Unit] = {}
        self.disturbance: Disturbance | None = None
        self.counters = TcpCounters()
        self.line_counters = rtu.LineCounters()
        self.latency = Latency()
        self.log_protocol_error = log_protocol_error
        self.unknown_unit = binding.unknown_unit
        self.kind = binding.kind
        self._ip, self._port = binding.ip, binding.port
        self._where = f"[{self._ip}]:{self._port}" if ":" in self._ip else f"{self._ip}:{self._port}"
        self._max_connections = binding.max_connections
        self._peers = Peers(self)
        # Ordered by last activity, so that the first one is the one idle for longest.
        self._connections: OrderedDict[TcpConnection, float] = OrderedDict()

    @property
    def name(self) -> str:
        """Return the link's name in logs and metrics."""
        return f"{'tcp' if self.kind == 'modbus_tcp' else 'rtu-over-tcp'} {self._where}"

    @property
    def required(self) -> bool:
        """Tell that an address needs no hardware."""
        return True

    @property
    def connections(self) -> int:
        """Return how many clients are connected."""
        return len(self._connections)

    async def serve(self, up: Callable[[str], None]) -> None:
        """Listen until cancelled; see Link."""
        protocol = MbapConnection if self.kind == "modbus_tcp" else RtuConnection
        try:
            server = await asyncio.get_running_loop().create_server(
                lambda: protocol(self), self._ip, self._port, backlog=BACKLOG, reuse_address=True
            )
        except OSError as error:
            # Event loops word it at length, each in its own way; name resolution has negative numbers.
            reason = os.strerror(error.errno) if error.errno and error.errno > 0 else str(error)
            if error.errno == errno.EADDRINUSE:
                shows_whose = f"`ss -tanp sport = :{self._port}` shows whose"
                reason += f", by another server or as an end of a connection; {shows_whose}"
            raise LinkDown(f"cannot listen on {self._where}: {reason}") from error
        for listener in server.sockets:  # connections inherit the options
            for option, value in _SOCKET_OPTIONS:
                listener.setsockopt(socket.SOL_SOCKET, option, value)
        up(self._where)
        try:
            while True:
                await asyncio.sleep(1.0)
                self._close_stale(monotonic())
                self._peers.look()
        finally:
            server.close()
            for connection in list(self._connections):
                connection.transport.abort()

    def unit(self, unit_id: int) -> Unit | None:
        """Return the unit that a request for `unit_id` is for; None if there is none."""
        unit = self.units.get(unit_id)
        if unit is None and unit_id in (0, 255) and len(self.units) == 1:
            (unit,) = self.units.values()
        if unit is None:
            self.counters.unknown_unit += 1
        return unit

    def disturb(self, disturbance: Disturbance | None) -> None:
        """Let faults act on the link from now on; see ModbusLink."""
        hurry = bool(self.disturbance and self.disturbance.paced and not (disturbance and disturbance.paced))
        self.disturbance = disturbance
        for connection in self._connections:
            connection.disturb(hurry)

    def leave_half_open(self) -> None:
        """Take nothing any more from the clients that there are, and do not tell them."""
        for connection in self._connections:
            connection.half_open = True

    def reset_connections(self, half_open: bool) -> int:
        """Reset the connections that are half open, or all; return how many."""
        chosen = [each for each in self._connections if each.half_open or not half_open]
        for connection in chosen:
            connection.reset()
        return len(chosen)

    def opened(self, connection: "TcpConnection") -> None:
        """Admit a client; if that is one too many, close the one idle for longest."""
        self.counters.connections += 1
        if len(self._connections) >= self._max_connections:
            self.counters.closed_for_room += 1
            oldest, _ = self._connections.popitem(last=False)
            oldest.transport.abort()
        self._connections[connection] = monotonic()
        if connection.peer:
            self._peers.opened(connection.peer)

    def active(self, connection: "TcpConnection", now: float) -> None:
        """Note that a client sent something."""
        if connection in self._connections:
            self._connections[connection] = now
            self._connections.move_to_end(connection)

    def closed(self, connection: "TcpConnection") -> None:
        """Forget a client."""
        self._connections.pop(connection, None)
        if connection.peer:
            self._peers.closed(connection.peer)

    def _close_stale(self, now: float) -> None:
        for connection, active_at in list(self._connections.items()):
            idle_s = now - active_at
            if connection.not_reading_since is not None:
                if now - connection.not_reading_since > NOT_READING_TIMEOUT_S:
                    self.counters.closed_not_reading += 1
                    connection.transport.abort()
            elif idle_s > IDLE_TIMEOUT_S or (connection.half_frame and idle_s > HALF_FRAME_TIMEOUT_S):
                self.counters.closed_idle += 1
                connection.transport.abort()


class TcpConnection(asyncio.Protocol):
    """One client of a TCP link."""

    def __init__(self, link: TcpLink) -> None:
        self.not_reading_since: float | None = None
        self.peer = ""
        self.half_open = False
        self.transport: asyncio.Transport
        self._link = link
        self._outbox: Outbox | None = None
        self._tap: Tap | None = None

    @property
    @abstractmethod
    def half_frame(self) -> bool:
        """Tell whether the rest of a frame is still to come."""

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self.transport = cast(asyncio.Transport, transport)
        # There is none any more when the client has reset the connection in the meantime.
        self.peer, *_ = transport.get_extra_info("peername") or ("",)
        self.transport.set_write_buffer_limits(high=SEND_BUFFER_BYTES)
        self._link.opened(self)
        self.disturb(hurry=False)
        if recorder := self._link.recorder:
            peer, own = (transport.get_extra_info(end) or ("", 0) for end in ("peername", "sockname"))
            self._tap = recorder.begin(self._link.name, peer[:2], own[:2])

    def connection_lost(self, exc: Exception | None) -> None:
        self._link.closed(self)
        if self._tap:
            self._tap(CLOSED, monotonic(), b"")
        if self._outbox:
            self._outbox.close()

    def send(self, data: bytes) -> float:
        """Send and return when that was (s of time.monotonic)."""
        self.transport.write(data)
        sent_at = monotonic()
        if self._tap:
            self._tap(SENT, sent_at, data)
        return sent_at

    def reset(self) -> None:
        """Close the connection without a farewell."""
        if self.transport.is_closing():
            return
        self.transport.get_extra_info("socket").setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, _NO_LINGER)
        self.transport.abort()

    def disturb(self, hurry: bool) -> None:
        """Let replies take the way on which faults act, if any do now; `hurry` those that trickle there."""
        if self._outbox and hurry:
            self._outbox.hurry()
        elif self._link.disturbance and not self._outbox:
            self._outbox = Outbox(self.send)

    def _disturbance(self) -> Disturbance | None:
        """Return the faults that act; None once there are none and nothing that they made is on its way."""
        disturbance = self._link.disturbance
        if disturbance is None and self._outbox:
            if self._outbox.busy:  # replies must not overtake the rest of one that comes in pieces
                return UNDISTURBED
            self._outbox = None
        return disturbance

    def _answer_one(
        self, disturbance: Disturbance, device: str, header: Header, pdu: bytes, respond: Respond
    ) -> None:
        """Answer a request as faults have it."""
        if self.half_open:
            disturbance.count(disturbance.half_open)
        elif disturbance.resets:
            disturbance.count(disturbance.resets)
            self.reset()
        elif self._outbox:
            self._outbox.put(disturbance.answer(device, header, pdu, respond), monotonic())

    def pause_writing(self) -> None:
        """Stop taking requests from a client that does not read its replies."""
        self.not_reading_since = monotonic()
        self.transport.pause_reading()

    def resume_writing(self) -> None:
        self.not_reading_since = None
        if not self.transport.is_closing():
            self.transport.resume_reading()


class MbapConnection(TcpConnection):
    """A Modbus TCP client."""

    def __init__(self, link: TcpLink) -> None:
        super().__init__(link)
        self._buffer = bytearray()

    @property
    def half_frame(self) -> bool:
        return bool(self._buffer)

    def data_received(self, data: bytes) -> None:
        received_at = monotonic()
        link = self._link
        link.active(self, received_at)
        if self._tap:
            self._tap(RECEIVED, received_at, data)
        self._buffer += data
        try:
            frames = mbap.take_frames(self._buffer)
        except mbap.UntrustedStream as error:
            self._answer(error.frames, received_at)
            self._give_up(str(error))
        else:
            self._answer(frames, received_at)

    def _answer(self, frames: list[mbap.Frame], received_at: float) -> None:
        if self._outbox is not None and (disturbance := self._disturbance()):
            self._answer_disturbed(disturbance, frames)
            return
        link = self._link
        units = link.units
        replies = []
        for transaction_id, unit_id, pdu in frames:
            unit = units.get(unit_id) or link.unit(unit_id)
            reply = unit.respond(pdu) if unit is not None else self._refuse(pdu)
            if reply:
                replies.append(mbap.frame(transaction_id, unit_id, reply))
        if replies:
            sent_at = self.send(b"".join(replies))
            link.latency.observe(sent_at - received_at, len(replies))

    def _refuse(self, pdu: bytes) -> bytes:
        """Return the reply to a request for no unit of the link."""
        if self._link.unknown_unit == "exception" and pdu[0] < 0x80:
            return exception_reply(pdu[0], GatewayTargetFailedToRespond.code)
        return b""

    def _answer_disturbed(self, disturbance: Disturbance, frames: list[mbap.Frame]) -> None:
        for transaction_id, unit_id, pdu in frames:
            unit = self._link.units.get(unit_id) or self._link.unit(unit_id)
            device, respond = (unit.asset_id, unit.respond) if unit else ("", self._refuse)
            self._answer_one(disturbance, device, Header(unit_id, transaction_id), pdu, respond)

    def _give_up(self, reason: str) -> None:
        link = self._link
        link.counters.protocol_errors += 1
        if self.peer:
            link.log_protocol_error(self.peer, "connection closed", link=link.name, reason=reason)
        self.transport.close()


class RtuConnection(TcpConnection):
    """A client that sends RTU frames on a socket; nobody else shares its line."""

    def __init__(self, link: TcpLink) -> None:
        super().__init__(link)
        self._decoder = rtu.RtuDecoder(link.units, link.line_counters)
        self._timer: asyncio.TimerHandle | None = None

    @property
    def half_frame(self) -> bool:
        return self._decoder.deadline is not None

    def data_received(self, data: bytes) -> None:
        received_at = monotonic()
        self._link.active(self, received_at)
        if self._tap:
            self._tap(RECEIVED, received_at, data)
        loop = asyncio.get_running_loop()
        self._answer(self._decoder.receive(data, loop.time()))
        if self._timer:
            self._timer.cancel()
        deadline = self._decoder.deadline
        self._timer = None if deadline is None else loop.call_at(deadline, self._silence)

    def connection_lost(self, exc: Exception | None) -> None:
        super().connection_lost(exc)
        if self._timer:
            self._timer.cancel()

    def _silence(self) -> None:
        self._answer(self._decoder.silence())

    def _answer(self, frames: list[rtu.RtuFrame]) -> None:
        if self._outbox is not None and (disturbance := self._disturbance()):
            self._answer_disturbed(disturbance, frames)
            return
        link = self._link
        taken_at = monotonic()
        for kind, unit_id, pdu in frames:
            if kind is rtu.Kind.BROADCAST:
                for unit in link.units.values():
                    unit.respond(pdu)
            elif kind is rtu.Kind.OWN and (reply := link.units[unit_id].respond(pdu)):
                adu = rtu.frame(unit_id, reply)
                link.latency.observe(self.send(adu) - taken_at, 1)

    def _answer_disturbed(self, disturbance: Disturbance, frames: list[rtu.RtuFrame]) -> None:
        for kind, unit_id, pdu in frames:
            if kind is rtu.Kind.BROADCAST:
                disturbance.broadcast(self._link.units, pdu)
            elif kind is rtu.Kind.OWN:
                unit = self._link.units[unit_id]
                self._answer_one(disturbance, unit.asset_id, Header(unit_id), pdu, unit.respond)

    def send(self, data: bytes) -> float:
        self._link.line_counters.sent_bytes += len(data)
        return super().send(data)
