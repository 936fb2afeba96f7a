"""The step clock against a clock and a sleep that the test moves."""

import asyncio

import pytest

from bench.clock import StepClock


class Time:
    """A clock that only sleeping moves, each sleep late by what the test says."""

    def __init__(self) -> None:
        self.now = 100.0
        self.sleep_error_s = 0.0

    def __call__(self) -> float:
        return self.now

    async def sleep(self, seconds: float) -> None:
        self.now += max(seconds + self.sleep_error_s, 0.00001)


@pytest.fixture
def time() -> Time:
    return Time()


def steps_until(clock: StepClock, time: Time, end: float) -> None:
    async def run() -> None:
        while time.now < end:
            await clock.due()

    asyncio.run(run())


def test_sixty_seconds_at_a_tenth_are_six_hundred_steps_although_each_sleep_is_late(time: Time) -> None:
    clock = StepClock(0.1, time, time.sleep)
    time.sleep_error_s = 0.004
    steps_until(clock, time, 160.0)
    assert abs(clock.steps - 600) <= 1
    assert clock.late == 0
    assert clock.skipped == 0


def test_a_sleep_that_ends_early_makes_no_step_too_soon(time: Time) -> None:
    clock = StepClock(0.1, time, time.sleep)
    time.sleep_error_s = -0.0004
    assert asyncio.run(clock.due()) == 1
    assert 100.1 <= time.now < 100.101


def test_a_pause_of_half_a_second_is_caught_up_and_counted_late(time: Time) -> None:
    clock = StepClock(0.1, time, time.sleep)
    time.now += 0.55
    assert asyncio.run(clock.due()) == 5
    assert clock.late == 5
    assert clock.skipped == 0


def test_what_is_more_than_a_second_behind_is_skipped_and_counted(time: Time) -> None:
    clock = StepClock(0.1, time, time.sleep)
    time.now += 60.05
    assert asyncio.run(clock.due()) == 10
    assert clock.skipped == 590
    assert asyncio.run(clock.due()) == 1
    assert time.now == pytest.approx(160.1, abs=0.001)


def test_at_high_speed_several_steps_share_a_wake_up_and_none_is_late(time: Time) -> None:
    clock = StepClock(0.0001, time, time.sleep)
    time.sleep_error_s = 0.001
    steps_until(clock, time, 101.0)
    assert clock.steps == pytest.approx(10_000, abs=15)
    assert clock.late == 0


def test_lag_tells_how_far_the_next_step_is_behind(time: Time) -> None:
    clock = StepClock(0.1, time, time.sleep)
    assert clock.lag_s == 0.0
    time.now += 0.35
    assert clock.lag_s == pytest.approx(0.25)
