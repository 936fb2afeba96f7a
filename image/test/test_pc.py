"""The image for PCs: started by UEFI from its disk, looked at from outside only, updated and restarted."""

import shutil
from pathlib import Path

import pytest

from image import build, program
from image.test.card import Card
from image.test.conftest import FORWARD, WORK
from image.test.figures import Figures
from image.test.probes import read_tcp, ssh
from image.test.site_files import BENCH_YAML
from image.test.updates import make_update, send_update
from image.test.vm import PC, Vm, wait_for


@pytest.fixture(scope="module")
def made(key: Path) -> build.Made:
    """Build an image that takes updates signed by the operator's key."""
    return build.build("amd64", WORK / "pc", WORK / "pc/work", build.commit_time(), key)


@pytest.fixture(scope="module")
def card(made: build.Made, key: Path) -> Card:
    card = Card(made.image, WORK / "pc/card")
    card.write("dertwin/bench.yaml", BENCH_YAML.format(key=key.with_suffix(".pub").read_text().strip()))
    shutil.copy("/usr/share/OVMF/OVMF_VARS_4M.fd", card.folder / "firmware.vars")
    return card


def test_a_pc_serves_keeps_an_update_and_leaves_one_that_does_not_start(
    made: build.Made, card: Card, key: Path, tmp_path: Path, figures: Figures
) -> None:
    version = program.read_version()
    with Vm(card, PC, forward=FORWARD) as vm:

        def seen(command: str, words: str) -> bool:
            return words in ssh(vm, key, command, check=False).stdout

        def told(words: str) -> bool:
            return seen("cat /boot/card/dertwin/status.txt", words)

        wait_for("the battery", lambda: read_tcp(vm, 55001, 1, 4, 1))
        figures["PC (emulated, UEFI): first answer after power-on"] = vm.seconds_since_power_on()
        assert seen("findmnt -n -o SOURCE /", "/dev/vda2")

        assert "is in slot b, which is tried now" in send_update(vm, key, made.bundle, tmp_path)
        wait_for("slot b", lambda: seen("findmnt -n -o SOURCE /", "/dev/vda3"))
        wait_for("the update is kept", lambda: told(f"{version} was installed and kept"))
        assert len(wait_for("the battery", lambda: read_tcp(vm, 55001, 1, 4, 1), 60)) == 1

        (tmp_path / "nothing").write_bytes(bytes(4096))
        bad = make_update(tmp_path, key, WORK / "pc/work/slot", "amd64", f"{version}.1", tmp_path / "nothing")
        assert "is in slot a, which is tried now" in send_update(vm, key, bad, tmp_path)
        wait_for("the end of the trial", lambda: told(f"{version}.1 was tried and did not become ready"))
        assert seen("findmnt -n -o SOURCE /", "/dev/vda3")
        assert len(wait_for("the battery", lambda: read_tcp(vm, 55001, 1, 4, 1), 60)) == 1
