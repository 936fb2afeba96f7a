"""How measurements are called in Prometheus: base units, and one table for each device type.

Everything is SI already but for energies (Wh here, J there), hours, bar and the CHP's counters that
count modulo 10000. Measurements with the same metric and labels add up.
"""

from collections.abc import Mapping
from typing import Literal, NamedTuple

WH, BAR, HOUR_S = 3600.0, 1e5, 3600.0


class Help(NamedTuple):
    """What a metric is and how Prometheus treats it."""

    kind: Literal["gauge", "counter"]
    text: str


class Shown(NamedTuple):
    """Where a measurement goes: metric, factor to its unit, labels beside site, device and type."""

    metric: str
    factor: float = 1.0
    labels: tuple[tuple[str, str], ...] = ()


def _gauge(text: str) -> Help:
    return Help("gauge", text)


METRICS: Mapping[str, Help] = {
    "dertwin_active_power_watts": _gauge("Active power: + out of a unit; at a meter + is import."),
    "dertwin_reactive_power_vars": _gauge("Reactive power: + out of a unit; at a meter + is import."),
    "dertwin_apparent_power_voltamperes": _gauge("Apparent power."),
    "dertwin_power_factor_ratio": _gauge("Power factor, signed as the device shows it."),
    "dertwin_phase_active_power_watts": _gauge("Active power of one phase, + is import."),
    "dertwin_phase_reactive_power_vars": _gauge("Reactive power of one phase, + is import."),
    "dertwin_phase_apparent_power_voltamperes": _gauge("Apparent power of one phase."),
    "dertwin_dc_power_watts": _gauge("Power on the DC side."),
    "dertwin_dc_voltage_volts": _gauge("Voltage on the DC side."),
    "dertwin_dc_current_amperes": _gauge("Current on the DC side, + is discharge."),
    "dertwin_heat_power_watts": _gauge("Useful heat."),
    "dertwin_demand_power_watts": _gauge("15-minute sliding mean of the active power, + is import."),
    "dertwin_max_demand_power_watts": _gauge("Highest demand so far."),
    "dertwin_power_limit_watts": _gauge(
        "Power that a battery can take or give: now (available), or ever (max)."
    ),
    "dertwin_permitted_power_ratio": _gauge("Power that the unit permits now, of rated power."),
    "dertwin_frequency_hertz": _gauge("Frequency that the device measures."),
    "dertwin_voltage_volts": _gauge("AC voltage: ab, bc, ca line to line; a, b, c line to neutral."),
    "dertwin_current_amperes": _gauge("AC current of one phase."),
    "dertwin_energy_joules": Help("counter", "Energy since the start by where it flows."),
    "dertwin_phase_energy_joules": Help("counter", "Energy of one phase since the start by where it flows."),
    "dertwin_energy_today_joules": _gauge("Energy generated since midnight of the simulated day."),
    "dertwin_stored_energy_joules": _gauge("Energy in the cells."),
    "dertwin_loss_energy_joules": _gauge("Energy lost in converter and cells since the start."),
    "dertwin_state_of_charge_ratio": _gauge("State of charge, 0 to 1."),
    "dertwin_state_of_health_ratio": _gauge("Capacity left of the capacity when new, 0 to 1."),
    "dertwin_state_of_charge_limit_ratio": _gauge(
        "State of charge between which power falls to zero: upper_1 to upper_2, lower_1 to lower_2."
    ),
    "dertwin_battery_cycles": Help("counter", "Equivalent full cycles."),
    "dertwin_temperature_celsius": _gauge("Temperature inside a device by sensor."),
    "dertwin_pressure_pascals": _gauge("Pressure inside a device by sensor."),
    "dertwin_irradiance_watts_per_square_meter": _gauge("Irradiance that the inverter's sensor measures."),
    "dertwin_engine_speed_rpm": _gauge(
        "Engine speed in revolutions per minute, as fans and engines have it."
    ),
    "dertwin_throttle_position_ratio": _gauge("Throttle position, 0 to 1."),
    "dertwin_operating_seconds": Help("counter", "Time that the engine ran."),
    "dertwin_starts": Help("counter", "Starts of the engine."),
    "dertwin_operating_state": _gauge("State as the device's register map codes it."),
    "dertwin_fault_code": _gauge("Fault as the device's register map codes it; 0 is none."),
    "dertwin_alarm_active": _gauge("1 while an alarm is active."),
    "dertwin_flag": _gauge("1 while a part of the device is on."),
    "dertwin_mode": _gauge("Mode or switch that an EMS has set, as the register map codes it."),
    "dertwin_active_power_setpoint_watts": _gauge("Setpoint as the device took it, + is discharge."),
    "dertwin_reactive_power_setpoint_vars": _gauge("Setpoint as the device took it."),
    "dertwin_active_power_setpoint_ratio": _gauge("Setpoint as the device took it, of rated power."),
    "dertwin_reactive_power_setpoint_ratio": _gauge("Setpoint as the device took it, of rated power."),
    "dertwin_power_factor_setpoint_ratio": _gauge("Setpoint as the device took it."),
    "dertwin_active_power_ratio": _gauge("Active power of rated power."),
    "dertwin_regulator_setpoint": _gauge("The CHP's parameterizable regulator setpoint, no unit."),
    "dertwin_heartbeat": _gauge("Heartbeat word that the EMS wrote last."),
    "dertwin_transformer_ratio": _gauge("Transformer ratio that the meter was set to."),
    "dertwin_meter_interval_seconds": _gauge("Demand interval that the meter was set to."),
}


def _sensor(name: str) -> Shown:
    return Shown("dertwin_temperature_celsius", 1.0, (("sensor", name),))


def _energy(flow: str) -> Shown:
    return Shown("dertwin_energy_joules", WH, (("flow", flow),))


def _alarm(name: str) -> Shown:
    return Shown("dertwin_alarm_active", 1.0, (("alarm", name),))


def _mode(name: str) -> Shown:
    return Shown("dertwin_mode", 1.0, (("mode", name),))


def _flag(name: str) -> Shown:
    return Shown("dertwin_flag", 1.0, (("flag", name),))


def _limit(metric: str, name: str) -> Shown:
    return Shown(metric, 1.0, (("limit", name),))


def _phases(measurement: str, metric: str, phases: tuple[str, ...] = ("a", "b", "c")) -> dict[str, Shown]:
    """Return a row for each phase; `{}` in the measurement is where its name has the phase."""
    return {measurement.format(p): Shown(metric, 1.0, (("phase", p),)) for p in phases}


_COMMON = {
    "active_power_w": Shown("dertwin_active_power_watts"),
    "reactive_power_var": Shown("dertwin_reactive_power_vars"),
    "frequency_hz": Shown("dertwin_frequency_hertz"),
    "heartbeat": Shown("dertwin_heartbeat"),
    "watchdog_expired": _alarm("watchdog_expired"),
}
_GENERATOR = {**_COMMON, "fault_code": Shown("dertwin_fault_code")}
_LINE_TO_NEUTRAL = _phases("voltage_{}n_v", "dertwin_voltage_volts")

# Device type -> measurement -> where it goes.
TELEMETRY: Mapping[str, Mapping[str, Shown]] = {
    "bess": {
        **_GENERATOR,
        "voltage_dc_v": Shown("dertwin_dc_voltage_volts"),
        "current_dc_a": Shown("dertwin_dc_current_amperes"),
        "apparent_power_va": Shown("dertwin_apparent_power_voltamperes"),
        "soc": Shown("dertwin_state_of_charge_ratio"),
        "soh": Shown("dertwin_state_of_health_ratio"),
        "battery_temp_c": _sensor("battery"),
        **{
            f"{limit}_power_w": _limit("dertwin_power_limit_watts", limit)
            for limit in ("available_charge", "available_discharge", "max_charge", "max_discharge")
        },
        "charged_energy_wh": _energy("charge"),
        "discharged_energy_wh": _energy("discharge"),
        "stored_energy_wh": Shown("dertwin_stored_energy_joules", WH),
        "loss_energy_wh": Shown("dertwin_loss_energy_joules", WH),
        "cycles": Shown("dertwin_battery_cycles"),
        **_phases("voltage_{}_v", "dertwin_voltage_volts", ("ab", "bc", "ca")),
        "working_status": Shown("dertwin_operating_state"),
        "local_remote_mode": _mode("local_remote"),
        "local_remote_settings": _mode("local_remote_settings"),
        "power_control_mode": _mode("power_control"),
        "start_stop_standby": _mode("start_stop_standby"),
        "active_power_setpoint_w": Shown("dertwin_active_power_setpoint_watts"),
        "reactive_power_setpoint_var": Shown("dertwin_reactive_power_setpoint_vars"),
        **{
            f"{end}_soc_limit_{n}": _limit("dertwin_state_of_charge_limit_ratio", f"{end}_{n}")
            for end in ("upper", "lower")
            for n in (1, 2)
        },
    },
    "inverter": {
        **_GENERATOR,
        **_LINE_TO_NEUTRAL,
        "inverter_status": Shown("dertwin_operating_state"),
        "dc_power_w": Shown("dertwin_dc_power_watts"),
        "apparent_power_va": Shown("dertwin_apparent_power_voltamperes"),
        "today_energy_wh": Shown("dertwin_energy_today_joules", WH),
        "lifetime_energy_wh": _energy("generation"),
        "inverter_temp_c": _sensor("inverter"),
        "cell_temp_c": _sensor("cell"),
        "irradiance_w_m2": Shown("dertwin_irradiance_watts_per_square_meter"),
        "power_factor": Shown("dertwin_power_factor_ratio"),
        "remote_on_off": _mode("remote_on_off"),
        "active_power_limit": Shown("dertwin_active_power_setpoint_ratio"),
        "reactive_power_ratio": Shown("dertwin_reactive_power_setpoint_ratio"),
        "power_factor_setpoint": Shown("dertwin_power_factor_setpoint_ratio"),
    },
    "chp": {
        **_GENERATOR,
        "unit_state": Shown("dertwin_operating_state"),
        "active_power_ratio": Shown("dertwin_active_power_ratio"),
        "permitted_power_ratio": Shown("dertwin_permitted_power_ratio"),
        "heat_power_w": Shown("dertwin_heat_power_watts"),
        "engine_speed_rpm": Shown("dertwin_engine_speed_rpm"),
        "throttle_position": Shown("dertwin_throttle_position_ratio"),
        "coolant_outlet_temp_c": _sensor("coolant_outlet"),
        "coolant_inlet_temp_c": _sensor("coolant_inlet"),
        "exhaust_temp_after_catalyst_c": _sensor("exhaust_after_catalyst"),
        "oil_temp_c": _sensor("oil"),
        "intake_air_temp_c": _sensor("intake_air"),
        "oil_pressure_bar": Shown("dertwin_pressure_pascals", BAR, (("sensor", "oil"),)),
        "charge_pressure_bar": Shown("dertwin_pressure_pascals", BAR, (("sensor", "charge"),)),
        "operating_hours": Shown("dertwin_operating_seconds", HOUR_S),
        "operating_hours_10000": Shown("dertwin_operating_seconds", 10_000 * HOUR_S),
        "start_counter": Shown("dertwin_starts"),
        "start_counter_10000": Shown("dertwin_starts", 10_000),
        "energy_wh": _energy("generation"),
        **{
            name: _alarm(name)
            for name in ("collective_fault", "collective_warning", "e_stop_request", "power_supply_failure")
        },
        **{
            name: _flag(name)
            for name in (
                "engine_running",
                "circuit_breaker_closed",
                "auto_mode",
                "ignition_on",
                "starter_on",
                "prelube_pump_on",
                "preheat_on",
            )
        },
        "start_stop": _mode("start_stop"),
        "remote_acknowledgment": _mode("remote_acknowledgment"),
        "power_setpoint_ratio": Shown("dertwin_active_power_setpoint_ratio"),
        "parameterizable_regulator_setpoint": Shown("dertwin_regulator_setpoint"),
    },
    "energy_meter": {
        **_COMMON,
        **_LINE_TO_NEUTRAL,
        "apparent_power_va": Shown("dertwin_apparent_power_voltamperes"),
        "power_factor": Shown("dertwin_power_factor_ratio"),
        **_phases("current_{}_a", "dertwin_current_amperes"),
        **_phases("active_power_{}_w", "dertwin_phase_active_power_watts"),
        **_phases("reactive_power_{}_var", "dertwin_phase_reactive_power_vars"),
        **_phases("apparent_power_{}_va", "dertwin_phase_apparent_power_voltamperes"),
        "import_energy_wh": _energy("import"),
        "export_energy_wh": _energy("export"),
        **{
            f"{flow}_energy_{phase}_wh": Shown(
                "dertwin_phase_energy_joules", WH, (("flow", flow), ("phase", phase))
            )
            for flow in ("import", "export")
            for phase in "abc"
        },
        "demand_power_w": Shown("dertwin_demand_power_watts"),
        "max_demand_power_w": Shown("dertwin_max_demand_power_watts"),
        "current_transformer_ratio": Shown("dertwin_transformer_ratio", 1.0, (("transformer", "current"),)),
        "voltage_transformer_ratio": Shown("dertwin_transformer_ratio", 1.0, (("transformer", "voltage"),)),
        "interval_time_s": Shown("dertwin_meter_interval_seconds"),
    },
}
