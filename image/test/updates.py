"""Bundles to update a box with, and how they are sent."""

import os
import shlex
import subprocess
from pathlib import Path

from bench.appliance.bundle import make_bundle
from image.test.conftest import ROOT
from image.test.probes import HOST, ssh_options
from image.test.vm import Vm


def make_update(folder: Path, key: Path, slot: Path, arch: str, version: str, root: Path) -> Path:
    """Make a bundle of a slot's boot files and a root file system."""
    files = {f"boot/{path.name}": path for path in slot.iterdir()} | {"root.squashfs": root}
    bundle = folder / f"dertwin-{version}-{arch}.bundle"
    make_bundle(bundle, version, arch, files, key, epoch=0)
    return bundle


def send_update(vm: Vm, key: Path, bundle: Path, folder: Path) -> str:
    """Update the box with our own command, over SSH, and return what it says."""
    # Our command calls `ssh`: with the key and the port of the test.
    script = folder / "bin/ssh"
    script.parent.mkdir(exist_ok=True)
    script.write_text(f'#!/bin/sh\nexec /usr/bin/ssh {shlex.join(ssh_options(key))} -p {vm.ports[22]} "$@"\n')
    script.chmod(0o755)
    done = subprocess.run(
        [ROOT / ".venv/bin/dertwin", "update", bundle, f"bench@{HOST}"],
        capture_output=True, text=True, timeout=900,
        env=os.environ | {"PATH": f"{script.parent}:{os.environ['PATH']}"},
    )  # fmt: skip
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout
