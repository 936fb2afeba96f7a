"""Tells systemd how the service is: READY, STATUS, and WATCHDOG while the clock makes progress.

Does nothing when systemd did not start us, or without systemd-python.
"""

import asyncio
import contextlib
import os
import time

import structlog

from bench.app import Bench
from bench.health import failures

try:
    from systemd.daemon import notify
except ImportError:
    notify = None

log = structlog.get_logger()

TELL_EVERY_S = 1.0
START_TIMEOUT_S = 30
_LISTED = 4


class Notifier:
    """Tells systemd about one bench.

    `complaint` is shown in the status until it is empty again: why the last config was refused.
    """

    def __init__(self, bench: Bench) -> None:
        """Nothing is told yet."""
        self.complaint = ""
        self._bench = bench
        self._status = ""
        self._steps = -1

    async def keep_telling(self) -> None:
        """Tell READY once all links that must be up are; until cancelled tell what changes, and progress."""
        if notify is None and "NOTIFY_SOCKET" in os.environ:
            log.error("systemd is not told", reason="systemd-python is missing", remedy="dertwin[systemd]")
        await self._bench.settled()
        ready = False
        while True:
            news = []
            if self.progress():
                news.append("WATCHDOG=1")
                if not ready:  # an address that is still taken may take any time; a stuck start may not
                    news.append(f"EXTEND_TIMEOUT_USEC={START_TIMEOUT_S * 1_000_000}")
            if not ready and self._bench.ready:
                ready = True
                news.append("READY=1")
            if (status := self.status()) != self._status:
                self._status = status
                news.append(f"STATUS={status}")
            tell(*news)
            await asyncio.sleep(_tell_every_s() if ready else 0.1)

    def reloading(self) -> None:
        """Tell that a new config is being read."""
        tell("RELOADING=1", f"MONOTONIC_USEC={time.monotonic_ns() // 1000}", "STATUS=reloading")

    def reloaded(self) -> None:
        """Tell that the service is as it should be again."""
        self._status = self.status()
        tell("READY=1", f"STATUS={self._status}")

    def status(self) -> str:
        """Return one line: devices, links and lag, and what is wrong."""
        bench = self._bench
        down = [f"{bench.links[key].name}: {s.reason}" for key, s in bench.status.items() if not s.up]
        links = len(bench.links)
        text = f"{len(bench.site.devices)} devices, {links - len(down)} of {links} links up"
        if clock := bench.clock:
            text += f", lag {clock.lag_s * 1000:.0f} ms, {clock.late} steps late, {clock.skipped} skipped"
        if failed := failures(bench):
            text += f"; {_listed(failed)}"
        if down:
            text += f"; down: {_listed(down)}"
        return f"{self.complaint}; {text}" if self.complaint else text

    def progress(self) -> bool:
        """Tell whether the clock has made steps since the last call, or has none to make yet."""
        clock = self._bench.clock
        if clock is None:
            return True
        before, self._steps = self._steps, clock.steps
        return clock.steps != before or clock.lag_s == 0.0


def tell(*news: str) -> None:
    """Send variables as sd_notify(3) has them."""
    if notify is not None and news:
        with contextlib.suppress(OSError):
            notify("\n".join(news))


def _listed(texts: list[str]) -> str:
    more = f" and {len(texts) - _LISTED} more" if len(texts) > _LISTED else ""
    return ", ".join(texts[:_LISTED]) + more


def _tell_every_s() -> float:
    limit_us = os.environ.get("WATCHDOG_USEC", "")
    return min(TELL_EVERY_S, int(limit_us) / 4e6) if limit_us.isdecimal() else TELL_EVERY_S
