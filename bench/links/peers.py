"""Tells the log which clients come and go."""

import time
from collections.abc import Callable

import structlog

from bench.links.link import Link, devices
from bench.log import OncePerMinute

log = structlog.get_logger()

# Many clients make a connection for each request: between two of them they are not gone.
GONE_AFTER_S = 10.0


class Peers:
    """The addresses with connections to a link: told when the first one comes and when the last has gone.

    An address has at most one line a minute: what changes meanwhile is told when the minute is over, if it
    is still so.
    """

    def __init__(self, link: Link, now: Callable[[], float] = time.monotonic) -> None:
        """Know of nobody yet."""
        self._link = link
        self._now = now
        self._may_tell = OncePerMinute(now)
        self._connections: dict[str, int] = {}
        self._closed_at: dict[str, float] = {}
        self._told: set[str] = set()

    def opened(self, address: str) -> None:
        """Note a connection from an address."""
        self._connections[address] = self._connections.get(address, 0) + 1
        self._closed_at.pop(address, None)
        if address not in self._told:
            self._tell_it_came(address)

    def closed(self, address: str) -> None:
        """Note the end of a connection from an address."""
        self._connections[address] -= 1
        if not self._connections[address]:
            del self._connections[address]
            self._closed_at[address] = self._now()

    def look(self) -> None:
        """Tell what is due by now; to be called about once a second."""
        for address in self._connections.keys() - self._told:
            self._tell_it_came(address)
        for address, closed_at in list(self._closed_at.items()):
            if self._now() - closed_at >= GONE_AFTER_S:
                self._tell_it_has_gone(address, self._now() - closed_at)

    def _tell_it_came(self, address: str) -> None:
        if self._may_tell.due(address):
            self._told.add(address)
            log.info("client came", link=self._link.name, peer=address, device=devices(self._link))

    def _tell_it_has_gone(self, address: str, since_s: float) -> None:
        if address not in self._told:
            del self._closed_at[address]
        elif self._may_tell.due(address):
            del self._closed_at[address]
            self._told.remove(address)
            log.info(
                "client gone",
                link=self._link.name,
                peer=address,
                since_s=round(since_s),
                device=devices(self._link),
            )
