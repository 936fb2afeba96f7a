"""What every link is: an address with units behind it, served until it breaks."""

from collections.abc import Callable
from typing import Protocol

from bench.counters import Latency
from bench.disturbance import Disturbance
from bench.unit import Unit


class LinkDown(Exception):
    """The link cannot be opened or broke; the message says why and what helps."""


class Link(Protocol):
    """One TCP address or one serial line with the units that it serves."""

    @property
    def name(self) -> str:
        """Return what the link is called in logs, e.g. `tcp 0.0.0.0:55001`."""
        ...

    @property
    def required(self) -> bool:
        """Tell whether a service is not ready without the link, as it does not wait for hardware."""
        ...

    @property
    def units(self) -> dict[int, Unit]:
        """Return the units served here by unit id; may change while the link is up."""
        ...

    @property
    def latency(self) -> Latency:
        """Return how long the requests took that were answered here."""
        ...

    async def serve(self, up: Callable[[str], None]) -> None:
        """Open the link, call `up` with where clients reach it, and serve until cancelled.

        Raises LinkDown or OSError when it cannot be opened or breaks.
        """
        ...


class ModbusLink(Link, Protocol):
    """A link that faults can act on."""

    @property
    def disturbance(self) -> Disturbance | None:
        """Return the faults that act on the link; None, and nothing to do, if there are none."""
        ...

    def disturb(self, disturbance: Disturbance | None) -> None:
        """Let faults act on the link from now on, instead of those that did; None: it is healthy."""
        ...


def devices(link: Link) -> list[str]:
    """Return the devices that a link serves, for the log."""
    return sorted({unit.asset_id for unit in link.units.values()})
