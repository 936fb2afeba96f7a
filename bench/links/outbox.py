"""Sends what faults have made of replies: bytes at their times, in pieces, with gaps."""

import asyncio
import heapq
import time
from collections import deque
from collections.abc import Callable, Sequence

from dertwin.scenario.wire import Chunk

# No more than this waits for one client or line: further replies get lost.
MOST_WAITING_BYTES = 64 * 1024


class Outbox:
    """Replies on their way to one client or line; one that has begun is sent to its end before another."""

    def __init__(self, write: Callable[[bytes], object], character_s: float = 0.0) -> None:
        """Send with `write`; each byte then takes `character_s` on the line."""
        self._write = write
        self._character_s = character_s
        self._waiting: list[tuple[float, int, float, Sequence[Chunk]]] = []
        self._under_way: deque[Chunk] = deque()
        self._due = self._next_at = 0.0
        self._bytes = self._count = 0
        self._timer: asyncio.Handle | None = None

    def put(self, chunks: Sequence[Chunk], due: float) -> None:
        """Send the chunks of a reply that a healthy link would send at `due` (s of time.monotonic)."""
        if not chunks or self._bytes > MOST_WAITING_BYTES:
            return
        self._count += 1
        self._bytes += sum(len(chunk.data) for chunk in chunks)
        begin_at = max(time.monotonic(), due + chunks[0].delay_s)
        heapq.heappush(self._waiting, (begin_at, self._count, due, chunks))
        self._advance()

    @property
    def busy(self) -> bool:
        """Tell whether anything is on its way."""
        return bool(self._under_way or self._waiting)

    def hurry(self) -> None:
        """Send all that is due at once, without gaps: what made it trickle is over."""
        now = time.monotonic()
        while self._under_way or (self._waiting and self._waiting[0][0] <= now):
            if not self._under_way:
                self._begin()
            self._send()
        self._advance()

    def close(self) -> None:
        """Forget all that has not been sent."""
        self._waiting.clear()
        self._under_way.clear()
        if self._timer:
            self._timer.cancel()

    def _advance(self) -> None:
        """Send what is due, one chunk in each turn of the loop: else they would travel together."""
        if self._timer:
            self._timer.cancel()
            self._timer = None
        now = time.monotonic()
        if not self._under_way and self._waiting and self._waiting[0][0] <= now:
            self._begin()
        if self._under_way and self._next_at <= now:
            self._send()
        if self._under_way or self._waiting:
            at = self._next_at if self._under_way else self._waiting[0][0]
            left_s = max(0.0, at - time.monotonic())
            self._timer = asyncio.get_running_loop().call_later(left_s, self._advance)

    def _begin(self) -> None:
        self._next_at, _, self._due, chunks = heapq.heappop(self._waiting)
        self._under_way.extend(chunks)

    def _send(self) -> None:
        data = self._under_way.popleft().data
        self._bytes -= len(data)
        self._write(data)
        if self._under_way:
            end = time.monotonic() + len(data) * self._character_s
            # Less than any time, AT_ONCE leaves the end.
            self._next_at = max(end, max(end, self._due) + self._under_way[0].delay_s)
