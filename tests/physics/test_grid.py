"""Interface protection: limits, times, reconnection."""

from dataclasses import asdict

import pytest
from pydantic import ValidationError

from dertwin.devices.asset import GridProtectionConfig
from dertwin.physics.grid import CONNECTED, FREQUENCY, VOLTAGE, TripState, protect

LIMITS = GridProtectionConfig().limits()
STEPS_S = (0.01, 0.1, 1.0, 7.0, 60.0, 3600.0)


def seconds_until(cause: int, voltage_pu: float, frequency_hz: float, dt_s: float, state: TripState) -> float:
    """Step until the protection gives the cause; return the time it took (s)."""
    for step in range(1, 1_000_000):
        if protect(LIMITS, state, voltage_pu, frequency_hz, dt_s) == cause:
            return step * dt_s
    raise AssertionError("never")


@pytest.mark.parametrize("dt_s", STEPS_S)
@pytest.mark.parametrize(
    ("voltage_pu", "frequency_hz", "cause", "time_s"),
    [
        (1.26, 50.0, VOLTAGE, 0.1),
        (0.79, 50.0, VOLTAGE, 1.0),
        (0.44, 50.0, VOLTAGE, 0.3),
        (1.0, 51.51, FREQUENCY, 0.1),
        (1.0, 47.49, FREQUENCY, 0.1),
    ],
)
def test_a_value_beyond_its_limit_trips_after_its_time_at_any_step(
    voltage_pu: float, frequency_hz: float, cause: int, time_s: float, dt_s: float
) -> None:
    taken_s = seconds_until(cause, voltage_pu, frequency_hz, dt_s, TripState())
    assert time_s - 1e-9 <= taken_s < time_s + dt_s - 1e-9


def test_values_on_their_limits_never_trip() -> None:
    for voltage_pu, frequency_hz in ((1.10, 51.5), (0.80, 47.5)):
        state = TripState()
        for dt_s in STEPS_S:
            for _ in range(100):
                assert protect(LIMITS, state, voltage_pu, frequency_hz, dt_s) == CONNECTED


def test_a_sag_shorter_than_its_time_does_not_trip_and_does_not_add_up_with_the_next() -> None:
    state = TripState()
    for _ in range(20):
        for _ in range(9):
            assert protect(LIMITS, state, 0.7, 50.0, 0.1) == CONNECTED
        assert protect(LIMITS, state, 1.0, 50.0, 0.1) == CONNECTED


@pytest.mark.parametrize("dt_s", [0.1, 1.0, 7.0, 60.0])
def test_the_ten_minute_mean_trips_when_it_passes_its_limit(dt_s: float) -> None:
    # From 1.00 the mean of 1.15 reaches 1.10 after two thirds of the window.
    taken_s = seconds_until(VOLTAGE, 1.15, 50.0, dt_s, TripState())
    assert 400.0 - 1e-6 <= taken_s <= 400.0 + dt_s + 1e-6


def test_the_mean_forgets_what_is_older_than_ten_minutes() -> None:
    state = TripState()
    for _ in range(3):
        for _ in range(390):
            assert protect(LIMITS, state, 1.15, 50.0, 1.0) == CONNECTED
        for _ in range(600):
            assert protect(LIMITS, state, 1.0, 50.0, 1.0) == CONNECTED


@pytest.mark.parametrize("dt_s", STEPS_S)
def test_it_reconnects_after_its_delay_within_the_band(dt_s: float) -> None:
    state = TripState()
    seconds_until(VOLTAGE, 0.5, 50.0, dt_s, state)
    taken_s = seconds_until(CONNECTED, 1.0, 50.0, dt_s, state)
    assert 60.0 - 1e-9 <= taken_s < 60.0 + dt_s - 1e-9


def test_leaving_the_band_starts_the_delay_again() -> None:
    state = TripState()
    seconds_until(FREQUENCY, 1.0, 52.0, 1.0, state)
    for _ in range(59):
        assert protect(LIMITS, state, 1.0, 50.0, 1.0) == FREQUENCY
    assert protect(LIMITS, state, 1.0, 50.2, 1.0) == FREQUENCY  # inside the trip limits, outside the band
    assert seconds_until(CONNECTED, 1.0, 50.0, 1.0, state) == 60.0


def test_the_cause_stays_until_the_reconnection() -> None:
    state = TripState()
    seconds_until(FREQUENCY, 1.0, 52.0, 1.0, state)
    for _ in range(10):
        assert protect(LIMITS, state, 0.5, 50.0, 1.0) == FREQUENCY


def test_a_high_mean_keeps_a_unit_off_although_the_voltage_is_back() -> None:
    state = TripState()
    seconds_until(VOLTAGE, 1.2, 50.0, 60.0, state)
    for _ in range(600):
        protect(LIMITS, state, 1.2, 50.0, 1.0)
    # The mean of 1.2 comes down to 1.1 in half the window, then the delay begins.
    assert seconds_until(CONNECTED, 1.0, 50.0, 1.0, state) == pytest.approx(300.0 + 60.0, abs=2.0)


def test_a_step_of_no_length_changes_nothing() -> None:
    state = TripState()
    protect(LIMITS, state, 0.7, 50.0, 0.5)
    before = asdict(state)
    protect(LIMITS, state, 0.7, 50.0, 0.0)
    assert asdict(state) == before


def test_the_limits_of_a_config_must_be_in_order() -> None:
    with pytest.raises(ValidationError, match=r"deep_under_voltage_pu 0\.9 is above under_voltage_pu 0\.5"):
        GridProtectionConfig.model_validate({"deep_under_voltage_pu": 0.9, "under_voltage_pu": 0.5})
    with pytest.raises(ValidationError, match="under_frequency_hz"):
        GridProtectionConfig.model_validate({"under_frequency_hz": 52.0})
