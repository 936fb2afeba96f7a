"""What the shipped udev rules do to a device, by udev's own rule engine (udevadm in a testbed)."""

import re
import shutil
import subprocess
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest
from support.udev import Adapter, Udev, needs_umockdev, udev

RULES = Path(__file__).parent.parent / "systemd" / "70-dertwin.rules"
# In a namespace of its own, so that the rules and the devices of this machine stay what they are.
IN_A_NAMESPACE = """set -e
touch {folder}/null
mount --bind /dev/null {folder}/null
mount --rbind {folder} /dev
mount -t tmpfs none /run
mkdir -p /run/udev/rules.d
cp {rules} /run/udev/rules.d/
exec {command}
"""


def _no_namespace() -> bool:
    return subprocess.run(["unshare", "-m", "true"], capture_output=True, check=False).returncode != 0


pytestmark = [
    needs_umockdev,
    pytest.mark.skipif(shutil.which("udevadm") is None, reason="udevadm is not installed"),
    pytest.mark.skipif(_no_namespace(), reason="this user may not mount in a namespace of its own"),
]


@pytest.fixture
def bed() -> Iterator[Udev]:
    with udev() as made:
        yield made


def plugged(bed: Udev, adapter: Adapter, rules: Path = RULES, action: str = "add") -> tuple[str, str]:
    """Run the rules over an event of an adapter; return the properties it gets and the log of the rules."""
    device = adapter.devices[-1]
    command = " ".join(bed.command("udevadm", "--debug", "test", f"--action={action}", device))
    with tempfile.TemporaryDirectory() as folder:
        script = IN_A_NAMESPACE.format(folder=folder, rules=rules, command=command)
        done = subprocess.run(
            ["unshare", "-m", "sh", "-c", script], capture_output=True, text=True, timeout=30, check=False
        )
    log = done.stdout + done.stderr
    assert done.returncode == 0, log
    assert f"{rules.name}" in log
    assert not re.search(rf"{rules.name}:\d+ .*([Ii]nvalid|[Uu]nknown|ignoring|[Ff]ailed)", log), log
    return done.stdout, log


def test_an_ftdi_adapter_gets_a_latency_timer_of_1_ms_and_no_modem_manager(bed: Udev) -> None:
    properties, log = plugged(bed, bed.plug("ttyUSB0", "FT1"))
    assert re.search(r"70-dertwin.rules:\d+ ATTR '.*/device/latency_timer' writing '1'", log)
    assert "ID_MM_PORT_IGNORE=1" in properties.splitlines()


def test_another_adapter_has_no_latency_timer_to_set(bed: Udev) -> None:
    properties, log = plugged(bed, bed.plug("ttyUSB0", driver="ch341-uart", ids=("1a86", "7523")))
    assert "latency_timer" not in log
    assert "ID_MM_PORT_IGNORE=1" in properties.splitlines()


def test_a_uart_is_left_alone_until_the_example_is_made_a_rule(bed: Udev, tmp_path: Path) -> None:
    uart = bed.uart("ttyAMA0")
    properties, log = plugged(bed, uart)
    assert "ID_MM_PORT_IGNORE" not in properties
    assert "rs485-1" not in log
    rules = tmp_path / RULES.name
    rules.write_text(RULES.read_text().replace("#KERNEL", "KERNEL"))
    properties, _ = plugged(bed, uart, rules)
    assert re.search(r"^TAGS=.*:rs485-1:", properties, re.MULTILINE)


def test_an_adapter_that_goes_is_left_alone(bed: Udev) -> None:
    properties, log = plugged(bed, bed.plug("ttyUSB0", "FT1"), action="remove")
    assert "latency_timer" not in log
    assert "ID_MM_PORT_IGNORE" not in properties
