"""A one-shot timer that is precise to tens of microseconds.

Event loops wait in whole milliseconds; the silence before an RTU reply is 1.75 ms.
"""

import asyncio
import ctypes
import os
import struct
import sys
import time
from collections.abc import Callable

_CLOCK_MONOTONIC = 1
_TFD_TIMER_ABSTIME = 1
_ITIMERSPEC = struct.Struct("@qqqq")


class PreciseTimer:
    """Calls `callback` once at a time of `time.monotonic()`; a timerfd on Linux, else the loop's timer."""

    def __init__(self, callback: Callable[[], None]) -> None:
        """Create the timer, not armed, on the running event loop."""
        self._callback = callback
        self._loop = asyncio.get_running_loop()
        self._handle: asyncio.TimerHandle | None = None
        self._fd = -1
        if sys.platform == "linux":
            self._libc = ctypes.CDLL(None, use_errno=True)
            self._fd = self._libc.timerfd_create(_CLOCK_MONOTONIC, os.O_NONBLOCK | os.O_CLOEXEC)
            if self._fd < 0:
                raise OSError(ctypes.get_errno(), "timerfd_create")
            self._loop.add_reader(self._fd, self._expired)

    def arm(self, at: float | None) -> None:
        """Call back at `at` instead of any earlier time that was set; None disarms."""
        if self._fd < 0:
            if self._handle:
                self._handle.cancel()
            delay = 0.0 if at is None else max(0.0, at - time.monotonic())
            self._handle = None if at is None else self._loop.call_later(delay, self._callback)
            return
        # An absolute time in the past fires at once; all zero would disarm.
        seconds, nanoseconds = (0, 0) if at is None else divmod(max(1, int(at * 1e9)), 1_000_000_000)
        spec = _ITIMERSPEC.pack(0, 0, seconds, nanoseconds)
        if self._libc.timerfd_settime(self._fd, _TFD_TIMER_ABSTIME, spec, None) < 0:
            raise OSError(ctypes.get_errno(), "timerfd_settime")

    def close(self) -> None:
        """Disarm and free the timer."""
        if self._fd >= 0:
            self._loop.remove_reader(self._fd)
            os.close(self._fd)
            self._fd = -1
        elif self._handle:
            self._handle.cancel()

    def _expired(self) -> None:
        try:
            os.read(self._fd, 8)
        except BlockingIOError:
            return  # re-armed between the wake-up and this call
        self._callback()
