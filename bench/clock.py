"""When the next simulation step is due, without drift."""

import asyncio
import math
import time
from collections.abc import Awaitable, Callable

CATCH_UP_S = 1.0


class StepClock:
    """Counts out steps against absolute deadlines, so that errors of single sleeps never add up.

    The n-th step is due at start + n * period_s (real seconds). Steps that could not start within
    their period are caught up at once and counted as `late`; what is more than one second behind
    is given up and counted as `skipped`.
    """

    def __init__(
        self,
        period_s: float,
        now: Callable[[], float] = time.monotonic,
        sleep: Callable[[float], Awaitable[None]] = asyncio.sleep,
    ) -> None:
        """Start counting now."""
        self.period_s = period_s
        self.steps = 0
        self.late = 0
        self.skipped = 0
        self._now = now
        self._sleep = sleep
        self._start = now()
        self._most = max(1, round(CATCH_UP_S / period_s))

    @property
    def lag_s(self) -> float:
        """Return how far the next step is behind its deadline (s), 0 if it is not due yet."""
        return max(0.0, self._now() - self._start - (self.steps + self.skipped + 1) * self.period_s)

    async def due(self) -> int:
        """Wait for the next deadline and return how many steps are to be made, at least one."""
        done = self.steps + self.skipped
        while (behind := math.floor((self._now() - self._start) / self.period_s) - done) < 1:
            await self._sleep(self._start + (done + 1) * self.period_s - self._now())
        # At a high simulation speed several steps share one wake-up of the event loop, which is not late.
        steps = min(behind, self._most)
        self.skipped += behind - steps
        self.steps += steps
        if self._now() - (self._start + (done + 1) * self.period_s) >= max(self.period_s, 0.01):
            self.late += steps
        return steps
