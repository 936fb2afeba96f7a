"""The surroundings of a site: sky, air, grid and load, from models, CSV series and events."""

import math
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Annotated, Any, NamedTuple, Self

from pydantic import (
    AliasChoices,
    Discriminator,
    Field,
    PrivateAttr,
    Tag,
    ValidationInfo,
    field_validator,
    model_validator,
)

from dertwin.devices.device import NOMINAL, Conditions
from dertwin.events import AnyEvent, Point, Timeline
from dertwin.overrides import Override, Quantity
from dertwin.physics.series import Series, read_series
from dertwin.physics.weather import Wander, WanderState, ambient_temperature, clear_sky_irradiance
from dertwin.schema import FrozenModel
from dertwin.stepping import DAY_S, TOLERANCE

MIN_FREQUENCY_HZ, MAX_FREQUENCY_HZ = 45.0, 55.0
MIN_VOLTAGE_LL_V, MAX_VOLTAGE_LL_V = 300.0, 480.0


def _series(csv: str, repeat: bool, info: ValidationInfo) -> Series:
    folder = (info.context or {}).get("folder", ".")
    return read_series(Path(folder) / csv, repeat)


class CsvSeries(FrozenModel):
    """A CSV file of `time,value` lines instead of a model.

    Time in seconds since midnight of the first day, value in the unit of what it stands for (W,
    W/m2, degC, Hz, V line-to-line); linear between the lines. After the last line its value is
    held, or, with `repeat`, the file starts over (its last line is then the first of the next round).
    The path is relative to the config file. An unreadable file is a config error.
    """

    csv: str = Field(min_length=1)
    repeat: bool = False
    _points: Series = PrivateAttr()

    @model_validator(mode="after")
    def _read(self, info: ValidationInfo) -> Self:
        self._points = _series(self.csv, self.repeat, info)
        return self

    @property
    def points(self) -> Series:
        """What was read from the file."""
        return self._points

    def at(self, time_s: float) -> float:
        """Return the value at a time (s since midnight of the first day)."""
        return self._points.at(time_s)


class Power(FrozenModel):
    """A constant load (W)."""

    base_load_w: float = NOMINAL.load_w


class Irradiance(FrozenModel):
    """A clear day: a half-sine from sunrise to sunset (h), `peak` W/m2 at its middle."""

    peak: float = Field(default=1000.0, ge=0)
    sunrise: float = Field(default=6.0, ge=0, le=24)
    sunset: float = Field(default=18.0, ge=0, le=24)

    @model_validator(mode="after")
    def _the_sun_sets_after_it_rises(self) -> Self:
        if self.sunset <= self.sunrise:
            raise ValueError(f"sunset {self.sunset:g} must come after sunrise {self.sunrise:g}")
        return self


class AmbientTemperature(FrozenModel):
    """A daily cosine: `mean` degC, `amplitude` K, highest at `peak_hour`."""

    mean: float = NOMINAL.ambient_temp_c
    amplitude: float = Field(default=5.0, ge=0)
    peak_hour: float = Field(default=15.0, ge=0, le=24)


class GridFrequency(FrozenModel):
    """Grid frequency: nominal, slow drift and noise (standard deviations in Hz), within 45..55 Hz.

    The same seed gives the same series; left out it is 0.
    """

    nominal_hz: float = Field(default=NOMINAL.frequency_hz, ge=MIN_FREQUENCY_HZ, le=MAX_FREQUENCY_HZ)
    noise_std: float = Field(default=0.0, ge=0)
    drift_std: float = Field(default=0.0, ge=0)
    seed: int = 0


class GridVoltage(FrozenModel):
    """Grid voltage line-to-line: nominal, slow drift and noise (standard deviations in V), within 300..480 V.

    The same seed gives the same series; left out it is 0.
    """

    nominal_v_ll: float = Field(
        default=NOMINAL.nominal_voltage_ll_v,
        ge=MIN_VOLTAGE_LL_V,
        le=MAX_VOLTAGE_LL_V,
        validation_alias=AliasChoices("nominal_v_ll", "nominal_voltage_ll"),
    )
    noise_std: float = Field(default=0.0, ge=0)
    drift_std: float = Field(default=0.0, ge=0)
    seed: int = 0


def _model_or_series(value: Any) -> str:
    return (
        "series" if isinstance(value, CsvSeries) or (isinstance(value, dict) and "csv" in value) else "model"
    )


_EITHER = Discriminator(_model_or_series)
_FromCsv = Annotated[CsvSeries, Tag("series")]


class ExternalModels(FrozenModel):
    """The models of the surroundings; each may instead be a `{csv: file, repeat: bool}` series.

    One that is left out is constant and nominal: 1000 W/m2, 20 degC, 50 Hz, 400 V, 5000 W of load.
    """

    power: Annotated[Annotated[Power, Tag("model")] | _FromCsv, _EITHER] | None = None
    irradiance: Annotated[Annotated[Irradiance, Tag("model")] | _FromCsv, _EITHER] | None = None
    ambient_temperature: Annotated[Annotated[AmbientTemperature, Tag("model")] | _FromCsv, _EITHER] | None = (
        None
    )
    grid_frequency: Annotated[Annotated[GridFrequency, Tag("model")] | _FromCsv, _EITHER] | None = None
    grid_voltage: Annotated[Annotated[GridVoltage, Tag("model")] | _FromCsv, _EITHER] | None = None


class Load(FrozenModel):
    """What the site consumes: `base_w` plus a daily profile or a CSV series.

    `profile` is a list of [hour, W] points, linear between them and across midnight; `csv` is as in
    CsvSeries. base_w is 5000 W when nothing else is given, otherwise 0.
    """

    base_w: float | None = None
    profile: list[Point] | None = Field(default=None, min_length=1)
    csv: str | None = Field(default=None, min_length=1)
    repeat: bool = False
    _points: Series | None = PrivateAttr(default=None)

    @field_validator("profile")
    @classmethod
    def _hours_of_a_day(cls, profile: list[Point] | None) -> list[Point] | None:
        if profile is not None:
            if not all(0.0 <= hour <= 24.0 for hour, _ in profile):
                raise ValueError("hours must be within 0..24")
            _daily(profile)
        return profile

    @model_validator(mode="after")
    def _one_source(self, info: ValidationInfo) -> Self:
        if self.profile is not None and self.csv is not None:
            raise ValueError("give `profile` or `csv`, not both")
        if self.repeat and self.csv is None:
            raise ValueError("`repeat` is about a `csv`, and there is none")
        if self.profile is not None:
            self._points = _daily(self.profile)
        elif self.csv is not None:
            self._points = _series(self.csv, self.repeat, info)
        return self

    @property
    def points(self) -> Series | None:
        """The points of the profile or the file; None if there is neither."""
        return self._points

    def at(self, time_s: float) -> float:
        """Return the load (W) at a time (s since midnight of the first day)."""
        if self._points is None:
            return NOMINAL.load_w if self.base_w is None else self.base_w
        return (self.base_w or 0.0) + self._points.at(time_s)


def _daily(profile: list[Point]) -> Series:
    times = [hour * 3600.0 for hour, _ in profile]
    values = [value for _, value in profile]
    if times[-1] != times[0] + DAY_S:
        times.append(times[0] + DAY_S)
        values.append(values[0])
    return Series(times, values, repeat=True)


class EnvironmentConfig(FrozenModel):
    """The part of a site config that describes its surroundings.

    `start_time_h` is the hour of the day at which the run starts. `load` and its old spelling
    `external_models.power` exclude each other.
    """

    start_time_h: float = Field(default=0.0, ge=0)
    external_models: ExternalModels = Field(default_factory=ExternalModels)
    load: Load | None = None
    events: list[AnyEvent] = Field(default_factory=list)

    @model_validator(mode="after")
    def _one_load(self) -> Self:
        if self.load is not None and self.external_models.power is not None:
            raise ValueError("give `load` or `external_models.power`, not both")
        return self


class EnvironmentState(NamedTuple):
    """What further steps depend on besides config and overrides: time (s since the start), noise."""

    time_s: float
    time_lost_s: float
    noise: Sequence[WanderState]


class _Overridden(NamedTuple):
    """Where a quantity comes from: a function of s since from_s, until until_s (both s since the start)."""

    source: Callable[[float], float]
    from_s: float
    until_s: float


class Environment:
    """The surroundings of a running site, advanced step by step.

    `time_s` is the simulated time since the start of the run. Conditions are those at the end of a
    step, the time that a snapshot of the step carries.
    """

    def __init__(self, config: EnvironmentConfig) -> None:
        models = config.external_models
        self.time_s = 0.0
        self._time_lost_s = 0.0
        self._start_s = config.start_time_h * 3600.0
        self._irradiance = _irradiance_source(models.irradiance)
        self._ambient = _ambient_source(models.ambient_temperature)
        self._noise: list[Wander] = []
        self._frequency = _frequency_source(models.grid_frequency, self._noise)
        self._voltage = _voltage_source(models.grid_voltage, self._noise)
        self._load = _load_source(config.load, models.power)
        grid = models.grid_voltage
        self._nominal_v = grid.nominal_v_ll if isinstance(grid, GridVoltage) else NOMINAL.nominal_voltage_ll_v
        self._timeline = Timeline(config.events) if config.events else None
        self._overrides: dict[Quantity, _Overridden] = {}

    def go_on_from(self, time_s: float) -> None:
        """Let the simulated time since the start of the run be time_s (s) from now on."""
        self.time_s = time_s
        self._time_lost_s = 0.0

    @property
    def state(self) -> EnvironmentState:
        """What further steps depend on; setting it goes back to there."""
        return EnvironmentState(self.time_s, self._time_lost_s, [wander.state for wander in self._noise])

    @state.setter
    def state(self, state: EnvironmentState) -> None:
        self.time_s, self._time_lost_s, noise = state
        for wander, wander_state in zip(self._noise, noise, strict=True):
            wander.state = WanderState(*wander_state)

    @property
    def is_overridden(self) -> bool:
        """Tell whether any quantity is out of its model's hands."""
        return bool(self._overrides)

    def override(self, override: Override, now: Conditions, at_s: float) -> None:
        """Take a quantity out of its model's hands from at_s (s since the start of the run) on.

        `now` are the conditions of the last step. An earlier override of the same quantity ends.
        """
        quantity = override.environment
        source = override.source(getattr(now, quantity))
        until_s = math.inf if override.duration is None else at_s + override.duration
        self._overrides[quantity] = _Overridden(source, at_s, until_s)

    def end_overrides(self) -> None:
        """Give all quantities back to their models."""
        self._overrides.clear()

    def step(self, dt_s: float) -> Conditions:
        """Advance by dt_s (s, >= 0) and return the conditions at the end of the step."""
        # Compensated summation: after a week of 0.1 s steps the clock is still right to the last bit.
        increment_s = dt_s - self._time_lost_s
        time_s = self.time_s + increment_s
        self._time_lost_s = (time_s - self.time_s) - increment_s
        self.time_s = time_s

        clock_s = self._start_s + time_s
        irradiance = self._irradiance(clock_s)
        frequency_hz = self._frequency(clock_s, dt_s)
        voltage_v = self._voltage(clock_s, dt_s)
        load_w = self._load(clock_s)
        if self._timeline is not None:
            change = self._timeline.at(time_s)
            irradiance *= change.irradiance_factor
            frequency_hz += change.frequency_hz
            voltage_v *= change.voltage_factor
            load_w += change.load_w
        if not MIN_FREQUENCY_HZ <= frequency_hz <= MAX_FREQUENCY_HZ:
            frequency_hz = MIN_FREQUENCY_HZ if frequency_hz < MIN_FREQUENCY_HZ else MAX_FREQUENCY_HZ
        if not MIN_VOLTAGE_LL_V <= voltage_v <= MAX_VOLTAGE_LL_V:
            voltage_v = MIN_VOLTAGE_LL_V if voltage_v < MIN_VOLTAGE_LL_V else MAX_VOLTAGE_LL_V
        ambient_c = self._ambient(clock_s)
        conditions = Conditions(
            clock_s, irradiance, ambient_c, frequency_hz, voltage_v, load_w, self._nominal_v
        )
        return self._overridden(conditions, time_s) if self._overrides else conditions

    def _overridden(self, conditions: Conditions, time_s: float) -> Conditions:
        """Return conditions with what overrides make of them in a step that ends at time_s."""
        changed: dict[str, float] = {}
        for quantity, (source, from_s, until_s) in list(self._overrides.items()):
            if time_s > until_s + TOLERANCE:
                del self._overrides[quantity]
            else:
                changed[quantity] = source(time_s - from_s)
        return conditions._replace(**changed)


def _irradiance_source(config: Irradiance | CsvSeries | None) -> Callable[[float], float]:
    if config is None:
        return lambda _: NOMINAL.irradiance_w_m2
    if isinstance(config, CsvSeries):
        return lambda time_s: max(0.0, config.at(time_s))  # pyranometers read below zero at night
    peak, sunrise, sunset = config.peak, config.sunrise, config.sunset
    return lambda time_s: clear_sky_irradiance(time_s, peak, sunrise, sunset)


def _ambient_source(config: AmbientTemperature | CsvSeries | None) -> Callable[[float], float]:
    if config is None:
        return lambda _: NOMINAL.ambient_temp_c
    if isinstance(config, CsvSeries):
        return config.at
    mean, amplitude, peak_hour = config.mean, config.amplitude, config.peak_hour
    return lambda time_s: ambient_temperature(time_s, mean, amplitude, peak_hour)


def _frequency_source(
    config: GridFrequency | CsvSeries | None, noise: list[Wander]
) -> Callable[[float, float], float]:
    if config is None:
        return lambda _, __: NOMINAL.frequency_hz
    if isinstance(config, CsvSeries):
        return lambda time_s, _: config.at(time_s)
    wander = Wander(config.nominal_hz, config.noise_std, config.drift_std, f"grid_frequency {config.seed}")
    noise.append(wander)
    return lambda _, dt_s: wander.step(dt_s)


def _voltage_source(
    config: GridVoltage | CsvSeries | None, noise: list[Wander]
) -> Callable[[float, float], float]:
    if config is None:
        return lambda _, __: NOMINAL.voltage_ll_v
    if isinstance(config, CsvSeries):
        return lambda time_s, _: config.at(time_s)
    # The name in the seed keeps voltage and frequency apart when both are given the same number.
    wander = Wander(config.nominal_v_ll, config.noise_std, config.drift_std, f"grid_voltage {config.seed}")
    noise.append(wander)
    return lambda _, dt_s: wander.step(dt_s)


def _load_source(load: Load | None, power: Power | CsvSeries | None) -> Callable[[float], float]:
    if load is not None:
        return load.at
    if isinstance(power, CsvSeries):
        return power.at
    base_w = NOMINAL.load_w if power is None else power.base_load_w
    return lambda _: base_w
