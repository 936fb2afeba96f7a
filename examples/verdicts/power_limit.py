"""EMS for configs/scenarios/power_limit.yaml: `ems` passes, each of the others is wrong in one way."""

from collections.abc import Iterator
from contextlib import suppress
from math import inf

from bench.plant import NoReply, Plant, Refused

LIMIT_W = 4000.0  # 4200 W less what the control needs


def ems(plant: Plant) -> Iterator[float]:
    """Keep the limit as long as there is one."""
    while True:
        with suppress(NoReply, Refused):
            keep(plant, is_limited(plant))
        yield 1.0


def is_limited(plant: Plant) -> bool:
    """Tell whether the grid operator says so: with a word in the meter, which stands for his signal."""
    return plant.read("energy_meter-1", "heartbeat_echo") == 1


def keep(plant: Plant, limited: bool) -> None:
    """Let the battery deliver what the site would import above the limit, if there is one."""
    # The meter first: as long as it is silent the battery hears nothing, and its watchdog stops it.
    site_w = plant.read("energy_meter-1", "active_power") + plant.read("bess-1", "active_power")
    if plant.read("bess-1", "working_status") != 1:
        plant.write("bess-1", "start_stop_standby", 1)
    plant.write("bess-1", "active_power_setpoint", max(0.0, site_w - LIMIT_W) if limited else 0.0)


def too_late(plant: Plant) -> Iterator[float]:
    """Think about the limit for 90 s."""
    heard_s = inf
    while True:
        with suppress(NoReply, Refused):
            heard_s = min(heard_s, plant.now_s) if is_limited(plant) else inf
            keep(plant, plant.now_s >= heard_s + 90.0)
        yield 1.0


def not_held(plant: Plant) -> Iterator[float]:
    """Forget the limit after three minutes."""
    heard_s = inf
    while True:
        with suppress(NoReply, Refused):
            heard_s = min(heard_s, plant.now_s) if is_limited(plant) else inf
            keep(plant, heard_s <= plant.now_s < heard_s + 180.0)
        yield 1.0


def not_released(plant: Plant) -> Iterator[float]:
    """Keep the limit for ever."""
    limited = False
    while True:
        with suppress(NoReply, Refused):
            limited = limited or is_limited(plant)
            keep(plant, limited)
        yield 1.0
