"""Communication loss: when the site was safe, and when the EMS came back."""

import math
from collections.abc import Callable
from typing import Any

import pytest
from support.exchanges import lost, read
from support.responses import judged, unmet

from dertwin.scenario.packs import PACKS
from dertwin.scenario.packs.comm_loss import Params
from dertwin.scenario.record import Exchange, Received, Record, Requirement

CUT: dict[str, Any] = {
    "device": "bess-1",
    "watchdog_s": 30.0,
    "stopping_s": 5.0,
    "safe": [{"signal": "bess-1.active_power_w", "low": -100.0, "high": 100.0}],
    "again_within_s": 10.0,
}
# The first cut begins after 30 s and lasts 20 s longer than the site may take to be safe.
CUT_S, END_S = 30.0, 30.0 + 35.0 + 20.0
SAFE, TALKS, COMMANDS = (
    f"1. bess-1 loses requests: {what}"
    for what in ("bess-1.active_power_w is safe", "talks again", "commands again")
)


def record_of(
    power: Callable[[float], float],
    again_s: float = 1.0,
    commands: bool = True,
    start_s: float = 0.0,
    params: dict[str, Any] | None = None,
) -> Record:
    """A run in which the EMS polls each second, and comes back again_s after the cut."""
    plan = PACKS["comm_loss"].plan(Params(**(params or {"cuts": [CUT]})))
    record = Record(plan.signals)
    for index in range(round(plan.duration_s / 0.1) + 1):
        record.times.append(start_s + index * 0.1)
        for column in record.columns.values():
            column.append(power(index * 0.1))
    exchanges: list[Exchange] = []
    for second in range(round(plan.duration_s)):
        poll = read(start_s + second + 0.5)
        cut = CUT_S < second + 0.5 < END_S + again_s
        exchanges.append(lost(poll) if cut else poll)
        if commands and not cut:
            record.received.append(Received(start_s + second + 0.5, "bess-1", "active_power_setpoint_w", 5e3))
    record.exchanges = exchanges
    return record


def stops(after_s: float, ramp_w_per_s: float = 1000.0) -> Callable[[float], float]:
    """5 kW, and from after_s into the cut a ramp to zero."""
    return lambda time_s: min(5e3, max(0.0, 5e3 - (time_s - CUT_S - after_s) * ramp_w_per_s))


def results(record: Record, start_s: float = 0.0) -> dict[str, Requirement]:
    return judged("comm_loss", {"cuts": [CUT]}, record, start_s)


@pytest.mark.parametrize(("after_s", "met"), [(30.0, True), (31.0, False)])
def test_the_site_must_be_safe_within_the_watchdog_time_and_the_stopping(after_s: float, met: bool) -> None:
    requirements = results(record_of(stops(after_s)))
    assert requirements[SAFE].measured == pytest.approx(after_s + 4.9)
    assert requirements[SAFE].high == 35.0
    assert requirements[SAFE].met is met
    assert unmet(requirements) == ([] if met else [SAFE])


def test_a_battery_that_goes_on_or_starts_again_is_not_safe() -> None:
    goes_on = results(record_of(lambda _: 5e3))
    assert unmet(goes_on) == [SAFE]
    assert "was 5000 at the end of the cut" in goes_on[SAFE].detail
    stopped = stops(10.0)
    restarts = results(record_of(lambda t: 5e3 if 70 <= t <= 72 else stopped(t)))
    assert unmet(restarts) == [SAFE]
    assert restarts[SAFE].measured == pytest.approx(72.1 - CUT_S, abs=0.1)


@pytest.mark.parametrize(("again_s", "met"), [(1.0, True), (9.0, True), (12.0, False)])
def test_the_ems_must_talk_and_command_again_in_time(again_s: float, met: bool) -> None:
    requirements = results(record_of(stops(20.0), again_s))
    assert requirements[TALKS].measured == pytest.approx(again_s + 0.51)
    assert requirements[COMMANDS].measured == pytest.approx(again_s + 0.5)
    assert unmet(requirements) == ([] if met else [TALKS, COMMANDS])


def test_an_ems_that_stays_away_fails_and_one_that_only_reads_need_not_write() -> None:
    away = results(record_of(stops(20.0), again_s=1e6))
    assert unmet(away) == [TALKS, COMMANDS]
    assert "it did not, as long as it was watched" in away[TALKS].detail
    reader = results(record_of(stops(20.0), commands=False))
    assert unmet(reader) == []
    assert COMMANDS not in reader


def test_a_cut_that_was_none_is_no_test() -> None:
    record = record_of(stops(20.0))
    record.exchanges = [*record.exchanges, read(50.0)]
    cut_off = "1. bess-1 loses requests: cut off"
    assert unmet(results(record)) == [cut_off]
    record.exchanges = [exchange for exchange in record.exchanges if exchange.time_s > CUT_S]
    assert "did not talk to it before the cut" in results(record)[cut_off].detail


def test_cuts_come_one_after_the_other_and_each_is_judged() -> None:
    params = {"cuts": [CUT, CUT | {"device": "meter-1", "lose": "reply"}]}
    plan = PACKS["comm_loss"].plan(Params(**params))
    (first_s, first), (second_s, second) = plan.actions
    assert (first_s, first) == (
        CUT_S, {"wire_fault": "no_reply", "device": "bess-1", "lose": "request", "duration": END_S - CUT_S},
    )  # fmt: skip
    assert second_s == END_S + 10.0 + 30.0
    assert second["lose"] == "reply"
    assert plan.duration_s == second_s + 55.0 + 40.0
    requirements = judged("comm_loss", params, record_of(stops(20.0), params=params))
    assert any(name.startswith("2. meter-1 loses replies") for name in unmet(requirements))


def test_a_later_start_holes_and_nothing_are_taken_as_they_are() -> None:
    assert unmet(results(record_of(stops(20.0), start_s=1000.0), 1000.0)) == []
    stopped = stops(20.0)
    holed = results(record_of(lambda t: math.nan if 40 < t < 41 else stopped(t)))
    assert unmet(holed) == [SAFE]
    assert "are no numbers" in holed[SAFE].detail
    empty = results(Record([]))
    assert unmet(empty) == list(empty)
