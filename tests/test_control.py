"""The control socket of a running service, and the commands that use it or what came of it."""

import contextlib
import json
import os
import signal
import socket
import stat
import subprocess
import sys
import threading
import time
import zipfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

import pytest
from support.service import Service, free_port, service, wait_for
from support.sites import READ_SETPOINT, battery, rtu, setpoint_is, site, write_setpoint
from support.tcp import Client
from support.tshark import packets

from bench import cli
from bench.control import MAX_CLIENTS, MAX_REQUEST_BYTES, Refused, ask, find_path, own_path
from bench.pcapng import decoding


class Served(NamedTuple):
    """A running service, its control socket, and the port of its battery."""

    run: Service
    path: Path
    port: int


@pytest.fixture(scope="module")
def served(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Served]:
    folder = tmp_path_factory.mktemp("control")
    port, path = free_port(), folder / "control"
    line = rtu(folder / "line", 2, fallback="pty")
    config = site(folder, battery({"port": port}, line), site_name="my site/1")
    with service(config, folder, "--control", str(path)) as run:
        wait_for(path.exists, what="the control socket")
        yield Served(run, path, port)
        status, stopping_s = run.stop()
        assert (status, stopping_s < 1.0) == (0, True)
        assert not path.exists()


def raw(path: Path, *lines: bytes) -> list[dict[str, Any]]:
    """Send lines on one connection and return the answers."""
    with socket.socket(socket.AF_UNIX) as client, client.makefile("rb") as received:
        client.settimeout(10)
        client.connect(str(path))
        with contextlib.suppress(BrokenPipeError):  # it has answered what it does not read to the end
            client.sendall(b"".join(lines))
        return [json.loads(received.readline()) for _ in lines]


def dertwin(folder: Path, *words: str, **environment: str) -> "subprocess.CompletedProcess[str]":
    return subprocess.run(
        [sys.executable, "-m", "bench.cli", *words],
        cwd=folder,
        capture_output=True,
        text=True,
        timeout=60,
        env={**os.environ, "PYTHONPATH": str(Path(cli.__file__).parent.parent), **environment},
    )


def test_what_a_running_service_recorded_is_dumped_and_replays_the_same(
    served: Served, tmp_path: Path
) -> None:
    with Client(served.port) as client:
        client.ask(write_setpoint(1234))
        time_s = simulated_time_s(served)
        wait_for(lambda: simulated_time_s(served) > time_s, what="a step")
        assert client.ask(READ_SETPOINT) == setpoint_is(1234)
        own = client.socket.getsockname()[1]
    done = dertwin(tmp_path, "record", "dump", "--control", str(served.path))
    assert done.returncode == 0, done.stderr
    (bundle,) = tmp_path.glob("my-site-1-*Z.zip")
    assert done.stdout == f"{bundle.name}: {bundle.stat().st_size} bytes\n"
    with zipfile.ZipFile(bundle) as archive:
        archive.extract("frames.pcapng", tmp_path)
        assert b"dertwin_active_power_watts" in archive.read("metrics.txt")
        assert json.loads(archive.read("incident.json"))["reason"] == "record dump"
    links = [f"tcp 127.0.0.1:{served.port}"]
    fields = ("tcp.srcport", "modbus.func_code", "modbus.regval_uint16", "modbus.data")
    found = packets(tmp_path / "frames.pcapng", fields, *decoding(links))
    modbus = [p for p in found if "modbus.func_code" in p and str(own) == p["tcp.srcport"]]
    assert [p["modbus.func_code"] for p in modbus] == ["6", "3"]
    assert [p["modbus.regval_uint16"] for p in found if "modbus.regval_uint16" in p][-1] == "1234"
    again = dertwin(tmp_path, "replay", bundle.name, "--csv", "csv")
    assert again.returncode == 0, again.stdout + again.stderr
    assert "same: every step came out as recorded" in again.stdout
    assert ",bess-1,active_power_setpoint_w,1234.0" in (tmp_path / "csv/commands.csv").read_text()


def simulated_time_s(served: Served) -> int:
    """Return how many steps a dump has now."""
    answer = ask(served.path, {"verb": "record dump"})
    file = served.path.parent / "now.zip"
    file.write_bytes(answer.attached)
    with zipfile.ZipFile(file) as archive:
        made = "ticks.jsonl" in archive.namelist()  # not before the first step
        return len(archive.read("ticks.jsonl").splitlines()) if made else 0


def test_owner_and_group_may_use_the_socket_and_nobody_else(served: Served) -> None:
    assert stat.S_IMODE(served.path.stat().st_mode) == 0o660


@pytest.mark.parametrize(
    ("line", "told"),
    [
        (b"hello\n", "is not JSON"),
        (b"\n", "is not JSON"),
        (b"\xff\xfe\n", "is not JSON"),
        (b"[1, 2]\n", "use a JSON object"),
        (b"{}\n", "verb: null is not allowed; use one of record dump"),
        (b'{"verb": "record dmp"}\n', 'verb: "record dmp" is not allowed; the closest is record dump'),
        (b'{"verb": ["record dump"]}\n', "is not allowed; use one of record dump"),
        (b"[" * 50_000 + b"\n", "is not JSON"),
        (b'{"verb": "' + b"x" * MAX_REQUEST_BYTES + b'"}\n', f"has at most {MAX_REQUEST_BYTES} bytes"),
    ],
    ids=["text", "empty", "no UTF-8", "list", "no verb", "typing error", "odd verb", "deep", "long"],
)
def test_what_is_no_request_is_answered_in_words(served: Served, line: bytes, told: str) -> None:
    (answer,) = raw(served.path, line)
    assert answer["ok"] is False
    assert told in answer["error"]


def test_several_requests_may_be_made_on_one_connection(served: Served) -> None:
    answers = raw(served.path, b"{}\n", b'{"verb": 1}\n')
    assert [answer["ok"] for answer in answers] == [False, False]


def test_those_who_say_nothing_keep_nobody_else_out_for_long_and_cost_little(served: Served) -> None:
    silent = [socket.socket(socket.AF_UNIX) for _ in range(MAX_CLIENTS)]
    try:
        for client in silent:
            client.connect(str(served.path))
        with pytest.raises(Refused, match="too many ask"):
            ask(served.path, {"verb": "record dump"})
    finally:
        for client in silent:
            client.close()
    assert wait_for(lambda: answers(served.path), what="an answer")


def answers(path: Path) -> bool:
    try:
        return len(ask(path, {"verb": "record dump"}).attached) > 0
    except Refused:
        return False


def test_requests_are_answered_while_a_large_recording_is_dumped(served: Served) -> None:
    with Client(served.port) as client:
        for _ in range(3000):
            client.ask(READ_SETPOINT)
        dump = threading.Thread(target=ask, args=(served.path, {"verb": "record dump"}))
        dump.start()
        slowest_s = 0.0
        while dump.is_alive():
            start = time.monotonic()
            client.ask(READ_SETPOINT)
            slowest_s = max(slowest_s, time.monotonic() - start)
    assert slowest_s < 0.5


def test_a_socket_that_was_left_is_taken_over_and_one_in_use_is_not(tmp_path: Path) -> None:
    config = site(tmp_path, battery({"port": free_port()}))
    options = ("--control", str(tmp_path / "control"))
    with service(config, tmp_path, *options) as first:
        wait_for(lambda: answers(tmp_path / "control"), what="an answer")
        (tmp_path / "second").mkdir()
        other = site(tmp_path / "second", battery({"port": free_port()}))
        with service(other, tmp_path / "second", *options) as second:
            (down,) = wait_for(lambda: second.events("link down"), what="the complaint")
            assert "in use by another program" in down["reason"]
            assert first.stop(signal.SIGKILL)[0] == -signal.SIGKILL
            wait_for(lambda: answers(tmp_path / "control"), what="the second service")


def test_a_file_in_the_way_of_the_socket_is_left_alone(tmp_path: Path) -> None:
    (tmp_path / "control").write_text("precious")
    config = site(tmp_path, battery({"port": free_port()}))
    with service(config, tmp_path, "--control", str(tmp_path / "control")) as run:
        (down,) = wait_for(lambda: run.events("link down"), what="the complaint")
        assert "cannot listen: Address already in use" in down["reason"]
    assert (tmp_path / "control").read_text() == "precious"


def test_the_place_of_the_socket_is_that_of_the_service_or_of_the_user(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("XDG_RUNTIME_DIR", str(tmp_path))
    assert own_path("my site/1") == tmp_path / "dertwin-my-site-1.sock"
    monkeypatch.setenv("RUNTIME_DIRECTORY", "/run/dertwin:/run/other")
    assert own_path("my site/1") == Path("/run/dertwin/control")
    for name in ("XDG_RUNTIME_DIR", "RUNTIME_DIRECTORY"):
        monkeypatch.delenv(name)
    monkeypatch.setattr(os, "geteuid", lambda: 1000)
    assert own_path("site") is None


def test_the_only_service_is_found_and_of_several_one_must_be_named(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    run, user = tmp_path / "run", tmp_path / "user"
    places = [run / "dertwin/control", run / "dertwin-north/control", user / "dertwin-site.sock"]
    for place in places:
        place.parent.mkdir(parents=True)
    monkeypatch.setenv("XDG_RUNTIME_DIR", str(user))
    with pytest.raises(Refused, match="name it with --control PATH"):
        find_path(run)
    with contextlib.ExitStack() as stack:
        found = []
        for place in places:
            listener = stack.enter_context(socket.socket(socket.AF_UNIX))
            listener.bind(str(place))
            with contextlib.suppress(Refused):
                find_path(run)
                assert found
            listener.listen()
            found.append(str(place))
            if len(found) == 1:
                assert find_path(run) == place
                continue
            with pytest.raises(Refused) as refused:
                find_path(run)
            assert str(refused.value).endswith(f"use --control with one of {', '.join(sorted(found))}")


def test_commands_that_cannot_do_it_say_why(tmp_path: Path, served: Served) -> None:
    gone = dertwin(tmp_path, "record", "dump", "--control", "nowhere")
    assert (gone.returncode, gone.stderr) == (1, "nowhere: No such file or directory\n")
    there = dertwin(tmp_path, "record", "dump", "no/such/x.zip", "--control", str(served.path))
    assert there.returncode == 1
    assert there.stderr == "no/such/x.zip.new: cannot be written: No such file or directory\n"
    bad = dertwin(tmp_path, "replay", "nothing.zip")
    assert (bad.returncode, bad.stderr) == (78, "nothing.zip: No such file or directory\n")
