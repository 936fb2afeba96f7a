"""What the service uses and says of itself: memory, files and tasks, its clock, its metrics."""

import contextlib
import time
from collections import defaultdict
from pathlib import Path
from typing import NamedTuple

from plant import LOAD_W, STEP_S
from prometheus_client.parser import text_string_to_metric_families
from support.processes import children
from support.watch import get

SCRAPE_EVERY_S = 1.0
LOOKS, BETWEEN_LOOKS_S = 5, 0.15
PULSE_S = 0.02


class Shown(NamedTuple):
    """One scrape: the samples of each metric with their labels, when it was (s) and how long it took (s)."""

    samples: dict[str, list[tuple[dict[str, str], float]]]
    at: float
    took_s: float

    def total(self, name: str, **labels: str) -> float:
        """Return the sum of the samples that have these labels, and perhaps more."""
        return sum(value for known, value in self.samples[name] if labels.items() <= known.items())


def scrape(port: int) -> Shown:
    """Ask for the metrics as Prometheus does."""
    start = time.monotonic()
    answer = get(port, "/metrics")
    at = time.monotonic()
    assert answer.status == 200
    samples = defaultdict(list)
    for family in text_string_to_metric_families(answer.text):
        for sample in family.samples:
            samples[sample.name].append((sample.labels, sample.value))
    return Shown(samples, at, at - start)


class Vitals(NamedTuple):
    """What a service has at a time at which nobody is connected to it; files are what /proc says they are."""

    files: list[str]
    threads: int
    children: int
    tasks: int


def vitals(pid: int, port: int) -> Vitals:
    """Return the least of some looks at a service: each may meet a save, or the end of the look before."""
    process = Path(f"/proc/{pid}")
    looks = []
    for _ in range(LOOKS):
        shown = scrape(port)
        time.sleep(BETWEEN_LOOKS_S)
        looks.append(
            (
                _open_files(process / "fd"),
                len(list((process / "task").iterdir())),
                len(children(pid)),
                int(shown.total("dertwin_tasks")),
            )
        )
    files, *counts = zip(*looks, strict=True)
    return Vitals(min(files, key=len), *map(min, counts))


def _open_files(folder: Path) -> list[str]:
    found = []
    for link in folder.iterdir():
        with contextlib.suppress(FileNotFoundError):  # it was closed meanwhile
            found.append(str(link.readlink()))
    return found


def uncounted_steps(before: Shown, after: Shown) -> int:
    """Return how many steps were due between two scrapes and are neither made, skipped nor still to come."""

    def known(shown: Shown) -> float:
        steps = shown.total("dertwin_ticks_total") + shown.total("dertwin_ticks_skipped_total")
        return steps + shown.total("dertwin_tick_lag_seconds") / STEP_S

    due = (after.at - before.at) / STEP_S
    # What a scrape shows was so at some time while it was made.
    unsure = (before.took_s + after.took_s) / STEP_S
    return int(max(0.0, abs(due - (known(after) - known(before))) - unsure))


class Watcher:
    """Scrapes again and again; each scrape must show a site that adds up."""

    def __init__(self, port: int) -> None:
        self.took_s: list[float] = []
        self.resident_bytes: list[float] = []
        self.wrong: list[str] = []
        self._port = port

    def run(self, until: float) -> None:
        """Scrape until a time (s of time.monotonic)."""
        while time.monotonic() < until:
            try:
                shown = scrape(self._port)
            except (AssertionError, OSError) as error:
                self.wrong.append(f"scrape: {error!r}")
            else:
                self.took_s.append(shown.took_s)
                self.resident_bytes.append(shown.total("process_resident_memory_bytes"))
                self._check(shown)
            time.sleep(max(0.0, min(SCRAPE_EVERY_S, until - time.monotonic())))

    def _check(self, shown: Shown) -> None:
        power = shown.samples["dertwin_active_power_watts"]
        needed_w = LOAD_W - sum(value for labels, value in power if labels["type"] != "energy_meter")
        for labels, value in power:
            if labels["type"] == "energy_meter" and abs(value - needed_w) > 1e-6:
                self.wrong.append(f"scrape: {labels['device']} shows {value} W, not {needed_w} W")


class Pulse:
    """Finds out how long a program of this machine has to wait for its turn at worst."""

    def __init__(self) -> None:
        self.longest_wait_s = 0.0

    def run(self, until: float) -> None:
        """Wake up again and again until a time (s of time.monotonic)."""
        while (now := time.monotonic()) < until:
            time.sleep(PULSE_S)
            self.longest_wait_s = max(self.longest_wait_s, time.monotonic() - now - PULSE_S)
