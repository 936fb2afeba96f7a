"""The boot partition: files of firmware and loader, a folder for each slot, and what a laptop edits."""

import os
import re
import shutil
import struct
import subprocess
from pathlib import Path

from bench.appliance.boot import SystemdBoot
from image import disk

HERE = Path(__file__).parent
# These processors do not have the flaw that page table isolation is for (Meltdown), and it costs time in each
# system call.
KERNEL_WORDS = {"arm64": "console=ttyS1,115200 kpti=0", "amd64": "console=ttyS0,115200"}
# Boards of the image: Raspberry Pi 3 and Zero 2 (bcm2837), 4 (bcm2711), 5 (bcm2712).
DEVICE_TREES = ("bcm2837*.dtb", "bcm2711*.dtb", "bcm2712*.dtb")
FIRMWARE = ("bootcode.bin", "start*.elf", "fixup*.dat")


def make_slot(arch: str, unpacked: Path, kernel: str, initrd: Path, out: Path) -> Path:
    """Lay out the files of one slot: kernel, initrd, command line.

    They are the same for both slots but for the word @SLOT@ in the command line.
    """
    out.mkdir()
    vmlinuz = unpacked / "usr/lib/modules" / kernel / "vmlinuz"
    if arch == "arm64":
        _check_room(vmlinuz, (HERE / "boot/boot.cmd").read_text())
    shutil.copy(vmlinuz, out / "vmlinuz")
    shutil.copy(initrd, out / "initrd.img")
    line = (HERE / "boot/cmdline.txt").read_text()
    words = {"@MACHINE@": KERNEL_WORDS[arch], "@DISK@": f"{disk.layout()['disk_id']:08x}"}
    for word, text in words.items():
        line = line.replace(word, text)
    (out / "cmdline.txt").write_text(line)
    return out


def _check_room(vmlinuz: Path, script: str) -> None:
    """Raise ValueError if the running kernel would reach to where the loader's script puts the initrd."""
    # How much memory it takes from its start: see Documentation/arch/arm64/booting.rst of Linux.
    (size,) = struct.unpack_from("<Q", vmlinuz.read_bytes(), 16)
    first, last = (
        int(re.findall(rf"^setenv {name}_addr_r (0x\w+)$", script, re.MULTILINE)[0], 16)
        for name in ("kernel", "ramdisk")
    )
    if first + size > last:
        raise ValueError(f"the kernel takes {size >> 20} MiB; give the initrd a higher address in boot.cmd")


def make_card(arch: str, unpacked: Path, kernel: str, slot: Path, epoch: int, out: Path) -> None:
    """Lay out the whole partition, with slot a."""
    shutil.copytree(HERE / "card", out)
    (out / "dertwin/maps").mkdir(exist_ok=True)
    shutil.copytree(slot, out / "a")
    command_line = out / "a/cmdline.txt"
    command_line.write_text(command_line.read_text().replace("@SLOT@", "a"))
    shutil.copytree(HERE / "boot" / arch, out, dirs_exist_ok=True)
    if arch == "arm64":
        _add_u_boot(unpacked, unpacked / "usr/lib/modules" / kernel / "dtb/broadcom", epoch, out)
    else:
        _add_systemd_boot(unpacked, out)


def _add_u_boot(unpacked: Path, device_trees: Path, epoch: int, out: Path) -> None:
    """Add the firmware of the boards, and U-Boot with the script that chooses a slot."""
    for folder, patterns in ((unpacked / "usr/lib/raspi-firmware", FIRMWARE), (device_trees, DEVICE_TREES)):
        for pattern in patterns:
            for path in folder.glob(pattern):
                shutil.copy(path, out)
    shutil.copy(unpacked / "usr/lib/u-boot/rpi_arm64/u-boot.bin", out)
    (out / "slot.txt").write_text("slot=a\n")
    subprocess.run(
        ["mkimage", "-A", "arm64", "-T", "script", "-d", HERE / "boot/boot.cmd", out / "boot.scr"],
        check=True,
        stdout=subprocess.DEVNULL,
        env=os.environ | {"SOURCE_DATE_EPOCH": str(epoch)},
    )


def _add_systemd_boot(unpacked: Path, out: Path) -> None:
    """Add the loader for UEFI, with an entry for slot a."""
    for folder in ("EFI/BOOT", "loader/entries"):
        (out / folder).mkdir(parents=True)
    shutil.copy(unpacked / "usr/lib/systemd/boot/efi/systemd-bootx64.efi", out / "EFI/BOOT/BOOTX64.EFI")
    SystemdBoot(out).keep("a")
