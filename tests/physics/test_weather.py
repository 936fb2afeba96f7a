"""Sky, air and noise."""

import math

import pytest

from dertwin.physics.weather import Wander, ambient_temperature, clear_sky_irradiance, sine

HOUR = 3600.0


def test_sine_agrees_with_the_library_to_rounding() -> None:
    # Most of what is left is the rounding of the library's argument.
    assert max(abs(sine(n / 9973.0) - math.sin(2.0 * math.pi * n / 9973.0)) for n in range(9973)) < 2e-15


def test_sine_is_exact_at_the_quarters_and_periodic() -> None:
    assert [sine(turns) for turns in (0.0, 0.25, 0.5, 0.75)] == [0.0, 1.0, 0.0, -1.0]
    assert [sine(turns) for turns in (-0.25, 1.25, 1000.25, -1e6)] == [-1.0, 1.0, 1.0, 0.0]


def test_the_sun_shines_between_sunrise_and_sunset_as_a_half_sine() -> None:
    def at(hour: float) -> float:
        return clear_sky_irradiance(hour * HOUR, 1000.0, 6.0, 18.0)

    assert [at(hour) for hour in (0.0, 6.0, 12.0, 18.0, 23.9)] == [0.0, 0.0, 1000.0, 0.0, 0.0]
    assert at(8.0) == pytest.approx(500.0)  # 30 degrees
    assert at(9.0) == at(24.0 + 9.0) == pytest.approx(at(15.0))


def test_a_day_is_warmest_at_its_peak_hour_and_coldest_half_a_day_later() -> None:
    def at(hour: float) -> float:
        return ambient_temperature(hour * HOUR, 20.0, 5.0, 15.0)

    assert (at(15.0), at(3.0), at(27.0)) == (25.0, 15.0, 15.0)
    assert at(9.0) == pytest.approx(20.0)


def deviations(wander: Wander, dt_s: float, steps: int) -> tuple[float, float]:
    """The mean and standard deviation of a series about its nominal."""
    values = [wander.step(dt_s) - wander.nominal for _ in range(steps)]
    mean = math.fsum(values) / steps
    return mean, math.sqrt(math.fsum((value - mean) ** 2 for value in values) / steps)


@pytest.mark.parametrize("dt_s", [0.1, 1.0, 60.0])
def test_noise_has_its_standard_deviation_at_any_step(dt_s: float) -> None:
    mean, deviation = deviations(Wander(50.0, 0.02, 0.0, "seed"), dt_s, 40_000)
    assert deviation == pytest.approx(0.02, rel=0.05)
    assert abs(mean) < 0.002


@pytest.mark.parametrize("dt_s", [60.0, 3600.0])
def test_drift_reverts_to_the_nominal_with_its_standard_deviation(dt_s: float) -> None:
    mean, deviation = deviations(Wander(400.0, 0.0, 2.0, "seed"), dt_s, 40_000)
    assert deviation == pytest.approx(2.0, rel=0.05)
    assert abs(mean) < 0.15


def test_drift_is_slow_and_noise_is_fast() -> None:
    drift, noise = Wander(50.0, 0.0, 0.02, "seed"), Wander(50.0, 0.02, 0.0, "seed")
    deviations(drift, 60.0, 100)
    assert abs(drift.step(0.1) - drift.step(0.1)) < 0.002
    moves = [abs(noise.step(1.0) - noise.step(1.0)) for _ in range(200)]
    assert sum(moves) / len(moves) > 0.01


def test_the_seed_decides_the_series() -> None:
    def series(seed: str) -> list[float]:
        wander = Wander(50.0, 0.02, 0.01, seed)
        return [wander.step(0.1) for _ in range(100)]

    assert series("a") == series("a")
    assert series("a") != series("b")


def test_without_deviations_the_value_is_exactly_nominal() -> None:
    wander = Wander(50.0, 0.0, 0.0, "seed")
    assert {wander.step(dt_s) for dt_s in (0.0, 0.1, 3600.0)} == {50.0}
