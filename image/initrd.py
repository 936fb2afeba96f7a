"""The initrd: a static shell, the modules that lead to the root file system, and initrd/init.

Made on the build host; nothing of the target is run, so it takes seconds whatever the architecture.
"""

import gzip
import lzma
import re
import subprocess
from dataclasses import dataclass
from pathlib import Path

HERE = Path(__file__).parent
# What initrd/init calls; /sbin/modprobe the kernel too, e.g. for the checksums of ext4.
APPLETS = {
    "bin": "blockdev cat dd find mkdir mount mv od reboot rm sh sleep sort sync tr umount",
    "sbin": "chroot modprobe switch_root xargs",
}
FOLDERS = ("dev", "proc", "run", "sys", "sysroot")
FILE, EXECUTABLE, LINK, FOLDER, CONSOLE = 0o100644, 0o100755, 0o120777, 0o040755, 0o020600


@dataclass(frozen=True)
class Entry:
    """One file of the archive: its mode with the type, and what is in it."""

    mode: int
    data: bytes = b""


def make_initrd(root: Path, kernel: str, busybox: Path, out: Path) -> None:
    """Write the initrd for a root file system with the modules of that kernel version."""
    entries = _modules(root / "usr/lib/modules" / kernel, f"lib/modules/{kernel}")
    entries["init"] = Entry(EXECUTABLE, (HERE / "initrd/init").read_bytes())
    entries["bin/busybox"] = Entry(EXECUTABLE, busybox.read_bytes())
    for folder, applets in APPLETS.items():
        for applet in applets.split():
            entries[f"{folder}/{applet}"] = Entry(LINK, b"/bin/busybox")
    entries["dev/console"] = Entry(CONSOLE)
    for folder in FOLDERS:
        entries[folder] = Entry(FOLDER)
    for name in list(entries):
        for parent in Path(name).parents:
            if parent.name:
                entries.setdefault(str(parent), Entry(FOLDER))
    packed = subprocess.run(
        ["zstd", "-q", "-19", "-T1", "-c"], input=_archive(entries), stdout=subprocess.PIPE, check=True
    )
    out.write_bytes(packed.stdout)


def _modules(folder: Path, inside: str) -> dict[str, Entry]:
    """Return the modules of modules.txt with those that they need, and the tables that modprobe reads."""
    needs = {
        path: needed.split()
        for path, _, needed in (line.partition(":") for line in (folder / "modules.dep").open())
    }
    paths = {_name(path): path for path in needs}
    wanted = [
        word for line in (HERE / "initrd/modules.txt").open() for word in line.partition("#")[0].split()
    ]
    taken: dict[str, list[str]] = {}
    for word in wanted:
        if path := paths.get(word.replace("-", "_")):  # else it is built in, or of another architecture
            taken |= {each: needs[each] for each in [*needs[path], path]}
    names = {_name(path) for path in taken}
    entries = {f"{inside}/{_plain(path)}": Entry(FILE, _read(folder / path)) for path in taken}
    table = "".join(
        f"{_plain(path)}: {' '.join(map(_plain, needed))}\n" for path, needed in sorted(taken.items())
    )
    aliases = "".join(
        line for line in (folder / "modules.alias").open() if line.split()[-1].replace("-", "_") in names
    )
    entries[f"{inside}/modules.dep"] = Entry(FILE, table.encode())
    entries[f"{inside}/modules.alias"] = Entry(FILE, aliases.encode())
    return entries


def _plain(path: str) -> str:
    return re.sub(r"\.(xz|zst|gz)$", "", path)


def _name(path: str) -> str:
    return Path(_plain(path)).stem.replace("-", "_")


def _read(path: Path) -> bytes:
    data = path.read_bytes()
    if path.suffix == ".xz":
        return lzma.decompress(data)
    if path.suffix == ".gz":
        return gzip.decompress(data)
    if path.suffix == ".zst":
        return subprocess.run(["zstd", "-dcq"], input=data, stdout=subprocess.PIPE, check=True).stdout
    return data


def _archive(entries: dict[str, Entry]) -> bytes:
    """Return a cpio archive in the format that the kernel unpacks (newc), with no dates and no owners."""
    records = [
        _record(name, entry, number) for number, (name, entry) in enumerate(sorted(entries.items()), start=1)
    ]
    data = b"".join([*records, _record("TRAILER!!!", Entry(0), 0)])
    return data + bytes(-len(data) % 512)


def _record(name: str, entry: Entry, number: int) -> bytes:
    device = (5, 1) if entry.mode == CONSOLE else (0, 0)
    path = name.encode() + b"\0"
    fields = (number, entry.mode, 0, 0, 1, 0, len(entry.data), 0, 0, *device, len(path), 0)
    head = b"070701" + b"".join(b"%08X" % field for field in fields) + path
    head += bytes(-len(head) % 4)
    return head + entry.data + bytes(-len(entry.data) % 4)
