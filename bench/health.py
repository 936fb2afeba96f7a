"""Whether the service is alive and ready, and what it would tell about itself."""

import platform
from typing import Any

from bench.app import Bench
from bench.clock import CATCH_UP_S
from dertwin import __version__

VERSIONS = {"version": __version__, "python": platform.python_version()}
# A loop that is this far behind is stuck, whatever the machine has to do besides.
STUCK_S = 10.0


def stuck(bench: Bench) -> list[str]:
    """Return why the loop cannot be called alive; nothing while it ticks, or has no clock to follow."""
    return _late(bench, STUCK_S)


def unready(bench: Bench) -> list[str]:
    """Return why the site must not be relied on now: devices that failed, links that are down, late steps."""
    down = [
        f"{link.name}: {bench.status[key].reason}"
        for key, link in bench.links.items()
        if not bench.status[key].up
    ]
    return [*failures(bench), *down, *_late(bench, CATCH_UP_S)]


def failures(bench: Bench) -> list[str]:
    """Return which devices have failed, and what of."""
    return [f"{asset_id} has failed: {_first_line(error)}" for asset_id, error in bench.site.failed.items()]


def status(bench: Bench) -> dict[str, Any]:
    """Return site, devices with their links, ticks and versions, ready to become JSON."""
    site, clock, reasons = bench.site, bench.clock, unready(bench)
    config = site.config
    return {
        "site": config.site_name,
        "ready": not reasons,
        "reasons": reasons,
        "simulated_time_s": site.time_s,
        "step_s": config.step,
        "speed": config.speed,
        "real_time": config.real_time,
        "ticks": {
            "steps": clock.steps if clock else 0,
            "late": clock.late if clock else 0,
            "skipped": clock.skipped if clock else 0,
            "lag_s": clock.lag_s if clock else 0.0,
            "last_s": bench.tick_s.last,
            "longest_s": bench.tick_s.longest,
        },
        "devices": [
            {
                "id": asset_id,
                "type": device.config.type,
                "failed": _first_line(error) if (error := site.failed.get(asset_id)) else None,
                "links": _links(bench, asset_id),
            }
            for asset_id, device in site.devices.items()
        ],
        "versions": VERSIONS,
    }


def _links(bench: Bench, asset_id: str) -> list[dict[str, Any]]:
    found = []
    for key, link in bench.links.items():
        state = bench.status[key]
        found += [
            {
                "link": link.name,
                "unit_id": unit_id,
                "up": state.up,
                "where": state.where if state.up else None,
                "reason": None if state.up else state.reason,
                "times_up": state.times_up,
            }
            for unit_id, unit in sorted(link.units.items())
            if unit.asset_id == asset_id
        ]
    return found


def _first_line(error: Exception) -> str:
    return f"{type(error).__name__}: {error}".splitlines()[0]


def _late(bench: Bench, limit_s: float) -> list[str]:
    if not bench.site.config.real_time:
        return []
    if bench.clock is None:
        return ["the clock has not started"]
    lag_s = bench.clock.lag_s
    return [f"the next step is {lag_s:.1f} s late"] if lag_s > limit_s else []
