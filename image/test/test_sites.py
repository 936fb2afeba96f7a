"""Another site put in place over SSH, and one that is bad."""

import json
import subprocess
import zipfile
from pathlib import Path

import pytest

from image.test.probes import fetch, read_tcp, scp, ssh, status, wait_for_site
from image.test.site_files import BAD_SITE, OTHER_SITE
from image.test.vm import Vm, wait_for


def put(bench: Vm, key: Path, folder: Path, text: str, *, check: bool = True) -> str:
    """Copy a site to the box, put it in place, and return what the box says."""
    (folder / "site.json").write_text(text)
    scp(bench, key, folder / "site.json", "/data/home/site.json")
    done = ssh(bench, key, "sudo dertwin site put /data/home/site.json", check=check)
    assert (done.returncode == 0) == check
    return done.stdout + done.stderr


def test_a_new_site_is_served_and_can_be_taken_back(bench: Vm, key: Path, tmp_path: Path) -> None:
    put(bench, key, tmp_path, OTHER_SITE)
    ssh(bench, key, "sudo systemctl restart dertwin")
    wait_for_site(bench, "other-site")
    (soc,) = wait_for("the new device", lambda: read_tcp(bench, 55011, 1, 4, 1), 60)
    assert soc == pytest.approx(7700, abs=10)
    ssh(bench, key, "sudo dertwin site rollback")
    wait_for_site(bench, "two-lines")


def test_a_bad_site_leaves_the_good_one_and_its_fault_is_told_on_the_card(
    bench: Vm, key: Path, tmp_path: Path
) -> None:
    said = put(bench, key, tmp_path, BAD_SITE, check=False)
    assert "initial_soc" in said
    assert status(bench)["site"] == "two-lines"
    # The same by way of the card: as a laptop would, then a start of the set-up.
    bench.run("mount -o remount,rw /boot/card")
    bench.run(f"cat >/boot/card/dertwin/site.json <<'END'\n{BAD_SITE}\nEND")
    bench.run(
        "mount -o remount,ro /boot/card && systemctl restart dertwin-setup && systemctl restart dertwin"
    )
    wait_for_site(bench, "two-lines")
    told = wait_for(
        "the reason", lambda: "770" in bench.run("cat /boot/card/dertwin/status.txt", check=False)
    )
    assert told


def test_a_site_copied_to_the_box_is_served_after_a_restart(bench: Vm, key: Path, tmp_path: Path) -> None:
    (tmp_path / "site.json").write_text(OTHER_SITE)
    scp(bench, key, tmp_path / "site.json", "/data/incoming/")
    ssh(bench, key, "sudo systemctl restart dertwin")
    wait_for_site(bench, "other-site")


def test_what_was_recorded_is_fetched_from_the_box(bench: Vm, key: Path, tmp_path: Path) -> None:
    assert wait_for("the battery", lambda: read_tcp(bench, 55001, 1, 4, 1), 60)
    ssh(bench, key, "dertwin record dump /data/recordings/incident.zip")
    fetch(bench, key, "/data/recordings/incident.zip", tmp_path)
    with zipfile.ZipFile(tmp_path / "incident.zip") as bundle:
        assert json.loads(bundle.read("site.json"))["site_name"] == "two-lines"
        assert bundle.read("exchanges.jsonl")


def test_nobody_logs_in_without_the_key(bench: Vm, key: Path, tmp_path: Path) -> None:
    assert ssh(bench, key, "id -un").stdout == "bench\n"
    stranger = tmp_path / "stranger"
    subprocess.run(["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-f", stranger], check=True)
    refused = ssh(bench, stranger, "id", check=False)
    assert refused.returncode == 255
    assert "Permission denied (publickey)" in refused.stderr


def test_the_operator_is_not_root(bench: Vm, key: Path) -> None:
    refused = ssh(bench, key, "sudo -n dertwin site show --root /tmp", check=False)
    assert refused.returncode != 0
    assert "password is required" in refused.stderr
    assert "two-lines" in ssh(bench, key, "sudo -n dertwin site show").stdout
