"""Runs a service for a while with all that happens at a bench, and checks that it keeps its promises.

usage: python tests/soak/run.py [--seconds S] [--seed N] [--markdown FILE]

Twenty devices on five serial lines and three TCP ports; a client on each checks every reply; adapters
are pulled and put back at random; the metrics are scraped each second; in the end the service is killed
twenty times. Exits with status 1 when a promise is broken. With --markdown the result replaces what
stands between the two marker lines of FILE. All on the loopback and on virtual serial ports.
"""

import argparse
import random
import sys
import tempfile
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from clients import LineClient, Rack, TcpClient
from ems import merged
from kills import kill_again_and_again
from plant import UNITS_ON_A_PORT, plant
from promises import Seen, complaints, promises
from support import record
from support.service import RUN, free_ports, service, wait_for
from support.udev import udev
from vitals import Pulse, Watcher, scrape, vitals

from bench.recorder import MAX_BYTES

SAVE_EVERY_S = 2.0
MOST_WARM_UP_S = 60.0
FULL = 0.97


def main() -> int:
    """Run the soak, print its result, and keep it if asked to."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--seconds", type=float, default=600.0, metavar="S")
    parser.add_argument("--seed", type=int, default=random.randrange(10_000), metavar="N")
    parser.add_argument("--markdown", type=Path, metavar="FILE")
    arguments = parser.parse_args()
    print(f"soaking for {arguments.seconds:g} s, seed {arguments.seed} ...", file=sys.stderr)
    start, others_before_s = time.monotonic(), record.cpu_of_others_s()
    with tempfile.TemporaryDirectory(prefix="dertwin-soak-") as folder:
        seen = soak(arguments.seconds, random.Random(arguments.seed), Path(folder))
    disturbance = (record.cpu_of_others_s() - others_before_s) / (time.monotonic() - start)
    kept = promises(seen)
    rows = [("promise", "must be", "was", "kept"), *(promise.cells() for promise in kept)]
    text = (
        f"{record.machine()}; {arguments.seconds:g} s, seed {arguments.seed}. "
        f"Other programs used {max(0.0, disturbance):.0%} of a core meanwhile.\n\n{record.table(rows)}"
    )
    print(text)
    for what in complaints(seen):
        print(what, file=sys.stderr)
    if arguments.markdown:
        record.write_between_markers(arguments.markdown, "soak", text)
    return 0 if all(promise.kept for promise in kept) else 1


def soak(seconds: float, rng: random.Random, folder: Path) -> Seen:
    """Warm a service up, see what it uses, let everything happen, look again; then kill it time and again."""
    metrics, *ports_of_the_site = free_ports(1 + len(UNITS_ON_A_PORT))
    site = plant(ports_of_the_site)
    watcher, pulse = Watcher(metrics), Pulse()
    with udev() as bed:
        rack = Rack(bed, random.Random(rng.random()))
        lines = [LineClient(*line, rack, random.Random(rng.random())) for line in site.on_lines.items()]
        ports = [TcpClient(*port, random.Random(rng.random())) for port in site.on_tcp.items()]

        def run(seconds: float) -> None:
            until = time.monotonic() + seconds
            everybody = (*lines, *ports, watcher, pulse)
            with ThreadPoolExecutor(len(everybody)) as pool:
                for done in [pool.submit(each.run, until) for each in everybody]:
                    done.result()
            wait_for(lambda: scrape(metrics).total("dertwin_tcp_connections") == 0)

        states = ("--state-dir", str(folder / "states"), "--save-every", str(SAVE_EVERY_S))
        options = (*states, "--listen-metrics", f"127.0.0.1:{metrics}")
        command = bed.command(*RUN)
        with service(site.config, folder, *options, command=command) as running:
            pid = running.process.pid
            first = scrape(metrics)
            run(min(MOST_WARM_UP_S, seconds / 4))
            ports[0].fill(lambda: scrape(metrics).total("dertwin_recorder_bytes") > FULL * MAX_BYTES)
            warm = vitals(pid, metrics)
            run(seconds)
            end, last = vitals(pid, metrics), scrape(metrics)
            log, status = running.log(), running.stop()[0]
        kills = kill_again_and_again(command, site.config, folder, *site.a_battery, rng)
    tally = merged(client.tally for client in (*lines, *ports))
    return Seen(tally, watcher, pulse, warm, end, first, last, log, status, kills)


if __name__ == "__main__":
    sys.exit(main())
