"""The programs that are measured or measure: compiled, started, found answering, stopped."""

import json
import shutil
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from support.service import free_ports

HERE = Path(__file__).parent
REPOSITORY = HERE.parent.parent
REQUEST = bytes.fromhex("0001 0000 0006 01 04 0000 000A")
REPLY_START = bytes.fromhex("0001 0000 0017 01 04 14")

Process = subprocess.Popen[bytes]


class Missing(Exception):
    """Something that a measurement needs is not there; the text says what."""


def compiled(source: str, folder: Path, *libraries: str) -> str:
    """Compile a C program of this folder; raises Missing without gcc or one of the libraries."""
    if not shutil.which("gcc"):
        raise Missing("gcc is not installed")
    program = str(folder / Path(source).stem)
    command = ["gcc", "-O2", "-o", program, str(HERE / source), *(f"-l{library}" for library in libraries)]
    done = subprocess.run(command, capture_output=True, text=True)
    if done.returncode and libraries:
        raise Missing(f"it does not compile, is the library installed? {done.stderr.splitlines()[0]}")
    done.check_returncode()
    return program


def libmodbus_server(folder: Path, *arguments: str) -> list[str]:
    """Return the command line of the reference server in C; raises Missing."""
    return [compiled("libmodbus_server.c", folder, "modbus"), *arguments]


def pymodbus_server(*arguments: str) -> list[str]:
    """Return the command line of the reference server in Python."""
    return [sys.executable, str(HERE / "pymodbus_server.py"), *arguments]


def our_server(folder: Path, assets: list[dict[str, Any]], **settings: float) -> list[str]:
    """Write a site config that may use the maps of this folder, and return the command line that serves it.

    `settings` are further keys of the config's top level.
    """
    _, path = tempfile.mkstemp(prefix="site", suffix=".json", dir=folder)
    site = {"site_name": "benchmark", "register_map_root": str(HERE), "assets": assets, **settings}
    Path(path).write_text(json.dumps(site))
    return [sys.executable, "-m", "bench.cli", "run", "-c", path, "--control", "none"]


def served_by_us(folder: Path, port: int) -> list[str]:
    """Return the command line that serves a small site whose BESS has the ten registers at a port."""
    bess = {"type": "bess", "ip": "127.0.0.1", "port": port, "register_map": "ten_registers.yaml"}
    ports = zip(("inverter", "energy_meter"), free_ports(2), strict=True)
    others = [{"type": kind, "ip": "127.0.0.1", "port": other} for kind, other in ports]
    return our_server(folder, [bess, *others])


@contextmanager
def running(command: list[str]) -> Iterator[Process]:
    """Run a program for as long as the block lasts; its output is shown only if it ended by itself."""
    with tempfile.TemporaryFile() as output:
        process = subprocess.Popen(command, cwd=REPOSITORY, stdout=output, stderr=output)
        try:
            yield process
        finally:
            ended_by_itself = process.poll() is not None
            process.terminate()
            try:
                process.wait(5.0)
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait()
            if ended_by_itself:
                output.seek(0)
                print(f"{command} ended by itself:\n{output.read().decode()[-2000:]}", file=sys.stderr)


def wait_until_answered(process: Process, port: int, request: bytes = REQUEST) -> bytes:
    """Ask until a TCP server answers, and return its reply; raises Missing if it ends or takes over 20 s."""
    deadline = time.monotonic() + 20.0
    while process.poll() is None and time.monotonic() < deadline:
        try:
            with socket.create_connection(("127.0.0.1", port), timeout=1.0) as client:
                client.sendall(request)
                if reply := client.recv(260):
                    return reply
        except OSError:
            time.sleep(0.001)
    raise Missing("the server ended" if process.poll() is not None else "no answer within 20 s")
