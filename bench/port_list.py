"""`dertwin ports`: which serial ports are there, and what to write in a config to have one of them."""

import json
import os
from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from contextlib import suppress
from pathlib import Path

from bench.ports import Added, Port, PortWatcher, look
from dertwin.port_match import PortMatch

HEADINGS = ("DEVICE", "ADAPTER", "DRIVER", "LATENCY", "USED BY", "IN THE CONFIG")
_TAGS_OF_SYSTEMD = ("", "systemd", "uaccess", "seat")


def print_ports() -> None:
    """Print a table of all serial ports. Raises LinkDown where there is no udev."""
    ports = list(look().values())
    print("\n".join(table(ports, users(port.node for port in ports)) if ports else ["no serial port found"]))


async def watch_ports() -> None:
    """Print each port, and then a line whenever one comes or goes, for ever."""
    watcher = PortWatcher()
    try:
        async for change in watcher:
            port, came = change.port, isinstance(change, Added)
            told = (about(port), stanza(port, watcher.present().values())) if came else ()
            print("  ".join(("+" if came else "-", port.node, *told)), flush=True)
    finally:
        watcher.close()


def table(ports: Iterable[Port], used_by: Mapping[str, Sequence[str]]) -> list[str]:
    """Return the lines of a table of ports; `used_by` has the programs for each device."""
    ports = sorted(ports, key=lambda port: (len(port.node), port.node))
    rows = [HEADINGS] + [
        (
            port.node,
            about(port),
            port.driver or "-",
            "-" if (latency_ms := port.latency_ms) is None else f"{latency_ms} ms",
            ", ".join(used_by.get(port.node, ())) or "-",
            stanza(port, ports),
        )
        for port in ports
    ]
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    return ["  ".join(map(str.ljust, row, widths)).rstrip() for row in rows]


def about(port: Port) -> str:
    """Return what a port's hardware is: ids, model and serial number of an adapter."""
    words = []
    if port.properties.get("ID_BUS") == "usb":
        words = [f"{port.identity('vendor')}:{port.identity('product')}"]
        words += [port.properties.get("ID_MODEL", "").replace("_", " ")]
        words += [f"serial {port.identity('serial')}" if port.identity("serial") else "no serial number"]
    elif "/usb" in port.sys_path:
        words = ["not described by udev; is its daemon running?"]
    return ", ".join(filter(None, words)) or "UART"


def stanza(port: Port, ports: Iterable[Port]) -> str:
    """Return the `port` of a binding that means this port and none of the others."""
    others = [other for other in ports if other.node != port.node]
    wanted = next(
        (match for match in _matches(port) if not any(match.matches(other.properties) for other in others)),
        None,
    )
    if wanted is None:
        return f'"port": {json.dumps(_link(port, others) or port.node)}'
    keys = wanted.keys()
    return f'"port": {json.dumps(str(wanted) if keys.keys() == {"serial"} else keys)}'


def _matches(port: Port) -> Iterable[PortMatch]:
    """Yield what may tell a port from others, the handiest first."""
    serial, path, interface = (port.identity(key) for key in ("serial", "path", "interface"))
    if serial:
        yield PortMatch(serial=serial)
        if interface:
            yield PortMatch(serial=serial, interface=int(interface, 16))
    for tag in port.identity("tag").split(":"):
        if tag not in _TAGS_OF_SYSTEMD:
            yield PortMatch(tag=tag)
    if path:
        yield PortMatch(path=path)


def _link(port: Port, others: Iterable[Port]) -> str:
    """Return a lasting path of a port that no other has; empty if it has none."""
    taken = {link for other in others for link in other.properties.get("DEVLINKS", "").split()}
    links = [link for link in port.properties.get("DEVLINKS", "").split() if link not in taken]
    return min(links, default="", key=lambda link: ("by-id" not in link, link))


def users(nodes: Iterable[str]) -> dict[str, list[str]]:
    """Return the programs that have a device open, as `name (pid)`: as far as this user may know."""
    names = {os.path.realpath(node): node for node in nodes}
    found: dict[str, set[int]] = defaultdict(set)
    for descriptor in Path("/proc").glob("[0-9]*/fd/*"):
        with suppress(OSError):
            if node := names.get(os.readlink(descriptor)):
                found[node].add(int(descriptor.parts[2]))
    return {node: [f"{_name(pid)} ({pid})" for pid in sorted(pids)] for node, pids in found.items()}


def _name(pid: int) -> str:
    try:
        return Path(f"/proc/{pid}/comm").read_text().strip()
    except OSError:
        return "ended"
