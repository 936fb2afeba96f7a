"""Makes the image of the appliance: `make image [ARCH=arm64|amd64]`.

    packages/  ─► base, packages to unpack     (rootfs.make_base, fetch_unpacked: cached)
    + wheels, the program, files/             (rootfs.assemble)
    ─► initrd, boot partition, squashfs       (initrd, boot, disk)
    ─► dertwin-VERSION-ARCH.img.xz, .sha256, .packages, .cdx.json, and the update bundle

The same commit and the same cached base give the same bytes.
"""

import argparse
import hashlib
import os
import shutil
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

from bench.appliance.bundle import make_bundle
from image import boot, disk, initrd, program, rootfs, sbom
from image.inputs import PROJECT

BUILD = PROJECT / "build"


@dataclass(frozen=True)
class Made:
    """The files of one build."""

    image: Path
    bundle: Path
    packages: Path
    bill: Path


def build(arch: str, out: Path, work: Path, epoch: int, update_key: Path | None) -> Made:
    """Make everything but the compressed image, in `out`; `work` is emptied first.

    With a key there is an update bundle too, and the image takes updates that this key has signed.
    """
    os.umask(0o022)
    cache = BUILD / "cache"
    shutil.rmtree(work, ignore_errors=True)
    work.mkdir(parents=True)
    out.mkdir(parents=True, exist_ok=True)
    base = rootfs.make_base(arch, cache)
    debs = rootfs.fetch_unpacked(arch, base, cache)
    kernel = rootfs.assemble(arch, base, debs, cache, epoch, work, update_key)
    root, unpacked = work / "root", work / "unpacked"
    version = program.read_version()
    name = f"dertwin-{version}-{arch}"

    initrd.make_initrd(root, kernel, unpacked / "usr/bin/busybox", work / "initrd.img")
    slot = boot.make_slot(arch, unpacked, kernel, work / "initrd.img", work / "slot")
    boot.make_card(arch, unpacked, kernel, slot, epoch, work / "card")
    found = sbom.components(root, debs, root / program.SITE_PACKAGES)
    disk.make_squashfs(root, epoch, work / "root.squashfs")
    plan = {partition["name"]: partition for partition in disk.layout()["partitions"]}
    disk.make_fat(work / "card", plan["card"], epoch, work / "card.fat")
    disk.make_ext4(plan["data"], epoch, work / "data.ext4")

    made = Made(*(out / f"{name}{suffix}" for suffix in (".img", ".bundle", ".packages", ".cdx.json")))
    parts = {"card": work / "card.fat", "root-a": work / "root.squashfs", "data": work / "data.ext4"}
    disk.make_disk(parts, made.image)
    if update_key:
        files = {f"boot/{path.name}": path for path in slot.iterdir()} | {
            "root.squashfs": work / "root.squashfs"
        }
        make_bundle(made.bundle, version, arch, files, update_key, epoch)
    made.packages.write_text(sbom.package_list(found))
    made.bill.write_text(sbom.bill_of_materials(found, f"dertwin-{arch}", version, epoch))
    return made


def compress(image: Path) -> Path:
    """Make the file to download, and its checksum in the form that sha256sum -c reads."""
    packed = image.with_name(image.name + ".xz")
    # What fills the image is compressed already: more effort would gain nothing.
    subprocess.run(["xz", "-0", "-T2", "--keep", "--force", image], check=True)
    digest = hashlib.sha256(packed.read_bytes()).hexdigest()
    packed.with_name(packed.name + ".sha256").write_text(f"{digest}  {packed.name}\n")
    return packed


def commit_time() -> int:
    """Return SOURCE_DATE_EPOCH, or else when the last commit was made (s since 1970)."""
    if given := os.environ.get("SOURCE_DATE_EPOCH"):
        return int(given)
    command = ["git", "-C", str(PROJECT), "log", "-1", "--format=%ct"]
    return int(subprocess.run(command, capture_output=True, text=True, check=True).stdout)


def main() -> int:
    """Build the image of one architecture."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--arch", choices=sorted(program.MACHINES), default="arm64")
    options = parser.parse_args()
    if os.geteuid() != 0:
        print("an image is built as root: sudo make image", file=sys.stderr)
        return 1
    named = os.environ.get("UPDATE_KEY")
    made = build(
        options.arch, BUILD, BUILD / f"work-{options.arch}", commit_time(), Path(named) if named else None
    )
    print(compress(made.image))
    return 0


if __name__ == "__main__":
    sys.exit(main())
