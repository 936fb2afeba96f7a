"""Events: what happens to the surroundings of a site, when, and how hard."""

from collections.abc import Callable
from typing import Annotated, Literal, NamedTuple, Self

from pydantic import Field, model_validator

from dertwin.physics.series import Series
from dertwin.schema import FrozenModel
from dertwin.stepping import TOLERANCE

Point = Annotated[tuple[float, float], Field(strict=False)]


class Event(FrozenModel):
    """When an event happens and how its size unfolds.

    It acts on every step that ends after `start_time` and not after `start_time + duration`.
    `start_time` (s of simulated time since the start of the run), `duration` (s). `shape`: step is
    the full size from start to end, ramp rises from 0 to the full size at the end and is then gone,
    table multiplies the size by a factor that is linear between points [s since start_time, factor].
    """

    start_time: float = Field(ge=0)
    duration: float = Field(gt=0)
    shape: Literal["step", "ramp", "table"] = "step"
    table: list[Point] | None = Field(default=None, min_length=1)

    @model_validator(mode="after")
    def _a_table_has_points(self) -> Self:
        if (self.shape == "table") != (self.table is not None):
            raise ValueError("shape: table and `table` with its points belong together")
        self.factor()  # raises when the times do not rise
        return self

    def acts_at(self, time_s: float) -> bool:
        """Tell whether the event acts on a step that ends at a time (s since the start of the run)."""
        return TOLERANCE < time_s - self.start_time <= self.duration + TOLERANCE

    def factor(self) -> Callable[[float], float]:
        """Return the share of the size as a function of the seconds since start_time."""
        if self.table is not None:
            return Series([time_s for time_s, _ in self.table], [factor for _, factor in self.table]).at
        if self.shape == "ramp":
            duration = self.duration
            return lambda since_s: since_s / duration
        return lambda since_s: 1.0


class VoltageSag(Event):
    """A change of the grid voltage by a share of itself; negative is a sag, positive a swell."""

    kind: Literal["voltage_sag"]
    delta_v: float = Field(ge=-1, le=1)


class FrequencyDeviation(Event):
    """A change of the grid frequency in Hz."""

    kind: Literal["frequency_deviation"]
    delta_hz: float = Field(ge=-5, le=5)


class CloudPassage(Event):
    """A loss of irradiance by a share of itself: -0.8 leaves 20 %."""

    kind: Literal["cloud_passage"]
    delta_irradiance: float = Field(ge=-1, le=0)


class LoadStep(Event):
    """A change of the site's load in W."""

    kind: Literal["load_step"]
    delta_w: float


AnyEvent = Annotated[VoltageSag | FrequencyDeviation | CloudPassage | LoadStep, Field(discriminator="kind")]


class Change(NamedTuple):
    """What all events do together at one instant: factors of voltage and irradiance, the others added."""

    voltage_factor: float
    frequency_hz: float
    irradiance_factor: float
    load_w: float


NO_CHANGE = Change(1.0, 0.0, 1.0, 0.0)


class Timeline:
    """All events of a run, asked for their joint effect at one instant."""

    def __init__(self, events: list[AnyEvent]) -> None:
        self._events = [(event, event.factor()) for event in events]

    def at(self, time_s: float) -> Change:
        """Return the joint change at a time (s since the start of the run)."""
        voltage, frequency_hz, irradiance, load_w = NO_CHANGE
        for event, factor in self._events:
            if not event.acts_at(time_s):
                continue
            share = factor(time_s - event.start_time)
            match event:
                case VoltageSag():
                    voltage *= 1.0 + event.delta_v * share
                case FrequencyDeviation():
                    frequency_hz += event.delta_hz * share
                case CloudPassage():
                    irradiance *= 1.0 + event.delta_irradiance * share
                case LoadStep():
                    load_w += event.delta_w * share
        return Change(voltage, frequency_hz, max(0.0, irradiance), load_w)
