"""Keeps the last minutes of what went over every link, for whoever wants to know afterwards.

What a link receives or sends is appended to a chunk of bytes behind a small header; full chunks queue
up, and the oldest go. Nothing is decoded or formatted before somebody asks.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterator, Sequence
from enum import IntEnum
from functools import partial
from math import inf
from struct import Struct
from time import monotonic
from typing import TYPE_CHECKING, NamedTuple, TypeAlias

from bench.ticks import TickLog
from dertwin.site import Site

if TYPE_CHECKING:  # a service that runs no scenario shall not wait for this
    from dertwin.scenario.document import LoadedScenario
    from dertwin.scenario.run import ScenarioResult

MAX_BYTES = 16 * 1024 * 1024
MAX_AGE_S = 600.0
CHUNK_BYTES = 256 * 1024
CHUNK_S = 30.0
# What Python needs for a conversation that a chunk has frames of.
CONVERSATION_BYTES = 512
MOST_CONVERSATIONS = CHUNK_BYTES // CONVERSATION_BYTES
# Time, conversation, length of the data, kind.
_HEADER = Struct("<dIIB")

Address: TypeAlias = tuple[str, int]
# Takes a kind, the time (s of time.monotonic) and the bytes.
Tap: TypeAlias = Callable[[int, float, bytes], None]


class Kind(IntEnum):
    """What happened on a link, seen from this side; NOISE was received and is no frame."""

    RECEIVED = 0
    SENT = 1
    OPENED = 2
    CLOSED = 3
    NOISE = 4


# As plain numbers, which cost less where each request passes.
RECEIVED, SENT, OPENED, CLOSED, NOISE = map(int, Kind)


class Conversation(NamedTuple):
    """Whom a link talks with: one client's connection, or (without addresses) all on a serial line."""

    number: int
    link: str
    peer: Address | None = None
    own: Address | None = None


class Frame(NamedTuple):
    """What was received or sent at a time (s of time.monotonic), as it was on the wire.

    On a serial line a frame as the decoder cut it, with its CRC, or noise; on TCP what one call to the
    system read or wrote, which may be several frames or a part of one. `data` is empty when a conversation
    opened or closed.
    """

    at: float
    conversation: Conversation
    kind: Kind
    data: bytes


class _Chunk(NamedTuple):
    """Frames one after the other behind their headers, their conversations, when it ended, its size."""

    data: bytes
    conversations: dict[int, Conversation]
    ended_at: float
    size: int


class Recorder:
    """Holds the frames of the last `max_age_s` seconds, fewer if they need more than `max_bytes`.

    A link begins a conversation for each client and calls what that returns for each frame. `ticks` is
    the log of the steps.
    """

    def __init__(
        self,
        max_bytes: int = MAX_BYTES,
        max_age_s: float = MAX_AGE_S,
        now: Callable[[], float] = monotonic,
    ) -> None:
        """Start empty. What is kept in all is at most `max_bytes` and one chunk (256 KiB)."""
        self.max_bytes = max_bytes
        self.max_age_s = max_age_s
        self.ticks = TickLog(max_age_s=max_age_s, now=now)
        self.result: Callable[[], ScenarioResult] | None = None
        self._now = now
        self._keep_from = inf
        self._begun = 0
        self._full: deque[_Chunk] = deque()
        self._full_size = 0
        self._data = bytearray()
        self._conversations: dict[int, Conversation] = {}
        self._turn_at = now() + CHUNK_S

    def begin(self, link: str, peer: Address | None = None, own: Address | None = None) -> Tap:
        """Begin a conversation on a link; return what takes its frames."""
        self._begun += 1
        conversation = Conversation(self._begun & 0xFFFFFFFF, link, peer, own)
        tap = partial(self._add, conversation)
        tap(OPENED, self._now(), b"")
        return tap

    def begin_scenario(
        self, site: Site, scenario: LoadedScenario, result: Callable[[], ScenarioResult]
    ) -> None:
        """Keep everything from now on, whatever its age, as long as there is room.

        `result` tells what has come of the scenario so far.
        """
        self.result = result
        self._keep_from = self._now()
        self.ticks.begin(site, scenario)

    def frames(self) -> Iterator[Frame]:
        """Yield what is kept at this moment, whatever comes while it is read; the oldest first."""
        now = self._now()
        chunks = [*self._full, self._chunk(now)]
        return _frames(chunks, self._oldest(now))

    @property
    def size(self) -> int:
        """Return how many bytes are kept."""
        return self._full_size + self._chunk_size()

    def _add(self, conversation: Conversation, kind: int, at: float, data: bytes) -> None:
        number = conversation[0]
        if number not in self._conversations:
            self._conversations[number] = conversation
        chunk = self._data
        chunk += _HEADER.pack(at, number, len(data), kind)
        chunk += data
        if len(chunk) >= CHUNK_BYTES or at >= self._turn_at or len(self._conversations) >= MOST_CONVERSATIONS:
            self._turn(at)

    def _turn(self, at: float) -> None:
        chunk = self._chunk(at)
        self._full.append(chunk)
        self._full_size += chunk.size
        self._data = bytearray()
        self._conversations = {}
        self._turn_at = at + CHUNK_S
        while self._full and (self._full_size > self.max_bytes or self._full[0].ended_at < self._oldest(at)):
            self._full_size -= self._full.popleft().size

    def _oldest(self, now: float) -> float:
        return min(now - self.max_age_s, self._keep_from)

    def _chunk(self, now: float) -> _Chunk:
        return _Chunk(bytes(self._data), self._conversations.copy(), now, self._chunk_size())

    def _chunk_size(self) -> int:
        return len(self._data) + CONVERSATION_BYTES * len(self._conversations)


def _frames(chunks: Sequence[_Chunk], since: float) -> Iterator[Frame]:
    for chunk in chunks:
        position = 0
        while position < len(chunk.data):
            at, number, length, kind = _HEADER.unpack_from(chunk.data, position)
            position += _HEADER.size + length
            if at >= since:
                data = chunk.data[position - length : position]
                yield Frame(at, chunk.conversations[number], Kind(kind), data)
