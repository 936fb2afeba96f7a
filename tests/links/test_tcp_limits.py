"""What a TCP server does not let its clients do: take all connections, all memory, all time."""

import re
import select
import socket
import subprocess
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path

import pytest
from structlog.testing import capture_logs
from support.inprocess import running
from support.service import free_port, wait_for
from support.sites import READ_MOST, READ_SETPOINT, battery, site
from support.tcp import Client, ask, frame

from bench.links import tcp
from bench.links.tcp import TcpLink

Serve = Callable[..., tuple[TcpLink, int]]

LOOKS_EVERY_S = 1.0
"""How often a server looks for clients to disconnect."""


@pytest.fixture
def serve(tmp_path: Path) -> Iterator[Serve]:
    """Returns a function that serves one battery with the given settings of its binding."""
    with ExitStack() as stack:

        def start(**binding: object) -> tuple[TcpLink, int]:
            port = free_port()
            bench = stack.enter_context(running(site(tmp_path, battery({"port": port, **binding})), tmp_path))
            (link,) = bench.bench.links.values()
            assert isinstance(link, TcpLink)
            return link, port

        yield start


def test_one_client_too_many_closes_the_connection_that_was_idle_for_longest(serve: Serve) -> None:
    link, port = serve(max_connections=3)
    with Client(port) as first, Client(port) as second, Client(port) as third:
        for client in (first, second, third, first):
            client.ask(READ_SETPOINT)
        with Client(port) as fourth:
            fourth.ask(READ_SETPOINT)
            assert second.is_closed()
            for client in (first, third, fourth):
                client.ask(READ_SETPOINT)
            assert (link.connections, link.counters.closed_for_room) == (3, 1)


def test_a_client_that_keeps_asking_survives_a_flood_of_connections(serve: Serve) -> None:
    link, port = serve(max_connections=16)
    with Client(port) as ems, ExitStack() as flood:
        for _ in range(200):
            flood.enter_context(Client(port))
            ems.ask(READ_SETPOINT)
            assert link.connections <= 16


def test_a_silent_client_is_disconnected_after_its_time_and_an_active_one_is_not(
    serve: Serve, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(tcp, "IDLE_TIMEOUT_S", 0.5)
    link, port = serve()
    with Client(port) as silent, Client(port) as active:
        silent.ask(READ_SETPOINT)
        start = time.monotonic()
        while not _readable(silent):
            active.ask(READ_SETPOINT)
        assert 0.4 < time.monotonic() - start < 0.5 + 2 * LOOKS_EVERY_S
        assert silent.is_closed()
        active.ask(READ_SETPOINT)
        assert link.counters.closed_idle == 1


def test_half_a_frame_is_waited_for_less_long_than_a_new_request(
    serve: Serve, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(tcp, "HALF_FRAME_TIMEOUT_S", 0.3)
    link, port = serve()
    with Client(port) as idle, Client(port) as half:
        half.send(frame(1, READ_SETPOINT)[:9])
        assert half.is_closed(0.3 + 2 * LOOKS_EVERY_S)
        assert link.counters.closed_idle == 1
        idle.ask(READ_SETPOINT)


@pytest.mark.parametrize("request_frame", [frame(1, READ_MOST), frame(1, b"\x2b\x0e\x01\x00")])
def test_a_client_that_never_reads_is_stopped_then_disconnected_while_others_are_served(
    serve: Serve, monkeypatch: pytest.MonkeyPatch, request_frame: bytes
) -> None:
    monkeypatch.setattr(tcp, "NOT_READING_TIMEOUT_S", 0.5)
    link, port = serve()
    with Client(port, buffers=4096) as client:
        client.socket.setblocking(False)
        taken, start = 0, time.monotonic()
        while link.counters.closed_not_reading == 0:
            assert time.monotonic() - start < 0.5 + 2 * LOOKS_EVERY_S
            if select.select([], [client.socket], [], 0.01)[1]:
                try:
                    taken += client.socket.send(request_frame * 100)
                except ConnectionError:
                    break
            assert len(ask(port)) == 4
        # What lies in the buffers of both kernels and makes replies for ours, not a second of sending.
        assert taken < 150_000
    wait_for(lambda: link.connections == 0)


def test_a_slow_client_gets_every_reply_once_it_reads(serve: Serve) -> None:
    link, port = serve()
    count = 5000
    with Client(port, buffers=4096) as client:
        requests = b"".join(frame(i, READ_MOST) for i in range(count))
        sender = threading.Thread(target=client.send, args=(requests,))
        sender.start()
        wait_for(lambda: any(c.not_reading_since for c in list(link._connections)), what="a full buffer")
        assert [client.receive().transaction_id for _ in range(count)] == list(range(count))
        sender.join()
        assert len(client.ask(READ_SETPOINT)) == 4


def test_a_port_in_use_is_served_within_two_seconds_after_it_is_free(tmp_path: Path) -> None:
    port, other_port = free_port(), free_port()
    config = site(tmp_path, battery({"port": port}), battery({"port": other_port}))
    with socket.create_server(("127.0.0.1", port)) as rival, capture_logs() as log:  # noqa: SIM117
        with running(config, tmp_path):
            assert len(ask(other_port)) == 4
            rival.close()
            freed = time.monotonic()
            wait_for(
                lambda: [line for line in log if line["event"] == "link up" and str(port) in line["link"]]
            )
            assert len(ask(port)) == 4
            assert time.monotonic() - freed < 2.0
    states = [(line["event"], line.get("reason")) for line in log if str(port) in line["link"]]
    reason = (
        f"cannot listen on 127.0.0.1:{port}: Address already in use, by another server or as an end of a "
        f"connection; `ss -tanp sport = :{port}` shows whose"
    )
    assert states == [("link down", reason), ("link up", None), ("client came", None)]


def test_a_port_that_an_outgoing_connection_happens_to_have_is_told_and_can_be_found(tmp_path: Path) -> None:
    port = free_port()
    with (
        socket.create_server(("127.0.0.1", 0)) as far,
        socket.create_connection(far.getsockname(), source_address=("127.0.0.1", port)),
        capture_logs() as log,
        running(site(tmp_path, battery({"port": port})), tmp_path),
    ):
        reason = next(line["reason"] for line in log if line["event"] == "link down")
        assert "as an end of a connection" in reason
        (command,) = re.findall("`(.*)`", reason)
        shown = subprocess.run(command.split(), capture_output=True, text=True, check=True).stdout
        assert f"127.0.0.1:{port}" in shown
        assert f"127.0.0.1:{far.getsockname()[1]}" in shown


def _readable(client: Client) -> bool:
    return bool(select.select([client.socket], [], [], 0.02)[0])
