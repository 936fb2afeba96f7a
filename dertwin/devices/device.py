"""What the site and the bench know of a device, whatever its type."""

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple, Protocol


class Command(NamedTuple):
    """One accepted write: the SI name of a command and its SI value."""

    name: str
    value: float


class CommandRange(NamedTuple):
    """What a command accepts: values are clamped to low..high; those outside `allowed`, if given, refused."""

    low: float
    high: float
    allowed: frozenset[float] | None = None


class Conditions(NamedTuple):
    """What surrounds all devices in one tick.

    time_s counts simulated seconds since midnight of the first day (so it starts at start_time_h x 3600).
    """

    time_s: float
    irradiance_w_m2: float
    ambient_temp_c: float
    frequency_hz: float
    voltage_ll_v: float
    load_w: float


NOMINAL = Conditions(0.0, 1000.0, 20.0, 50.0, 400.0, 0.0)


class PccFlow(NamedTuple):
    """What flows at the point of common coupling in one tick; positive = import from the grid."""

    active_power_w: float
    reactive_power_var: float


class Device(Protocol):
    """One simulated device: frozen config, explicit state, the measurements of its last step.

    Measurements are a NamedTuple of SI values (float, int or str); a command whose name is also a
    measurement reads back what the device made of it.
    """

    config: Any
    state: Any

    # Read-only, so that a device may promise its own NamedTuple.
    @property
    def measurements(self) -> tuple[Any, ...]:
        """The SI measurements of the last step."""
        ...

    @property
    def commands(self) -> Mapping[str, CommandRange]:
        """The commands that the device takes, and the values it accepts."""
        ...

    def step(
        self, conditions: Conditions, commands: Sequence[Command], requests: int, dt_s: float
    ) -> tuple[Any, ...]:
        """Advance by dt_s (s, >= 0) and return the new measurements.

        `commands` are the accepted writes since the last step, in order; `requests` counts all
        requests (reads and writes) since then, which may feed a communication watchdog.
        """
        ...
