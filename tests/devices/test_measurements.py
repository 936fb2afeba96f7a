"""Every measurement of every device stands under its own name: they are filled by position.

Each device is brought into situations in which no two measurements behave alike, except those that are
alike by nature; then every one is compared by name.
"""

import math
from collections.abc import Mapping
from itertools import combinations
from typing import Any

import pytest

from dertwin.config import parse_asset
from dertwin.devices.chp import PHASES
from dertwin.devices.device import Command, Conditions, PccFlow

AROUND = Conditions(40_000.0, 731.0, 17.0, 50.03, 403.0, 0.0)
PHASE_V = 403.0 / math.sqrt(3.0)
Values = Mapping[str, float]


def stepped(device: Any, commands: Mapping[str, float], dt_s: float, *pcc: PccFlow) -> dict[str, float]:
    batch = [Command(name, value) for name, value in commands.items()]
    measured: dict[str, float] = device.step(AROUND, batch, 0, dt_s, *pcc)._asdict()
    return measured


def assert_all_are_where_they_belong(situations: list[tuple[Values, Values]], alike: list[set[str]]) -> None:
    """Compare (measured, expected) pairs, and make sure that a swap of any two would have shown."""
    for measured, expected in situations:
        assert measured == pytest.approx(expected, rel=1e-9)
    for one, other in combinations(situations[0][1], 2):
        if any({one, other} <= names for names in alike):
            continue
        same = [expected[one] == pytest.approx(expected[other], rel=1e-6) for _, expected in situations]
        assert not all(same), f"{one} and {other} cannot be told apart"


def test_each_measurement_of_a_battery_is_under_its_name() -> None:
    config = {"type": "bess", "max_charge_kw": 30.0, "max_discharge_kw": 40.0, "internal_resistance": 0.02}
    battery: Any = parse_asset({**config, "watchdog": {"timeout_s": 900, "fallback": {}}}).build()
    taken = {
        "start_stop_standby": 1,
        "active_power_setpoint_w": 21_000.0,
        "reactive_power_setpoint_var": -9_000.0,
        "local_remote_settings": 2,
        "power_control_mode": 77,
        "upper_soc_limit_1": 0.83,
        "upper_soc_limit_2": 0.97,
        "lower_soc_limit_1": 0.31,
        "lower_soc_limit_2": 0.11,
        "heartbeat": 4711,
    }
    stepped(battery, {"start_stop_standby": 1.0, "active_power_setpoint_w": -8_000.0}, 600.0)
    stepped(battery, taken, 0.0)
    measured = stepped(battery, {}, 1800.0)
    eta = math.sqrt(0.92)
    charged, discharged = 8_000.0 / 6.0, 21_000.0 / 2.0
    stored = 50_000.0 + charged * eta - discharged / eta
    soh = 1.0 - 0.2 * (discharged / eta / 100_000.0) / 2000.0
    open_v = 240 * (3.293 + 0.005 * (stored / (100_000.0 * soh) - 0.3) / 0.2)
    current = 21_000.0 / eta / open_v
    expected = {
        **taken,
        "voltage_dc_v": open_v - 0.02 * current,
        "current_dc_a": current,
        "active_power_w": 21_000.0,
        "reactive_power_var": -9_000.0,
        "apparent_power_va": math.hypot(21_000.0, 9_000.0),
        "soc": stored / (100_000.0 * soh),
        "soh": soh,
        "battery_temp_c": battery.state.battery_temp_c,
        "available_charge_power_w": 30_000.0,
        "available_discharge_power_w": 40_000.0,
        "max_charge_power_w": 30_000.0,
        "max_discharge_power_w": 40_000.0,
        "charged_energy_wh": charged,
        "discharged_energy_wh": discharged,
        "stored_energy_wh": stored,
        "loss_energy_wh": charged * (1.0 - eta) + discharged * (1.0 / eta - 1.0),
        "cycles": discharged / eta / 100_000.0,
        "frequency_hz": 50.03,
        "voltage_ab_v": 403.0,
        "voltage_bc_v": 403.0,
        "voltage_ca_v": 403.0,
        "working_status": 1,
        "fault_code": 0,
        "local_remote_mode": 2,
        "watchdog_expired": 1,
    }
    battery.state.battery_temp_c = 45.0  # derates what is available, not what is rated
    resting = stepped(battery, {"start_stop_standby": 3.0, "local_remote_settings": 1.0}, 1.0)
    rested = {
        **expected,
        "voltage_dc_v": open_v,
        "current_dc_a": 0.0,
        "active_power_w": 0.0,
        "reactive_power_var": 0.0,
        "apparent_power_va": 0.0,
        "available_charge_power_w": 24_000.0,
        "available_discharge_power_w": 32_000.0,
        "battery_temp_c": battery.state.battery_temp_c,
        "start_stop_standby": 3,
        "working_status": 0,
        "local_remote_mode": 1,
        "local_remote_settings": 1,
        "watchdog_expired": 0,
    }
    # A setpoint differs from its power only where a limit is between them.
    narrow = {"upper_soc_limit_1": 0.21, "upper_soc_limit_2": 0.23}
    demands = {"active_power_setpoint_w": -40_000.0, "reactive_power_setpoint_var": -40_000.0}
    charging = stepped(battery, {"start_stop_standby": 1.0, **demands, **narrow}, 0.0)
    limited = {
        **rested,
        **narrow,
        "start_stop_standby": 1,
        "working_status": 1,
        "active_power_setpoint_w": -30_000.0,
        "reactive_power_setpoint_var": -40_000.0,
        "reactive_power_var": -40_000.0,
        "apparent_power_va": 40_000.0,
        "available_charge_power_w": 0.0,
    }
    phases = {"voltage_ab_v", "voltage_bc_v", "voltage_ca_v"}
    assert_all_are_where_they_belong(
        [(measured, expected), (resting, rested), (charging, limited)],
        [phases, {"local_remote_mode", "local_remote_settings"}],
    )


def test_each_measurement_of_an_inverter_is_under_its_name() -> None:
    unit: Any = parse_asset({"type": "inverter", "watchdog": {"timeout_s": 900, "fallback": {}}}).build()
    stepped(unit, {"active_power_limit": 0.5}, 1800.0)
    before_wh = unit.state.lifetime_energy_wh
    taken = {
        "remote_on_off": 1,
        "active_power_limit": 0.6,
        "reactive_power_ratio": -0.3,
        "power_factor_setpoint": 0.77,
        "heartbeat": 4711,
    }
    order = [
        "remote_on_off",
        "active_power_limit",
        "power_factor_setpoint",
        "reactive_power_ratio",
        "heartbeat",
    ]
    stepped(unit, {name: taken[name] for name in order}, 0.0)
    unit.state.day = -1  # midnight was 40 000 s before the end of the next step
    measured = stepped(unit, {}, 50_000.0)
    apparent = math.hypot(6000.0, 3000.0)
    full_dc_w = 10_000.0 / 0.96
    expected = {
        **taken,
        "inverter_status": 1,
        "dc_power_w": measured["dc_power_w"],
        "active_power_w": 6000.0,
        "reactive_power_var": -3000.0,
        "apparent_power_va": apparent,
        "today_energy_wh": 6000.0 * 40_000.0 / 3600.0,
        "lifetime_energy_wh": before_wh + 6000.0 * 50_000.0 / 3600.0,
        "frequency_hz": 50.03,
        "voltage_an_v": PHASE_V,
        "voltage_bn_v": PHASE_V,
        "voltage_cn_v": PHASE_V,
        "inverter_temp_c": unit.state.inverter_temp_c,
        "cell_temp_c": 17.0 + 731.0 / 31.84,
        "irradiance_w_m2": 731.0,
        "power_factor": -6000.0 / apparent,
        "fault_code": 0,
        "watchdog_expired": 1,
    }
    # eq. 11 of the PVWatts manual gives the AC power of this DC power.
    share = measured["dc_power_w"] / full_dc_w
    efficiency = 0.96 / 0.9637 * (0.9858 - 0.0162 * share - 0.0059 / share)
    assert measured["dc_power_w"] * efficiency == pytest.approx(6000.0)
    off = stepped(unit, {"remote_on_off": 0.0}, 0.0)
    nothing = dict.fromkeys(
        ("inverter_status", "dc_power_w", "active_power_w", "reactive_power_var", "apparent_power_va"), 0.0
    )
    changed = {**expected, **nothing, "power_factor": 1.0, "remote_on_off": 0, "watchdog_expired": 0}
    again = stepped(unit, {"remote_on_off": 1.0}, 0.0)
    unit.step(AROUND._replace(frequency_hz=52.0), (), 0, 1.0)
    tripped = stepped(unit, {"heartbeat": 1.0}, 0.0)
    faulty = {
        **changed,
        "heartbeat": 1,
        "remote_on_off": 1,
        "fault_code": 2,
        "inverter_temp_c": unit.state.inverter_temp_c,
    }
    assert_all_are_where_they_belong(
        [
            (measured, expected),
            (off, changed),
            (again, {**expected, "watchdog_expired": 0}),
            (tripped, faulty),
        ],
        [{"voltage_an_v", "voltage_bn_v", "voltage_cn_v"}],
    )


def test_each_measurement_of_a_meter_is_under_its_name() -> None:
    meter: Any = parse_asset({"type": "energy_meter", "watchdog": {"timeout_s": 900}}).build()
    stepped(meter, {}, 900.0, PccFlow(-8_000.0, 0.0))
    taken = {
        "current_transformer_ratio": 40.0,
        "voltage_transformer_ratio": 2.0,
        "interval_time_s": 60.0,
        "heartbeat": 4711,
    }
    stepped(meter, taken, 900.0, PccFlow(24_000.0, 7_000.0))
    measured = stepped(meter, {}, 450.0, PccFlow(9_000.0, -12_000.0))
    imported, exported = 24_000.0 / 4.0 + 9_000.0 / 8.0, 8_000.0 / 4.0
    totals = {
        "active_power_w": 9_000.0,
        "reactive_power_var": -12_000.0,
        "apparent_power_va": 15_000.0,
        "import_energy_wh": imported,
        "export_energy_wh": exported,
    }
    phases: dict[str, set[str]] = {}
    expected = {
        **taken,
        **totals,
        "power_factor": 0.6,
        "frequency_hz": 50.03,
        "demand_power_w": (24_000.0 + 9_000.0) / 2.0,
        "max_demand_power_w": 24_000.0,
        "watchdog_expired": 0,
    }
    for phase in "abc":
        thirds = {
            f"{name[: name.rindex('_')]}_{phase}{name[name.rindex('_') :]}": v for name, v in totals.items()
        }
        expected |= {name: value / 3.0 for name, value in thirds.items()}
        expected |= {f"voltage_{phase}n_v": PHASE_V, f"current_{phase}_a": 5_000.0 / PHASE_V}
        for quantity, name in zip(
            (*totals, "v", "a"), (*thirds, f"voltage_{phase}n_v", f"current_{phase}_a"), strict=True
        ):
            phases.setdefault(quantity, set()).add(name)
    assert_all_are_where_they_belong([(measured, expected)], list(phases.values()))


CHP_COMMANDS = {
    "power_setpoint_ratio": 0.83,
    "remote_acknowledgment": 1234.0,
    "parameterizable_regulator_setpoint": -6.5,
    "heartbeat": 4711.0,
}


def chp_situation(unit: Any, dt_s: float, changed: Values, **commands: float) -> tuple[Values, Values]:
    """Step the unit and return what it shows, and what it must: its state, its phase and `changed`."""
    measured = stepped(unit, commands, dt_s)
    state, phase = unit.state, PHASES[unit.state.unit_state]
    load = measured["active_power_w"] / 4e6
    expected = {
        **CHP_COMMANDS,
        "unit_state": state.unit_state,
        "active_power_ratio": load,
        "active_power_w": state.power_w,  # at the end of a step without a ramp
        "reactive_power_var": 0.0,
        "permitted_power_ratio": 1.1,
        "heat_power_w": state.heat_w,
        "engine_speed_rpm": 0.0,
        "throttle_position": 0.0,
        "coolant_outlet_temp_c": state.coolant_c,
        "coolant_inlet_temp_c": state.coolant_c - 20.0 * state.heat_w / 4e6,
        "exhaust_temp_after_catalyst_c": state.exhaust_c,
        "oil_temp_c": state.oil_c,
        "intake_air_temp_c": 17.0,
        "oil_pressure_bar": 0.0,
        "charge_pressure_bar": max(0.0, 0.24 + 2.14 * load - 1.013),
        "operating_hours": state.running_s / 3600.0 % 10_000.0,
        "operating_hours_10000": 3.0,
        "start_counter": state.starts % 10_000,
        "start_counter_10000": 5.0,
        "energy_wh": state.energy_wh,
        "frequency_hz": 50.03,
        "engine_running": phase.engine_running,
        "circuit_breaker_closed": state.circuit_breaker_closed,
        "collective_fault": 0,
        "collective_warning": 0,
        "auto_mode": 1,
        "e_stop_request": 0,
        "power_supply_failure": 0,
        "ignition_on": phase.ignition,
        "starter_on": phase.starter,
        "prelube_pump_on": phase.prelube,
        "preheat_on": phase.preheat,
        "start_stop": 0,
        "fault_code": 0,
        "watchdog_expired": 0,
        **changed,
    }
    return measured, expected


def test_each_measurement_of_a_chp_is_under_its_name() -> None:
    unit: Any = parse_asset({"type": "chp", "watchdog": {"timeout_s": 9_000, "fallback": {}}}).build()
    unit.state.running_s = 3600.0 * 30_123.0
    unit.state.starts = 50_077
    on = {"start_stop": 1.0}
    rest = chp_situation(unit, 1.0, {}, **CHP_COMMANDS)
    starting = {**on, "engine_speed_rpm": 750.0, "oil_pressure_bar": 2.25}
    start = chp_situation(unit, 5.0, starting, start_stop=1.0)
    idling = {**on, "engine_speed_rpm": 1500.0, "oil_pressure_bar": 4.5, "throttle_position": 0.1}
    idle = chp_situation(unit, 75.0, idling)
    stepped(unit, {}, 1200.0)
    rpm = 30.0 * 50.03
    loaded = {
        **on,
        "active_power_w": 0.83 * 4e6,
        "engine_speed_rpm": rpm,
        "oil_pressure_bar": 4.5 * rpm / 1500.0,
        "throttle_position": 0.1 + 0.9 * 0.83 / 1.1,
    }
    load = chp_situation(unit, 10.0, loaded)
    expired = {**loaded, "collective_warning": 1, "watchdog_expired": 1}
    silent = chp_situation(unit, 9_000.0, expired)
    stepped(unit, {"start_stop": 0.0}, 10.0)
    unloaded = {"engine_speed_rpm": 1200.0, "oil_pressure_bar": 3.6, "throttle_position": 0.1}
    stopping = chp_situation(unit, 2.0, unloaded)
    stepped(unit, on, 1200.0)
    unit.step(AROUND._replace(frequency_hz=52.0), (), 0, 1.0)
    failed = {"permitted_power_ratio": 0.0, "collective_fault": 1, "fault_code": 2, "power_supply_failure": 1}
    tripped = chp_situation(unit, 0.0, failed)
    unit.state.e_stop_request = 1
    unit.state.fault_code = 0
    stopped = chp_situation(
        unit, 60.0, {**failed, "fault_code": 3, "power_supply_failure": 0, "e_stop_request": 1}
    )
    assert_all_are_where_they_belong(
        [rest, start, idle, load, silent, stopping, tripped, stopped],
        [{"starter_on", "prelube_pump_on"}, {"collective_warning", "watchdog_expired"}],
    )
