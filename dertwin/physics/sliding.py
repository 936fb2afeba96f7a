"""A sliding mean with bounded memory, whatever the step."""

from dataclasses import dataclass


@dataclass(slots=True)
class SlidingMean:
    """The time-weighted mean of a value over the last `bucket_s * len(buckets)` seconds.

    The window is a ring of buckets, each the mean of bucket_s seconds. The open bucket displaces an
    equal share of the oldest one, so the window always has its full width. Plain data: it is part of
    a device's state.
    """

    bucket_s: float
    buckets: list[float]
    total: float
    oldest: int = 0
    open_s: float = 0.0
    open_sum: float = 0.0

    @classmethod
    def of(cls, value: float, bucket_s: float, count: int) -> "SlidingMean":
        """Start as if the value had been there for the whole window."""
        return cls(bucket_s, [value] * count, value * count)

    def push(self, value: float, dt_s: float) -> float:
        """Let the value hold for dt_s (s) and return the mean over the window that ends then."""
        bucket_s = self.bucket_s
        buckets = self.buckets
        open_s = self.open_s + dt_s
        if open_s < bucket_s:
            self.open_s = open_s
            self.open_sum += value * dt_s
        else:
            self._close_buckets(value, dt_s)
        window_sum = self.total * bucket_s + self.open_sum - buckets[self.oldest] * self.open_s
        return window_sum / (bucket_s * len(buckets))

    def _close_buckets(self, value: float, dt_s: float) -> None:
        bucket_s = self.bucket_s
        to_fill_s = bucket_s - self.open_s
        self._close((self.open_sum + value * to_fill_s) / bucket_s)
        rest_s = dt_s - to_fill_s
        full = int(rest_s / bucket_s)
        for _ in range(min(full, len(self.buckets))):
            self._close(value)
        self.open_s = max(0.0, rest_s - full * bucket_s)
        self.open_sum = value * self.open_s

    def _close(self, mean: float) -> None:
        buckets = self.buckets
        oldest = self.oldest
        self.total += mean - buckets[oldest]
        buckets[oldest] = mean
        self.oldest = oldest + 1
        if self.oldest == len(buckets):
            self.oldest = 0
            total = (
                0.0  # summed afresh once a round, so that rounding errors of the running sum do not add up
            )
            for bucket in buckets:
                total += bucket
            self.total = total
