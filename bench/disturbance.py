"""What active faults make of the exchanges on one link; a link without faults has none of this."""

from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from random import Random
from typing import Any, Generic, NamedTuple, TypeVar

from bench.unit import Unit
from dertwin.modbus import mbap, rtu
from dertwin.scenario.link import HalfOpen, Pace, Reset, WholeLinkFault
from dertwin.scenario.wire import Chunk, ExchangeFault, Header, NoReply, StaleValue

# A client may ask for anything: what a fault remembers of it must not grow for ever.
MOST_REMEMBERED = 10_000

Fault = TypeVar("Fault", bound=ExchangeFault | WholeLinkFault, covariant=True)
Respond = Callable[[bytes], bytes]


class Ongoing(Generic[Fault]):
    """A fault that acts: until when (infinite: until it has acted `count` times), by its own chance.

    `acted` counts how often by the name of the link.
    """

    __slots__ = ("acted", "earlier", "ends_at", "fault", "over", "random")

    def __init__(self, fault: Fault, ends_at: float, random: Random) -> None:
        """Begin; nothing has happened yet."""
        self.fault: Fault = fault
        self.ends_at = ends_at
        self.random = random
        self.over = False
        self.acted: Counter[str] = Counter()
        # The first reply to each request, by unit id and PDU.
        self.earlier: dict[tuple[int, bytes], bytes] = {}


class Outcome(NamedTuple):
    """What came of a request: the wire faults that acted, the reply PDU (empty: none) and its delay (s)."""

    ongoing: Sequence[Ongoing[ExchangeFault]]
    reply: bytes
    late_s: float

    @property
    def taken(self) -> bytes:
        """Return the reply PDU that a client takes which checks all it receives; empty if it takes none."""
        return b"" if any(each.fault.spoils for each in self.ongoing) else self.reply

    def chunks(self, header: Header, request: bytes) -> list[Chunk]:
        """Return what is put on the wire for the reply to a request PDU that came with a header."""
        asked = _frame(header, request)
        for each in self.ongoing:
            header = each.fault.header(header)
        chunks = [Chunk(self.late_s, _frame(header, self.reply))]
        for each in self.ongoing:
            chunks = each.fault.on_wire(chunks, asked, each.random)
        return chunks


NOTHING = Outcome((), b"", 0.0)


class Disturbance:
    """All faults that act on one link. When one begins or ends, the link gets another Disturbance.

    `deaf`, `resets`, `half_open` and `paced` are the faults of the whole link that do so.
    """

    def __init__(
        self,
        link: str,
        ongoing: Sequence[Ongoing[ExchangeFault | WholeLinkFault]],
        acted: Callable[[Ongoing[ExchangeFault]], None],
    ) -> None:
        """Act as the faults say on the link of that name; `acted` is told of a wire fault each time."""
        exchanges: list[Any] = [each for each in ongoing if isinstance(each.fault, ExchangeFault)]
        whole: list[Any] = [each for each in ongoing if isinstance(each.fault, WholeLinkFault)]
        self.ongoing = ongoing
        self._link = link
        self._exchanges: list[Ongoing[ExchangeFault]] = exchanges
        self._acted = acted
        self.deaf = [each for each in whole if each.fault.deaf]
        self.resets = [each for each in whole if isinstance(each.fault, Reset)]
        self.half_open = [each for each in whole if isinstance(each.fault, HalfOpen)]
        self.paced = [each for each in whole if each.fault.pace]
        paces = [pace for each in whole if (pace := each.fault.pace)]
        self._pace: Pace | None = max(paces, key=lambda pace: pace.gap_s / pace.size, default=None)

    def count(self, ongoing: Sequence[Ongoing[WholeLinkFault]]) -> None:
        """Note that faults of the whole link have acted once more."""
        for each in ongoing:
            each.acted[self._link] += 1

    def exchange(self, device: str, unit_id: int, request: bytes, respond: Respond) -> Outcome:
        """Make one exchange of PDUs with a unit as the faults have it; `respond` is the healthy unit.

        It needs neither sockets nor time: what is lost, refused, wrong or old is so at any speed.
        """
        if self.deaf:
            self.count(self.deaf)
            return NOTHING
        hit = self._hit(device, unit_id, request)
        # Where there is no reply, nothing else has one to act on.
        hit = [each for each in hit if isinstance(each.fault, NoReply)] or hit
        reply = respond(request) if all(each.fault.arrives for each in hit) else b""
        for each in hit:
            reply = self._replied(each, unit_id, request, reply)
        return Outcome(hit, reply, sum(each.fault.late_s for each in hit))

    def answer(self, device: str, header: Header, request: bytes, respond: Respond) -> list[Chunk]:
        """Make one exchange with a unit and return what is put on the wire in answer."""
        outcome = self.exchange(device, header.unit_id, request, respond)
        if not outcome.reply:
            return []
        chunks = outcome.chunks(header, request)
        if self._pace:
            self.count(self.paced)
            chunks = paced(chunks, self._pace)
        return chunks

    def broadcast(self, units: Mapping[int, Unit], request: bytes) -> None:
        """Let all units hear a broadcast that no fault keeps from it."""
        if self.deaf:
            self.count(self.deaf)
            return
        for unit_id, unit in units.items():
            lost = [each for each in self._hit(unit.asset_id, unit_id, request) if not each.fault.arrives]
            for each in lost:
                self._note(each)
            if not lost:
                unit.respond(request)

    def _hit(self, device: str, unit_id: int, request: bytes) -> list[Ongoing[ExchangeFault]]:
        if not request or request[0] > 127:  # no request: nobody would answer it
            return []
        return [
            each
            for each in self._exchanges
            if not each.over
            and each.fault.fits(device, unit_id, request)
            and (each.fault.probability >= 1 or each.random.random() < each.fault.probability)
        ]

    def _replied(self, each: Ongoing[ExchangeFault], unit_id: int, request: bytes, reply: bytes) -> bytes:
        earlier = b""
        if isinstance(each.fault, StaleValue):
            earlier = each.earlier.get((unit_id, request), b"")
            if not earlier:
                if len(each.earlier) < MOST_REMEMBERED:
                    each.earlier[unit_id, request] = reply
                return reply
        self._note(each)
        return each.fault.reply(request, reply, earlier)

    def _note(self, each: Ongoing[ExchangeFault]) -> None:
        each.acted[self._link] += 1
        self._acted(each)


UNDISTURBED = Disturbance("", (), lambda ongoing: None)


def _frame(header: Header, pdu: bytes) -> bytes:
    if header.transaction_id is None:
        return rtu.frame(header.unit_id, pdu)
    return mbap.frame(header.transaction_id, header.unit_id, pdu)


def paced(chunks: Sequence[Chunk], pace: Pace) -> list[Chunk]:
    """Return chunks cut into the pieces of a pace."""
    return [
        Chunk(pace.gap_s if start else chunk.delay_s, chunk.data[start : start + pace.size])
        for chunk in chunks
        for start in range(0, len(chunk.data), pace.size)
    ]
