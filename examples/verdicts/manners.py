"""EMS for configs/scenarios/manners.yaml: `ems` passes, each of the others is wrong in one way."""

from collections.abc import Callable, Iterator
from contextlib import suppress
from functools import partial

from bench.plant import NoReply, Plant, Refused


def command_battery(plant: Plant) -> None:
    """Let the battery run, at no power."""
    if plant.read("bess-1", "working_status") != 1:
        plant.write("bess-1", "start_stop_standby", 1)
    plant.write("bess-1", "active_power_setpoint", 0.0)


def watch_meter(plant: Plant) -> None:
    """Read what the site draws."""
    plant.read("energy_meter-1", "active_power")


def ems(
    plant: Plant, battery: Callable[[Plant], None] = command_battery, turn_s: float = 1.0
) -> Iterator[float]:
    """Give each device its turn; one that is silent or busy is asked again in its next, and no sooner."""
    while True:
        for turn in (watch_meter, battery):
            with suppress(NoReply, Refused):
                turn(plant)
        yield turn_s


def beyond_the_end(plant: Plant) -> None:
    """Read an input register that the battery does not have, too."""
    command_battery(plant)
    plant.request("bess-1", bytes((4, 0, 99, 0, 1)))


def at_once_again(plant: Plant) -> None:
    """Ask a busy battery again and again, without a pause."""
    for _ in range(3):
        with suppress(Refused):
            command_battery(plant)
            return


too_fast = partial(ems, turn_s=0.1)
illegal_address = partial(ems, battery=beyond_the_end)
no_pause_when_busy = partial(ems, battery=at_once_again)


def starves_the_others(plant: Plant) -> Iterator[float]:
    """Ask the meter until it answers; the battery has to wait."""
    while True:
        try:
            watch_meter(plant)
        except NoReply:
            yield 0.1
            continue
        with suppress(NoReply, Refused):
            command_battery(plant)
        yield 1.0
