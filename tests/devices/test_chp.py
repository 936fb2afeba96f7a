"""The CHP: its start and stop phases, power, faults, heat."""

import math
from dataclasses import asdict

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pydantic import ValidationError

from dertwin.devices.chp import (
    FAULT,
    IDLE,
    READY,
    RUNNING,
    START_BLOCKED,
    STARTING,
    STOPPING,
    SYNCHRONIZING,
    WARM_UP,
    Chp,
    ChpConfig,
    ChpMeasurements,
)
from dertwin.devices.classic import CLASSIC
from dertwin.devices.device import Command, Conditions

CALM = Conditions(0.0, 0.0, 20.0, 50.0, 400.0, 0.0)
OVER_FREQUENCY = CALM._replace(frequency_hz=52.0)
START = Command("start_stop", 1.0)
STOP = Command("start_stop", 0.0)
ACKNOWLEDGE = Command("remote_acknowledgment", 4321.0)
START_S = 115.0  # 10 starting, 60 warm-up, 30 idle, 15 synchronizing


def setpoint(ratio: float) -> Command:
    return Command("power_setpoint_ratio", ratio)


def chp(**config: object) -> Chp:
    return ChpConfig.model_validate({"type": "chp", **config}).build()


def step(unit: Chp, *commands: Command, dt_s: float = 1.0, conditions: Conditions = CALM) -> ChpMeasurements:
    return unit.step(conditions, commands, len(commands), dt_s)


def running(ratio: float = 1.0) -> Chp:
    unit = chp()
    step(unit, START, setpoint(ratio), dt_s=START_S)
    step(unit, dt_s=600.0)
    assert step(unit).unit_state == RUNNING
    return unit


def states(unit: Chp, seconds: float, dt_s: float) -> list[tuple[int, float]]:
    """The states that the unit passes, each with how long it was seen (s)."""
    seen: list[tuple[int, float]] = []
    for _ in range(round(seconds / dt_s)):
        state = step(unit, dt_s=dt_s).unit_state
        lasted = seen.pop()[1] if seen and seen[-1][0] == state else 0.0
        seen.append((state, lasted + dt_s))
    return seen


@pytest.mark.parametrize("dt_s", [0.01, 0.1, 1.0, 5.0])
def test_a_start_takes_its_phases_in_order_and_time(dt_s: float) -> None:
    unit = chp()
    step(unit, START, dt_s=0.0)
    passed = states(unit, START_S + 10.0, dt_s)
    assert [state for state, _ in passed] == [STARTING, WARM_UP, IDLE, SYNCHRONIZING, RUNNING]
    # The step that ends a phase shows the next one.
    assert [lasted for _, lasted in passed[:-1]] == pytest.approx([10.0 - dt_s, 60.0, 30.0, 15.0])


@pytest.mark.parametrize("dt_s", [0.1, 1.0, 5.0])
def test_a_stop_takes_twenty_seconds(dt_s: float) -> None:
    unit = running()
    step(unit, STOP, dt_s=0.0)
    passed = states(unit, 30.0, dt_s)
    assert [state for state, _ in passed] == [STOPPING, READY]
    assert passed[0][1] == pytest.approx(20.0 - dt_s)


@pytest.mark.parametrize("dt_s", [1.0, 23.0, 60.0, 115.0, 3600.0])
def test_a_big_step_passes_through_as_many_phases_as_it_covers(dt_s: float) -> None:
    fine, coarse = chp(), chp()
    step(fine, START, setpoint(1.0), dt_s=0.0)
    step(coarse, START, setpoint(1.0), dt_s=0.0)
    for _ in range(round(dt_s * 10.0)):
        step(fine, dt_s=0.1)
    step(coarse, dt_s=dt_s)
    assert coarse.measurements.unit_state == fine.measurements.unit_state
    assert coarse.state.in_state_s == pytest.approx(fine.state.in_state_s, abs=1e-6)
    assert coarse.state.power_w == pytest.approx(fine.state.power_w, rel=1e-9, abs=1e-3)
    assert coarse.state.energy_wh == pytest.approx(fine.state.energy_wh, rel=1e-6)
    assert coarse.measurements.operating_hours == pytest.approx(fine.measurements.operating_hours, rel=1e-6)
    assert coarse.measurements.start_counter == fine.measurements.start_counter


def test_power_ramps_at_a_hundred_percent_a_minute_and_never_overshoots() -> None:
    unit = chp(rated_kw=600.0)
    step(unit, START, setpoint(0.8), dt_s=START_S)
    powers = [step(unit).active_power_w for _ in range(60)]
    assert powers == sorted(powers)
    assert powers[0] == pytest.approx(5_000.0)  # the mean of the first second
    assert powers[20] == pytest.approx(205_000.0)
    assert powers[-1] == 480_000.0


def test_power_stays_at_the_minimum_load_below_it_and_the_setpoint_reads_back_unchanged() -> None:
    m = running(ratio=0.1).measurements
    assert m.active_power_ratio == pytest.approx(0.3)
    assert m.power_setpoint_ratio == 0.1


def test_a_setpoint_beyond_the_maximum_load_is_clamped_to_it() -> None:
    m = running(ratio=3.0).measurements
    assert m.active_power_ratio == pytest.approx(1.1)
    assert m.power_setpoint_ratio == m.permitted_power_ratio == 1.1


@settings(max_examples=50, deadline=None)
@given(
    st.lists(
        st.tuples(
            st.sampled_from([START, STOP, setpoint(0.0), setpoint(0.7), setpoint(1.1), ACKNOWLEDGE]),
            st.sampled_from([0.0, 0.01, 0.1, 1.0, 17.0, 60.0, 3600.0]),
            st.sampled_from([CALM, CALM, CALM, OVER_FREQUENCY]),
        ),
        max_size=40,
    )
)
def test_whatever_happens_energy_is_the_power_served_and_only_a_closed_breaker_carries_power(
    happenings: list[tuple[Command, float, Conditions]],
) -> None:
    unit = chp()
    energies = []
    for command, dt_s, conditions in happenings:
        m = step(unit, command, dt_s=dt_s, conditions=conditions)
        energies.append(m.active_power_w * dt_s / 3600.0)
        assert 0.0 <= m.active_power_ratio <= 1.1 + 1e-12
        assert unit.state.power_w == 0.0 or m.circuit_breaker_closed
        assert m.engine_running or not m.circuit_breaker_closed
        assert unit.measurements.heat_power_w >= 0.0
    assert unit.measurements.energy_wh == pytest.approx(math.fsum(energies), rel=1e-12)


def test_a_trip_opens_the_breaker_at_once_and_latches_a_fault_until_it_is_acknowledged() -> None:
    unit = running()
    m = step(unit, conditions=OVER_FREQUENCY)
    assert (m.unit_state, m.active_power_w, m.circuit_breaker_closed) == (FAULT, 0.0, 0)
    assert (m.collective_fault, m.fault_code, m.power_supply_failure, m.start_stop) == (1, 2, 1, 0)
    m = step(unit, dt_s=120.0)
    assert (m.unit_state, m.collective_fault, m.power_supply_failure) == (FAULT, 1, 0)
    m = step(unit, START)
    assert (m.unit_state, m.start_stop) == (START_BLOCKED, 1)
    m = step(unit, Command("remote_acknowledgment", 1234.0))
    assert (m.unit_state, m.remote_acknowledgment) == (START_BLOCKED, 1234)
    m = step(unit, ACKNOWLEDGE)
    assert (m.unit_state, m.collective_fault, m.fault_code) == (STARTING, 0, 0)


def test_a_fault_cannot_be_acknowledged_while_its_cause_lasts() -> None:
    unit = running()
    step(unit, conditions=OVER_FREQUENCY)
    assert step(unit, ACKNOWLEDGE, conditions=OVER_FREQUENCY).collective_fault == 1
    step(unit, dt_s=60.0)
    m = step(unit, ACKNOWLEDGE)
    assert (m.unit_state, m.collective_fault) == (READY, 0)


def test_a_start_waits_for_the_grid_and_then_goes_on_by_itself() -> None:
    unit = chp()
    m = step(unit, START, conditions=OVER_FREQUENCY)
    assert (m.unit_state, m.collective_fault) == (START_BLOCKED, 0)
    assert step(unit, dt_s=59.0).unit_state == START_BLOCKED
    assert step(unit).unit_state == STARTING


@pytest.mark.parametrize("dt_s", [1.0, 3600.0])
def test_synchronizing_lasts_until_the_grid_is_within_its_limits(dt_s: float) -> None:
    unit = chp()
    step(unit, START, dt_s=105.0)
    assert step(unit, dt_s=dt_s, conditions=OVER_FREQUENCY).unit_state == SYNCHRONIZING
    assert step(unit, dt_s=59.0).unit_state == SYNCHRONIZING
    assert step(unit, dt_s=20.0).unit_state == RUNNING


@pytest.mark.parametrize("before", [0.0, 5.0, 30.0, 100.0, 300.0])
def test_an_emergency_stop_is_a_fault_in_every_phase_until_released_and_acknowledged(before: float) -> None:
    unit = chp()
    step(unit, START, dt_s=before)
    unit.state.e_stop_request = 1
    m = step(unit)
    assert (m.unit_state, m.fault_code, m.e_stop_request, m.engine_running) == (FAULT, 3, 1, 0)
    assert step(unit, ACKNOWLEDGE).unit_state == FAULT
    assert step(unit, START).unit_state == START_BLOCKED
    unit.state.e_stop_request = 0
    assert step(unit).unit_state == START_BLOCKED
    assert step(unit, ACKNOWLEDGE).unit_state == STARTING


@pytest.mark.parametrize(
    ("after_s", "state"), [(5.0, READY), (30.0, STOPPING), (80.0, STOPPING), (105.0, STOPPING)]
)
def test_a_stop_ends_a_start_in_every_phase(after_s: float, state: int) -> None:
    unit = chp()
    step(unit, START, dt_s=after_s)
    assert step(unit, STOP).unit_state == state
    assert step(unit, dt_s=20.0).unit_state == READY


def test_a_start_during_a_stop_is_carried_out_after_it() -> None:
    unit = running()
    step(unit, STOP)
    assert step(unit, START, dt_s=18.0).unit_state == STOPPING
    assert step(unit).unit_state == STARTING


def test_unloading_ends_before_the_breaker_opens() -> None:
    unit = running(ratio=1.1)
    step(unit, STOP, dt_s=0.0)
    closed = [step(unit, dt_s=0.5).circuit_breaker_closed for _ in range(40)]
    assert closed.count(1) == 19  # 110 % at 11 % a second
    assert closed == sorted(closed, reverse=True)


def test_bits_and_speed_follow_the_phase() -> None:
    unit = chp()
    m = unit.measurements
    assert (m.engine_running, m.ignition_on, m.starter_on, m.preheat_on, m.engine_speed_rpm) == (
        0,
        0,
        0,
        1,
        0.0,
    )
    m = step(unit, START, dt_s=5.0)
    assert (m.engine_running, m.ignition_on, m.starter_on, m.prelube_pump_on, m.engine_speed_rpm) == (
        0,
        1,
        1,
        1,
        750.0,
    )
    m = step(unit, dt_s=20.0)
    assert (m.engine_running, m.ignition_on, m.starter_on, m.circuit_breaker_closed) == (1, 1, 0, 0)
    assert m.engine_speed_rpm == 1500.0
    m = step(unit, dt_s=600.0, conditions=CALM._replace(frequency_hz=49.9))
    assert (m.circuit_breaker_closed, m.auto_mode) == (1, 1)
    assert m.engine_speed_rpm == pytest.approx(1497.0)


def test_heat_follows_power_by_the_ratio_with_a_lag() -> None:
    unit = chp(rated_kw=100.0, heat_to_power_ratio=1.3)
    step(unit, START, setpoint(1.0), dt_s=START_S)
    step(unit, dt_s=60.0)
    assert 0.0 < unit.measurements.heat_power_w < 100_000.0
    step(unit, dt_s=3600.0)
    step(unit, dt_s=3600.0)
    assert unit.measurements.heat_power_w == pytest.approx(130_000.0, rel=1e-6)


def test_a_warm_unit_at_full_load_shows_the_figures_of_its_data_sheet() -> None:
    unit = running()
    step(unit, dt_s=3600.0)
    m = step(unit, dt_s=3600.0)
    assert m.exhaust_temp_after_catalyst_c == pytest.approx(388.0)
    assert m.charge_pressure_bar == pytest.approx(2.38 - 1.013)
    assert (m.coolant_outlet_temp_c, m.coolant_inlet_temp_c) == (pytest.approx(90.0), pytest.approx(70.0))
    assert m.oil_pressure_bar == 4.5


def test_hours_and_starts_count_on_beyond_ten_thousand() -> None:
    unit = chp()
    unit.state.running_s = 9_999.9 * 3600.0
    unit.state.starts = 9_999
    step(unit, START, dt_s=START_S)
    m = step(unit, dt_s=3600.0)
    assert (m.start_counter, m.start_counter_10000) == (0, 1)
    assert m.operating_hours == pytest.approx(0.9 + 105.0 / 3600.0)
    assert m.operating_hours_10000 == 1.0


def test_a_day_of_tenths_of_a_second_is_counted_to_the_last_digits() -> None:
    unit = running(0.7)
    before = unit.measurements.energy_wh
    for _ in range(864_000 // 8):
        m = step(unit, dt_s=0.1)
    assert m.energy_wh - before == pytest.approx(0.7 * 4e6 * 3.0, rel=1e-13)


def test_a_step_of_no_length_changes_nothing() -> None:
    unit = running()
    before = asdict(unit.state)
    step(unit, dt_s=0.0)
    assert asdict(unit.state) == before


def test_every_classic_name_of_a_chp_is_a_measurement_or_command() -> None:
    names = {*ChpMeasurements._fields, *chp().commands}
    assert {si_name for si_name, _ in CLASSIC["chp"].values()} <= names


def test_reversed_load_limits_are_refused() -> None:
    with pytest.raises(ValidationError, match="min_load_percent 80 is above max_load_percent 60"):
        ChpConfig.model_validate({"type": "chp", "min_load_percent": 80, "max_load_percent": 60})
