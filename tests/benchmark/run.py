"""Measures how good the simulator is and prints one table, with references taken in the same run.

usage: python tests/benchmark/run.py [--markdown FILE] [GROUP ...]

Groups: tcp, seam, rtu, bus, start, service, scrape, twin, scenario, recorder, memory; without any, all of
them. With --markdown the table replaces what stands between the two marker lines of FILE. Everything runs
on the loopback and on virtual serial ports; it takes some six minutes and wants an otherwise idle machine.
"""

import argparse
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import bus_figures
import memory_figures
import recorder_figures
import rtu_figures
import scenario_figures
import scrape_figures
import seam_figures
import service_figures
import start_figures
import tcp_figures
import twin_figures
from programs import Missing
from support import record
from table import Figure, markdown

GROUPS: dict[str, Callable[[Path], list[Figure]]] = {
    "tcp": tcp_figures.figures,
    "seam": seam_figures.figures,
    "rtu": rtu_figures.figures,
    "bus": bus_figures.figures,
    "start": start_figures.figures,
    "service": service_figures.figures,
    "scrape": scrape_figures.figures,
    "twin": twin_figures.figures,
    "scenario": scenario_figures.figures,
    "recorder": recorder_figures.figures,
    "memory": memory_figures.figures,
}


def main() -> None:
    """Measure the groups, print the table, and keep it if asked to."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("groups", nargs="*", metavar="GROUP", help=", ".join(GROUPS))
    parser.add_argument("--markdown", type=Path, metavar="FILE")
    arguments = parser.parse_args()
    if unknown := set(arguments.groups) - set(GROUPS):
        parser.error(f"no group {', '.join(sorted(unknown))}; there are {', '.join(GROUPS)}")
    figures: list[Figure] = []
    start, others_before_s = time.monotonic(), record.cpu_of_others_s()
    with tempfile.TemporaryDirectory(prefix="dertwin-bench-") as folder:
        for name in arguments.groups or GROUPS:
            print(f"measuring {name} ...", file=sys.stderr)
            try:
                figures += GROUPS[name](Path(folder))
            except Missing as error:
                print(f"{name} not measured: {error}", file=sys.stderr)
    disturbance = (record.cpu_of_others_s() - others_before_s) / (time.monotonic() - start)
    text = markdown(figures, max(0.0, disturbance))
    print(text)
    if arguments.markdown:
        record.write_between_markers(arguments.markdown, "bench", text)


if __name__ == "__main__":
    main()
