"""Updates: what is signed, fits and is whole goes into the other slot; anything else changes nothing."""

import io
import os
import subprocess
import tarfile
from collections.abc import Callable
from pathlib import Path

import pytest
from support.box import options
from support.bundles import NEW, OLD, SLOT_BYTES, box_with_slots, bundle, make_key, run_slot, start
from support.ssh import ssh_to

from bench import cli
from bench.appliance.boot import UBoot
from bench.appliance.bundle import BadBundle
from bench.appliance.places import Places
from bench.appliance.trial import GIVE_UP_S, KEPT, READY_S, Trial, last_update
from bench.appliance.update import _partition

ACTIVE = {"ActiveState": "active", "ActiveEnterTimestampMonotonic": "1000"}
FAILED = {"ActiveState": "failed"}


@pytest.fixture(scope="module")
def key(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_key(tmp_path_factory.mktemp("key"))


@pytest.fixture
def box(key: Path, tmp_path: Path) -> Places:
    return box_with_slots(tmp_path / "box", key)[0]


@pytest.fixture
def partition(box: Places) -> Path:
    return box.card.parent / "other-slot"


def update(box: Places, file: Path | str, *host: str) -> int:
    return cli.main(
        ["update", str(file), *host, *options(box), "--partition", str(box.card.parent / "other-slot")]
    )


def assert_unchanged(box: Places, partition: Path) -> None:
    assert partition.read_bytes() == OLD.ljust(SLOT_BYTES, b"\0")
    assert_not_tried(box)


def assert_not_tried(box: Places) -> None:
    assert start(box) == "a"
    assert (box.card / "a/vmlinuz").read_text() == "the old kernel"


def test_a_bundle_is_written_to_the_other_slot_and_tried_once(
    box: Places, partition: Path, key: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert update(box, bundle(tmp_path, key)) == 0
    assert "2.0.0 is in slot b, which is tried now" in capsys.readouterr().out
    assert partition.read_bytes()[: len(NEW)] == NEW
    assert (box.card / "b/vmlinuz").read_bytes() == b"the new kernel"
    assert (box.card / "b/cmdline.txt").read_text() == "quiet dertwin.slot=b\n"
    assert [start(box), start(box)] == ["b", "a"]


def test_the_slot_that_runs_is_never_the_one_that_is_written(key: Path, tmp_path: Path) -> None:
    box, _ = box_with_slots(tmp_path / "box", key, running="b")
    UBoot(box.card).keep("b")
    assert update(box, bundle(tmp_path, key)) == 0
    assert (box.card / "a/vmlinuz").read_bytes() == b"the new kernel"
    assert [start(box), start(box)] == ["a", "b"]


def resign(file: Path, change: Callable[[str, bytes], bytes | None]) -> Path:
    """Rewrite the members of a bundle; None leaves one out."""
    out = file.with_suffix(".changed")
    with tarfile.open(file) as old, tarfile.open(out, "w") as new:
        for member in old:
            content = old.extractfile(member)
            assert content is not None
            data = change(member.name, content.read())
            if data is not None:
                member.size = len(data)
                new.addfile(member, io.BytesIO(data))
    return out


def test_a_bundle_signed_by_somebody_else_is_refused(
    box: Places, partition: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert update(box, bundle(tmp_path, make_key(tmp_path))) == 1
    assert "not by a key of this box" in capsys.readouterr().err
    assert_unchanged(box, partition)


def test_a_changed_manifest_is_refused(
    box: Places, partition: Path, key: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    file = resign(bundle(tmp_path, key), lambda _, data: data.replace(b'"2.0.0"', b'"2.0.1"'))
    assert update(box, file) == 1
    assert "not by a key of this box" in capsys.readouterr().err
    assert_unchanged(box, partition)


def test_a_signature_made_for_another_purpose_is_refused(
    box: Places, partition: Path, key: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    file = bundle(tmp_path, key)
    with tarfile.open(file) as tar:
        manifest = tar.extractfile("manifest.json")
        assert manifest is not None
        sign = ["ssh-keygen", "-q", "-Y", "sign", "-f", str(key), "-n", "file"]
        signature = subprocess.run(sign, input=manifest.read(), capture_output=True, check=True).stdout
    changed = resign(file, lambda name, data: signature if name == "manifest.sig" else data)
    assert update(box, changed) == 1
    assert "not by a key of this box" in capsys.readouterr().err
    assert_unchanged(box, partition)


def test_a_box_without_a_key_takes_no_updates(
    key: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    box, partition = box_with_slots(tmp_path / "box", None)
    assert update(box, bundle(tmp_path, key)) == 1
    assert "it has no public key" in capsys.readouterr().err
    assert_unchanged(box, partition)


@pytest.mark.parametrize(
    ("what", "words"),
    [
        ({"arch": "amd64"}, "it is for amd64, and this box is arm64"),
        ({"version": "1.2.2"}, "1.2.2, which is older than 1.2.3"),
        ({"version": "1.2"}, "older"),
        ({"root": b"x" * (SLOT_BYTES + 1)}, "its root file system has 3 MiB, and the slot 3 MiB"),
    ],
    ids=lambda what: str(what)[:20],
)
def test_what_does_not_fit_the_box_is_refused_before_anything_is_written(
    what: dict[str, object],
    words: str,
    box: Places,
    partition: Path,
    key: Path,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    assert update(box, bundle(tmp_path, key, **what)) == 1  # type: ignore[arg-type]
    assert words in capsys.readouterr().err
    assert_unchanged(box, partition)


@pytest.mark.parametrize("version", ["1.2.3", "1.10", "1.3.0rc1"])
def test_the_same_version_or_a_newer_one_is_taken(
    version: str, box: Places, key: Path, tmp_path: Path
) -> None:
    assert update(box, bundle(tmp_path, key, version=version)) == 0


def test_a_full_card_is_said_before_anything_is_written(
    box: Places,
    partition: Path,
    key: Path,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    full = os.statvfs_result((4096, 4096, 100, 0, 0, 10, 10, 10, 0, 255))
    monkeypatch.setattr(os, "statvfs", lambda _: full)
    assert update(box, bundle(tmp_path, key)) == 1
    assert "take files off the card" in capsys.readouterr().err
    assert_unchanged(box, partition)


@pytest.mark.parametrize("part", [0.0, 0.0001, 0.3, 0.9, 0.99])
def test_a_bundle_that_is_cut_off_is_never_tried(
    part: float, box: Places, key: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    file = bundle(tmp_path, key)
    os.truncate(file, int(file.stat().st_size * part))
    assert update(box, file) == 1
    assert "bundle" in capsys.readouterr().err
    assert_not_tried(box)
    # The next one is taken as ever.
    assert update(box, bundle(tmp_path, key)) == 0
    assert start(box) == "b"


@pytest.mark.parametrize("name", ["root.squashfs", "boot/vmlinuz"])
def test_a_file_that_is_not_as_the_manifest_says_is_never_tried(
    name: str, box: Places, key: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    file = resign(bundle(tmp_path, key), lambda n, data: data[::-1] if n == name else data)
    assert update(box, file) == 1
    assert f"{name} in it is not as its manifest says" in capsys.readouterr().err
    assert_not_tried(box)


def test_a_bundle_that_lacks_a_file_is_never_tried(
    box: Places, key: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    file = resign(bundle(tmp_path, key), lambda n, data: None if n == "boot/initrd.img" else data)
    assert update(box, file) == 1
    assert "boot/initrd.img is missing" in capsys.readouterr().err
    assert_not_tried(box)


@pytest.mark.parametrize("name", ["../evil", "boot/../../evil", "slot.txt"])
def test_a_file_that_is_not_in_the_manifest_goes_nowhere(
    name: str, box: Places, key: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    file = bundle(tmp_path, key)
    with tarfile.open(file, "a") as tar:
        extra = tarfile.TarInfo(name)
        extra.size = 7
        tar.addfile(extra, io.BytesIO(b"slot=b\n"))
    before = {path for path in tmp_path.rglob("*") if path.is_file()}
    assert update(box, file) == 1
    assert "not as its manifest says" in capsys.readouterr().err
    assert {path.name for path in tmp_path.rglob("*") if path.is_file()} - {path.name for path in before} <= {
        "vmlinuz", "initrd.img", "cmdline.txt", "root.squashfs"
    }  # fmt: skip
    assert_not_tried(box)


def test_what_reads_back_differently_is_never_tried(
    box: Places,
    key: Path,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    # The moment at which the disk alone has what was written.
    monkeypatch.setattr(os, "posix_fadvise", lambda file, *_: os.pwrite(file, b"\xff", 5))
    assert update(box, bundle(tmp_path, key)) == 1
    assert "the card is worn out" in capsys.readouterr().err
    assert_not_tried(box)


def test_no_update_is_taken_while_one_is_on_trial(
    box: Places, partition: Path, key: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    run_slot(box, "b", "dertwin.trial")
    assert update(box, bundle(tmp_path, key)) == 1
    assert "still on trial" in capsys.readouterr().err
    assert partition.read_bytes() == OLD.ljust(SLOT_BYTES, b"\0")


def test_on_a_machine_that_is_no_appliance_the_host_is_asked_for(
    box: Places, key: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (box.root / "proc/cmdline").unlink()
    assert update(box, bundle(tmp_path, key)) == 1
    assert "no appliance with two slots" in capsys.readouterr().err


def test_a_box_that_cannot_try_a_slot_says_so(
    box: Places, key: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (box.card / "boot.scr").unlink()
    assert update(box, bundle(tmp_path, key)) == 1
    assert "the boot loader of this box cannot try a slot" in capsys.readouterr().err


def test_a_bundle_goes_to_a_box_over_ssh(
    box: Places, partition: Path, key: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "ssh").mkdir()
    file = bundle(tmp_path, key)
    with ssh_to(box, tmp_path / "ssh", monkeypatch, "--partition", str(partition)) as host:
        assert cli.main(["update", str(file), host]) == 0
    assert partition.read_bytes()[: len(NEW)] == NEW
    assert start(box) == "b"


def tried(box: Places, key: Path, folder: Path) -> Trial:
    """Update a box and start it: the new slot is on trial from the time 0."""
    assert update(box, bundle(folder, key)) == 0
    assert start(box) == "b"
    return Trial(box, 0.0)


def test_a_slot_is_kept_once_its_service_has_been_ready_for_a_while(
    box: Places, key: Path, tmp_path: Path
) -> None:
    trial = tried(box, key, tmp_path)
    assert "on trial" in trial.step({"ActiveState": "activating"}, 1.0)[0]
    trial.step(ACTIVE, 10.0)
    trial.step(ACTIVE, 10.0 + READY_S - 1)
    assert UBoot(box.card).usual == "a"
    assert not (box.root / KEPT).exists()
    assert trial.step(ACTIVE, 10.0 + READY_S) == ["2.0.0 was installed and kept"]
    assert (box.root / KEPT).exists()
    assert not trial.is_lost(GIVE_UP_S)
    assert start(box) == "b"
    assert Trial(box, 0.0).step(ACTIVE, 0.0) == ["2.0.0 was installed and kept"]


def test_a_service_that_restarts_again_and_again_is_not_ready(box: Places, key: Path, tmp_path: Path) -> None:
    trial = tried(box, key, tmp_path)
    now_s = 0.0
    for restart in range(20):
        for _ in range(2):  # too short a time each
            now_s += READY_S / 2
            trial.step({**ACTIVE, "ActiveEnterTimestampMonotonic": str(restart)}, now_s)
    assert UBoot(box.card).usual == "a"
    assert trial.is_lost(now_s)
    assert now_s >= GIVE_UP_S


def test_a_slot_that_does_not_become_ready_is_given_up(box: Places, key: Path, tmp_path: Path) -> None:
    trial = tried(box, key, tmp_path)
    trial.step(FAILED, GIVE_UP_S)
    assert not trial.is_lost(GIVE_UP_S - 1)
    assert trial.is_lost(GIVE_UP_S)
    assert start(box) == "a"
    (line,) = Trial(box, 0.0).step(ACTIVE, 0.0)
    assert line == "2.0.0 was tried and did not become ready: the version before it runs"
    found = last_update(box)
    assert found is not None
    assert found.state == "not kept"


def test_a_power_cut_during_the_trial_is_the_old_slot_again(box: Places, key: Path, tmp_path: Path) -> None:
    trial = tried(box, key, tmp_path)
    trial.step(ACTIVE, 1.0)
    assert start(box) == "a"
    assert "the version before it runs" in Trial(box, 0.0).step(ACTIVE, 0.0)[0]


def test_a_slot_that_cannot_be_kept_is_given_up(box: Places, key: Path, tmp_path: Path) -> None:
    trial = tried(box, key, tmp_path)
    trial.step(ACTIVE, 0.0)
    (box.card / "slot.txt").mkdir()
    with pytest.raises(IsADirectoryError):
        trial.step(ACTIVE, READY_S)
    assert trial.is_lost(GIVE_UP_S)


def test_a_slot_that_cannot_reach_the_card_is_not_taken_for_kept(
    box: Places, key: Path, tmp_path: Path
) -> None:
    tried(box, key, tmp_path)
    (box.card / "boot.scr").unlink()
    trial = Trial(box, 0.0)
    assert "on trial" in trial.step(ACTIVE, 0.0)[0]
    with pytest.raises(OSError, match="cannot be kept"):
        trial.step(ACTIVE, READY_S)
    assert trial.is_lost(GIVE_UP_S)


def test_a_slot_that_the_loader_came_to_is_not_on_trial_and_can_mend_the_other(
    box: Places, partition: Path, key: Path, tmp_path: Path
) -> None:
    UBoot(box.card).keep("b")
    trial = Trial(box, 0.0)  # with slot a, whose files could be read
    trial.step(ACTIVE, 0.0)
    assert "slot b could not be started, slot a runs" in trial.step(ACTIVE, READY_S)[0]
    assert not trial.is_lost(GIVE_UP_S)
    assert UBoot(box.card).usual == "b"
    assert update(box, bundle(tmp_path, key)) == 0
    assert [start(box), start(box)] == ["b", "a"]


def test_without_an_update_there_is_nothing_to_tell(box: Places) -> None:
    trial = Trial(box, 0.0)
    assert trial.step(ACTIVE, 0.0) == trial.step(ACTIVE, 1000.0) == []
    assert not trial.is_lost(1000.0)


def test_the_partition_of_a_slot_is_found_by_the_disk_of_the_card(box: Places) -> None:
    disk = box.root / "sys/devices/mmc/mmcblk0"
    for number in (1, 2, 3, 4):
        (disk / f"mmcblk0p{number}").mkdir(parents=True)
        (disk / f"mmcblk0p{number}/partition").write_text(f"{number}\n")
    (box.root / "sys/dev/block").mkdir(parents=True)
    (box.root / "sys/dev/block/179:1").symlink_to(disk / "mmcblk0p1")
    (box.root / "proc/self").mkdir()
    mounts = f"21 1 179:2 / / ro - squashfs\n22 1 179:1 / {box.card} ro - vfat\n"
    (box.root / "proc/self/mountinfo").write_text(mounts)
    assert _partition(box, 3) == box.root / "dev/mmcblk0p3"
    with pytest.raises(BadBundle, match="no partition 5"):
        _partition(box, 5)
