"""PV inverter: an array, an inverter and the limits an EMS may set."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import ClassVar, Literal, NamedTuple

from pydantic import Field

from dertwin.devices.asset import GeneratorConfig
from dertwin.devices.device import NOMINAL, UNIMPAIRED, Command, CommandRange, Conditions
from dertwin.devices.watchdog import Watchdog, WatchdogState
from dertwin.physics.converter import ac_power_w, dc_power_w, reactive_within
from dertwin.physics.grid import CONNECTED, TripState, protect
from dertwin.physics.pv import REFERENCE_IRRADIANCE_W_M2, array_power_w, cell_temp_c
from dertwin.stepping import DAY_S, count, lag, ramp

# Our choice: a heat sink that is 35 K above the air at rated power and settles in half an hour.
HEATING_K = 35.0
HEATING_TAU_S = 600.0

LEAST_POWER_FACTOR = 0.1  # below it a unit would give next to no active power
NO_LIMIT = 2.55  # 255 %

COMMANDS: Mapping[str, CommandRange] = {
    "remote_on_off": CommandRange(0.0, 1.0, frozenset((0.0, 1.0))),
    "active_power_limit": CommandRange(0.0, NO_LIMIT),
    "reactive_power_ratio": CommandRange(-1.0, 1.0),
    "power_factor_setpoint": CommandRange(-1.0, 1.0, least_size=LEAST_POWER_FACTOR),
    "heartbeat": CommandRange(0.0, 65535.0),
}


class PvInverterConfig(GeneratorConfig):
    """Ratings of a PV inverter and its array.

    `area_m2` left out: sized so that 1000 W/m2 at 20 degC (cells near 51 degC) gives the rated power.
    """

    default_map: ClassVar[str] = "pv_inverter_modbus.yaml"

    type: Literal["inverter"]
    rated_kw: float = Field(default=10.0, gt=0)
    module_efficiency: float = Field(default=0.20, gt=0, le=1)
    area_m2: float | None = Field(default=None, gt=0)

    def build(self) -> "PvInverter":
        """Build the inverter, switched on."""
        return PvInverter(self)


@dataclass(slots=True)
class PvInverterState:
    """What moves: energies (Wh), temperature (degC), day of the daily counter; and the commands taken.

    The day's energy is what the lifetime's has grown by since midnight. `by_power_factor` tells which
    of the two reactive power commands came last.
    """

    lifetime_energy_wh: float = 0.0
    lifetime_rest_wh: float = 0.0
    midnight_energy_wh: float = 0.0
    inverter_temp_c: float = NOMINAL.ambient_temp_c
    day: int = 0
    remote_on_off: int = 1
    active_power_limit: float = NO_LIMIT
    reactive_power_ratio: float = 0.0
    power_factor_setpoint: float = 1.0
    by_power_factor: bool = False
    heartbeat: int = 0
    trip: TripState = field(default_factory=TripState)
    watchdog: WatchdogState = field(default_factory=WatchdogState)


class PvInverterMeasurements(NamedTuple):
    """SI values; active power >= 0, reactive power positive = out of the inverter (over-excited).

    The power factor has the sign of the reactive power. Voltages are line-to-neutral.
    """

    inverter_status: int
    dc_power_w: float
    active_power_w: float
    reactive_power_var: float
    apparent_power_va: float
    today_energy_wh: float
    lifetime_energy_wh: float
    frequency_hz: float
    voltage_an_v: float
    voltage_bn_v: float
    voltage_cn_v: float
    inverter_temp_c: float
    cell_temp_c: float
    irradiance_w_m2: float
    power_factor: float
    fault_code: int
    remote_on_off: int
    active_power_limit: float
    reactive_power_ratio: float
    power_factor_setpoint: float
    heartbeat: int
    watchdog_expired: int


class PvInverter:
    """An inverter that follows the sun up to its rating and the EMS's limit.

    Reactive power follows the power factor or the ratio of the rating, whichever was commanded
    last, while it produces. Active power has priority, but yields to a power factor so that both fit
    the rating. Outside the grid's limits it is off until the reconnection, its fault_code the cause.
    """

    def __init__(self, config: PvInverterConfig) -> None:
        self.config = config
        self.commands = COMMANDS
        self._rated_w = config.rated_kw * 1000.0
        self._array_w = _array_power_w(config)
        self._grid_limits = config.grid_protection.limits()
        self._nominal_v = config.grid_protection.nominal_voltage_ll_v
        off = (Command("active_power_limit", 0.0),)
        self._watchdog = Watchdog(config.watchdog, config.type, COMMANDS, off) if config.watchdog else None
        self.state = PvInverterState()
        self.impairment = UNIMPAIRED
        self.measurements = self.step(NOMINAL, (), 0, 0.0)

    def step(
        self, conditions: Conditions, commands: Sequence[Command], requests: int, dt_s: float
    ) -> PvInverterMeasurements:
        """Advance by dt_s (s, >= 0) and return the new measurements.

        Raises KeyError for a command that an inverter does not have.
        """
        state = self.state
        voltage_pu = conditions.voltage_ll_v / (self._nominal_v or conditions.nominal_voltage_ll_v)
        grid = protect(self._grid_limits, state.trip, voltage_pu, conditions.frequency_hz, dt_s)
        if self._watchdog is not None:
            commands = self._watchdog.step(state.watchdog, commands, requests, dt_s)
        if commands:
            self._take(commands)

        cell_c = cell_temp_c(conditions.irradiance_w_m2, conditions.ambient_temp_c)
        impairment = self.impairment
        power_w = reactive_var = 0.0
        if grid == CONNECTED and state.remote_on_off and not impairment.fault_code:
            array_w = array_power_w(conditions.irradiance_w_m2, cell_c, self._array_w)
            power_w = min(ac_power_w(array_w, self._rated_w), self._limit_w())
            if impairment is not UNIMPAIRED:
                power_w = min(power_w, impairment.power_ratio * self._rated_w)
                power_w = ramp(self.measurements.active_power_w, power_w, impairment.rate_w_per_s, dt_s)
            if power_w > 0.0:
                reactive_var = self._reactive_power_var(power_w)
        self._count(power_w, conditions.time_s, dt_s)
        settled_c = conditions.ambient_temp_c + HEATING_K * power_w / self._rated_w
        state.inverter_temp_c = lag(state.inverter_temp_c, settled_c, HEATING_TAU_S, dt_s)
        self.measurements = self._measure(conditions, cell_c, power_w, reactive_var, grid)
        return self.measurements

    def reboot(self) -> None:
        """Go on as after a power cycle: switched on, without a limit."""
        old = self.state
        self.state = PvInverterState(
            lifetime_energy_wh=old.lifetime_energy_wh,
            lifetime_rest_wh=old.lifetime_rest_wh,
            midnight_energy_wh=old.midnight_energy_wh,
            inverter_temp_c=old.inverter_temp_c,
            day=old.day,
        )

    def _take(self, commands: Sequence[Command]) -> None:
        state = self.state
        for name, value in commands:
            accepted = COMMANDS[name].accept(value)
            if accepted is None:
                continue
            if name in ("power_factor_setpoint", "reactive_power_ratio"):
                state.by_power_factor = name == "power_factor_setpoint"
            kind = type(getattr(state, name))  # switches and counters are int, quantities float
            setattr(state, name, kind(accepted))

    def _limit_w(self) -> float:
        state = self.state
        limit = state.active_power_limit
        if state.by_power_factor:
            limit = min(limit, abs(state.power_factor_setpoint))
        return limit * self._rated_w

    def _reactive_power_var(self, power_w: float) -> float:
        state = self.state
        if state.by_power_factor:
            factor = state.power_factor_setpoint
            wanted_var = power_w * math.sqrt(1.0 - factor * factor) / factor
        else:
            wanted_var = state.reactive_power_ratio * self._rated_w
        return reactive_within(wanted_var, power_w, self._rated_w)

    def _count(self, power_w: float, time_s: float, dt_s: float) -> None:
        """Count the energy of a step that ends at time_s, for the day from midnight on."""
        state = self.state
        state.lifetime_energy_wh, state.lifetime_rest_wh = count(
            state.lifetime_energy_wh, state.lifetime_rest_wh, power_w * dt_s / 3600.0
        )
        day = math.floor(time_s / DAY_S)
        if day != state.day:
            state.day = day
            since_midnight_s = min(dt_s, time_s - day * DAY_S)
            state.midnight_energy_wh = state.lifetime_energy_wh - power_w * since_midnight_s / 3600.0

    def _measure(
        self,
        conditions: Conditions,
        cell_c: float,
        power_w: float,
        reactive_var: float,
        grid: int,
    ) -> PvInverterMeasurements:
        state = self.state
        apparent_va = math.sqrt(power_w * power_w + reactive_var * reactive_var)
        factor = power_w / apparent_va if apparent_va > 0.0 else 1.0
        phase_v = conditions.voltage_ln_v
        return PvInverterMeasurements(
            1 if power_w > 0.0 else 0,
            dc_power_w(power_w, self._rated_w),  # when limited, the array is off its maximum power point
            power_w,
            reactive_var,
            apparent_va,
            state.lifetime_energy_wh - state.midnight_energy_wh,
            state.lifetime_energy_wh,
            conditions.frequency_hz,
            phase_v,
            phase_v,
            phase_v,
            state.inverter_temp_c,
            cell_c,
            conditions.irradiance_w_m2,
            -factor if reactive_var < 0.0 else factor,
            self.impairment.fault_code or grid,
            state.remote_on_off,
            state.active_power_limit,
            state.reactive_power_ratio,
            state.power_factor_setpoint,
            state.heartbeat,
            1 if state.watchdog.expired else 0,
        )


def _array_power_w(config: PvInverterConfig) -> float:
    """Return the DC power (W) of the array at 1000 W/m2 and cells of 25 degC."""
    if config.area_m2 is not None:
        return config.area_m2 * config.module_efficiency * REFERENCE_IRRADIANCE_W_M2
    cell_c = cell_temp_c(REFERENCE_IRRADIANCE_W_M2, NOMINAL.ambient_temp_c)
    rated_w = config.rated_kw * 1000.0
    return dc_power_w(rated_w, rated_w) / array_power_w(REFERENCE_IRRADIANCE_W_M2, cell_c, 1.0)
