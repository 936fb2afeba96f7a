"""The serial ports of this machine as udev knows them: by identity, never by ttyUSBn."""

import asyncio
from collections.abc import AsyncIterator, Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

from bench.links.link import LinkDown
from dertwin.port_match import PortMatch, identity


@dataclass(frozen=True, slots=True)
class Port:
    """A serial port: its name of today, what udev tells of it, its driver and its folder in /sys."""

    node: str
    properties: Mapping[str, str]
    driver: str
    sys_path: str

    def identity(self, key: str) -> str:
        """Return what is known of a key of a PortMatch; empty if nothing."""
        return identity(key, self.properties)

    @property
    def latency_ms(self) -> int | None:
        """Return how long the adapter keeps bytes back (ms); None if it cannot be asked."""
        try:
            return int(Path(self.sys_path, "device", "latency_timer").read_text())
        except (OSError, ValueError):
            return None


class Added(NamedTuple):
    """A port that came, or was there from the start."""

    port: Port


class Removed(NamedTuple):
    """A port that went."""

    port: Port


class PortAbsent(LinkDown):
    """The port is not there: no port matches, or its path does not exist."""


class PortAmbiguous(LinkDown):
    """More than one port matches."""


def look() -> dict[str, Port]:
    """Return the serial ports by their names of today. Raises PortAbsent where there is no udev."""
    # Most ttys are the kernel's own consoles, tty0 to tty63.
    devices = _context().list_devices(subsystem="tty", sys_name="tty[A-Za-z]*")
    return {port.node: port for device in devices if (port := _port(device))}


def choose(match: PortMatch, ports: Iterable[Port]) -> Port:
    """Return the one port that matches. Raises PortAbsent or PortAmbiguous, with the reasons."""
    ports = sorted(ports, key=lambda port: port.node)
    matching = [port for port in ports if match.matches(port.properties)]
    if len(matching) == 1:
        return matching[0]
    if matching:
        told = " and ".join(f"{port.node} ({_distinction(port)})" for port in matching)
        raise PortAmbiguous(f"{told} match {match}; say more: `dertwin ports` shows what")
    told = "; ".join(f"{port.node} has {', '.join(match.differences(port.properties))}" for port in ports)
    raise PortAbsent(f"no port matches {match}: {told or 'there is none'}")


def _distinction(port: Port) -> str:
    known = {key: port.identity(key) for key in ("serial", "path", "interface")}
    return ", ".join(f"{key} {value}" for key, value in known.items() if value) or "nothing known"


class PortWatcher:
    """Follows which serial ports are there; iterating yields Added and Removed, for ever.

    Nothing is opened before the first question: a site without matches needs no udev.
    """

    def __init__(self) -> None:
        """Know nothing yet."""
        self._present: dict[str, Port] = {}
        self._monitor: Any = None
        self._changed = asyncio.Event()

    def present(self) -> Mapping[str, Port]:
        """Return the ports by their names of today. Raises PortAbsent where there is no udev."""
        if self._monitor is None:
            self._open()
        return self._present

    def find(self, match: PortMatch) -> Port:
        """Return the one port that matches; see `choose`."""
        return choose(match, self.present().values())

    def matching(self, match: PortMatch) -> list[str]:
        """Return the names of all ports that match."""
        try:
            return [port.node for port in self.present().values() if match.matches(port.properties)]
        except PortAbsent:
            return []

    def close(self) -> None:
        """Follow no more."""
        if self._monitor is not None:
            asyncio.get_running_loop().remove_reader(self._monitor.fileno())
            self._monitor = None

    async def __aiter__(self) -> AsyncIterator[Added | Removed]:
        seen: dict[str, Port] = {}
        while True:
            changed, now = self._changed, dict(self.present())
            for node, port in seen.items():
                if now.get(node) is not port:
                    yield Removed(port)
            for node, port in now.items():
                if seen.get(node) is not port:
                    yield Added(port)
            seen = now
            await changed.wait()

    def _open(self) -> None:
        context = _context()
        from pyudev import Monitor

        monitor = Monitor.from_netlink(context)
        monitor.filter_by("tty")
        monitor.start()  # before looking, so that nothing is missed in between
        self._present = look()
        self._monitor = monitor
        asyncio.get_running_loop().add_reader(monitor.fileno(), self._take)

    def _take(self) -> None:
        try:
            while (device := self._monitor.poll(0)) is not None:
                self._apply(device)
        except OSError:  # more events than the socket could hold
            self._present = look()
        self._changed.set()
        self._changed = asyncio.Event()

    def _apply(self, device: Any) -> None:
        if device.action == "remove":
            self._present.pop(device.device_node, None)
        elif (port := _port(device)) and port != self._present.get(port.node):
            # The event of what was already found when looking is no change.
            self._present[port.node] = port


def _context() -> Any:
    try:
        from pyudev import Context  # only when it is needed: it costs some 10 ms, and only Linux has it

        return Context()
    except ImportError as error:
        raise PortAbsent("there is no udev here to find ports with; give the path of the port") from error


def _port(device: Any) -> Port | None:
    """Return a tty of udev as a Port; None for those with no hardware: consoles, terminals, empty slots."""
    if device.device_node is None or device.parent is None:
        return None
    if device.attributes.get("type") == b"0":  # a UART that the kernel provides for but has not found
        return None
    kept = {
        name: value
        for name, value in device.properties.items()
        if name.startswith("ID_") or name in ("TAGS", "CURRENT_TAGS", "DEVLINKS")
    }
    return Port(device.device_node, kept, _driver(device), device.sys_path)


def _driver(device: Any) -> str:
    """Return the driver of the hardware; kernels since 6.6 have a serial-base bus in between."""
    if name := device.properties.get("ID_USB_DRIVER"):
        return str(name)
    for parent in device.ancestors:
        if parent.driver and parent.subsystem != "serial-base":
            return str(parent.driver)
    return ""
