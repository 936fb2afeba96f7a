"""Idle, half-open and deaf clients by the hundred, against a real service with a line beside its ports."""

import os
import resource
import threading
import time
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path

import pytest
from support import tcp
from support.bus import Bus
from support.lines import pair
from support.processes import resident_bytes
from support.service import Service, free_port, service, wait_for
from support.sites import MAP, READ_MOST, READ_SETPOINT, battery, rtu, site

from dertwin.modbus.rtu import frame

MIB = 1024 * 1024
STEP_S = 0.1


class Target:
    """Where the service is attacked, and what an honest client asks of it meanwhile."""

    def __init__(self, running: Service, ports: dict[str, int], line: Path) -> None:
        self.service = running
        self.ports = ports
        self.line = line

    def worst_answer_s(self) -> float:
        """Make one fresh request at each port and on the line; return how long the slowest took."""
        durations = []
        for name, port in self.ports.items():
            start = time.monotonic()
            if name == "rtu":
                with tcp.Client(port) as client:
                    client.send(frame(1, READ_SETPOINT))
                    assert len(client.socket.recv(7)) == 7
            else:
                assert len(tcp.ask(port)) == 4
            durations.append(time.monotonic() - start)
        start = time.monotonic()
        bus = Bus(f"{self.line}_client")
        bus.send(frame(1, READ_SETPOINT))
        assert len(bus.receive(7)) == 7
        bus.close()
        return max(*durations, time.monotonic() - start)


@pytest.fixture(params=[64, 1000], ids=["most are closed for room", "all are kept"])
def target(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Target]:
    room = {"max_connections": request.param}
    ports = {"first": free_port(), "second": free_port(), "rtu": free_port()}
    line = rtu(tmp_path / "line", fallback="pty", register_map="meter.yaml")
    config = site(
        tmp_path,
        battery({"port": ports["first"], **room}),
        battery({"port": ports["second"], **room}),
        battery({"port": ports["rtu"], "kind": "modbus_rtu_over_tcp", **room}),
        {"type": "energy_meter", "protocols": [line]},
        step=STEP_S,
    )
    (tmp_path / "meter.yaml").write_text(MAP.replace("active_power_setpoint_w", "interval_time_s"))
    with service(config, tmp_path) as running:
        yield Target(running, ports, tmp_path / "line")


def test_a_flood_of_useless_clients_costs_little_memory_and_no_time(target: Target) -> None:
    pid = target.service.process.pid
    target.worst_answer_s()  # so that what the first requests need is not counted as growth
    before, start = resident_bytes(pid), time.monotonic()
    half = tcp.frame(1, READ_SETPOINT)[:9]
    with ExitStack() as flood:
        for i in range(700):
            port = (target.ports["first"], target.ports["second"], target.ports["rtu"])[i % 3]
            client = flood.enter_context(tcp.Client(port))
            if i % 7 < 2:
                client.send(half)
            if i % 100 == 50:
                assert target.worst_answer_s() < 1.0
        deaf = [
            flood.enter_context(tcp.Client(target.ports[name], buffers=4096))
            for name in ("first", "second") * 4
        ]
        senders = [threading.Thread(target=_ask_without_end, args=(client,)) for client in deaf]
        for sender in senders:
            sender.start()
        peak = before
        while any(sender.is_alive() for sender in senders):
            assert target.worst_answer_s() < 1.0
            peak = max(peak, resident_bytes(pid))
        elapsed_s = time.monotonic() - start
    assert peak - before < 32 * MIB
    status, stopping_s = target.service.stop()
    assert (status, stopping_s < 1.0) == (0, True)
    (stopped,) = target.service.events("stopped")
    assert stopped["skipped"] == 0
    assert stopped["late"] <= elapsed_s / STEP_S / 20  # the scheduler of a busy test machine
    assert stopped["steps"] >= elapsed_s / STEP_S - 1
    assert [line for line in target.service.log() if line["level"] != "info"] == []


def test_more_connections_than_a_shell_may_open_files_leave_room_for_a_line(
    tmp_path: Path,
) -> None:
    ports = [free_port() for _ in range(3)]
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    with pair(tmp_path / "line") as line, ExitStack() as stack:
        servers = [battery({"port": port, "max_connections": 400}) for port in ports]
        config = site(tmp_path, *servers, battery(rtu(line.port)))
        stack.callback(resource.setrlimit, resource.RLIMIT_NOFILE, (soft, hard))
        resource.setrlimit(resource.RLIMIT_NOFILE, (256, hard))  # what the service starts with
        stack.enter_context(service(config, tmp_path))
        resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
        low_numbers = [os.open(os.devnull, os.O_RDONLY) for _ in range(10)]
        kept = [stack.enter_context(tcp.Client(port)) for port in ports for _ in range(380)]
        assert all(len(client.ask(READ_SETPOINT)) == 4 for client in kept)
        for number in low_numbers:  # our end of the line is to have one: select takes none above 1023
            os.close(number)
        line.appear()
        wait_for(lambda: _answers(line.client), what="a reply on the line")


def _answers(path: Path) -> bool:
    client = Bus(str(path))
    client.send(frame(1, READ_SETPOINT))
    reply = client.receive(7, 0.2)
    client.close()
    return len(reply) == 7


def _ask_without_end(client: tcp.Client) -> None:
    """Send requests and read nothing until the server hangs up."""
    client.socket.settimeout(10.0)
    requests = tcp.frame(1, READ_MOST) * 100
    try:
        while True:
            client.send(requests)
    except ConnectionError:
        return
