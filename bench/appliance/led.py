"""The light of the board: steady while all runs, slow blinks when not all does, fast when nothing does."""

import contextlib
from pathlib import Path
from typing import Literal

State = Literal["running", "degraded", "failed", "starting"]

# Time (ms) on, and as long off; None: steady.
BLINKS: dict[State, int | None] = {"running": None, "degraded": 1000, "starting": 1000, "failed": 100}


class Led:
    """A LED of the board, the green one if it has that; the kernel blinks, so that it costs nothing."""

    def __init__(self, root: Path) -> None:
        """Find the LED below /sys/class/leds of a root file system."""
        leds = root / "sys/class/leds"
        # A Raspberry Pi 400 has no ACT.
        patterns = ("ACT", "led0", "*:act", "PWR")
        self._folder = next((path for pattern in patterns for path in sorted(leds.glob(pattern))), None)
        self._shown: State | None = None

    def show(self, state: State) -> None:
        """Show a state; without an LED nothing happens."""
        if self._folder is None or state == self._shown:
            return
        with contextlib.suppress(OSError):
            blink = BLINKS[state]
            self._set("trigger", "none" if blink is None else "timer")
            if blink is None:
                self._set("brightness", (self._folder / "max_brightness").read_text().strip())
            else:  # the kernel makes these two when the trigger is the timer
                self._set("delay_on", str(blink))
                self._set("delay_off", str(blink))
            self._shown = state

    def _set(self, name: str, value: str) -> None:
        assert self._folder is not None
        (self._folder / name).write_text(value)
