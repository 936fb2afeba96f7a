"""What the site and the bench know of a device, whatever its type."""

import math
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple, Protocol

from dertwin.stepping import clamp

SQRT3 = math.sqrt(3.0)
NOMINAL_VOLTAGE_LL_V = 400.0


class Command(NamedTuple):
    """One accepted write: the SI name of a command and its SI value."""

    name: str
    value: float


class CommandRange(NamedTuple):
    """What a command accepts: values are clamped to low..high, some are refused.

    Refused is what is no number, what is not in `allowed` (if given), and what is closer to zero than
    `least_size`.
    """

    low: float
    high: float
    allowed: frozenset[float] | None = None
    least_size: float = 0.0

    def accept(self, value: float) -> float | None:
        """Return what a device makes of a value: the closest within low..high, None if it is refused."""
        if self.allowed is not None and value not in self.allowed:
            return None
        taken = clamp(value, self.low, self.high)
        return taken if math.isfinite(taken) and abs(value) >= self.least_size else None

    def in_words(self, factor: float = 1.0) -> str:
        """Return what to use instead of a refused value, in a unit of which factor are one SI unit."""
        low, high, least = (f"{limit * factor:g}" for limit in (self.low, self.high, self.least_size))
        if self.allowed is not None:
            return f"use one of {', '.join(f'{value * factor:g}' for value in sorted(self.allowed))}"
        return f"use {low} to -{least} or {least} to {high}" if self.least_size else f"use {low} to {high}"


class Conditions(NamedTuple):
    """What surrounds all devices in one tick.

    time_s counts simulated seconds since midnight of the first day (so it starts at start_time_h x 3600).
    nominal_voltage_ll_v is what the grid is meant to have: grid protection is relative to it.
    """

    time_s: float
    irradiance_w_m2: float
    ambient_temp_c: float
    frequency_hz: float
    voltage_ll_v: float
    load_w: float
    nominal_voltage_ll_v: float = NOMINAL_VOLTAGE_LL_V

    @property
    def voltage_ln_v(self) -> float:
        """The voltage from line to neutral (V)."""
        return self.voltage_ll_v / SQRT3


# A day on which everything is there to be used: what a site without models sees, and a device before
# its first step.
NOMINAL = Conditions(0.0, 1000.0, 20.0, 50.0, NOMINAL_VOLTAGE_LL_V, 5000.0)


class PccFlow(NamedTuple):
    """What flows at the point of common coupling in one tick; positive = import from the grid."""

    active_power_w: float
    reactive_power_var: float


class Impairment(NamedTuple):
    """What a fault does to a device from outside its own model.

    A `fault_code` other than 0 takes its power away and shows; otherwise its power is at most
    `power_ratio` of its ratings and moves by at most `rate_w_per_s`.
    """

    fault_code: int = 0
    power_ratio: float = 1.0
    rate_w_per_s: float = math.inf


UNIMPAIRED = Impairment()


class Measurements(Protocol):
    """What every device measures: a NamedTuple of SI values (float, int or str) that has at least these."""

    @property
    def active_power_w(self) -> float:
        """The active power; a meter's is positive into the site, every other device's out of the device."""
        ...

    @property
    def reactive_power_var(self) -> float:
        """The reactive power, of the same sign convention."""
        ...

    @property
    def _fields(self) -> tuple[str, ...]: ...


class Device(Protocol):
    """One simulated device: frozen config, explicit state, the measurements of its last step.

    A command whose name is also a measurement reads back what the device made of it. `impairment` is
    what a fault does to it now.
    """

    config: Any
    state: Any
    impairment: Impairment

    # Read-only, so that a device may promise its own NamedTuple.
    @property
    def measurements(self) -> Measurements:
        """The SI measurements of the last step."""
        ...

    @property
    def commands(self) -> Mapping[str, CommandRange]:
        """The commands that the device takes, and the values it accepts."""
        ...

    def step(
        self, conditions: Conditions, commands: Sequence[Command], requests: int, dt_s: float
    ) -> Measurements:
        """Advance by dt_s (s, >= 0) and return the new measurements.

        `commands` are the accepted writes since the last step, in order; `requests` counts all
        requests (reads and writes) since then, which may feed a communication watchdog.
        """
        ...

    def reboot(self) -> None:
        """Go on as after a power cycle: settings are the defaults, what is stored and counted stays."""
        ...
