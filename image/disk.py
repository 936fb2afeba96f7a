"""Partitions and file systems of an image, made in files: no mounts, the same bytes each time."""

import os
import subprocess
from pathlib import Path
from typing import Any

import yaml

MIB = 1024 * 1024
LAYOUT = Path(__file__).parent / "layout.yaml"


def layout() -> dict[str, Any]:
    """Return layout.yaml, with `first_mib` (where it starts) in each partition."""
    document: dict[str, Any] = yaml.safe_load(LAYOUT.read_text())
    place = document["start_mib"]
    for partition in document["partitions"]:
        partition["first_mib"] = place
        place += partition["size_mib"]
    document["size_mib"] = place
    return document


def make_fat(folder: Path, partition: dict[str, Any], epoch: int, out: Path) -> None:
    """Make a FAT32 file system that holds what is in a folder."""
    _empty(out, partition["size_mib"])
    # Clusters of 2 KiB: as large as they may be for FAT32 of this size, so that loaders and checks are quick.
    _run("mkfs.vfat", "--invariant", "-F", "32", "-s", "4", "-n", partition["label"], "-i", "d3271e01", out)
    # The date is that of folders, which mmd makes.
    environment = {"TZ": "UTC", "SOURCE_DATE_EPOCH": str(epoch)}
    for path in sorted(folder.rglob("*")):
        os.utime(path, (epoch, epoch))
        target = f"::{path.relative_to(folder)}"
        if path.is_dir():
            _run("mmd", "-i", out, target, **environment)
        else:
            _run("mcopy", "-m", "-i", out, path, target, **environment)


def make_squashfs(folder: Path, epoch: int, out: Path) -> None:
    """Make a compressed read-only file system of a folder."""
    out.unlink(missing_ok=True)
    options = ("-quiet", "-no-progress", "-no-exports", "-no-xattrs", "-processors", "2", "-b", "256K")
    _run("mksquashfs", folder, out, *options, "-comp", "zstd", "-Xcompression-level", "9",
         SOURCE_DATE_EPOCH=str(epoch))  # fmt: skip


def make_ext4(partition: dict[str, Any], epoch: int, out: Path) -> None:
    """Make an empty ext4 file system."""
    _empty(out, partition["size_mib"])
    identity = "6f9d3d6e-0000-4000-8000-00000000000"
    # resize: room to grow to 1 TiB. -i: tables for few files, which else take 3 % of a large card.
    options = f"hash_seed={identity}2,lazy_itable_init=0,lazy_journal_init=0,resize={1024 * 256 * 1024}"
    _run("mke2fs", "-q", "-F", "-t", "ext4", "-b", "4096", "-i", "65536", "-m", "1", "-L", partition["label"],
         "-U", f"{identity}1", "-E", options, out, E2FSPROGS_FAKE_TIME=str(epoch))  # fmt: skip


def make_disk(parts: dict[str, Path], out: Path) -> None:
    """Put file systems, by the name of their partition, into an image with a master boot record.

    Raises ValueError if one is larger than its partition.
    """
    plan = layout()
    out.unlink(missing_ok=True)
    _empty(out, plan["size_mib"])
    table = [f"label: dos\nlabel-id: {plan['disk_id']:#010x}"]
    for partition in plan["partitions"]:
        flag = ", bootable" if partition.get("bootable") else ""
        table.append(
            f"start={partition['first_mib']}MiB, size={partition['size_mib']}MiB, "
            f"type={partition['type']}{flag}"
        )
    subprocess.run(["sfdisk", "-q", out], input="\n".join(table), text=True, check=True)
    for partition in plan["partitions"]:
        if part := parts.get(partition["name"]):
            if part.stat().st_size > partition["size_mib"] * MIB:
                raise ValueError(f"{part.name} is larger than {partition['size_mib']} MiB: see {LAYOUT}")
            _run("dd", f"if={part}", f"of={out}", "bs=1M", f"seek={partition['first_mib']}",
                 "conv=notrunc,sparse", "status=none")  # fmt: skip


def _empty(path: Path, size_mib: int) -> None:
    with path.open("wb") as file:
        file.truncate(size_mib * MIB)


def _run(*command: object, **environment: str) -> None:
    subprocess.run(
        [str(word) for word in command], check=True, stdout=subprocess.DEVNULL, env=os.environ | environment
    )
