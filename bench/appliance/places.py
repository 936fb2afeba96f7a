"""Where things are on the box: the card that a laptop can edit, the data partition, the root file system."""

import fcntl
import os
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import NamedTuple


class Places(NamedTuple):
    """The three file systems of an appliance; tests point them elsewhere."""

    card: Path = Path("/boot/card")
    data: Path = Path("/data")
    root: Path = Path("/")

    @property
    def user_files(self) -> Path:
        """Return the folder on the card that is the user's to edit."""
        return self.card / "dertwin"

    @property
    def settings(self) -> Path:
        """Return the file with the box's settings."""
        return self.user_files / "bench.yaml"

    @property
    def sites(self) -> Path:
        """Return the folder in which good sites are kept."""
        return self.data / "sites"

    @property
    def incoming(self) -> Path:
        """Return the folder into which a site may be copied over SSH, as `site.json` or `site.yaml`."""
        return self.data / "incoming"

    @property
    def served(self) -> Path:
        """Return the folder that the service reads."""
        return self.root / "etc/dertwin"

    @property
    def live(self) -> bool:
        """Tell whether this is about the running system, and not a folder that looks like one."""
        return self.root == Path("/")


@contextmanager
def writable(card: Path) -> Iterator[None]:
    """Let one at a time write the card, which is mounted read-only otherwise: power may go at any time.

    Raises OSError if it cannot be written.
    """
    folder = os.open(card, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        fcntl.flock(folder, fcntl.LOCK_EX)
        if not os.path.ismount(card):
            yield
            return
        _remount(card, "rw,async")  # what must be on the card at once is waited for by its writer
        try:
            yield
        finally:
            os.sync()
            _remount(card, "ro")
    finally:
        os.close(folder)


@contextmanager
def as_user(uid: int, gid: int) -> Iterator[None]:
    """Have a user's rights instead of root's: what he wants read may be a link to the files of others."""
    if os.geteuid() != 0 or uid == 0:
        yield
        return
    groups, group = os.getgroups(), os.getegid()
    os.setgroups([gid])
    os.setegid(gid)
    os.seteuid(uid)
    try:
        yield
    finally:
        os.seteuid(0)
        os.setegid(group)
        os.setgroups(groups)


def _remount(card: Path, mode: str) -> None:
    done = subprocess.run(
        ["mount", "-o", f"remount,{mode}", str(card)], capture_output=True, text=True, check=False
    )
    if done.returncode:
        raise OSError(f"{card} cannot be mounted {mode}: {done.stderr.strip()}")
