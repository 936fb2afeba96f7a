"""What clients see when a whole link has a fault: a TCP address, a serial line, its adapter."""

import fcntl
import json
import os
import select
import socket
import struct
import termios
import time
import tty
from collections.abc import Iterator
from pathlib import Path

import pytest
from pymodbus.exceptions import ConnectionException
from structlog.testing import capture_logs
from support.bus import Bus
from support.faults import link_fault, wire_fault
from support.foreign import HOLDING, Pymodbus, Reach
from support.inprocess import Running, running
from support.service import free_port, wait_for
from support.sites import READ_MOST, READ_SETPOINT, battery, rtu, site
from support.tcp import Client, ask, frame

from bench.check import check_site
from bench.links.serial import SerialLink
from bench.recorder import Kind, Recorder
from dertwin.modbus.rtu import frame as rtu_frame

SETPOINT = b"\x03\x02\x00\x00"
# Long enough for any reply to a client that is answered at all.
HEARD_S = 0.15


class Reached:
    """A running bench with one battery on a TCP port and on a serial line."""

    def __init__(self, bench: Running, port: int, line: Path) -> None:
        self.bench = bench
        self.port = port
        self.line = line

    def start(self, kind: str, **keys: object) -> int:
        return self.bench.call(self.bench.bench.faults.start, link_fault(kind, **keys))

    def end(self) -> None:
        self.bench.call(self.bench.bench.faults.clear)

    def reason(self, kind: str) -> str:
        """Return why the TCP address or the line is down."""
        return next(
            self.bench.bench.status[key].reason
            for key, link in self.bench.bench.links.items()
            if link.name.startswith(kind)
        )


@pytest.fixture(scope="module")
def served(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Reached]:
    folder = tmp_path_factory.mktemp("faults")
    port, line = free_port(), folder / "line"
    served_at = battery({"port": port}, rtu(line, fallback="pty", baudrate=115200))
    with running(site(folder, served_at, real_time=False), folder) as bench:
        yield Reached(bench, port, Path(f"{line}_client"))


@pytest.fixture(autouse=True)
def _healthy_in_the_end(served: Reached) -> Iterator[None]:
    yield
    served.end()
    wait_for(lambda: all(status.up for status in served.bench.bench.status.values()))


def heard(client: Client, seconds: float = HEARD_S) -> bytes:
    client.socket.settimeout(seconds)
    try:
        return client.socket.recv(4096)
    except TimeoutError:
        return b""


def is_reset(client: Client) -> bool:
    """Tell whether the connection ends with a reset and not with a farewell."""
    try:
        while client.socket.recv(4096):
            pass
    except ConnectionResetError:
        return True
    return False


def test_clients_are_disconnected_and_new_connections_refused(served: Reached) -> None:
    with Client(served.port) as client:
        client.ask(READ_SETPOINT)
        served.start("refuse")
        assert client.is_closed()
    with pytest.raises(ConnectionRefusedError):
        Client(served.port)
    with pytest.raises(AssertionError), Pymodbus("tcp", Reach(served.port, 0, "")):
        pass
    assert served.reason("tcp") == "closed by the fault refuse"
    served.end()
    wait_for(lambda: socket.socket().connect_ex(("127.0.0.1", served.port)) == 0)
    assert ask(served.port) == SETPOINT


def test_an_address_is_served_again_when_its_fault_has_lasted_its_time(served: Reached) -> None:
    served.start("refuse", duration=0.2)
    start = time.monotonic()
    wait_for(lambda: socket.socket().connect_ex(("127.0.0.1", served.port)) == 0)
    assert time.monotonic() - start > 0.15
    assert ask(served.port) == SETPOINT


def test_connections_are_reset_at_once_and_new_ones_when_they_ask(served: Reached) -> None:
    with Client(served.port) as idle:
        idle.ask(READ_SETPOINT)
        served.start("reset")
        assert is_reset(idle)
    with Client(served.port) as client:
        assert heard(client) == b""
        client.send(frame(1, READ_SETPOINT))
        assert is_reset(client)
    served.end()
    assert ask(served.port) == SETPOINT


def test_a_half_open_connection_is_dead_without_a_word_while_a_new_one_works(served: Reached) -> None:
    with Client(served.port) as old:
        old.ask(READ_SETPOINT)
        served.start("half_open")
        old.send(frame(1, READ_SETPOINT))
        assert heard(old) == b""
        assert ask(served.port) == SETPOINT
        served.end()
        assert is_reset(old)


def test_a_connection_is_accepted_and_never_answered(served: Reached) -> None:
    served.start("hang")
    with Client(served.port) as client:
        client.send(frame(1, READ_SETPOINT))
        assert heard(client) == b""
        served.end()
        assert client.ask(READ_SETPOINT, transaction_id=2) == SETPOINT


def test_replies_trickle(served: Reached) -> None:
    served.start("throttle", bytes_per_s=1000)
    with Client(served.port) as client:
        start = time.monotonic()
        assert len(client.ask(READ_MOST)) == 252
        assert 0.24 < time.monotonic() - start < 2.0


def test_what_still_trickles_comes_at_once_when_the_line_is_fast_again(served: Reached) -> None:
    served.start("throttle", bytes_per_s=10)
    with Client(served.port) as client:
        for transaction_id in range(20):
            client.send(frame(transaction_id, READ_MOST))
        assert 0 < len(heard(client)) < 9
        served.end()
        rest = b""
        while len(rest) < 20 * 259 - 1:
            rest += client.socket.recv(65536)
        assert client.ask(READ_SETPOINT) == SETPOINT


def test_each_byte_of_a_reply_arrives_alone(served: Reached) -> None:
    served.start("fragment")
    with Client(served.port) as client:
        client.ask(READ_SETPOINT)
        (segments,) = struct.unpack_from(
            "I", client.socket.getsockopt(socket.IPPROTO_TCP, socket.TCP_INFO, 256), 152
        )
    assert segments == len(frame(1, SETPOINT)), "segments with data that the client's kernel has counted"


def test_pymodbus_reads_what_comes_byte_by_byte(served: Reached) -> None:
    served.start("fragment")
    with Pymodbus("tcp", Reach(served.port, 0, "")) as client:
        assert client.read(HOLDING, 1, 0, 100) == [0] * 100


@pytest.mark.parametrize("kind", ["silent", "wrong_settings"])
def test_a_line_is_silent_and_then_works_again(served: Reached, kind: str) -> None:
    client = Bus(str(served.line))
    served.start(kind, **({"baudrate": 19200, "parity": "E"} if kind == "wrong_settings" else {}))
    client.send(rtu_frame(1, READ_SETPOINT))
    assert client.heard_within(HEARD_S) == b""
    served.end()
    client.send(rtu_frame(1, READ_SETPOINT))
    assert client.receive(7, 5.0) == rtu_frame(1, SETPOINT)
    client.close()


def test_a_client_sees_a_break_as_one_zero_and_then_nothing(served: Reached) -> None:
    client = Bus(str(served.line))
    served.start("break")
    assert client.receive(1, 5.0) == b"\0"
    client.send(rtu_frame(1, READ_SETPOINT))
    assert client.heard_within(HEARD_S) == b""
    served.end()
    client.send(rtu_frame(1, READ_SETPOINT))
    assert client.receive(7, 5.0) == rtu_frame(1, SETPOINT)
    client.close()


def test_a_virtual_pair_vanishes_and_comes_back(served: Reached) -> None:
    served.start("unplugged")
    wait_for(lambda: not served.line.exists())
    assert served.reason("rtu") == "closed by the fault unplugged"
    with pytest.raises(ConnectionException):
        Pymodbus("rtu", Reach(0, 0, str(served.line))).read(HOLDING, 1, 0, 1)
    served.end()
    wait_for(lambda: not served.reason("rtu"))
    client = Bus(str(served.line))
    client.send(rtu_frame(1, READ_SETPOINT))
    assert client.receive(7, 5.0) == rtu_frame(1, SETPOINT)
    client.close()


def test_of_two_faults_that_close_a_link_the_last_one_to_end_opens_it(served: Reached) -> None:
    first = served.start("refuse")
    served.start("refuse", device="bess-1")
    served.bench.call(served.bench.bench.faults.end, first)
    with pytest.raises(ConnectionRefusedError):
        Client(served.port)


def test_a_fault_outlasts_a_link_that_is_down_anyway(tmp_path: Path) -> None:
    port = free_port()
    config = site(tmp_path, battery({"port": port}))
    with socket.create_server(("127.0.0.1", port)) as rival:  # noqa: SIM117
        with running(config, tmp_path) as bench:
            faults = bench.bench.faults
            bench.call(faults.start, link_fault("refuse"))
            rival.close()
            with pytest.raises(ConnectionRefusedError):
                Client(port)
            bench.call(faults.clear)
            wait_for(lambda: socket.socket().connect_ex(("127.0.0.1", port)) == 0)


class Adapter:
    """A serial adapter that stays where it is when nobody has it open."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.far, self.near = os.openpty()
        for end in (self.far, self.near):
            tty.setraw(end)
        path.symlink_to(os.ttyname(self.near))

    def is_open(self) -> bool:
        """Tell whether a program has the port locked for itself."""
        other = os.open(self.path, os.O_RDWR | os.O_NOCTTY)
        try:
            fcntl.flock(other, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            return True
        finally:
            os.close(other)
        return False

    def is_served(self) -> bool:
        os.write(self.far, rtu_frame(1, READ_SETPOINT))
        return bool(select.select([self.far], [], [], 0.1)[0]) and len(os.read(self.far, 256)) > 0

    def close(self) -> None:
        os.close(self.far)
        os.close(self.near)


@pytest.fixture
def adapter(tmp_path: Path) -> Iterator[Adapter]:
    adapter = Adapter(tmp_path / "adapter")
    yield adapter
    adapter.close()


def test_an_unplugged_adapter_is_closed_and_then_opened_again(adapter: Adapter, tmp_path: Path) -> None:
    with running(site(tmp_path, battery(rtu(adapter.path))), tmp_path) as bench:
        assert adapter.is_served()
        bench.call(bench.bench.faults.start, link_fault("unplugged", duration=0.6))
        wait_for(lambda: not adapter.is_open())
        assert not adapter.is_served()
        wait_for(adapter.is_open)
        wait_for(adapter.is_served)


def test_a_port_is_set_to_the_wrong_baud_rate_and_back(adapter: Adapter, tmp_path: Path) -> None:
    def baudrate() -> int:
        speed: int = termios.tcgetattr(adapter.near)[4]
        return speed

    with running(site(tmp_path, battery(rtu(adapter.path, baudrate=9600))), tmp_path) as bench:
        assert baudrate() == termios.B9600
        bench.call(bench.bench.faults.start, link_fault("wrong_settings", baudrate=38400))
        assert baudrate() == termios.B38400
        bench.call(bench.bench.faults.clear)
        assert baudrate() == termios.B9600
        wait_for(adapter.is_served)


UHUBCTL = """#!/bin/sh
echo "$@" >>{told}
"""
GPIOSET = """#!/bin/sh
trap 'echo released >>{told}; exit 0' TERM
echo "$@" >>{told}
while :; do sleep 0.05; done
"""
BROKEN = """#!/bin/sh
printf "No compatible devices detected at location 1-1!\nRun with -h to get usage info.\n" >&2
exit 1
"""


@pytest.fixture
def told(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """The file in which programs of the test's own write down what they were asked to do."""
    folder = tmp_path / "bin"
    folder.mkdir()
    monkeypatch.setenv("PATH", str(folder), prepend=os.pathsep)
    told = tmp_path / "told"
    told.touch()
    for name, program in (("uhubctl", UHUBCTL), ("gpioset", GPIOSET)):
        (folder / name).write_text(program.format(told=told))
        (folder / name).chmod(0o755)
    return told


@pytest.mark.parametrize(
    ("power", "off", "on"),
    [
        ({"hub": "1-1.4", "port": 2}, "-l 1-1.4 -p 2 -a off", "-l 1-1.4 -p 2 -a on"),
        ({"line": 17}, "--chip gpiochip0 17=1", "released"),
        ({"chip": "gpiochip4", "line": 3, "level": 0}, "--chip gpiochip4 3=0", "released"),
    ],
)
def test_an_adapter_loses_its_power_while_it_is_unplugged(
    adapter: Adapter, told: Path, tmp_path: Path, power: dict[str, object], off: str, on: str
) -> None:
    with running(site(tmp_path, battery(rtu(adapter.path, power=power))), tmp_path) as bench:
        bench.call(bench.bench.faults.start, link_fault("unplugged"))
        wait_for(lambda: told.read_text().splitlines() == [off])
        assert not adapter.is_open()
        bench.call(bench.bench.faults.clear)
        wait_for(adapter.is_open)
        assert told.read_text().splitlines() == [off, on]


def test_power_is_on_again_when_the_bench_ends_in_the_middle(
    adapter: Adapter, told: Path, tmp_path: Path
) -> None:
    config = site(tmp_path, battery(rtu(adapter.path, power={"hub": "2", "port": 1})))
    with running(config, tmp_path) as bench:
        bench.call(bench.bench.faults.start, link_fault("unplugged"))
        wait_for(lambda: told.read_text().splitlines())
    assert told.read_text().splitlines() == ["-l 2 -p 1 -a off", "-l 2 -p 1 -a on"]


@pytest.mark.parametrize(
    ("name", "power"), [("uhubctl", {"hub": "1-1", "port": 2}), ("gpioset", {"line": 17})]
)
def test_a_switch_that_fails_is_told_and_harms_nobody(
    adapter: Adapter, told: Path, tmp_path: Path, name: str, power: dict[str, object]
) -> None:
    (told.parent / "bin" / name).write_text(BROKEN)
    port = free_port()
    config = site(tmp_path, battery({"port": port}), battery(rtu(adapter.path, power=power)))
    with running(config, tmp_path) as bench, capture_logs() as log:
        bench.call(bench.bench.faults.start, link_fault("unplugged"))
        wait_for(lambda: [line for line in log if line["event"] == "power not switched"])
        assert "No compatible devices detected at location 1-1!" in str(log)
        assert not adapter.is_open()
        assert ask(port) == SETPOINT
        bench.call(bench.bench.faults.clear)
        wait_for(adapter.is_served)


@pytest.mark.parametrize(
    ("name", "package", "power"),
    [("uhubctl", "uhubctl", {"hub": "1-1", "port": 2}), ("gpioset", "gpiod", {"line": 17})],
)
def test_a_missing_program_is_named_before_anything_is_done(
    adapter: Adapter, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str, package: str, power: object
) -> None:
    with running(site(tmp_path, battery(rtu(adapter.path, power=power))), tmp_path) as bench:
        monkeypatch.setenv("PATH", str(tmp_path))
        with pytest.raises(
            ValueError, match=f"^unplugged: {name} is not installed; install the package {package}"
        ):
            bench.call(bench.bench.faults.start, link_fault("unplugged"))
        assert adapter.is_served()


def test_faults_stay_with_links_that_come_later(tmp_path: Path) -> None:
    port, later = free_port(), free_port()
    with running(site(tmp_path, battery({"port": port})), tmp_path) as bench:
        bench.call(bench.bench.faults.start, wire_fault("exception", duration=60))
        bench.call(bench.bench.add_asset, battery({"port": later}))
        wait_for(lambda: socket.socket().connect_ex(("127.0.0.1", later)) == 0)
        assert ask(port) == ask(later) == b"\x83\x06"
        (first, second) = bench.bench.links.values()
        assert not isinstance(first, SerialLink)
        assert bench.bench.faults.acted() == {("exception", first.name): 1, ("exception", second.name): 1}


def test_faults_outlast_a_reload_that_opens_links_anew(tmp_path: Path) -> None:
    port, other = free_port(), free_port()
    assets = [battery({"port": port}), battery({"port": other})]
    with running(site(tmp_path, *assets, real_time=False), tmp_path) as bench:
        faults = bench.bench.faults
        bench.call(faults.start, link_fault("refuse", link=f"tcp 127.0.0.1:{port}"))
        bench.call(faults.start, wire_fault("exception", device="bess-2", duration=60))
        for asset in assets:
            asset["protocols"][0]["max_connections"] = 5
        (tmp_path / "site.json").write_text(json.dumps(site(tmp_path, *assets, real_time=False)))
        bench.wait(bench.bench.reload(check_site(tmp_path / "site.json")))
        wait_for(lambda: socket.socket().connect_ex(("127.0.0.1", other)) == 0)
        assert ask(other) == b"\x83\x06"
        with pytest.raises(ConnectionRefusedError):
            Client(port)
        bench.call(faults.clear)
        wait_for(lambda: socket.socket().connect_ex(("127.0.0.1", port)) == 0)
        assert ask(port) == ask(other) == SETPOINT


def test_the_recorder_has_what_went_over_the_wire(tmp_path: Path) -> None:
    port, recorder = free_port(), Recorder()
    with running(site(tmp_path, battery({"port": port})), tmp_path, recorder) as bench:
        bench.call(bench.bench.faults.start, wire_fault("truncated", size=4, count=1))
        bench.call(bench.bench.faults.start, wire_fault("no_reply", functions=[4], count=1))
        with Client(port) as client:
            client.send(frame(1, b"\x04\0\0\0\1") + frame(2, READ_SETPOINT))
            cut = client.socket.recv(256)
    assert cut == frame(2, SETPOINT)[:-4]
    assert [each.data for each in recorder.frames() if each.kind is Kind.SENT] == [cut]
