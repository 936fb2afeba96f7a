"""structlog set-up: readable lines on a terminal, fields in the journal, JSON when piped."""

import contextlib
import errno
import io
import json
import os
import re
import sys
import time
from collections.abc import Callable, Iterator, Mapping
from typing import Any, TextIO

import structlog

try:
    from systemd.journal import sendv
except ImportError:
    sendv = None

INFO, WARNING = 20, 30
_KEPT_PEERS = 1024
_PRIORITIES = {"debug": 7, "info": 6, "warning": 4, "error": 3, "critical": 2}


def set_up_logging(least: int = INFO) -> None:
    """Log what has at least a level: to the journal if standard error leads there, else to it.

    There it is coloured lines on a terminal, JSON when piped.
    """
    terminal = sys.stderr.isatty()
    processors: list[Any] = [structlog.contextvars.merge_contextvars, structlog.processors.add_log_level]
    factory: Callable[..., Any] = structlog.WriteLoggerFactory(_StandardError())
    if sendv is not None and _is_the_journal(2):
        processors += [structlog.processors.format_exc_info, _to_fields]
        factory = _JournalLogger
    elif terminal:
        processors += [structlog.processors.TimeStamper(fmt="%H:%M:%S", utc=False)]
        processors += [structlog.dev.ConsoleRenderer()]
    else:
        processors += [structlog.processors.TimeStamper(fmt="iso")]
        processors += [structlog.processors.format_exc_info, structlog.processors.JSONRenderer()]
    structlog.configure(
        processors=processors,
        logger_factory=factory,
        wrapper_class=structlog.make_filtering_bound_logger(least),
    )


def journal_fields(event: Mapping[str, Any]) -> list[str]:
    """Return a log event as NAME=value fields of the journal; a list is one field for each of its entries."""
    rest = {name: value for name, value in event.items() if name not in ("event", "level", "exception")}
    text = " ".join([str(event["event"]), *(f"{name}={_shown(value)}" for name, value in rest.items())])
    if "exception" in event:
        text += f"\n{event['exception']}"
    fields = [
        f"MESSAGE={text}",
        f"PRIORITY={_PRIORITIES.get(event['level'], 5)}",
        "SYSLOG_IDENTIFIER=dertwin",
    ]
    for name, value in {"event": event["event"], **rest}.items():
        key = re.sub(r"[^A-Z0-9_]", "_", name.upper()).lstrip("_0123456789")
        fields += [f"{key}={each}" for each in (value if isinstance(value, list | tuple) else [value])]
    return fields


class _StandardError(io.StringIO):
    """Standard error as it is at each line; when nobody reads it any more, the site goes on all the same."""

    def write(self, text: str) -> int:
        with _unless_nobody_reads():
            sys.stderr.write(text)
        return len(text)

    def flush(self) -> None:
        with _unless_nobody_reads():
            sys.stderr.flush()


@contextlib.contextmanager
def _unless_nobody_reads() -> Iterator[None]:
    try:
        yield
    except OSError as error:
        if error.errno in (errno.EPIPE, errno.EIO):
            lead_nowhere(sys.stderr)
    except ValueError:  # it is closed
        pass


def lead_nowhere(stream: TextIO) -> None:
    """Give up a stream whose reader has gone: what is left in it would spoil the exit status."""
    nowhere = os.open(os.devnull, os.O_WRONLY)
    os.dup2(nowhere, stream.fileno())
    os.close(nowhere)


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


class _JournalLogger:
    """What structlog ends in: sends fields to the journal."""

    def __init__(self, *_: object) -> None:
        pass

    def msg(self, *fields: str) -> None:
        with contextlib.suppress(OSError):
            sendv(*fields)

    debug = info = warning = error = critical = msg


def _to_fields(_: object, __: str, event: Mapping[str, Any]) -> tuple[tuple[str, ...], dict[str, Any]]:
    return tuple(journal_fields(event)), {}


def _shown(value: Any) -> str:
    text = ",".join(map(str, value)) if isinstance(value, list | tuple) else str(value)
    return json.dumps(text, ensure_ascii=False) if " " in text or not text else text


def _is_the_journal(stream: int) -> bool:
    """Tell whether a stream is the one that systemd has connected to the journal (systemd.exec(5))."""
    connected = os.environ.get("JOURNAL_STREAM")
    if not connected:
        return False
    try:
        status = os.fstat(stream)
    except OSError:
        return False
    return connected == f"{status.st_dev}:{status.st_ino}"
