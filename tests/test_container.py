"""The start of a container: serial lines beyond it, signals to it, and whether it is alive."""

import contextlib
import fcntl
import json
import os
import re
import shutil
import signal
import socket
import struct
import subprocess
import sys
import termios
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

import pytest
from support.processes import children
from support.service import START_TIMEOUT_S, free_port, wait_for
from support.sites import READ_SETPOINT, battery, rtu, site

from bench import container
from dertwin.modbus.rtu import crc16, frame

ROOT = Path(__file__).parent.parent
MIXED = ROOT / "configs/mixed_protocol_config.json"
# As the program is started in a container, but for the port, which other tests may have.
START = (
    "import sys; from bench import container; container.FIRST_BRIDGE_PORT = int(sys.argv[1]);"
    "container.main(sys.argv[2:])"
)
REQUEST = frame(1, READ_SETPOINT)


def save(folder: Path, config: dict[str, Any]) -> Path:
    path = folder / "site.json"
    path.write_text(json.dumps(config))
    return path


class Started(NamedTuple):
    """A running entrypoint: `port` is that of its first bridge, `printed` what it has written."""

    process: "subprocess.Popen[bytes]"
    port: int
    printed: Path

    def connect(self) -> socket.socket:
        """Return a client of the first line."""
        client = socket.create_connection(("127.0.0.1", self.port), timeout=5.0)
        client.settimeout(5.0)
        return client


@contextlib.contextmanager
def started(
    config: Path | str, folder: Path, *options: str, within: tuple[str, ...] = ()
) -> Iterator[Started]:
    """Run the entrypoint; its processes end with it, as those of a container do."""
    port, printed = free_ports(2), folder / "printed"
    with printed.open("wb") as output:
        process = subprocess.Popen(
            [*within, sys.executable, "-c", START, str(port), "--listen-metrics", "none", *options],
            env=os.environ | {"CONFIG_PATH": str(config)},
            stdout=output,
            stderr=output,
            start_new_session=True,
        )
    try:
        yield Started(process, port, printed)
    finally:
        with contextlib.suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)
        process.wait()


@contextlib.contextmanager
def bridged(folder: Path, *options: str, within: tuple[str, ...] = ()) -> Iterator[Started]:
    """Run a battery on one line, and wait until its bridge is there."""
    config = save(folder, site(folder, battery(rtu(folder / "line"))))
    with started(config, folder, *options, within=within) as running:
        wait_for(lambda: listens(running, running.port), START_TIMEOUT_S, "the bridge")
        yield running


def free_ports(number: int) -> int:
    """Return the first of some TCP ports in a row that nobody listens on."""
    while True:
        first = free_port()
        with contextlib.suppress(OSError, OverflowError), contextlib.ExitStack() as stack:
            for port in range(first, first + number):
                stack.enter_context(socket.create_server(("127.0.0.1", port)))
            return first


def listens(running: Started, *ports: int) -> bool:
    """Tell whether all ports are listened on; connecting would take a line from others for a moment."""
    assert running.process.poll() is None, running.printed.read_text()
    sockets = Path("/proc/net/tcp").read_text()
    return all(f":{port:04X} 00000000:0000 0A " in sockets for port in ports)


def ask(client: socket.socket, request: bytes = REQUEST) -> bytes:
    """Make a request for one register and return the reply, which must be whole."""
    client.sendall(request)
    reply = b""
    while len(reply) < 7:
        data = client.recv(256)
        assert data, "the connection was closed"
        reply += data
    assert len(reply) == 7
    assert crc16(reply) == 0
    return reply


def is_turned_away(client: socket.socket) -> bool:
    try:
        client.sendall(REQUEST)
        return client.recv(256) == b""
    except ConnectionError:
        return True


def next_client(running: Started) -> socket.socket:
    """Return a client that is served, once the one before has given the line back."""

    def served() -> socket.socket | None:
        client = running.connect()
        try:
            if not is_turned_away(client):
                return client
        except TimeoutError:
            pass  # what is asked while the line is made is lost
        client.close()
        return None

    client: socket.socket = wait_for(served, what="a free line")
    return client


def test_the_example_works_on_the_serial_ports_that_the_printed_commands_make(tmp_path: Path) -> None:
    config = json.loads(MIXED.read_text())
    battery, *others = (asset["protocols"][0] for asset in config["assets"])
    battery["port"] = free_port()
    for binding, name in zip(others, ("pv", "meter"), strict=True):
        binding["port"] = str(tmp_path / name)
    with started(save(tmp_path, config), tmp_path) as running, contextlib.ExitStack() as stack:
        bridges = running.port, running.port + 1
        wait_for(lambda: listens(running, *bridges), START_TIMEOUT_S, "the bridges")
        commands = re.findall(r"^  (socat .*) &$", running.printed.read_text(), re.MULTILINE)
        # A user types it as it is known for other simulators, too.
        commands[0] = commands[0].replace("rawer", "raw,echo=0").replace(",nodelay", "")
        # In a container the pair of the service has the same path, and is not seen here.
        ports = [tmp_path / f"{name}_here" for name in ("pv", "meter")]
        for command, port in zip(commands, ports, strict=True):
            words = re.sub(r"link=[^ ,]*", f"link={port}", command).split()
            stack.callback(stack.enter_context(subprocess.Popen(words)).kill)
            wait_for(port.exists, what=str(port))
        example = [ROOT / "examples/main_mixed.py", "--port", str(battery["port"]), "--seconds", "1.5"]
        done = subprocess.run(
            [sys.executable, *example, "--pv", ports[0], "--meter", ports[1]],
            capture_output=True,
            text=True,
            timeout=30,
        )
    assert done.returncode == 0
    assert re.search(r"^pv-1 +producing  P +\+\d\d\.\d\d kW", done.stdout, re.MULTILINE), done.stdout
    assert re.search(r"^meter-1 +(import|export)  P .*kW  (49|50)\.\d{3} Hz", done.stdout, re.MULTILINE)
    assert "cannot open" not in done.stdout
    assert "no answer" not in done.stdout


def test_a_line_has_one_client_and_whoever_comes_second_is_turned_away_at_once(tmp_path: Path) -> None:
    with bridged(tmp_path) as running, next_client(running) as first:
        with running.connect() as second:
            assert is_turned_away(second)
        assert ask(first) == ask(first)
        first.close()
        with next_client(running) as third:
            assert ask(third)


def test_a_client_does_not_get_the_reply_that_the_one_before_left_behind(tmp_path: Path) -> None:
    with bridged(tmp_path) as running:
        with running.connect() as first:
            ask(first)
            os.kill(running.process.pid, signal.SIGSTOP)
            first.sendall(REQUEST)
        line = os.open(tmp_path / "line_client", os.O_RDONLY | os.O_NOCTTY | os.O_NONBLOCK)
        try:
            wait_for(lambda: is_free(line), what="a free line")
            os.kill(running.process.pid, signal.SIGCONT)
            wait_for(lambda: waiting_bytes(line) == 7, what="a reply that nobody takes")
        finally:
            os.close(line)
        with running.connect() as second:
            second.settimeout(0.3)
            with pytest.raises(TimeoutError):
                second.recv(256)
            second.settimeout(5.0)
            assert ask(second)


def is_free(terminal: int) -> bool:
    try:
        fcntl.flock(terminal, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    fcntl.flock(terminal, fcntl.LOCK_UN)
    return True


def waiting_bytes(terminal: int) -> int:
    (number,) = struct.unpack("i", fcntl.ioctl(terminal, termios.FIONREAD, b"\0" * 4))
    return int(number)


def test_a_line_that_is_made_anew_is_bridged_again(tmp_path: Path) -> None:
    with bridged(tmp_path) as running:
        end = os.readlink(tmp_path / "line_client")
        (pair,) = (pid for pid in children(running.process.pid) if f"link={tmp_path}/line " in command(pid))
        os.kill(pair, signal.SIGTERM)
        wait_for(lambda: not (tmp_path / "line_client").exists(), what=f"the end of {end}")
        wait_for((tmp_path / "line_client").exists, what="a new pair")
        with next_client(running) as client:
            assert ask(client)


def command(pid: int) -> str:
    return Path(f"/proc/{pid}/cmdline").read_bytes().replace(b"\0", b" ").decode()


def test_as_the_first_process_it_stops_at_once_on_a_signal_and_leaves_nothing_behind(tmp_path: Path) -> None:
    if os.geteuid() != 0 or shutil.which("unshare") is None:
        pytest.skip("needs root and unshare")
    with bridged(tmp_path, within=("unshare", "--pid", "--fork", "--kill-child")) as running:
        (first,) = children(running.process.pid)
        left = children(first)
        assert len(left) == 2
        with next_client(running) as client:
            ask(client)
            began = time.monotonic()
            os.kill(first, signal.SIGTERM)
            assert running.process.wait(timeout=5.0) == 0
            assert time.monotonic() - began < 1.0
            assert client.recv(256) == b""
    assert not [pid for pid in left if Path(f"/proc/{pid}").exists()]
    assert '"event": "stopped"' in running.printed.read_text()


def test_more_options_are_those_of_run(tmp_path: Path) -> None:
    with bridged(tmp_path, "--state-dir", str(tmp_path / "states")) as running:
        running.process.terminate()
        assert running.process.wait(timeout=5.0) == 0
    assert list((tmp_path / "states").iterdir())


def test_a_bad_config_or_none_ends_it_with_the_reason(tmp_path: Path) -> None:
    with started(save(tmp_path, site(tmp_path, battery(rtu("pty:x", baudrate=1)))), tmp_path) as running:
        assert running.process.wait(timeout=START_TIMEOUT_S) == 78
    assert "protocols[0].baudrate: 1 is not allowed" in running.printed.read_text()
    with started("", tmp_path) as running:
        assert running.process.wait(timeout=START_TIMEOUT_S) == 1
    assert running.printed.read_text().startswith("CONFIG_PATH is not set;")


def test_docker_asks_the_metrics_port_whether_the_service_is_alive(tmp_path: Path) -> None:
    dockerfile = (ROOT / "Dockerfile").read_text()
    (check,) = re.findall(r"^HEALTHCHECK .*\\\n +CMD (\[.*\])$", dockerfile, re.MULTILINE)
    words = json.loads(check)
    port = free_port()
    assert f":{container.METRICS_PORT} " in words[-1]
    words[-1] = words[-1].replace(f":{container.METRICS_PORT} ", f":{port} ")
    # The bridge is waited for, and comes after the pages.
    with bridged(tmp_path, "--listen-metrics", f"127.0.0.1:{port}") as running:
        assert subprocess.run(words, timeout=10).returncode == 0
        os.kill(running.process.pid, signal.SIGSTOP)
        assert subprocess.run(words, timeout=10).returncode != 0
        os.kill(running.process.pid, signal.SIGCONT)
