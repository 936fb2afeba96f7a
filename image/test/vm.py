"""An image in an emulated machine: QEMU with a root shell, adapters to plug and unplug, and snapshots.

The shell is systemd's debug shell on a second serial port, asked for on the kernel's command line: the
image is tested as it is, and without SSH.
"""

import base64
import contextlib
import json
import os
import re
import socket
import subprocess
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Self, TypeVar

from image.test.card import Card

# Emulation on a busy machine is slow by any factor; what waits this long is broken.
PATIENCE_S = 900.0
# A shell that neither edits lines nor echoes them.
SHELL = (
    "stty -echo cols 500; export PAGER=cat SYSTEMD_COLORS=0 TERM=dumb PS1=; "
    "bind 'set enable-bracketed-paste off'"
)

T = TypeVar("T")


def wait_for(what: str, probe: Callable[[], T | None], limit_s: float = PATIENCE_S) -> T:
    """Return what a probe gives as soon as that is true. Raises TimeoutError."""
    end = time.monotonic() + limit_s
    while True:
        if found := probe():
            return found
        if time.monotonic() > end:
            raise TimeoutError(f"{what}: not after {limit_s:.0f} s")
        time.sleep(0.05)


@dataclass(frozen=True)
class Board:
    """A machine type of QEMU and how the image's devices hang on it."""

    name: str
    console: str
    shell: str
    options: tuple[str, ...]
    usb: str = ""
    words: str = ""
    program: str = "qemu-system-aarch64"
    """Which QEMU has the machine."""
    firmware: bool = False
    """Whether the machine starts what is on its disk, and again after a restart; no shell then."""

    @property
    def append(self) -> str:
        """Return what the kernel's command line needs besides the image's own."""
        waits = (
            f"systemd.default_{what}_sec={PATIENCE_S:.0f}" for what in ("timeout_start", "device_timeout")
        )
        # What units say of themselves is for real boards; the image stays as it is.
        slow = base64.b64encode(
            f"[Service]\nTimeoutStartSec={PATIENCE_S:.0f}\nWatchdogSec=0\n".encode()
        ).decode()
        drop_ins = (
            f"systemd.set_credential_binary=systemd.unit-dropin.{unit}.service:{slow}"
            for unit in ("dertwin", "dertwin-setup", "systemd-journald", "systemd-udevd")
        )
        own = f"console={self.console} systemd.debug_shell={self.shell} panic=-1 loglevel=6"
        return " ".join([own, *waits, *drop_ins, self.words])


_VIRT = (
    "-cpu", "cortex-a53", "-m", "1024", "-device", "virtio-net-pci,netdev=net,romfile=",
    "-device", "virtio-rng-pci", "-device", "qemu-xhci,id=xhci", "-device", "pci-serial,chardev=shell",
    "-drive", "if=virtio,format=qcow2,file={disk}",
)  # fmt: skip
VIRT = Board("virt", "ttyAMA0", "ttyS0", ("-smp", "2", "-accel", "tcg,thread=multi", *_VIRT), "xhci.0")
# One core whose clock goes on by 1 ns with each instruction, and at once to the next event when it is idle.
COUNTED = Board(
    "virt",
    "ttyAMA0",
    "ttyS0",
    ("-smp", "1", "-accel", "tcg", "-icount", "shift=0,sleep=off", *_VIRT),
    "xhci.0",
)
# Its USB controller ends QEMU (7.2 and 10.0) when an adapter is unplugged: adapters are there from the start.
# Its watchdog restarts it at once when it is armed, whatever the time that it is given.
RASPI3 = Board(
    "raspi3b", "ttyAMA0", "ttyS1",
    ("-device", "usb-net,netdev=net", "-serial", "chardev:shell", "-drive", "if=sd,format=qcow2,file={disk}"),
    "usb-bus.0",
    "systemd.watchdog_sec=0",
)  # fmt: skip
# Its kernels panic at random in QEMU 7.2 on more than one core (fixed in 8.1).
PC = Board(
    "q35", "ttyS0", "ttyS1",
    ("-smp", "1", "-m", "1024", "-accel", "tcg",
     "-drive", "if=pflash,format=raw,readonly=on,file=/usr/share/OVMF/OVMF_CODE_4M.fd",
     "-drive", "if=pflash,format=raw,file={folder}/firmware.vars",
     "-device", "virtio-net-pci,netdev=net,romfile=", "-device", "virtio-rng-pci",
     "-drive", "if=virtio,format=qcow2,file={disk}"),
    program="qemu-system-x86_64", firmware=True,
)  # fmt: skip


@dataclass
class Vm:
    """A running machine. Use as a context manager: at the end it is killed, as if its plug were pulled."""

    card: Card
    board: Board = VIRT
    forward: tuple[int, ...] = ()
    options: tuple[str, ...] = ()
    more_kernel_words: str = ""
    loader: Path | None = None
    """What is started instead of the slot's own kernel, as the board's firmware does."""
    ports: dict[int, int] = field(default_factory=dict)
    started: float = 0.0

    def __enter__(self) -> Self:
        self.folder = self.card.folder
        for old in ("qmp", "shell", *(f"adapter{n}" for n in range(4))):
            (self.folder / old).unlink(missing_ok=True)
        self.overlay = self.folder / "run.qcow2"
        subprocess.run(
            ["qemu-img", "create", "-q", "-f", "qcow2", "-F", "raw", "-b", self.card.path, self.overlay],
            check=True,
        )
        self.log = self.folder / f"console-{self.board.name}.log"
        self.log.with_name(f"{self.log.name}.2").unlink(missing_ok=True)
        self.process = subprocess.Popen(self._command(), stdin=subprocess.DEVNULL)
        self.started = time.monotonic()
        self._shell: socket.socket | None = None
        self._count = 0
        self._qmp = wait_for("QEMU's monitor", lambda: _connect(self.folder / "qmp"), 60).makefile("rw")
        self._qmp.readline()
        self.qmp("qmp_capabilities")
        return self

    def __exit__(self, *_: object) -> None:
        if self.process.poll() is None:
            self.process.kill()
        self.process.wait()

    def _command(self) -> list[str]:
        for port in self.forward:
            self.ports[port] = _free_port()
        forwards = "".join(f",hostfwd=tcp:127.0.0.1:{ours}-:{port}" for port, ours in self.ports.items())
        command = [
            self.board.program, "-M", self.board.name, "-display", "none", "-nodefaults",
            *([] if self.board.firmware else ["-no-reboot"]),
            "-qmp", f"unix:{self.folder}/qmp,server=on,wait=off", "-serial", f"file:{self.log}",
            "-netdev", f"user,id=net{forwards}",
            "-chardev", f"socket,id=shell,path={self.folder}/shell,server=on,wait=off,logfile={self.log}.2",
            *self._kernel(),
        ]  # fmt: skip
        for number in range(4):
            command += ["-chardev", f"socket,id=c{number},path={self.adapter(number)},server=on,wait=off"]
        command += [option.format(disk=self.overlay, folder=self.folder) for option in self.board.options]
        return [*command, *self.options]

    def _kernel(self) -> list[str]:
        """Return QEMU's options for what it starts; the kernel of the next slot as the loader would."""
        if self.loader or self.board.firmware:
            return ["-kernel", str(self.loader)] if self.loader else []
        slot, line = self.card.next_start()
        for name in ("vmlinuz", "initrd.img"):
            (self.folder / name).write_bytes(self.card.fetch(f"{slot}/{name}"))
        words = [word for word in line.split() if "console=" not in word]
        return [
            "-kernel", str(self.folder / "vmlinuz"), "-initrd", str(self.folder / "initrd.img"),
            "-append", " ".join([*words, self.board.append, self.more_kernel_words]),
        ]  # fmt: skip

    def adapter(self, number: int) -> Path:
        """Return the socket that is an adapter's other end: its bytes on the wire."""
        return self.folder / f"adapter{number}"

    def qmp(self, command: str, **arguments: Any) -> Any:
        """Give QEMU a command. Raises RuntimeError."""
        self._qmp.write(json.dumps({"execute": command, "arguments": arguments}) + "\n")
        self._qmp.flush()
        while True:
            answer = json.loads(self._qmp.readline())
            if "error" in answer:
                raise RuntimeError(f"{command}: {answer['error']['desc']}")
            if "return" in answer:
                return answer["return"]

    def plug(self, number: int, serial: str, socket_number: int) -> None:
        """Plug an FTDI adapter in; its other end is the adapter() of that number."""
        settings = {"driver": "usb-serial", "id": f"u{number}", "chardev": f"c{number}", "serial": serial,
                    "bus": self.board.usb, "port": str(socket_number), "always-plugged": True}  # fmt: skip

        def plugged() -> bool:
            try:
                self.qmp("device_add", **settings)
            except RuntimeError as error:
                # One that was unplugged just now lets go of its end a little later.
                if "in use" not in str(error):
                    raise
                return False
            return True

        wait_for(f"adapter {serial}", plugged, 10)

    def unplug(self, number: int) -> None:
        """Pull an adapter out."""
        self.qmp("device_del", id=f"u{number}")

    def unplug_all(self) -> None:
        """Pull out whatever is plugged in."""
        for number in range(4):
            with contextlib.suppress(RuntimeError):
                self.unplug(number)

    def snapshot(self, name: str, *, restore: bool = False) -> None:
        """Save the whole machine, or go back to where it was saved; no adapter may be plugged in."""
        command = f"{'loadvm' if restore else 'savevm'} {name}"
        if complaint := self.qmp("human-monitor-command", **{"command-line": command}):
            raise RuntimeError(f"{command}: {complaint}")

    def console(self) -> str:
        """Return all that the console has shown, and the second serial port."""
        logs = (self.log, self.log.with_name(f"{self.log.name}.2"))
        return "".join(log.read_text(errors="replace") for log in logs if log.exists())

    def wait_for_console(self, pattern: str, limit_s: float = PATIENCE_S) -> float:
        """Wait until the console shows a pattern and return the time since power-on (s)."""
        self._wait(pattern, lambda: re.search(pattern, self.console()), limit_s)
        return self.seconds_since_power_on()

    def wait_for_shell(self) -> float:
        """Wait for the root shell and return the time since power-on (s)."""
        self._shell = _connect(self.folder / "shell")
        assert self._shell
        self._shell.settimeout(1.0)
        self._wait(
            "the shell",
            lambda: self._ask(SHELL, 60)[0] == 0,
        )
        return self.seconds_since_power_on()

    def _wait(self, what: str, probe: Callable[[], Any], limit_s: float = PATIENCE_S) -> None:
        try:
            wait_for(what, lambda: self._is_alive() and probe(), limit_s)
        except TimeoutError as error:
            raise TimeoutError(f"{error}; the console's end:\n{self.console()[-3000:]}") from None

    def _is_alive(self) -> bool:
        assert self.process.poll() is None, f"QEMU has ended; the console's end:\n{self.console()[-3000:]}"
        return True

    def run(self, command: str, *, check: bool = True, limit_s: float = 180.0) -> str:
        """Run a command as root in the machine and return what it prints."""
        status, text = self._ask(command, limit_s)
        assert status is not None, f"{command}: no answer after {limit_s:.0f} s: {text}"
        assert status == 0 or not check, f"{command}: status {status}: {text}"
        return text

    def _ask(self, command: str, limit_s: float) -> tuple[int | None, str]:
        """Return exit status and output; the status is None if there was none in time."""
        assert self._shell
        self._count += 1
        # In two parts, so that an echo of the command is not taken for the answer.
        first, last = f"<{self._count}", f"{self._count}>"
        line = f"echo '<''{first[1:]}'; {command}\necho; echo '{last[:-1]}''>'$?\n"
        self._shell.sendall(f" {line}".encode())
        seen, end = "", time.monotonic() + limit_s
        while time.monotonic() < end:
            with contextlib.suppress(TimeoutError):
                seen += self._shell.recv(65536).decode(errors="replace").replace("\r", "")
            if found := re.search(rf"{first}\n(.*?)\n?{last}(\d+)\n", seen, re.DOTALL):
                return int(found[2]), found[1].strip()
        return None, seen

    def power_off(self) -> None:
        """Shut the machine down as its user would, and keep what it has written."""
        with contextlib.suppress(AssertionError):
            self._ask("systemctl --no-block poweroff", 20)
        self.wait_for_end()

    def wait_for_end(self) -> None:
        """Wait until the machine has switched itself off, or restarts, and keep what it has written."""
        self.process.wait(PATIENCE_S)
        self.keep()

    def kill(self) -> None:
        """Pull the plug, and keep what it has written."""
        self.process.kill()
        self.process.wait()
        self.keep()

    def keep(self) -> None:
        """Bring what the machine has written onto the card."""
        subprocess.run(["qemu-img", "commit", "-q", self.overlay], check=True)

    def seconds_since_power_on(self) -> float:
        """Return how long the machine has been on (s)."""
        return time.monotonic() - self.started

    def seconds_of_cpu(self) -> float:
        """Return the CPU time that the emulator has used (s)."""
        fields = Path(f"/proc/{self.process.pid}/stat").read_text().rpartition(")")[2].split()
        return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


def _connect(path: Path) -> socket.socket | None:
    connection = socket.socket(socket.AF_UNIX)
    try:
        connection.connect(str(path))
    except OSError:
        connection.close()
        return None
    return connection


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])
