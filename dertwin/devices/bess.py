"""Battery energy storage system: cells, converter and the controls an EMS talks to."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Literal, NamedTuple, Self

from pydantic import Field, model_validator

from dertwin.devices.asset import AssetConfig
from dertwin.devices.device import Command, CommandRange, Conditions
from dertwin.devices.watchdog import Watchdog, WatchdogState
from dertwin.physics import battery
from dertwin.physics.converter import reactive_within
from dertwin.physics.grid import CONNECTED, TripState, protect
from dertwin.physics.thermal import temperature_after
from dertwin.schema import FrozenModel
from dertwin.stepping import clamp, ramp

RUN, STOP, STANDBY = 1, 2, 3
STOPPED, RUNNING, FAULT = 0, 1, 2
NO_FAULT, OVER_TEMPERATURE, EMPTY, GRID_VOLTAGE, GRID_FREQUENCY = 0, 1001, 2001, 3001, 3002
GRID_FAULTS = (NO_FAULT, GRID_VOLTAGE, GRID_FREQUENCY)
OVER_TEMPERATURE_C = 75.0
NOMINAL = Conditions(0.0, 1000.0, 20.0, 50.0, 400.0, 0.0)


class SocLimitsConfig(FrozenModel):
    """State of charge (%) between which power falls to zero: lower_1 to lower_2, upper_1 to upper_2."""

    lower_1: float = Field(default=25.0, ge=0, le=100)
    lower_2: float = Field(default=20.0, ge=0, le=100)
    upper_1: float = Field(default=85.0, ge=0, le=100)
    upper_2: float = Field(default=90.0, ge=0, le=100)

    @model_validator(mode="after")
    def _limits_are_in_order(self) -> Self:
        if not self.lower_2 <= self.lower_1 <= self.upper_1 <= self.upper_2:
            raise ValueError(
                "the limits are not in order; use lower_2 <= lower_1 <= upper_1 <= upper_2, "
                f"not {self.lower_2:g}, {self.lower_1:g}, {self.upper_1:g}, {self.upper_2:g}"
            )
        return self


class BessConfig(AssetConfig):
    """Ratings of a battery; what is left out beyond the defaults scales with the capacity.

    `round_trip_eff` is AC to AC, half of the loss each way. `internal_resistance` (ohm, whole
    string) says how much of it heats the cells. `ambient_temp_c` is the cells' first temperature.
    """

    type: Literal["bess"]
    capacity_kwh: float = Field(default=100.0, gt=0)
    initial_soc: float = Field(default=50.0, ge=0, le=100)
    max_charge_kw: float = Field(default=20.0, gt=0)
    max_discharge_kw: float = Field(default=20.0, gt=0)
    ramp_rate_kw_per_s: float = Field(default=100.0, gt=0)
    round_trip_eff: float = Field(default=0.92, gt=0, le=1)
    ambient_temp_c: float = Field(default=20.0, ge=-50, le=75)
    internal_resistance: float | None = Field(default=None, gt=0)
    thermal_capacity_j_per_k: float | None = Field(default=None, gt=0)
    thermal_conductance_w_per_k: float | None = Field(default=None, gt=0)
    soc_limits: SocLimitsConfig = SocLimitsConfig()

    def build(self) -> "Bess":
        """Build the battery."""
        return Bess(self)


@dataclass(slots=True)
class BessState:
    """What moves: energies (Wh), powers (W, + = discharge), temperature, fault, and the EMS's commands."""

    stored_energy_wh: float
    battery_temp_c: float
    upper_soc_limit_1: float
    upper_soc_limit_2: float
    lower_soc_limit_1: float
    lower_soc_limit_2: float
    active_power_w: float = 0.0
    charged_energy_wh: float = 0.0
    discharged_energy_wh: float = 0.0
    loss_energy_wh: float = 0.0
    cycles: float = 0.0
    fault_code: int = NO_FAULT
    start_stop_standby: float = STOP
    active_power_setpoint_w: float = 0.0
    reactive_power_setpoint_var: float = 0.0
    local_remote_settings: float = 1.0
    power_control_mode: float = 0.0
    heartbeat: float = 0.0
    trip: TripState = field(default_factory=TripState)
    watchdog: WatchdogState = field(default_factory=WatchdogState)


class BessMeasurements(NamedTuple):
    """SI values; power, current and reactive power positive = discharge (out of the device)."""

    voltage_dc_v: float
    current_dc_a: float
    active_power_w: float
    reactive_power_var: float
    apparent_power_va: float
    soc: float
    soh: float
    battery_temp_c: float
    available_charge_power_w: float
    available_discharge_power_w: float
    max_charge_power_w: float
    max_discharge_power_w: float
    charged_energy_wh: float
    discharged_energy_wh: float
    stored_energy_wh: float
    loss_energy_wh: float
    cycles: float
    frequency_hz: float
    voltage_ab_v: float
    voltage_bc_v: float
    voltage_ca_v: float
    working_status: int
    fault_code: int
    local_remote_mode: int
    power_control_mode: int
    start_stop_standby: int
    active_power_setpoint_w: float
    reactive_power_setpoint_var: float
    local_remote_settings: int
    upper_soc_limit_1: float
    upper_soc_limit_2: float
    lower_soc_limit_1: float
    lower_soc_limit_2: float
    heartbeat: int
    watchdog_expired: int


class Bess:
    """A battery with its converter.

    The setpoint acts only while running and is never overwritten: whatever limits the power now,
    the power returns to the setpoint when the limit goes. Active power has priority over reactive.
    `local_remote_settings` and `power_control_mode` are kept and read back; they change nothing.
    """

    def __init__(self, config: BessConfig) -> None:
        self.config = config
        limits = config.soc_limits
        self._capacity_wh = config.capacity_kwh * 1000.0
        self._max_charge_w = config.max_charge_kw * 1000.0
        self._max_discharge_w = config.max_discharge_kw * 1000.0
        self._rating_va = max(self._max_charge_w, self._max_discharge_w)
        self._ramp_w_per_s = config.ramp_rate_kw_per_s * 1000.0
        self._efficiency = math.sqrt(config.round_trip_eff)
        self._resistance_ohm = config.internal_resistance or battery.RESISTANCE_OHM_KWH / config.capacity_kwh
        self._heat_capacity_j_per_k = (
            config.thermal_capacity_j_per_k or battery.HEAT_CAPACITY_J_PER_K_KWH * config.capacity_kwh
        )
        self._heat_conductance_w_per_k = (
            config.thermal_conductance_w_per_k or battery.HEAT_CONDUCTANCE_W_PER_K_KWH * config.capacity_kwh
        )
        self._grid_limits = config.grid_protection.limits()
        self._nominal_v = config.grid_protection.nominal_voltage_ll_v
        self.commands = self._command_ranges()
        self._watchdog = (
            Watchdog(config.watchdog, config.type, self.commands, (Command("active_power_setpoint_w", 0.0),))
            if config.watchdog
            else None
        )
        self.state = BessState(
            stored_energy_wh=self._capacity_wh * config.initial_soc / 100.0,
            battery_temp_c=config.ambient_temp_c,
            upper_soc_limit_1=limits.upper_1 / 100.0,
            upper_soc_limit_2=limits.upper_2 / 100.0,
            lower_soc_limit_1=limits.lower_1 / 100.0,
            lower_soc_limit_2=limits.lower_2 / 100.0,
        )
        self.measurements = self.step(NOMINAL, (), 0, 0.0)

    def _command_ranges(self) -> Mapping[str, CommandRange]:
        share = CommandRange(0.0, 1.0)
        return {
            "start_stop_standby": CommandRange(1.0, 3.0, frozenset((1.0, 2.0, 3.0))),
            "active_power_setpoint_w": CommandRange(-self._max_charge_w, self._max_discharge_w),
            "reactive_power_setpoint_var": CommandRange(-self._rating_va, self._rating_va),
            "local_remote_settings": CommandRange(0.0, 1.0, frozenset((0.0, 1.0))),
            "power_control_mode": CommandRange(0.0, 65535.0),
            "fault_reset": CommandRange(0.0, 1.0, frozenset((0.0, 1.0))),
            "upper_soc_limit_1": share,
            "upper_soc_limit_2": share,
            "lower_soc_limit_1": share,
            "lower_soc_limit_2": share,
            "heartbeat": CommandRange(0.0, 65535.0),
        }

    def step(
        self, conditions: Conditions, commands: Sequence[Command], requests: int, dt_s: float
    ) -> BessMeasurements:
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
        soh = battery.state_of_health(state.cycles)
        capacity_wh = self._capacity_wh * soh
        soc = state.stored_energy_wh / capacity_wh
        limits = battery.SocLimits(
            state.lower_soc_limit_1, state.lower_soc_limit_2, state.upper_soc_limit_1, state.upper_soc_limit_2
        )
        warm = battery.temperature_factor(state.battery_temp_c)
        charge_w = self._max_charge_w * warm * battery.charge_factor(soc, limits)
        discharge_w = self._max_discharge_w * warm * battery.discharge_factor(soc, limits)
        if state.fault_code in (OVER_TEMPERATURE, EMPTY):
            charge_w = discharge_w = 0.0

        if cause != CONNECTED or state.fault_code in (OVER_TEMPERATURE, EMPTY):
            power_w = 0.0
        else:
            target_w = state.active_power_setpoint_w if state.start_stop_standby == RUN else 0.0
            target_w = clamp(target_w, -charge_w, discharge_w)
            power_w = ramp(state.active_power_w, target_w, self._ramp_w_per_s, dt_s)
            power_w = clamp(power_w, -charge_w, discharge_w)
            if dt_s > 0.0:
                power_w = self._within_store(power_w, capacity_wh, limits, dt_s)
        cells = self._move_energy(power_w, soc, conditions.ambient_temp_c, dt_s)
        self._watch_faults(cause)
        self.measurements = self._measure(conditions, cells, soh, charge_w, discharge_w)
        return self.measurements

    def _take(self, command: Command) -> None:
        name, value = command
        accepted = self.commands[name]
        value = clamp(value, accepted.low, accepted.high)
        state = self.state
        if name != "fault_reset":
            setattr(state, name, value)
        elif value == 1.0 and state.battery_temp_c <= OVER_TEMPERATURE_C:
            state.fault_code = NO_FAULT

    def _within_store(
        self, power_w: float, capacity_wh: float, limits: battery.SocLimits, dt_s: float
    ) -> float:
        """Cut the power (W) so that a step of dt_s (s) ends at the limit of the store, not beyond it."""
        state = self.state
        if power_w > 0.0:
            usable_wh = state.stored_energy_wh - limits.lower_2 * capacity_wh
            return min(power_w, max(0.0, usable_wh) * self._efficiency * 3600.0 / dt_s)
        if power_w < 0.0:
            room_wh = limits.upper_2 * capacity_wh - state.stored_energy_wh
            return max(power_w, -max(0.0, room_wh) / self._efficiency * 3600.0 / dt_s)
        return power_w

    def _move_energy(self, power_w: float, soc: float, ambient_c: float, dt_s: float) -> battery.Terminals:
        """Book what power_w (W) does in dt_s (s): store, counters, losses, cycles, heat."""
        state = self.state
        energy_wh = power_w * dt_s / 3600.0
        if power_w >= 0.0:
            cell_power_w = power_w / self._efficiency
            cell_wh = energy_wh / self._efficiency
            state.discharged_energy_wh += energy_wh
            state.cycles += cell_wh / self._capacity_wh
        else:
            cell_power_w = power_w * self._efficiency
            cell_wh = energy_wh * self._efficiency
            state.charged_energy_wh -= energy_wh
        state.stored_energy_wh -= cell_wh
        state.loss_energy_wh += cell_wh - energy_wh
        self._book_fade()
        cells = battery.terminals(cell_power_w, soc, self._resistance_ohm, cell_power_w - power_w)
        state.battery_temp_c = temperature_after(
            state.battery_temp_c,
            ambient_c,
            cells.heat_w,
            self._heat_capacity_j_per_k,
            self._heat_conductance_w_per_k,
            dt_s,
        )
        state.active_power_w = power_w
        return cells

    def _book_fade(self) -> None:
        """Keep the store within what ageing has left of it; energy that no longer fits is lost."""
        state = self.state
        if state.stored_energy_wh < 0.0:
            state.stored_energy_wh = 0.0  # rounding of a step that was cut at empty
        most_wh = self._capacity_wh * battery.state_of_health(state.cycles)
        if state.stored_energy_wh > most_wh:
            state.loss_energy_wh += state.stored_energy_wh - most_wh
            state.stored_energy_wh = most_wh

    def _watch_faults(self, cause: int) -> None:
        state = self.state
        if state.battery_temp_c > OVER_TEMPERATURE_C:
            state.fault_code = OVER_TEMPERATURE
        elif state.fault_code in GRID_FAULTS:
            wants_discharge = state.start_stop_standby == RUN and state.active_power_setpoint_w > 0.0
            empty = state.stored_energy_wh <= 0.0 and wants_discharge
            state.fault_code = EMPTY if empty else GRID_FAULTS[cause]

    def _measure(
        self,
        conditions: Conditions,
        cells: battery.Terminals,
        soh: float,
        charge_w: float,
        discharge_w: float,
    ) -> BessMeasurements:
        state = self.state
        running = state.start_stop_standby == RUN and state.fault_code == NO_FAULT
        power_w = state.active_power_w
        reactive_var = (
            reactive_within(state.reactive_power_setpoint_var, power_w, self._rating_va) if running else 0.0
        )
        voltage_ll_v = conditions.voltage_ll_v
        return BessMeasurements(
            cells.voltage_v,
            cells.current_a,
            power_w,
            reactive_var,
            math.sqrt(power_w * power_w + reactive_var * reactive_var),
            min(1.0, state.stored_energy_wh / (self._capacity_wh * battery.state_of_health(state.cycles))),
            soh,
            state.battery_temp_c,
            charge_w,
            discharge_w,
            self._max_charge_w,
            self._max_discharge_w,
            state.charged_energy_wh,
            state.discharged_energy_wh,
            state.stored_energy_wh,
            state.loss_energy_wh,
            state.cycles,
            conditions.frequency_hz,
            voltage_ll_v,
            voltage_ll_v,
            voltage_ll_v,
            FAULT if state.fault_code else RUNNING if running else STOPPED,
            state.fault_code,
            int(state.local_remote_settings),
            int(state.power_control_mode),
            int(state.start_stop_standby),
            state.active_power_setpoint_w,
            state.reactive_power_setpoint_var,
            int(state.local_remote_settings),
            state.upper_soc_limit_1,
            state.upper_soc_limit_2,
            state.lower_soc_limit_1,
            state.lower_soc_limit_2,
            int(state.heartbeat),
            int(state.watchdog.expired),
        )
