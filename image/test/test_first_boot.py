"""A card just flashed, nothing changed: what an engineer finds within a minute of power-on."""

import re
import socket

import pytest

from image.test.figures import Figures
from image.test.probes import HOST, http, read_tcp, status
from image.test.vm import Vm, wait_for

MODBUS_PORTS = {55001, 55002, 55003}


def test_each_device_of_the_demo_site_answers_over_tcp(first_boot: Vm) -> None:
    assert status(first_boot)["site"] == "demo-site"
    (soc,) = read_tcp(first_boot, 55001, 1, 4, 1)
    assert soc == pytest.approx(5000, abs=50)
    (producing,) = read_tcp(first_boot, 55002, 1, 0, 1)
    assert producing == 1
    _, voltage = read_tcp(first_boot, 55003, 1, 0, 2)
    assert voltage == pytest.approx(23000, rel=0.1)


def test_the_root_file_system_cannot_be_written(first_boot: Vm, figures: Figures) -> None:
    source = first_boot.run("findmnt -n -o FSTYPE,OPTIONS /").split()
    assert source[0] == "squashfs"
    assert "ro" in source[1].split(",")
    for folder in ("/", "/usr", "/opt/dertwin", "/boot"):
        assert "Read-only file system" in first_boot.run(f"touch {folder}/x 2>&1", check=False)
    used = int(first_boot.run("df -B1 --output=used / | tail -1"))
    figures["root file system, compressed"] = f"{used / 2**20:.0f} MiB"


def test_the_card_is_mounted_read_only_and_the_data_partition_fills_it(first_boot: Vm) -> None:
    assert "ro" in first_boot.run("findmnt -n -o OPTIONS /boot/card").split(",")
    size, file_system = map(
        int, first_boot.run("lsblk -nbo SIZE,FSSIZE /dev/disk/by-label/DATA").split()[-2:]
    )
    # A card of 2 GiB, less 1284 MiB before it, in whole MiB.
    assert size == pytest.approx((2048 - 1284) * 2**20, abs=2**20)
    assert file_system > 0.9 * size


def test_no_unit_has_failed(first_boot: Vm) -> None:
    assert first_boot.run("systemctl --failed --no-legend --plain") == ""


def test_nobody_has_a_password(first_boot: Vm) -> None:
    shadow = [line.split(":")[:2] for line in first_boot.run("cat /etc/shadow").splitlines()]
    assert {name for name, _ in shadow} >= {"root", "bench", "dertwin"}
    assert [name for name, password in shadow if not password.startswith(("*", "!"))] == []
    settings = first_boot.run("sshd -T -C user=bench,host=x,addr=10.0.2.2")
    for line in ("passwordauthentication no", "kbdinteractiveauthentication no", "permitrootlogin no"):
        assert line in settings.splitlines()


def test_only_what_is_served_can_be_reached(first_boot: Vm) -> None:
    listening = first_boot.run("ss -Hltn")
    ports = {
        int(port) for address, port in re.findall(r"(\S+):(\d+) ", listening) if address[:4] not in LOCAL
    }
    assert ports == {22, *MODBUS_PORTS}
    rules = first_boot.run("nft list chain inet dertwin input")
    assert "policy drop" in rules
    (opened,) = re.findall(r"tcp dport \{ (.*?) \}", rules)
    assert set(map(int, opened.split(","))) == {22, *MODBUS_PORTS}
    first_boot.run("systemd-run --unit=stranger socat TCP-LISTEN:55011,fork,reuseaddr EXEC:hostname")
    wait_for("somebody who listens", lambda: "55011" in first_boot.run("ss -Hltn"))
    assert answers(first_boot, 22)
    assert not answers(first_boot, 55011)
    first_boot.run("systemctl stop stranger")


def answers(vm: Vm, port: int) -> bool:
    """Tell whether who connects from outside is sent anything (QEMU itself takes each connection)."""
    with socket.create_connection((HOST, vm.ports[port]), timeout=20) as connection:
        try:
            return connection.recv(1) != b""
        except TimeoutError:
            return False


LOCAL = ("127.", "[::1")


def test_the_box_has_a_name_and_host_keys_of_its_own(first_boot: Vm) -> None:
    assert re.fullmatch(r"dertwin-[0-9a-f]{4}", first_boot.run("hostname"))
    assert "yes" in first_boot.run("resolvectl mdns eth0")
    assert "5353" in first_boot.run("ss -Hlun")
    assert first_boot.run("cat /data/ssh/ssh_host_ed25519_key.pub").startswith("ssh-ed25519 ")
    # The journal of each start is found by this.
    assert first_boot.run("cat /etc/machine-id") == first_boot.run("cat /data/machine-id")


def test_the_card_tells_how_the_box_is(first_boot: Vm) -> None:
    told = wait_for("the address in status.txt", lambda: _told(first_boot, "10.0.2.15"))
    assert first_boot.run("hostname") in told
    assert "demo-site" in told


def _told(vm: Vm, word: str) -> str:
    text = vm.run("cat /boot/card/dertwin/status.txt", check=False)
    return text if word in text else ""


def test_metrics_are_scraped(first_boot: Vm) -> None:
    assert re.search(r"^dertwin_\w+(\{.*\})? [0-9.e+]+$", http(first_boot, "/metrics"), re.MULTILINE)


def test_the_idle_box_needs_little_memory(first_boot: Vm, figures: Figures) -> None:
    total, used = map(
        int, first_boot.run("free -m | sed -n 's/^Mem: *\\([0-9]*\\) *\\([0-9]*\\).*/\\1 \\2/p'").split()
    )
    figures["memory in use, demo site"] = f"{used} MiB of {total}"
    assert used <= 250


def test_the_program_adds_little_to_the_start(first_boot: Vm, figures: Figures) -> None:
    first_boot.run("systemctl is-system-running --wait", check=False, limit_s=600)
    times = first_boot.run("systemd-analyze time")
    figures["start, as systemd-analyze sees it"] = times.splitlines()[0].removeprefix("Startup finished in ")
    figures["longest in the start"] = "; ".join(
        " ".join(line.split()) for line in first_boot.run("systemd-analyze blame").splitlines()[:5]
    )
