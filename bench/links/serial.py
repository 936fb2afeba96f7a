"""Modbus RTU on a serial port, or on a virtual pair in its place."""

import asyncio
import errno
import os
import termios
from collections.abc import Callable

from serial import Serial, SerialException

from bench.counters import Latency
from bench.links.line import Line, LineTiming
from bench.links.link import LinkDown
from bench.links.pty import virtual_pair
from bench.unit import Unit
from dertwin.bindings import RtuBinding
from dertwin.config_links import client_end, pair_path
from dertwin.modbus.rtu import LineCounters, silent_interval_s

# How often to look whether the path still leads to the port that was opened.
LOOK_S = 0.5
_REMEDIES = {
    errno.ENOENT: "does not exist; plug the adapter in, or run with --fallback pty for a virtual pair",
    errno.EACCES: "permission denied; add this user to the group dialout and log in again",
    errno.EWOULDBLOCK: "in use by another program",
    errno.ENOTTY: "is not a serial port",
    errno.EISDIR: "is not a serial port",
    errno.EINVAL: "does not take this baudrate, bytesize, parity or stopbits",
}


class SerialLink:
    """One serial line and the units on it."""

    def __init__(self, binding: RtuBinding) -> None:
        """Serve on the port and with the settings of the binding (of any of its units)."""
        self.units: dict[int, Unit] = {}
        self.counters = LineCounters()
        self.latency = Latency()
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
            ends = (path, client_end(path))
            async with virtual_pair(path):
                await self._serve_port(ends, lambda: up(f"{path}, open {ends[1]} in the client"))
        else:
            await self._serve_port((port,), lambda: up(port))

    @property
    def timing(self) -> LineTiming:
        """Return the times of the line."""
        binding = self.binding
        bits = 1 + binding.bytesize + (binding.parity != "N") + binding.stopbits
        silence_s = silent_interval_s(binding.baudrate, bits)
        return LineTiming(
            reply_after_s=max(silence_s, binding.min_turnaround_ms / 1000.0),
            silent_interval_s=silence_s,
            character_s=bits / binding.baudrate,
        )

    async def _serve_port(self, ends: tuple[str, ...], up: Callable[[], None]) -> None:
        """Serve on the first of `ends` while all of them are there."""
        path = ends[0]
        port = self._open(path)
        fd = port.fileno()
        loop = asyncio.get_running_loop()
        broken: asyncio.Future[str] = loop.create_future()

        def break_once(reason: str) -> None:
            loop.remove_reader(fd)
            if not broken.done():
                broken.set_result(f"{path}: {reason}")

        suppress_echo = self.binding.suppress_echo
        line = Line(fd, self.units, self.counters, self.latency, self.timing, suppress_echo, break_once)
        loop.add_reader(fd, line.readable)
        try:
            up()
            while not broken.done():
                await asyncio.wait((broken,), timeout=LOOK_S)
                if reason := self._outdated(ends, fd):
                    break_once(reason)
            raise LinkDown(broken.result())
        finally:
            loop.remove_reader(fd)
            line.close()
            port.close()

    def _outdated(self, ends: tuple[str, ...], fd: int) -> str:
        """Return why clients do not reach us on the open port `fd` any more; empty while they do."""
        for end in ends:
            if not os.path.exists(end):
                return f"{end} has gone"
        if os.stat(ends[0]).st_rdev != os.fstat(fd).st_rdev:
            return "is another port now"
        if ends[0] != self.binding.port and os.path.exists(self.binding.port):
            return f"{self.binding.port} has come"
        return ""

    def _open(self, path: str) -> Serial:
        binding = self.binding
        # Pseudo-terminals have no parity, and when opened a second time with one they refuse it.
        virtual = os.path.realpath(path).startswith("/dev/pts/")
        try:
            port = Serial(
                path,
                baudrate=binding.baudrate,
                bytesize=8 if virtual else binding.bytesize,
                parity="N" if virtual else binding.parity,
                stopbits=binding.stopbits,
                timeout=0,
                # Makes VMIN 1: with 0, a wake-up without data would look as if the port had gone.
                inter_byte_timeout=0,
                exclusive=True,
            )
            port.reset_input_buffer()
        except (SerialException, OSError, ValueError, termios.error) as error:
            number = _error_number(error)
            raise LinkDown(f"{path}: {_REMEDIES.get(number) or os.strerror(number)}") from error
        return port


def _error_number(error: BaseException) -> int:
    """Return the operating system's number for what pyserial raised, or hid in the text of what it raised."""
    if isinstance(error, OSError) and error.errno:
        return error.errno
    if isinstance(error, termios.error):
        return int(error.args[0])
    return _error_number(error.__context__) if error.__context__ else errno.EINVAL
