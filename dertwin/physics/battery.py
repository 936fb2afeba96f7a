"""A lithium iron phosphate battery: voltage, derating and ageing."""

from bisect import bisect_right

CELLS_IN_SERIES = 240

# Open-circuit voltage (V) of a cell over state of charge. Potential of LFP against lithium after
# Afshar, Morris and Khajepour, arXiv:1709.03970: 3.4077 - 0.020269 x + 0.5 exp(-150 x)
# - 0.9 exp(-30 (1 - x)) at x = 1 - soc, less 0.10 V for the plateau of a graphite anode, cut at the
# usual charge limit of 3.65 V.
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
_SOC = tuple(soc for soc, _ in OPEN_CIRCUIT_V)
_STRING_V = tuple(CELLS_IN_SERIES * cell_v for _, cell_v in OPEN_CIRCUIT_V)
_LAST_SECTION = len(_SOC) - 2

# Resistance and ageing are those of the LFP battery 12.8 V / 300 Ah in Victron Energy, "Lithium NG battery
# 12,8V" manual, technical data: 3.84 kWh and 1 milliohm of four cells in series; 2500 cycles of 80 % until
# 80 % of the capacity are left. A string of 240 cells, 60 such batteries, has 230.4 kWh and 0.06 ohm; more
# capacity is more strings.
RESISTANCE_OHM_KWH = 0.06 * 230.4
CYCLES_TO_80_PERCENT = 2500.0 * 0.8
# Our choice: where a battery is past its use, the line of ageing ends.
LEAST_STATE_OF_HEALTH = 0.5
# About 1 kJ/(kg K) (Bryden et al., J. Power Sources 395 (2018) 369); our choice: 6 kg of cells for a kWh.
HEAT_CAPACITY_J_PER_K_KWH = 6000.0
# Our choice: cells follow the air within hours (6000 s), as in air-cooled racks.
HEAT_CONDUCTANCE_W_PER_K_KWH = 1.0


def open_circuit_voltage_v(soc: float) -> float:
    """Return the open-circuit voltage (V) of a string at a state of charge, linear between the points."""
    i = bisect_right(_SOC, soc, 1, _LAST_SECTION + 1) - 1
    low_soc = _SOC[i]
    low_v = _STRING_V[i]
    return low_v + (_STRING_V[i + 1] - low_v) * (soc - low_soc) / (_SOC[i + 1] - low_soc)


def discharge_factor(soc: float, lower_1: float, lower_2: float) -> float:
    """Return the share of the rated discharge power: all from lower_1 up, linear to none at lower_2."""
    if soc <= lower_2:
        return 0.0
    if soc >= lower_1:
        return 1.0
    return (soc - lower_2) / (lower_1 - lower_2)


def charge_factor(soc: float, upper_1: float, upper_2: float) -> float:
    """Return the share of the rated charge power: all up to upper_1, linear to none at upper_2."""
    if soc >= upper_2:
        return 0.0
    if soc <= upper_1:
        return 1.0
    return (upper_2 - soc) / (upper_2 - upper_1)


def temperature_factor(temp_c: float) -> float:
    """Return the share of the rated power, charge or discharge, that a cell temperature (degC) allows."""
    if 10.0 < temp_c <= 40.0:
        return 1.0
    if temp_c <= 0.0:
        return 0.5
    if temp_c <= 50.0:
        return 0.8
    return 0.5 if temp_c <= 60.0 else 0.0


def state_of_health(cycles: float) -> float:
    """Return the share of the rated capacity that is left after so many full cycles: linear, at least 0.5.

    A cycle is the discharge of the rated capacity. Capacity so fades only while discharging, and by
    1/10000 of what leaves the store: it takes empty room and never energy.
    """
    left = 1.0 - 0.2 * cycles / CYCLES_TO_80_PERCENT
    return left if left > LEAST_STATE_OF_HEALTH else LEAST_STATE_OF_HEALTH


def terminals(
    cell_power_w: float, soc: float, resistance_ohm: float, loss_w: float
) -> tuple[float, float, float]:
    """Return voltage (V), current (A, + = discharge) and heat (W) of cells that give cell_power_w.

    cell_power_w (W, + = discharge) leaves the electrochemical store, so the current is I = P / U_oc,
    the heat I2 R and the voltage U = U_oc - I R; U I is the power at the terminals. loss_w (W) is all
    that is lost between store and grid: the resistance counts only as far as its heat is within that.
    """
    open_circuit_v = open_circuit_voltage_v(soc)
    current_a = cell_power_w / open_circuit_v
    heat_w = current_a * current_a * resistance_ohm
    if heat_w <= loss_w:
        return open_circuit_v - current_a * resistance_ohm, current_a, heat_w
    return open_circuit_v - loss_w / current_a, current_a, loss_w
