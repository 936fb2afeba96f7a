"""When the next simulation step is due, without drift."""

import asyncio
import math
import time
from collections.abc import Awaitable, Callable

CATCH_UP_S = 1.0
LATE_S = 0.01


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
        self.steps = 0
        self.late = 0
        self.skipped = 0
        self._now = now
        self._sleep = sleep
        self.set_period(period_s)

    def set_period(self, period_s: float) -> None:
        """Go on with steps of another period (real seconds); the next one is due a period from now."""
        self.period_s = period_s
        self._start = self._now() - (self.steps + self.skipped) * period_s
        self._most = max(1, round(CATCH_UP_S / period_s))

    @property
    def lag_s(self) -> float:
        """Return how far the next step is behind its deadline (s), 0 if it is not due yet."""
        return max(0.0, self._now() - self._deadline())

    async def due(self) -> int:
        """Wait for the next deadline and return how many steps are to be made, at least one."""
        deadline = self._deadline()
        while (now := self._now()) < deadline:
            await self._sleep(deadline - now)
        behind = 1 + math.floor((now - deadline) / self.period_s)
        # At a high simulation speed several steps share one wake-up of the event loop, which is not late.
        steps = min(behind, self._most)
        if now - deadline >= max(self.period_s, LATE_S):
            self.late += steps
        self.skipped += behind - steps
        self.steps += steps
        return steps

    def _deadline(self) -> float:
        return self._start + (self.steps + self.skipped + 1) * self.period_s
