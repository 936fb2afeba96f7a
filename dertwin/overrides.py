"""One quantity of the surroundings taken out of its model's hands for a while."""

from collections.abc import Callable
from pathlib import Path
from typing import Annotated, Literal, Self

from pydantic import Field, PrivateAttr, ValidationInfo, model_validator

from dertwin.events import Point
from dertwin.physics.series import Series, read_series
from dertwin.schema import FrozenModel

Quantity = Literal["frequency_hz", "voltage_ll_v", "irradiance_w_m2", "ambient_temp_c", "load_w"]

# What physics and devices can still be asked about; wider than what the models of a site give.
LIMITS: dict[Quantity, tuple[float, float]] = {
    "frequency_hz": (40.0, 70.0),
    "voltage_ll_v": (10.0, 1000.0),
    "irradiance_w_m2": (0.0, 2000.0),
    "ambient_temp_c": (-60.0, 90.0),
    "load_w": (-1e12, 1e12),
}


class Ramp(FrozenModel):
    """From where the quantity is, `to` a value at `rate` (its unit per second), and there it stays."""

    to: float
    rate: float = Field(gt=0)


class Override(FrozenModel):
    """What a quantity of the surroundings is, instead of what models and events make of it.

    `environment` names it: frequency_hz, voltage_ll_v (line to line), irradiance_w_m2, ambient_temp_c or
    load_w. One of `step` (a constant), `ramp`, `table` ([s since the start, value], linear between) or
    `csv` (a file of `time,value` lines, time in s since the start; relative to the scenario) says what it
    is. After `duration` (s) the models have it again; left out, when the scenario ends.
    """

    environment: Quantity
    step: float | None = None
    ramp: Ramp | None = None
    table: Annotated[list[Point], Field(min_length=1)] | None = None
    csv: str | None = Field(default=None, min_length=1)
    duration: float | None = Field(default=None, gt=0)
    _series: Series | None = PrivateAttr(default=None)

    @model_validator(mode="after")
    def _one_source_within_limits(self, info: ValidationInfo) -> Self:
        given = [name for name in ("step", "ramp", "table", "csv") if getattr(self, name) is not None]
        if len(given) != 1:
            raise ValueError(f"give one of step, ramp, table or csv, not {' and '.join(given) or 'none'}")
        values: list[float] = []
        if self.step is not None:
            values = [self.step]
        elif self.ramp is not None:
            values = [self.ramp.to]
        else:
            if self.table is not None:
                self._series = Series([t for t, _ in self.table], [v for _, v in self.table])
            elif self.csv is not None:
                folder = (info.context or {}).get("folder", ".")
                self._series = read_series(Path(folder) / self.csv, repeat=False)
            values = list(self._series.values) if self._series else []
        low, high = LIMITS[self.environment]
        if wrong := [value for value in values if not low <= value <= high]:
            raise ValueError(f"{wrong[0]:g} is not allowed for {self.environment}; use {low:g} to {high:g}")
        return self

    @property
    def points(self) -> Series | None:
        """The points of a table or a file; None for what has none."""
        return self._series

    def source(self, now: float) -> Callable[[float], float]:
        """Return the value as a function of the s since the start; `now` is what the quantity is then."""
        if self._series is not None:
            return self._series.at
        if self.ramp is not None:
            to, rate = self.ramp.to, self.ramp.rate
            return lambda since_s: (
                min(to, now + rate * since_s) if to > now else max(to, now - rate * since_s)
            )
        constant = self.step
        assert constant is not None
        return lambda _: constant

    def in_words(self) -> str:
        """Return what becomes of the quantity, as one would say it after its name."""
        if self.step is not None:
            what = f"= {self.step:g}"
        elif self.ramp is not None:
            what = f"to {self.ramp.to:g} at {self.ramp.rate:g}/s"
        else:
            what = f"as in {self.csv}" if self.csv else f"through {len(self.table or ())} points"
        return f"{what} for {self.duration:g} s" if self.duration is not None else what

    def lasts_s(self) -> float | None:
        """Return how long the override has something to say (s): its duration, or that of its points."""
        if self.duration is not None or self._series is None:
            return self.duration
        return self._series.times[-1]
