"""Expectations: become true within, stay true for, never be true."""

import math
from typing import Any

import pytest
from pydantic import ValidationError

from dertwin.scenario.expectations import Checked, Expectation, Watch


def judged(values: list[float], **expectation: Any) -> Checked:
    """Return what comes of an expectation armed at 0 over samples at 1 s, 2 s and so on, then the end."""
    watch = Watch(Expectation.model_validate(expectation), 0.0)
    now_s = 0.0
    for now_s, value in enumerate(values, start=1):
        if watch.pending:
            watch.look(float(now_s), {"d.x": value}.__getitem__)
    watch.end(float(now_s))
    return watch.checked()


def test_what_becomes_true_in_time_has_passed_and_says_when() -> None:
    checked = judged([0, 0, 7, 7], that="d.x > 5", within=3)
    assert (checked.outcome, checked.decided_s, checked.became_s, checked.margin) == ("passed", 3.0, 3.0, 2.0)


def test_what_becomes_true_too_late_has_failed_and_says_how_close_it_came() -> None:
    checked = judged([0, 4, 4.5, 7], that="d.x > 5", within=3)
    assert (checked.outcome, checked.decided_s) == ("failed", 4.0)
    assert math.isnan(checked.became_s)


def test_what_never_becomes_true_fails_once_the_time_is_over() -> None:
    checked = judged([0, 4, 4.5, 0], that="d.x > 5", within=3)
    assert (checked.outcome, checked.decided_s, checked.margin) == ("failed", 4.0, -0.5)


def test_what_must_hold_from_the_start_fails_at_the_first_sample_that_does_not() -> None:
    checked = judged([6, 7, 5, 6, 6], that="d.x >= 5.5", **{"for": 4})
    assert (checked.outcome, checked.decided_s, checked.margin) == ("failed", 3.0, -0.5)


def test_what_holds_for_its_time_has_passed_by_its_least_margin() -> None:
    checked = judged([6, 7, 5.6, 9, 0], that="d.x >= 5.5", **{"for": 4})
    assert (checked.outcome, checked.decided_s) == ("passed", 4.0)
    assert checked.margin == pytest.approx(0.1)


def test_what_becomes_true_must_then_hold() -> None:
    passed = judged([0, 6, 6, 6, 6], that="d.x > 5", within=2, **{"for": 3})
    assert (passed.outcome, passed.decided_s, passed.became_s) == ("passed", 5.0, 2.0)
    assert judged([0, 6, 6, 0, 6], that="d.x > 5", within=2, **{"for": 3}).outcome == "failed"


def test_what_swings_may_settle_while_there_is_time() -> None:
    checked = judged([6, 0, 6, 6, 6], that="d.x > 5", within=3, **{"for": 2})
    assert (checked.outcome, checked.became_s) == ("passed", 3.0)


def test_what_must_never_be_fails_at_once() -> None:
    checked = judged([0, 6, 0], never="d.x > 5")
    assert (checked.outcome, checked.decided_s, checked.margin) == ("failed", 2.0, -1.0)


def test_what_never_was_has_passed_when_its_time_or_the_scenario_ends() -> None:
    assert judged([0, 4, 0], never="d.x > 5").decided_s == 3.0
    checked = judged([0, 4, 6], never="d.x > 5", **{"for": 2})
    assert (checked.outcome, checked.decided_s, checked.margin) == ("passed", 2.0, 1.0)


def test_what_could_not_be_shown_before_the_end_has_failed() -> None:
    assert judged([6], that="d.x > 5", **{"for": 2}).outcome == "failed"
    assert judged([0], that="d.x > 5", within=2).outcome == "failed"


@pytest.mark.parametrize(
    "wrong",
    [
        {},
        {"that": "d.x > 5"},
        {"that": "d.x > 5", "never": "d.x > 6", "for": 1},
        {"never": "d.x > 5", "within": 3},
        {"that": "d.x > 5", "within": 0},
    ],
)
def test_an_expectation_without_a_meaning_is_refused(wrong: dict[str, Any]) -> None:
    with pytest.raises(ValidationError):
        Expectation.model_validate(wrong)
