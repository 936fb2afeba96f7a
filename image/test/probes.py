"""Questions to a bench: over HTTP from inside, over Modbus with a client that others wrote, over SSH."""

import contextlib
import json
import re
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from image.test.vm import PATIENCE_S, Vm, wait_for

HOST = "127.0.0.1"


def http(vm: Vm, path: str) -> str:
    """Return what the service answers on its status port, asked on the box itself; empty if it does not."""
    request = f"GET {path} HTTP/1.0\\r\\n\\r\\n"
    script = f"exec 3<>/dev/tcp/127.0.0.1/9555 && printf '{request}' >&3 && cat <&3"
    answer = vm.run(f'bash -c "{script}" 2>/dev/null', check=False)
    return answer.partition("\n\n")[2] if " 200 " in answer.partition("\n")[0] else ""


def status(vm: Vm) -> dict[str, Any]:
    """Return the service's status; empty while it does not answer."""
    answer = http(vm, "/status")
    return dict(json.loads(answer)) if answer else {}


def wait_until_started(vm: Vm) -> None:
    """Wait for the service to say that it is ready, by the start that is under way: asking takes time too."""
    vm.run("systemctl start dertwin.service", limit_s=PATIENCE_S)


def wait_until_ready(vm: Vm) -> None:
    """Wait until the service says that all it serves is up."""
    wait_until_started(vm)
    wait_for("readiness", lambda: http(vm, "/readyz"))


def wait_for_site(vm: Vm, name: str) -> None:
    """Wait until the service runs a site of that name."""
    wait_until_started(vm)
    wait_for(f"the site {name}", lambda: status(vm).get("site") == name)


def read_tcp(vm: Vm, port: int, unit_id: int, address: int, count: int) -> list[int]:
    """Read input registers over TCP with mbpoll; nothing if there is no answer."""
    return _mbpoll("-m", "tcp", "-p", str(vm.ports[port]), "-a", str(unit_id), *_what(address, count), HOST)


def read_rtu(line: Path, unit_id: int, address: int, count: int) -> list[int]:
    """Read input registers over a serial line with mbpoll; nothing if there is no answer."""
    settings = ("-m", "rtu", "-b", "19200", "-P", "none")
    return _mbpoll(*settings, "-a", str(unit_id), *_what(address, count), str(line))


def _what(address: int, count: int) -> list[str]:
    return ["-0", "-t", "3", "-r", str(address), "-c", str(count), "-1", "-q", "-o", "5"]


def _mbpoll(*words: str) -> list[int]:
    done = subprocess.run(["mbpoll", *words], capture_output=True, text=True, timeout=60)
    return [int(value) & 0xFFFF for value in re.findall(r"^\[\d+\]:\s+(-?\d+)", done.stdout, re.MULTILINE)]


@contextlib.contextmanager
def wire(adapter: Path, name: Path) -> Iterator[Path]:
    """Give an adapter's other end the form of a serial port, for programs that want one."""
    name.unlink(missing_ok=True)
    with subprocess.Popen(
        ["socat", f"UNIX-CONNECT:{adapter}", f"PTY,raw,echo=0,link={name}"], stderr=subprocess.DEVNULL
    ) as process:
        try:
            wait_for(str(name), name.exists, 10)
            yield name
        finally:
            process.kill()


def ssh(vm: Vm, key: Path, command: str, *, check: bool = True) -> subprocess.CompletedProcess[str]:
    """Run a command on the box as its operator."""
    done = subprocess.run(
        ["ssh", *ssh_options(key), "-p", str(vm.ports[22]), f"bench@{HOST}", command],
        capture_output=True, text=True, timeout=300,
    )  # fmt: skip
    assert done.returncode == 0 or not check, (command, done.stdout, done.stderr)
    return done


def scp(vm: Vm, key: Path, file: Path, target: str) -> None:
    """Copy a file to the box as its operator."""
    _scp(vm, key, str(file), f"bench@{HOST}:{target}")


def fetch(vm: Vm, key: Path, file: str, folder: Path) -> None:
    """Copy a file of the box into a folder."""
    _scp(vm, key, f"bench@{HOST}:{file}", str(folder))


def _scp(vm: Vm, key: Path, source: str, target: str) -> None:
    command = ["scp", "-q", *ssh_options(key), "-P", str(vm.ports[22]), source, target]
    subprocess.run(command, check=True, timeout=300)


def ssh_options(key: Path) -> list[str]:
    """Return ssh's options for a box that nobody knows yet."""
    known = ("StrictHostKeyChecking=no", "UserKnownHostsFile=/dev/null", "LogLevel=ERROR", "BatchMode=yes")
    return ["-i", str(key), *(word for option in (*known, "ConnectTimeout=120") for word in ("-o", option))]
