"""Keeps links up: the one place that retries."""

import asyncio
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field

import structlog

from bench.links.link import Link, LinkDown, devices

log = structlog.get_logger()

# A port that comes back must be served within 2 s; looking for it costs next to nothing.
RETRY_S = 0.5
# A link that was up for so long did not break as soon as it was open; somebody unplugged it.
HOLDS_AFTER_S = 1.0
# Somebody at the bench may pull and plug a few times in a row.
ORDINARY_BREAKS = 5


@dataclass(slots=True)
class LinkStatus:
    """What is known of a link: `where` clients reach it while up, `reason` while down.

    `settled` is set once the link has been up or has failed.
    """

    up: bool = False
    where: str = ""
    reason: str = "not opened yet"
    times_up: int = 0
    settled: asyncio.Event = field(default_factory=asyncio.Event)


class _Changes:
    """Tells status and log of each change of a link once.

    A link that breaks again and again as soon as it is up, as on a loose contact, must not fill the log: it
    has each reason told once more, and that it is up when it has held for a while.
    """

    def __init__(self, link: Link, status: LinkStatus) -> None:
        self._link = link
        self._status = status
        self._reasons: set[str] = set()
        self._breaks = 0
        self._holding: asyncio.TimerHandle | None = None

    def up(self, where: str) -> None:
        status = self._status
        status.up, status.where, status.reason = True, where, ""
        status.times_up += 1
        status.settled.set()
        if self._breaks <= ORDINARY_BREAKS:
            self._tell_up()
        self._holding = asyncio.get_running_loop().call_later(HOLDS_AFTER_S, self._holds)

    def down(self, reason: str) -> bool:
        """Return whether the log had to be told."""
        if self._status.up:
            self.end()
            self._breaks += 1
        self._status.up, self._status.reason = False, reason
        self._status.settled.set()
        is_news = reason not in self._reasons
        if is_news:
            link = self._link
            log.warning("link down", link=link.name, reason=reason, retry_s=RETRY_S, device=devices(link))
        if self._breaks <= ORDINARY_BREAKS:
            self._reasons.clear()
        self._reasons.add(reason)
        return is_news

    def end(self) -> None:
        if self._holding:
            self._holding.cancel()

    def _holds(self) -> None:
        if self._breaks > ORDINARY_BREAKS:
            self._tell_up()
        self._breaks = 0

    def _tell_up(self) -> None:
        self._reasons.clear()
        link, where = self._link, self._status.where
        log.info("link up", link=link.name, where=where, units=sorted(link.units), device=devices(link))


async def supervise(
    link: Link, status: LinkStatus, sleep: Callable[[float], Awaitable[None]] = asyncio.sleep
) -> None:
    """Serve a link for ever: whenever it is down, try again; log each change of state once."""
    changes = _Changes(link, status)
    try:
        while True:
            try:
                await link.serve(changes.up)
                changes.down("closed")
            except (LinkDown, OSError) as error:
                changes.down(str(error))
            except Exception as error:
                if changes.down(repr(error)):
                    log.exception("link failed", link=link.name, device=devices(link))
            await sleep(RETRY_S)
    finally:
        changes.end()
