"""A lithium iron phosphate battery: voltage, derating and ageing."""

from typing import NamedTuple

CELLS_IN_SERIES = 240

# Potential of LFP against lithium by Afshar et al., arXiv:1709.03970, eq. for LiFePO4:
# 3.4077 - 0.020269 x + 0.5 exp(-150 x) - 0.9 exp(-30 (1 - x)) at x = 1 - soc, less 0.10 V for the
# plateau of a graphite anode, cut at the usual charge limit of 3.65 V.
OPEN_CIRCUIT_V = (
    (0.00, 2.387),
    (0.02, 2.794),
    (0.05, 3.088),
    (0.10, 3.245),
    (0.15, 3.280),
    (0.20, 3.289),
    (0.30, 3.293),
    (0.50, 3.298),
    (0.70, 3.302),
    (0.90, 3.306),
    (0.95, 3.307),
    (0.98, 3.332),
    (0.99, 3.419),
    (1.00, 3.650),
)

# Data sheets of 280 Ah prismatic LFP cells (e.g. EVE LF280K): 0.25 milliohm, 3.2 V, 5.4 kg,
# 6000 cycles to 80 % of the capacity; 240 of them in series hold 215 kWh and have 0.06 ohm.
RESISTANCE_OHM_KWH = 12.9
CYCLES_TO_80_PERCENT = 6000.0
# About 1 kJ/(kg K) (Bryden et al., J. Power Sources 395 (2018) 369) at 6.0 kg/kWh of cells.
HEAT_CAPACITY_J_PER_K_KWH = 6000.0
# Chosen so that a module settles within hours, as air-cooled racks do.
HEAT_CONDUCTANCE_W_PER_K_KWH = 1.0


class SocLimits(NamedTuple):
    """State of charge (0..1) between which power falls linearly to zero."""

    lower_1: float
    lower_2: float
    upper_1: float
    upper_2: float


def open_circuit_voltage_v(soc: float) -> float:
    """Return the open-circuit voltage (V) of the string at a state of charge, linear between points."""
    low_soc, low_v = OPEN_CIRCUIT_V[0]
    for high_soc, high_v in OPEN_CIRCUIT_V:
        if soc <= high_soc:
            break
        low_soc, low_v = high_soc, high_v
    if high_soc == low_soc:
        return CELLS_IN_SERIES * high_v
    return CELLS_IN_SERIES * (low_v + (high_v - low_v) * (soc - low_soc) / (high_soc - low_soc))


def discharge_factor(soc: float, limits: SocLimits) -> float:
    """Return the share of the rated discharge power that a state of charge allows (0..1)."""
    if soc >= limits.lower_1 and soc > limits.lower_2:
        return 1.0
    if soc <= limits.lower_2:
        return 0.0
    return (soc - limits.lower_2) / (limits.lower_1 - limits.lower_2)


def charge_factor(soc: float, limits: SocLimits) -> float:
    """Return the share of the rated charge power that a state of charge allows (0..1)."""
    if soc <= limits.upper_1 and soc < limits.upper_2:
        return 1.0
    if soc >= limits.upper_2:
        return 0.0
    return (limits.upper_2 - soc) / (limits.upper_2 - limits.upper_1)


def temperature_factor(temp_c: float) -> float:
    """Return the share of the rated power that a cell temperature (degC) allows (0..1)."""
    if 10.0 < temp_c <= 40.0:
        return 1.0
    if temp_c <= 0.0:
        return 0.5
    if temp_c <= 50.0:
        return 0.8
    return 0.5 if temp_c <= 60.0 else 0.0


def state_of_health(cycles: float) -> float:
    """Return the share of the rated capacity that is left after full cycles: linear, never below 0.5."""
    return max(0.5, 1.0 - 0.2 * cycles / CYCLES_TO_80_PERCENT)


class Terminals(NamedTuple):
    """What the converter sees of the battery: voltage (V), current (A, + = discharge), heat in the cells (W)."""

    voltage_v: float
    current_a: float
    heat_w: float


def terminals(cell_power_w: float, soc: float, resistance_ohm: float, loss_w: float) -> Terminals:
    """Return voltage, current and heat while the cells give cell_power_w (W, + = discharge).

    The current follows from the power that leaves the electrochemical store, I = P / U_oc; then
    U = U_oc - I R and the heat is I2 R. loss_w (W) is all that is lost between store and grid: the
    resistance counts only as far as its heat does not exceed that.
    """
    open_circuit_v = open_circuit_voltage_v(soc)
    current_a = cell_power_w / open_circuit_v
    heat_w = current_a * current_a * resistance_ohm
    if heat_w > loss_w:
        heat_w = loss_w
    drop_v = heat_w / current_a if current_a != 0.0 else 0.0
    return Terminals(open_circuit_v - drop_v, current_a, heat_w)
