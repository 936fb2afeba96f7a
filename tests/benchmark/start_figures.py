"""How long a server takes from its start, imports included, to its first answer."""

import time
from collections import defaultdict
from collections.abc import Callable
from pathlib import Path
from statistics import median

import programs
from programs import Missing
from support.service import free_port
from table import Figure

ROUNDS = 3


def figures(folder: Path) -> list[Figure]:
    """Start each server three times in turn and return the median times."""
    commands: dict[str, Callable[[int], list[str]]] = {
        "ours": lambda port: programs.served_by_us(folder, port),
        "pymodbus": lambda port: programs.pymodbus_server("tcp", str(port)),
        "libmodbus": lambda port: programs.libmodbus_server(folder, "tcp", str(port)),
    }
    times: defaultdict[str, list[float]] = defaultdict(list)
    missing: dict[str, str] = {}
    for _ in range(ROUNDS):
        for name, command in commands.items():
            try:
                seconds = _first_answer_s(command)
                times[name].append(seconds)
            except Missing as error:
                missing[name] = f"{name} not measured: {error}"
    return [
        Figure(
            "start to first answer, imports included",
            "s",
            {name: median(each) for name, each in times.items()},
            "<= 1.0",
            lambda m: m["ours"] <= 1.0,
            "; ".join(missing.values()),
        )
    ]


def _first_answer_s(command: Callable[[int], list[str]]) -> float:
    port = free_port()
    arguments = command(port)
    start = time.perf_counter()
    with programs.running(arguments) as process:
        programs.wait_until_answered(process, port)
        return time.perf_counter() - start
