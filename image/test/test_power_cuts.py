"""The plug pulled at any moment: file systems and state are sound, and nobody is asked anything."""

import subprocess
from collections.abc import Callable
from pathlib import Path

import pytest

from image.test.card import Card
from image.test.conftest import FORWARD
from image.test.figures import Figures
from image.test.probes import read_tcp, status, wait_for_site
from image.test.site_files import OTHER_SITE
from image.test.vm import Vm, wait_for

SAVED_EVERY_S = 10


def served(vm: Vm) -> None:
    vm.wait_for_shell()
    wait_for_site(vm, "other-site")


def saved(vm: Vm) -> None:
    served(vm)
    before = vm.run("stat -c %Y /var/lib/dertwin/* | sort | tail -1", check=False)
    wait_for(
        "a saved state",
        lambda: vm.run("stat -c %Y /var/lib/dertwin/* | sort | tail -1", check=False) != before,
    )


def writing_the_card(vm: Vm) -> None:
    vm.wait_for_shell()
    vm.run("mount -o remount,rw /boot/card")
    vm.run("(while true; do cp /opt/dertwin/bin/dertwin /boot/card/dertwin/maps/x; done) &")
    wait_for("a write", lambda: vm.run("ls /boot/card/dertwin/maps/x", check=False))


# From the first boot on, in which the data partition grows; the last one while nothing happens.
MOMENTS: list[Callable[[Vm], object]] = [
    lambda vm: vm.wait_for_console("initrd: growing"),
    lambda vm: vm.wait_for_console("resize2fs"),
    lambda vm: vm.wait_for_shell(),
    served,
    lambda vm: vm.wait_for_console("e2fsck"),
    saved,
    writing_the_card,
    lambda vm: vm.wait_for_console("fsck.fat"),
    lambda vm: vm.wait_for_shell(),
    saved,
]


@pytest.fixture(scope="module")
def card(image: Path) -> Card:
    card = Card(image, image.parent / "image-test/power")
    card.write("dertwin/site.json", OTHER_SITE)
    return card


def test_ten_power_cuts_harm_nothing(card: Card, figures: Figures) -> None:
    for moment in MOMENTS:
        with Vm(card, forward=FORWARD, more_kernel_words="loglevel=7") as vm:
            moment(vm)
            vm.kill()
        check_file_systems(card)
    with Vm(card, forward=FORWARD) as vm:
        served(vm)
        assert vm.run("systemctl --failed --no-legend --plain") == ""
        # It went on: simulated time is that of the saved state and since, not of a new start.
        assert status(vm)["simulated_time_s"] > SAVED_EVERY_S
        (soc,) = wait_for("the device", lambda: read_tcp(vm, 55011, 1, 4, 1), 60)
        assert soc == pytest.approx(7700, abs=10)
        assert "/dev/" in vm.run("findmnt -n -o SOURCE /data")
    figures["starts cut short by pulling the plug, all sound"] = len(MOMENTS)


@pytest.mark.parametrize(
    ("partition", "first_byte", "data", "told"),
    [
        ("data", 4096, bytes(64 * 4096), ""),
        ("data", 0, bytes(8 * 2**20), "the data partition is broken"),
        ("card", 32 * 512 + 4 * 120_000, b"\xff\xff\xff\x0f" * 64, ""),
    ],
    ids=["tables of the data partition lost", "the data partition lost", "pieces of a file on the card lost"],
)
def test_a_box_with_a_spoilt_card_serves_all_the_same(
    image: Path, partition: str, first_byte: int, data: bytes, told: str
) -> None:
    card = Card(image, image.parent / "image-test/spoilt")
    card.spoil(partition, first_byte, data)
    with Vm(card, forward=FORWARD, more_kernel_words="loglevel=7") as vm:
        vm.wait_for_shell()
        wait_for_site(vm, "demo-site")
        status_txt = wait_for("status.txt", lambda: vm.run("cat /boot/card/dertwin/status.txt", check=False))
        assert told in status_txt
        assert ("Wrong on this box" in status_txt) == bool(told)
        assert "FSCK" not in vm.run("ls /boot/card")


def check_file_systems(card: Card) -> None:
    """Check that both are as a start repairs them without being asked: FAT, and ext4 with its journal."""
    data = card.partition("data")
    repaired = subprocess.run(["e2fsck", "-p", data], capture_output=True, text=True)
    assert repaired.returncode in (0, 1), repaired.stdout
    checked = subprocess.run(["e2fsck", "-fn", data], capture_output=True, text=True)
    assert checked.returncode == 0, checked.stdout
    fat = card.partition("card")
    repaired = subprocess.run(["fsck.fat", "-a", fat], capture_output=True, text=True)
    assert repaired.returncode in (0, 1), repaired.stdout
    assert subprocess.run(["fsck.fat", "-n", fat], capture_output=True).returncode == 0
