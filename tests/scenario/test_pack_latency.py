"""Closed-loop latency: known delays are found again."""

import math
from array import array
from collections.abc import Callable
from typing import Any

import pytest
from support.exchanges import read, refused, write
from support.responses import judged, unmet

from dertwin.scenario.packs import PACKS
from dertwin.scenario.packs.latency import Params, histogram
from dertwin.scenario.packs.sampled import percentile
from dertwin.scenario.packs.wire_words import Word
from dertwin.scenario.record import Exchange, Record, Requirement

LOOP: dict[str, Any] = {
    "quantity": "load_w",
    "levels": [5000.0, 9000.0],
    "count": 20,
    "period_s": 8.0,
    "measurement": {"device": "meter-1", "address": 0, "type": "int32", "scale": 1.0},
    "measurement_change": 500.0,
    "command": {"device": "bess-1", "address": 10, "type": "int16", "scale": 10.0},
    "command_change": 100.0,
    "power": "bess-1.active_power_w",
    "write_within_s": 0.5,
    "power_within_s": 3.0,
}
POLL_S = 0.25


def jump_at(index: int) -> float:
    return 10.0 + index * 8.0


def record_of(
    think_s: Callable[[int], float], lag_s: float = 0.5, deaf_to: int = -1, start_s: float = 0.0
) -> tuple[Record, list[float]]:
    """A run whose EMS polls every POLL_S and writes think_s after each jump was served; and when it was."""
    plan = PACKS["latency"].plan(Params(**LOOP))
    exchanges: list[Exchange] = []
    served = []
    for index in range(round(plan.duration_s / POLL_S)):
        time_s = index * POLL_S + 0.1
        jumps = sum(jump_at(jump) < time_s for jump in range(LOOP["count"]))
        load_w = LOOP["levels"][jumps % 2]
        exchanges.append(read(time_s, "meter-1", words=(0, int(load_w)), replied_s=time_s + 0.02))
    for jump in range(LOOP["count"]):
        first = math.floor((jump_at(jump) - 0.1) / POLL_S + 1) * POLL_S + 0.1 + 0.02
        served.append(first)
        if jump != deaf_to:
            exchanges.append(write(first + think_s(jump), word=500 if jump % 2 == 0 else 100))
    exchanges.sort(key=lambda exchange: exchange.time_s)
    record = Record([LOOP["power"]])
    power = 1000.0
    target = power
    writes = [e for e in exchanges if e.request[0] == 6]
    for index in range(round(plan.duration_s / 0.01) + 1):
        time_s = index * 0.01
        while writes and writes[0].time_s <= time_s:
            target = 10.0 * int.from_bytes(writes.pop(0).request[3:5], "big")
        power = target + (power - target) * math.exp(-0.01 / lag_s)
        record.times.append(start_s + time_s)
        record.columns[LOOP["power"]].append(power)
    record.exchanges = [
        e._replace(time_s=e.time_s + start_s, replied_s=e.replied_s + start_s) for e in exchanges
    ]
    return record, served


def results(record: Record, start_s: float = 0.0) -> dict[str, Requirement]:
    return judged("latency", LOOP, record, start_s)


def test_a_constant_delay_and_the_lag_of_a_battery_are_found() -> None:
    record, _ = record_of(lambda _: 0.3)
    requirements = results(record)
    assert unmet(requirements) == []
    assert requirements["changes written"].measured == requirements["changes delivered"].measured == 20
    for label in ("median", "95 %", "longest"):
        assert requirements[f"served to write: {label}"].measured == pytest.approx(0.3)
        # A lag has gone 90 % of its way after ln 10 of its time constants.
        expected_s = 0.3 + 0.5 * math.log(10)
        assert requirements[f"served to power: {label}"].measured == pytest.approx(expected_s, abs=0.02)
    assert requirements["served to write: median"].detail == "up to 0.5 s: 20"


def test_percentiles_and_histogram_are_those_of_the_delays() -> None:
    delays = [0.02 + 0.03 * ((7 * jump) % 20) for jump in range(20)]
    record, _ = record_of(lambda jump: delays[jump])
    requirements = results(record)
    ranked = sorted(delays)
    assert requirements["served to write: median"].measured == pytest.approx((ranked[9] + ranked[10]) / 2)
    assert requirements["served to write: 95 %"].measured == pytest.approx(
        ranked[18] + 0.05 * (ranked[19] - ranked[18])
    )
    assert requirements["served to write: longest"].measured == pytest.approx(ranked[19])
    assert requirements["served to write: 95 %"].high == 0.5
    assert unmet(requirements) == ["served to write: 95 %"]
    counted = dict(histogram(delays))
    assert (counted[0.05], counted[0.1], counted[0.2], counted[0.5], counted[1.0]) == (2, 1, 4, 10, 3)


def test_a_change_that_is_not_answered_is_missed() -> None:
    record, _ = record_of(lambda _: 0.3, deaf_to=4)
    requirements = results(record)
    # The next change takes the load back, and the EMS has nothing new to say then either.
    assert requirements["changes written"].measured == 18
    assert "20 of 20 changes served, 18 written" in requirements["changes written"].detail
    assert "changes written" in unmet(requirements)


def test_a_refused_write_is_no_answer() -> None:
    record, served = record_of(lambda _: 0.3)
    record.exchanges = [
        refused(e, 3) if e.request[0] == 6 and e.time_s < served[1] else e for e in record.exchanges
    ]
    assert results(record)["changes written"].measured == 19


def test_a_later_start_counts_from_there() -> None:
    record, _ = record_of(lambda _: 0.2, start_s=300.0)
    requirements = results(record, 300.0)
    assert unmet(requirements) == []
    assert requirements["served to write: median"].measured == pytest.approx(0.2)


def test_nothing_recorded_holes_and_other_words_are_failures_that_say_so() -> None:
    empty = results(Record([]))
    assert empty["changes written"].measured == 0
    assert unmet(empty) == list(empty)
    record, _ = record_of(lambda _: 0.3)
    record.columns = {LOOP["power"]: array("d", [math.nan] * len(record.times))}
    holed = results(record)
    assert holed["changes written"].met
    assert holed["changes delivered"].measured == 0
    assert "are no numbers" in holed["served to power: 95 %"].detail


@pytest.mark.parametrize(
    ("word", "words", "value"),
    [
        ({"type": "int16", "address": 1}, (7, 0xFFFE), -2.0),
        ({"type": "uint16", "address": 0, "scale": 0.1}, (65535,), 6553.5),
        ({"type": "int32", "address": 0}, (0xFFFF, 0xFFFE), -2.0),
        ({"type": "uint32", "address": 0, "word_order": "little"}, (1, 2), 131073.0),
        ({"type": "float32", "address": 0}, (0x4148, 0x0000), 12.5),
        ({"type": "int32", "address": 1}, (1, 2), None),
        ({"type": "int16", "address": 5}, (1, 2), None),
    ],
)
def test_words_are_decoded_as_the_parameters_say(
    word: dict[str, Any], words: tuple[int, ...], value: float | None
) -> None:
    decoded = Word(device="meter-1", **word).read_in(read(0.0, "meter-1", words=words))
    assert decoded == (None if value is None else pytest.approx(value))


def test_writes_are_decoded_from_all_functions_that_write_registers() -> None:
    word = Word(device="bess-1", address=11, type="int16")
    assert word.written_in(write(0.0, address=11, word=-5)) == -5.0
    many = read(0.0)._replace(request=bytes.fromhex("10 000a 0002 04 0001 fffb"), reply=b"\x10\0\x0a\0\2")
    assert word.written_in(many) == -5.0
    both = many._replace(request=bytes.fromhex("17 0000 0001 000a 0002 04 0001 fffb"), reply=b"\x17\2\0\1")
    assert word.written_in(both) == -5.0
    assert word.written_in(read(0.0)) is None
    assert word.written_in(write(0.0, "other", 11)) is None


def test_percentiles_are_linear_between_ranks() -> None:
    assert percentile([4.0, 1.0, 3.0, 2.0], 0.5) == 2.5
    assert percentile([5.0], 0.95) == 5.0
    assert math.isnan(percentile([], 0.5))
