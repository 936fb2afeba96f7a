"""EMS for configs/scenarios/ffr.yaml: `ems` passes, each of the others is wrong in one way."""

from collections.abc import Iterator
from contextlib import suppress
from functools import partial
from math import inf

from bench.plant import NoReply, Plant, Refused

CAPACITY_W, ACTIVATION_HZ = 50e3, 49.7


def ems(
    plant: Plant, wait_s: float = 0.0, support_s: float = 6.0, fall_s: float = 6.0, ready_s: float = 600.0
) -> Iterator[float]:
    """Deliver all when the frequency is low, for a while, fall slowly, and be ready again."""
    began_s = -inf
    while True:
        with suppress(NoReply, Refused):
            # The meter first: as long as it is silent the battery hears nothing, and its watchdog stops it.
            low = plant.read("energy_meter-1", "frequency") <= ACTIVATION_HZ
            if low and plant.now_s - began_s > ready_s:
                began_s = plant.now_s + wait_s
            left = 1.0 - (plant.now_s - began_s - support_s) / fall_s
            share = min(1.0, max(0.0, left)) if plant.now_s >= began_s else 0.0
            if plant.read("bess-1", "working_status") != 1:
                plant.write("bess-1", "start_stop_standby", 1)
            plant.write("bess-1", "active_power_setpoint", CAPACITY_W * share)
        yield 0.5


late = partial(ems, wait_s=1.5)
short_support = partial(ems, support_s=4.0)
abrupt_end = partial(ems, fall_s=2.0)
not_ready_again = partial(ems, ready_s=1800.0)
