"""Temperature of a body that is heated inside and cooled by its surroundings."""

from dertwin.stepping import lag


def temperature_after(
    temp_c: float,
    ambient_c: float,
    heat_w: float,
    capacity_j_per_k: float,
    conductance_w_per_k: float,
    dt_s: float,
) -> float:
    """Return the temperature (degC) after dt_s (s) of constant heat (W) and ambient temperature (degC).

    C dT/dt = heat - G (T - ambient) has the exact solution of a first-order lag towards
    ambient + heat / G with the time constant C / G, so any step length is stable.
    """
    settled_c = ambient_c + heat_w / conductance_w_per_k
    return lag(temp_c, settled_c, capacity_j_per_k / conductance_w_per_k, dt_s)
