"""What clients see of wire faults, on TCP and on a serial line: clients that know nothing of us."""

import time
from collections.abc import Iterator

import pytest
from pymodbus import ModbusException
from support.bus import Bus
from support.faults import wire_fault
from support.foreign import HOLDING, Pymodbus, Reach
from support.inprocess import Running, running
from support.service import free_port
from support.sites import READ_SETPOINT, battery, rtu, setpoint_is, site, write_setpoint
from support.tcp import Client, frame

from bench.links.serial import SerialLink
from dertwin.modbus import rtu as rtu_frames
from dertwin.modbus.rtu import crc16

BAUDRATE = 115200
# Of the line on which a reply comes so late that an early one can be told from it.
LONG_TURNAROUND_S = 0.5
# Long enough for a reply to a client that is answered at all, on a machine that has time.
SILENCE_S = 0.1
READ_REPLY = 7
ASK = rtu_frames.frame(1, READ_SETPOINT)


class Reached:
    """A running bench: two batteries, units 1 and 2 on each of a TCP port, a port with RTU frames, a line."""

    def __init__(self, bench: Running, reach: Reach) -> None:
        self.bench = bench
        self.reach = reach

    def start(self, kind: str, seed: int = 0, **keys: object) -> int:
        return self.bench.call(self.bench.bench.faults.start, wire_fault(kind, **keys), seed)

    def tcp(self) -> Client:
        return Client(self.reach.tcp)


@pytest.fixture(scope="module")
def served(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Reached]:
    folder = tmp_path_factory.mktemp("faults")
    port, stream, line = free_port(), free_port(), folder / "line"
    settings = {"fallback": "pty", "baudrate": BAUDRATE}
    patient = {**settings, "min_turnaround_ms": LONG_TURNAROUND_S * 1000}
    batteries = [
        battery(
            {"port": port, "unit_id": unit_id},
            {"port": stream, "unit_id": unit_id, "kind": "modbus_rtu_over_tcp"},
            rtu(line, unit_id, **settings),
            rtu(folder / "patient", unit_id, **patient),
        )
        for unit_id in (1, 2)
    ]
    with running(site(folder, *batteries, real_time=False), folder) as bench:
        yield Reached(bench, Reach(port, stream, f"{line}_client"))


@pytest.fixture(autouse=True)
def _healthy_in_the_end(served: Reached) -> Iterator[None]:
    yield
    served.bench.call(served.bench.bench.faults.clear)
    assert all(link.disturbance is None for link in served.bench.bench.links.values())


@pytest.fixture
def tcp(served: Reached) -> Iterator[Client]:
    with served.tcp() as client:
        client.ask(write_setpoint(7))
        yield client


@pytest.fixture
def line(served: Reached) -> Iterator[Bus]:
    client = Bus(served.reach.rtu)
    assert rtu_ask(client, write_setpoint(7)) == write_setpoint(7)
    yield client
    client.close()


@pytest.fixture
def stream(served: Reached) -> Iterator[Client]:
    with Client(served.reach.rtu_over_tcp) as client:
        client.send(rtu_frames.frame(1, write_setpoint(7)))
        assert heard(client, 8) == rtu_frames.frame(1, write_setpoint(7))
        yield client


def rtu_ask(client: Bus, pdu: bytes, unit_id: int = 1, length: int = 0) -> bytes:
    """Make one request on a line and return the PDU of what is heard; empty if that is nothing."""
    client.send(rtu_frames.frame(unit_id, pdu))
    data = on_line(client, length or (len(pdu) + 3 if pdu[0] == 6 else READ_REPLY))
    assert data == b"" or (data[0], crc16(data)) == (unit_id, 0)
    return data[1:-2]


def is_silent(client: Bus, pdu: bytes, unit_id: int = 1) -> bool:
    """Tell whether a request on a line gets no reply."""
    client.send(rtu_frames.frame(unit_id, pdu))
    return client.heard_within(SILENCE_S) == b""


def on_line(client: Bus, length: int) -> bytes:
    """Return what is heard on a line: as much as expected, and what follows."""
    return client.receive(length, 5.0) + client.heard_within(0.03)


def heard(client: Client, length: int = 0) -> bytes:
    """Return what a connection brings: as much as expected, and what follows."""
    data = b""
    until = time.monotonic() + (5.0 if length else SILENCE_S)
    while (left := until - time.monotonic()) > 0:
        client.socket.settimeout(left)
        try:
            data += client.socket.recv(4096)
        except TimeoutError:
            break
        if len(data) >= length:
            until = time.monotonic() + 0.03
    return data


def test_no_reply_leaves_a_tcp_client_waiting_and_its_write_undone(served: Reached, tcp: Client) -> None:
    served.start("no_reply", functions=["write_single_register"])
    tcp.send(frame(1, write_setpoint(9)))
    assert heard(tcp) == b""
    assert tcp.ask(READ_SETPOINT) == setpoint_is(7)


def test_a_lost_reply_leaves_a_client_waiting_but_its_write_is_done(served: Reached, tcp: Client) -> None:
    served.start("no_reply", lose="reply", functions=[6])
    tcp.send(frame(1, write_setpoint(9)))
    assert heard(tcp) == b""
    assert tcp.ask(READ_SETPOINT) == setpoint_is(9)


def test_a_silent_device_is_silent_on_tcp_and_on_its_line_while_the_other_one_answers(
    served: Reached, tcp: Client, line: Bus
) -> None:
    served.start("no_reply", device="bess-1", duration=60)
    tcp.send(frame(1, READ_SETPOINT))
    assert heard(tcp) == b""
    assert is_silent(line, READ_SETPOINT)
    assert rtu_ask(line, READ_SETPOINT, unit_id=2)[:2] == b"\x03\x02"
    with served.tcp() as other:
        assert other.ask(READ_SETPOINT, unit_id=2)[:2] == b"\x03\x02"


def test_a_silent_device_does_not_hear_a_broadcast_and_the_other_one_does(served: Reached, line: Bus) -> None:
    served.start("no_reply", device="bess-1", duration=60, functions=[6])
    assert is_silent(line, write_setpoint(11), unit_id=0)
    assert rtu_ask(line, READ_SETPOINT) == setpoint_is(7)
    assert rtu_ask(line, READ_SETPOINT, unit_id=2) == setpoint_is(11)


def test_a_late_reply_comes_after_the_reply_to_the_next_request(served: Reached, tcp: Client) -> None:
    served.start("late_reply", delay_s=0.1)
    tcp.send(frame(1, READ_SETPOINT) + frame(2, write_setpoint(9)))
    assert (tcp.receive().transaction_id, tcp.receive()) == (2, (1, 1, setpoint_is(7)))


def test_a_late_reply_is_heard_by_a_client_of_a_line_as_the_reply_to_its_next_request(
    served: Reached, line: Bus
) -> None:
    served.start("late_reply", delay_s=0.3)
    line.send(ASK)
    assert line.heard_within(0.1) == b""
    line.send(rtu_frames.frame(1, b"\x03\x00\xc7\x00\x01"))
    both = on_line(line, 2 * READ_REPLY)
    assert sorted((both[:READ_REPLY], both[READ_REPLY:])) == [
        rtu_frames.frame(1, setpoint_is(0)),
        rtu_frames.frame(1, setpoint_is(7)),
    ]


def test_pymodbus_sees_a_busy_device_and_its_write_is_not_done(served: Reached, tcp: Client) -> None:
    served.start("exception", functions=["write_single_register"])
    with Pymodbus("tcp", served.reach) as client:
        reply = client._client.write_register(0, 9, device_id=1)
        assert (reply.isError(), reply.exception_code) == (True, 6)
    assert tcp.ask(READ_SETPOINT) == setpoint_is(7)


@pytest.mark.parametrize("code", [1, 2, 3, 4, 5, 6, 10, 11, 0xE0])
def test_any_exception_code_is_heard_on_a_line(served: Reached, line: Bus, code: int) -> None:
    served.start("exception", code=code)
    line.send(ASK)
    assert line.receive(5) == rtu_frames.frame(1, bytes((0x83, code)))


def test_a_reply_comes_from_the_wrong_unit(served: Reached, tcp: Client, line: Bus) -> None:
    served.start("wrong_unit", count=2)
    tcp.send(frame(1, READ_SETPOINT))
    assert tcp.receive() == (1, 2, setpoint_is(7))
    line.send(ASK)
    assert line.receive(READ_REPLY) == rtu_frames.frame(2, setpoint_is(7))
    served.start("wrong_unit", answer_as=77)
    tcp.send(frame(2, READ_SETPOINT))
    assert tcp.receive() == (2, 77, setpoint_is(7))


def test_a_reply_is_one_to_another_function(served: Reached, line: Bus) -> None:
    served.start("wrong_function")
    assert rtu_ask(line, READ_SETPOINT) == b"\x04" + setpoint_is(7)[1:]
    served.start("wrong_function", answer_as=0x10)
    assert rtu_ask(line, READ_SETPOINT) == b"\x10" + setpoint_is(7)[1:]


def test_a_reply_has_the_wrong_transaction_id(served: Reached, tcp: Client) -> None:
    served.start("wrong_transaction_id", count=2, by=65535)
    tcp.send(frame(7, READ_SETPOINT) + frame(0, READ_SETPOINT))
    assert [tcp.receive().transaction_id for _ in range(2)] == [6, 65535]


@pytest.mark.parametrize("by", [1, -1, 200])
def test_a_byte_count_is_not_that_of_the_bytes_that_follow(served: Reached, line: Bus, by: int) -> None:
    served.start("wrong_byte_count", by=by)
    assert rtu_ask(line, write_setpoint(5)) == write_setpoint(5)
    assert rtu_ask(line, READ_SETPOINT) == bytes((3, (2 + by) % 256)) + setpoint_is(5)[2:]


@pytest.mark.parametrize("size", [1, 4, 256])
def test_a_reply_is_cut_short(served: Reached, tcp: Client, line: Bus, size: int) -> None:
    served.start("truncated", count=2, size=size)
    line.send(ASK)
    whole = rtu_frames.frame(1, setpoint_is(7))
    assert on_line(line, max(1, len(whole) - size)) == whole[: max(1, len(whole) - size)]
    tcp.send(frame(3, READ_SETPOINT))
    whole = frame(3, setpoint_is(7))
    assert heard(tcp, max(1, len(whole) - size)) == whole[: max(1, len(whole) - size)]


def test_a_reply_has_bytes_too_many(served: Reached, tcp: Client, line: Bus) -> None:
    served.start("extra_bytes", count=2, size=3)
    line.send(ASK)
    told = on_line(line, READ_REPLY + 3)
    assert (len(told), told[:READ_REPLY]) == (READ_REPLY + 3, rtu_frames.frame(1, setpoint_is(7)))
    tcp.send(frame(3, READ_SETPOINT))
    told = heard(tcp, len(frame(3, setpoint_is(7))) + 3)
    assert (len(told), told[:-3]) == (len(frame(3, setpoint_is(7))) + 3, frame(3, setpoint_is(7)))


def test_a_crc_has_one_wrong_bit(served: Reached, line: Bus, stream: Client) -> None:
    served.start("bad_crc", count=2)
    line.send(ASK)
    stream.send(ASK)
    whole = rtu_frames.frame(1, setpoint_is(7))
    for told in (line.receive(READ_REPLY), heard(stream, READ_REPLY)):
        assert told[:-1] == whole[:-1]
        assert (told[-1] ^ whole[-1]).bit_count() == 1


def test_pymodbus_takes_no_reply_with_a_bad_crc(served: Reached) -> None:
    served.start("bad_crc", unit_id=1)
    with Pymodbus("rtu", served.reach) as client:
        client._client.comm_params.timeout_connect = 0.2
        with pytest.raises(ModbusException):
            client.read(HOLDING, 1, 0, 1)


def test_a_reply_comes_twice(served: Reached, tcp: Client, line: Bus) -> None:
    served.start("duplicated_reply", count=2)
    tcp.send(frame(3, READ_SETPOINT))
    assert [tcp.receive() for _ in range(2)] == [(3, 1, setpoint_is(7))] * 2
    line.send(ASK)
    assert on_line(line, 2 * READ_REPLY) == 2 * rtu_frames.frame(1, setpoint_is(7))


def test_a_reply_comes_in_pieces_with_silence_between_them(served: Reached, line: Bus) -> None:
    served.start("split_reply", parts=3, gap_s=0.05)
    line.send(ASK)
    told = line.receive(1)
    start = time.monotonic()
    told += line.receive(READ_REPLY - 1)
    assert told == rtu_frames.frame(1, setpoint_is(7))
    assert time.monotonic() - start > 0.09


def test_the_next_reply_waits_for_the_rest_of_one_that_comes_in_pieces(served: Reached, tcp: Client) -> None:
    served.start("split_reply", parts=9, gap_s=0.01)
    for transaction_id in range(20):
        tcp.send(frame(transaction_id, READ_SETPOINT))
    assert [tcp.receive() for _ in range(20)] == [(n, 1, setpoint_is(7)) for n in range(20)]


def test_a_reply_comes_before_the_silence_that_the_line_needs(served: Reached) -> None:
    client = Bus(served.reach.rtu.replace("line_client", "patient_client"))
    took_s = []
    for early in (False, True):
        if early:
            served.start("early_reply")
        start = time.monotonic()
        client.send(ASK)
        assert client.receive(READ_REPLY) == rtu_frames.frame(1, setpoint_is(0))
        took_s.append(time.monotonic() - start)
    client.close()
    assert took_s[0] >= LONG_TURNAROUND_S
    assert took_s[1] < LONG_TURNAROUND_S


def test_a_client_hears_its_own_request_before_the_reply(served: Reached, tcp: Client, line: Bus) -> None:
    served.start("echo", count=2)
    line.send(ASK)
    assert on_line(line, len(ASK) + READ_REPLY) == ASK + rtu_frames.frame(1, setpoint_is(7))
    tcp.send(frame(3, READ_SETPOINT))
    both = frame(3, READ_SETPOINT) + frame(3, setpoint_is(7))
    assert heard(tcp, len(both)) == both


@pytest.mark.parametrize("where", ["before", "after"])
def test_garbage_comes_between_frames(served: Reached, line: Bus, where: str) -> None:
    served.start("garbage", where=where, size=5)
    line.send(ASK)
    told = on_line(line, READ_REPLY + 5)
    reply = rtu_frames.frame(1, setpoint_is(7))
    noise = told[:5] if where == "before" else told[-5:]
    assert told == (noise + reply if where == "before" else reply + noise)


def test_a_read_gets_an_earlier_reply_and_writes_go_on(served: Reached, tcp: Client, line: Bus) -> None:
    served.start("stale_value", count=3, device="bess-1")
    assert tcp.ask(READ_SETPOINT) == setpoint_is(7)
    assert tcp.ask(write_setpoint(9)) == write_setpoint(9)
    assert tcp.ask(READ_SETPOINT) == setpoint_is(7)
    assert rtu_ask(line, READ_SETPOINT) == setpoint_is(7)
    assert tcp.ask(READ_SETPOINT, unit_id=2) != b""
    assert tcp.ask(READ_SETPOINT) == setpoint_is(7)
    assert tcp.ask(READ_SETPOINT) == setpoint_is(9), "after three times it is over"


def test_faults_act_together(served: Reached, line: Bus) -> None:
    served.start("exception", code=4)
    served.start("wrong_unit", answer_as=9)
    served.start("extra_bytes", size=2)
    line.send(ASK)
    told = on_line(line, 7)
    assert (told[:-2], len(told)) == (rtu_frames.frame(9, b"\x83\x04"), 7)


def test_only_requests_to_the_address_of_a_fault_are_hit(served: Reached, tcp: Client) -> None:
    served.start("exception", address=[190, 199], duration=60)
    assert tcp.ask(READ_SETPOINT) == setpoint_is(7)
    assert tcp.ask(b"\x03\x00\x00\x00\x7d")[0] == 3, "125 registers from 0 end before 190"
    assert tcp.ask(b"\x03\x00\xb4\x00\x14") == b"\x83\x06"
    assert tcp.ask(b"\x06\x00\xc7\x00\x01") == b"\x86\x06"


def test_only_the_link_of_a_fault_is_disturbed(
    served: Reached, tcp: Client, line: Bus, stream: Client
) -> None:
    served.start("exception", link=f"tcp 127.0.0.1:{served.reach.tcp}", duration=60)
    assert tcp.ask(READ_SETPOINT) == b"\x83\x06"
    assert rtu_ask(line, READ_SETPOINT) == setpoint_is(7)
    stream.send(ASK)
    assert heard(stream, READ_REPLY) == rtu_frames.frame(1, setpoint_is(7))


def test_a_request_to_no_unit_can_be_hit_too(served: Reached, tcp: Client) -> None:
    assert tcp.ask(READ_SETPOINT, unit_id=9) == b"\x83\x0b"
    served.start("no_reply", unit_id=9)
    tcp.send(frame(1, READ_SETPOINT, unit_id=9))
    assert heard(tcp) == b""


def test_a_fault_ends_by_itself_after_its_time(served: Reached, tcp: Client) -> None:
    served.start("exception", duration=0.2)
    start = time.monotonic()
    while (reply := tcp.ask(READ_SETPOINT)) == b"\x83\x06":
        assert time.monotonic() - start < 5.0
    assert reply == setpoint_is(7)
    assert time.monotonic() - start > 0.15
    assert served.bench.bench.faults.active == {}


def test_the_same_seed_hits_the_same_requests(served: Reached, tcp: Client) -> None:
    def hit(seed: int) -> str:
        served.start("exception", seed, probability=0.3, duration=60)
        replies = [tcp.ask(READ_SETPOINT) for _ in range(60)]
        served.bench.call(served.bench.bench.faults.clear)
        return "".join("x" if reply == b"\x83\x06" else "." for reply in replies)

    first, again, other = hit(1), hit(1), hit(2)
    assert first == again != other
    assert 5 <= first.count("x") <= 35


def test_a_line_is_as_good_as_ever_once_its_faults_are_over(served: Reached, line: Bus) -> None:
    for kind in ("late_reply", "garbage", "truncated", "duplicated_reply", "echo", "split_reply", "bad_crc"):
        served.start(kind, **({"delay_s": 0.05} if kind == "late_reply" else {}))
        line.send(ASK)
        line.heard_within(0.15)
        assert rtu_ask(line, READ_SETPOINT) == setpoint_is(7)
    links = served.bench.bench.links.values()
    (link,) = (link for link in links if isinstance(link, SerialLink) and link.name.endswith("/line"))
    assert (link.counters.crc_errors, link.counters.replies_dropped) == (0, 0)
