"""The energy meter: consistent phases, energies, demand."""

import math
from dataclasses import asdict

import pytest
from hypothesis import given
from hypothesis import strategies as st

from dertwin.devices.classic import CLASSIC
from dertwin.devices.device import Command, Conditions, PccFlow
from dertwin.devices.meter import EnergyMeter, EnergyMeterConfig, EnergyMeterMeasurements

CALM = Conditions(0.0, 0.0, 20.0, 50.0, 400.0, 0.0)
Power = st.floats(-1e8, 1e8)


def meter() -> EnergyMeter:
    return EnergyMeterConfig(type="energy_meter").build()


def measured(power_w: float, reactive_var: float = 0.0, dt_s: float = 1.0) -> EnergyMeterMeasurements:
    return meter().step(CALM, (), 0, dt_s, PccFlow(power_w, reactive_var))


def run(device: EnergyMeter, power_w: float, duration_s: float, dt_s: float) -> EnergyMeterMeasurements:
    for _ in range(round(duration_s / dt_s)):
        result = device.step(CALM, (), 0, dt_s, PccFlow(power_w, 0.0))
    return result


@given(Power, Power)
def test_phases_add_up_and_apparent_power_is_that_of_active_and_reactive(
    power_w: float, reactive_var: float
) -> None:
    m = measured(power_w, reactive_var)
    assert (m.active_power_w, m.reactive_power_var) == (power_w, reactive_var)
    for total, phases in (
        (m.active_power_w, (m.active_power_a_w, m.active_power_b_w, m.active_power_c_w)),
        (m.reactive_power_var, (m.reactive_power_a_var, m.reactive_power_b_var, m.reactive_power_c_var)),
        (m.apparent_power_va, (m.apparent_power_a_va, m.apparent_power_b_va, m.apparent_power_c_va)),
        (m.import_energy_wh, (m.import_energy_a_wh, m.import_energy_b_wh, m.import_energy_c_wh)),
        (m.export_energy_wh, (m.export_energy_a_wh, m.export_energy_b_wh, m.export_energy_c_wh)),
    ):
        assert math.fsum(phases) == pytest.approx(total, rel=1e-12)
    assert m.apparent_power_va == pytest.approx(math.hypot(power_w, reactive_var), rel=1e-9, abs=1e-150)
    for volt, ampere, va in (
        (m.voltage_an_v, m.current_a_a, m.apparent_power_a_va),
        (m.voltage_bn_v, m.current_b_a, m.apparent_power_b_va),
        (m.voltage_cn_v, m.current_c_a, m.apparent_power_c_va),
    ):
        assert volt * ampere == pytest.approx(va, rel=1e-12)


def test_a_known_flow_gives_known_values() -> None:
    m = measured(-24_000.0, 7_000.0)
    assert m.apparent_power_va == 25_000.0
    assert m.power_factor == -0.96
    assert m.voltage_an_v == pytest.approx(230.940107675850)
    assert m.current_a_a == pytest.approx(25_000.0 / 3.0 / 230.940107675850)
    assert m.frequency_hz == 50.0


def test_the_power_factor_is_one_when_nothing_flows_and_zero_for_reactive_power_alone() -> None:
    assert measured(0.0, 0.0).power_factor == 1.0
    assert measured(0.0, 500.0).power_factor == 0.0


@given(st.lists(st.tuples(Power, st.sampled_from([0.0, 0.01, 0.1, 60.0, 3600.0])), max_size=50))
def test_counters_never_go_back_and_are_the_sums_of_import_and_export(
    flows: list[tuple[float, float]],
) -> None:
    device = meter()
    before = device.measurements
    energies = []
    for power_w, dt_s in flows:
        m = device.step(CALM, (), 0, dt_s, PccFlow(power_w, 0.0))
        assert m.import_energy_wh >= before.import_energy_wh
        assert m.export_energy_wh >= before.export_energy_wh
        assert m.max_demand_power_w >= before.max_demand_power_w
        energies.append(power_w * dt_s / 3600.0)
        before = m
    imported = math.fsum(energy for energy in energies if energy > 0.0)
    exported = -math.fsum(energy for energy in energies if energy < 0.0)
    assert before.import_energy_wh == pytest.approx(imported, rel=1e-12)
    assert before.export_energy_wh == pytest.approx(exported, rel=1e-12)


@pytest.mark.parametrize("dt_s", [0.1, 60.0])
def test_energy_is_power_times_time_to_the_last_digits_over_a_day(dt_s: float) -> None:
    m = run(meter(), 1234.5, 86_400.0, dt_s)
    assert m.import_energy_wh == pytest.approx(1234.5 * 24.0, rel=1e-14)
    assert m.export_energy_wh == 0.0


@pytest.mark.parametrize("dt_s", [0.01, 0.1, 1.0, 7.5, 60.0, 900.0, 3600.0])
def test_demand_reaches_the_load_after_fifteen_minutes_at_any_step(dt_s: float) -> None:
    device = meter()
    if dt_s <= 300.0:
        third = run(device, 9000.0, 300.0, dt_s)
        assert third.demand_power_w == pytest.approx(3000.0, rel=1e-6)
    full = run(device, 9000.0, max(900.0, dt_s), dt_s)
    assert full.demand_power_w == pytest.approx(9000.0, rel=1e-9)
    gone = run(device, 0.0, max(900.0, dt_s), dt_s)
    assert gone.demand_power_w == pytest.approx(0.0, abs=1e-6)
    assert gone.max_demand_power_w == pytest.approx(9000.0, rel=1e-9)


def test_export_counts_negative_in_the_demand_and_is_no_maximum() -> None:
    m = run(meter(), -9000.0, 900.0, 1.0)
    assert m.demand_power_w == pytest.approx(-9000.0)
    assert m.max_demand_power_w == 0.0


def test_settings_read_back_and_change_no_primary_value() -> None:
    device = meter()
    written = (
        Command("current_transformer_ratio", 100.0),
        Command("interval_time_s", 60.0),
        Command("heartbeat", 7.0),
    )
    m = device.step(CALM, written, 1, 1.0, PccFlow(5000.0, 0.0))
    assert (m.current_transformer_ratio, m.interval_time_s, m.heartbeat) == (100.0, 60.0, 7)
    assert m[:10] == measured(5000.0)[:10]


def test_values_beyond_a_setting_s_range_read_back_clamped() -> None:
    m = meter().step(
        CALM, (Command("current_transformer_ratio", -3.0), Command("interval_time_s", 1e9)), 1, 1.0
    )
    assert (m.current_transformer_ratio, m.interval_time_s) == (1.0, 86400.0)


def test_a_step_of_no_length_counts_nothing() -> None:
    device = meter()
    run(device, 5000.0, 100.0, 1.0)
    before = asdict(device.state)
    device.step(CALM, (), 0, 0.0, PccFlow(5000.0, 0.0))
    assert asdict(device.state) == before


def test_every_classic_name_of_a_meter_is_a_measurement_or_command() -> None:
    names = {*EnergyMeterMeasurements._fields, *meter().commands}
    assert {si_name for si_name, _ in CLASSIC["energy_meter"].values()} <= names
