"""Writes files so that a power cut at any moment leaves the old one or the new one, whole."""

import os
from pathlib import Path


def replace_file(path: Path, data: bytes, mode: int = 0o644) -> None:
    """Put data in the place of a file, or make it. Raises OSError."""
    temporary = path.with_name(f"{path.name}.new")
    write_through(temporary, data, mode)
    os.replace(temporary, path)
    sync_folder(path.parent)


def write_through(path: Path, data: bytes, mode: int = 0o644) -> None:
    """Write a file and wait until the disk has it; its name may still be lost. Raises OSError."""
    file = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC, mode)
    try:
        rest = memoryview(data)
        while rest:
            rest = rest[os.write(file, rest) :]
        os.fsync(file)
    finally:
        os.close(file)


def sync_folder(folder: Path) -> None:
    """Wait until the disk has the names in a folder. Raises OSError."""
    opened = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        os.fsync(opened)
    finally:
        os.close(opened)


def reason(error: OSError) -> str:
    """Return in words what was not possible, with the file if it was about one."""
    return f"{error.filename}: {error.strerror}" if error.filename and error.strerror else str(error)
