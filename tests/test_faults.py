"""Faults without any socket: what is refused, whom they hit, how often, and at any speed of time."""

import asyncio
import json
import re
from pathlib import Path
from random import Random
from typing import Any, get_args

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import TypeAdapter, ValidationError
from structlog.testing import capture_logs
from support.faults import link_fault, wire_fault
from support.sites import READ_SETPOINT, battery, rtu, setpoint_is, site, write_setpoint

from bench.app import Bench
from bench.check import check_site
from bench.disturbance import Disturbance, Ongoing
from bench.exposition import exposition
from bench.faults import Faults
from bench.links.link import ModbusLink
from bench.metrics import registry
from dertwin.config_errors import validation_errors
from dertwin.functions import FUNCTIONS, touched
from dertwin.scenario.link import LinkFault
from dertwin.scenario.wire import Header, WireFault

MODELS = {
    get_args(model.model_fields[key].annotation)[0]: model
    for key, union in (("wire_fault", WireFault), ("link_fault", LinkFault))
    for model in get_args(get_args(union)[0])
}
WIRE = [kind for kind, model in MODELS.items() if "wire_fault" in model.model_fields]
BUSY = b"\x83\x06"


class Stepped:
    """A bench whose time is moved by hand, with an EMS that checks what it receives."""

    def __init__(self, folder: Path) -> None:
        path = folder / "site.json"
        assets = (
            battery({"port": 55001}),
            battery({"port": 55001, "unit_id": 2}, rtu(folder / "line", fallback="pty")),
        )
        path.write_text(json.dumps(site(folder, *assets)))
        self.now = 0.0
        self.bench = Bench(check_site(path))
        self.faults = self.bench.faults = Faults(self.bench, lambda: self.now)

    def link(self, word: str) -> ModbusLink:
        return next(link for link in self.bench.links.values() if link.name.startswith(word))

    def ask(self, pdu: bytes = READ_SETPOINT, unit_id: int = 1, word: str = "tcp") -> tuple[bytes, float]:
        """Make a request as an EMS in the same process would; return what it takes, and how late."""
        link = self.link(word)
        unit = link.units[unit_id]
        if link.disturbance is None:
            return unit.respond(pdu), 0.0
        outcome = link.disturbance.exchange(unit.asset_id, unit_id, pdu, unit.respond)
        return outcome.taken, outcome.late_s

    def wait(self, seconds: float) -> None:
        self.now += seconds
        self.faults.expire()


@pytest.fixture
def stepped(tmp_path: Path) -> Stepped:
    return Stepped(tmp_path)


def faults_of(document: dict[str, Any], model: Any = WireFault) -> list[str]:
    with pytest.raises(ValidationError) as caught:
        TypeAdapter(model).validate_python(document)
    return [str(error) for error in validation_errors(caught.value, model, document, "")]


@pytest.mark.parametrize(
    ("document", "message"),
    [
        ({"count": 1}, "wire_fault: is missing; use one of no_reply, late_reply,"),
        (
            {"wire_fault": "late", "count": 1},
            'wire_fault: "late" is not allowed; use one of no_reply, late_reply',
        ),
        ({"wire_fault": "no_reply"}, "has no end; use `duration` (s), `count`, or both"),
        ({"wire_fault": "no_reply", "count": 0}, "count: 0 is not allowed; use an integer of at least 1"),
        ({"wire_fault": "late_reply", "count": 1}, "delay_s: is missing; use a number"),
        (
            {"wire_fault": "no_reply", "count": 1, "lose": "all"},
            'lose: "all" is not allowed; use one of request,',
        ),
        (
            {"wire_fault": "no_reply", "count": 1, "unit": 3},
            "unit: unknown key; the closest is unit_id; use one of",
        ),
        (
            {"wire_fault": "no_reply", "count": 1, "functions": ["read_holding"]},
            'functions[0]: "read_holding" is not allowed; the closest is read_holding_registers; use one of',
        ),
        (
            {"wire_fault": "no_reply", "count": 1, "address": [9, 3]},
            "address: [9, 3] is not allowed; use [first, last]",
        ),
        (
            {"wire_fault": "no_reply", "count": 1, "probability": 0.0},
            "probability: 0.0 is not allowed; use a number",
        ),
        ({"wire_fault": "wrong_byte_count", "count": 1, "by": 0}, "by 0 is not allowed; use a number"),
    ],
)
def test_a_wire_fault_that_cannot_be_says_what_to_use(document: dict[str, Any], message: str) -> None:
    (told,) = faults_of(document)
    assert message in told


@pytest.mark.parametrize(
    ("document", "message"),
    [
        ({"link_fault": "refuse"}, "duration: is missing; use a number above 0"),
        ({"link_fault": "wrong_settings", "duration": 1}, "sets nothing; use `baudrate`, `parity`, or both"),
        ({"link_fault": "throttle", "duration": 1}, "bytes_per_s: is missing; use a number"),
        (
            {"link_fault": "unplug", "duration": 1},
            'link_fault: "unplug" is not allowed; the closest is unplugged',
        ),
    ],
)
def test_a_link_fault_that_cannot_be_says_what_to_use(document: dict[str, Any], message: str) -> None:
    (told,) = faults_of(document, LinkFault)
    assert message in told


@pytest.mark.parametrize(
    ("power", "message"),
    [
        (
            {"hub": "1-1; reboot", "port": 1},
            'hub: "1-1; reboot" is not allowed; use a hub as uhubctl lists it',
        ),
        ({"hub": "--help", "port": 1}, 'hub: "--help" is not allowed; use a hub as uhubctl lists it'),
        ({"line": 3, "chip": "-c"}, 'chip: "-c" is not allowed; use a chip as gpiodetect lists it'),
        ({"line": -1}, "line: -1 is not allowed; use an integer from 0 to 1023"),
        ({"port": 1}, "hub: is missing; use a text"),
    ],
)
def test_a_power_switch_is_nothing_but_a_place(
    tmp_path: Path, power: dict[str, object], message: str
) -> None:
    path = tmp_path / "site.json"
    path.write_text(json.dumps(site(tmp_path, battery(rtu(tmp_path / "line", power=power)))))
    with pytest.raises(Exception, match=message):
        check_site(path)


@pytest.mark.parametrize("kind", MODELS)
def test_each_fault_says_what_it_does(kind: str) -> None:
    text = str(vars(MODELS[kind])["__doc__"])
    assert text.split("\n")[0].rstrip().endswith(".")


@pytest.mark.parametrize(
    ("fault", "message"),
    [
        (
            wire_fault("no_reply", link="tcp 0.0.0.0:1"),
            'link: "tcp 0.0.0.0:1" is not allowed; the closest is tcp 1',
        ),
        (wire_fault("no_reply", device="bess-3"), 'device: "bess-3" is not allowed; the closest is bess-'),
        (wire_fault("early_reply", device="bess-1"), "early_reply: use one of rtu "),
        (wire_fault("bad_crc", link="tcp 127.0.0.1:55001"), "bad_crc: use one of rtu "),
        (link_fault("silent", device="bess-1"), "silent: use one of rtu "),
    ],
)
def test_a_fault_that_no_link_can_have_is_refused_with_what_could(
    stepped: Stepped, fault: Any, message: str
) -> None:
    with pytest.raises(ValueError, match=f"^{re.escape(message)}"):
        stepped.faults.start(fault)
    assert stepped.faults.active == {}


def test_what_a_site_has_no_link_for_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "site.json"
    path.write_text(json.dumps(site(tmp_path, battery({"port": 55001}))))
    faults = Faults(Bench(check_site(path)), lambda: 0.0)
    assert faults.problem(link_fault("break")) == "break: no link of the site can have it"


def test_a_fault_costs_a_healthy_link_nothing_but_a_look(stepped: Stepped) -> None:
    stepped.faults.start(wire_fault("no_reply", device="bess-1", count=1))
    assert stepped.link("rtu").disturbance is None
    assert stepped.ask(unit_id=2) == (setpoint_is(0), 0.0)
    assert stepped.ask() == (b"", 0.0)
    assert stepped.link("tcp").disturbance is None


def test_a_fault_ends_in_the_time_that_it_is_given(stepped: Stepped) -> None:
    stepped.faults.start(wire_fault("exception", duration=3600))
    stepped.wait(3599.9)
    assert stepped.ask()[0] == BUSY
    stepped.wait(0.2)
    assert stepped.ask()[0] == setpoint_is(0)


def test_a_fault_ends_by_whichever_end_comes_first(stepped: Stepped) -> None:
    stepped.faults.start(wire_fault("exception", duration=10, count=2))
    assert [stepped.ask()[0] for _ in range(3)] == [BUSY, BUSY, setpoint_is(0)]
    stepped.faults.start(wire_fault("exception", duration=10, count=2))
    stepped.wait(10)
    assert stepped.ask()[0] == setpoint_is(0)


def test_clearing_ends_all_and_begins_chance_anew(stepped: Stepped) -> None:
    def hits() -> list[bytes]:
        stepped.faults.start(wire_fault("exception", duration=60, probability=0.5), seed=4)
        stepped.faults.start(link_fault("hang"))
        assert stepped.ask() == (b"", 0.0)
        stepped.faults.end(max(stepped.faults.active))
        replies = [stepped.ask()[0] for _ in range(40)]
        stepped.faults.clear()
        assert stepped.faults.active == {}
        assert stepped.ask()[0] == setpoint_is(0)
        return replies

    first = hits()
    assert first == hits()
    assert len(set(first)) == 2


def test_a_second_fault_of_the_same_seed_has_a_chance_of_its_own(stepped: Stepped) -> None:
    faults = [wire_fault("exception", duration=60, probability=0.5) for _ in range(2)]
    handles = [stepped.faults.start(fault, seed=4) for fault in faults]
    first, second = (stepped.faults.active[handle].random for handle in handles)
    assert [first.random() for _ in range(3)] != [second.random() for _ in range(3)]


def test_ending_a_fault_twice_does_nothing(stepped: Stepped) -> None:
    handle = stepped.faults.start(wire_fault("no_reply", duration=60))
    stepped.faults.end(handle)
    with capture_logs() as log:
        stepped.faults.end(handle)
    assert log == []


@pytest.mark.parametrize("kind", WIRE)
def test_a_client_that_checks_its_frames_takes_a_right_reply_or_none(stepped: Stepped, kind: str) -> None:
    keys = {"delay_s": 2.5} if kind == "late_reply" else {}
    stepped.faults.start(wire_fault(kind, duration=60, **keys))
    word, unit_id = ("rtu", 1) if kind in ("early_reply", "bad_crc") else ("tcp", 1)
    taken, late_s = stepped.ask(unit_id=unit_id, word=word)
    intact = (
        "late_reply",
        "stale_value",
        "duplicated_reply",
        "split_reply",
        "early_reply",
        "echo",
        "garbage",
    )
    expected = BUSY if kind == "exception" else setpoint_is(0) if kind in intact else b""
    assert (taken, late_s) == (expected, 2.5 if kind == "late_reply" else 0.0)


@pytest.mark.parametrize("kind", ["refuse", "hang"])
def test_a_link_that_is_away_answers_nobody_without_sockets_too(stepped: Stepped, kind: str) -> None:
    stepped.faults.start(link_fault(kind, duration=5))
    assert stepped.ask(write_setpoint(9)) == (b"", 0.0)
    stepped.wait(5)
    assert stepped.ask()[0] == setpoint_is(0), "the write was not done"


def test_two_delays_add_up(stepped: Stepped) -> None:
    for _ in range(2):
        stepped.faults.start(wire_fault("late_reply", delay_s=1.25))
    assert stepped.ask() == (setpoint_is(0), 2.5)


def test_what_is_no_request_is_hit_by_no_fault(stepped: Stepped) -> None:
    stepped.faults.start(wire_fault("exception", duration=5))
    assert stepped.ask(b"\x83\x01") == (b"", 0.0)


@pytest.mark.parametrize(
    ("request_pdu", "addresses"),
    [
        (b"\x03\x00\x10\x00\x02", {16, 17}),
        (b"\x06\x00\x10\x00\x02", {16}),
        (b"\x10\x00\x10\x00\x02\x04\x00\x00\x00\x00", {16, 17}),
        (b"\x16\x00\x10\xff\xff\x00\x00", {16}),
        (b"\x17\x00\x10\x00\x01\x00\x20\x00\x02\x04\x00\x00\x00\x00", {16, 32, 33}),
        (b"\x08\x00\x00\x12\x34", set()),
        (b"\x2b\x0e\x01\x00", set()),
        (b"\x03", set()),
        (b"", set()),
    ],
)
def test_a_request_touches_the_addresses_that_it_reads_and_writes(
    request_pdu: bytes, addresses: set[int]
) -> None:
    assert {address for each in touched(request_pdu) for address in each} == addresses


@pytest.mark.parametrize("code", FUNCTIONS)
def test_a_function_is_known_by_number_and_name(code: int) -> None:
    pdu = bytes((code,)) + bytes(9)
    others = [other for other in FUNCTIONS if other != code]
    for functions, hit in (([code], True), ([FUNCTIONS[code]], True), (others, False)):
        assert wire_fault("no_reply", functions=functions).fits("bess-1", 1, pdu) is hit


def test_metrics_tell_what_acts_and_how_often_it_did(stepped: Stepped) -> None:
    def shown(name: str) -> list[str]:
        text = asyncio.run(exposition(registry(stepped.bench))).decode()
        return [line for line in text.splitlines() if line.startswith(name)]

    assert shown("dertwin_faults_active") == shown("dertwin_wire_faults_total") == []
    stepped.faults.start(wire_fault("exception", count=3))
    stepped.faults.start(link_fault("hang", duration=1))
    stepped.wait(2)
    for _ in range(2):
        stepped.ask()
    site_name = 'site="site"'
    assert sorted(shown("dertwin_faults_active")) == [
        f'dertwin_faults_active{{{site_name},fault="exception"}} 1',
        f'dertwin_faults_active{{{site_name},fault="hang"}} 0',
    ]
    link = 'link="tcp 127.0.0.1:55001",kind="tcp"'
    assert shown("dertwin_wire_faults_total") == [
        f'dertwin_wire_faults_total{{{site_name},{link},fault="exception"}} 2'
    ]


def test_faults_are_logged_when_they_begin_and_end(stepped: Stepped) -> None:
    with capture_logs() as log:
        stepped.faults.start(wire_fault("no_reply", count=1, device="bess-1"))
        stepped.ask()
    assert [(line["event"], line["fault"]) for line in log] == [
        ("fault started", "no_reply"),
        ("fault ended", "no_reply"),
    ]
    assert log[1]["acted"] == 1


PDUS = st.binary(min_size=1, max_size=253)
NOISY = st.sampled_from([kind for kind in WIRE if kind != "no_reply"])


@given(kinds=st.lists(NOISY, max_size=6), asked=PDUS, reply=PDUS)
def test_any_faults_together_leave_something_to_send(kinds: list[str], asked: bytes, reply: bytes) -> None:
    ongoing = [
        Ongoing(wire_fault(kind, **({"delay_s": 1.0} if kind == "late_reply" else {})), 0.0, Random(kind))
        for kind in kinds
    ]
    disturbance = Disturbance("rtu line", ongoing, lambda ongoing: None)
    for header in (Header(1), Header(1, 65535)):
        chunks = disturbance.answer("bess-1", header, asked, lambda pdu: reply)
        assert all(chunk.data for chunk in chunks)
        assert chunks


def test_an_undisturbed_exchange_is_just_that() -> None:
    outcome = Disturbance("tcp", (), lambda ongoing: None).exchange("", 1, READ_SETPOINT, lambda pdu: pdu[:1])
    assert outcome.taken == b"\x03"
