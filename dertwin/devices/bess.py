"""Battery energy storage system: cells, converter and the controls an EMS talks to."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import ClassVar, Literal, NamedTuple, Self

from pydantic import Field, model_validator

from dertwin.devices.asset import GeneratorConfig
from dertwin.devices.device import NOMINAL, UNIMPAIRED, Command, CommandRange, Conditions
from dertwin.devices.watchdog import Watchdog, WatchdogState
from dertwin.physics import battery
from dertwin.physics.converter import reactive_within
from dertwin.physics.grid import CONNECTED, FREQUENCY, VOLTAGE, TripState, protect
from dertwin.physics.thermal import temperature_after
from dertwin.schema import FrozenModel
from dertwin.stepping import clamp, count, ramp

RUN, STOP, STANDBY = 1, 2, 3
STOPPED, RUNNING, FAULT = 0, 1, 2
NO_FAULT, OVER_TEMPERATURE, EMPTY = 0, 1001, 2001
GRID_FAULT = {VOLTAGE: 3001, FREQUENCY: 3002}
OVER_TEMPERATURE_C = 75.0
EMPTY_SOC = 0.0005  # what a register with steps of 0.1 % shows as 0: derating to zero never quite gets there


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


class BessConfig(GeneratorConfig):
    """Ratings of a battery; what has no default here scales with the capacity.

    `round_trip_eff` is AC to AC, an equal share of it each way. `internal_resistance` (ohm, of the
    whole battery) says how much of the losses heats the cells. `ambient_temp_c` is the constant
    temperature of the battery's room, at which the cells start; left out, the battery has the air
    of the site, and its cells start at 20 degC. Derating goes from all power at `_1` of the
    `soc_limits` (%) to none at `_2`.
    """

    default_map: ClassVar[str] = "bess_modbus.yaml"

    type: Literal["bess"]
    capacity_kwh: float = Field(default=100.0, gt=0)
    initial_soc: float = Field(default=50.0, ge=0, le=100)
    max_charge_kw: float = Field(default=20.0, gt=0)
    max_discharge_kw: float = Field(default=20.0, gt=0)
    ramp_rate_kw_per_s: float = Field(default=100.0, gt=0)
    round_trip_eff: float = Field(default=0.92, gt=0, le=1)
    ambient_temp_c: float | None = Field(default=None, ge=-50, le=75)
    internal_resistance: float | None = Field(default=None, ge=0)
    thermal_capacity_j_per_k: float | None = Field(default=None, gt=0)
    thermal_conductance_w_per_k: float | None = Field(default=None, gt=0)
    soc_limits: SocLimitsConfig = SocLimitsConfig()

    def build(self) -> "Bess":
        """Build the battery, stopped."""
        return Bess(self)


@dataclass(slots=True)
class BessState:
    """What moves: energies (Wh), power (W, + = discharge), temperature (degC), fault; and the commands taken.

    `charged` and `discharged` are counted on the AC side, their rests are smaller than the last digit.
    What is stored and what is lost follows from these counters and the energy at the start.
    """

    initial_energy_wh: float
    battery_temp_c: float
    upper_soc_limit_1: float
    upper_soc_limit_2: float
    lower_soc_limit_1: float
    lower_soc_limit_2: float
    active_power_w: float = 0.0
    charged_energy_wh: float = 0.0
    charged_rest_wh: float = 0.0
    discharged_energy_wh: float = 0.0
    discharged_rest_wh: float = 0.0
    fault_code: int = NO_FAULT
    start_stop_standby: int = STOP
    active_power_setpoint_w: float = 0.0
    reactive_power_setpoint_var: float = 0.0
    local_remote_settings: int = 1
    power_control_mode: int = 0
    heartbeat: int = 0
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

    The setpoint acts only while running and is never overwritten: whatever limits the power now, it
    returns to the setpoint when the limit goes. A stop ramps down; a fault takes the power away at
    once. Over-temperature (1001) stays until it is reset with the cells cooled down. Empty (2001)
    ends with the first charge, a grid fault (3001 voltage, 3002 frequency) with the reconnection.
    Active power has priority over reactive. `local_remote_settings` and `power_control_mode` are
    kept and read back; they change nothing.
    """

    def __init__(self, config: BessConfig) -> None:
        self.config = config
        capacity_kwh = config.capacity_kwh
        self._capacity_wh = capacity_kwh * 1000.0
        self._max_charge_w = config.max_charge_kw * 1000.0
        self._max_discharge_w = config.max_discharge_kw * 1000.0
        self._rating_va = max(self._max_charge_w, self._max_discharge_w)
        self._ramp_w_per_s = config.ramp_rate_kw_per_s * 1000.0
        self._efficiency = math.sqrt(config.round_trip_eff)
        self._resistance_ohm = _or(config.internal_resistance, battery.RESISTANCE_OHM_KWH / capacity_kwh)
        self._heat_capacity_j_per_k = _or(
            config.thermal_capacity_j_per_k, battery.HEAT_CAPACITY_J_PER_K_KWH * capacity_kwh
        )
        self._heat_conductance_w_per_k = _or(
            config.thermal_conductance_w_per_k, battery.HEAT_CONDUCTANCE_W_PER_K_KWH * capacity_kwh
        )
        self._room_c = config.ambient_temp_c
        self._grid_limits = config.grid_protection.limits()
        self._nominal_v = config.grid_protection.nominal_voltage_ll_v
        self.commands = _command_ranges(self._max_charge_w, self._max_discharge_w, self._rating_va)
        idle = (Command("active_power_setpoint_w", 0.0), Command("reactive_power_setpoint_var", 0.0))
        self._watchdog = (
            Watchdog(config.watchdog, config.type, self.commands, idle) if config.watchdog else None
        )
        self.state = _first_state(config)
        self.impairment = UNIMPAIRED
        self.measurements = self.step(NOMINAL, (), 0, 0.0)

    def step(
        self, conditions: Conditions, commands: Sequence[Command], requests: int, dt_s: float
    ) -> BessMeasurements:
        """Advance by dt_s (s, >= 0) and return the new measurements.

        Powers are those of the step, everything else is at its end. Raises KeyError for a command
        that a battery does not have.
        """
        state = self.state
        voltage_pu = conditions.voltage_ll_v / (self._nominal_v or conditions.nominal_voltage_ll_v)
        grid = protect(self._grid_limits, state.trip, voltage_pu, conditions.frequency_hz, dt_s)
        if self._watchdog is not None:
            commands = self._watchdog.step(state.watchdog, commands, requests, dt_s)
        if commands:
            self._take(commands)

        power_w = self._power(grid, dt_s)
        self._count(power_w, dt_s)
        stored_wh, soh, soc = self._store()
        cell_power_w = power_w / self._efficiency if power_w > 0.0 else power_w * self._efficiency
        voltage_v, current_a, heat_w = battery.terminals(
            cell_power_w, soc, self._resistance_ohm, cell_power_w - power_w
        )
        state.battery_temp_c = temperature_after(
            state.battery_temp_c,
            conditions.ambient_temp_c if self._room_c is None else self._room_c,
            heat_w,
            self._heat_capacity_j_per_k,
            self._heat_conductance_w_per_k,
            dt_s,
        )
        state.fault_code = self._fault(grid, soc)
        self.measurements = self._measure(conditions, voltage_v, current_a, stored_wh, soh, soc)
        return self.measurements

    def reboot(self) -> None:
        """Go on as after a power cycle: stopped, with the limits of the config."""
        old = self.state
        self.state = replace(
            _first_state(self.config),
            initial_energy_wh=old.initial_energy_wh,
            battery_temp_c=old.battery_temp_c,
            charged_energy_wh=old.charged_energy_wh,
            charged_rest_wh=old.charged_rest_wh,
            discharged_energy_wh=old.discharged_energy_wh,
            discharged_rest_wh=old.discharged_rest_wh,
        )

    def _take(self, commands: Sequence[Command]) -> None:
        state = self.state
        for name, value in commands:
            accepted = self.commands[name].accept(value)
            if accepted is None:
                continue
            if name != "fault_reset":
                kind = type(getattr(state, name))  # enumerations and counters are int, quantities float
                setattr(state, name, kind(accepted))
            elif accepted == 1.0 and state.battery_temp_c <= OVER_TEMPERATURE_C:
                state.fault_code = NO_FAULT

    def _store(self) -> tuple[float, float, float]:
        """Return stored energy (Wh), state of health and state of charge."""
        state = self.state
        efficiency = self._efficiency
        taken_wh = state.discharged_energy_wh / efficiency
        stored_wh = state.initial_energy_wh + state.charged_energy_wh * efficiency - taken_wh
        if stored_wh < 0.0:
            stored_wh = 0.0  # a step that was cut at empty may round below
        soh = battery.state_of_health(taken_wh / self._capacity_wh)
        soc = stored_wh / (self._capacity_wh * soh)
        return stored_wh, soh, soc if soc < 1.0 else 1.0

    def _limits_w(self, soc: float) -> tuple[float, float]:
        """Return the charge and discharge power (W, >= 0) that temperature, charge and faults allow."""
        state = self.state
        allowed = battery.temperature_factor(state.battery_temp_c) * self.impairment.power_ratio
        charge = battery.charge_factor(soc, state.upper_soc_limit_1, state.upper_soc_limit_2)
        discharge = battery.discharge_factor(soc, state.lower_soc_limit_1, state.lower_soc_limit_2)
        if soc <= EMPTY_SOC:
            discharge = 0.0
        return self._max_charge_w * allowed * charge, self._max_discharge_w * allowed * discharge

    def _power(self, grid: int, dt_s: float) -> float:
        """Return the AC power (W, + = discharge) of a step of dt_s (s): the setpoint within all limits."""
        state = self.state
        impairment = self.impairment
        if grid != CONNECTED or state.fault_code == OVER_TEMPERATURE or impairment.fault_code:
            return 0.0
        stored_wh, soh, soc = self._store()
        charge_w, discharge_w = self._limits_w(soc)
        target_w = state.active_power_setpoint_w if state.start_stop_standby == RUN else 0.0
        rate_w_per_s = min(self._ramp_w_per_s, impairment.rate_w_per_s)
        power_w = ramp(state.active_power_w, target_w, rate_w_per_s, dt_s)
        power_w = clamp(power_w, -charge_w, discharge_w)
        if dt_s == 0.0:
            return power_w
        # The store may reach its limit before the step ends: what still fits is spread over the step.
        capacity_wh = self._capacity_wh * soh
        if power_w > 0.0:
            left_wh = max(0.0, stored_wh - state.lower_soc_limit_2 * capacity_wh)
            return min(power_w, left_wh * self._efficiency * 3600.0 / dt_s)
        room_wh = max(0.0, state.upper_soc_limit_2 * capacity_wh - stored_wh)
        return max(power_w, -room_wh / self._efficiency * 3600.0 / dt_s) + 0.0  # -0.0 would show

    def _count(self, power_w: float, dt_s: float) -> None:
        """Count the energy of dt_s (s) at an AC power (W, + = discharge)."""
        state = self.state
        state.active_power_w = power_w
        energy_wh = power_w * dt_s / 3600.0
        if energy_wh > 0.0:
            state.discharged_energy_wh, state.discharged_rest_wh = count(
                state.discharged_energy_wh, state.discharged_rest_wh, energy_wh
            )
        elif energy_wh < 0.0:
            state.charged_energy_wh, state.charged_rest_wh = count(
                state.charged_energy_wh, state.charged_rest_wh, -energy_wh
            )

    def _fault(self, grid: int, soc: float) -> int:
        """Return the fault code at the end of a step."""
        state = self.state
        if self.impairment.fault_code:
            return self.impairment.fault_code
        if state.battery_temp_c > OVER_TEMPERATURE_C or state.fault_code == OVER_TEMPERATURE:
            return OVER_TEMPERATURE
        if grid != CONNECTED:
            return GRID_FAULT[grid]
        return EMPTY if soc <= EMPTY_SOC else NO_FAULT

    def _measure(
        self,
        conditions: Conditions,
        voltage_v: float,
        current_a: float,
        stored_wh: float,
        soh: float,
        soc: float,
    ) -> BessMeasurements:
        state = self.state
        efficiency = self._efficiency
        charged_wh = state.charged_energy_wh
        discharged_wh = state.discharged_energy_wh
        power_w = state.active_power_w
        fault_code = state.fault_code
        connected = fault_code in (NO_FAULT, EMPTY)
        charge_w, discharge_w = self._limits_w(soc) if connected else (0.0, 0.0)
        running = state.start_stop_standby == RUN
        reactive_var = 0.0
        if running and connected:
            reactive_var = reactive_within(state.reactive_power_setpoint_var, power_w, self._rating_va)
        # A stop ramps down: what still delivers is not stopped.
        status = FAULT if fault_code else RUNNING if running or power_w != 0.0 else STOPPED
        voltage_ll_v = conditions.voltage_ll_v
        return BessMeasurements(
            voltage_v,
            current_a,
            power_w,
            reactive_var,
            math.sqrt(power_w * power_w + reactive_var * reactive_var),
            soc,
            soh,
            state.battery_temp_c,
            charge_w,
            discharge_w,
            self._max_charge_w,
            self._max_discharge_w,
            charged_wh,
            discharged_wh,
            stored_wh,
            charged_wh * (1.0 - efficiency) + discharged_wh * (1.0 / efficiency - 1.0),
            discharged_wh / efficiency / self._capacity_wh,
            conditions.frequency_hz,
            voltage_ll_v,
            voltage_ll_v,
            voltage_ll_v,
            status,
            fault_code,
            state.local_remote_settings,
            state.power_control_mode,
            state.start_stop_standby,
            state.active_power_setpoint_w,
            state.reactive_power_setpoint_var,
            state.local_remote_settings,
            state.upper_soc_limit_1,
            state.upper_soc_limit_2,
            state.lower_soc_limit_1,
            state.lower_soc_limit_2,
            state.heartbeat,
            1 if state.watchdog.expired else 0,
        )


def _or(given: float | None, default: float) -> float:
    return default if given is None else given


def _command_ranges(
    max_charge_w: float, max_discharge_w: float, rating_va: float
) -> Mapping[str, CommandRange]:
    ratio = CommandRange(0.0, 1.0)
    switch = CommandRange(0.0, 1.0, frozenset((0.0, 1.0)))
    word = CommandRange(0.0, 65535.0)
    return {
        "start_stop_standby": CommandRange(1.0, 3.0, frozenset((1.0, 2.0, 3.0))),
        "active_power_setpoint_w": CommandRange(-max_charge_w, max_discharge_w),
        "reactive_power_setpoint_var": CommandRange(-rating_va, rating_va),
        # Older maps label 0, 1 or 2 as local; none of them changes anything here.
        "local_remote_settings": CommandRange(0.0, 2.0, frozenset((0.0, 1.0, 2.0))),
        "power_control_mode": word,
        "fault_reset": switch,
        "upper_soc_limit_1": ratio,
        "upper_soc_limit_2": ratio,
        "lower_soc_limit_1": ratio,
        "lower_soc_limit_2": ratio,
        "heartbeat": word,
    }


def _first_state(config: BessConfig) -> BessState:
    limits = config.soc_limits
    return BessState(
        initial_energy_wh=config.capacity_kwh * 1000.0 * (config.initial_soc / 100.0),
        battery_temp_c=_or(config.ambient_temp_c, NOMINAL.ambient_temp_c),
        upper_soc_limit_1=limits.upper_1 / 100.0,
        upper_soc_limit_2=limits.upper_2 / 100.0,
        lower_soc_limit_1=limits.lower_1 / 100.0,
        lower_soc_limit_2=limits.lower_2 / 100.0,
    )
