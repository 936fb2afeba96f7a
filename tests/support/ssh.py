"""A real sshd on the loopback, where `dertwin` is about a box in a folder."""

import contextlib
import getpass
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from bench.appliance.places import Places
from bench.appliance.system_files import ssh_server
from support.box import options
from support.service import free_port, wait_for

SSHD = "/usr/sbin/sshd"
ROOT = Path(__file__).parent.parent.parent


@contextlib.contextmanager
def ssh_to(box: Places, folder: Path, patch: pytest.MonkeyPatch, *more: str) -> Iterator[str]:
    """Yield the HOST of a box: `ssh` finds its key and its port, `sudo dertwin` there is about this box.

    `more` are more options of `dertwin` there.
    """
    if not os.path.exists(SSHD):
        pytest.skip("needs sshd")
    for name in ("host", "user"):
        subprocess.run(["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-f", folder / name], check=True)
    port, user = free_port(), getpass.getuser()
    (folder / "keys").write_text((folder / "user.pub").read_text())
    _script(folder / "bin/sudo", 'shift; exec "$@"')
    command = f"{sys.executable} -m bench.cli"
    _script(folder / "bin/dertwin", f'cd {ROOT} && exec {command} "$@" {" ".join([*options(box), *more])}')
    _script(folder / "run", f'PATH={folder}/bin:$PATH; eval "$SSH_ORIGINAL_COMMAND"')
    # As on the box, but for the name of the user, and where things are.
    ours = ssh_server(str(folder / "host"), str(folder / "keys")).replace(
        "AllowUsers bench", f"AllowUsers {user}"
    )
    ours = ours.replace("PermitRootLogin no", "PermitRootLogin prohibit-password")
    here = f"ListenAddress 127.0.0.1:{port}\nPidFile none\nStrictModes no\nForceCommand {folder}/run\n"
    (folder / "sshd_config").write_text(ours + here)
    (folder / "ssh_config").write_text(
        f"Host box\n HostName 127.0.0.1\n Port {port}\n IdentityFile {folder}/user\n IdentitiesOnly yes\n"
        f" UserKnownHostsFile {folder}/known\n StrictHostKeyChecking accept-new\n BatchMode yes\n"
    )
    _script(folder / "laptop/ssh", f'exec /usr/bin/ssh -F {folder}/ssh_config "$@"')
    patch.setenv("PATH", f"{folder}/laptop:{os.environ['PATH']}")
    if os.geteuid() == 0:
        Path("/run/sshd").mkdir(exist_ok=True)
    log = folder / "sshd.log"
    with (
        log.open("w") as stderr,
        subprocess.Popen([SSHD, "-D", "-e", "-f", folder / "sshd_config"], stderr=stderr) as server,
    ):
        try:

            def listening() -> bool:
                assert server.poll() is None, log.read_text()
                return "Server listening" in log.read_text()

            wait_for(listening, 10.0, "sshd")
            yield f"{user}@box"
        finally:
            server.terminate()


def _script(path: Path, line: str) -> None:
    path.parent.mkdir(exist_ok=True)
    path.write_text(f"#!/bin/sh\n{line}\n")
    path.chmod(0o755)
