"""How long a reply on a serial line takes, on pairs of virtual ports that socat connects."""

import os
import select
import shutil
import time
import tty
from collections import defaultdict
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from statistics import median

import programs
from programs import Missing, Process
from table import Figure

from dertwin.modbus import rtu

ROUNDS, SECONDS = 3, 3
BAUDRATE = 115200
# What our server keeps at least (min_turnaround_ms; 3.5 characters are 1.75 ms). The others keep none.
REQUIRED_SILENCE_S = {"ours": 0.002, "pymodbus": 0.0, "libmodbus": 0.0}
REQUEST = rtu.frame(1, bytes.fromhex("04 0000 000A"))
REPLY_LENGTH = 25


def figures(folder: Path) -> list[Figure]:
    """Ask all servers in turn, three rounds of each, and return the medians of all turnarounds."""
    commands: dict[str, Callable[[str], list[str]]] = {
        "ours": lambda path: programs.our_server(folder, [_battery_at(path)]),
        "pymodbus": lambda path: programs.pymodbus_server("rtu", path, str(BAUDRATE)),
        "libmodbus": lambda path: programs.libmodbus_server(folder, "rtu", path, str(BAUDRATE)),
    }
    times: defaultdict[str, list[float]] = defaultdict(list)
    lines: dict[str, int] = {}
    missing = []
    with ExitStack() as stack:
        for name, command in commands.items():
            try:
                server_end = folder / f"line_{name}"
                client_end = stack.enter_context(_pair(server_end))
                process = stack.enter_context(programs.running(command(str(server_end))))
                wait_until(process, lambda client=client_end: _ask(client))
                lines[name] = client_end
            except Missing as error:
                missing.append(f"{name} not measured: {error}")
        for _ in range(ROUNDS):
            for name, client_end in lines.items():
                times[name] += _turnarounds(client_end)
    return [
        Figure(
            "RTU turnaround on a socat pair, beyond the required silence",
            "ms",
            {name: (median(each) - REQUIRED_SILENCE_S[name]) * 1e3 for name, each in times.items()},
            "<= 0.5",
            lambda m: m["ours"] <= 0.5,
            "; ".join(["ours waits the required 2 ms, the others answer without any silence", *missing]),
        )
    ]


def _battery_at(path: str) -> dict[str, object]:
    binding = {"kind": "modbus_rtu", "port": path, "baudrate": BAUDRATE, "register_map": "ten_registers.yaml"}
    return {"type": "bess", "protocols": [binding]}


@contextmanager
def _pair(server_end: Path) -> Iterator[int]:
    """Connect two virtual ports with socat; gives the file descriptor of the client's end."""
    if not shutil.which("socat"):
        raise Missing("socat is not installed")
    client_end = server_end.with_name(server_end.name + "_client")
    ends = [f"pty,raw,echo=0,link={end}" for end in (server_end, client_end)]
    with programs.running(["socat", *ends]):
        deadline = time.monotonic() + 5.0
        while not (server_end.exists() and client_end.exists()) and time.monotonic() < deadline:
            time.sleep(0.001)
        client = os.open(client_end, os.O_RDWR | os.O_NOCTTY)
        tty.setraw(client)
        try:
            yield client
        finally:
            os.close(client)


def wait_until(process: Process, condition: Callable[[], bool]) -> None:
    """Wait for what a server must do; raises Missing if it ends first or takes over 20 s."""
    deadline = time.monotonic() + 20.0
    while process.poll() is None and time.monotonic() < deadline:
        if condition():
            return
        time.sleep(0.001)
    raise Missing("the server ended" if process.poll() is not None else "no answer within 20 s")


def _turnarounds(client: int) -> list[float]:
    """Ask for SECONDS, with a silence between any two exchanges; a missing reply counts as infinite."""
    times = []
    end = time.perf_counter() + SECONDS
    while time.perf_counter() < end:
        time.sleep(0.002)
        start = time.perf_counter()
        times.append(time.perf_counter() - start if _ask(client) else float("inf"))
    return times


def _ask(client: int) -> bool:
    """Send the request; tell whether a whole reply came within 0.2 s."""
    os.write(client, REQUEST)
    received = b""
    while len(received) < REPLY_LENGTH and select.select([client], [], [], 0.2)[0]:
        received += os.read(client, 256)
    return len(received) == REPLY_LENGTH and rtu.crc16(received) == 0
