"""A turbocharged lean-burn gas engine over its load, in steady state.

Load is electrical power relative to rated. Where a source is given, the straight lines pass through
the published points at 50 and 100 % load of a 3.1 MW set (Caterpillar G3616, 07/07: exhaust stack
433 and 388 degC, intake manifold 1.31 and 2.38 bar absolute).
"""

ATMOSPHERE_BAR = 1.013
NOMINAL_SPEED_RPM = 1500.0  # four poles at 50 Hz
RPM_PER_HZ = 30.0

# The usual heating circuit of a gas engine is 90/70 degC at full load.
COOLANT_OUTLET_C = 90.0
COOLANT_SPREAD_K = 20.0
PREHEATED_COOLANT_C = 50.0
OIL_C = 85.0
OIL_PRESSURE_BAR = 4.5
PRELUBE_PRESSURE_BAR = 0.5

# Our choice: minutes to warm up, hours to cool down; the pipe of the exhaust is quicker.
COOLANT_TAU_S = 180.0
OIL_TAU_S = 300.0
EXHAUST_TAU_S = 30.0
HEAT_TAU_S = 120.0
COOLING_TAU_S = 7200.0
EXHAUST_COOLING_TAU_S = 600.0

# Gas engines load at 100 % a minute and more (Waertsilae, "Combustion engine vs gas turbine: ramp rate").
LOADING_PER_S = 1.0 / 60.0
# A stop takes 20 s; unloading from 110 % uses the first half of it.
UNLOADING_PER_S = 0.11


def exhaust_temp_c(load: float) -> float:
    """Return the exhaust temperature (degC) of the loaded engine."""
    return 478.0 - 90.0 * load


def charge_pressure_bar(load: float) -> float:
    """Return the charge pressure (bar above atmosphere)."""
    return max(0.0, 0.24 + 2.14 * load - ATMOSPHERE_BAR)


def throttle_position(load: float) -> float:
    """Return the throttle opening (0..1) of the running engine: a tenth at no load, wide open at 110 %."""
    return min(1.0, 0.1 + 0.9 * load / 1.1)


def ramp_energy_j(start_w: float, end_w: float, target_w: float, rate_w_per_s: float, dt_s: float) -> float:
    """Return the energy (J) of dt_s (s) in which power goes from start_w to end_w at its rate and then holds.

    end_w is where the ramp towards target_w has come after dt_s.
    """
    if start_w == end_w:
        return start_w * dt_s
    ramping_s = min(dt_s, abs(target_w - start_w) / rate_w_per_s)
    return (start_w + end_w) * 0.5 * ramping_s + end_w * (dt_s - ramping_s)
