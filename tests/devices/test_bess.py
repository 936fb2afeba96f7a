"""The battery: energy, limits, commands, faults, measurements."""

import json
import math
from dataclasses import asdict

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pydantic import ValidationError

from dertwin.devices.bess import (
    EMPTY,
    FAULT,
    NO_FAULT,
    OVER_TEMPERATURE,
    RUNNING,
    STOPPED,
    Bess,
    BessConfig,
    BessMeasurements,
)
from dertwin.devices.classic import CLASSIC
from dertwin.devices.device import Command, Conditions

CALM = Conditions(0.0, 0.0, 20.0, 50.0, 400.0, 0.0)
OVER_FREQUENCY = CALM._replace(frequency_hz=52.0)
UNDER_VOLTAGE = CALM._replace(voltage_ll_v=300.0)
RUN = Command("start_stop_standby", 1.0)
STOP = Command("start_stop_standby", 2.0)
RESET = Command("fault_reset", 1.0)
ETA = math.sqrt(0.92)
WIDE = {"lower_1": 0, "lower_2": 0, "upper_1": 100, "upper_2": 100}


def setpoint(power_w: float) -> Command:
    return Command("active_power_setpoint_w", power_w)


def reactive(power_var: float) -> Command:
    return Command("reactive_power_setpoint_var", power_var)


def bess(**config: object) -> Bess:
    return BessConfig.model_validate({"type": "bess", **config}).build()


def step(
    battery: Bess, *commands: Command, dt_s: float = 1.0, conditions: Conditions = CALM
) -> BessMeasurements:
    return battery.step(conditions, commands, len(commands), dt_s)


def running(power_w: float = 0.0, **config: object) -> Bess:
    battery = bess(**config)
    step(battery, RUN, setpoint(power_w))
    return battery


# --- Energy


def assert_energy_adds_up(
    start: BessMeasurements, now: BessMeasurements, eta: float, seen: list[float]
) -> None:
    """`seen` has the AC energy (Wh) of each step since the start, from the power that was shown."""
    charged = -math.fsum(energy for energy in seen if energy < 0.0)
    discharged = math.fsum(energy for energy in seen if energy > 0.0)
    counted = (
        now.charged_energy_wh - start.charged_energy_wh,
        now.discharged_energy_wh - start.discharged_energy_wh,
    )
    lost = now.loss_energy_wh - start.loss_energy_wh
    change = now.stored_energy_wh - start.stored_energy_wh
    margin = 1e-9 * (charged + discharged + 1e-6 * now.stored_energy_wh)
    assert counted == pytest.approx((charged, discharged), abs=margin)
    assert abs(change - (charged * eta - discharged / eta)) <= margin
    assert abs(charged - discharged - lost - change) <= margin


def test_an_hour_at_10_kw_takes_10_kwh_through_the_efficiency_out_of_the_store() -> None:
    battery = running(10_000.0)
    start = battery.measurements
    now = step(battery, dt_s=3600.0)
    assert now.discharged_energy_wh - start.discharged_energy_wh == pytest.approx(10_000.0)
    assert start.stored_energy_wh - now.stored_energy_wh == pytest.approx(10_000.0 / ETA)
    assert now.loss_energy_wh - start.loss_energy_wh == pytest.approx(10_000.0 / ETA - 10_000.0)


def test_an_hour_of_charging_stores_less_than_it_took() -> None:
    battery = running(-10_000.0)
    start = battery.measurements
    now = step(battery, dt_s=3600.0)
    assert now.charged_energy_wh - start.charged_energy_wh == pytest.approx(10_000.0)
    assert now.stored_energy_wh - start.stored_energy_wh == pytest.approx(10_000.0 * ETA)


def test_a_full_cycle_returns_the_round_trip_efficiency() -> None:
    battery = running(soc_limits=WIDE, round_trip_eff=0.85, initial_soc=0, capacity_kwh=10)
    step(battery, setpoint(-20_000.0), dt_s=3600.0)
    step(battery, setpoint(20_000.0), dt_s=3600.0)
    now = battery.measurements
    assert now.soc == 0.0
    assert now.discharged_energy_wh / now.charged_energy_wh == pytest.approx(0.85, rel=1e-9)


def test_a_battery_without_losses_has_none() -> None:
    battery = running(15_000.0, round_trip_eff=1)
    now = step(battery, dt_s=600.0)
    assert now.loss_energy_wh == 0.0
    assert now.voltage_dc_v * now.current_dc_a == pytest.approx(15_000.0)


def test_nothing_happens_to_the_energy_of_an_idle_battery() -> None:
    battery = running(0.0)
    before = battery.measurements.stored_energy_wh
    assert step(battery, dt_s=86_400.0).stored_energy_wh == before == 50_000.0


@pytest.mark.parametrize("dt_s", [60.0, 0.1])
def test_energy_adds_up_over_a_simulated_week(dt_s: float) -> None:
    battery = running()
    start = battery.measurements
    step_on = battery.step
    charging: list[float] = []
    discharging: list[float] = []
    hours: list[float] = []
    for hour in range(7 * 24):  # runs into all four limits of the state of charge
        power_w = (20_000.0, 20_000.0, -20_000.0, 13_333.3, -7000.0, -20_000.0, 3141.59, -20_000.0)[hour % 8]
        now = step_on(CALM, (setpoint(power_w),), 1, 0.0)
        before = now
        for _ in range(round(3600.0 / dt_s)):
            now = step_on(CALM, (), 0, dt_s)
            (discharging if now.active_power_w > 0.0 else charging).append(now.active_power_w * dt_s / 3600.0)
        hours.append(before.stored_energy_wh - now.stored_energy_wh)
        assert 0.2 - 1e-9 <= now.soc <= 0.9 + 1e-9
    assert now.discharged_energy_wh > 500_000.0
    # Counters, store and losses against the power that the battery showed, summed without them.
    charged, discharged = -math.fsum(charging), math.fsum(discharging)
    assert now.charged_energy_wh - start.charged_energy_wh == pytest.approx(charged, rel=1e-9)
    assert now.discharged_energy_wh - start.discharged_energy_wh == pytest.approx(discharged, rel=1e-9)
    change = now.stored_energy_wh - start.stored_energy_wh
    throughput = charged + discharged
    assert change == pytest.approx(charged * ETA - discharged / ETA, abs=1e-9 * throughput)
    assert change == pytest.approx(charged - discharged - now.loss_energy_wh, abs=1e-9 * throughput)
    assert change == pytest.approx(-math.fsum(hours), abs=1e-9 * throughput)


@given(
    eta2=st.floats(0.5, 1.0),
    initial_soc=st.floats(0.0, 100.0),
    resistance=st.floats(0.0, 5.0),
    plan=st.lists(
        st.tuples(st.floats(-3e4, 3e4), st.floats(-3e4, 3e4), st.floats(0.01, 3600.0)),
        min_size=1,
        max_size=30,
    ),
)
@settings(max_examples=150, deadline=None)
def test_physics_holds_at_any_step(
    eta2: float, initial_soc: float, resistance: float, plan: list[tuple[float, float, float]]
) -> None:
    battery = running(round_trip_eff=eta2, initial_soc=initial_soc, internal_resistance=resistance)
    start = last = battery.measurements
    eta = math.sqrt(eta2)
    seen = []
    for power_w, power_var, dt_s in plan:
        now = step(battery, setpoint(power_w), reactive(power_var), dt_s=dt_s)
        seen.append(now.active_power_w * dt_s / 3600.0)
        assert_energy_adds_up(start, now, eta, seen)

        # Outside of the limits (a start above or below them) the battery only ever moves towards them.
        assert 0.0 <= now.soc <= 1.0
        assert now.soc >= min(0.2, last.soc) - 1e-9
        assert now.soc <= max(0.9, last.soc) + 1e-9

        most_w = 20_000.0 * (1.0 + 1e-12)
        assert abs(now.active_power_w) <= most_w
        assert abs(now.active_power_w) <= max(abs(power_w), abs(last.active_power_w))
        assert now.apparent_power_va <= most_w
        assert now.apparent_power_va == pytest.approx(math.hypot(now.active_power_w, now.reactive_power_var))

        # The DC power lies between what the cells give and what the grid gets.
        dc_w = now.voltage_dc_v * now.current_dc_a
        p_w = now.active_power_w
        cell_w = p_w / eta if p_w > 0.0 else p_w * eta
        assert p_w - 1e-6 <= dc_w <= cell_w + 1e-6

        assert now.charged_energy_wh >= last.charged_energy_wh
        assert now.discharged_energy_wh >= last.discharged_energy_wh
        assert now.loss_energy_wh >= last.loss_energy_wh
        assert now.cycles >= last.cycles
        assert now.soh <= last.soh
        last = now


@given(st.floats(0.01, 3600.0), st.sampled_from([20_000.0, -20_000.0]))
@settings(deadline=None)
def test_a_step_too_big_for_the_store_ends_at_the_limit(dt_s: float, power_w: float) -> None:
    battery = running(power_w, capacity_kwh=1, initial_soc=50)
    for _ in range(20):
        now = step(battery, dt_s=3600.0)
    assert now.soc == pytest.approx(0.2 if power_w > 0 else 0.9, abs=1e-9)
    assert step(battery, dt_s=dt_s).soc == pytest.approx(now.soc, abs=1e-9)


def test_what_a_cut_step_delivers_is_what_it_counts() -> None:
    battery = running(20_000.0, capacity_kwh=10)
    before = battery.measurements
    now = step(battery, dt_s=3600.0)
    assert now.active_power_w * 1.0 == pytest.approx(now.discharged_energy_wh - before.discharged_energy_wh)
    assert now.active_power_w < 20_000.0


def test_one_long_step_is_many_short_ones() -> None:
    long, short = running(12_345.0), running(12_345.0)
    step(long, dt_s=600.0)
    for _ in range(6000):
        step(short, dt_s=0.1)
    assert long.measurements.soc == pytest.approx(short.measurements.soc, rel=1e-12)
    assert long.measurements.cycles == pytest.approx(short.measurements.cycles, rel=1e-12)
    assert long.measurements.battery_temp_c == pytest.approx(short.measurements.battery_temp_c, rel=1e-6)


def test_a_step_of_no_length_changes_nothing() -> None:
    battery = running(12_345.0)
    step(battery, dt_s=60.0)
    before = battery.measurements
    assert step(battery, dt_s=0.0) == pytest.approx(before, rel=1e-15)


# --- Setpoint, ramp, limits


def test_a_battery_does_nothing_before_its_first_start() -> None:
    battery = bess()
    now = step(battery, setpoint(10_000.0), dt_s=10.0)
    assert (now.active_power_w, now.working_status, now.start_stop_standby) == (0.0, STOPPED, 2)
    assert now.active_power_setpoint_w == 10_000.0
    assert step(battery, RUN, dt_s=10.0).active_power_w == 10_000.0
    assert battery.measurements.working_status == RUNNING


@pytest.mark.parametrize("command", [STOP, Command("start_stop_standby", 3.0)])
def test_stop_and_standby_ramp_down_and_keep_the_setpoint(command: Command) -> None:
    battery = running(10_000.0, ramp_rate_kw_per_s=2)
    step(battery, dt_s=10.0)
    now = step(battery, command, dt_s=1.0)
    assert (now.active_power_w, now.working_status) == (8000.0, RUNNING)
    now = step(battery, dt_s=10.0)
    assert (now.active_power_w, now.working_status) == (0.0, STOPPED)
    assert now.active_power_setpoint_w == 10_000.0
    assert step(battery, RUN, dt_s=10.0).active_power_w == 10_000.0


def test_power_ramps_at_the_rate_of_the_config() -> None:
    battery = bess(ramp_rate_kw_per_s=4)
    step(battery, RUN, setpoint(10_000.0), dt_s=0.0)
    powers = [step(battery, dt_s=1.0).active_power_w for _ in range(4)]
    assert powers == [4000.0, 8000.0, 10_000.0, 10_000.0]


@given(st.lists(st.tuples(st.floats(-2e4, 2e4), st.floats(0.01, 20.0)), min_size=1, max_size=20))
@settings(max_examples=50, deadline=None)
def test_power_never_overshoots_its_setpoint(plan: list[tuple[float, float]]) -> None:
    battery = running(ramp_rate_kw_per_s=3, capacity_kwh=1000)
    last_w = 0.0
    for power_w, dt_s in plan:
        now_w = step(battery, setpoint(power_w), dt_s=dt_s).active_power_w
        assert min(last_w, power_w) <= now_w <= max(last_w, power_w)
        assert abs(now_w - last_w) <= 3000.0 * dt_s * (1.0 + 1e-12) + 1e-9
        last_w = now_w


def test_a_setpoint_derated_by_the_state_of_charge_recovers_when_the_limit_goes() -> None:
    battery = running(20_000.0, initial_soc=22.5, capacity_kwh=10_000)
    now = step(battery, dt_s=0.1)
    assert now.active_power_w == pytest.approx(10_000.0, rel=1e-4)  # half way from 25 to 20 %
    assert now.active_power_setpoint_w == 20_000.0
    now = step(battery, Command("lower_soc_limit_1", 0.10), Command("lower_soc_limit_2", 0.05), dt_s=1.0)
    assert (now.active_power_w, now.active_power_setpoint_w) == (20_000.0, 20_000.0)


def test_a_setpoint_derated_by_temperature_recovers_when_the_cells_are_cool_again() -> None:
    battery = running(20_000.0, capacity_kwh=1000, initial_soc=80)
    battery.state.battery_temp_c = 45.0
    now = step(battery, dt_s=1.0)
    assert now.active_power_w == now.available_discharge_power_w == 16_000.0
    for _ in range(4):
        now = step(battery, dt_s=3600.0)
    assert now.battery_temp_c < 40.0
    assert now.active_power_w == 20_000.0


def test_a_full_battery_discharges_but_does_not_charge() -> None:
    battery = running(-20_000.0, initial_soc=95)
    assert step(battery).active_power_w == 0.0
    assert step(battery, setpoint(20_000.0)).active_power_w == 20_000.0


def test_available_power_is_that_of_the_state_of_charge_and_temperature_shown_with_it() -> None:
    battery = running(20_000.0, initial_soc=26, capacity_kwh=10, ambient_temp_c=5)
    for _ in range(60):
        now = step(battery, conditions=CALM._replace(ambient_temp_c=5.0))
    assert now.soc < 0.25
    assert now.available_discharge_power_w == pytest.approx(16_000.0 * (now.soc - 0.20) / 0.05)
    assert now.available_charge_power_w == 16_000.0


def test_active_power_has_priority_and_reactive_power_is_cut() -> None:
    battery = running(12_000.0)
    now = step(battery, reactive(20_000.0))
    assert (now.active_power_w, now.reactive_power_var) == (12_000.0, pytest.approx(16_000.0))  # 3-4-5
    assert now.apparent_power_va == pytest.approx(20_000.0)
    assert now.reactive_power_setpoint_var == 20_000.0


def test_a_stopped_battery_gives_no_reactive_power() -> None:
    battery = running()
    assert step(battery, reactive(5000.0)).reactive_power_var == 5000.0
    assert step(battery, STOP).reactive_power_var == 0.0


# --- Cells


def test_the_terminal_voltage_sags_under_discharge_and_rises_under_charge() -> None:
    resting = running(0.0).measurements.voltage_dc_v
    now = step(running(20_000.0), dt_s=0.1)
    assert now.voltage_dc_v == pytest.approx(resting - now.current_dc_a * 13.824 / 100.0, rel=1e-5)
    assert step(running(-20_000.0), dt_s=0.1).voltage_dc_v > resting


def test_half_the_current_goes_through_twice_the_capacity_in_equal_cells() -> None:
    # The default resistance falls with the capacity: more strings side by side.
    one, two = step(running(20_000.0, capacity_kwh=100)), step(running(20_000.0, capacity_kwh=200))
    sag = [now.current_dc_a * 13.824 / kwh for now, kwh in ((one, 100.0), (two, 200.0))]
    assert sag[0] == pytest.approx(2.0 * sag[1], rel=1e-3)


def test_current_heats_the_cells() -> None:
    battery = running(20_000.0, internal_resistance=0.5, capacity_kwh=500)
    for _ in range(20):
        now = step(battery, dt_s=3600.0 / 4)
    heat_w = now.current_dc_a**2 * 0.5
    assert 20.0 < now.battery_temp_c < 20.0 + heat_w / 500.0


def test_a_resistance_beyond_the_losses_heats_no_more_than_they_are() -> None:
    # 50 ohm would turn 31 kW into heat; all that is lost are 4.2 % of 20 kW.
    battery = running(20_000.0, internal_resistance=50, capacity_kwh=500, thermal_capacity_j_per_k=1)
    now = step(battery, dt_s=600.0)
    assert now.battery_temp_c - 20.0 == pytest.approx((20_000.0 / ETA - 20_000.0) / 500.0)
    assert now.voltage_dc_v > 0.0


def test_cells_start_at_20_degrees_and_follow_the_air_of_the_site() -> None:
    battery = running(0.0)
    assert bess().measurements.battery_temp_c == 20.0
    for _ in range(48):
        step(battery, dt_s=3600.0, conditions=CALM._replace(ambient_temp_c=-5.0))
    assert battery.measurements.battery_temp_c == pytest.approx(-5.0, abs=1e-6)


def test_cells_in_a_room_start_and_stay_at_its_temperature_whatever_the_weather() -> None:
    battery = running(0.0, ambient_temp_c=35)
    assert bess(ambient_temp_c=35).measurements.battery_temp_c == 35.0
    for _ in range(48):
        step(battery, dt_s=3600.0, conditions=CALM._replace(ambient_temp_c=-5.0))
    assert battery.measurements.battery_temp_c == pytest.approx(35.0)
    battery.state.battery_temp_c = 50.0
    for _ in range(48):
        step(battery, dt_s=3600.0, conditions=CALM._replace(ambient_temp_c=-5.0))
    assert battery.measurements.battery_temp_c == pytest.approx(35.0)


def test_throughput_counts_cycles_and_ages() -> None:
    battery = running(soc_limits=WIDE, capacity_kwh=10, initial_soc=100, internal_resistance=0)
    for _ in range(30):
        step(battery, setpoint(20_000.0), dt_s=3600.0)
        now = step(battery, setpoint(-20_000.0), dt_s=3600.0)
    assert now.cycles == pytest.approx(30.0, rel=2e-3)  # a little less: the capacity fades with them
    assert now.soh == pytest.approx(1.0 - 0.2 * now.cycles / 2000.0)
    assert now.stored_energy_wh == pytest.approx(10_000.0 * now.soh)
    assert now.soc == pytest.approx(1.0, abs=1e-12)


# --- Faults


def overheated() -> Bess:
    battery = running(10_000.0, thermal_capacity_j_per_k=1000)
    step(battery, dt_s=60.0, conditions=CALM._replace(ambient_temp_c=80.0))
    return battery


def test_over_temperature_is_a_fault_that_takes_the_power_away() -> None:
    battery = overheated()
    now = step(battery, conditions=CALM._replace(ambient_temp_c=80.0))
    assert (now.fault_code, now.working_status, now.active_power_w) == (OVER_TEMPERATURE, FAULT, 0.0)
    assert (now.available_charge_power_w, now.available_discharge_power_w) == (0.0, 0.0)


def test_over_temperature_stays_until_it_is_reset_with_cool_cells() -> None:
    battery = overheated()
    assert step(battery, RESET, dt_s=0.0).fault_code == OVER_TEMPERATURE
    now = step(battery, dt_s=3600.0)
    assert now.battery_temp_c < 40.0
    assert (now.fault_code, now.active_power_w) == (OVER_TEMPERATURE, 0.0)
    now = step(battery, RESET)
    assert (now.fault_code, now.working_status, now.active_power_w) == (NO_FAULT, RUNNING, 10_000.0)


def test_an_empty_battery_shows_it_gives_nothing_and_recovers_by_charging() -> None:
    battery = running(20_000.0, soc_limits=WIDE, initial_soc=5)
    now = step(battery, dt_s=3600.0)
    assert (now.soc, now.fault_code, now.working_status) == (0.0, EMPTY, FAULT)
    assert step(battery).active_power_w == 0.0
    now = step(battery, setpoint(-20_000.0), dt_s=60.0)
    assert (now.active_power_w, now.fault_code, now.working_status) == (-20_000.0, NO_FAULT, RUNNING)


def test_an_emptying_battery_is_empty_in_the_end_however_short_the_steps() -> None:
    limits = {**WIDE, "lower_1": 5}  # derating to zero alone would approach empty for ever
    battery = running(20_000.0, soc_limits=limits, initial_soc=1, capacity_kwh=1)
    for _ in range(1200):
        now = step(battery, dt_s=0.1)
    assert (now.fault_code, now.active_power_w) == (EMPTY, 0.0)
    assert 0.0 < now.soc <= 0.0005


@pytest.mark.parametrize(("conditions", "fault_code"), [(UNDER_VOLTAGE, 3001), (OVER_FREQUENCY, 3002)])
def test_a_grid_fault_takes_the_power_away_until_the_reconnection(
    conditions: Conditions, fault_code: int
) -> None:
    battery = running(10_000.0, ramp_rate_kw_per_s=1)
    step(battery, reactive(5000.0), dt_s=20.0)
    now = step(battery, dt_s=1.0, conditions=conditions)
    assert (now.fault_code, now.working_status) == (fault_code, FAULT)
    assert (now.active_power_w, now.reactive_power_var, now.current_dc_a) == (0.0, 0.0, 0.0)
    now = step(battery, RESET, dt_s=59.0)
    assert now.fault_code == fault_code  # only time within the limits helps
    now = step(battery, dt_s=1.0)
    assert (now.fault_code, now.working_status) == (NO_FAULT, RUNNING)
    assert now.active_power_w == 1000.0  # back on the ramp, without a command
    assert step(battery, dt_s=10.0).active_power_w == 10_000.0


def test_over_temperature_is_shown_before_a_grid_fault_and_the_grid_fault_after_its_reset() -> None:
    battery = overheated()
    now = step(battery, dt_s=10.0, conditions=OVER_FREQUENCY)
    assert now.fault_code == OVER_TEMPERATURE
    assert step(battery, RESET, conditions=OVER_FREQUENCY).fault_code == 3002


# --- Commands, config, measurements


def test_commands_beyond_their_range_are_clamped() -> None:
    battery = running()
    now = step(
        battery,
        setpoint(math.inf),
        reactive(-1e9),
        Command("lower_soc_limit_2", -3.0),
        Command("heartbeat", 1e6),
    )
    assert now.active_power_setpoint_w == now.active_power_w == 20_000.0
    assert now.reactive_power_setpoint_var == -20_000.0
    assert (now.lower_soc_limit_2, now.heartbeat) == (0.0, 65535)


@pytest.mark.parametrize(
    "command", [setpoint(math.nan), Command("start_stop_standby", 7.0), Command("start_stop_standby", 1.5)]
)
def test_what_is_no_value_of_a_command_changes_nothing(command: Command) -> None:
    battery = running(5000.0)
    step(battery)
    before = battery.measurements
    assert step(battery, command, dt_s=0.0) == pytest.approx(before, rel=1e-15)


def test_an_unknown_command_is_an_error_that_names_it() -> None:
    with pytest.raises(KeyError, match="power"):
        step(bess(), Command("power", 1.0))


def test_every_command_but_the_reset_reads_back() -> None:
    battery = bess()
    for number, (name, accepted) in enumerate(battery.commands.items()):
        value = max(accepted.allowed) if accepted.allowed else accepted.high / (number + 1.0)
        now = step(battery, Command(name, value))
        if name != "fault_reset":
            assert getattr(now, name) == pytest.approx(value, abs=1.0 if accepted.high == 65535.0 else 1e-12)
    assert now.local_remote_mode == now.local_remote_settings == 2


@given(st.lists(st.tuples(st.integers(0, 3), st.floats(0.0, 1.0)), max_size=8), st.floats(0.01, 3600.0))
@settings(max_examples=60, deadline=None)
def test_limits_in_any_order_leave_a_sane_battery(moves: list[tuple[int, float]], dt_s: float) -> None:
    names = ("lower_soc_limit_1", "lower_soc_limit_2", "upper_soc_limit_1", "upper_soc_limit_2")
    battery = running(20_000.0)
    for which, value in moves:
        step(battery, Command(names[which], value), dt_s=dt_s)
        now = step(battery, setpoint(-battery.measurements.active_power_setpoint_w), dt_s=dt_s)
        assert 0.0 <= now.soc <= 1.0
        assert 0.0 <= now.available_charge_power_w <= 20_000.0
        assert 0.0 <= now.available_discharge_power_w <= 20_000.0


def test_a_silent_ems_leaves_the_battery_at_zero_until_it_returns() -> None:
    battery = running(10_000.0, watchdog={"timeout_s": 5})
    now = step(battery, reactive(3000.0), dt_s=1.0)
    assert (now.active_power_w, now.watchdog_expired) == (10_000.0, 0)
    now = step(battery, dt_s=5.0)
    assert (now.active_power_w, now.reactive_power_var, now.watchdog_expired) == (0.0, 0.0, 1)
    now = step(battery, setpoint(7000.0))
    assert (now.active_power_w, now.watchdog_expired) == (7000.0, 0)


@pytest.mark.parametrize(
    "broken",
    [
        {"capacity_kwh": 0},
        {"capacity_kwh": -100},
        {"initial_soc": 250},
        {"initial_soc": -5},
        {"round_trip_eff": 1.5},
        {"round_trip_eff": 0},
        {"max_discharge_kw": -20},
        {"max_charge_kw": 0},
        {"ramp_rate_kw_per_s": 0},
        {"thermal_conductance_w_per_k": 0},
        {"soc_limits": {"lower_1": 20, "lower_2": 25}},
        {"soc_limits": {"upper_1": 95}},
        {"soc_limits": {"lower_3": 5}},
        {"capcity_kwh": 100},
    ],
)
def test_an_impossible_battery_is_refused(broken: dict[str, object]) -> None:
    with pytest.raises(ValidationError):
        BessConfig.model_validate({"type": "bess", **broken})


def test_grid_values_are_those_around_the_battery() -> None:
    now = step(bess(), conditions=CALM._replace(frequency_hz=49.987, voltage_ll_v=398.5))
    assert now.frequency_hz == 49.987
    assert (now.voltage_ab_v, now.voltage_bc_v, now.voltage_ca_v) == (398.5, 398.5, 398.5)


def test_every_classic_name_of_a_battery_has_its_value() -> None:
    battery = bess()
    known = {*BessMeasurements._fields, *battery.commands}
    assert {name for name, _ in CLASSIC["bess"].values()} <= known


def test_the_state_is_plain_data() -> None:
    battery = running(5000.0)
    assert json.loads(json.dumps(asdict(battery.state))) == asdict(battery.state)


def test_equal_batteries_make_equal_runs() -> None:
    runs = []
    for _ in range(2):
        battery = running(20_000.0)
        runs.append([step(battery, dt_s=0.7 * i) for i in range(200)])
    assert runs[0] == runs[1]
