"""What it costs to record each frame: by itself, and of what a request over TCP costs the service."""

import sys
import time
from contextlib import ExitStack
from pathlib import Path

import programs
import tcp_figures
from support.service import free_port
from table import Figure

from bench.recorder import RECEIVED, Recorder, Tap

ROUNDS, FRAMES, SERVER_ROUNDS = 20, 50_000, 15
FRAMES_PER_REQUEST = 2


def figures(folder: Path) -> list[Figure]:
    """Record frames in this process, then load two services in turn of which one records."""
    alone_us = min(_call_us(_tap()) for _ in range(ROUNDS))
    empty_us = min(_call_us(_nothing) for _ in range(ROUNDS))
    on, off = _request_cpu_us(folder)
    per_frame_us = (on - off) / FRAMES_PER_REQUEST
    return [
        Figure(
            "recording a frame, in the process",
            "us",
            {"ours": alone_us},
            "<= 2",
            lambda m: m["ours"] <= 2.0,
            f"{alone_us / empty_us:.1f} times what a function takes that does nothing",
        ),
        Figure(
            "recording a frame, of the server's CPU over TCP",
            "us",
            {"ours": per_frame_us},
            "<= 2",
            lambda m: m["ours"] <= 2.0,
            f"a request of two frames takes {on:.1f} us with the recorder, {off:.1f} us without: "
            f"{on / off:.3f} times as much",
        ),
    ]


def _tap() -> Tap:
    return Recorder().begin("tcp 0.0.0.0:502", ("192.0.2.7", 40000), ("192.0.2.1", 502))


def _nothing(kind: int, at: float, data: bytes) -> None:
    pass


def _call_us(tap: Tap) -> float:
    at, adu = time.monotonic(), bytes(29)
    start = time.process_time()
    for _ in range(FRAMES):
        tap(RECEIVED, at, adu)
    return (time.process_time() - start) / FRAMES * 1e6


def _request_cpu_us(folder: Path) -> tuple[float, float]:
    """Return the CPU time of a request with the recorder and without: the least of rounds in turn."""
    generator = programs.compiled("load.c", folder)
    measured: dict[str, list[float]] = {"on": [], "off": []}
    with ExitStack() as stack:
        servers = {}
        for mode in measured:
            port = free_port()
            command = programs.served_by_us(folder, port)
            config = command[command.index("-c") + 1]
            command = [sys.executable, str(programs.HERE / "recorder_server.py"), config, mode]
            process = stack.enter_context(programs.running(command))
            programs.wait_until_answered(process, port)
            servers[mode] = process, port
        for _ in range(SERVER_ROUNDS):
            for mode, (process, port) in servers.items():
                measured[mode].append(tcp_figures.measure(generator, process, port, tcp_figures.WIDE).cpu_us)
    return min(measured["on"]), min(measured["off"])
