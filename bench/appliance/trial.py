"""An update on trial: kept when its service has been ready for a while, else the old slot is back."""

from collections.abc import Mapping, Sequence
from typing import Literal

import structlog
from pydantic import ValidationError

from bench.appliance.boot import boot_slots
from bench.appliance.identity import slot, tried_once
from bench.appliance.places import Places, writable
from bench.files import replace_file
from dertwin.schema import FrozenModel

log = structlog.get_logger()

READY_S = 60.0
GIVE_UP_S = 600.0
KEPT = "run/dertwin-kept"
"""Without this file dertwin-trial.timer ends a trial of which nothing is heard here."""


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


def on_trial(places: Places) -> bool:
    """Tell whether the slot that runs was started for once, and is not kept yet."""
    slots = boot_slots(places.card)
    return tried_once(places) and not (slots and slots.usual == slot(places))


class Trial:
    """Follows the service after an update."""

    def __init__(self, places: Places, now_s: float) -> None:
        """Find out whether there is anything on trial, `now_s` being the time of a clock that never jumps."""
        self._places = places
        self._began_s = now_s
        self._ready_since: tuple[str, float] | None = None
        self._update = last_update(places)
        self._on_trial = on_trial(places)

    def step(self, unit: Mapping[str, str], now_s: float) -> Sequence[str]:
        """Look at the service once more, keep the slot when it is time, and return lines for the user.

        Raises OSError if the slot cannot be kept, or what has become of it cannot be written.
        """
        if not self._on_trial and self._update and self._update.state == "trying":
            # Power failed just after it was kept, or the loader is back at the old slot.
            self._conclude("kept" if slot(self._places) == self._update.slot else "not kept")
        # Another time of becoming active is another start: the minute begins again.
        became = unit.get("ActiveEnterTimestampMonotonic", "")
        if unit.get("ActiveState") != "active":
            self._ready_since = None
        elif self._ready_since is None or self._ready_since[0] != became:
            self._ready_since = became, now_s
        elif self._on_trial and now_s - self._ready_since[1] >= READY_S:
            self._keep()
        return self._lines()

    def is_lost(self, now_s: float) -> bool:
        """Tell whether it is time for the old slot."""
        return self._on_trial and now_s - self._began_s >= GIVE_UP_S

    def _keep(self) -> None:
        slots = boot_slots(self._places.card)
        if slots is None:
            raise OSError("the files of the boot loader are not there: the update cannot be kept")
        with writable(self._places.card):
            slots.keep(slot(self._places))
        self._on_trial = False
        (self._places.root / KEPT).touch()
        self._conclude("kept")

    def _conclude(self, state: Literal["kept", "not kept"]) -> None:
        if self._update:
            self._update = self._update.model_copy(update={"state": state})
            self._update.save(self._places)
            log.info("update concluded", version=self._update.version, slot=self._update.slot, state=state)

    def _lines(self) -> list[str]:
        if self._on_trial:
            name = self._update.version if self._update else "this slot"
            return [f"{name} is on trial: it is kept once the service has been ready for {READY_S:.0f} s"]
        return [*self._fallen_back(), *self._last()]

    def _fallen_back(self) -> list[str]:
        running, slots = slot(self._places), boot_slots(self._places.card)
        if slots is None or running in ("", slots.usual):
            return []
        failed = f"slot {slots.usual} could not be started, slot {running} runs"
        return [f"{failed}: update the box, or flash the card"]

    def _last(self) -> list[str]:
        if self._update is None:
            return []
        if self._update.state == "kept":
            return [f"{self._update.version} was installed and kept"]
        return [f"{self._update.version} was tried and did not become ready: the version before it runs"]
