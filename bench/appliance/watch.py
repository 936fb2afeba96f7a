"""`dertwin appliance watch`: keeps status.txt and the light true, and concludes updates."""

import math
import subprocess
import time
from collections.abc import Callable

import structlog

from bench.appliance.led import Led
from bench.appliance.live import (
    SERVICE,
    adapters,
    addresses,
    config_faults,
    judge,
    unit_properties,
    was_refused,
)
from bench.appliance.places import Places
from bench.appliance.report import Live, load_report, tell
from bench.appliance.trial import Trial
from bench.files import reason
from bench.log import OncePerMinute, set_up_logging

log = structlog.get_logger()

LOOK_EVERY_S = 2.0
# A card has only so many writes in it, and an adapter with a bad contact comes and goes all day: some
# changes are written at once, many one each 30 s.
WRITES_AT_ONCE, WRITE_EVERY_S = 20, 30.0
START_EVERY_S = 30.0


def watch(places: Places, now: Callable[[], float] = time.monotonic) -> int:
    """Look at the box again and again, for ever."""
    set_up_logging()
    watcher = Watcher(places, now)
    while True:
        watcher.look()
        time.sleep(LOOK_EVERY_S)


class Watcher:
    """Looks at the box, and shows what it is like."""

    def __init__(self, places: Places, now: Callable[[], float]) -> None:
        """Nothing is shown yet; `now` is a clock (s) that never jumps."""
        self._places = places
        self._now = now
        self._led = Led(places.root)
        self._trial = Trial(places, now())
        self._writes, self._looked_s = float(WRITES_AT_ONCE), now()
        self._started_s = -math.inf
        self._complain = OncePerMinute(now)

    def look(self) -> None:
        """Look once; a card or a disk that cannot be written is said in the journal and tried again."""
        unit, report = unit_properties(), load_report(self._places)
        verdict = judge(unit, report)
        self._led.show(verdict.state)
        faults = config_faults(self._places) if was_refused(unit) else []
        if was_refused(unit) and not faults and self._now() - self._started_s >= START_EVERY_S:
            # An address that the config names has come, with a late lease.
            self._started_s = self._now()
            log.info("service started again", reason="its config has no fault any more")
            subprocess.run(["systemctl", "--no-block", "start", SERVICE], check=False)
        try:
            update = self._trial.step(unit, self._now())
            lines = [*verdict.lines, *faults]
            live = Live(verdict.state, lines, addresses(), adapters(), update)
            if self._may_write() and tell(self._places, report, live):
                self._writes -= 1.0
        except OSError as error:
            self._complain(str(self._places.card), "status not written", reason=reason(error))
        if self._trial.is_lost(self._now()):
            log.error("update given up", reason="the service did not become ready", remedy="restarting")
            subprocess.run(["systemctl", "reboot"], check=False)

    def _may_write(self) -> bool:
        before, self._looked_s = self._looked_s, self._now()
        self._writes = min(WRITES_AT_ONCE, self._writes + (self._looked_s - before) / WRITE_EVERY_S)
        return self._writes >= 1.0
