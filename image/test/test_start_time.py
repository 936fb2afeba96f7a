"""What a start takes: beside a bare system, and in instructions, from which a real board is estimated."""

from pathlib import Path
from typing import NamedTuple

import pytest

from image.test.card import Card
from image.test.conftest import WORK
from image.test.figures import Figures
from image.test.probes import wait_until_started
from image.test.vm import COUNTED, VIRT, Board, Vm

OURS = ("dertwin-setup", "dertwin", "dertwin-status")
TIMES_A_BARE_START = 3.0
# What one core of a Cortex-A72 at 1.5 GHz is taken to carry out: two instructions in three cycles.
PI4_INSTRUCTIONS_PER_S = 1e9
# From power to the kernel: EEPROM, firmware, U-Boot with its countdown, 55 MB read from the card.
PI4_LOADERS_S = 10.0


class Start(NamedTuple):
    """A start from a card just flashed, by the guest's clock (s): userspace, and all cores until ready."""

    userspace_s: float
    busy_s: float
    until_s: float


def start(image: Path, board: Board = VIRT, *, bare: bool = False) -> Start:
    words = " ".join(f"systemd.mask={name}.service" for name in OURS) if bare else ""
    with Vm(Card(image, WORK / "start"), board, more_kernel_words=words) as vm:
        vm.wait_for_shell()
        if not bare:
            wait_until_started(vm)
        user, nice, system = map(int, vm.run("head -1 /proc/stat").split()[1:4])
        until_s = float(vm.run("cat /proc/uptime").split()[0])
        vm.run("systemctl is-system-running --wait", check=False, limit_s=900)
        began, ended = (
            int(vm.run(f"systemctl show --value -p {name}TimestampMonotonic")) / 1e6
            for name in ("Userspace", "Finish")
        )
        return Start(ended - began, (user + nice + system) / 100, until_s)


@pytest.fixture(scope="module")
def usual(image: Path) -> Start:
    return start(image)


def test_our_services_make_the_start_at_most_three_times_as_long(
    image: Path, usual: Start, figures: Figures
) -> None:
    bare = start(image, bare=True)
    figures["userspace, from the first program to the end of the start"] = usual.userspace_s
    figures["the same without our services"] = bare.userspace_s
    assert usual.userspace_s <= TIMES_A_BARE_START * bare.userspace_s


def test_a_raspberry_pi_4_is_estimated_by_instructions(image: Path, usual: Start, figures: Figures) -> None:
    # On this machine each instruction takes 1 ns.
    instructions = start(image, COUNTED).busy_s * 1e9
    at_once = usual.busy_s / usual.until_s
    estimate_s = PI4_LOADERS_S + instructions / PI4_INSTRUCTIONS_PER_S / at_once
    figures["instructions until ready"] = f"{instructions / 1e9:.1f} x 10^9"
    figures["cores busy until ready, of two"] = f"{at_once:.2f}"
    figures["estimate for a Raspberry Pi 4, not measured: ready after power-on"] = f"{estimate_s:.0f} s"
    assert estimate_s <= 25.0
