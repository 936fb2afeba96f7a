"""Modbus manners: one bad habit each, told from good ones."""

from typing import Any

import pytest
from support.exchanges import lost, read, refused, write
from support.responses import judged, unmet

from dertwin.scenario.packs import PACKS
from dertwin.scenario.packs.manners import Params
from dertwin.scenario.record import Exchange, Record, Requirement

WATCHED: dict[str, Any] = {"devices": ["bess-1", "meter-1"]}
BOTH = WATCHED | {"busy_device": "bess-1", "silent_device": "meter-1"}
# Busy from 60 s to 65 s, silent from 80 s to 110 s, over at 125 s.
BUSY_S, SILENT_S, OVER_S = (60.0, 65.0), (80.0, 110.0), 125.0


def polite(until_s: float = 60.0) -> list[Exchange]:
    """Polls two devices each second, and writes to one."""
    exchanges = []
    for second in range(round(until_s)):
        exchanges += [read(second + 0.1), write(second + 0.2, word=second), read(second + 0.3, "meter-1")]
    return exchanges


def disturbed() -> list[Exchange]:
    """The same until the end of a plan in which one is busy and the other silent."""
    exchanges = []
    for exchange in polite(OVER_S):
        if exchange.device == "bess-1" and BUSY_S[0] <= exchange.time_s < BUSY_S[1]:
            exchange = refused(exchange, 6)
        if exchange.device == "meter-1" and SILENT_S[0] <= exchange.time_s < SILENT_S[1]:
            exchange = lost(exchange)
        exchanges.append(exchange)
    return exchanges


def results(
    exchanges: list[Exchange], params: dict[str, Any] = WATCHED, start_s: float = 0.0
) -> dict[str, Requirement]:
    record = Record([])
    record.exchanges = exchanges
    return judged("manners", params, record, start_s)


def test_a_polite_ems_meets_everything() -> None:
    requirements = results(polite())
    assert unmet(requirements) == []
    assert requirements["bess-1: request rate"].measured == pytest.approx(2.0)
    assert requirements["meter-1: longest gap"].measured == pytest.approx(1.0)
    assert requirements["bess-1: writes within 1 s"].measured == 1.0
    assert unmet(results(disturbed(), BOTH)) == []


@pytest.mark.parametrize(
    ("bad", "name"),
    [
        (refused(read(5.5), 1), "unknown functions"),
        (refused(read(5.5, address=900), 2), "illegal addresses"),
        (refused(write(5.5, word=60000), 3), "refused writes"),
        (refused(read(5.5), 3), "refused reads"),
    ],
)
def test_each_refusal_is_counted_as_what_it_is(bad: Exchange, name: str) -> None:
    requirements = results([*polite(), bad])
    assert unmet(requirements) == [name]
    assert requirements[name].measured == 1.0
    assert "the first to bess-1: 0" in requirements[name].detail


def test_polling_too_fast_too_seldom_and_in_storms_is_told() -> None:
    fast = results([*polite(), *(read(index * 0.1) for index in range(590))])
    assert unmet(fast) == ["bess-1: request rate"]
    assert fast["bess-1: request rate"].measured == pytest.approx((590 + 120) / 60)
    seldom = results([e for e in polite() if e.device == "bess-1" or not 20 < e.time_s < 31])
    assert unmet(seldom) == ["meter-1: longest gap"]
    assert seldom["meter-1: longest gap"].measured == pytest.approx(12.0)
    storm = results([*polite(), *(write(10.25 + index * 0.01) for index in range(11))])
    assert unmet(storm) == ["bess-1: writes within 1 s"]
    assert storm["bess-1: writes within 1 s"].measured == 12.0


def test_own_limits_are_what_is_judged() -> None:
    strict = WATCHED | {"rate_per_s": 1.5, "gap_s": 0.95, "writes_in_1_s": 1}
    requirements = results(polite(), strict)
    assert unmet(requirements) == ["bess-1: request rate", "meter-1: longest gap"]


def test_a_busy_device_is_asked_again_but_not_at_once() -> None:
    requirements = results(disturbed(), BOTH)
    assert requirements["bess-1 is busy: asked again"].measured == pytest.approx(0.99)
    assert "10 requests found the device busy" in requirements["bess-1 is busy: asked again"].detail

    hammers = [*disturbed(), *(refused(read(60.12 + index * 0.02), 6) for index in range(10))]
    assert unmet(results(hammers, BOTH)) == ["bess-1 is busy: not at once"]

    gives_up = [e for e in disturbed() if not (e.device == "bess-1" and e.request[0] == 6 and e.time_s > 64)]
    assert "bess-1 is busy: asked again" in unmet(results([*gives_up], BOTH))
    assert "1 were never sent again" in results(gives_up, BOTH)["bess-1 is busy: asked again"].detail


def test_a_silent_device_is_not_hammered_and_waited_for() -> None:
    requirements = results(disturbed(), BOTH)
    assert requirements["meter-1 is silent: request rate"].measured == pytest.approx(1.0)
    assert requirements["meter-1 is silent: patience"].measured == pytest.approx(0.8)

    hammers = [*disturbed(), *(lost(read(80.35 + index * 0.2, "meter-1")) for index in range(140))]
    assert unmet(results(hammers, BOTH)) == [
        "meter-1 is silent: request rate",
        "meter-1 is silent: patience",
    ]


def test_over_tcp_several_requests_may_be_under_way_but_a_serial_line_is_waited_for() -> None:
    hasty = []
    for exchange in disturbed():
        after_s = 0.05 if exchange.device == "bess-1" and exchange.request[0] == 3 else 0.0
        shifted = exchange._replace(time_s=exchange.time_s + 0.2 + after_s) if after_s else exchange
        hasty.append(shifted)  # reads of bess-1 now follow those of meter-1 after 50 ms
    assert unmet(results(hasty, BOTH)) == ["meter-1 is silent: patience"]
    gateway = [exchange._replace(link="tcp 0.0.0.0:502", client="1") for exchange in hasty]
    assert unmet(results(gateway, BOTH)) == []


def test_a_silent_device_must_not_starve_the_others_on_its_line() -> None:
    starves = [e for e in disturbed() if not (e.device == "bess-1" and 82 < e.time_s < 95)]
    requirements = results(starves, BOTH)
    assert unmet(requirements) == ["meter-1 is silent: bess-1 waits"]
    assert requirements["meter-1 is silent: bess-1 waits"].measured == pytest.approx(95.1 - 81.2)
    elsewhere = [e._replace(link="tcp 0.0.0.0:502") if e.device == "bess-1" else e for e in starves]
    assert unmet(results(elsewhere, BOTH)) == []


def test_a_later_start_counts_from_there() -> None:
    later = [e._replace(time_s=e.time_s + 500, replied_s=e.replied_s + 500) for e in disturbed()]
    before = [refused(read(100.0), 2)]
    assert unmet(results(before + later, BOTH, 500.0)) == []


def test_no_requests_at_all_are_no_good_manners() -> None:
    nothing = results([], BOTH)
    assert "no request was recorded" in nothing["illegal addresses"].detail
    assert {"illegal addresses", "bess-1: request rate", "bess-1 is busy: asked again"} <= set(unmet(nothing))


def test_only_the_disturbances_that_are_wanted_are_planned() -> None:
    assert PACKS["manners"].plan(Params(**WATCHED)) == (60.0, [], (), True)
    plan = PACKS["manners"].plan(Params(**BOTH))
    assert plan.duration_s == OVER_S
    assert plan.actions == [
        (60.0, {"wire_fault": "exception", "device": "bess-1", "code": 6, "duration": 5.0}),
        (80.0, {"wire_fault": "no_reply", "device": "meter-1", "duration": 30.0}),
    ]
