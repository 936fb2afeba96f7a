"""Faults of whole links: what is done to all that a TCP address or a serial line carries."""

from collections.abc import Collection
from typing import Annotated, ClassVar, Literal, NamedTuple, Self, TypeAlias

from pydantic import ConfigDict, Field, model_validator

from dertwin.bindings import Baudrate
from dertwin.scenario.wire import RTU, RTU_OVER_TCP, TCP, Text
from dertwin.schema import FrozenModel


class Pace(NamedTuple):
    """How bytes trickle: at most `size` at a time, then `gap_s` of nothing."""

    size: int
    gap_s: float


class WholeLinkFault(FrozenModel):
    """What all link faults have: which links they act on, and how long (`duration`, s).

    `link` is its name as in the metrics (`tcp 0.0.0.0:502`, `rtu /dev/ttyUSB0`); with `device` all links of
    a device are meant that can have the fault, and with neither all of the site.
    """

    # Most runs have no faults: their models take a tenth of a start.
    model_config = ConfigDict(defer_build=True)

    links: ClassVar[Collection[str]]
    # Whether requests get neither to the devices nor an answer meanwhile.
    deaf: ClassVar[bool] = False
    # Whether the link is closed meanwhile.
    closed: ClassVar[bool] = False

    link_fault: str
    link: Text | None = None
    device: Text | None = None
    duration: float = Field(gt=0)

    @property
    def kind(self) -> str:
        """Return what the fault is called."""
        return self.link_fault

    @property
    def pace(self) -> Pace | None:
        """Return how replies trickle; None if they do not."""
        return None


class _TcpFault(WholeLinkFault):
    links = (TCP, RTU_OVER_TCP)


class _LineFault(WholeLinkFault):
    links = (RTU,)


class Refuse(_TcpFault):
    """Nobody listens at the address: clients are disconnected, and new connections are refused."""

    deaf = closed = True

    link_fault: Literal["refuse"]


class Reset(_TcpFault):
    """Connections are reset: those that there are, at once; others as soon as they ask something."""

    link_fault: Literal["reset"]


class HalfOpen(_TcpFault):
    """Connections that exist when it begins are dead without the client being told; new ones work.

    What clients send on a dead one is lost, and when the fault ends, it is reset. Their kernel still gets
    acknowledgements, which it would not from a peer that lost its power.
    """

    link_fault: Literal["half_open"]


class Hang(_TcpFault):
    """Connections are accepted, but requests are lost and never answered."""

    deaf = True

    link_fault: Literal["hang"]


class Throttle(_TcpFault):
    """Replies trickle at `bytes_per_s`."""

    link_fault: Literal["throttle"]
    bytes_per_s: float = Field(gt=0, le=1_000_000)

    @property
    def pace(self) -> Pace:
        size = max(1, round(self.bytes_per_s / 100))
        return Pace(size, size / self.bytes_per_s)


class Fragment(_TcpFault):
    """Each byte of a reply is a segment of its own, `gap_s` after the one before."""

    link_fault: Literal["fragment"]
    gap_s: float = Field(default=0.001, ge=0.001, le=10)

    @property
    def pace(self) -> Pace:
        return Pace(1, self.gap_s)


class WrongSettings(_LineFault):
    """The bench is set to another `baudrate`, `parity` or both than the line, and understands nothing.

    A port that has such settings is really switched. In the bytes of a virtual pair they cannot be seen;
    requests are lost all the same.
    """

    deaf = True

    link_fault: Literal["wrong_settings"]
    baudrate: Baudrate | None = None
    parity: Literal["N", "E", "O"] | None = None

    @model_validator(mode="after")
    def _sets_something(self) -> Self:
        if self.baudrate is None and self.parity is None:
            raise ValueError("sets nothing; use `baudrate`, `parity`, or both")
        return self


class Break(_LineFault):
    """The line is held in the break state; nothing gets through.

    On a virtual pair, clients see what a UART makes of a break: one byte 0x00.
    """

    deaf = True

    link_fault: Literal["break"]


class Silent(_LineFault):
    """The line carries nothing: the bench neither hears nor says anything."""

    deaf = True

    link_fault: Literal["silent"]


class Unplugged(_LineFault):
    """The adapter is unplugged, and plugged in again in the end: its port is closed, then opened again.

    If the line's config has `power`, the adapter really loses its power, or the relay switches. A virtual
    pair vanishes on both ends.
    """

    deaf = closed = True

    link_fault: Literal["unplugged"]


LinkFault: TypeAlias = Annotated[
    Refuse | Reset | HalfOpen | Hang | Throttle | Fragment | WrongSettings | Break | Silent | Unplugged,
    Field(discriminator="link_fault"),
]
