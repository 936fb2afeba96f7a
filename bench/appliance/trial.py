"""An update on trial: kept when its service has been ready for a while, else the old slot is back."""

from collections.abc import Mapping, Sequence
from typing import Literal, NamedTuple

import structlog
from pydantic import ValidationError

from bench.appliance.boot import BootSlots, boot_slots
from bench.appliance.identity import slot
from bench.appliance.places import Places, writable
from bench.files import replace_file
from dertwin.schema import FrozenModel

log = structlog.get_logger()

READY_S = 60.0
GIVE_UP_S = 600.0


class Update(FrozenModel):
    """The last update of a box, and what has become of it."""

    version: str
    slot: str
    state: Literal["trying", "kept", "not kept"] = "trying"

    def save(self, places: Places) -> None:
        """Keep it on the data partition. Raises OSError."""
        replace_file(places.data / "update.json", self.model_dump_json().encode())


def last_update(places: Places) -> Update | None:
    """Return the last update, if there was one."""
    try:
        return Update.model_validate_json((places.data / "update.json").read_bytes())
    except (OSError, ValidationError):
        return None


def slots_on_trial(places: Places) -> BootSlots | None:
    """Return the loader's slots if the one that runs is not the one that is booted usually; else None."""
    running, slots = slot(places), boot_slots(places.card)
    return slots if running and slots and running != slots.usual else None


class Step(NamedTuple):
    """What to tell of the update, and whether the box is to be restarted into the old slot."""

    lines: Sequence[str] = ()
    give_up: bool = False


class Trial:
    """Follows the service after an update."""

    def __init__(self, places: Places, now_s: float) -> None:
        """Find out whether there is anything on trial, `now_s` being the time of a clock that never jumps."""
        self._places = places
        self._began_s = now_s
        self._ready_since: tuple[str, float] | None = None
        self._update = last_update(places)
        self._slots = slots_on_trial(places)
        if self._update and self._update.state == "trying" and self._slots is None:
            # Power failed just after it was kept, or the loader is back at the old slot.
            kept = slot(places) == self._update.slot
            self._conclude("kept" if kept else "not kept")

    def step(self, unit: Mapping[str, str], now_s: float) -> Step:
        """Look at the service once more; keep the slot when it is time. Raises OSError."""
        if self._slots is None:
            return Step(self._lines())
        # Another time of becoming active is another start: the minute begins again.
        became = unit.get("ActiveEnterTimestampMonotonic", "")
        if unit.get("ActiveState") != "active":
            self._ready_since = None
        elif self._ready_since is None or self._ready_since[0] != became:
            self._ready_since = became, now_s
        elif now_s - self._ready_since[1] >= READY_S:
            with writable(self._places.card):
                self._slots.keep(slot(self._places))
            self._slots = None
            self._conclude("kept")
        return Step(self._lines(), self._slots is not None and now_s - self._began_s >= GIVE_UP_S)

    def _conclude(self, state: Literal["kept", "not kept"]) -> None:
        if self._update:
            self._update = self._update.model_copy(update={"state": state})
            self._update.save(self._places)
            log.info("update concluded", version=self._update.version, slot=self._update.slot, state=state)

    def _lines(self) -> list[str]:
        if self._slots is not None:
            name = self._update.version if self._update else "this slot"
            return [f"{name} is on trial: it is kept once the service has been ready for {READY_S:.0f} s"]
        if self._update is None:
            return []
        if self._update.state == "kept":
            return [f"{self._update.version} was installed and kept"]
        return [f"{self._update.version} was tried and did not become ready: the version before it runs"]
