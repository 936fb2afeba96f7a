"""What a scrape of a site of 100 devices takes, and how long it makes an EMS wait."""

import socket
import subprocess
import sys
import time
from pathlib import Path
from statistics import median

import programs
from support.service import free_ports
from table import Figure

ROUNDS, SECONDS = 5, 3.0
PAUSE_S = 0.001
KINDS = ("bess", "inverter", "energy_meter")
# A process of its own, as Prometheus is: it prints how long each scrape took (s).
SCRAPER = """
import sys, time, urllib.request
until = time.monotonic() + float(sys.argv[2])
while time.monotonic() < until:
    start = time.monotonic()
    urllib.request.urlopen(sys.argv[1]).read()
    print(time.monotonic() - start)
    time.sleep(0.1)
"""


def figures(folder: Path) -> list[Figure]:
    """Poll one device with and without scrapes, in turn, some rounds of each."""
    ports = free_ports(101)
    assets = [{"type": KINDS[n % 3], "ip": "127.0.0.1", "port": port} for n, port in enumerate(ports[1:])]
    assets[0] |= {"register_map": "ten_registers.yaml"}
    command = [*programs.our_server(folder, assets), "--listen-metrics", f"127.0.0.1:{ports[0]}"]
    scrapes: list[float] = []
    quiet: list[float] = []
    scraped: list[float] = []
    with programs.running(command) as process:
        programs.wait_until_answered(process, ports[1])
        for _ in range(ROUNDS):
            quiet.append(max(_waits(ports[1])))
            arguments = [sys.executable, "-c", SCRAPER, f"http://127.0.0.1:{ports[0]}/metrics", str(SECONDS)]
            with subprocess.Popen(arguments, stdout=subprocess.PIPE, text=True) as scraper:
                scraped.append(max(_waits(ports[1])))
                output, _ = scraper.communicate()
            scrapes += map(float, output.split())
    return [
        Figure(
            "scrape of a site of 100 devices",
            "ms",
            {"ours": median(scrapes) * 1e3},
            "<= 50",
            lambda m: m["ours"] <= 50,
            f"{len(scrapes)} scrapes, the longest {max(scrapes) * 1e3:.0f} ms",
        ),
        Figure(
            "latest reply because of a scrape",
            "ms",
            {"ours": max(0.0, median(scraped) - median(quiet)) * 1e3},
            "<= 10",
            lambda m: m["ours"] <= 10,
            f"latest of {SECONDS:g} s, median of {ROUNDS} rounds: {median(quiet) * 1e3:.1f} ms without, "
            f"{median(scraped) * 1e3:.1f} ms with a scrape each 0.1 s",
        ),
    ]


def _waits(port: int) -> list[float]:
    """Ask one device over and over and return how long each reply took (s)."""
    waits = []
    until = time.monotonic() + SECONDS
    with socket.create_connection(("127.0.0.1", port), timeout=5.0) as client:
        client.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        while (start := time.monotonic()) < until:
            client.sendall(programs.REQUEST)
            client.recv(260)
            waits.append(time.monotonic() - start)
            time.sleep(PAUSE_S)
    return waits
