"""The battery's voltage, derating and ageing."""

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from dertwin.physics.battery import (
    CELLS_IN_SERIES,
    OPEN_CIRCUIT_V,
    RESISTANCE_OHM_KWH,
    charge_factor,
    discharge_factor,
    open_circuit_voltage_v,
    state_of_health,
    temperature_factor,
    terminals,
)

socs = st.floats(0.0, 1.0)


def cell_potential_v(soc: float) -> float:
    """Afshar et al., arXiv:1709.03970, less the plateau of graphite, cut at the charge limit."""
    x = 1.0 - soc
    lfp = 3.4077 - 0.020269 * x + 0.5 * math.exp(-150.0 * x) - 0.9 * math.exp(-30.0 * (1.0 - x))
    return min(lfp - 0.10, 3.65)


def test_a_half_full_string_of_lfp_cells_has_its_plateau_voltage() -> None:
    assert open_circuit_voltage_v(0.5) == pytest.approx(240 * 3.298)


def test_every_point_of_the_voltage_table_is_that_of_its_source() -> None:
    for soc, cell_v in OPEN_CIRCUIT_V:
        assert cell_v == pytest.approx(cell_potential_v(soc), abs=0.0006)


@given(socs)
def test_between_its_points_the_voltage_is_within_4_percent_of_its_source(soc: float) -> None:
    # The steep ends are straight lines here: the only place where the error is more than a promille.
    error = abs(open_circuit_voltage_v(soc) / (CELLS_IN_SERIES * cell_potential_v(soc)) - 1.0)
    assert error < (0.002 if 0.1 <= soc <= 0.95 else 0.04)


@given(socs, socs)
def test_voltage_rises_with_the_state_of_charge(one: float, other: float) -> None:
    low, high = sorted((one, other))
    assert open_circuit_voltage_v(low) <= open_circuit_voltage_v(high)


def test_voltage_ends_at_the_ends_of_its_table() -> None:
    assert open_circuit_voltage_v(0.0) == 240 * 2.387
    assert open_circuit_voltage_v(1.0) == 240 * 3.650


@pytest.mark.parametrize(
    ("soc", "factor"), [(0.0, 0.0), (0.20, 0.0), (0.225, 0.5), (0.25, 1.0), (0.5, 1.0), (1.0, 1.0)]
)
def test_discharge_is_whole_above_lower_1_and_falls_linearly_to_zero_at_lower_2(
    soc: float, factor: float
) -> None:
    assert discharge_factor(soc, 0.25, 0.20) == pytest.approx(factor, abs=1e-12)


@pytest.mark.parametrize(
    ("soc", "factor"), [(0.0, 1.0), (0.5, 1.0), (0.85, 1.0), (0.875, 0.5), (0.90, 0.0), (1.0, 0.0)]
)
def test_charge_is_whole_below_upper_1_and_falls_linearly_to_zero_at_upper_2(
    soc: float, factor: float
) -> None:
    assert charge_factor(soc, 0.85, 0.90) == pytest.approx(factor, abs=1e-12)


def test_equal_limits_cut_without_a_slope() -> None:
    assert [discharge_factor(soc, 0.2, 0.2) for soc in (0.19, 0.2, 0.21)] == [0.0, 0.0, 1.0]
    assert [charge_factor(soc, 0.9, 0.9) for soc in (0.89, 0.9, 0.91)] == [1.0, 0.0, 0.0]


@given(socs, socs, socs)
def test_limits_in_any_order_give_a_share(soc: float, first: float, second: float) -> None:
    assert 0.0 <= discharge_factor(soc, first, second) <= 1.0
    assert 0.0 <= charge_factor(soc, first, second) <= 1.0


@pytest.mark.parametrize(
    ("temp_c", "factor"),
    [
        (-30.0, 0.5),
        (0.0, 0.5),
        (0.1, 0.8),
        (10.0, 0.8),
        (10.1, 1.0),
        (40.0, 1.0),
        (40.1, 0.8),
        (50.0, 0.8),
        (50.1, 0.5),
        (60.0, 0.5),
        (60.1, 0.0),
        (90.0, 0.0),
    ],
)
def test_temperature_derates_in_bands(temp_c: float, factor: float) -> None:
    assert temperature_factor(temp_c) == factor


def test_resistance_and_ageing_are_those_of_the_data_sheet() -> None:
    # 12.8 V, 300 Ah, 1 milliohm: 240 cells in series are 60 of these batteries.
    assert pytest.approx(60 * 0.001 * 60 * 12.8 * 0.3) == RESISTANCE_OHM_KWH
    # 2500 cycles of 80 % until 80 % are left, so less than 1 % in 100 full cycles.
    assert state_of_health(0.0) == 1.0
    assert state_of_health(2500.0 * 0.8) == pytest.approx(0.8)


def test_health_never_falls_below_half() -> None:
    assert state_of_health(1e9) == 0.5


def test_terminals_of_a_discharging_battery_by_hand() -> None:
    # 791.52 V open circuit; 79152 W need 100 A, 0.1 ohm takes 10 V and makes 1 kW of heat.
    voltage_v, current_a, heat_w = terminals(79_152.0, 0.5, 0.1, 5000.0)
    assert voltage_v == pytest.approx(781.52)
    assert current_a == pytest.approx(100.0)
    assert heat_w == pytest.approx(1000.0)


def test_a_charging_battery_has_more_than_its_open_circuit_voltage() -> None:
    voltage_v, current_a, heat_w = terminals(-79_152.0, 0.5, 0.1, 5000.0)
    assert voltage_v == pytest.approx(801.52)
    assert current_a == pytest.approx(-100.0)
    assert heat_w == pytest.approx(1000.0)


def test_an_idle_battery_shows_its_open_circuit_voltage() -> None:
    assert terminals(0.0, 0.5, 0.1, 0.0) == (open_circuit_voltage_v(0.5), 0.0, 0.0)


@given(
    st.floats(-1e6, 1e6).filter(lambda power_w: abs(power_w) > 1e-3),
    socs,
    st.floats(0.0, 10.0),
    st.floats(0.0, 0.5),
)
def test_what_leaves_the_cells_is_terminal_power_and_heat_and_never_more_heat_than_losses(
    cell_power_w: float, soc: float, resistance_ohm: float, loss: float
) -> None:
    loss_w = loss * abs(cell_power_w)
    voltage_v, current_a, heat_w = terminals(cell_power_w, soc, resistance_ohm, loss_w)
    assert 0.0 <= heat_w <= loss_w
    assert voltage_v * current_a == pytest.approx(cell_power_w - heat_w, rel=1e-12)
