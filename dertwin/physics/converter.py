"""A grid converter: its efficiency, and how active and reactive power share its rating."""

import math

# PVWatts version 5 manual (Dobos, NREL/TP-6A20-62641, 2014), eq. 10 and 11.
NOMINAL_EFFICIENCY = 0.96
REFERENCE_EFFICIENCY = 0.9637
_QUADRATIC, _CONSTANT, _LINEAR = 0.0162, 0.0059, 0.9858
_SCALE = NOMINAL_EFFICIENCY / REFERENCE_EFFICIENCY


def ac_power_w(dc_power_w: float, rated_w: float) -> float:
    """Return the AC power (W) of an inverter rated at rated_w (W, AC) for a DC power (W): 0..rated_w."""
    full_dc_w = rated_w / NOMINAL_EFFICIENCY
    if dc_power_w >= full_dc_w:
        return rated_w
    power_w = _SCALE * (
        _LINEAR * dc_power_w - _CONSTANT * full_dc_w - _QUADRATIC * dc_power_w * dc_power_w / full_dc_w
    )
    return 0.0 if power_w < 0.0 else min(power_w, rated_w)


def dc_power_w(power_w: float, rated_w: float) -> float:
    """Return the DC power (W) that an inverter takes to give an AC power (W): the inverse of ac_power_w.

    Giving nothing it takes nothing.
    """
    if power_w <= 0.0:
        return 0.0
    full_dc_w = rated_w / NOMINAL_EFFICIENCY
    a = _QUADRATIC / full_dc_w
    c = _CONSTANT * full_dc_w + power_w / _SCALE
    return (_LINEAR - math.sqrt(_LINEAR * _LINEAR - 4.0 * a * c)) / (2.0 * a)


def reactive_within(reactive_var: float, active_w: float, rating_va: float) -> float:
    """Return the reactive power (var) cut to what the active power (W) leaves of the rating (VA)."""
    room = rating_va * rating_va - active_w * active_w
    if room <= 0.0:
        return 0.0
    if reactive_var * reactive_var <= room:
        return reactive_var
    return math.copysign(math.sqrt(room), reactive_var)
