"""What systemd is told, with a socket of ours in its place (tests/test_systemd.py has the real one)."""

import json
import os
import select
import signal
import socket
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from support.inprocess import running
from support.service import free_port, service, wait_for
from support.sites import battery, rtu, site
from support.tcp import ask
from support.watch import get

from bench.clock import StepClock
from bench.log import journal_fields
from bench.notify import Notifier

RESTART_S = 1.5


class Systemd:
    """The end of the notification socket that systemd has; remembers all it was told."""

    def __init__(self, path: Path) -> None:
        self._socket = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
        self._socket.bind(str(path))
        self._socket.setblocking(False)
        self.told: list[str] = []

    def close(self) -> None:
        self._socket.close()

    def listen(self) -> list[str]:
        """Return all that was told so far, a variable an entry."""
        while True:
            try:
                self.told += self._socket.recv(65536).decode().splitlines()
            except BlockingIOError:
                return self.told

    def hears_nothing_for(self, seconds: float) -> bool:
        self.listen()
        return not select.select([self._socket], [], [], seconds)[0]

    def hears(self, text: str, after: int = 0) -> Callable[[], bool]:
        """Return what tells whether a variable that begins with the text was told, after so many others."""
        return lambda: any(told.startswith(text) for told in self.listen()[after:])


@pytest.fixture
def systemd(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Systemd]:
    pytest.importorskip("systemd.daemon", reason="needs systemd-python")
    path = tmp_path / "notify"
    systemd = Systemd(path)
    monkeypatch.setenv("NOTIFY_SOCKET", str(path))
    monkeypatch.setenv("WATCHDOG_USEC", "400000")
    yield systemd
    systemd.close()


def test_a_service_is_ready_without_the_adapters_that_are_not_there(tmp_path: Path, systemd: Systemd) -> None:
    bindings = {"port": free_port()}, rtu("/dev/ttyUSB77")
    with service(site(tmp_path, battery(*bindings)), tmp_path):
        wait_for(systemd.hears("READY=1"))
        wait_for(systemd.hears("STATUS=1 devices, 1 of 2 links up"))
        assert "ttyUSB77" in next(told for told in systemd.told if told.startswith("STATUS="))


def test_a_service_without_an_adapter_has_started_but_is_not_ready_for_a_test_run(
    tmp_path: Path, systemd: Systemd
) -> None:
    port, line = free_port(), str(tmp_path / "adapter")
    options = "--listen-metrics", f"127.0.0.1:{port}"
    for fallback, ready in (("none", 503), ("pty", 200)):
        told = len(systemd.listen())
        config = site(tmp_path, battery({"port": free_port()}, rtu(line, fallback=fallback)))
        with service(config, tmp_path, *options):
            wait_for(systemd.hears("READY=1", after=told))
            status, text, _ = get(port, "/readyz")
            assert status == ready
            assert (f"rtu {line}: " in text) == (ready == 503)


def test_a_service_is_not_ready_before_all_its_addresses_are_served(tmp_path: Path, systemd: Systemd) -> None:
    with socket.create_server(("127.0.0.1", 0)) as other:
        port = other.getsockname()[1]
        with service(site(tmp_path, battery({"port": port}, {"port": free_port()})), tmp_path):
            wait_for(systemd.hears("EXTEND_TIMEOUT_USEC=", after=6))
            assert "READY=1" not in systemd.told
            other.close()
            wait_for(systemd.hears("READY=1"))
            assert ask(port)


def test_the_watchdog_is_fed_while_the_clock_runs(tmp_path: Path, systemd: Systemd) -> None:
    with service(site(tmp_path, battery({"port": free_port()})), tmp_path) as run:
        wait_for(systemd.hears("READY=1"))
        for _ in range(3):
            wait_for(systemd.hears("WATCHDOG=1", after=len(systemd.listen())))
        run.process.send_signal(signal.SIGSTOP)
        wait_for(lambda: "T (stopped)" in Path(f"/proc/{run.process.pid}/status").read_text())
        assert systemd.hears_nothing_for(0.5), "longer than the limit"
        told = len(systemd.listen())
        run.process.send_signal(signal.SIGCONT)
        wait_for(systemd.hears("WATCHDOG=1", after=told))


def test_a_clock_that_nobody_steps_is_no_progress(tmp_path: Path) -> None:
    with running(site(tmp_path, battery({"port": free_port()}), real_time=False), tmp_path) as run:
        notifier = Notifier(run.bench)
        assert notifier.progress(), "there is no clock to wait for"
        clock = run.bench.clock = StepClock(0.01)
        notifier.progress()
        wait_for(lambda: clock.lag_s > 0)
        assert not notifier.progress()
        clock.steps += 1
        assert notifier.progress()


def test_a_clock_whose_next_step_is_not_due_yet_is_not_stuck(tmp_path: Path) -> None:
    with running(site(tmp_path, battery({"port": free_port()}), step=3600), tmp_path) as run:
        notifier = Notifier(run.bench)
        assert [notifier.progress() for _ in range(3)] == [True] * 3


def test_a_reload_is_told_as_sd_notify_wants_it(tmp_path: Path, systemd: Systemd) -> None:
    config = site(tmp_path, battery({"port": free_port()}))
    with service(config, tmp_path) as run:
        wait_for(systemd.hears("READY=1"))
        before_us = time.monotonic_ns() // 1000
        for content, status in (
            (config | {"step": -1}, "STATUS=config refused: "),
            (config | {"step": 0.2}, "STATUS=1 devices"),
        ):
            (tmp_path / "site.json").write_text(json.dumps(content))
            told = len(systemd.listen())
            run.process.send_signal(signal.SIGHUP)
            wait_for(systemd.hears("READY=1", after=told))
            since = systemd.told[told:]
            (begun,) = [each for each in since if each.startswith("MONOTONIC_USEC=")]
            begun_us = int(begun.partition("=")[2])
            assert before_us < begun_us < time.monotonic_ns() // 1000
            assert since.index("RELOADING=1") < since.index("READY=1")
            assert any(each.startswith(status) for each in since[since.index("READY=1") :])


def test_a_stop_is_told(tmp_path: Path, systemd: Systemd) -> None:
    with service(site(tmp_path, battery({"port": free_port()})), tmp_path) as run:
        run.stop()
        assert "STOPPING=1" in systemd.listen()


def test_a_service_runs_when_nobody_listens_to_what_it_tells(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("NOTIFY_SOCKET", str(tmp_path / "nobody"))
    port = free_port()
    with service(site(tmp_path, battery({"port": port})), tmp_path) as run:
        assert ask(port)
        assert run.stop()[0] == 0


def test_a_service_runs_without_systemd_python(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    hidden = tmp_path / "hidden"
    hidden.mkdir()
    (hidden / "systemd.py").write_text("raise ImportError('not installed')")
    monkeypatch.setenv("PYTHONPATH", str(hidden))
    monkeypatch.setenv("NOTIFY_SOCKET", str(tmp_path / "nobody"))
    port = free_port()
    with service(site(tmp_path, battery({"port": port})), tmp_path) as run:
        assert ask(port)
        (event,) = run.events("systemd is not told")
        assert "dertwin[systemd]" in event["remedy"]


def test_from_the_stop_signal_to_the_first_answer_of_the_next_run(tmp_path: Path) -> None:
    port = free_port()
    options = "--state-dir", str(tmp_path / "states")

    def config(step: float) -> dict[str, object]:
        return site(tmp_path, battery({"port": port}), step=step)

    with service(config(0.1), tmp_path, *options) as run:
        start = time.monotonic()
        assert run.stop()[0] == 0
    with service(config(0.2), tmp_path, *options):
        assert ask(port)
        assert time.monotonic() - start <= RESTART_S


def test_a_log_event_has_a_journal_field_for_each_of_its_own() -> None:
    event = {"event": "link up", "level": "warning", "device": ["b1", "b2"], "where": "a b", "_x": 1}
    assert journal_fields(event) == [
        'MESSAGE=link up device=b1,b2 where="a b" _x=1',
        "PRIORITY=4",
        "SYSLOG_IDENTIFIER=dertwin",
        "EVENT=link up",
        "DEVICE=b1",
        "DEVICE=b2",
        "WHERE=a b",
        "X=1",
    ]


def test_the_log_goes_to_the_journal_only_if_standard_error_leads_there(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    terminal = os.stat("/dev/null")  # a program that systemd started may have sent its output elsewhere
    monkeypatch.setenv("JOURNAL_STREAM", f"{terminal.st_dev}:{terminal.st_ino}")
    with service(site(tmp_path, battery({"port": free_port()})), tmp_path) as run:
        assert run.events("link up")
