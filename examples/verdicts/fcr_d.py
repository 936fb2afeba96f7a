"""EMS for configs/scenarios/fcr_d_up.yaml: `ems` passes, each of the others is wrong in one way."""

from collections.abc import Iterator
from contextlib import suppress
from functools import partial

from bench.plant import NoReply, Plant, Refused

START_HZ, FULL_HZ = 49.9, 49.5


def ems(plant: Plant, capacity_w: float = 80e3, turn_s: float = 0.5) -> Iterator[float]:
    """Deliver what is due at this frequency: nothing at 49.9 Hz, all at 49.5 Hz."""
    while True:
        with suppress(NoReply, Refused):
            # The meter first: as long as it is silent the battery hears nothing, and its watchdog stops it.
            due = (START_HZ - plant.read("energy_meter-1", "frequency")) / (START_HZ - FULL_HZ)
            if plant.read("bess-1", "working_status") != 1:
                plant.write("bess-1", "start_stop_standby", 1)
            plant.write("bess-1", "active_power_setpoint", capacity_w * min(1.0, max(0.0, due)))
        yield turn_s


too_slow = partial(ems, turn_s=5.0)
wrong_sign = partial(ems, capacity_w=-80e3)
half_capacity = partial(ems, capacity_w=40e3)
