"""How long a restart with a new config takes, and what a site costs that nobody asks anything."""

import json
import time
from pathlib import Path
from statistics import median
from typing import Any

import programs
from rtu_figures import wait_until
from support.processes import cpu_share
from support.service import free_ports
from table import Figure

ROUNDS = 3
IDLE_S = 10.0
KINDS = ("bess", "inverter", "chp", "energy_meter")


def figures(folder: Path) -> list[Figure]:
    """Restart a site of ten devices a few times, then leave it alone; return the medians."""
    metrics, *ports = free_ports(6)
    port = ports[0]
    command = programs.our_server(folder, _assets(folder, ports), step=0.1)
    command += ["--state-dir", str(folder / "states"), "--listen-metrics", f"127.0.0.1:{metrics}"]
    config = Path(command[command.index("-c") + 1])
    restarts = [_restart_s(command, config, port) for _ in range(ROUNDS)]
    with programs.running(command) as process:
        programs.wait_until_answered(process, port)
        wait_until(process, lambda: all((folder / f"idle{n}_client").exists() for n in range(5)))
        time.sleep(2.0)
        shares = [cpu_share(process.pid, IDLE_S) for _ in range(ROUNDS)]
    return [
        Figure(
            "restart with a new config, from SIGTERM to the first answer",
            "s",
            {"ours": median(restarts)},
            "<= 1.5",
            lambda m: m["ours"] <= 1.5,
        ),
        Figure(
            "CPU of an idle site of 10 devices, steps of 0.1 s",
            "% of a core",
            {"ours": median(shares) * 100},
            "<= 3",
            lambda m: m["ours"] <= 3,
            f"five devices on serial lines, five on TCP; at most {max(shares):.1%} in one of the rounds",
        ),
    ]


def _assets(folder: Path, ports: list[int]) -> list[dict[str, Any]]:
    """Return ten devices: five with a TCP port each, the first with ten registers; five with a line each."""
    served: list[dict[str, Any]] = [{"kind": "modbus_tcp", "ip": "127.0.0.1", "port": port} for port in ports]
    served[0]["register_map"] = "ten_registers.yaml"
    served += [
        {"kind": "modbus_rtu", "port": str(folder / f"idle{n}"), "baudrate": 115200, "fallback": "pty"}
        for n in range(5)
    ]
    return [{"type": KINDS[n % 4], "protocols": [binding]} for n, binding in enumerate(served)]


def _restart_s(command: list[str], config: Path, port: int) -> float:
    """Return the time from SIGTERM to the first answer of the next run, which has another load to serve."""
    with programs.running(command) as process:
        programs.wait_until_answered(process, port)
        site = json.loads(config.read_text())
        site["load"] = {"base_w": site.get("load", {}).get("base_w", 5000.0) + 1000.0}
        config.write_text(json.dumps(site))
        start = time.monotonic()  # the end of the block is a SIGTERM
    with programs.running(command) as successor:
        programs.wait_until_answered(successor, port)
        return time.monotonic() - start
