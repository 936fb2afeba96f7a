"""The service as its users run it: a process of its own, from a config file."""

import contextlib
import json
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

START_TIMEOUT_S = 20.0
RUN = (sys.executable, "-m", "bench.cli", "run")


def free_port() -> int:
    """Return a TCP port of 127.0.0.1 that nobody listens on."""
    (port,) = free_ports(1)
    return port


def free_ports(count: int) -> list[int]:
    """Return several of these, no two of them the same."""
    with contextlib.ExitStack() as stack:
        probes = [stack.enter_context(socket.socket()) for _ in range(count)]
        for probe in probes:
            probe.bind(("127.0.0.1", 0))
        return [probe.getsockname()[1] for probe in probes]


def wait_for(condition: Callable[[], Any], timeout_s: float = 20.0, what: str = "the condition") -> Any:
    """Return what the condition returns once it is true; fail after the time."""
    until = time.monotonic() + timeout_s
    while not (result := condition()):
        assert time.monotonic() < until, f"{what} did not come true within {timeout_s:g} s"
        time.sleep(0.005)
    return result


class Service:
    """A running `dertwin run`; `lines` are what it has printed about where it is reachable."""

    def __init__(self, process: "subprocess.Popen[str]", log: Path, lines: list[str]) -> None:
        self.process = process
        self.lines = lines
        self._log = log

    def log(self) -> list[dict[str, Any]]:
        """Return the log so far, an object a line."""
        return [json.loads(line) for line in self._log.read_text().splitlines()]

    def events(self, event: str) -> list[dict[str, Any]]:
        """Return the log lines of one event."""
        return [line for line in self.log() if line["event"] == event]

    def stop(self, number: int = signal.SIGTERM) -> tuple[int, float]:
        """Send a signal; return the exit status and how long stopping took (s)."""
        start = time.monotonic()
        self.process.send_signal(number)
        status = self.process.wait(timeout=10)
        return status, time.monotonic() - start


@contextlib.contextmanager
def service(
    config: Path | dict[str, Any], folder: Path, *options: str, command: Sequence[str] = RUN
) -> Iterator[Service]:
    """Run a site config and yield the service once it has said where it is reachable.

    It leads a process group of its own, as a command in a terminal does.
    """
    if isinstance(config, dict):
        (folder / "site.json").write_text(json.dumps(config))
        config = folder / "site.json"
    log, printed = folder / "service.log", folder / "service.out"
    # Several run at a time: only those that are asked to have metrics, or a control socket, may.
    alone = [
        word
        for name in ("--listen-metrics", "--control")
        for word in ((name, "none") if name not in options else ())
    ]
    arguments = [*command, "-c", str(config), *alone, *options]
    with (
        log.open("w") as stderr,
        printed.open("w") as stdout,
        subprocess.Popen(
            arguments, stdout=stdout, stderr=stderr, text=True, start_new_session=True
        ) as process,
    ):
        try:

            def serving() -> bool:
                assert process.poll() is None, log.read_text()
                return printed.stat().st_size > 0

            wait_for(serving, START_TIMEOUT_S, "the service")
            yield Service(process, log, printed.read_text().splitlines())
        finally:
            if process.poll() is None:
                process.kill()
