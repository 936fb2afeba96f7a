"""Energy meter at the point of common coupling: what it measures and counts."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import ClassVar, Literal, NamedTuple

from dertwin.devices.asset import AssetConfig
from dertwin.devices.device import NOMINAL, UNIMPAIRED, Command, CommandRange, Conditions, PccFlow
from dertwin.devices.watchdog import Watchdog, WatchdogState
from dertwin.physics.sliding import SlidingMean
from dertwin.stepping import count

# Demand is the mean of the last 15 minutes, as utilities bill it; one-second buckets follow a step
# of the load to 0.1 % of its size.
DEMAND_BUCKET_S = 1.0
DEMAND_BUCKETS = 900

NO_FLOW = PccFlow(0.0, 0.0)

COMMANDS: Mapping[str, CommandRange] = {
    "current_transformer_ratio": CommandRange(1.0, 65535.0),
    "voltage_transformer_ratio": CommandRange(1.0, 65535.0),
    "interval_time_s": CommandRange(1.0, 86400.0),
    "heartbeat": CommandRange(0.0, 65535.0),
}


class EnergyMeterConfig(AssetConfig):
    """An energy meter has no ratings."""

    default_map: ClassVar[str] = "energy_meter_modbus.yaml"

    type: Literal["energy_meter"]

    def build(self) -> "EnergyMeter":
        """Build the meter."""
        return EnergyMeter(self)


def _no_demand_yet() -> SlidingMean:
    return SlidingMean.of(0.0, DEMAND_BUCKET_S, DEMAND_BUCKETS)


@dataclass(slots=True)
class EnergyMeterState:
    """What the meter counts and remembers: energies (Wh), demand (W), settings."""

    import_energy_wh: float = 0.0
    import_rest_wh: float = 0.0
    export_energy_wh: float = 0.0
    export_rest_wh: float = 0.0
    max_demand_power_w: float = 0.0
    current_transformer_ratio: float = 1.0
    voltage_transformer_ratio: float = 1.0
    interval_time_s: float = 900.0
    heartbeat: float = 0.0
    demand: SlidingMean = field(default_factory=_no_demand_yet)
    watchdog: WatchdogState = field(default_factory=WatchdogState)


class EnergyMeterMeasurements(NamedTuple):
    """SI values; power positive = import, per phase a third of the total, voltages line-to-neutral.

    The power factor has the sign of the active power. Demand is the 15-minute sliding mean of the
    active power (export counts negative, time before the start as zero); its maximum is the highest
    import.
    """

    active_power_w: float
    reactive_power_var: float
    apparent_power_va: float
    power_factor: float
    frequency_hz: float
    voltage_an_v: float
    voltage_bn_v: float
    voltage_cn_v: float
    current_a_a: float
    current_b_a: float
    current_c_a: float
    active_power_a_w: float
    active_power_b_w: float
    active_power_c_w: float
    reactive_power_a_var: float
    reactive_power_b_var: float
    reactive_power_c_var: float
    apparent_power_a_va: float
    apparent_power_b_va: float
    apparent_power_c_va: float
    import_energy_wh: float
    export_energy_wh: float
    import_energy_a_wh: float
    import_energy_b_wh: float
    import_energy_c_wh: float
    export_energy_a_wh: float
    export_energy_b_wh: float
    export_energy_c_wh: float
    demand_power_w: float
    max_demand_power_w: float
    current_transformer_ratio: float
    voltage_transformer_ratio: float
    interval_time_s: float
    heartbeat: int
    watchdog_expired: int


class EnergyMeter:
    """A meter of the flow at the point of common coupling.

    Transformer ratios and interval are stored and read back only: it serves primary values. It has
    nothing to fall back to, so an expired watchdog shows in `watchdog_expired` and nowhere else.
    """

    def __init__(self, config: EnergyMeterConfig) -> None:
        self.config = config
        self.commands = COMMANDS
        self.state = EnergyMeterState()
        self.impairment = UNIMPAIRED
        self._watchdog = Watchdog(config.watchdog, config.type, COMMANDS, ()) if config.watchdog else None
        self.measurements = self.step(NOMINAL, (), 0, 0.0)

    def step(
        self,
        conditions: Conditions,
        commands: Sequence[Command],
        requests: int,
        dt_s: float,
        pcc: PccFlow = NO_FLOW,
    ) -> EnergyMeterMeasurements:
        """Count the flow at the point of common coupling for dt_s (s) and return the new measurements."""
        state = self.state
        if self._watchdog is not None:
            commands = self._watchdog.step(state.watchdog, commands, requests, dt_s)
        for name, value in commands:
            accepted = COMMANDS[name].accept(value)
            if accepted is not None:
                setattr(state, name, accepted)

        power_w, reactive_var = pcc
        energy_wh = power_w * dt_s / 3600.0
        if energy_wh > 0.0:
            state.import_energy_wh, state.import_rest_wh = count(
                state.import_energy_wh, state.import_rest_wh, energy_wh
            )
        elif energy_wh < 0.0:
            state.export_energy_wh, state.export_rest_wh = count(
                state.export_energy_wh, state.export_rest_wh, -energy_wh
            )
        demand_w = state.demand.push(power_w, dt_s)
        if demand_w > state.max_demand_power_w:
            state.max_demand_power_w = demand_w
        self.measurements = self._measure(conditions, power_w, reactive_var, demand_w)
        return self.measurements

    def reboot(self) -> None:
        """Go on as after a power cycle: ratios and interval are the defaults, counters stay."""
        old = self.state
        self.state = EnergyMeterState(
            import_energy_wh=old.import_energy_wh,
            import_rest_wh=old.import_rest_wh,
            export_energy_wh=old.export_energy_wh,
            export_rest_wh=old.export_rest_wh,
            max_demand_power_w=old.max_demand_power_w,
            demand=old.demand,
        )

    def _measure(
        self, conditions: Conditions, power_w: float, reactive_var: float, demand_w: float
    ) -> EnergyMeterMeasurements:
        state = self.state
        apparent_va = math.sqrt(power_w * power_w + reactive_var * reactive_var)
        power_factor = power_w / apparent_va if apparent_va > 0.0 else 1.0
        phase_v = conditions.voltage_ln_v
        phase_w = power_w / 3.0
        phase_var = reactive_var / 3.0
        phase_va = apparent_va / 3.0
        phase_a = phase_va / phase_v
        import_wh = state.import_energy_wh
        export_wh = state.export_energy_wh
        phase_import_wh = import_wh / 3.0
        phase_export_wh = export_wh / 3.0
        return EnergyMeterMeasurements(
            power_w,
            reactive_var,
            apparent_va,
            power_factor,
            conditions.frequency_hz,
            phase_v,
            phase_v,
            phase_v,
            phase_a,
            phase_a,
            phase_a,
            phase_w,
            phase_w,
            phase_w,
            phase_var,
            phase_var,
            phase_var,
            phase_va,
            phase_va,
            phase_va,
            import_wh,
            export_wh,
            phase_import_wh,
            phase_import_wh,
            phase_import_wh,
            phase_export_wh,
            phase_export_wh,
            phase_export_wh,
            demand_w,
            state.max_demand_power_w,
            state.current_transformer_ratio,
            state.voltage_transformer_ratio,
            state.interval_time_s,
            int(state.heartbeat),
            int(state.watchdog.expired),
        )
