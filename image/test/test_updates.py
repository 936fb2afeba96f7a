"""Updates of a whole box over SSH: one that is kept, and one that does not even start."""

from pathlib import Path

import pytest

from bench.appliance.trial import READY_S
from image import program
from image.test.card import Card
from image.test.conftest import FORWARD, ROOT
from image.test.figures import Figures
from image.test.probes import read_tcp, wait_until_started
from image.test.site_files import BENCH_YAML
from image.test.updates import make_update, send_update
from image.test.vm import Vm, wait_for

MADE = ROOT / "build/work-arm64"


@pytest.fixture(scope="module")
def card(image: Path, key: Path) -> Card:
    card = Card(image, image.parent / "image-test/update")
    card.write("dertwin/bench.yaml", BENCH_YAML.format(key=key.with_suffix(".pub").read_text().strip()))
    return card


def update(vm: Vm, key: Path, bundle: Path, folder: Path) -> str:
    """Update the box and wait until it restarts."""
    trust(vm, key)
    said = send_update(vm, key, bundle, folder)
    vm.wait_for_end()
    return said


def trust(vm: Vm, key: Path) -> None:
    """Let the box take updates that are signed by this key, which the image of a release has in it."""
    vm.run("cp -r /usr/share/dertwin /run/trusting && mount --bind /run/trusting /usr/share/dertwin")
    vm.run(f"echo '{key.with_suffix('.pub').read_text().strip()}' >/usr/share/dertwin/update-key.pub")


def told(vm: Vm, words: str) -> bool:
    return words in vm.run("cat /boot/card/dertwin/status.txt", check=False)


def test_an_update_is_kept_and_one_that_does_not_start_is_not(
    card: Card, key: Path, tmp_path: Path, figures: Figures
) -> None:
    version = program.read_version()
    good = make_update(tmp_path, key, MADE / "slot", "arm64", f"{version}.1", MADE / "root.squashfs")
    with Vm(card, forward=FORWARD) as vm:
        vm.wait_for_shell()
        wait_until_started(vm)
        assert "is in slot b, which is tried now" in update(vm, key, good, tmp_path)
    assert card.fetch("slot.txt") == b"slot=a\n"

    with Vm(card, forward=FORWARD) as vm:
        vm.wait_for_shell()
        wait_until_started(vm)
        assert vm.run("findmnt -n -o SOURCE /") == "/dev/vda3"
        assert told(vm, "is on trial")
        wait_for("the update is kept", lambda: told(vm, f"{version}.1 was installed and kept"))
        assert len(wait_for("the battery", lambda: read_tcp(vm, 55001, 1, 4, 1), 60)) == 1
        assert "slot=b" in vm.run("cat /boot/card/slot.txt")
        figures["an update kept, after the service was ready"] = f"{READY_S:.0f} s"

        # Whole, genuine, and no file system: its kernel finds nothing to start.
        (tmp_path / "nothing").write_bytes(bytes(4096))
        bad = make_update(tmp_path, key, MADE / "slot", "arm64", f"{version}.2", tmp_path / "nothing")
        assert "is in slot a, which is tried now" in update(vm, key, bad, tmp_path)

    with Vm(card, forward=FORWARD) as vm:
        vm.wait_for_console("initrd: no root file system")
        vm.wait_for_end()

    with Vm(card, forward=FORWARD) as vm:
        vm.wait_for_shell()
        wait_until_started(vm)
        assert vm.run("findmnt -n -o SOURCE /") == "/dev/vda3"
        wait_for("the end of the trial", lambda: told(vm, f"{version}.2 was tried and did not become ready"))
        assert len(wait_for("the battery", lambda: read_tcp(vm, 55001, 1, 4, 1), 60)) == 1
