"""Keeps links up: the one place that retries."""

import asyncio
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field

import structlog

from bench.links.link import Link, LinkDown, devices

log = structlog.get_logger()

# A port that comes back must be served within 2 s; looking for it costs next to nothing.
RETRY_S = 0.5
# For one that breaks again and again as soon as it is open, e.g. on a loose contact.
LONGEST_RETRY_S = 1.5
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


class _Attempts:
    """What the log has said of a link, and how long to wait until the next attempt.

    A link that always breaks as soon as it is up is loose until it has held for a while: of such a one
    the log tells each reason once, and that it is up when it holds.
    """

    def __init__(self, link: Link, status: LinkStatus, sleep: Callable[[float], Awaitable[None]]) -> None:
        self._link = link
        self._status = status
        self._sleep = sleep
        self._breaks = 0
        self.told: set[str] = set()
        self._holding: asyncio.Task[None] | None = None

    @property
    def retry_s(self) -> float:
        """How long to wait until the next attempt (s)."""
        return min(RETRY_S * max(1, 1 + self._breaks - ORDINARY_BREAKS), LONGEST_RETRY_S)

    def up(self, where: str) -> None:
        status = self._status
        status.up, status.where, status.reason = True, where, ""
        status.times_up += 1
        status.settled.set()
        if not self._is_loose():
            self._tell_up()
        self._holding = asyncio.create_task(self._hold())

    def down(self, reason: str) -> None:
        if self._holding and not self._holding.done():
            self._holding.cancel()
            self._breaks += 1
        self._holding = None
        if reason not in self.told:
            log.warning(
                "link down",
                link=self._link.name,
                reason=reason,
                retry_s=self.retry_s,
                device=devices(self._link),
            )
        self.told = {reason} | (self.told if self._is_loose() else set())
        self._status.up, self._status.reason = False, reason
        self._status.settled.set()

    def end(self) -> None:
        if self._holding:
            self._holding.cancel()

    def _is_loose(self) -> bool:
        return self._breaks > ORDINARY_BREAKS

    async def _hold(self) -> None:
        await self._sleep(HOLDS_AFTER_S)
        if self._is_loose():
            self._tell_up()
        self._breaks = 0

    def _tell_up(self) -> None:
        self.told = set()
        log.info(
            "link up",
            link=self._link.name,
            where=self._status.where,
            units=sorted(self._link.units),
            device=devices(self._link),
        )


async def supervise(
    link: Link, status: LinkStatus, sleep: Callable[[float], Awaitable[None]] = asyncio.sleep
) -> None:
    """Serve a link for ever: whenever it is down, try again; log each change of state once."""
    attempts = _Attempts(link, status, sleep)
    try:
        while True:
            try:
                await link.serve(attempts.up)
                attempts.down("closed")
            except (LinkDown, OSError) as error:
                attempts.down(str(error))
            except Exception as error:
                if repr(error) not in attempts.told:
                    log.exception("link failed", link=link.name, device=devices(link))
                attempts.down(repr(error))
            await sleep(attempts.retry_s)
    finally:
        attempts.end()
