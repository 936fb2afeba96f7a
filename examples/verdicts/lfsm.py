"""EMS for configs/scenarios/lfsm_o.yaml: `ems` passes, each of the others is wrong in one way."""

from collections.abc import Iterator
from contextlib import suppress
from functools import partial
from math import inf

from bench.plant import NoReply, Plant, Refused

RATED_W = 80e3


def ems(plant: Plant, droop: float = 0.05, threshold_hz: float = 50.2) -> Iterator[float]:
    """Deliver less, here take more, the higher the frequency is above its threshold."""
    while True:
        with suppress(NoReply, Refused):
            # The meter first: as long as it is silent the battery hears nothing, and its watchdog stops it.
            above_hz = max(0.0, plant.read("energy_meter-1", "frequency") - threshold_hz)
            command(plant, -above_hz / 50.0 / droop * RATED_W)
        yield 1.0


def command(plant: Plant, power_w: float) -> None:
    """Let the battery run at a power."""
    if plant.read("bess-1", "working_status") != 1:
        plant.write("bess-1", "start_stop_standby", 1)
    plant.write("bess-1", "active_power_setpoint", power_w)


no_response = partial(ems, threshold_hz=inf)
wrong_droop = partial(ems, droop=0.08)
wrong_threshold = partial(ems, threshold_hz=50.4)


def too_slow(plant: Plant) -> Iterator[float]:
    """Go towards the right power by 200 W a second."""
    power_w = 0.0
    while True:
        with suppress(NoReply, Refused):
            above_hz = max(0.0, plant.read("energy_meter-1", "frequency") - 50.2)
            due_w = -above_hz / 50.0 / 0.05 * RATED_W
            power_w = min(max(due_w, power_w - 200.0), power_w + 200.0)
            command(plant, power_w)
        yield 1.0
