"""The service under a real systemd: an overlay of this machine, booted by systemd-nspawn in some 3 s."""

import contextlib
import fcntl
import json
import os
import shutil
import subprocess
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import pytest

from support.service import wait_for

ROOT = Path(__file__).parent.parent.parent
# Nothing of what this machine starts itself: the journal, the sockets, and what a test starts.
TARGET = "basic.target"
PREFIX = "/usr"
OWN_CONFIG = "{}"


class Container:
    """A running systemd; its root folder as seen from here is `root`."""

    def __init__(self, root: Path, leader: int) -> None:
        self.root = root
        self._leader = str(leader)

    @property
    def runs(self) -> bool:
        """Tell whether it has not ended, or been restarted, yet."""
        return os.path.exists(f"/proc/{self._leader}")

    def run(self, *command: str, check: bool = True) -> str:
        """Run a command inside and return what it prints."""
        enter = ("nsenter", "-t", self._leader, "-m", "-u", "-i", "-n", "-p", "-C", "--")
        done = subprocess.run([*enter, *command], capture_output=True, text=True, timeout=60)
        assert done.returncode == 0 or not check, (command, done.stdout, done.stderr)
        return done.stdout

    def show(self, unit: str) -> dict[str, str]:
        """Return the properties of a unit."""
        return dict(line.split("=", 1) for line in self.run("systemctl", "show", unit).splitlines())

    def journal(self, *match: str) -> list[dict[str, Any]]:
        """Return the journal's entries that match."""
        self.run("journalctl", "--sync")
        printed = self.run("journalctl", "-o", "json", "--no-pager", "--all", *match)
        return [json.loads(line) for line in printed.splitlines()]

    def ask(self, port: int, pdu: bytes) -> bytes:
        """Make a Modbus TCP request to an address of the container; empty if nobody listens."""
        script = (
            "import sys; from support.tcp import ask\n"
            "try: print(ask(int(sys.argv[1]), bytes.fromhex(sys.argv[2])).hex())\n"
            "except ConnectionRefusedError: pass"
        )
        command = ["nsenter", "-t", self._leader, "-n", sys.executable, "-c", script, str(port), pdu.hex()]
        environment = os.environ | {"PYTHONPATH": str(ROOT / "tests")}
        done = subprocess.run(
            command, capture_output=True, text=True, timeout=60, env=environment, check=True
        )
        return bytes.fromhex(done.stdout.strip())


def skip_without_container() -> None:
    """Skip a test on a machine that cannot boot a container."""
    if os.geteuid() != 0:
        pytest.skip("needs root")
    for tool in ("systemd-nspawn", "nsenter", "make"):
        if shutil.which(tool) is None:
            pytest.skip(f"needs {tool}")
    if not os.path.exists("/usr/lib/systemd/systemd"):
        pytest.skip("needs systemd")


def install(factory: pytest.TempPathFactory) -> Path:
    """Return a folder in which `make install` has put the service; all test processes share it."""
    skip_without_container()
    worker = os.environ.get("PYTEST_XDIST_WORKER")
    folder = (factory.getbasetemp().parent if worker else factory.getbasetemp()) / "installed"
    folder.mkdir(exist_ok=True)
    with (folder.with_suffix(".lock")).open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        if not (done := folder.with_suffix(".done")).exists():
            config = folder / "etc/dertwin/site.json"
            config.parent.mkdir(parents=True)
            config.write_text(OWN_CONFIG)
            make(folder, "install")
            done.touch()
    return folder


def make(folder: Path, target: str) -> None:
    """Run `make install` or `make uninstall` for a folder."""
    command = ["make", "-C", ROOT, target, f"DESTDIR={folder}", f"PREFIX={PREFIX}"]
    done = subprocess.run(command, capture_output=True, text=True, timeout=110)
    assert done.returncode == 0, done.stdout + done.stderr


@contextlib.contextmanager
def container(installed: Path, folder: Path) -> Iterator[Container]:
    """Boot a copy of this machine with the service installed."""
    upper = folder / "upper"
    shutil.copytree(installed, upper, symlinks=True)
    with booted(Path("/"), folder, TARGET) as inside:
        # What `make install` does itself where the host is not a folder.
        inside.run("systemd-sysusers")
        inside.run("systemd-tmpfiles", "--create", "/usr/lib/tmpfiles.d/dertwin.conf")
        yield inside


@contextlib.contextmanager
def booted(
    below: Path, folder: Path, target: str, *options: str, words: Sequence[str] = ()
) -> Iterator[Container]:
    """Boot a root file system, with folder/upper laid over it, to a systemd target; nothing of it changes.

    `words` are what systemd finds on the kernel's command line.
    """
    skip_without_container()
    upper, work, root = folder / "upper", folder / "work", folder / "root"
    for each in (upper, work, root):
        each.mkdir(exist_ok=True)
    layers = f"lowerdir={below},upperdir={upper},workdir={work}"
    mounted = subprocess.run(
        ["mount", "-t", "overlay", "overlay", "-o", layers, root], capture_output=True, text=True
    )
    if mounted.returncode:
        pytest.skip(f"cannot lay a folder over {below}: {mounted.stderr}")
    try:
        yield from _boot(root, folder / "nspawn.log", options, [f"--unit={target}", *words], target)
    finally:
        subprocess.run(["umount", root], check=True)


def _boot(
    root: Path, log_file: Path, options: Sequence[str], words: Sequence[str], target: str
) -> Iterator[Container]:
    nspawn = [
        *("systemd-nspawn", "-q", "-D", str(root), "--register=no", "--keep-unit", "--private-network"),
        *(*options, "--kill-signal=SIGRTMIN+3", "--console=pipe", "--boot", "--", *words),
    ]
    with (
        log_file.open("w") as log,
        subprocess.Popen(nspawn, stdin=subprocess.DEVNULL, stdout=log, stderr=log) as process,
    ):
        try:
            children = Path(f"/proc/{process.pid}/task/{process.pid}/children")

            def leader() -> int:
                assert process.poll() is None, log_file.read_text()
                # The first child only prepares the container.
                names = {pid: Path(f"/proc/{pid}/comm") for pid in children.read_text().split()}
                return next((int(pid) for pid, name in names.items() if _text(name) == "systemd\n"), 0)

            inside = Container(root, wait_for(leader, 20.0, "the container"))

            def reached() -> bool:
                return "active" in inside.run("systemctl", "is-active", target, check=False).split()

            wait_for(reached, 60.0, target)
            yield inside
        finally:
            process.terminate()
            try:
                process.wait(20.0)
            except subprocess.TimeoutExpired:
                process.kill()


def _text(path: Path) -> str:
    try:
        return path.read_text()
    except OSError:
        return ""
