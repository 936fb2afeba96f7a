"""Keeps links up: the one place that retries."""

import asyncio
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field

import structlog

from bench.links.link import Link, LinkDown

log = structlog.get_logger()

# A port that comes back must be served within 2 s; looking for it costs next to nothing.
RETRY_S = 0.5


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


async def supervise(
    link: Link, status: LinkStatus, sleep: Callable[[float], Awaitable[None]] = asyncio.sleep
) -> None:
    """Serve a link for ever: whenever it is down, try again; log each change of state once."""

    def up(where: str) -> None:
        status.up, status.where, status.reason = True, where, ""
        status.times_up += 1
        status.settled.set()
        log.info("link up", link=link.name, where=where, units=sorted(link.units))

    while True:
        try:
            await link.serve(up)
            reason = "closed"
        except (LinkDown, OSError) as error:
            reason = str(error)
        except Exception as error:
            reason = repr(error)
            if reason != status.reason:
                log.exception("link failed", link=link.name)
        if status.up or reason != status.reason:
            log.warning("link down", link=link.name, reason=reason, retry_s=RETRY_S)
        status.up, status.reason = False, reason
        status.settled.set()
        await sleep(RETRY_S)
