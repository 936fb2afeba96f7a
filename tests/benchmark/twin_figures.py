"""What stepping a site costs."""

import time
from pathlib import Path
from statistics import median
from typing import Any

from table import Figure

from dertwin.site import build_site

ROUNDS = 3
HUNDRED_STEPS = 1000
DAY_S = 86_400


def figures(folder: Path) -> list[Figure]:
    """Step sites of 100 and of 3 devices, three rounds of each, and return the medians."""
    step_ms = (
        median(_seconds(_mixed_assets(100), HUNDRED_STEPS, 0.1) for _ in range(ROUNDS)) / HUNDRED_STEPS * 1e3
    )
    day_s = median(_seconds(_mixed_assets(3), DAY_S, 1.0) for _ in range(ROUNDS))
    return [
        Figure(
            "step of a site of 100 devices (BESS, PV, meters)",
            "ms",
            {"ours": step_ms},
            "<= 1.5",
            lambda m: m["ours"] <= 1.5,
        ),
        Figure(
            "a day of a site of 3 devices, steps of 1 s",
            "s",
            {"ours": day_s},
            "<= 3",
            lambda m: m["ours"] <= 3.0,
        ),
    ]


def _mixed_assets(count: int) -> list[dict[str, Any]]:
    kinds = ("bess", "inverter", "energy_meter")
    return [{"type": kinds[n % 3]} for n in range(count)]


def _seconds(assets: list[dict[str, Any]], steps: int, dt_s: float) -> float:
    site = build_site({"site_name": "benchmark", "start_time_h": 10.0, "assets": assets})
    start = time.perf_counter()
    for _ in range(steps):
        site.step(dt_s=dt_s)
    return time.perf_counter() - start
