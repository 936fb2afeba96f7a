"""The array's cell temperature and DC power, against pvlib."""

import pytest
from pvlib.pvsystem import pvwatts_dc
from pvlib.temperature import faiman

from dertwin.physics.pv import POWER_PER_K, array_power_w, cell_temp_c

IRRADIANCES = [0.0, 1.0, 50.0, 200.0, 400.0, 600.0, 800.0, 1000.0, 1200.0, 1400.0]
AIR_TEMPS = [-30.0, -10.0, 0.0, 10.0, 20.0, 30.0, 45.0]


def test_an_array_gives_its_nominal_power_at_standard_test_conditions() -> None:
    assert array_power_w(1000.0, 25.0, 5000.0) == 5000.0


def test_each_kelvin_costs_a_third_of_a_percent() -> None:
    assert array_power_w(1000.0, 35.0, 5000.0) == pytest.approx(5000.0 * (1.0 - 0.035))


def test_the_sun_at_1000_w_m2_warms_cells_by_31_k_in_a_light_wind() -> None:
    assert cell_temp_c(1000.0, 20.0) == pytest.approx(20.0 + 1000.0 / 31.84)


def test_cells_in_the_dark_have_the_temperature_of_the_air_and_give_nothing() -> None:
    assert cell_temp_c(0.0, -7.0) == -7.0
    assert array_power_w(0.0, -7.0, 5000.0) == 0.0


def test_no_temperature_makes_an_array_take_power() -> None:
    assert array_power_w(1000.0, 400.0, 5000.0) == 0.0


@pytest.mark.parametrize("irradiance", IRRADIANCES)
@pytest.mark.parametrize("air_c", AIR_TEMPS)
def test_cell_temperature_and_power_are_those_of_pvlib(irradiance: float, air_c: float) -> None:
    cell_c = cell_temp_c(irradiance, air_c)
    assert cell_c == pytest.approx(float(faiman(irradiance, air_c, wind_speed=1.0)), rel=1e-12)
    reference_w = float(pvwatts_dc(irradiance, cell_c, 5000.0, POWER_PER_K))
    assert array_power_w(irradiance, cell_c, 5000.0) == pytest.approx(reference_w, rel=1e-12)
