"""Two EMS in Python for configs/scenarios/silent_meter.yaml: one that passes, one that does not.

Both keep the import below 5 kW with a battery; they differ in what they do without a meter.
"""

import contextlib
from collections.abc import Iterator

from bench.plant import NoReply, Plant

IMPORT_LIMIT_W = 5000
TURN_S = 1.0
PATIENCE_S = 10.0


def careful(plant: Plant) -> Iterator[float]:
    """Stop the battery when the meter has been silent for too long."""
    plant.write("battery", "start_stop_standby", 1)
    heard_s = plant.now_s
    while True:
        try:
            shave(plant)
            heard_s = plant.now_s
        except NoReply:
            if plant.now_s - heard_s > PATIENCE_S:
                plant.write("battery", "active_power_setpoint", 0)
        yield TURN_S


def careless(plant: Plant) -> Iterator[float]:
    """Go on with the last setpoint when the meter is silent."""
    plant.write("battery", "start_stop_standby", 1)
    while True:
        with contextlib.suppress(NoReply):
            shave(plant)
        yield TURN_S


def shave(plant: Plant) -> None:
    """Let the battery deliver what the site would import above the limit."""
    site_w = plant.read("meter", "active_power") + plant.read("battery", "active_power")
    plant.write("battery", "active_power_setpoint", max(0.0, site_w - IMPORT_LIMIT_W))
