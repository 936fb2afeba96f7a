"""Faults on the way between clients and devices: what is done to single exchanges.

Each fault is a model, as a scenario has it, and what it does to one exchange: pure functions over
PDUs and frames. Whom it hits, and until when, is kept by `bench.faults`.
"""

import math
from collections.abc import Collection, Sequence
from random import Random
from typing import Annotated, ClassVar, Literal, NamedTuple, Self, TypeAlias

from pydantic import AfterValidator, BeforeValidator, ConfigDict, Field, model_validator

from dertwin.config_errors import use
from dertwin.functions import FUNCTIONS, FunctionName, touched
from dertwin.schema import FrozenModel


def _function_code(value: object) -> object:
    if not isinstance(value, str):
        return value
    for code, name in FUNCTIONS.items():
        if name == value:
            return code
    raise ValueError(f'"{value}" is not allowed; {use(FUNCTIONS.values(), value)}, or a number')


def _both(value: object) -> object:
    return (value, value) if isinstance(value, int) else value


def _rising(addresses: tuple[int, int]) -> tuple[int, int]:
    if addresses[1] < addresses[0]:
        raise ValueError(f"{list(addresses)} is not allowed; use [first, last]")
    return addresses


Text = Annotated[str, Field(min_length=1)]
FunctionCode = Annotated[int, Field(ge=1, le=127)]
Function = Annotated[
    FunctionCode, BeforeValidator(_function_code, json_schema_input_type=FunctionCode | FunctionName)
]
Address = Annotated[int, Field(ge=0, le=65535)]
Addresses = Annotated[
    tuple[Address, Address],
    Field(strict=False),
    BeforeValidator(_both, json_schema_input_type=Address | tuple[Address, Address]),
    AfterValidator(_rising),
]
UnitId = Annotated[int, Field(ge=0, le=255)]
Size = Annotated[int, Field(ge=1, le=256)]
Gap = Annotated[float, Field(ge=0, le=60)]

# What a link can be, as the first word of its name says.
TCP, RTU_OVER_TCP, RTU = "tcp", "rtu-over-tcp", "rtu"
EVERY_LINK = (TCP, RTU_OVER_TCP, RTU)

# Before the time at which a reply is due: at once.
AT_ONCE = -math.inf


class Header(NamedTuple):
    """What a frame has besides its PDU; the transaction id is None in RTU frames."""

    unit_id: int
    transaction_id: int | None = None


class Chunk(NamedTuple):
    """Bytes that are sent in one go, and when (s): after the end of the chunk before.

    The first one counts from the moment at which a healthy link sends its reply. AT_ONCE does not wait
    for that moment.
    """

    delay_s: float
    data: bytes


class ExchangeFault(FrozenModel):
    """What all wire faults have: which requests they act on, and how long.

    A fault acts on the requests that fit all that is given of `link` (its name as in the metrics, e.g.
    `tcp 0.0.0.0:502`), `device`, `unit_id` (as it stands in the request), `functions` (numbers or names as
    in the metrics) and `address` (one, or first and last: the request touches any of them), and on each of
    these with `probability`. It ends after `duration` (s) or when it has acted `count` times, whichever
    comes first; one of the two is needed.
    """

    # Most runs have no faults: their models take a tenth of a start.
    model_config = ConfigDict(defer_build=True)

    links: ClassVar[Collection[str]] = EVERY_LINK
    # Whether a client that checks what it receives takes the reply for none at all.
    spoils: ClassVar[bool] = False

    wire_fault: str
    link: Text | None = None
    device: Text | None = None
    unit_id: UnitId | None = None
    functions: list[Function] | None = Field(default=None, min_length=1)
    address: Addresses | None = None
    probability: float = Field(default=1.0, gt=0, le=1)
    duration: float | None = Field(default=None, gt=0)
    count: int | None = Field(default=None, ge=1)

    @model_validator(mode="after")
    def _ends_by_itself(self) -> Self:
        if self.duration is None and self.count is None:
            raise ValueError("has no end; use `duration` (s), `count`, or both")
        return self

    @property
    def kind(self) -> str:
        """Return what the fault is called."""
        return self.wire_fault

    def fits(self, device: str, unit_id: int, request: bytes) -> bool:
        """Tell whether a request PDU to a unit of a device is one of those that the fault is for."""
        if self.device not in (None, device) or self.unit_id not in (None, unit_id):
            return False
        if self.functions is not None and (not request or request[0] not in self.functions):
            return False
        if self.address is None:
            return True
        first, last = self.address
        return any(first < addresses.stop and addresses.start <= last for addresses in touched(request))

    @property
    def arrives(self) -> bool:
        """Tell whether the request reaches the device."""
        return True

    @property
    def late_s(self) -> float:
        """Return how much later than otherwise the reply comes (s)."""
        return 0.0

    def reply(self, request: bytes, reply: bytes, earlier: bytes) -> bytes:
        """Return the PDU that is sent for a reply (empty: there is none).

        `earlier` is the first reply to the same request since the fault began, empty if this is the first.
        """
        return reply

    def header(self, header: Header) -> Header:
        """Return what the frame of the reply has around its PDU."""
        return header

    def on_wire(self, chunks: Sequence[Chunk], request: bytes, random: Random) -> list[Chunk]:
        """Return what is put on the wire for a reply; `request` is the frame that it answers."""
        return list(chunks)


class NoReply(ExchangeFault):
    """Nobody answers.

    With `lose: request` (default) the device does not hear of it either, so that a write has no effect;
    with `lose: reply` it does what was asked.
    """

    wire_fault: Literal["no_reply"]
    lose: Literal["request", "reply"] = "request"

    @property
    def arrives(self) -> bool:
        return self.lose == "reply"

    def reply(self, request: bytes, reply: bytes, earlier: bytes) -> bytes:
        return b""


class LateReply(ExchangeFault):
    """The reply comes `delay_s` late, whatever happens on the line in the meantime.

    A client that has given up before may take it for the reply to its next request.
    """

    wire_fault: Literal["late_reply"]
    delay_s: float = Field(gt=0, le=600)

    @property
    def late_s(self) -> float:
        return self.delay_s


class ExceptionReply(ExchangeFault):
    """The request is refused with the exception `code`: 6 (default) is a busy device. It has no effect."""

    wire_fault: Literal["exception"]
    code: int = Field(default=6, ge=1, le=255)

    @property
    def arrives(self) -> bool:
        return False

    def reply(self, request: bytes, reply: bytes, earlier: bytes) -> bytes:
        return bytes((request[0] | 0x80, self.code))


class WrongUnit(ExchangeFault):
    """The reply comes from another unit id: `answer_as`, left out the one after the right one."""

    spoils = True

    wire_fault: Literal["wrong_unit"]
    answer_as: UnitId | None = None

    def header(self, header: Header) -> Header:
        unit_id = (header.unit_id + 1) % 248 if self.answer_as is None else self.answer_as
        return header._replace(unit_id=unit_id)


class WrongFunction(ExchangeFault):
    """The reply is one to another function: `answer_as`, left out the one after the right one."""

    spoils = True

    wire_fault: Literal["wrong_function"]
    answer_as: FunctionCode | None = None

    def reply(self, request: bytes, reply: bytes, earlier: bytes) -> bytes:
        if not reply:
            return reply
        function = self.answer_as or (reply[0] & 0x7F) % 127 + 1
        return bytes((reply[0] & 0x80 | function,)) + reply[1:]


class WrongTransactionId(ExchangeFault):
    """The reply has a transaction id that is `by` higher than the right one; on Modbus TCP."""

    links = (TCP,)
    spoils = True

    wire_fault: Literal["wrong_transaction_id"]
    by: int = Field(default=1, ge=1, le=65535)

    def header(self, header: Header) -> Header:
        if header.transaction_id is None:
            return header
        return header._replace(transaction_id=(header.transaction_id + self.by) % 65536)


class WrongByteCount(ExchangeFault):
    """The byte count in the reply to a read is `by` more (or less) than the bytes that follow.

    Frame, length and CRC are right otherwise. Replies that have no byte count stay as they are.
    """

    spoils = True

    wire_fault: Literal["wrong_byte_count"]
    by: int = Field(default=1, ge=-255, le=255)

    @model_validator(mode="after")
    def _is_wrong(self) -> Self:
        if self.by == 0:
            raise ValueError("by 0 is not allowed; use a number that makes the count wrong")
        return self

    def fits(self, device: str, unit_id: int, request: bytes) -> bool:
        return bool(request) and request[0] in (1, 2, 3, 4, 23) and super().fits(device, unit_id, request)

    def reply(self, request: bytes, reply: bytes, earlier: bytes) -> bytes:
        if len(reply) < 2 or reply[0] & 0x80:
            return reply
        return bytes((reply[0], (reply[1] + self.by) % 256)) + reply[2:]


class StaleValue(ExchangeFault):
    """A read gets the reply that the same request got first since the fault began.

    The first one is answered as it should be and does not count.
    """

    wire_fault: Literal["stale_value"]

    def fits(self, device: str, unit_id: int, request: bytes) -> bool:
        return bool(request) and request[0] in (1, 2, 3, 4) and super().fits(device, unit_id, request)

    def reply(self, request: bytes, reply: bytes, earlier: bytes) -> bytes:
        return (earlier or reply) if reply else reply


class Truncated(ExchangeFault):
    """The last `size` bytes of the reply are missing; at least one byte is sent."""

    spoils = True

    wire_fault: Literal["truncated"]
    size: Size = 1

    def on_wire(self, chunks: Sequence[Chunk], request: bytes, random: Random) -> list[Chunk]:
        *before, last = chunks
        return [*before, last._replace(data=last.data[: max(1, len(last.data) - self.size)])]


class ExtraBytes(ExchangeFault):
    """The reply has `size` bytes too many at its end, of any value."""

    spoils = True

    wire_fault: Literal["extra_bytes"]
    size: Size = 1

    def on_wire(self, chunks: Sequence[Chunk], request: bytes, random: Random) -> list[Chunk]:
        *before, last = chunks
        return [*before, last._replace(data=last.data + random.randbytes(self.size))]


class BadCrc(ExchangeFault):
    """One bit of the reply's CRC is wrong; with RTU frames."""

    links = (RTU_OVER_TCP, RTU)
    spoils = True

    wire_fault: Literal["bad_crc"]

    def on_wire(self, chunks: Sequence[Chunk], request: bytes, random: Random) -> list[Chunk]:
        *before, last = chunks
        wrong = last.data[-1] ^ (1 << random.randrange(8))
        return [*before, last._replace(data=last.data[:-1] + bytes((wrong,)))]


class DuplicatedReply(ExchangeFault):
    """The reply comes once more, `gap_s` after the first."""

    wire_fault: Literal["duplicated_reply"]
    gap_s: Gap = 0.01

    def on_wire(self, chunks: Sequence[Chunk], request: bytes, random: Random) -> list[Chunk]:
        first, *others = chunks
        return [*chunks, first._replace(delay_s=self.gap_s), *others]


class SplitReply(ExchangeFault):
    """The reply comes in `parts` pieces, cut anywhere, with `gap_s` of silence between them."""

    wire_fault: Literal["split_reply"]
    gap_s: Gap = 0.02
    parts: int = Field(default=2, ge=2, le=256)

    def on_wire(self, chunks: Sequence[Chunk], request: bytes, random: Random) -> list[Chunk]:
        *before, last = chunks
        length = len(last.data)
        cuts = sorted(random.sample(range(1, length), min(self.parts, length) - 1))
        pieces = [last.data[i:j] for i, j in zip([0, *cuts], [*cuts, length], strict=True)]
        return [*before, last._replace(data=pieces[0]), *(Chunk(self.gap_s, piece) for piece in pieces[1:])]


class EarlyReply(ExchangeFault):
    """The reply comes at once, before the silence that the line needs: drivers collide; on a serial line."""

    links = (RTU,)

    wire_fault: Literal["early_reply"]

    def on_wire(self, chunks: Sequence[Chunk], request: bytes, random: Random) -> list[Chunk]:
        first, *others = chunks
        return [first._replace(delay_s=AT_ONCE), *others]


class Echo(ExchangeFault):
    """The client hears its own request before the reply, as with an adapter that echoes."""

    wire_fault: Literal["echo"]

    def on_wire(self, chunks: Sequence[Chunk], request: bytes, random: Random) -> list[Chunk]:
        return [Chunk(AT_ONCE, request), *chunks]


class Garbage(ExchangeFault):
    """`size` bytes of any value, a gap of `gap_s` apart, come `where: before` the reply or after it."""

    wire_fault: Literal["garbage"]
    size: Size = 3
    gap_s: Gap = 0.005
    where: Literal["before", "after"] = "before"

    def on_wire(self, chunks: Sequence[Chunk], request: bytes, random: Random) -> list[Chunk]:
        noise = random.randbytes(self.size)
        if self.where == "after":
            return [*chunks, Chunk(self.gap_s, noise)]
        first, *others = chunks
        return [first._replace(data=noise), first._replace(delay_s=self.gap_s), *others]


WireFault: TypeAlias = Annotated[
    NoReply
    | LateReply
    | ExceptionReply
    | WrongUnit
    | WrongFunction
    | WrongTransactionId
    | WrongByteCount
    | StaleValue
    | Truncated
    | ExtraBytes
    | BadCrc
    | DuplicatedReply
    | SplitReply
    | EarlyReply
    | Echo
    | Garbage,
    Field(discriminator="wire_fault"),
]
