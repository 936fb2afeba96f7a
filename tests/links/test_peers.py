"""Which clients the log tells of, and how often."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from structlog.testing import capture_logs
from structlog.typing import EventDict
from support.inprocess import running
from support.service import free_port, wait_for
from support.sites import battery, site
from support.tcp import Client

from bench.links.peers import GONE_AFTER_S, Peers

EMS, OTHER = "10.0.0.1", "10.0.0.2"


class Clients:
    """The connections of a link at a time that passes when told to."""

    name = "tcp here"

    def __init__(self, log: list[EventDict]) -> None:
        self.units: dict[int, Any] = {}
        self.now = 0.0
        self.peers = Peers(self, lambda: self.now)
        self._log = log

    def wait(self, seconds: int) -> None:
        for _ in range(seconds):
            self.now += 1.0
            self.peers.look()

    def told(self) -> list[tuple[str, str]]:
        """Return event and address of all that was told since the last call."""
        lines = [(line["event"], line["peer"]) for line in self._log]
        self._log.clear()
        return lines


@pytest.fixture
def clients() -> Iterator[Clients]:
    with capture_logs() as log:
        yield Clients(log)


def test_the_first_connection_of_an_address_and_the_end_of_its_last_are_told(clients: Clients) -> None:
    peers = clients.peers
    peers.opened(EMS)
    peers.opened(EMS)
    peers.opened(OTHER)
    assert clients.told() == [("client came", EMS), ("client came", OTHER)]
    clients.wait(100)
    peers.closed(EMS)
    clients.wait(100)
    assert clients.told() == []
    peers.closed(EMS)
    clients.wait(int(GONE_AFTER_S))
    assert clients.told() == [("client gone", EMS)]


def test_a_client_with_a_connection_for_each_request_comes_once_and_goes_once(clients: Clients) -> None:
    for _ in range(200):
        clients.peers.opened(EMS)
        clients.peers.closed(EMS)
        clients.wait(1)
    assert clients.told() == [("client came", EMS)]
    clients.wait(60)
    assert clients.told() == [("client gone", EMS)]


def test_an_address_has_a_line_a_minute_and_what_is_so_at_its_end_is_told(clients: Clients) -> None:
    clients.peers.opened(EMS)
    clients.peers.closed(EMS)
    clients.told()
    clients.wait(59)
    assert clients.told() == []
    clients.wait(1)
    assert clients.told() == [("client gone", EMS)]
    clients.peers.opened(EMS)
    clients.wait(59)
    assert clients.told() == []
    clients.wait(1)
    assert clients.told() == [("client came", EMS)]


def test_addresses_that_are_gone_are_forgotten(clients: Clients) -> None:
    for number in range(500):
        clients.peers.opened(f"10.0.{number // 256}.{number % 256}")
        clients.peers.closed(f"10.0.{number // 256}.{number % 256}")
    clients.wait(60)
    assert len(clients.told()) == 1000
    peers = clients.peers
    assert not any((peers._connections, peers._closed_at, peers._told))


def test_a_client_of_a_served_device_is_told_with_its_address_and_the_device(tmp_path: Path) -> None:
    port = free_port()
    with (
        running(site(tmp_path, battery({"port": port}), real_time=False), tmp_path) as run,
        capture_logs() as log,
    ):
        with Client(port) as one, Client(port) as two:
            one.send(b"")
            two.send(b"")
            wait_for(lambda: log)
            (link,) = run.bench.links.values()
            wait_for(lambda: link.connections == 2)
        wait_for(lambda: not link.connections)
        assert not link._peers._connections
    (line,) = log
    assert (line["event"], line["peer"], line["device"]) == ("client came", "127.0.0.1", ["bess-1"])
