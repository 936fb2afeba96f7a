"""Modbus RTU on a serial port, or on a virtual pair in its place."""

import asyncio
import errno
import os
from collections.abc import Callable

from serial import Serial, SerialException

from bench.links.line import Line, LineTiming
from bench.links.link import LinkDown
from bench.links.pty import client_end, pair_path, virtual_pair
from bench.unit import Unit
from dertwin.bindings import RtuBinding
from dertwin.modbus.rtu import LineCounters, silent_interval_s

_REMEDIES = {
    errno.ENOENT: "does not exist; plug the adapter in, or run with --fallback pty for a virtual pair",
    errno.EACCES: "permission denied; add this user to the group dialout and log in again",
    errno.EWOULDBLOCK: "in use by another program",
    errno.ENOTTY: "is not a serial port",
    errno.EISDIR: "is not a serial port",
}


class SerialLink:
    """One serial line and the units on it."""

    def __init__(self, binding: RtuBinding) -> None:
        """Serve on the port and with the settings of the binding (of any of its units)."""
        self.units: dict[int, Unit] = {}
        self.counters = LineCounters()
        self.binding = binding

    @property
    def name(self) -> str:
        """Return the link's name in logs and metrics."""
        return f"rtu {self.binding.port}"

    async def serve(self, up: Callable[[str], None]) -> None:
        """Open the port, or make the virtual pair, and serve until cancelled; see Link."""
        port = self.binding.port
        if port.startswith("pty:") or (self.binding.fallback == "pty" and not os.path.exists(port)):
            path = pair_path(port)
            async with virtual_pair(path):
                await self._serve_port(path, lambda: up(f"{path}, open {client_end(path)} in the client"))
        else:
            await self._serve_port(port, lambda: up(port))

    def _timing(self) -> LineTiming:
        binding = self.binding
        bits = 1 + binding.bytesize + (binding.parity != "N") + binding.stopbits
        silence_s = silent_interval_s(binding.baudrate, bits)
        return LineTiming(
            reply_after_s=max(silence_s, binding.min_turnaround_ms / 1000.0),
            silent_interval_s=silence_s,
            character_s=bits / binding.baudrate,
        )

    async def _serve_port(self, path: str, up: Callable[[], None]) -> None:
        port = self._open(path)
        loop = asyncio.get_running_loop()
        broken: asyncio.Future[str] = loop.create_future()

        def break_once(reason: str) -> None:
            loop.remove_reader(port.fileno())
            if not broken.done():
                broken.set_result(reason)

        line = Line(
            port.fileno(), self.units, self.counters, self._timing(), self.binding.suppress_echo, break_once
        )
        loop.add_reader(port.fileno(), line.readable)
        try:
            up()
            raise LinkDown(f"{path}: {await broken}")
        finally:
            loop.remove_reader(port.fileno())
            line.close()
            port.close()

    def _open(self, path: str) -> Serial:
        binding = self.binding
        try:
            port = Serial(
                path,
                baudrate=binding.baudrate,
                bytesize=binding.bytesize,
                parity=binding.parity,
                stopbits=binding.stopbits,
                timeout=0,
                exclusive=True,
            )
            port.reset_input_buffer()
        except (SerialException, OSError, ValueError) as error:
            code = getattr(error, "errno", None)
            raise LinkDown(f"{path}: {_REMEDIES.get(code or 0, str(error))}") from error
        return port
