"""What the sky and the grid do: functions of the time of day, and seeded noise.

Everything here gives the same bits on every machine and Python version: sine is a polynomial of our
own, Gaussian numbers are sums of twelve uniform ones.
"""

import math
from random import Random
from typing import Any, NamedTuple

from dertwin.stepping import DAY_S, decay

# How fast the two parts of a grid quantity move. Measured grid frequency loses its memory within minutes
# (Schaefer et al., Nature Energy 3, 2018); what is faster than inertia and a meter's filter is not seen.
DRIFT_TAU_S = 300.0
NOISE_TAU_S = 1.0

# Taylor coefficients of sin(x), highest power first: x^21/21! ... x^3/3!. On 0..pi/2 the first term left out
# is below 2e-18.
_SIN = tuple((-1 if n % 2 else 1) / math.factorial(2 * n + 1) for n in range(10, 0, -1))


def sine(turns: float) -> float:
    """Return the sine of an angle given in turns (1 = 360 degrees), to 1e-15.

    The quarters are exact: sine(0.25) is 1, sine(0.5) is 0.
    """
    phase = turns - math.floor(turns)
    half = phase - 0.5 if phase >= 0.5 else phase
    quarter = 0.5 - half if half > 0.25 else half
    x = quarter * 2.0 * math.pi
    square = x * x
    series = 0.0
    for coefficient in _SIN:
        series = (series + coefficient) * square
    value = x + x * series
    return -value if phase >= 0.5 else value


def clear_sky_irradiance(time_s: float, peak_w_m2: float, sunrise_h: float, sunset_h: float) -> float:
    """Return the irradiance (W/m2) at a time (s since midnight): a half-sine from sunrise to sunset."""
    hour = time_s % DAY_S / 3600.0
    if not sunrise_h < hour < sunset_h:
        return 0.0
    return peak_w_m2 * sine(0.5 * (hour - sunrise_h) / (sunset_h - sunrise_h))


def ambient_temperature(time_s: float, mean_c: float, amplitude_k: float, peak_h: float) -> float:
    """Return the temperature (degC) at a time (s since midnight): a daily cosine, highest at peak_h."""
    hour = time_s % DAY_S / 3600.0
    return mean_c + amplitude_k * sine((hour - peak_h) / 24.0 + 0.25)


class WanderState(NamedTuple):
    """Where a wandering value is, and the state of its random numbers, as `random.Random` has it."""

    drift: float
    noise: float
    random: Any


class Wander:
    """A value that drifts about its nominal and carries low-pass noise.

    Both parts are mean-reverting (Ornstein-Uhlenbeck) processes, advanced exactly, so that their
    standard deviations are drift_std and noise_std at every step length.
    """

    def __init__(self, nominal: float, noise_std: float, drift_std: float, seed: str) -> None:
        self.nominal = nominal
        self.noise_std = noise_std
        self.drift_std = drift_std
        self.drift = 0.0
        self.noise = 0.0
        self._random = Random(seed)

    @property
    def state(self) -> WanderState:
        """What all further steps depend on; setting it goes back to there."""
        return WanderState(self.drift, self.noise, self._random.getstate())

    @state.setter
    def state(self, state: WanderState) -> None:
        self.drift, self.noise, random = state
        version, words, gauss_next = random
        self._random.setstate((version, tuple(words), gauss_next))

    def step(self, dt_s: float) -> float:
        """Advance by dt_s (s) and return the value."""
        if self.drift_std > 0.0:
            self.drift = _wander(self.drift, self.drift_std, decay(dt_s, DRIFT_TAU_S), self._random)
        if self.noise_std > 0.0:
            self.noise = _wander(self.noise, self.noise_std, decay(dt_s, NOISE_TAU_S), self._random)
        return self.nominal + self.drift + self.noise


def gauss(random: Random) -> float:
    """Return a number from a normal distribution of mean 0 and standard deviation 1, within +-6."""
    value = -6.0
    for _ in range(12):
        value += random.random()
    return value


def _wander(value: float, std: float, kept: float, random: Random) -> float:
    return kept * value + std * math.sqrt(1.0 - kept * kept) * gauss(random)
