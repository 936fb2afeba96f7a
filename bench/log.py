"""structlog set-up: readable lines on a terminal, JSON when piped."""

import contextlib
import io
import sys
import time
from collections.abc import Callable
from typing import Any

import structlog

_KEPT_PEERS = 1024


def set_up_logging() -> None:
    """Log to standard error: coloured lines on a terminal, one JSON object a line otherwise."""
    terminal = sys.stderr.isatty()
    processors: list[Any] = [
        structlog.contextvars.merge_contextvars,
        structlog.processors.add_log_level,
        structlog.processors.TimeStamper(fmt="%H:%M:%S" if terminal else "iso", utc=not terminal),
    ]
    if terminal:
        processors.append(structlog.dev.ConsoleRenderer())
    else:
        processors += [structlog.processors.format_exc_info, structlog.processors.JSONRenderer()]
    structlog.configure(
        processors=processors,
        logger_factory=structlog.WriteLoggerFactory(_StandardError()),
        wrapper_class=structlog.make_filtering_bound_logger(20),
        cache_logger_on_first_use=True,
    )


class _StandardError(io.StringIO):
    """Standard error as it is at each line; when nobody reads it any more, the site goes on all the same."""

    def write(self, text: str) -> int:
        with contextlib.suppress(OSError, ValueError):  # the pipe is broken, or closed
            sys.stderr.write(text)
        return len(text)

    def flush(self) -> None:
        with contextlib.suppress(OSError, ValueError):
            sys.stderr.flush()


class OncePerMinute:
    """Logs warnings, at most one a minute for each peer: hostile input must not fill the disk.

    For lines that are no warnings about a peer, `due` says whether there may be one.
    """

    def __init__(self, now: Callable[[], float] = time.monotonic) -> None:
        """Start with nothing logged."""
        self._now = now
        self._logged_at: dict[str, float] = {}

    def __call__(self, peer: str, event: str, **fields: object) -> None:
        """Log the event unless this peer had a line within the last minute."""
        if self.due(peer):
            structlog.get_logger().warning(event, peer=peer, **fields)

    def due(self, who: str) -> bool:
        """Tell whether there may be a line about someone now, and take it that there is one."""
        now = self._now()
        last = self._logged_at.pop(who, None)
        due = last is None or now - last >= 60.0
        self._logged_at[who] = now if last is None or due else last
        if len(self._logged_at) > _KEPT_PEERS:
            del self._logged_at[next(iter(self._logged_at))]
        return due
