"""Pairs recorded frames to requests and their replies."""

from collections import deque
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from math import nan
from typing import Protocol

from bench.links.link import Link
from bench.recorder import Conversation, Frame, Kind
from dertwin.modbus import mbap, rtu
from dertwin.scenario.record import Exchange

Units = Mapping[int, str]
ALL_UNITS = range(1, 248)


def exchanges(
    frames: Iterable[Frame], devices: Mapping[str, Units], start: float, speed: float = 1.0
) -> list[Exchange]:
    """Return all requests to us in the order in which they came, each with its reply if it got one.

    `devices` has the asset id of each unit id by the name of its link. `start` is the time of the frames
    at which a scenario started; from there, `speed` seconds of it pass in each second. On TCP a reply
    belongs to the first open request with its transaction id, on a line to the last request before it. What
    is no valid frame is no reply. A broadcast, and a request on TCP for a unit that is not there, has no
    device; what others say to each other on a line is left out.
    """
    talks: dict[int, _Talk] = {}
    asked: list[tuple[Conversation, _Asked]] = []
    for frame in frames:
        conversation = frame.conversation
        if conversation.number not in talks:
            talks[conversation.number] = _talk(conversation, devices.get(conversation.link, {}))
        talk = talks[conversation.number]
        if frame.kind is Kind.RECEIVED:
            asked += [(conversation, request) for request in talk.received(frame.at, frame.data)]
        elif frame.kind is Kind.SENT:
            talk.sent(frame.at, frame.data)
    return [
        _exchange(conversation, request, devices.get(conversation.link, {}), start, speed)
        for conversation, request in sorted(asked, key=lambda entry: entry[1].at)
    ]


def units_of(links: Iterable[Link]) -> dict[str, Units]:
    """Return the asset id of each unit id by the name of its link."""
    return {link.name: {unit_id: unit.asset_id for unit_id, unit in link.units.items()} for link in links}


@dataclass(slots=True)
class _Asked:
    """A request, when it came, and what became of it."""

    at: float
    unit_id: int
    pdu: bytes
    replied_at: float = nan
    reply: bytes = b""

    def answer(self, at: float, pdu: bytes) -> None:
        self.replied_at, self.reply = at, pdu


class _Talk(Protocol):
    def received(self, at: float, data: bytes) -> Sequence[_Asked]:
        """Return the requests that are complete with what was received."""
        ...

    def sent(self, at: float, data: bytes) -> None:
        """Give the replies that are complete with what was sent to their requests."""
        ...


class _ModbusTcp:
    """The requests and replies of one connection, told apart by transaction id."""

    def __init__(self) -> None:
        self._received, self._sent = bytearray(), bytearray()
        self._open: dict[int, deque[_Asked]] = {}

    def received(self, at: float, data: bytes) -> Sequence[_Asked]:
        asked = []
        for transaction_id, unit_id, pdu in _frames(self._received, data):
            asked.append(_Asked(at, unit_id, pdu))
            self._open.setdefault(transaction_id, deque()).append(asked[-1])
        return asked

    def sent(self, at: float, data: bytes) -> None:
        for transaction_id, _, pdu in _frames(self._sent, data):
            if waiting := self._open.get(transaction_id):
                waiting.popleft().answer(at, pdu)


def _frames(buffer: bytearray, data: bytes) -> list[mbap.Frame]:
    buffer += data
    try:
        return mbap.take_frames(buffer)
    except mbap.UntrustedStream as error:
        buffer.clear()
        return error.frames


class _Rtu:
    """The requests and replies on one line, or on a connection of its own: one request at a time.

    `units` are those that are ours.
    """

    def __init__(self, units: Units) -> None:
        self._units = units
        self._open: deque[_Asked] = deque()
        self._sent = b""

    def received(self, at: float, data: bytes) -> Sequence[_Asked]:
        return self._ask(at, [(data[0], data[1:-2])])

    def sent(self, at: float, data: bytes) -> None:
        self._sent += data
        for adu in (self._sent, data):  # what was sent before may have been none
            if self._open and len(adu) >= 4 and adu[0] == self._open[0].unit_id and not rtu.crc16(adu):
                self._open.popleft().answer(at, adu[1:-2])
                self._sent = b""
                return

    def _ask(self, at: float, requests: Iterable[tuple[int, bytes]]) -> Sequence[_Asked]:
        asked = [
            _Asked(at, unit_id, pdu)
            for unit_id, pdu in requests
            if unit_id in self._units or unit_id == rtu.BROADCAST
        ]
        if asked:
            self._open = deque(request for request in asked if request.unit_id != rtu.BROADCAST)
            self._sent = b""
        return asked


class _RtuOverTcp(_Rtu):
    """A connection with RTU frames: they are cut here, as what was read from a socket may be any piece."""

    def __init__(self, units: Units) -> None:
        super().__init__(units)
        self._decoder = rtu.RtuDecoder(ALL_UNITS, rtu.LineCounters())

    def received(self, at: float, data: bytes) -> Sequence[_Asked]:
        frames = []
        if self._decoder.deadline is not None and at >= self._decoder.deadline:
            frames = self._decoder.silence()
        frames += self._decoder.receive(data, at)
        return self._ask(at, [(unit_id, pdu) for _, unit_id, pdu in frames])


def _talk(conversation: Conversation, units: Units) -> _Talk:
    if conversation.peer is None:
        return _Rtu(units)
    return _RtuOverTcp(units) if conversation.link.startswith("rtu") else _ModbusTcp()


def _exchange(
    conversation: Conversation, asked: _Asked, units: Units, start: float, speed: float
) -> Exchange:
    device = units.get(asked.unit_id, "")
    if not device and asked.unit_id in (0, 255) and len(units) == 1 and conversation.link.startswith("tcp"):
        (device,) = units.values()
    client = ""
    if conversation.peer:
        ip, port = conversation.peer
        client = f"[{ip}]:{port}" if ":" in ip else f"{ip}:{port}"
    time_s, replied_s = (asked.at - start) * speed, (asked.replied_at - start) * speed
    return Exchange(
        time_s,
        replied_s,
        conversation.link,
        client,
        asked.unit_id,
        device,
        asked.pdu,
        asked.reply,
    )
