"""EMS for configs/scenarios/fcr_n.yaml: `ems` passes, each of the others is wrong in one way."""

from collections.abc import Iterator
from contextlib import suppress
from functools import partial

from bench.plant import NoReply, Plant, Refused

CAPACITY_W, FULL_HZ = 50e3, 0.1


def ems(plant: Plant, dead_band_hz: float = 0.0, charging: float = 1.0) -> Iterator[float]:
    """Deliver or take what is due at this frequency: all at 49.9 Hz and 50.1 Hz."""
    while True:
        with suppress(NoReply, Refused):
            # The meter first: as long as it is silent the battery hears nothing, and its watchdog stops it.
            low_hz = 50.0 - plant.read("energy_meter-1", "frequency")
            due_hz = max(0.0, low_hz - dead_band_hz) + min(0.0, low_hz + dead_band_hz) * charging
            if plant.read("bess-1", "working_status") != 1:
                plant.write("bess-1", "start_stop_standby", 1)
            plant.write("bess-1", "active_power_setpoint", CAPACITY_W * min(1.0, max(-1.0, due_hz / FULL_HZ)))
        yield 1.0


dead_band = partial(ems, dead_band_hz=0.02)
asymmetric = partial(ems, charging=0.8)
