"""The only primitives that anything moves with: limit, ramp, lag and count."""

from decimal import Context, Decimal
from functools import lru_cache

DAY_S = 86400.0

# Times are sums of steps and means of many values: ten steps of 0.1 s miss a second by a rounding.
TOLERANCE = 1e-9

# Our own, so that no setting of the caller's changes a result; far finer than a float.
_DECIMAL = Context(prec=30)


def clamp(value: float, low: float, high: float) -> float:
    """Return value limited to low..high; low wins if the limits are reversed."""
    if value > high:
        value = high
    return low if value < low else value


def ramp(current: float, target: float, rate_per_s: float, dt_s: float) -> float:
    """Return current moved towards target at rate_per_s (units per s, >= 0) for dt_s, never beyond it."""
    most = rate_per_s * dt_s
    if target > current + most:
        return current + most
    if target < current - most:
        return current - most
    return target


def lag(current: float, target: float, tau_s: float, dt_s: float) -> float:
    """Return a first-order lag after dt_s: the exact solution for a constant target, stable at any step.

    tau_s (s) is the time constant; 0 means that the target is reached at once.
    """
    return target + (current - target) * decay(dt_s, tau_s)


def count(total: float, rest: float, amount: float) -> tuple[float, float]:
    """Return a counter's new total after an amount, and the rest: what the total's digits could not hold.

    Handing the rest back with the next amount keeps a total of any number of steps right to its
    last digit (Kahan, Commun. ACM 8 (1965) 40). For amounts >= 0 the total never falls.
    """
    amount += rest
    if amount < 0.0:
        return total, amount  # the total was rounded up by more than what has come since
    new_total = total + amount
    return new_total, amount - (new_total - total)


@lru_cache(maxsize=1024)
def decay(dt_s: float, tau_s: float) -> float:
    """Return exp(-dt_s / tau_s), 0 for tau_s = 0, rounded correctly so that every machine agrees."""
    if tau_s <= 0.0:
        return 0.0
    return float(_DECIMAL.exp(_DECIMAL.divide(Decimal(-dt_s), Decimal(tau_s))))
