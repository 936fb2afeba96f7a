"""Raw Modbus TCP clients."""

import socket
import struct
from types import TracebackType
from typing import NamedTuple, Self

from support.sites import READ_SETPOINT

TIMEOUT_S = 5.0


def frame(transaction_id: int, pdu: bytes, unit_id: int = 1, protocol_id: int = 0) -> bytes:
    return struct.pack(">HHHB", transaction_id, protocol_id, len(pdu) + 1, unit_id) + pdu


class Reply(NamedTuple):
    transaction_id: int
    unit_id: int
    pdu: bytes


class Client:
    """One connection to a server on this machine; a context manager."""

    def __init__(self, port: int, buffers: int | None = None) -> None:
        self.socket = socket.socket()
        self.socket.settimeout(TIMEOUT_S)
        for option in (socket.SO_RCVBUF, socket.SO_SNDBUF) if buffers else ():
            self.socket.setsockopt(socket.SOL_SOCKET, option, buffers)
        self.socket.connect(("127.0.0.1", port))
        self.socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self._received = self.socket.makefile("rb")

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self.close()

    def close(self) -> None:
        self._received.close()
        self.socket.close()

    def reset(self) -> None:
        """Close without any farewell: the server sees a reset connection."""
        self.socket.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        self.close()

    def send(self, data: bytes) -> None:
        self.socket.sendall(data)

    def receive(self) -> Reply:
        """Return the next reply; checks its header."""
        header = self._received.read(7)
        assert len(header) == 7, "the server closed the connection"
        transaction_id, protocol_id, length, unit_id = struct.unpack(">HHHB", header)
        assert protocol_id == 0
        assert 3 <= length <= 254
        return Reply(transaction_id, unit_id, self._received.read(length - 1))

    def ask(self, pdu: bytes, unit_id: int = 1, transaction_id: int = 7) -> bytes:
        """Make one request and return the PDU of the reply to it."""
        self.send(frame(transaction_id, pdu, unit_id))
        reply = self.receive()
        assert reply[:2] == (transaction_id, unit_id)
        return reply.pdu

    def is_closed(self, timeout_s: float = TIMEOUT_S) -> bool:
        """Tell whether the server closes the connection within the time, whatever it sends before."""
        self.socket.settimeout(timeout_s)
        try:
            while self._received.read1(65536):
                pass
        except TimeoutError:
            return False
        except ConnectionResetError:
            pass
        return True


def ask(port: int, pdu: bytes = READ_SETPOINT, unit_id: int = 1) -> bytes:
    """Make one request on a fresh connection."""
    with Client(port) as client:
        return client.ask(pdu, unit_id)
