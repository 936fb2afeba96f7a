"""Modbus RTU on a serial port, or on a virtual pair in its place."""

import asyncio
import os
from collections.abc import Callable
from time import monotonic

import structlog
from serial import Serial

from bench.counters import Latency
from bench.disturbance import Disturbance
from bench.links.line import Line, LineTiming
from bench.links.link import LinkDown
from bench.links.pty import served_path, virtual_pair
from bench.links.settings import is_virtual, open_port, set_faults
from bench.ports import Port, PortAbsent, PortWatcher
from bench.recorder import CLOSED, Recorder
from bench.unit import Unit
from dertwin.bindings import RtuBinding
from dertwin.config_links import client_end
from dertwin.modbus.rtu import LineCounters, silent_interval_s
from dertwin.port_match import PortMatch
from dertwin.scenario.link import Break

log = structlog.get_logger()

# How often to look whether the line still leads to the port that was opened.
LOOK_S = 0.5


class SerialLink:
    """One serial line and the units on it."""

    def __init__(self, binding: RtuBinding, ports: PortWatcher, recorder: Recorder | None = None) -> None:
        """Serve on the port and with the settings of the binding (of any of its units)."""
        self.recorder = recorder
        self.units: dict[int, Unit] = {}
        self.counters = LineCounters()
        self.latency = Latency()
        self.binding = binding
        self.adapter: Port | None = None
        self.disturbance: Disturbance | None = None
        self._ports = ports
        self._port: Serial | None = None
        self._line: Line | None = None

    @property
    def name(self) -> str:
        """Return the link's name in logs and metrics."""
        return f"rtu {self.binding.port}"

    @property
    def required(self) -> bool:
        """Tell whether the line needs no adapter."""
        port = self.binding.port
        return isinstance(port, str) and port.startswith("pty:")

    async def serve(self, up: Callable[[str], None]) -> None:
        """Open the port, or make the virtual pair, and serve until cancelled; see Link."""
        path, why = None, ""
        try:
            path = self._find()
        except PortAbsent as absent:
            if self.binding.fallback != "pty":
                raise
            if isinstance(self.binding.port, PortMatch):
                why = f" ({absent})"
        if path is not None:
            await self._serve_port((path,), lambda: up(path))
            return
        pair = served_path(self.binding.port)
        ends = (pair, client_end(pair))
        async with virtual_pair(pair):
            await self._serve_port(ends, lambda: up(f"{pair}, open {ends[1]} in the client{why}"))

    def disturb(self, disturbance: Disturbance | None) -> None:
        """Let faults act on the line from now on; see ModbusLink."""
        broken = self._is_broken()
        self.disturbance = disturbance
        if self._line and self._port:
            self._set_faults(self._port)
            if self._is_broken() and not broken and is_virtual(str(self._port.port)):
                self._line.send(b"\0")  # what a UART makes of a break

    def _is_broken(self) -> bool:
        return (
            any(isinstance(each.fault, Break) for each in self.disturbance.deaf)
            if self.disturbance
            else False
        )

    def _set_faults(self, port: Serial) -> None:
        faults = [each.fault for each in self.disturbance.deaf] if self.disturbance else []
        try:
            set_faults(port, self.binding, faults)
        except LinkDown as refused:
            log.warning("fault not set on port", link=self.name, reason=str(refused))

    def _find(self) -> str | None:
        """Return the path of the port that is to be served now, None for a pair that is always virtual.

        Notes its adapter, if that was found by a match. Raises LinkDown if there is none.
        """
        port = self.binding.port
        self.adapter = None
        if isinstance(port, PortMatch):
            self.adapter = self._ports.find(port)
            return self.adapter.node
        if port.startswith("pty:"):
            return None
        try:
            os.stat(port)
        except FileNotFoundError as error:
            remedy = "plug the adapter in, or run with --fallback pty for a virtual pair"
            raise PortAbsent(f"{port}: does not exist; {remedy}") from error
        except OSError:
            pass  # opening it tells what is wrong
        return port

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
        port = open_port(path, self.binding)
        fd = port.fileno()
        loop = asyncio.get_running_loop()
        broken: asyncio.Future[str] = loop.create_future()

        def break_once(reason: str) -> None:
            loop.remove_reader(fd)
            if not broken.done():
                broken.set_result(f"{path}: {reason}")

        suppress_echo = self.binding.suppress_echo
        tap = self.recorder.begin(self.name) if self.recorder else None
        line = Line(fd, self, self.timing, suppress_echo, break_once, tap)
        loop.add_reader(fd, line.readable)
        self._port, self._line = port, line
        try:
            if self.disturbance:
                self._set_faults(port)
            up()
            while not broken.done():
                await asyncio.wait((broken,), timeout=LOOK_S)
                if reason := self._outdated(ends, fd):
                    break_once(reason)
            raise LinkDown(broken.result())
        finally:
            self._port = self._line = None
            loop.remove_reader(fd)
            line.close()
            port.close()
            if tap:
                tap(CLOSED, monotonic(), b"")

    def _outdated(self, ends: tuple[str, ...], fd: int) -> str:
        """Return why clients do not reach us on the open port `fd` any more; empty while they do."""
        for end in ends:
            if not os.path.exists(end):
                return f"{end} has gone"
        virtual = len(ends) > 1
        port = self.binding.port
        if isinstance(port, PortMatch):
            there = self._ports.matching(port)
            if virtual:
                return f"{' and '.join(there)} came" if there else ""
            return "" if ends[0] in there else f"is no longer {port}"
        if os.stat(ends[0]).st_rdev != os.fstat(fd).st_rdev:
            return "is another port now"
        return f"{port} has come" if virtual and ends[0] != port and os.path.exists(port) else ""
