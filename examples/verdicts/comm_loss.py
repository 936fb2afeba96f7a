"""EMS for configs/scenarios/comm_loss.yaml: `ems` passes, each of the others is wrong in one way."""

from collections.abc import Iterator
from contextlib import suppress

from bench.plant import NoReply, Plant, Refused

IMPORT_LIMIT_W = 5000.0


def ems(plant: Plant) -> Iterator[float]:
    """Shave the peak; stop the battery without the meter, and try again each second, for ever."""
    while True:
        with suppress(NoReply, Refused):  # the battery is cut off: its watchdog stops it
            try:
                shave(plant)
            except (NoReply, Refused):
                plant.write("bess-1", "active_power_setpoint", 0.0)
        yield 1.0


def keeps_the_last_setpoint(plant: Plant) -> Iterator[float]:
    """Let the battery go on without the meter: what feeds its watchdog is not what it depends on."""
    while True:
        with suppress(NoReply, Refused):
            plant.read("bess-1", "soc")
            shave(plant)
        yield 1.0


def gives_up(plant: Plant) -> Iterator[float]:
    """End at the first request that is not answered."""
    while True:
        shave(plant)
        yield 1.0


def comes_back_late(plant: Plant) -> Iterator[float]:
    """Leave a device alone for a minute when it did not answer."""
    while True:
        try:
            shave(plant)
            pause_s = 1.0
        except (NoReply, Refused):
            with suppress(NoReply, Refused):
                plant.write("bess-1", "active_power_setpoint", 0.0)
            pause_s = 60.0
        yield pause_s


def shave(plant: Plant) -> None:
    """Let the battery deliver what the site would import above the limit."""
    site_w = plant.read("energy_meter-1", "active_power") + plant.read("bess-1", "active_power")
    if plant.read("bess-1", "working_status") != 1:
        plant.write("bess-1", "start_stop_standby", 1)
    plant.write("bess-1", "active_power_setpoint", max(0.0, site_w - IMPORT_LIMIT_W))
