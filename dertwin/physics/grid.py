"""Interface protection: when a unit must leave the grid, and when it may come back."""

from dataclasses import dataclass, field
from typing import NamedTuple

from dertwin.physics.sliding import SlidingMean
from dertwin.stepping import TOLERANCE

CONNECTED = 0
VOLTAGE = 1
FREQUENCY = 2

# The rule asks for a 10-minute mean that is renewed often enough; 30 s buckets follow a constant
# voltage exactly and keep a unit's history at 20 numbers.
MEAN_BUCKET_S = 30.0
MEAN_BUCKETS = 20


class GridLimits(NamedTuple):
    """Limits of the interface protection: voltages relative to nominal (1 = nominal), Hz, s.

    `over_voltage_mean_pu` (U>) acts on the 10-minute mean; the others trip once the value has been
    beyond its limit for its time. After a trip the unit returns when voltage and frequency have
    been within the reconnection band for `reconnect_s`.
    """

    over_voltage_mean_pu: float
    over_voltage_pu: float
    over_voltage_s: float
    under_voltage_pu: float
    under_voltage_s: float
    deep_under_voltage_pu: float
    deep_under_voltage_s: float
    over_frequency_hz: float
    over_frequency_s: float
    under_frequency_hz: float
    under_frequency_s: float
    reconnect_s: float
    reconnect_min_pu: float
    reconnect_max_pu: float
    reconnect_min_hz: float
    reconnect_max_hz: float


def _nominal_history() -> SlidingMean:
    return SlidingMean.of(1.0, MEAN_BUCKET_S, MEAN_BUCKETS)


@dataclass(slots=True)
class TripState:
    """What the protection remembers: the cause of the trip (0 connected), its timers, the voltage's mean."""

    cause: int = CONNECTED
    timing: bool = False
    over_voltage_s: float = 0.0
    under_voltage_s: float = 0.0
    deep_under_voltage_s: float = 0.0
    over_frequency_s: float = 0.0
    under_frequency_s: float = 0.0
    within_band_s: float = 0.0
    voltage_pu: SlidingMean = field(default_factory=_nominal_history)


def protect(limits: GridLimits, state: TripState, voltage_pu: float, frequency_hz: float, dt_s: float) -> int:
    """Let voltage and frequency hold for dt_s (s); return 0 connected, 1 tripped by voltage, 2 by frequency.

    A cause stays until the reconnection, whatever else leaves its limits meanwhile.
    """
    mean_pu = state.voltage_pu.push(voltage_pu, dt_s)
    if state.cause != CONNECTED:
        return _wait(limits, state, voltage_pu, mean_pu, frequency_hz, dt_s)
    if (
        limits.under_voltage_pu <= voltage_pu <= limits.over_voltage_pu
        and limits.under_frequency_hz <= frequency_hz <= limits.over_frequency_hz
        and mean_pu <= limits.over_voltage_mean_pu + TOLERANCE
    ):
        if state.timing:
            _clear_timers(state)
        return CONNECTED
    return _count(limits, state, voltage_pu, mean_pu, frequency_hz, dt_s)


def _count(
    limits: GridLimits, state: TripState, voltage_pu: float, mean_pu: float, frequency_hz: float, dt_s: float
) -> int:
    state.timing = True
    state.over_voltage_s = state.over_voltage_s + dt_s if voltage_pu > limits.over_voltage_pu else 0.0
    state.under_voltage_s = state.under_voltage_s + dt_s if voltage_pu < limits.under_voltage_pu else 0.0
    deep = voltage_pu < limits.deep_under_voltage_pu
    state.deep_under_voltage_s = state.deep_under_voltage_s + dt_s if deep else 0.0
    state.over_frequency_s = state.over_frequency_s + dt_s if frequency_hz > limits.over_frequency_hz else 0.0
    state.under_frequency_s = (
        state.under_frequency_s + dt_s if frequency_hz < limits.under_frequency_hz else 0.0
    )
    if (
        mean_pu > limits.over_voltage_mean_pu + TOLERANCE
        or _elapsed(state.over_voltage_s, limits.over_voltage_s)
        or _elapsed(state.under_voltage_s, limits.under_voltage_s)
        or _elapsed(state.deep_under_voltage_s, limits.deep_under_voltage_s)
    ):
        state.cause = VOLTAGE
    elif _elapsed(state.over_frequency_s, limits.over_frequency_s) or _elapsed(
        state.under_frequency_s, limits.under_frequency_s
    ):
        state.cause = FREQUENCY
    if state.cause != CONNECTED:
        _clear_timers(state)
    return state.cause


def _elapsed(beyond_s: float, allowed_s: float) -> bool:
    return beyond_s > 0.0 and beyond_s >= allowed_s - TOLERANCE


def _wait(
    limits: GridLimits, state: TripState, voltage_pu: float, mean_pu: float, frequency_hz: float, dt_s: float
) -> int:
    within = (
        limits.reconnect_min_pu <= voltage_pu <= limits.reconnect_max_pu
        and limits.reconnect_min_hz <= frequency_hz <= limits.reconnect_max_hz
        and mean_pu <= limits.over_voltage_mean_pu + TOLERANCE
    )
    state.within_band_s = state.within_band_s + dt_s if within else 0.0
    if within and state.within_band_s >= limits.reconnect_s - TOLERANCE:
        state.cause = CONNECTED
        state.within_band_s = 0.0
    return state.cause


def _clear_timers(state: TripState) -> None:
    state.timing = False
    state.over_voltage_s = 0.0
    state.under_voltage_s = 0.0
    state.deep_under_voltage_s = 0.0
    state.over_frequency_s = 0.0
    state.under_frequency_s = 0.0
