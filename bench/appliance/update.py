"""`dertwin update`: writes a bundle to the slot that does not run, and lets the box try it once."""

import fcntl
import hashlib
import os
import re
import shutil
import subprocess
import sys
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import IO

from bench.appliance.boot import PARTITIONS, BootSlots, boot_slots, other
from bench.appliance.bundle import CHUNK_BYTES, ROOT_IMAGE, BadBundle, Bundle, Manifest
from bench.appliance.identity import release, slot
from bench.appliance.places import Places, writable
from bench.appliance.remote import over_ssh
from bench.appliance.trial import READY_S, Update, on_trial
from bench.files import sync_folder

PUBLIC_KEY = "usr/share/dertwin/update-key.pub"
_BLKGETSIZE64, _BLKFLSBUF = 0x80081272, 0x1261


def update(places: Places, file: str, host: str | None, partition: Path | None = None) -> int:
    """Update a box from a bundle, `-` for standard input; `partition` is the other slot's, if not the usual.

    Returns the exit status. Raises OSError, and BadBundle for what is no bundle for this box; the slot
    that runs stays what is booted then.
    """
    if host:
        with open(file, "rb") as stream:
            return over_ssh(host, ["update", "-"], stream)
    slots, target = _slots(places)
    partition = partition or _partition(places, PARTITIONS[target])
    with _only_one(partition) as device:
        if file == "-":
            manifest = install(places, sys.stdin.buffer, slots, target, device)
        else:
            with open(file, "rb") as stream:
                manifest = install(places, stream, slots, target, device)
    Update(version=manifest.version, slot=target).save(places)
    with writable(places.card):
        slots.try_once(target)
    print(
        f"{manifest.version} is in slot {target}, which is tried now. It is kept once its service has been"
        f" ready for {READY_S:.0f} s; otherwise the next start is the version that runs now. See status.txt.",
        flush=True,
    )
    if places.live:
        subprocess.run(["systemctl", "--no-block", "reboot"], check=True, capture_output=True, text=True)
    return 0


def _slots(places: Places) -> tuple[BootSlots, str]:
    """Return the slots as the loader has them, and the one to write. Raises BadBundle where there is none."""
    running = slot(places)
    if not running:
        raise BadBundle("this is no appliance with two slots; say which one is to be updated: HOST")
    slots = boot_slots(places.card)
    if slots is None:
        raise BadBundle("the boot loader of this box cannot try a slot; write a new image to the card")
    if on_trial(places):
        raise BadBundle("the last update is still on trial; wait until status.txt says that it was kept")
    return slots, other(running)


def install(places: Places, stream: IO[bytes], slots: BootSlots, target: str, device: int) -> Manifest:
    """Write a bundle to a slot, its root to an open device, its boot files to the card, and read all back.

    Nothing is written before signature, version and sizes are known to be good. Raises BadBundle, OSError.
    """
    bundle = Bundle(stream, places.root / PUBLIC_KEY)
    folder = places.card / target
    _check(bundle.manifest, places, device, folder)
    with writable(places.card):
        slots.cancel()
        if slots.usual == target:  # the loader could not start it, and came to the slot that runs
            slots.keep(other(target))
        shutil.rmtree(folder, ignore_errors=True)
        folder.mkdir()
        sync_folder(places.card)
    for name, chunks in bundle.members():
        if name == ROOT_IMAGE:
            _write_root(device, chunks)
        else:
            with writable(places.card):
                _write_boot_file(folder / name.removeprefix("boot/"), chunks, target)
    return bundle.manifest


def _check(manifest: Manifest, places: Places, device: int, folder: Path) -> None:
    facts = release(places)
    if manifest.arch != facts.get("ARCH"):
        raise BadBundle(
            f"it is for {manifest.arch}, and this box is {facts.get('ARCH')}; get the one for that"
        )
    if _release(manifest.version) < _release(facts.get("VERSION", "")):
        message = f"it has {manifest.version}, which is older than {facts['VERSION']} that runs here"
        raise BadBundle(f"{message}; to go back, write an image to the card")
    room, needed = os.lseek(device, 0, os.SEEK_END), manifest.files[ROOT_IMAGE].size
    if needed > room:
        raise BadBundle(f"its root file system has {needed >> 20} MiB, and the slot {room >> 20} MiB")
    old = sum(path.stat().st_size for path in folder.glob("*")) if folder.is_dir() else 0
    space = os.statvfs(places.card)
    room = space.f_bavail * space.f_frsize + old
    if manifest.boot_bytes > room:
        message = (
            f"its boot files have {manifest.boot_bytes >> 20} MiB, and the card has {room >> 20} MiB left"
        )
        raise BadBundle(f"{message}; take files off the card")


def _release(version: str) -> list[int]:
    """Return the numbers of a version, without what follows them."""
    found = re.match(r"[\d.]*", version)
    return [int(number) for number in found[0].split(".") if number] if found else []


def _write_root(device: int, chunks: Iterable[bytes]) -> None:
    os.lseek(device, 0, os.SEEK_SET)
    _write(device, chunks)


def _write_boot_file(path: Path, chunks: Iterable[bytes], target: str) -> None:
    if path.name == "cmdline.txt":
        chunks = [b"".join(chunks).replace(b"@SLOT@", target.encode())]
    file = os.open(path, os.O_RDWR | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC, 0o644)
    try:
        _write(file, chunks)
    finally:
        os.close(file)
    sync_folder(path.parent)


def _write(file: int, chunks: Iterable[bytes]) -> None:
    """Write to a file or device from where it is, and compare with what the disk has then. Raises OSError."""
    start, written, size = os.lseek(file, 0, os.SEEK_CUR), hashlib.sha256(), 0
    for chunk in chunks:
        written.update(chunk)
        size += len(chunk)
        rest = memoryview(chunk)
        while rest:
            rest = rest[os.write(file, rest) :]
    os.fsync(file)
    # Not what memory has kept of it.
    os.posix_fadvise(file, 0, 0, os.POSIX_FADV_DONTNEED)
    os.lseek(file, start, os.SEEK_SET)
    found = hashlib.sha256()
    while size and (chunk := os.read(file, min(size, CHUNK_BYTES))):
        found.update(chunk)
        size -= len(chunk)
    if found.digest() != written.digest():
        raise OSError("what was written reads back differently: the card is worn out; use a new one")


@contextmanager
def _only_one(partition: Path) -> Iterator[int]:
    """Open the partition of a slot, which nobody else may use. Raises OSError."""
    # With O_EXCL the kernel refuses a partition that is mounted.
    device = os.open(partition, os.O_RDWR | os.O_EXCL | os.O_CLOEXEC)
    try:
        try:
            fcntl.flock(device, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise BadBundle("another update is being written; wait until it is done") from None
        yield device
    finally:
        os.close(device)


def _partition(places: Places, number: int) -> Path:
    """Return the partition of a number on the disk that the card is part of. Raises BadBundle."""
    for line in (places.root / "proc/self/mountinfo").read_text().splitlines():
        fields = line.split()
        if fields[4] == str(places.card):
            disk = (places.root / "sys/dev/block" / fields[2]).resolve().parent
            for found in disk.glob("*/partition"):
                if found.read_text().strip() == str(number):
                    return places.root / "dev" / found.parent.name
    raise BadBundle(f"the disk of {places.card} has no partition {number}; write a new image to the card")
