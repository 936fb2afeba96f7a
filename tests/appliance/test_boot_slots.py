"""Which slot starts next on a PC: systemd-boot takes the best entry, and counts how often each is tried."""

import re
from pathlib import Path

import pytest

from bench.appliance.boot import SystemdBoot, UBoot, boot_slots


@pytest.fixture
def card(tmp_path: Path) -> Path:
    for slot in "ab":
        (tmp_path / slot).mkdir()
        (tmp_path / slot / "cmdline.txt").write_text(f"quiet dertwin.slot={slot}\n")
    (tmp_path / "loader/entries").mkdir(parents=True)
    SystemdBoot(tmp_path).keep("a")
    return tmp_path


def start(card: Path) -> str:
    """Do what systemd-boot does, and return the kernel's command line."""
    entries = card / "loader/entries"
    best = max(entries.glob("*.conf"), key=lambda path: ("+0" not in path.name, version(path)))
    if "+1" in best.name:
        best = best.rename(entries / best.name.replace("+1", "+0-1"))
    return field(best, "options")


def version(entry: Path) -> int:
    return int(field(entry, "version"))


def field(entry: Path, key: str) -> str:
    (found,) = re.findall(rf"^{key} (.*)$", entry.read_text(), re.MULTILINE)
    return str(found)


A, B, TRY_B = "quiet dertwin.slot=a", "quiet dertwin.slot=b", "quiet dertwin.slot=b dertwin.trial"


def test_a_slot_is_tried_once(card: Path) -> None:
    SystemdBoot(card).try_once("b")
    assert [start(card), start(card), start(card)] == [TRY_B, A, A]
    assert SystemdBoot(card).usual == "a"


def test_a_slot_that_is_kept_is_started_from_then_on(card: Path) -> None:
    SystemdBoot(card).try_once("b")
    assert start(card) == TRY_B
    SystemdBoot(card).keep("b")
    assert [start(card), start(card)] == [B, B]
    assert SystemdBoot(card).usual == "b"
    SystemdBoot(card).try_once("a")
    assert [start(card), start(card)] == [f"{A} dertwin.trial", B]


def test_what_is_cancelled_is_not_tried(card: Path) -> None:
    SystemdBoot(card).try_once("b")
    SystemdBoot(card).cancel()
    assert start(card) == A


def test_an_entry_names_the_files_of_its_slot(card: Path) -> None:
    SystemdBoot(card).keep("b")
    entry = card / "loader/entries/dertwin-b.conf"
    assert (field(entry, "linux"), field(entry, "initrd")) == ("/b/vmlinuz", "/b/initrd.img")


def test_entries_of_others_are_left_alone(card: Path) -> None:
    other = card / "loader/entries/memtest+3.conf"
    other.write_text("title memory test\nversion 99\n")
    SystemdBoot(card).cancel()
    assert other.exists()
    assert SystemdBoot(card).usual == "a"


def test_the_loader_is_known_by_its_files(card: Path, tmp_path: Path) -> None:
    assert isinstance(boot_slots(card), SystemdBoot)
    (card / "boot.scr").touch()
    assert isinstance(boot_slots(card), UBoot)
    assert boot_slots(tmp_path / "a") is None
