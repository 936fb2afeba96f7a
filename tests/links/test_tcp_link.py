"""Modbus on real TCP sockets: streams, units, and what is refused; limits are in test_tcp_limits.py."""

import logging
import socket
from collections.abc import Iterator
from pathlib import Path

import pytest
from structlog.testing import capture_logs
from support.bus import pause
from support.inprocess import Running, running
from support.service import free_port, wait_for
from support.sites import READ_MOST, READ_SETPOINT, battery, setpoint_is, site, write_setpoint
from support.tcp import Client, Reply, ask, frame

from bench.links.tcp import TcpLink
from dertwin.modbus.rtu import frame as rtu_frame

NO_SUCH_UNIT = b"\x83\x0b"
NOBODY_IS_LATE_S = 0.15
"""How long to listen before an answer that must not come has not come."""


class Ports:
    """One server of a single unit, one of units 1, 2 and 5 that ignores unknown ones, one of RTU frames."""

    def __init__(self) -> None:
        self.single, self.several, self.rtu = free_port(), free_port(), free_port()


@pytest.fixture(scope="module")
def ports(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Ports]:
    folder, ports = tmp_path_factory.mktemp("tcp"), Ports()
    silent = {"port": ports.several, "unknown_unit": "silent"}
    rtu = {"port": ports.rtu, "kind": "modbus_rtu_over_tcp"}
    config = site(
        folder,
        battery({"port": ports.single, "unit_id": 3}),
        *(battery({**silent, "unit_id": unit_id}) for unit_id in (1, 2, 5)),
        *(battery({**rtu, "unit_id": unit_id}) for unit_id in (1, 2)),
    )
    with running(config, folder):
        yield ports


@pytest.mark.parametrize("outstanding", [8, 500])
def test_outstanding_requests_are_each_answered_once_in_order_with_their_id(
    ports: Ports, outstanding: int
) -> None:
    requests = [(write_setpoint(i), READ_SETPOINT)[i % 2] for i in range(outstanding)]
    with Client(ports.single) as client:
        client.send(b"".join(frame(60000 + i, pdu, 3) for i, pdu in enumerate(requests)))
        for i, pdu in enumerate(requests):
            expected = setpoint_is(i - 1) if i % 2 else pdu
            assert client.receive() == Reply(60000 + i, 3, expected)
        assert not client.is_closed(NOBODY_IS_LATE_S)


def test_a_request_may_be_split_at_any_byte(ports: Ports) -> None:
    request = frame(1, READ_SETPOINT, 3)
    with Client(ports.single) as client:
        for cut in range(1, len(request)):
            client.send(request[:cut])
            pause(0.002)
            client.send(request[cut:])
            assert client.receive().transaction_id == 1
        for byte in request:
            client.send(bytes((byte,)))
            pause(0.001)
        assert client.receive().transaction_id == 1


def test_what_is_complete_is_answered_before_the_rest_of_the_next_request_comes(ports: Ports) -> None:
    following = frame(2, READ_SETPOINT, 3)
    with Client(ports.single) as client:
        client.send(frame(1, READ_MOST, 3) + following[:9])
        assert client.receive().transaction_id == 1
        client.send(following[9:])
        assert client.receive().transaction_id == 2


def test_a_client_that_says_it_is_done_still_gets_its_replies(ports: Ports) -> None:
    with Client(ports.single) as client:
        client.send(frame(1, READ_MOST, 3) + frame(2, READ_MOST, 3))
        client.socket.shutdown(socket.SHUT_WR)
        assert [client.receive().transaction_id for _ in range(2)] == [1, 2]
        assert client.is_closed()


def test_frames_of_another_protocol_are_skipped(ports: Ports) -> None:
    with Client(ports.single) as client:
        client.send(frame(1, write_setpoint(99), 3, protocol_id=1) + frame(2, READ_SETPOINT, 3))
        reply = client.receive()
        assert reply.transaction_id == 2
        assert reply.pdu != setpoint_is(99)


@pytest.mark.parametrize("length", [0, 1, 255, 65535])
def test_a_length_that_no_frame_has_closes_that_connection_only(ports: Ports, length: int) -> None:
    with Client(ports.single) as other, Client(ports.single) as client:
        client.send(frame(1, READ_SETPOINT, 3) + b"\0\2\0\0" + length.to_bytes(2, "big") + b"\3")
        assert client.receive().transaction_id == 1
        assert client.is_closed()
        assert len(other.ask(READ_SETPOINT, 3)) == 4


def test_functions_above_127_get_no_answer_and_the_connection_lives_on(ports: Ports) -> None:
    with Client(ports.single) as client:
        client.send(frame(1, b"\x83\0\0\0\1", 3) + frame(2, b"\x83\x02", 9) + frame(3, READ_SETPOINT, 3))
        assert client.receive().transaction_id == 3


def test_a_lone_unit_also_answers_unit_ids_0_and_255_and_under_these(ports: Ports) -> None:
    with Client(ports.single) as client:
        assert client.ask(write_setpoint(42), 0) == write_setpoint(42)
        assert client.ask(READ_SETPOINT, 255) == setpoint_is(42)
        assert client.ask(READ_SETPOINT, 3) == setpoint_is(42)


def test_an_unknown_unit_gets_exception_0x0b(ports: Ports) -> None:
    with Client(ports.single) as client:
        assert client.ask(READ_SETPOINT, 1) == NO_SUCH_UNIT
        assert client.ask(write_setpoint(1), 247) == b"\x86\x0b"
        assert len(client.ask(READ_SETPOINT, 3)) == 4


def test_each_unit_of_a_server_answers_for_its_own_device(ports: Ports) -> None:
    with Client(ports.several) as client:
        for unit_id in (1, 2, 5):
            client.ask(write_setpoint(100 * unit_id), unit_id)
        for unit_id in (5, 1, 2):
            assert client.ask(READ_SETPOINT, unit_id) == setpoint_is(100 * unit_id)


@pytest.mark.parametrize("unit_id", [0, 3, 255])
def test_among_several_units_the_unknown_ones_are_silent_if_so_configured(ports: Ports, unit_id: int) -> None:
    with Client(ports.several) as client:
        client.send(frame(1, READ_SETPOINT, unit_id) + frame(2, READ_SETPOINT, 2))
        assert client.receive()[:2] == (2, 2)
        assert not client.is_closed(NOBODY_IS_LATE_S)


def test_rtu_frames_on_a_socket_are_answered_in_order(ports: Ports) -> None:
    requests = [rtu_frame(1 + i % 2, READ_MOST) for i in range(50)]
    with Client(ports.rtu) as client:
        client.send(b"".join(requests))
        for i in range(50):
            reply = _receive(client, 255)
            assert (reply[:3], rtu_frame(reply[0], reply[1:-2])) == (bytes((1 + i % 2, 3, 250)), reply)


def test_an_rtu_frame_on_a_socket_may_be_split_at_any_byte(ports: Ports) -> None:
    request = rtu_frame(2, READ_SETPOINT)
    with Client(ports.rtu) as client:
        for cut in range(1, len(request)):
            client.send(request[:cut])
            pause(0.002)
            client.send(request[cut:])
            assert _receive(client, 7)[:3] == b"\2\3\2"


def test_a_wrong_crc_or_another_unit_on_a_socket_gets_silence_and_the_next_request_its_reply(
    ports: Ports,
) -> None:
    damaged = bytearray(rtu_frame(1, write_setpoint(77)))
    damaged[5] ^= 0x10
    with Client(ports.rtu) as client:
        client.send(damaged)
        assert not client.is_closed(NOBODY_IS_LATE_S)
    with Client(ports.rtu) as client:
        client.send(rtu_frame(9, READ_SETPOINT) + rtu_frame(1, READ_SETPOINT))
        reply = _receive(client, 7)
        assert reply[0] == 1
        assert reply[1:-2] not in (setpoint_is(77), setpoint_is(77 ^ 0x10))


def test_a_broadcast_of_rtu_frames_on_a_socket_acts_on_all_units_and_gets_no_reply(ports: Ports) -> None:
    with Client(ports.rtu) as client:
        client.send(rtu_frame(0, write_setpoint(55)))
        for unit_id in (1, 2):
            client.send(rtu_frame(unit_id, READ_SETPOINT))
            assert _receive(client, 7) == rtu_frame(unit_id, setpoint_is(55))


def _receive(client: Client, length: int) -> bytes:
    return client.socket.recv(length, socket.MSG_WAITALL)


@pytest.fixture
def alone(tmp_path: Path) -> Iterator[tuple[Running, TcpLink, int]]:
    port = free_port()
    with running(site(tmp_path, battery({"port": port})), tmp_path) as bench:
        (link,) = bench.bench.links.values()
        assert isinstance(link, TcpLink)
        yield bench, link, port


def test_clients_that_reset_the_connection_at_any_moment_leave_no_trace(
    alone: tuple[Running, TcpLink, int], caplog: pytest.LogCaptureFixture
) -> None:
    _, link, port = alone
    for last_words in (b"", b"\0\1\0\0\xff\xff\1", frame(1, READ_MOST)[:8], frame(1, READ_MOST) * 50):
        for _ in range(100):
            client = Client(port)
            client.send(last_words)
            client.reset()
    wait_for(lambda: link.connections == 0, what="the end of all connections")
    assert len(ask(port)) == 4
    assert [record for record in caplog.records if record.levelno >= logging.ERROR] == []


def test_a_peer_has_one_log_line_a_minute_however_often_it_sends_nonsense(
    alone: tuple[Running, TcpLink, int],
) -> None:
    _, link, port = alone
    with capture_logs() as log:
        for _ in range(50):
            with Client(port) as client:
                client.send(b"GET / HTTP/1.1\r\n\r\n")
                assert client.is_closed()
    assert link.counters.protocol_errors == 50
    told = [(line["event"], line["peer"]) for line in log]
    assert told == [("client came", "127.0.0.1"), ("connection closed", "127.0.0.1")]


@pytest.mark.skipif(not Path("/proc/net/if_inet6").exists(), reason="this machine has no IPv6")
def test_a_server_may_listen_on_an_ipv6_address(tmp_path: Path) -> None:
    port = free_port()
    with running(site(tmp_path, battery({"port": port, "ip": "::1"})), tmp_path) as bench:
        (status,) = bench.bench.status.values()
        assert status.where == f"[::1]:{port}"
        with socket.create_connection(("::1", port), timeout=5.0) as client:
            client.sendall(frame(1, READ_SETPOINT))
            assert len(client.recv(100)) == 11


def test_a_closed_bench_refuses_connections_and_frees_the_port(tmp_path: Path) -> None:
    port = free_port()
    config = site(tmp_path, battery({"port": port}))
    for _ in range(2):
        with running(config, tmp_path), Client(port) as client:
            client.ask(READ_SETPOINT)
        with pytest.raises(ConnectionRefusedError):
            Client(port)
