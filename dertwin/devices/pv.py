"""PV inverter: an array, an inverter and the limits an EMS may set."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Literal, NamedTuple

from pydantic import Field

from dertwin.devices.asset import AssetConfig
from dertwin.devices.device import Command, CommandRange, Conditions
from dertwin.devices.watchdog import Watchdog, WatchdogState
from dertwin.physics.converter import NOMINAL_EFFICIENCY, ac_power_w, dc_power_w, reactive_within
from dertwin.physics.grid import CONNECTED, TripState, protect
from dertwin.physics.pv import REFERENCE_IRRADIANCE_W_M2, array_power_w, cell_temp_c
from dertwin.stepping import clamp, lag

SQRT3 = math.sqrt(3.0)
DAY_S = 86400.0
NOMINAL = Conditions(0.0, 1000.0, 20.0, 50.0, 400.0, 0.0)

# A heat sink that is 35 K above the air at rated power and settles in half an hour, as string
# inverters with natural convection do.
HEATING_K = 35.0
HEATING_TAU_S = 600.0

# A power factor near zero would mean no active power at all; grid codes ask for 0.8 at most.
LEAST_POWER_FACTOR = 0.1

COMMANDS: Mapping[str, CommandRange] = {
    "remote_on_off": CommandRange(0.0, 1.0, frozenset((0.0, 1.0))),
    "active_power_limit": CommandRange(0.0, 2.55),
    "reactive_power_ratio": CommandRange(-1.0, 1.0),
    "power_factor_setpoint": CommandRange(-1.0, 1.0),
    "heartbeat": CommandRange(0.0, 65535.0),
}


class PvInverterConfig(AssetConfig):
    """Ratings of a PV inverter and its array.

    `area_m2` left out: sized so that 1000 W/m2 on cells at 25 degC gives the rated AC power.
    """

    type: Literal["inverter"]
    rated_kw: float = Field(default=10.0, gt=0)
    module_efficiency: float = Field(default=0.20, gt=0, le=1)
    area_m2: float | None = Field(default=None, gt=0)

    def build(self) -> "PvInverter":
        """Build the inverter."""
        return PvInverter(self)


@dataclass(slots=True)
class PvInverterState:
    """What moves: energies (Wh), temperature, the day of the daily counter, and the EMS's commands."""

    today_energy_wh: float = 0.0
    lifetime_energy_wh: float = 0.0
    inverter_temp_c: float = 20.0
    day: int = 0
    remote_on_off: float = 1.0
    active_power_limit: float = 2.55
    reactive_power_ratio: float = 0.0
    power_factor_setpoint: float = 1.0
    by_power_factor: bool = False
    heartbeat: float = 0.0
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
    last. Under a power factor active power yields so that both fit the rating, else it has priority.
    """

    def __init__(self, config: PvInverterConfig) -> None:
        self.config = config
        self.commands = COMMANDS
        self._rated_w = config.rated_kw * 1000.0
        self._array_w = (
            self._rated_w / NOMINAL_EFFICIENCY
            if config.area_m2 is None
            else config.area_m2 * config.module_efficiency * REFERENCE_IRRADIANCE_W_M2
        )
        self._grid_limits = config.grid_protection.limits()
        self._nominal_v = config.grid_protection.nominal_voltage_ll_v
        self._watchdog = (
            Watchdog(config.watchdog, config.type, COMMANDS, (Command("active_power_limit", 0.0),))
            if config.watchdog
            else None
        )
        self.state = PvInverterState()
        self.measurements = self.step(NOMINAL, (), 0, 0.0)

    def step(
        self, conditions: Conditions, commands: Sequence[Command], requests: int, dt_s: float
    ) -> PvInverterMeasurements:
        """Advance by dt_s (s) and return the new measurements; see Device."""
        state = self.state
        if self._watchdog is not None:
            commands = self._watchdog.step(state.watchdog, commands, requests, dt_s)
        for command in commands:
            self._take(command)
        cause = protect(
            self._grid_limits,
            state.trip,
            conditions.voltage_ll_v / self._nominal_v,
            conditions.frequency_hz,
            dt_s,
        )
        cell_c = cell_temp_c(conditions.irradiance_w_m2, conditions.ambient_temp_c)
        dc_w = power_w = reactive_var = 0.0
        if state.remote_on_off == 1.0 and cause == CONNECTED:
            array_w = array_power_w(conditions.irradiance_w_m2, cell_c, self._array_w)
            offered_w = ac_power_w(array_w, self._rated_w)
            most_w = state.active_power_limit * self._rated_w
            if state.by_power_factor:
                most_w = min(most_w, abs(state.power_factor_setpoint) * self._rated_w)
            power_w = min(offered_w, most_w)
            # A limited inverter moves the array off its maximum power point.
            dc_w = dc_power_w(power_w, self._rated_w)
            if power_w > 0.0:
                reactive_var = self._reactive_power_var(power_w)
        self._count(conditions, power_w, dt_s)
        self.measurements = self._measure(conditions, cell_c, dc_w, power_w, reactive_var, cause)
        return self.measurements

    def _take(self, command: Command) -> None:
        name, value = command
        accepted = COMMANDS[name]
        value = clamp(value, accepted.low, accepted.high)
        state = self.state
        if name == "power_factor_setpoint":
            state.by_power_factor = True
            if abs(value) < LEAST_POWER_FACTOR:
                value = -LEAST_POWER_FACTOR if value < 0.0 else LEAST_POWER_FACTOR
        elif name == "reactive_power_ratio":
            state.by_power_factor = False
        setattr(state, name, value)

    def _reactive_power_var(self, power_w: float) -> float:
        state = self.state
        if state.by_power_factor:
            factor = state.power_factor_setpoint
            wanted_var = power_w * math.sqrt(1.0 - factor * factor) / factor
        else:
            wanted_var = state.reactive_power_ratio * self._rated_w
        return reactive_within(wanted_var, power_w, self._rated_w)

    def _count(self, conditions: Conditions, power_w: float, dt_s: float) -> None:
        """Count energy, from zero each simulated midnight for the day, and warm the inverter."""
        state = self.state
        day = math.floor(conditions.time_s / DAY_S)
        if day != state.day:
            state.day = day
            state.today_energy_wh = 0.0
        energy_wh = power_w * dt_s / 3600.0
        state.today_energy_wh += energy_wh
        state.lifetime_energy_wh += energy_wh
        settled_c = conditions.ambient_temp_c + HEATING_K * power_w / self._rated_w
        state.inverter_temp_c = lag(state.inverter_temp_c, settled_c, HEATING_TAU_S, dt_s)

    def _measure(
        self,
        conditions: Conditions,
        cell_c: float,
        dc_w: float,
        power_w: float,
        reactive_var: float,
        cause: int,
    ) -> PvInverterMeasurements:
        state = self.state
        apparent_va = math.sqrt(power_w * power_w + reactive_var * reactive_var)
        factor = power_w / apparent_va if apparent_va > 0.0 else 1.0
        phase_v = conditions.voltage_ll_v / SQRT3
        return PvInverterMeasurements(
            1 if power_w > 0.0 else 0,
            dc_w,
            power_w,
            reactive_var,
            apparent_va,
            state.today_energy_wh,
            state.lifetime_energy_wh,
            conditions.frequency_hz,
            phase_v,
            phase_v,
            phase_v,
            state.inverter_temp_c,
            cell_c,
            conditions.irradiance_w_m2,
            -factor if reactive_var < 0.0 else factor,
            cause,
            int(state.remote_on_off),
            state.active_power_limit,
            state.reactive_power_ratio,
            state.power_factor_setpoint,
            int(state.heartbeat),
            int(state.watchdog.expired),
        )
