"""The root file system of the image for PCs under a real systemd, if `make image ARCH=amd64` has left one."""

import json
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from support.container import ROOT, Container, booted
from support.service import wait_for

WORK = ROOT / "build/work-amd64"
READ_STATE_OF_CHARGE = bytes.fromhex("04 0004 0001")


def sources() -> Iterator[Path]:
    for folder in ("bench", "dertwin", "image", "systemd"):
        yield from (path for path in (ROOT / folder).rglob("*.*") if path.parent.name != "__pycache__")


@contextmanager
def started(folder: Path, *words: str) -> Iterator[Container]:
    """Start a box that was never on before; `words` are its kernel's."""
    made = WORK / "root.squashfs"
    if not made.exists() or any(source.stat().st_mtime > made.stat().st_mtime for source in sources()):
        pytest.skip("there is no root file system of these sources; make image ARCH=amd64 makes one")
    shutil.copytree(WORK / "card/dertwin", folder / "card/dertwin")
    (folder / "data").mkdir()
    binds = (f"--bind={folder}/card:/boot/card", f"--bind={folder}/data:/data")
    with booted(WORK / "root", folder, "multi-user.target", *binds, words=words) as box:
        yield box


@pytest.fixture(scope="module")
def box(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Container]:
    with started(tmp_path_factory.mktemp("image")) as box:
        yield box


def test_the_demo_site_is_served(box: Container) -> None:
    answer = wait_for(lambda: box.ask(55001, READ_STATE_OF_CHARGE), 30.0, "the battery")
    assert int.from_bytes(answer[2:]) == pytest.approx(5000, abs=50)
    assert box.show("dertwin.service")["ActiveState"] == "active"


def test_the_card_says_that_it_runs(box: Container) -> None:
    status = box.root / "boot/card/dertwin/status.txt"
    wait_for(
        lambda: "running" in box.run("cat", "/boot/card/dertwin/status.txt", check=False), 30.0, str(status)
    )


def test_no_unit_of_ours_has_failed(box: Container) -> None:
    assert "dertwin" not in box.run("systemctl", "--failed", "--no-legend", "--plain")


def test_a_site_is_served_as_soon_as_its_address_has_come(box: Container) -> None:
    binding = {"kind": "modbus_tcp", "ip": "192.0.2.77", "port": 55001, "register_map": "bess_modbus.yaml"}
    config = {"site_name": "late", "assets": [{"type": "bess", "protocols": [binding]}]}
    box.run("sh", "-c", f"echo '{json.dumps(config)}' >/data/incoming/site.json")
    box.run("systemctl", "restart", "dertwin.service", check=False)
    status = ("cat", "/boot/card/dertwin/status.txt")
    wait_for(lambda: "is not an address of this machine" in box.run(*status), 30.0, "the reason")
    assert box.show("dertwin.service")["ActiveState"] == "failed"
    box.run("ip", "address", "add", "192.0.2.77/32", "dev", "lo")
    wait_for(lambda: box.show("dertwin.service")["ActiveState"] == "active", 60.0, "the service")
    wait_for(lambda: "late: put in place earlier" in box.run(*status), 30.0, "the site")


def test_wi_fi_waits_for_its_settings(box: Container) -> None:
    assert "dertwin-setup.service" in box.show("wpa_supplicant@wlan0.service")["After"].split()


def test_only_a_trial_is_timed_and_ends_unless_it_was_kept(box: Container, tmp_path: Path) -> None:
    assert box.show("dertwin-trial.timer")["ConditionResult"] == "no"
    with started(tmp_path, "dertwin.trial") as tried:
        assert tried.show("dertwin-trial.timer")["ActiveState"] == "active"
        # Kept or not, it is the same that the timer starts.
        tried.run("touch", "/run/dertwin-kept")
        tried.run("systemctl", "start", "dertwin-trial.service")
        assert tried.show("dertwin-trial.service")["ConditionResult"] == "no"
        tried.run("rm", "/run/dertwin-kept")
        tried.run("systemctl", "start", "dertwin-trial.service", check=False)
        wait_for(lambda: not tried.runs, 30.0, "the restart")
