"""The PV inverter: power against pvlib, limits, reactive power, counters, grid faults."""

import json
import math
from dataclasses import asdict

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pvlib.inverter import pvwatts
from pvlib.pvsystem import pvwatts_dc
from pvlib.temperature import faiman
from pydantic import ValidationError

from dertwin.devices.classic import CLASSIC
from dertwin.devices.device import Command, Conditions
from dertwin.devices.pv import PvInverter, PvInverterConfig, PvInverterMeasurements

NOON = Conditions(12 * 3600.0, 1000.0, 20.0, 50.0, 400.0, 0.0)
NIGHT = NOON._replace(time_s=0.0, irradiance_w_m2=0.0)
ON, OFF = Command("remote_on_off", 1.0), Command("remote_on_off", 0.0)


def limit(ratio: float) -> Command:
    return Command("active_power_limit", ratio)


def reactive(ratio: float) -> Command:
    return Command("reactive_power_ratio", ratio)


def power_factor(value: float) -> Command:
    return Command("power_factor_setpoint", value)


def inverter(**config: object) -> PvInverter:
    return PvInverterConfig.model_validate({"type": "inverter", **config}).build()


def step(
    unit: PvInverter, *commands: Command, dt_s: float = 1.0, conditions: Conditions = NOON
) -> PvInverterMeasurements:
    return unit.step(conditions, commands, len(commands), dt_s)


# --- Power


def test_an_array_of_the_default_size_gives_the_rated_power_at_1000_w_m2_and_20_degrees() -> None:
    now = step(inverter(rated_kw=25))
    assert now.active_power_w == pytest.approx(25_000.0)
    assert now.dc_power_w == pytest.approx(25_000.0 / 0.96)
    assert now.inverter_status == 1


def test_50_m2_of_20_percent_modules_have_10_kw_at_standard_test_conditions() -> None:
    # Cells at 25 degC: the air is 31.4 K colder.
    now = step(
        inverter(rated_kw=100, area_m2=50), conditions=NOON._replace(ambient_temp_c=25.0 - 1000.0 / 31.84)
    )
    assert now.cell_temp_c == pytest.approx(25.0)
    assert now.dc_power_w == pytest.approx(10_000.0)


@pytest.mark.parametrize("irradiance", [0.0, 5.0, 20.0, 50.0, 100.0, 250.0, 500.0, 750.0, 1000.0, 1200.0])
@pytest.mark.parametrize("air_c", [-20.0, 0.0, 15.0, 25.0, 40.0])
def test_power_from_sun_to_grid_is_that_of_pvlib_within_a_percent(irradiance: float, air_c: float) -> None:
    now = step(
        inverter(rated_kw=10, area_m2=60, module_efficiency=0.18),
        conditions=NOON._replace(irradiance_w_m2=irradiance, ambient_temp_c=air_c),
    )
    cell_c = float(faiman(irradiance, air_c, wind_speed=1.0))
    dc_w = float(pvwatts_dc(irradiance, cell_c, 60 * 0.18 * 1000.0, -0.0035))
    ac_w = float(pvwatts(dc_w, 10_000.0 / 0.96))
    assert now.cell_temp_c == pytest.approx(cell_c, rel=0.01)
    assert now.active_power_w == pytest.approx(ac_w, rel=0.01, abs=1e-6)
    if 0.0 < ac_w < 10_000.0:
        assert now.dc_power_w == pytest.approx(dc_w, rel=0.01)


def test_an_oversized_array_is_clipped_at_the_rating() -> None:
    now = step(inverter(rated_kw=10, area_m2=200))
    assert now.active_power_w == 10_000.0
    assert now.dc_power_w == pytest.approx(10_000.0 / 0.96)  # off the maximum power point, not lost as heat


def test_at_night_nothing_is_produced() -> None:
    now = step(inverter(), reactive(0.5), conditions=NIGHT)
    assert (now.inverter_status, now.dc_power_w, now.active_power_w, now.reactive_power_var) == (
        0,
        0.0,
        0.0,
        0.0,
    )
    assert now.power_factor == 1.0


def test_heat_lowers_the_power() -> None:
    cool, hot = step(inverter()), step(inverter(), conditions=NOON._replace(ambient_temp_c=40.0))
    assert hot.active_power_w < 0.95 * cool.active_power_w


# --- Limits


def test_a_limit_is_a_share_of_the_rating_and_moves_the_array_off_its_maximum() -> None:
    now = step(inverter(), limit(0.4))
    assert now.active_power_w == 4000.0
    assert 4000.0 < now.dc_power_w < 4300.0
    assert now.active_power_limit == 0.4


def test_a_limit_above_the_sun_does_nothing() -> None:
    weak = NOON._replace(irradiance_w_m2=200.0)
    free = step(inverter(), conditions=weak)
    assert step(inverter(), limit(0.5), conditions=weak).active_power_w == free.active_power_w


@pytest.mark.parametrize("ratio", [1.0, 2.0, 2.55])
def test_100_percent_and_more_limit_nothing(ratio: float) -> None:
    assert step(inverter(), limit(ratio)).active_power_w == pytest.approx(10_000.0)


def test_power_returns_when_the_limit_goes() -> None:
    unit = inverter()
    step(unit, limit(0.0))
    assert unit.measurements.inverter_status == 0
    assert step(unit, limit(2.55)).active_power_w == pytest.approx(10_000.0)


def test_it_is_on_at_the_start_and_can_be_switched_off_and_on() -> None:
    unit = inverter()
    assert (unit.measurements.remote_on_off, unit.measurements.inverter_status) == (1, 1)
    now = step(unit, OFF)
    assert (now.remote_on_off, now.inverter_status, now.active_power_w, now.dc_power_w) == (0, 0, 0.0, 0.0)
    assert step(unit, ON).active_power_w == pytest.approx(10_000.0)


# --- Reactive power


def test_a_ratio_is_a_share_of_the_rating_positive_out_of_the_inverter() -> None:
    now = step(inverter(), limit(0.5), reactive(-0.3))
    assert (now.active_power_w, now.reactive_power_var) == (5000.0, pytest.approx(-3000.0))
    assert now.power_factor == pytest.approx(-5.0 / math.hypot(5.0, 3.0))  # the sign of the reactive power


def test_active_power_has_priority_over_a_ratio() -> None:
    now = step(inverter(), limit(0.8), reactive(1.0))
    assert (now.active_power_w, now.reactive_power_var) == (8000.0, pytest.approx(6000.0))  # 3-4-5


def test_active_power_yields_to_a_power_factor() -> None:
    now = step(inverter(), power_factor(0.8))
    assert (now.active_power_w, now.reactive_power_var) == (pytest.approx(8000.0), pytest.approx(6000.0))
    assert now.power_factor == pytest.approx(0.8)


def test_a_negative_power_factor_takes_reactive_power() -> None:
    now = step(inverter(), power_factor(-0.9), conditions=NOON._replace(irradiance_w_m2=300.0))
    assert now.reactive_power_var < 0.0 < now.active_power_w
    assert now.power_factor == pytest.approx(-0.9)


def test_the_reactive_command_that_came_last_counts() -> None:
    unit = inverter()
    assert step(unit, reactive(0.1), power_factor(0.9), limit(0.5)).power_factor == pytest.approx(0.9)
    assert step(unit, reactive(0.1)).reactive_power_var == pytest.approx(1000.0)
    assert step(unit, power_factor(1.0)).reactive_power_var == 0.0


@pytest.mark.parametrize("value", [0.0, 0.05, -0.0999])
def test_next_to_zero_is_no_power_factor(value: float) -> None:
    unit = inverter()
    now = step(unit, reactive(0.2), limit(0.5), power_factor(value))
    assert (now.power_factor_setpoint, now.reactive_power_var) == (1.0, pytest.approx(2000.0))
    assert unit.commands["power_factor_setpoint"].accept(value) is None


@pytest.mark.parametrize("value", [0.1, -0.1, 1.0, -1.0])
def test_a_power_factor_that_is_accepted_is_the_one_that_acts(value: float) -> None:
    assert inverter().commands["power_factor_setpoint"].accept(value) == value
    now = step(inverter(), power_factor(value))
    assert now.power_factor_setpoint == value
    assert abs(now.power_factor) == pytest.approx(abs(value))


@given(
    st.floats(0.0, 1500.0),
    st.floats(-40.0, 60.0),
    st.lists(
        st.tuples(
            st.sampled_from(
                ["active_power_limit", "reactive_power_ratio", "power_factor_setpoint", "remote_on_off"]
            ),
            st.floats(-3.0, 3.0),
        ),
        max_size=6,
    ),
    st.floats(0.01, 3600.0),
)
@settings(max_examples=200, deadline=None)
def test_powers_are_consistent_and_within_the_rating(
    irradiance: float, air_c: float, writes: list[tuple[str, float]], dt_s: float
) -> None:
    unit = inverter(area_m2=70)
    surroundings = NOON._replace(irradiance_w_m2=irradiance, ambient_temp_c=air_c)
    now = step(unit, *(Command(name, value) for name, value in writes), dt_s=dt_s, conditions=surroundings)
    p, q = now.active_power_w, now.reactive_power_var
    assert now.apparent_power_va == pytest.approx(math.hypot(p, q), rel=1e-12)
    assert now.apparent_power_va <= 10_000.0 * (1.0 + 1e-12)
    assert 0.0 <= p <= now.active_power_limit * 10_000.0 * (1.0 + 1e-12)
    assert abs(now.power_factor) * now.apparent_power_va == pytest.approx(p, rel=1e-12)
    assert now.dc_power_w >= p
    assert now.dc_power_w <= 70 * 0.20 * irradiance * 1.25  # at -40 degC cells give up to a quarter more
    assert now.inverter_status == (1 if p > 0.0 else 0)


# --- Counters


def test_an_hour_at_5_kw_is_5_kwh() -> None:
    unit = inverter()
    now = step(unit, limit(0.5), dt_s=3600.0)
    assert now.today_energy_wh == now.lifetime_energy_wh == pytest.approx(5000.0)


def test_todays_energy_starts_at_zero_each_midnight_and_the_lifetime_energy_does_not() -> None:
    unit = inverter()
    step(unit, limit(0.5), dt_s=3600.0)
    now = step(unit, dt_s=60.0, conditions=NIGHT._replace(time_s=86_400.0))
    assert (now.today_energy_wh, now.lifetime_energy_wh) == (0.0, pytest.approx(5000.0))
    now = step(unit, dt_s=3600.0, conditions=NOON._replace(time_s=86_400.0 * 1.5))
    assert (now.today_energy_wh, now.lifetime_energy_wh) == (pytest.approx(5000.0), pytest.approx(10_000.0))


@pytest.mark.parametrize("dt_s", [0.1, 60.0])
def test_energy_is_power_times_time_and_the_days_add_up(dt_s: float) -> None:
    unit = inverter()
    energies: list[float] = []
    days = []
    steps = round(10_800.0 / dt_s)
    for day in range(3):
        for n in range(steps):
            conditions = NOON._replace(
                time_s=86_400.0 * day + n * dt_s + 36_000.0, irradiance_w_m2=333.3 + n % 97
            )
            now = step(unit, dt_s=dt_s, conditions=conditions)
            energies.append(now.active_power_w * dt_s / 3600.0)
        days.append(now.today_energy_wh)
    assert now.lifetime_energy_wh == pytest.approx(math.fsum(energies), rel=1e-13)
    by_day = [math.fsum(energies[day * steps : (day + 1) * steps]) for day in range(3)]
    assert days == pytest.approx(by_day, rel=1e-12)


def test_of_a_step_across_midnight_only_the_part_after_it_counts_for_the_day() -> None:
    # The sun does not shine at midnight, but that of a CSV series may.
    unit = inverter()
    step(unit, limit(0.4), dt_s=0.0, conditions=NOON._replace(time_s=86_000.0))
    now = step(unit, dt_s=3600.0, conditions=NOON._replace(time_s=86_400.0 + 900.0))
    assert (now.today_energy_wh, now.lifetime_energy_wh) == (pytest.approx(1000.0), pytest.approx(4000.0))


def test_a_step_of_no_length_counts_nothing() -> None:
    unit = inverter()
    before = unit.measurements
    assert step(unit, dt_s=0.0) == before
    assert before.lifetime_energy_wh == 0.0


def test_the_inverter_warms_under_load_and_cools_at_night() -> None:
    unit = inverter()
    assert step(unit, dt_s=3600.0).inverter_temp_c == pytest.approx(55.0, abs=0.1)
    for _ in range(3):
        now = step(unit, dt_s=3600.0, conditions=NIGHT)
    assert now.inverter_temp_c == pytest.approx(20.0, abs=0.01)


# --- Grid, commands, config, measurements


@pytest.mark.parametrize(
    ("conditions", "fault_code"),
    [(NOON._replace(voltage_ll_v=300.0), 1), (NOON._replace(frequency_hz=52.0), 2)],
)
def test_it_leaves_a_faulty_grid_and_returns_after_the_delay(conditions: Conditions, fault_code: int) -> None:
    unit = inverter()
    now = step(unit, conditions=conditions)
    assert (now.fault_code, now.inverter_status, now.active_power_w) == (fault_code, 0, 0.0)
    assert step(unit, dt_s=59.0).fault_code == fault_code
    now = step(unit, dt_s=1.0)
    assert (now.fault_code, now.inverter_status) == (0, 1)


def test_voltages_are_line_to_neutral() -> None:
    now = step(inverter())
    assert now.voltage_an_v == now.voltage_bn_v == now.voltage_cn_v == pytest.approx(230.94, abs=0.01)


def test_commands_beyond_their_range_are_clamped() -> None:
    now = step(inverter(), limit(99.0), reactive(-7.0), power_factor(math.inf), Command("heartbeat", -4.0))
    assert (now.active_power_limit, now.reactive_power_ratio) == (2.55, -1.0)
    assert (now.power_factor_setpoint, now.heartbeat) == (1.0, 0)


@pytest.mark.parametrize("command", [Command("remote_on_off", 3.0), limit(math.nan), power_factor(math.nan)])
def test_what_is_no_value_of_a_command_changes_nothing(command: Command) -> None:
    unit = inverter()
    before = unit.measurements
    assert step(unit, command, dt_s=0.0) == before


def test_an_unknown_command_is_an_error_that_names_it() -> None:
    with pytest.raises(KeyError, match="active_power_rate"):
        step(inverter(), Command("active_power_rate", 1.0))


def test_every_command_reads_back() -> None:
    now = step(inverter(), OFF, limit(0.7), reactive(-0.2), power_factor(-0.95), Command("heartbeat", 77.0))
    assert (now.remote_on_off, now.active_power_limit, now.reactive_power_ratio) == (0, 0.7, -0.2)
    assert (now.power_factor_setpoint, now.heartbeat) == (-0.95, 77)


def test_a_silent_ems_stops_the_feed_in_until_it_sets_a_new_limit() -> None:
    unit = inverter(watchdog={"timeout_s": 10})
    now = step(unit, dt_s=10.0)
    assert (now.active_power_w, now.watchdog_expired, now.active_power_limit) == (0.0, 1, 0.0)
    now = step(unit, limit(0.6))
    assert (now.active_power_w, now.watchdog_expired) == (6000.0, 0)


@pytest.mark.parametrize(
    "broken",
    [{"rated_kw": 0}, {"rated_kw": -5}, {"module_efficiency": 1.2}, {"area_m2": 0}, {"rated_kwp": 10}],
)
def test_an_impossible_inverter_is_refused(broken: dict[str, object]) -> None:
    with pytest.raises(ValidationError):
        PvInverterConfig.model_validate({"type": "inverter", **broken})


def test_every_classic_name_of_an_inverter_has_its_value() -> None:
    known = {*PvInverterMeasurements._fields, *inverter().commands}
    assert {name for name, _ in CLASSIC["inverter"].values()} <= known


def test_the_state_is_plain_data() -> None:
    unit = inverter()
    step(unit, power_factor(0.9))
    assert json.loads(json.dumps(asdict(unit.state))) == asdict(unit.state)
