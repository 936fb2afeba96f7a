"""Update bundles, signed with real keys, and a box with two slots to update."""

import subprocess
from pathlib import Path

from bench.appliance.bundle import make_bundle
from bench.appliance.places import Places
from support.box import make_box

SLOT_BYTES = 3 << 20
OLD, NEW = b"the old root" * 1000, b"the new root" * 150_000


def make_key(folder: Path, name: str = "update") -> Path:
    """Make a key pair and return the private one."""
    key = folder / name
    subprocess.run(["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-f", key], check=True)
    return key


def bundle(folder: Path, key: Path, version: str = "2.0.0", arch: str = "arm64", root: bytes = NEW) -> Path:
    """Return a bundle with these contents."""
    contents = {
        "root.squashfs": root,
        "boot/vmlinuz": b"the new kernel",
        "boot/initrd.img": b"the new initrd",
        "boot/cmdline.txt": b"quiet dertwin.slot=@SLOT@\n",
    }
    files = {}
    for name, data in contents.items():
        files[name] = folder / name.replace("/", "-")
        files[name].write_bytes(data)
    out = folder / f"dertwin-{version}-{arch}.bundle"
    make_bundle(out, version, arch, files, key, epoch=1_790_000_000)
    return out


def box_with_slots(folder: Path, key: Path | None, running: str = "a") -> tuple[Places, Path]:
    """Return a box of version 1.2.3, and the partition of the slot that does not run."""
    box = make_box(folder)
    (box.root / "etc").mkdir()
    (box.root / "etc/dertwin-release").write_text("VERSION=1.2.3\nARCH=arm64\n")
    if key:
        (box.root / "usr/share/dertwin").mkdir(parents=True)
        (box.root / "usr/share/dertwin/update-key.pub").write_text(Path(f"{key}.pub").read_text())
    (box.card / "boot.scr").touch()
    (box.card / "a").mkdir()
    (box.card / "a/vmlinuz").write_text("the old kernel")
    run_slot(box, running)
    partition = folder / "other-slot"
    partition.write_bytes(OLD.ljust(SLOT_BYTES, b"\0"))
    return box, partition


def run_slot(box: Places, slot: str, *more_words: str) -> None:
    """Let the box run a slot, as the boot loader tells the kernel."""
    for folder in ("proc", "run"):
        (box.root / folder).mkdir(exist_ok=True)
    words = ["quiet", f"dertwin.slot={slot}", "panic=10", *more_words]
    (box.root / "proc/cmdline").write_text(" ".join(words) + "\n")


def start(box: Places) -> str:
    """Do what image/boot/boot.cmd does, and return the slot that runs then."""
    chosen, words = "a", []
    for name, word in (("slot.txt", []), ("try.txt", ["dertwin.trial"])):
        if (file := box.card / name).exists():
            chosen, words = file.read_text().strip()[-1], word
    (box.card / "try.txt").unlink(missing_ok=True)
    run_slot(box, chosen, *words)
    return chosen
