"""Requests per second over TCP, with one and with eight requests under way, and the CPU they cost."""

import subprocess
from collections import defaultdict
from collections.abc import Callable
from contextlib import ExitStack
from pathlib import Path
from statistics import median
from typing import NamedTuple

import programs
from programs import Missing, Process
from support.service import free_port
from table import Figure

# Short rounds, so that what disturbs the machine meanwhile hits all servers alike.
ROUNDS, SECONDS = 9, 1


class Load(NamedTuple):
    """How many connections, and how many requests under way on each."""

    connections: int
    outstanding: int


class Run(NamedTuple):
    """What the load generator counted."""

    requests_per_s: float
    cpu_us: float
    wrong: int
    unanswered: int


WIDE, DEEP = Load(8, 1), Load(1, 8)
Runs = dict[Load, dict[str, list[Run]]]


def figures(folder: Path) -> list[Figure]:
    """Load all servers in turn, several rounds of each, and return the medians."""
    generator = programs.compiled("load.c", folder)
    runs: Runs = {WIDE: defaultdict(list), DEEP: defaultdict(list)}
    with ExitStack() as stack:
        servers, missing = _start_servers(folder, stack)
        for _ in range(ROUNDS):
            for load in (WIDE, DEEP):
                for name, (process, port) in servers.items():
                    try:
                        run = measure(generator, process, port, load)
                        runs[load][name].append(run)
                    except Missing as error:
                        missing.append(f"{name} failed: {error}")
    return _figures(runs, "; ".join(missing))


def _start_servers(folder: Path, stack: ExitStack) -> tuple[dict[str, tuple[Process, int]], list[str]]:
    """Return the servers that answer, and remarks about those that do not."""
    commands: dict[str, Callable[[int], list[str]]] = {
        "ours": lambda port: programs.served_by_us(folder, port),
        "pymodbus": lambda port: programs.pymodbus_server("tcp", str(port)),
        "libmodbus": lambda port: programs.libmodbus_server(folder, "tcp", str(port)),
    }
    servers: dict[str, tuple[Process, int]] = {}
    missing: list[str] = []
    for name, command in commands.items():
        port = free_port()
        try:
            process = stack.enter_context(programs.running(command(port)))
            reply = programs.wait_until_answered(process, port)
            if not reply.startswith(programs.REPLY_START):
                raise Missing(f"it answered {reply.hex(' ')}")
            servers[name] = process, port
        except Missing as error:
            missing.append(f"{name} not measured: {error}")
    return servers, missing


def measure(generator: str, process: Process, port: int, load: Load) -> Run:
    """Load a server for a while. Raises Missing if it does not hold."""
    arguments = [generator, *map(str, (port, *load, SECONDS, process.pid))]
    done = subprocess.run(arguments, capture_output=True, text=True, timeout=SECONDS + 10)
    if done.returncode:
        raise Missing(done.stderr.strip())
    replies, wrong, unanswered, seconds, cpu_s = map(float, done.stdout.split())
    return Run(replies / seconds, cpu_s / max(replies, 1) * 1e6, int(wrong), int(unanswered))


def _figures(runs: Runs, missing: str) -> list[Figure]:
    wide, deep = (
        {name: median(run.requests_per_s for run in each) for name, each in runs[load].items()}
        for load in (WIDE, DEEP)
    )
    cpu = {name: median(run.cpu_us for run in each) for name, each in runs[WIDE].items()}
    left = {name: sum(run.wrong + run.unanswered for run in each) for name, each in runs[DEEP].items()}
    return [
        Figure(
            "read 10 registers, 8 connections",
            "requests/s",
            wide,
            ">= 3.5 x pymodbus, >= 0.6 x libmodbus",
            lambda m: m["ours"] >= 3.5 * m["pymodbus"] and m["ours"] >= 0.6 * m["libmodbus"],
            missing,
        ),
        Figure(
            "the same, 8 outstanding on one connection",
            "requests/s",
            deep,
            ">= the figure above, each answered once",
            lambda m: m["ours"] >= wide["ours"] and left["ours"] == 0,
            "not answered or answered wrongly: " + ", ".join(f"{name} {n}" for name, n in left.items()),
        ),
        Figure(
            "server CPU per request, 8 connections",
            "us",
            cpu,
            "<= 0.35 x pymodbus",
            lambda m: m["ours"] <= 0.35 * m["pymodbus"],
        ),
    ]
