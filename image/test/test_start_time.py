"""What a start takes: beside a bare system, and in instructions, from which a real board is estimated."""

from pathlib import Path

from image.test.card import Card
from image.test.conftest import WORK
from image.test.figures import Figures
from image.test.probes import wait_until_ready
from image.test.vm import COUNTED, VIRT, Board, Vm

OURS = ("dertwin-setup", "dertwin", "dertwin-status")
# What one core of a Cortex-A72 at 1.5 GHz is taken to carry out: two instructions in three cycles.
PI4_INSTRUCTIONS_PER_S = 1e9
# From power to the kernel: EEPROM, firmware, U-Boot with its countdown, 55 MB read from the card.
PI4_LOADERS_S = 10.0
TIMES_A_BARE_START = 3.0


def test_our_services_make_the_start_at_most_three_times_as_long(image: Path, figures: Figures) -> None:
    with_us, bare = (
        userspace_s(image, words) for words in ("", " ".join(f"systemd.mask={name}.service" for name in OURS))
    )
    figures["userspace, from the first program to the end of the start"] = with_us
    figures["the same without our services"] = bare
    assert with_us <= TIMES_A_BARE_START * bare


def userspace_s(image: Path, words: str, board: Board = VIRT) -> float:
    """Return how long userspace takes to start from a card just flashed (s of the guest)."""
    with Vm(Card(image, WORK / "start"), board, more_kernel_words=words) as vm:
        vm.wait_for_shell()
        vm.run("systemctl is-system-running --wait", check=False, limit_s=900)
        began, ended = (stamp_s(vm, f"{name}TimestampMonotonic") for name in ("Userspace", "Finish"))
    return ended - began


def stamp_s(vm: Vm, name: str, *unit: str) -> float:
    return int(vm.run(" ".join(["systemctl", "show", "--value", "-p", name, *unit]))) / 1e6


def test_a_raspberry_pi_4_is_estimated_by_instructions(image: Path, figures: Figures) -> None:
    with Vm(Card(image, WORK / "counted"), COUNTED) as vm:
        vm.wait_for_shell()
        wait_until_ready(vm)
        # This machine takes 1 ns for each instruction and no time to wait for a disk.
        instructions = stamp_s(vm, "ActiveEnterTimestampMonotonic", "dertwin.service") * 1e9
    figures["instructions from the kernel's start until ready, one core"] = (
        f"{instructions / 1e9:.1f} thousand million"
    )
    estimate_s = PI4_LOADERS_S + instructions / PI4_INSTRUCTIONS_PER_S
    figures["estimate for a Raspberry Pi 4: ready after power-on"] = f"{estimate_s:.0f} s"
    assert estimate_s <= 25.0
