"""A photovoltaic array: cell temperature and DC power."""

REFERENCE_IRRADIANCE_W_M2 = 1000.0
REFERENCE_TEMP_C = 25.0

# Crystalline silicon of the efficiency class of today's modules ("premium", 19 %): PVWatts version 5
# manual (Dobos, NREL/TP-6A20-62641, 2014).
POWER_PER_K = -0.0035

# Faiman, Prog. Photovolt. 16 (2008) 307, u0 + u1 v at 1 m/s of wind.
HEAT_LOSS_W_M2_K = 25.0 + 6.84 * 1.0


def cell_temp_c(irradiance_w_m2: float, ambient_c: float) -> float:
    """Return the cell temperature (degC) in a light wind, from irradiance (W/m2) and air (degC)."""
    return ambient_c + irradiance_w_m2 / HEAT_LOSS_W_M2_K


def array_power_w(irradiance_w_m2: float, cell_c: float, reference_w: float) -> float:
    """Return the DC power (W, >= 0) of an array that gives reference_w at 1000 W/m2 and 25 degC.

    Source: PVWatts version 5 manual, eq. 8.
    """
    power_w = (
        reference_w
        * (irradiance_w_m2 / REFERENCE_IRRADIANCE_W_M2)
        * (1.0 + POWER_PER_K * (cell_c - REFERENCE_TEMP_C))
    )
    return power_w if power_w > 0.0 else 0.0
