"""A memory card, which a laptop can edit while no machine runs from it."""

import json
import os
import subprocess
from pathlib import Path

from image import disk


class Card:
    """A memory card: a copy of the image that a laptop can edit while no machine runs from it."""

    def __init__(self, image: Path, folder: Path, size: str = "2G") -> None:
        """Copy the image onto a card of that size."""
        folder.mkdir(parents=True, exist_ok=True)
        self.folder = folder
        self.path = folder / "card.img"
        self.fat = f"{self.path}@@{disk.layout()['partitions'][0]['first_mib']}M"
        subprocess.run(["cp", "--sparse=always", image, self.path], check=True)
        subprocess.run(["truncate", "-s", size, self.path], check=True)

    def write(self, path: str, text: str) -> None:
        """Put a file on the FAT partition."""
        self.put(path, text.encode())

    def put(self, path: str, data: bytes) -> None:
        """Put the bytes of a file on the FAT partition."""
        subprocess.run(["mcopy", "-o", "-i", self.fat, "-", f"::{path}"], input=data, check=True)

    def remove(self, path: str) -> None:
        """Remove a file from the FAT partition."""
        self._tool("mdel", f"::{path}")

    def names(self) -> str:
        """Return the listing of the FAT partition's top folder."""
        listed = ["mdir", "-b", "-i", self.fat, "::"]
        return subprocess.run(listed, capture_output=True, text=True, check=True).stdout

    def spoil(self, name: str, first_byte: int, data: bytes) -> None:
        """Overwrite bytes of a partition."""
        start = next(each for each in disk.layout()["partitions"] if each["name"] == name)["first_mib"]
        with self.path.open("r+b") as file:
            file.seek(start * disk.MIB + first_byte)
            file.write(data)

    def copy_slot(self, source: str, target: str, *words: str) -> None:
        """Make the boot files of a slot those of the other one too, with more words for its kernel."""
        self._tool("mmd", f"::{target}")
        for name in ("vmlinuz", "initrd.img"):
            self.put(f"{target}/{name}", self.fetch(f"{source}/{name}"))
        line = self.fetch(f"{source}/cmdline.txt").decode().replace(f"slot={source}", f"slot={target}")
        self.put(f"{target}/cmdline.txt", " ".join([line.strip(), *words, "\n"]).encode())

    def next_start(self) -> tuple[str, str]:
        """Return the slot that starts next, with its kernel's command line, as the boot script does.

        One to be tried is so only once.
        """
        tried = subprocess.run(["mtype", "-i", self.fat, "::try.txt"], capture_output=True, text=True)
        if tried.returncode == 0:
            self.remove("try.txt")
        text = tried.stdout if tried.returncode == 0 else self.fetch("slot.txt").decode()
        slot = text.strip().removeprefix("slot=")
        line = self.fetch(f"{slot}/cmdline.txt").decode()
        return slot, f"{line} dertwin.trial" if tried.returncode == 0 else line

    def fetch(self, path: str) -> bytes:
        """Return the bytes of a file of the FAT partition."""
        return subprocess.run(["mtype", "-i", self.fat, f"::{path}"], capture_output=True, check=True).stdout

    def partition(self, name: str) -> Path:
        """Copy a partition out of the card, as long as its table says, and return the copy."""
        table = json.loads(
            subprocess.run(["sfdisk", "--json", self.path], capture_output=True, check=True).stdout
        )
        names = [each["name"] for each in disk.layout()["partitions"]]
        entry = table["partitiontable"]["partitions"][names.index(name)]
        out = self.folder / f"{name}.part"
        out.unlink(missing_ok=True)
        with self.path.open("rb") as source, out.open("wb") as target:
            source.seek(entry["start"] * 512)
            for _ in range(entry["size"] * 512 // disk.MIB):
                block = source.read(disk.MIB)
                target.write(block) if block.strip(b"\0") else target.seek(disk.MIB, os.SEEK_CUR)
            target.truncate(entry["size"] * 512)
        return out

    def _tool(self, program: str, path: str) -> None:
        subprocess.run([program, "-i", self.fat, path], check=True)
