"""Combined heat and power unit: a gas engine with generator, started and stopped in steps."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import ClassVar, Literal, NamedTuple, Self

from pydantic import Field, model_validator

from dertwin.devices.asset import GeneratorConfig
from dertwin.devices.device import NOMINAL, UNIMPAIRED, Command, CommandRange, Conditions
from dertwin.devices.watchdog import Watchdog, WatchdogState
from dertwin.physics import chp as engine
from dertwin.physics.grid import CONNECTED, TripState, protect
from dertwin.stepping import TOLERANCE, count, lag, ramp

FAULT, READY, STARTING, IDLE, SYNCHRONIZING, RUNNING, STOPPING, START_BLOCKED, WARM_UP = *range(8), 18

ACKNOWLEDGE = 4321.0
EMERGENCY_STOP = 3  # fault codes: 1 voltage and 2 frequency outside limits, 3 emergency stop
FOREVER = math.inf


class Phase(NamedTuple):
    """One unit state: how long it lasts (s), what follows, and what is on (1) in it."""

    lasts_s: float
    then: int
    engine_running: int
    ignition: int
    starter: int
    prelube: int
    preheat: int


PHASES: Mapping[int, Phase] = {
    #                    lasts_s  then           run ign sta lub heat
    FAULT: Phase(FOREVER, FAULT, 0, 0, 0, 0, 0),
    READY: Phase(FOREVER, READY, 0, 0, 0, 0, 1),
    START_BLOCKED: Phase(FOREVER, START_BLOCKED, 0, 0, 0, 0, 1),
    STARTING: Phase(10.0, WARM_UP, 0, 1, 1, 1, 0),
    WARM_UP: Phase(60.0, IDLE, 1, 1, 0, 0, 0),
    IDLE: Phase(30.0, SYNCHRONIZING, 1, 1, 0, 0, 0),
    SYNCHRONIZING: Phase(15.0, RUNNING, 1, 1, 0, 0, 0),
    RUNNING: Phase(FOREVER, RUNNING, 1, 1, 0, 0, 0),
    STOPPING: Phase(20.0, READY, 1, 1, 0, 0, 0),
}
AT_REST = (FAULT, READY, START_BLOCKED)


class ChpConfig(GeneratorConfig):
    """A gas engine CHP: rating (kW), useful heat per unit of electricity, load limits (% of rated)."""

    default_map: ClassVar[str] = "chp_modbus.yaml"

    type: Literal["chp"]
    rated_kw: float = Field(default=4000.0, gt=0)
    heat_to_power_ratio: float = Field(default=1.0, ge=0)
    min_load_percent: float = Field(default=30.0, ge=0, le=100)
    max_load_percent: float = Field(default=110.0, gt=0, le=150)

    @model_validator(mode="after")
    def _load_limits_are_in_order(self) -> Self:
        low, high = self.min_load_percent, self.max_load_percent
        if low > high:
            raise ValueError(f"min_load_percent {low:g} is above max_load_percent {high:g}")
        return self

    def build(self) -> "Chp":
        """Build the unit, at rest and ready to start."""
        return Chp(self)


@dataclass(slots=True)
class ChpState:
    """What moves in the unit: its phase and the time in it (s), power (W), temperatures (degC), counters.

    `fault_code` stays until it is acknowledged; `e_stop_request` is the emergency stop button.
    """

    unit_state: int = READY
    in_state_s: float = 0.0
    power_w: float = 0.0
    heat_w: float = 0.0
    circuit_breaker_closed: int = 0
    fault_code: int = 0
    e_stop_request: int = 0
    coolant_c: float = engine.PREHEATED_COOLANT_C
    oil_c: float = NOMINAL.ambient_temp_c
    exhaust_c: float = NOMINAL.ambient_temp_c
    energy_wh: float = 0.0
    energy_rest_wh: float = 0.0
    running_s: float = 0.0
    starts: int = 0
    start_stop: float = 0.0
    power_setpoint_ratio: float = 0.0
    remote_acknowledgment: float = 0.0
    parameterizable_regulator_setpoint: float = 0.0
    heartbeat: float = 0.0
    trip: TripState = field(default_factory=TripState)
    watchdog: WatchdogState = field(default_factory=WatchdogState)


class ChpMeasurements(NamedTuple):
    """SI values; power positive = generation, the mean of the step; bits are 0 or 1.

    `operating_hours` and `start_counter` count modulo 10000, their `_10000` the ten thousands.
    """

    unit_state: int
    active_power_ratio: float
    active_power_w: float
    reactive_power_var: float
    permitted_power_ratio: float
    heat_power_w: float
    engine_speed_rpm: float
    throttle_position: float
    coolant_outlet_temp_c: float
    coolant_inlet_temp_c: float
    exhaust_temp_after_catalyst_c: float
    oil_temp_c: float
    intake_air_temp_c: float
    oil_pressure_bar: float
    charge_pressure_bar: float
    operating_hours: float
    operating_hours_10000: float
    start_counter: int
    start_counter_10000: int
    energy_wh: float
    frequency_hz: float
    engine_running: int
    circuit_breaker_closed: int
    collective_fault: int
    collective_warning: int
    auto_mode: int
    e_stop_request: int
    power_supply_failure: int
    ignition_on: int
    starter_on: int
    prelube_pump_on: int
    preheat_on: int
    start_stop: int
    power_setpoint_ratio: float
    remote_acknowledgment: int
    parameterizable_regulator_setpoint: float
    fault_code: int
    heartbeat: int
    watchdog_expired: int


class Chp:
    """A gas engine CHP that runs at power factor 1.

    A start request stands: it is carried out as soon as nothing blocks it. While the breaker is
    closed, leaving the grid's limits or an emergency stop is a fault: the breaker opens, the engine
    stops, the start request is dropped. The fault stays until 4321 is written to
    remote_acknowledgment with its cause gone; a start requested before that is blocked. Once
    running the power follows its setpoint, but never below the minimum load.
    """

    def __init__(self, config: ChpConfig) -> None:
        self.config = config
        self.rated_w = config.rated_kw * 1000.0
        self._rated_heat_w = self.rated_w * config.heat_to_power_ratio
        self.min_load = config.min_load_percent / 100.0
        self.max_load = config.max_load_percent / 100.0
        self.commands: Mapping[str, CommandRange] = {
            "start_stop": CommandRange(0.0, 1.0, frozenset((0.0, 1.0))),
            "power_setpoint_ratio": CommandRange(0.0, self.max_load),
            "remote_acknowledgment": CommandRange(0.0, 65535.0),
            "parameterizable_regulator_setpoint": CommandRange(-1e12, 1e12),
            "heartbeat": CommandRange(0.0, 65535.0),
        }
        self.state = ChpState()
        self.impairment = UNIMPAIRED
        self._limits = config.grid_protection.limits()
        self._nominal_v = config.grid_protection.nominal_voltage_ll_v
        stop = (Command("start_stop", 0.0),)
        self._watchdog = (
            Watchdog(config.watchdog, config.type, self.commands, stop) if config.watchdog else None
        )
        self.measurements = self.step(NOMINAL, (), 0, 0.0)

    def step(
        self, conditions: Conditions, commands: Sequence[Command], requests: int, dt_s: float
    ) -> ChpMeasurements:
        """Advance by dt_s (s) and return the new measurements."""
        state = self.state
        voltage_pu = conditions.voltage_ll_v / (self._nominal_v or conditions.nominal_voltage_ll_v)
        grid = protect(self._limits, state.trip, voltage_pu, conditions.frequency_hz, dt_s)
        if self._watchdog is not None:
            commands = self._watchdog.step(state.watchdog, commands, requests, dt_s)
        if commands:
            self._take(commands, grid)
        energy_j = self._run(grid, dt_s)
        power_w = energy_j / dt_s if dt_s > 0.0 else state.power_w
        state.energy_wh, state.energy_rest_wh = count(
            state.energy_wh, state.energy_rest_wh, energy_j / 3600.0
        )
        self._warm(power_w, conditions.ambient_temp_c, dt_s)
        self.measurements = self._measure(conditions, power_w, grid)
        return self.measurements

    def reboot(self) -> None:
        """Go on as after a power cycle: at rest, the breaker open."""
        old = self.state
        self.state = ChpState(
            e_stop_request=old.e_stop_request,
            heat_w=old.heat_w,
            coolant_c=old.coolant_c,
            oil_c=old.oil_c,
            exhaust_c=old.exhaust_c,
            energy_wh=old.energy_wh,
            energy_rest_wh=old.energy_rest_wh,
            running_s=old.running_s,
            starts=old.starts,
        )

    def _take(self, commands: Sequence[Command], grid: int) -> None:
        state = self.state
        for name, value in commands:
            accepted = self.commands[name].accept(value)
            if accepted is None:
                continue
            setattr(state, name, accepted)
            acknowledged = name == "remote_acknowledgment" and value == ACKNOWLEDGE
            gone = grid == CONNECTED and not state.e_stop_request and not self.impairment.fault_code
            if acknowledged and gone:
                state.fault_code = 0

    def _run(self, grid: int, dt_s: float) -> float:
        """Pass through as many phases as dt_s (s) covers and return the electrical energy (J)."""
        state = self.state
        energy_j = 0.0
        while True:
            self._react(grid)
            phase = PHASES[state.unit_state]
            held = state.unit_state == SYNCHRONIZING and grid != CONNECTED
            span_s = dt_s if held else min(dt_s, phase.lasts_s - state.in_state_s)
            energy_j += self._produce(span_s)
            if phase.engine_running:
                state.running_s += span_s
            if not held:
                state.in_state_s += span_s
            dt_s -= span_s
            if state.in_state_s < phase.lasts_s - TOLERANCE:
                return energy_j
            self._enter(phase.then)

    def _react(self, grid: int) -> None:
        """Take the transition that requests and faults ask for, if any."""
        state = self.state
        tripped = grid if state.circuit_breaker_closed else CONNECTED
        cause = EMERGENCY_STOP if state.e_stop_request else tripped or self.impairment.fault_code
        if cause and not state.fault_code:
            state.fault_code = cause
            state.start_stop = 0.0
            state.power_w = 0.0
            self._enter(FAULT)
        wanted = state.start_stop == 1.0
        if state.unit_state in AT_REST:
            if state.fault_code:
                due = START_BLOCKED if wanted else FAULT
            elif wanted:
                due = STARTING if grid == CONNECTED else START_BLOCKED
            else:
                due = READY
            if due != state.unit_state:
                self._enter(due)
        elif not wanted and state.unit_state != STOPPING:
            self._enter(READY if state.unit_state == STARTING else STOPPING)

    def _enter(self, unit_state: int) -> None:
        state = self.state
        state.unit_state = unit_state
        state.in_state_s = 0.0
        if unit_state == WARM_UP:
            state.starts += 1
        elif unit_state == RUNNING:
            state.circuit_breaker_closed = 1
        elif unit_state in AT_REST:
            state.circuit_breaker_closed = 0

    def _produce(self, dt_s: float) -> float:
        """Move the power for dt_s (s) within one phase and return the energy (J)."""
        state = self.state
        start_w = state.power_w
        if state.unit_state == RUNNING:
            load = max(state.power_setpoint_ratio, self.min_load)
            target_w = min(load, self.impairment.power_ratio * self.max_load) * self.rated_w
            rate_w_per_s = min(engine.LOADING_PER_S * self.rated_w, self.impairment.rate_w_per_s)
        elif state.circuit_breaker_closed:
            target_w = 0.0
            rate_w_per_s = engine.UNLOADING_PER_S * self.rated_w
        else:
            return 0.0
        end_w = ramp(start_w, target_w, rate_w_per_s, dt_s)
        state.power_w = end_w
        if end_w == 0.0 and state.unit_state == STOPPING:
            state.circuit_breaker_closed = 0
        return engine.ramp_energy_j(start_w, end_w, target_w, rate_w_per_s, dt_s)

    def _warm(self, power_w: float, ambient_c: float, dt_s: float) -> None:
        state = self.state
        state.heat_w = lag(state.heat_w, power_w * self.config.heat_to_power_ratio, engine.HEAT_TAU_S, dt_s)
        phase = PHASES[state.unit_state]
        if phase.engine_running:
            exhaust_c = engine.exhaust_temp_c(power_w / self.rated_w)
            state.coolant_c = lag(state.coolant_c, engine.COOLANT_OUTLET_C, engine.COOLANT_TAU_S, dt_s)
            state.oil_c = lag(state.oil_c, engine.OIL_C, engine.OIL_TAU_S, dt_s)
            state.exhaust_c = lag(state.exhaust_c, exhaust_c, engine.EXHAUST_TAU_S, dt_s)
        else:
            rest_c = max(engine.PREHEATED_COOLANT_C, ambient_c) if phase.preheat else ambient_c
            state.coolant_c = lag(state.coolant_c, rest_c, engine.COOLING_TAU_S, dt_s)
            state.oil_c = lag(state.oil_c, ambient_c, engine.COOLING_TAU_S, dt_s)
            state.exhaust_c = lag(state.exhaust_c, ambient_c, engine.EXHAUST_COOLING_TAU_S, dt_s)

    def _speed_rpm(self, frequency_hz: float) -> float:
        state = self.state
        if state.circuit_breaker_closed:
            return engine.RPM_PER_HZ * frequency_hz
        if state.unit_state == STARTING:
            return engine.NOMINAL_SPEED_RPM * state.in_state_s / PHASES[STARTING].lasts_s
        if state.unit_state == STOPPING:
            left = 1.0 - state.in_state_s / PHASES[STOPPING].lasts_s
            return engine.NOMINAL_SPEED_RPM * min(1.0, 2.0 * left)
        return engine.NOMINAL_SPEED_RPM if PHASES[state.unit_state].engine_running else 0.0

    def _measure(self, conditions: Conditions, power_w: float, grid: int) -> ChpMeasurements:
        state = self.state
        phase = PHASES[state.unit_state]
        load = power_w / self.rated_w
        speed_rpm = self._speed_rpm(conditions.frequency_hz)
        oil_bar = engine.OIL_PRESSURE_BAR * speed_rpm / engine.NOMINAL_SPEED_RPM
        if phase.prelube and oil_bar < engine.PRELUBE_PRESSURE_BAR:
            oil_bar = engine.PRELUBE_PRESSURE_BAR
        hours = state.running_s / 3600.0
        spread_k = engine.COOLANT_SPREAD_K * state.heat_w / self._rated_heat_w if state.heat_w else 0.0
        fault = 1 if state.fault_code else 0
        expired = 1 if state.watchdog.expired else 0
        return ChpMeasurements(
            state.unit_state,
            load,
            power_w,
            0.0,
            0.0 if fault else self.max_load * self.impairment.power_ratio,
            state.heat_w,
            speed_rpm,
            engine.throttle_position(load) if phase.engine_running else 0.0,
            state.coolant_c,
            state.coolant_c - spread_k,
            state.exhaust_c,
            state.oil_c,
            conditions.ambient_temp_c,
            oil_bar,
            engine.charge_pressure_bar(load),
            hours % 10000.0,
            hours // 10000.0,
            state.starts % 10000,
            state.starts // 10000,
            state.energy_wh,
            conditions.frequency_hz,
            phase.engine_running,
            state.circuit_breaker_closed,
            fault,
            expired,
            1,
            state.e_stop_request,
            1 if grid != CONNECTED else 0,
            phase.ignition,
            phase.starter,
            phase.prelube,
            phase.preheat,
            int(state.start_stop),
            state.power_setpoint_ratio,
            int(state.remote_acknowledgment),
            state.parameterizable_regulator_setpoint,
            state.fault_code,
            int(state.heartbeat),
            expired,
        )
