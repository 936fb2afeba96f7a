"""EMS for configs/scenarios/latency.yaml: `ems` passes, each of the others is wrong in one way."""

from collections import deque
from collections.abc import Iterator
from contextlib import suppress

from bench.plant import NoReply, Plant, Refused

TURN_S = 0.3


def ems(plant: Plant) -> Iterator[float]:
    """Let the battery deliver what the site draws."""
    while True:
        with suppress(NoReply, Refused):
            command(plant, drawn_w(plant))
        yield TURN_S


def drawn_w(plant: Plant) -> float:
    """Return what the site draws, from the grid or the battery."""
    # The meter first: as long as it is silent the battery hears nothing, and its watchdog stops it.
    return plant.read("energy_meter-1", "active_power") + plant.read("bess-1", "active_power")


def command(plant: Plant, power_w: float) -> None:
    """Let the battery run at a power."""
    if plant.read("bess-1", "working_status") != 1:
        plant.write("bess-1", "start_stop_standby", 1)
    plant.write("bess-1", "active_power_setpoint", power_w)


def averages(plant: Plant) -> Iterator[float]:
    """Deliver the mean of the last 17 turns, which are 5.1 s."""
    recent = deque[float](maxlen=17)
    while True:
        with suppress(NoReply, Refused):
            recent.append(drawn_w(plant))
            command(plant, sum(recent) / len(recent))
        yield TURN_S


def ramps_slowly(plant: Plant) -> Iterator[float]:
    """Change the setpoint by 1800 W a turn at most, 6 kW a second."""
    power_w = 0.0
    while True:
        with suppress(NoReply, Refused):
            power_w = min(max(drawn_w(plant), power_w - 1800.0), power_w + 1800.0)
            command(plant, power_w)
        yield TURN_S


def dead_band(plant: Plant) -> Iterator[float]:
    """Ignore changes up to 21 kW."""
    power_w = 0.0
    while True:
        with suppress(NoReply, Refused):
            due_w = drawn_w(plant)
            power_w = due_w if abs(due_w - power_w) > 21e3 else power_w
            command(plant, power_w)
        yield TURN_S
