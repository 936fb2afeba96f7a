"""`dertwin run` as a process: how it is started, how it ends, and what it leaves behind."""

import contextlib
import json
import os
import signal
import socket
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import pytest
from support.service import Service, free_port, service, wait_for

from bench import cli

SPELLINGS = {
    "dertwin run -c": (str(Path(sys.executable).with_name("dertwin")), "run"),
    "dertwin -c": (str(Path(sys.executable).with_name("dertwin")),),
    "python -m dertwin.main -c": (sys.executable, "-m", "dertwin.main"),
}
SIGNALS = [signal.SIGINT, signal.SIGTERM]
HALF_A_FRAME = b"\x00\x01\x00\x00\x00\x06\x01\x03"


def tcp(port: int, **changes: Any) -> dict[str, Any]:
    return {"kind": "modbus_tcp", "ip": "127.0.0.1", "port": port, **changes}


def line(folder: Path, **changes: Any) -> dict[str, Any]:
    """Return a binding to a virtual line in a folder."""
    return {"kind": "modbus_rtu", "port": str(folder / "line"), "fallback": "pty", **changes}


def battery(*bindings: dict[str, Any]) -> dict[str, Any]:
    return {"type": "bess", "protocols": list(bindings)}


def socats(folder: Path) -> list[str]:
    """Return the command lines of all socats that serve a line in a folder."""
    found = []
    for process in Path("/proc").iterdir():
        with contextlib.suppress(OSError):
            words = (process / "cmdline").read_bytes().split(b"\0") if process.name.isdigit() else []
            if words and words[0] == b"socat" and str(folder).encode() in b" ".join(words):
                found.append(b" ".join(words).decode())
    return found


@contextlib.contextmanager
def busy_clients(port: int, end: Path) -> Iterator[None]:
    """Keep an idle connection, one that stopped within a frame, and the client's end of a line open."""
    with contextlib.ExitStack() as stack:
        idle, half = (
            stack.enter_context(socket.create_connection(("127.0.0.1", port), timeout=5)) for _ in range(2)
        )
        stack.callback(os.close, os.open(end, os.O_RDWR | os.O_NOCTTY | os.O_NONBLOCK))
        half.sendall(HALF_A_FRAME)
        idle.sendall(HALF_A_FRAME + b"\x00\x04\x00\x01")
        assert idle.recv(256)
        yield


def ends_well(bench: Service, number: int = signal.SIGTERM) -> None:
    """Stop the service; it must take less than a second and have nothing to complain about."""
    status, took_s = bench.stop(number)
    assert status == 0
    assert took_s < 1.0
    events = [entry["event"] for entry in bench.log()]  # raises for a traceback, which is no JSON
    assert "stopping" in events
    assert not [entry for entry in bench.log() if entry["level"] == "error"]


@pytest.mark.parametrize("command", SPELLINGS.values(), ids=SPELLINGS)
def test_every_spelling_of_the_command_serves_the_site(command: Sequence[str], tmp_path: Path) -> None:
    port = free_port()
    with service({"assets": [battery(tcp(port))]}, tmp_path, command=command) as bench:
        assert bench.lines[0].startswith("Serving site")
        assert f"127.0.0.1:{port}" in bench.lines[1]
        assert cli.main(["read", f"127.0.0.1:{port}", "bess_modbus.yaml", "soc"]) == 0
        ends_well(bench)


@pytest.mark.parametrize("number", SIGNALS)
def test_a_signal_stops_it_at_once_whoever_is_connected(tmp_path: Path, number: int) -> None:
    port = free_port()
    ends = [tmp_path / "line", tmp_path / "line_client"]
    with service({"assets": [battery(tcp(port), line(tmp_path))]}, tmp_path) as bench:
        assert str(ends[1]) in "".join(bench.lines)
        assert len(socats(tmp_path)) == 1
        with busy_clients(port, ends[1]):
            ends_well(bench, number)
    assert not [end for end in ends if end.is_symlink()]
    assert not socats(tmp_path)
    socket.create_server(("127.0.0.1", port)).close()


def test_ctrl_c_in_a_terminal_which_reaches_socat_as_well_stops_it_as_well(tmp_path: Path) -> None:
    with service({"assets": [battery(line(tmp_path))]}, tmp_path) as bench:
        os.killpg(bench.process.pid, signal.SIGINT)
        assert bench.process.wait(timeout=5) == 0
        assert "stopping" in [entry["event"] for entry in bench.log()]
    assert not (tmp_path / "line_client").is_symlink()
    assert not socats(tmp_path)


def test_links_that_never_came_up_do_not_keep_it_from_stopping(tmp_path: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        bindings = tcp(taken.getsockname()[1]), line(tmp_path, fallback="none")
        with service({"assets": [battery(*bindings)]}, tmp_path) as bench:
            assert ["not yet: " in text for text in bench.lines] == [False, True, True]
            ends_well(bench)


def test_a_site_that_is_too_large_for_its_speed_still_stops_at_once(tmp_path: Path) -> None:
    port = free_port()
    assets = [battery(tcp(port, unit_id=unit_id)) for unit_id in range(1, 61)]
    with service({"speed": 1000.0, "assets": assets}, tmp_path) as bench:
        assert cli.main(["read", f"127.0.0.1:{port}", "bess_modbus.yaml", "soc"]) == 0
        ends_well(bench)
        (stopped,) = bench.events("stopped")
        assert stopped["late"] > 0


def test_killed_outright_it_takes_socat_with_it_and_serves_again_when_restarted(tmp_path: Path) -> None:
    port = free_port()
    site = {"assets": [battery(tcp(port), line(tmp_path))]}
    reads = [
        ["read", f"127.0.0.1:{port}", "bess_modbus.yaml", "soc"],
        ["read", str(tmp_path / "line_client"), "bess_modbus.yaml", "soc"],
    ]
    with service(site, tmp_path) as bench, busy_clients(port, tmp_path / "line_client"):
        status, _ = bench.stop(signal.SIGKILL)
        assert status == -signal.SIGKILL
        wait_for(lambda: not socats(tmp_path), what="the end of socat")
        with service(site, tmp_path) as again:
            assert [cli.main(words) for words in reads] == [0, 0]
            ends_well(again)
    assert not socats(tmp_path)


def test_a_config_that_is_broken_serves_nothing(tmp_path: Path) -> None:
    config = {"assets": [battery(tcp(99999), line(tmp_path))]}
    with pytest.raises(AssertionError, match="99999 is not allowed"), service(config, tmp_path):
        pass
    assert not (tmp_path / "line").is_symlink()


def test_it_logs_json_lines_when_piped_with_each_link_once(tmp_path: Path) -> None:
    port = free_port()
    with service({"site_name": "here", "assets": [battery(tcp(port))]}, tmp_path) as bench:
        ends_well(bench)
    log = [json.loads(text) for text in (tmp_path / "service.log").read_text().splitlines()]
    assert [entry["event"] for entry in log] == ["site built", "link up", "stopping", "stopped"]
    assert log[0]["site"] == "here"
    assert log[1]["where"] == f"127.0.0.1:{port}"
    assert all({"event", "level", "timestamp"} <= set(entry) for entry in log)
