"""A communication watchdog: what feeds it, what happens when nothing does."""

import pytest
from pydantic import ValidationError

from dertwin.devices.chp import ChpConfig
from dertwin.devices.device import Command, CommandRange, Conditions
from dertwin.devices.meter import EnergyMeterConfig
from dertwin.devices.watchdog import Watchdog, WatchdogConfig, WatchdogState

COMMANDS = {
    "start_stop": CommandRange(0.0, 1.0, frozenset((0.0, 1.0))),
    "power_setpoint_ratio": CommandRange(0.0, 1.1),
    "heartbeat": CommandRange(0.0, 65535.0),
}
CALM = Conditions(0.0, 0.0, 20.0, 50.0, 400.0, 0.0)
STOP = Command("start_stop", 0.0)
SETPOINT = Command("power_setpoint_ratio", 0.8)


def watchdog(**config: object) -> Watchdog:
    return Watchdog(WatchdogConfig.model_validate(config), "chp", COMMANDS, (STOP,))


def beat(word: float) -> Command:
    return Command("heartbeat", word)


def test_commands_pass_unchanged_until_the_timeout() -> None:
    dog, state = watchdog(timeout_s=5), WatchdogState()
    for _ in range(4):
        assert dog.step(state, (), 0, 1.0) == ()
    assert not state.expired


def test_it_expires_exactly_at_the_timeout_however_it_is_divided_into_steps() -> None:
    for steps in (1, 3, 50, 500):
        dog, state = watchdog(timeout_s=5), WatchdogState()
        for _ in range(steps - 1):
            dog.step(state, (), 0, 5 / steps)
            assert not state.expired
        assert dog.step(state, (), 0, 5 / steps) == (STOP,)
        assert state.expired


def test_a_read_feeds_any_request_and_nothing_else() -> None:
    for fed_by, expired in (
        ("any_request", False),
        ("any_write", True),
        ("register", True),
        ("toggle", True),
    ):
        dog, state = watchdog(timeout_s=1, fed_by=fed_by), WatchdogState()
        for _ in range(3):
            dog.step(state, (), 7, 0.5)
        assert state.expired is expired, fed_by


def test_any_write_feeds_any_write_but_not_a_watched_register() -> None:
    for fed_by, expired in (
        ("any_request", False),
        ("any_write", False),
        ("register", True),
        ("toggle", True),
    ):
        dog, state = watchdog(timeout_s=1, fed_by=fed_by), WatchdogState()
        for _ in range(3):
            dog.step(state, (SETPOINT,), 1, 0.5)
        assert state.expired is expired, fed_by


def test_an_equal_value_feeds_a_watched_register_but_does_not_toggle() -> None:
    for fed_by, expired in (("register", False), ("toggle", True)):
        dog, state = watchdog(timeout_s=1, fed_by=fed_by), WatchdogState()
        for _ in range(4):
            dog.step(state, (beat(1),), 1, 0.5)
        assert state.expired is expired, fed_by


def test_a_counting_word_feeds_a_toggle() -> None:
    dog, state = watchdog(timeout_s=1, fed_by="toggle"), WatchdogState()
    for word in range(10):
        dog.step(state, (beat(word % 2),), 1, 0.9)
    assert not state.expired


def test_a_word_that_changes_there_and_back_within_one_step_feeds_a_toggle() -> None:
    dog, state = watchdog(timeout_s=1, fed_by="toggle"), WatchdogState()
    dog.step(state, (beat(1),), 1, 0.5)
    for _ in range(4):
        dog.step(state, (beat(0), beat(1)), 2, 0.5)
    assert not state.expired


def test_the_watched_register_can_be_any_command_in_either_spelling() -> None:
    for register in ("power_setpoint_ratio", "power_setpoint_percent"):
        dog, state = watchdog(timeout_s=1, fed_by="register", register=register), WatchdogState()
        for _ in range(3):
            dog.step(state, (SETPOINT,), 1, 0.9)
        assert not state.expired


def test_the_fallback_comes_after_the_writes_of_a_silent_client_until_it_is_fed_again() -> None:
    dog, state = watchdog(timeout_s=1, fed_by="register"), WatchdogState()
    dog.step(state, (), 0, 1.0)
    start = Command("start_stop", 1.0)
    assert dog.step(state, (start, SETPOINT), 2, 0.1) == (start, SETPOINT, STOP)
    assert dog.step(state, (), 0, 0.1) == (STOP,)
    assert dog.step(state, (beat(3), start), 2, 0.1) == (beat(3), start)
    assert not state.expired


def test_a_fallback_of_the_config_is_in_the_unit_of_its_name() -> None:
    dog, state = watchdog(timeout_s=1, fallback={"power_setpoint_percent": 40}), WatchdogState()
    assert dog.step(state, (), 0, 1.0) == (Command("power_setpoint_ratio", 0.4),)


def test_an_empty_fallback_only_shows_that_the_watchdog_expired() -> None:
    dog, state = watchdog(timeout_s=1, fallback={}), WatchdogState()
    assert dog.step(state, (SETPOINT,), 0, 0.5) == (SETPOINT,)
    assert dog.step(state, (), 0, 1.0) == ()
    assert state.expired


@pytest.mark.parametrize(
    ("watchdog", "said"),
    [
        (
            {"timeout_s": 1, "fallback": {"power_setpoint_percnt": 40}},
            "the closest is power_setpoint_percent; use one of",
        ),
        ({"timeout_s": 1, "fallback": {"active_power_w": 40}}, "is no command of a chp"),
        ({"timeout_s": 1, "fallback": {"power_setpoint_percent": 120}}, "use 0 to 110"),
        ({"timeout_s": 1, "fallback": {"start_stop": 2}}, "use one of 0, 1"),
        (
            {"timeout_s": 1, "fed_by": "toggle", "register": "hartbeat"},
            "the closest is heartbeat; use one of",
        ),
        ({"timeout_s": 1, "register": "heartbeat"}, "has no meaning with fed_by: any_request"),
        ({"timeout_s": 0}, "greater than 0"),
        ({"timeout_s": 1, "fed_by": "reads"}, "any_request"),
    ],
)
def test_a_watchdog_that_does_not_fit_its_device_is_a_config_error(watchdog: object, said: str) -> None:
    with pytest.raises(ValidationError, match=said):
        ChpConfig.model_validate({"type": "chp", "watchdog": watchdog})


def test_a_silent_client_stops_a_running_chp_and_its_return_lets_it_start_again() -> None:
    chp = ChpConfig.model_validate(
        {"type": "chp", "watchdog": {"timeout_s": 10, "fed_by": "any_write"}}
    ).build()
    start = (Command("start_stop", 1.0),)
    assert chp.step(CALM, start, 1, 5.0).start_stop == 1
    assert chp.step(CALM, (), 1, 5.0).watchdog_expired == 0
    stopped = chp.step(CALM, (), 1, 5.0)
    assert (stopped.watchdog_expired, stopped.start_stop, stopped.collective_warning) == (1, 0, 1)
    back = chp.step(CALM, start, 1, 5.0)
    assert (back.watchdog_expired, back.start_stop) == (0, 1)


def test_a_meter_has_nothing_to_fall_back_to_but_says_that_its_watchdog_expired() -> None:
    meter = EnergyMeterConfig.model_validate({"type": "energy_meter", "watchdog": {"timeout_s": 1}}).build()
    assert meter.step(CALM, (), 0, 1.0).watchdog_expired == 1
    assert meter.step(CALM, (), 1, 1.0).watchdog_expired == 0
