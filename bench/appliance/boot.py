"""The two slots of the box as its boot loader sees them, in small files on the card.

U-Boot (image/boot/boot.cmd): `slot.txt` names the slot that is booted, `try.txt` one that is booted once;
it is deleted before anything of that slot starts, whose kernel is told with the word TRIAL.

systemd-boot has an entry for each slot, and boots the one with the highest version. `+1` in the name of an
entry means once: it is renamed before it starts, and comes last from then on. It has the word too. See
https://uapi-group.org/specifications/specs/boot_loader_specification/.
"""

import contextlib
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Protocol

from bench.appliance.identity import TRIAL
from bench.files import replace_file, sync_folder

PARTITIONS = {"a": 2, "b": 3}
"""Which partition of the card's disk has the root file system of a slot."""


class BootSlots(Protocol):
    """What is booted next; the card must be writable for what changes it."""

    @property
    def usual(self) -> str:
        """Return the slot that is booted unless another one is tried."""

    def try_once(self, slot: str) -> None:
        """Boot a slot at the next start, and only then. Raises OSError."""

    def keep(self, slot: str) -> None:
        """Boot a slot from now on. Raises OSError."""

    def cancel(self) -> None:
        """Try nothing. Raises OSError."""


def boot_slots(card: Path) -> BootSlots | None:
    """Return the slots of the boot loader on a card; None if it has none that can try a slot."""
    if (card / "boot.scr").exists():
        return UBoot(card)
    if (card / "loader/entries").is_dir():
        return SystemdBoot(card)
    return None


def other(slot: str) -> str:
    """Return the slot that does not run."""
    return "b" if slot == "a" else "a"


class UBoot:
    """The slots as U-Boot has them."""

    def __init__(self, card: Path) -> None:
        """Nothing is read yet."""
        self._card = card

    @property
    def usual(self) -> str:
        """Return what slot.txt says, and slot a if it says nothing."""
        with contextlib.suppress(OSError, UnicodeDecodeError):
            if found := re.search(r"^slot=([ab])\s*$", (self._card / "slot.txt").read_text(), re.MULTILINE):
                return found[1]
        return "a"

    def try_once(self, slot: str) -> None:
        """Write try.txt."""
        replace_file(self._card / "try.txt", f"slot={slot}\n".encode())

    def keep(self, slot: str) -> None:
        """Write slot.txt."""
        replace_file(self._card / "slot.txt", f"slot={slot}\n".encode())

    def cancel(self) -> None:
        """Remove try.txt."""
        (self._card / "try.txt").unlink(missing_ok=True)
        sync_folder(self._card)


class SystemdBoot:
    """The slots as systemd-boot has them."""

    def __init__(self, card: Path) -> None:
        """Nothing is read yet."""
        self._card = card
        self._entries = card / "loader/entries"

    @property
    def usual(self) -> str:
        """Return the slot of the entry with the highest version, of those that are not only tried."""
        lasting = [(version, slot) for version, slot, path in self._all() if "+" not in path.name]
        return max(lasting, default=(0, "a"))[1]

    def try_once(self, slot: str) -> None:
        """Add an entry that counts down from one."""
        self._write(f"dertwin-{slot}+1.conf", slot, TRIAL)

    def keep(self, slot: str) -> None:
        """Add an entry that does not count."""
        self._write(f"dertwin-{slot}.conf", slot)
        self.cancel()

    def cancel(self) -> None:
        """Remove the entries that count."""
        for _, _, path in self._all():
            if "+" in path.name:
                path.unlink()
        sync_folder(self._entries)

    def _all(self) -> Iterator[tuple[int, str, Path]]:
        """Yield version, slot and file of each entry."""
        for path in sorted(self._entries.glob("dertwin-*.conf")):
            name = re.fullmatch(r"dertwin-([ab])(\+\d+(-\d+)?)?\.conf", path.name)
            with contextlib.suppress(OSError):  # an entry that cannot be read is none for the loader either
                version = re.search(r"^version (\d+)$", path.read_text(errors="replace"), re.MULTILINE)
                if name and version:
                    yield int(version[1]), name[1], path

    def _write(self, name: str, slot: str, *more_words: str) -> None:
        version = max((version for version, _, _ in self._all()), default=0) + 1
        words = [(self._card / slot / "cmdline.txt").read_text().strip(), *more_words]
        lines = [
            f"title dertwin ({slot})",
            "sort-key dertwin",
            f"version {version}",
            f"linux /{slot}/vmlinuz",
            f"initrd /{slot}/initrd.img",
            f"options {' '.join(words)}",
        ]
        replace_file(self._entries / name, "".join(f"{line}\n" for line in lines).encode())
