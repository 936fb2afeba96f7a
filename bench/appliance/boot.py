"""The two slots of the box as the boot loader sees them, in two small files on the card.

`slot.txt` names the slot that is booted. `try.txt` names one that is booted once: the loader
(image/boot/boot.cmd) deletes the file before it starts anything of that slot.
"""

import contextlib
import re
from pathlib import Path

from bench.files import replace_file, sync_folder

PARTITIONS = {"a": 2, "b": 3}
"""Which partition of the card's disk has the root file system of a slot."""


class BootSlots:
    """What is booted next; the card must be writable for what changes it."""

    def __init__(self, card: Path) -> None:
        """Nothing is read yet."""
        self._card = card

    @property
    def known(self) -> bool:
        """Tell whether the boot loader is one that looks at these files."""
        return (self._card / "boot.scr").exists()

    @property
    def usual(self) -> str:
        """Return the slot that is booted unless another one is tried."""
        with contextlib.suppress(OSError, UnicodeDecodeError):
            if found := re.search(r"^slot=([ab])\s*$", (self._card / "slot.txt").read_text(), re.MULTILINE):
                return found[1]
        return "a"

    def try_once(self, slot: str) -> None:
        """Boot a slot at the next start, and only then. Raises OSError."""
        replace_file(self._card / "try.txt", f"slot={slot}\n".encode())

    def keep(self, slot: str) -> None:
        """Boot a slot from now on. Raises OSError."""
        replace_file(self._card / "slot.txt", f"slot={slot}\n".encode())

    def cancel(self) -> None:
        """Try nothing. Raises OSError."""
        (self._card / "try.txt").unlink(missing_ok=True)
        sync_folder(self._card)


def other(slot: str) -> str:
    """Return the slot that does not run."""
    return "b" if slot == "a" else "a"
