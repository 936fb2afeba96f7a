"""Who a box is: a name and an SSH host key that no other box has, and the software on it."""

import hashlib
import os
import subprocess
from collections.abc import Iterator
from pathlib import Path
from uuid import UUID

from bench.appliance.places import Places
from bench.files import sync_folder
from dertwin import __version__

TRIAL = "dertwin.trial"
"""The word for the kernel by which the boot loader tells that it tries a slot."""


def unique_name(places: Places) -> str:
    """Return dertwin- and four characters that stay the same for this hardware, or else for this card."""
    digest = hashlib.sha256(next(_serial_numbers(places.root)).encode()).hexdigest()
    return f"dertwin-{digest[:4]}"


def _serial_numbers(root: Path) -> Iterator[str]:
    """Yield what tells this box from others, the surest first; all is known before any driver is loaded."""
    if serial := _text(root / "proc/device-tree/serial-number").strip("\0 \n"):
        yield serial
    if _is_of_one_machine(identifier := _text(root / "sys/class/dmi/id/product_uuid").strip()):
        yield identifier
    yield _text(root / "etc/machine-id") or "unknown"


def _is_of_one_machine(identifier: str) -> bool:
    """Tell a UUID from the placeholders that cheap PCs have, such as 03000200-0400-0500-0006-000700080009."""
    try:
        return UUID(identifier).version is not None
    except ValueError:
        return False


def keep_host_key(places: Places) -> Path:
    """Return the SSH host key, which is made at the first boot and stays; without a disk, until the next.

    Raises OSError or CalledProcessError if there can be none.
    """
    try:
        return _host_key(places.data / "ssh")
    except (OSError, subprocess.CalledProcessError):
        return _host_key(places.root / "run/dertwin-ssh")


def _host_key(folder: Path) -> Path:
    key, new = folder / "ssh_host_ed25519_key", folder / "new"
    # What a broken disk has left of a key would keep the SSH server from starting.
    if key.exists() and not subprocess.run(["ssh-keygen", "-y", "-f", key], capture_output=True).returncode:
        return key
    folder.mkdir(mode=0o700, parents=True, exist_ok=True)
    for left_over in (new, folder / "new.pub"):
        left_over.unlink(missing_ok=True)
    command = ["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-C", "", "-f", str(new)]
    subprocess.run(command, check=True, capture_output=True, text=True)
    for name in (new, folder / "new.pub"):
        with name.open("rb") as file:
            os.fsync(file.fileno())
    os.replace(folder / "new.pub", f"{key}.pub")
    os.replace(new, key)
    sync_folder(folder)
    return key


def version(places: Places) -> str:
    """Return what runs here in words: version, and architecture and slot of an appliance."""
    facts = release(places)
    running = slot(places)
    about = [facts.get("ARCH", ""), f"slot {running}" if running else ""]
    told = ", ".join(filter(None, about))
    return f"dertwin {facts.get('VERSION', __version__)}" + (f" ({told})" if told else "")


def release(places: Places) -> dict[str, str]:
    """Return what the image says of itself: VERSION and ARCH; nothing where there is no image."""
    lines = _text(places.root / "etc/dertwin-release").splitlines()
    pairs = (line.partition("=") for line in lines)
    return {name.strip(): value.strip().strip('"') for name, equals, value in pairs if equals}


def slot(places: Places) -> str:
    """Return the slot of the root file system that runs, `a` or `b`; empty where there are none."""
    words = _text(places.root / "proc/cmdline").split()
    return next((word[-1] for word in words if word in ("dertwin.slot=a", "dertwin.slot=b")), "")


def tried_once(places: Places) -> bool:
    """Tell whether the boot loader started the slot that runs for once only."""
    return TRIAL in _text(places.root / "proc/cmdline").split()


def _text(path: Path) -> str:
    try:
        return path.read_text(errors="replace")
    except OSError:
        return ""
