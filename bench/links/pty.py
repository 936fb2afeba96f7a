"""Virtual serial lines: a pair of pseudo-terminals joined by socat."""

import asyncio
import contextlib
import ctypes
import fcntl
import os
import signal
import sys
from collections.abc import AsyncIterator, Callable

from bench.links.link import LinkDown
from dertwin.config_links import client_end, pair_path
from dertwin.port_match import PortMatch

APPEAR_TIMEOUT_S = 3.0
_PR_SET_PDEATHSIG = 1


def served_path(port: str | PortMatch) -> str:
    """Return where our end of the virtual pair for a port of the config is made.

    A system service, whose /tmp is its own, has a folder in /run for what clients open (systemd sets
    RUNTIME_DIRECTORY).
    """
    path, folder = pair_path(port), os.environ.get("RUNTIME_DIRECTORY")
    return os.path.join(folder, os.path.basename(path)) if folder and path != port else path


@contextlib.asynccontextmanager
async def virtual_pair(path: str) -> AsyncIterator[None]:
    """Run socat between `path` and its client end; both are gone when the context ends.

    Raises LinkDown when socat is missing, fails, another program serves on `path`, or something
    that is no virtual port is in the way.
    """
    ends = (path, client_end(path))
    for end in ends:
        if "," in end or ":" in end or "!" in end:
            raise LinkDown(f"{end}: a virtual pair's path must not contain ',', ':' or '!'")
        if os.path.lexists(end) and not _is_virtual_port(end):
            raise LinkDown(f"{end} exists and is not a virtual port; move it away or choose another port")
    if _is_locked(path):
        raise LinkDown(f"{path}: in use by another program")
    _unlink_virtual_ports(ends)
    try:
        socat = await _start_socat(ends)
        try:
            await _wait_until_linked(socat, ends)
            yield
        finally:
            with contextlib.suppress(ProcessLookupError):
                socat.terminate()
            await socat.communicate()
    finally:
        # If it was killed, as it is when given up while it starts: another terminal may get the number that
        # the links still point to.
        _unlink_virtual_ports(ends)


async def _start_socat(ends: tuple[str, str]) -> asyncio.subprocess.Process:
    try:
        return await asyncio.create_subprocess_exec(
            "socat",
            f"pty,rawer,link={ends[0]}",
            # As open to all as a TCP port: clients run as other users than a system service.
            f"pty,rawer,mode=0666,link={ends[1]}",
            stdin=asyncio.subprocess.DEVNULL,
            stderr=asyncio.subprocess.PIPE,
            # Else it would go on serving a dead line.
            preexec_fn=die_with_parent(),
        )
    except FileNotFoundError as error:
        raise LinkDown("socat is not installed; install the package socat") from error


def _is_virtual_port(path: str) -> bool:
    return os.path.islink(path) and os.readlink(path).startswith("/dev/pts/")


def _unlink_virtual_ports(ends: tuple[str, str]) -> None:
    for end in ends:
        if _is_virtual_port(end):
            os.unlink(end)


def _is_locked(path: str) -> bool:
    """Tell whether a program has locked a port for itself, as we do and pyserial can."""
    try:
        fd = os.open(path, os.O_RDWR | os.O_NOCTTY | os.O_NONBLOCK)
    except OSError:
        return False
    try:
        fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return True
    finally:
        os.close(fd)
    return False


async def _wait_until_linked(socat: asyncio.subprocess.Process, ends: tuple[str, str]) -> None:
    for _ in range(int(APPEAR_TIMEOUT_S / 0.01)):
        if socat.returncode is not None:
            _, stderr = await socat.communicate()
            # Only what went wrong: the rest has the time and numbers that differ at each attempt.
            reason = stderr.decode(errors="replace").strip().rpartition(": ")[2]
            raise LinkDown(f"{ends[0]}: socat failed: {reason or socat.returncode}")
        if all(os.path.exists(end) for end in ends):
            return
        await asyncio.sleep(0.01)
    raise LinkDown(f"{ends[0]}: socat did not make it within {APPEAR_TIMEOUT_S:g} s")


def die_with_parent() -> Callable[[], None] | None:
    """Return what ends a program that we start when this process is killed, to call before it begins."""
    if sys.platform != "linux":
        return None
    prctl = ctypes.CDLL(None).prctl
    return lambda: prctl(_PR_SET_PDEATHSIG, signal.SIGTERM)
