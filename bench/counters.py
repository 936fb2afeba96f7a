"""What the service counts while it serves; observers read it, nothing waits for them."""

import time
from bisect import bisect_left
from collections.abc import Iterable
from dataclasses import dataclass

# From what one cheap request takes to what no EMS waits for (s).
LATENCY_BOUNDS_S = (5e-5, 1e-4, 2.5e-4, 5e-4, 1e-3, 2.5e-3, 5e-3, 0.01, 0.025, 0.05, 0.1, 0.25, 1.0)
_FIRST_BOUND_S = LATENCY_BOUNDS_S[0]


class Latency:
    """A histogram of the time from the last byte of a request to its reply being sent (s).

    `buckets` has the requests up to each of LATENCY_BOUNDS_S and above the bound before it, then the rest.
    """

    __slots__ = ("buckets", "sum_s")

    def __init__(self) -> None:
        self.buckets = [0] * (len(LATENCY_BOUNDS_S) + 1)
        self.sum_s = 0.0

    def observe(self, seconds: float, requests: int) -> None:
        """Count requests that were answered together."""
        self.sum_s += seconds * requests
        if seconds <= _FIRST_BOUND_S:  # nearly always, and the search takes as long as all the rest
            self.buckets[0] += requests
        else:
            self.buckets[bisect_left(LATENCY_BOUNDS_S, seconds)] += requests


@dataclass(slots=True)
class Written:
    """How often a command was written, and when last (s of time.monotonic)."""

    count: int
    last_at: float


class Writes:
    """Counts the accepted writes of each device by the SI name of the command."""

    def __init__(self) -> None:
        self.by_device: dict[str, dict[str, Written]] = {}

    def note(self, asset_id: str, names: Iterable[str]) -> None:
        """Count writes that a step has taken."""
        now = time.monotonic()
        by_command = self.by_device.setdefault(asset_id, {})
        for name in names:
            written = by_command.setdefault(name, Written(0, now))
            written.count += 1
            written.last_at = now
