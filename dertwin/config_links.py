"""Whether bindings can be served together: one set of settings for a link, one device for a unit id."""

import posixpath
import re
from collections.abc import Iterator, Mapping
from ipaddress import IPv4Address, IPv6Address, ip_address

from dertwin.bindings import Binding, RtuBinding, TcpBinding
from dertwin.config_errors import ConfigError, show
from dertwin.port_match import PortMatch

SOCKET_SETTINGS = ("kind", "max_connections", "unknown_unit")
LINE_SETTINGS = (
    "baudrate",
    "parity",
    "stopbits",
    "bytesize",
    "min_turnaround_ms",
    "suppress_echo",
    "rs485",
    "power",
    "fallback",
)
_VIRTUAL = "pty:"


def pair_path(port: str | PortMatch) -> str:
    """Return our end of the virtual pair for a port of the config.

    `pty:NAME` becomes /tmp/dertwin_NAME, `usb:SERIAL` /tmp/dertwin_usb-SERIAL. A path is taken as it
    is, except that nothing is ever made in /dev, where the kernel's own names may come at any time.
    """
    if isinstance(port, PortMatch):
        return "/tmp/dertwin_" + re.sub(r"[^A-Za-z0-9_.]+", "-", str(port)).strip("-")
    if port.startswith(_VIRTUAL):
        return f"/tmp/dertwin_{port.removeprefix(_VIRTUAL)}"
    path = _normal(port)
    return f"/tmp/dertwin_{posixpath.basename(path)}" if path.startswith("/dev/") else path


def client_end(path: str) -> str:
    """Return what a client opens when we serve on `path`, our end of a virtual pair."""
    return path + "_client"


def link_settings(binding: Binding) -> tuple[object, ...]:
    """Return what all bindings of a link have in common."""
    names = LINE_SETTINGS if isinstance(binding, RtuBinding) else SOCKET_SETTINGS
    return (link_name(binding), *(getattr(binding, name) for name in names))


def link_errors(file: str, bindings: Mapping[str, Binding]) -> Iterator[ConfigError]:
    """Yield what keeps bindings, given by their place in the document, from being served together."""
    first_of: dict[str, str] = {}
    unit_of: dict[tuple[str, int], str] = {}
    for place, binding in bindings.items():
        link = link_name(binding)
        first = first_of.setdefault(link, place)
        if isinstance(binding, RtuBinding):
            yield from _differences(file, place, first, bindings, LINE_SETTINGS)
            yield from _same_paths(file, place, first_of, bindings)
        else:
            yield from _differences(file, place, first, bindings, SOCKET_SETTINGS)
            yield from _overlaps(file, place, first_of, bindings)
        other = unit_of.setdefault((link, binding.unit_id), place)
        if other != place:
            problem = f"{binding.unit_id} is not allowed; it is the unit_id of {other} on the same {link}"
            yield ConfigError(file, f"{place}.unit_id", problem)


def link_name(binding: Binding) -> str:
    """Return the name of a link; bindings with the same one are units of one server."""
    return (
        f"line {binding.port}" if isinstance(binding, RtuBinding) else f"address {binding.ip}:{binding.port}"
    )


def _differences(
    file: str,
    place: str,
    first: str,
    bindings: Mapping[str, Binding],
    settings: tuple[str, ...],
) -> Iterator[ConfigError]:
    for name in settings:
        mine, theirs = getattr(bindings[place], name), getattr(bindings[first], name)
        if mine != theirs:
            where = f"{first} on the same {link_name(bindings[first])}"
            message = f"{show(mine)} is not allowed; use {show(theirs)} as {where}"
            yield ConfigError(file, f"{place}.{name}", message)


def _same_paths(
    file: str, place: str, first_of: Mapping[str, str], bindings: Mapping[str, Binding]
) -> Iterator[ConfigError]:
    """Yield an error when a line needs a path of another one: it is the same, or its pair is in the way."""
    mine = bindings[place]
    if first_of[link_name(mine)] != place:
        return
    for other_place in first_of.values():
        other = bindings[other_place]
        if not (isinstance(mine, RtuBinding) and isinstance(other, RtuBinding)) or mine.port == other.port:
            continue
        if shared := sorted(_paths(mine) & _paths(other)):
            message = (
                f"{show(mine.port)} is not allowed; {other_place} has {shared[0]}:"
                f" use {show(other.port)} to make them one line, or another port"
            )
            yield ConfigError(file, f"{place}.port", message)
            return


def _paths(binding: RtuBinding) -> set[str]:
    """Return all paths that a line opens or makes."""
    virtual = isinstance(binding.port, str) and binding.port.startswith(_VIRTUAL)
    paths = set() if virtual or isinstance(binding.port, PortMatch) else {_normal(binding.port)}
    if virtual or binding.fallback == "pty":
        pair = pair_path(binding.port)
        paths |= {pair, client_end(pair)}
    return paths


def _normal(path: str) -> str:
    # POSIX lets two leading slashes mean something of their own; no system that we run on does.
    return posixpath.normpath(path.replace("//", "/", 1) if path.startswith("//") else path)


def _overlaps(
    file: str, place: str, first_of: Mapping[str, str], bindings: Mapping[str, Binding]
) -> Iterator[ConfigError]:
    """Yield an error when a socket would be refused because another one has the port on some address."""
    mine = bindings[place]
    if first_of[link_name(mine)] != place:
        return
    for other_place in first_of.values():
        other = bindings[other_place]
        if not (isinstance(mine, TcpBinding) and isinstance(other, TcpBinding)) or mine.ip == other.ip:
            continue
        if mine.port == other.port and _share_an_address(mine.ip, other.ip):
            message = (
                f"{show(mine.ip)} is not allowed; port {mine.port} of {other.ip} is taken by {other_place}:"
                " use the same ip to make them one server, or another port"
            )
            yield ConfigError(file, f"{place}.ip", message)
            return


def _share_an_address(one: str, other: str) -> bool:
    return any(
        a.version == b.version and (a == b or a.is_unspecified or b.is_unspecified)
        for a in _addresses(one)
        for b in _addresses(other)
    )


def _addresses(ip: str) -> list[IPv4Address | IPv6Address]:
    return [ip_address(each) for each in (("127.0.0.1", "::1") if ip == "localhost" else (ip,))]
