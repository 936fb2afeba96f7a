"""Tells the log what happens on a site, once for each change: events, trips, faults, silent EMS, misfits."""

import time
from collections.abc import Callable, Mapping
from operator import itemgetter
from typing import Any, NamedTuple

import structlog

from bench.app import Bench
from dertwin.devices.device import Device
from dertwin.events import AnyEvent
from dertwin.physics.grid import CONNECTED, FREQUENCY, VOLTAGE
from dertwin.site import SiteSnapshot

log = structlog.get_logger()

# Registers saturate between steps, when they are read, and nobody needs to know within a step.
LOOK_FOR_MISFITS_S = 1.0
CAUSES = {VOLTAGE: "voltage", FREQUENCY: "frequency"}
# A trip shows in the fault code, or (of a unit that was off the grid anyway) as a failure of the supply.
_TELLING = ("fault_code", "watchdog_expired", "e_stop_request", "power_supply_failure")


class Told(NamedTuple):
    """What the log has told of a device last; at first that all is well."""

    trip: int = CONNECTED
    fault_code: int = 0
    watchdog_expired: int = 0
    e_stop_request: int = 0


class Chronicle:
    """Compares the snapshot of each step with the one before; `observe` belongs to the bench's observers.

    What a run takes over from an earlier one, such as a trip, is told at its start.
    """

    def __init__(self, bench: Bench, now: Callable[[], float] = time.monotonic) -> None:
        """Nothing is told yet."""
        self._bench = bench
        self._now = now
        self._devices: Mapping[str, Device] = {}
        self._telling: list[Callable[[Any], Any]] = []
        self._shown: list[Any] = []
        self._told: dict[str, Told] = {}
        self._acting: list[AnyEvent] = []
        self._misfits: set[tuple[str, str]] = set()
        self._look_at = 0.0

    def observe(self, snapshot: SiteSnapshot) -> None:
        """Tell what has changed since the last step."""
        site, measurements = self._bench.site, snapshot.measurements
        if self._acting or site.config.events:
            self._tell_of_events(snapshot.time_s)
        if site.devices is not self._devices or len(measurements) != len(self._telling):
            self._devices = site.devices
            self._telling = [_telling(measured) for measured in measurements.values()]
            self._shown = []
        shown = [of(measured) for of, measured in zip(self._telling, measurements.values(), strict=True)]
        if shown != self._shown:
            self._shown = shown
            self._tell_of_devices(snapshot)
        if (now := self._now()) >= self._look_at:
            self._look_at = now + LOOK_FOR_MISFITS_S
            self._tell_of_misfits()

    def _tell_of_devices(self, snapshot: SiteSnapshot) -> None:
        before, self._told = self._told, {}
        for asset_id, measured in snapshot.measurements.items():
            told = self._told[asset_id] = _told(self._devices[asset_id], measured)
            if told != (last := before.get(asset_id, Told())):
                _tell(last, told, device=asset_id, time_s=round(snapshot.time_s, 3))

    def _tell_of_events(self, time_s: float) -> None:
        acting = [event for event in self._bench.site.config.events if event.acts_at(time_s)]
        if acting == self._acting:
            return
        before, self._acting = self._acting, acting
        for event in before:
            if event not in acting:
                log.info("site event ended", kind=event.kind, time_s=round(time_s, 3))
        for event in acting:
            if event not in before:
                size = event.model_dump(exclude={"kind", "table", "start_time"})
                log.info("site event began", kind=event.kind, time_s=round(time_s, 3), **size)

    def _tell_of_misfits(self) -> None:
        for link in self._bench.links.values():
            for unit in link.units.values():
                for register in unit.image.saturated_by:
                    if (unit.asset_id, register) not in self._misfits:
                        self._misfits.add((unit.asset_id, register))
                        log.warning(
                            "register saturated",
                            device=unit.asset_id,
                            link=link.name,
                            register=register,
                            remedy="another type or scale in the register map",
                        )


def _telling(measured: Any) -> Callable[[Any], Any]:
    """Return what gets all that matters here from measurements of this type, in one go."""
    fields = type(measured)._fields
    return itemgetter(*(fields.index(name) for name in _TELLING if name in fields))


def _told(device: Device, measured: Any) -> Told:
    trip = getattr(device.state, "trip", None)
    rest = (getattr(measured, name, 0) for name in Told._fields[1:])
    return Told(trip.cause if trip else CONNECTED, *rest)


def _tell(before: Told, now: Told, **about: Any) -> None:
    if now.watchdog_expired and not before.watchdog_expired:
        log.warning("watchdog expired", **about)
    elif before.watchdog_expired and not now.watchdog_expired:
        log.info("watchdog fed again", **about)
    # What brings a fault code with it, or takes it away, is told together with it.
    about["code"] = now.fault_code
    if now.e_stop_request and not before.e_stop_request:
        log.warning("emergency stop", **about)
    elif before.e_stop_request and not now.e_stop_request:
        log.info("emergency stop released", **about)
    elif now.trip != CONNECTED and before.trip == CONNECTED:
        log.warning("grid protection tripped", cause=CAUSES[now.trip], **about)
    elif before.trip != CONNECTED and now.trip == CONNECTED:
        log.info("grid protection released", cause=CAUSES[before.trip], **about)
    elif now.fault_code and now.fault_code != before.fault_code:
        log.warning("device fault", **about)
    elif before.fault_code and not now.fault_code:
        log.info("device fault cleared", **about | {"code": before.fault_code})
