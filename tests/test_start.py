"""What happens before anything is served: signals are heeded at once, short questions answered quickly."""

import contextlib
import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from support.service import RUN, free_port, wait_for

SIGNALS = [signal.SIGINT, signal.SIGTERM]
DELAYS_S = [0.0, 0.02, 0.05, 0.1, 0.15, 0.2, 0.3, 0.4, 0.6]
HANGING = """
import pathlib, time
pathlib.Path(__file__).with_name("reached").touch()
time.sleep(60)
"""

Process = subprocess.Popen[bytes]


@contextlib.contextmanager
def starting(folder: Path, **environment: str) -> Iterator[Process]:
    """Start to serve a battery."""
    binding = {"kind": "modbus_tcp", "ip": "127.0.0.1", "port": free_port()}
    line = {"kind": "modbus_rtu", "port": str(folder / "line"), "fallback": "pty"}
    site = folder / "site.json"
    site.write_text(json.dumps({"assets": [{"type": "bess", "protocols": [binding, line]}]}))
    with (folder / "stderr").open("wb") as stderr:
        process = subprocess.Popen(
            [*RUN, "-c", str(site)],
            stdout=subprocess.DEVNULL,
            stderr=stderr,
            env={**os.environ, **environment},
        )
    try:
        yield process
    finally:
        process.kill()
        process.wait()


def heeds(process: Process, number: int) -> bool:
    """Tell whether a process has a handler of its own for a signal."""
    status = Path(f"/proc/{process.pid}/status").read_text()
    caught = next(line for line in status.splitlines() if line.startswith("SigCgt:"))
    return bool(int(caught.split()[1], 16) >> (number - 1) & 1)


def ends_quietly(process: Process, number: int, folder: Path) -> None:
    process.send_signal(number)
    assert process.wait(timeout=2) == 0
    assert "Traceback" not in (folder / "stderr").read_text()
    assert not (folder / "line").is_symlink()


@pytest.mark.parametrize("number", SIGNALS)
def test_a_signal_while_modules_load_ends_it_quietly(tmp_path: Path, number: int) -> None:
    # A module that everything else needs, and that never finishes loading.
    (tmp_path / "pydantic.py").write_text(HANGING)
    with starting(tmp_path, PYTHONPATH=str(tmp_path)) as process:
        wait_for((tmp_path / "reached").exists, what="the first import")
        ends_quietly(process, number, tmp_path)


@pytest.mark.parametrize("delay_s", DELAYS_S)
@pytest.mark.parametrize("number", SIGNALS)
def test_a_signal_at_any_moment_of_the_start_ends_it_quietly(
    tmp_path: Path, number: int, delay_s: float
) -> None:
    with starting(tmp_path) as process:
        # Before that it is the interpreter that starts, and nothing of ours has run.
        wait_for(lambda: heeds(process, signal.SIGTERM), what="our handler")
        time.sleep(delay_s)
        ends_quietly(process, number, tmp_path)


@pytest.mark.parametrize("option", ["--version", "--help"])
def test_a_short_question_loads_nothing_of_the_service(option: str) -> None:
    words = [sys.executable, "-X", "importtime", "-m", "bench.cli", option]
    done = subprocess.run(words, capture_output=True, text=True, timeout=30, check=True)
    assert done.stdout
    loaded = {line.rpartition("|")[2].strip() for line in done.stderr.splitlines()}
    assert "argparse" in loaded
    assert not loaded & {"pydantic", "yaml", "asyncio", "uvloop", "structlog", "pymodbus", "bench.client"}
