"""USB-serial adapters and UARTs that come and go, in a udev of the test's own (umockdev)."""

import contextlib
import json
import shutil
import subprocess
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import pytest

from support.lines import Pair

TESTBED = Path(__file__).with_name("testbed.py")
needs_umockdev = pytest.mark.skipif(
    shutil.which("umockdev-wrapper") is None, reason="umockdev is not installed"
)


class Adapter:
    """One tty in the testbed; its line leads to `client`."""

    def __init__(self, line: Pair, devices: list[str]) -> None:
        self.line = line
        self.devices = devices

    @property
    def client(self) -> Path:
        return self.line.client


class Udev:
    """A /sys with the devices that a test plugs in."""

    def __init__(self, process: "subprocess.Popen[str]") -> None:
        self._process = process
        self.root = Path(self.call("root"))
        self.lines: list[Pair] = []
        (self.root / "dev").mkdir(exist_ok=True)

    def call(self, *call: Any) -> Any:
        """Make a call of testbed.py and return its result."""
        assert self._process.stdin
        assert self._process.stdout
        self._process.stdin.write(json.dumps(call) + "\n")
        self._process.stdin.flush()
        return json.loads(self._process.stdout.readline())

    def command(self, *words: str) -> Sequence[str]:
        """Return a command that runs with this /sys and /dev."""
        return ("env", "LD_PRELOAD=libumockdev-preload.so.0", f"UMOCKDEV_DIR={self.root}", *words)

    def plug(self, name: str, serial: str = "", socket: str = "1", **more: Any) -> Adapter:
        """Plug in an adapter with one port."""
        (adapter,) = self.plug_ports([name], serial, socket, **more)
        return adapter

    def plug_ports(
        self,
        names: Sequence[str],
        serial: str = "",
        socket: str = "1",
        ids: tuple[str, str] = ("0403", "6001"),
        driver: str = "ftdi_sio",
        model: str = "FT232R_USB_UART",
    ) -> list[Adapter]:
        """Plug an adapter into a socket of the hub; it has a port for each name, as the kernel names them."""
        vendor, product = ids
        usb = self.call(
            "add",
            "usb",
            f"1-{socket}",
            None,
            {"idVendor": vendor, "idProduct": product},
            {"DEVTYPE": "usb_device"},
        )
        adapters = []
        for number, name in enumerate(names):
            interface = self._add("usb", f"1-{socket}:1.{number}", usb, {"DEVTYPE": "usb_interface"}, driver)
            timer = {"latency_timer": "16"} if driver == "ftdi_sio" else {}
            port = self._add("usb-serial", name, interface, {}, driver, timer)
            properties = {
                "ID_BUS": "usb",
                "ID_VENDOR_ID": vendor,
                "ID_MODEL_ID": product,
                "ID_MODEL": model,
                "ID_USB_INTERFACE_NUM": f"{number:02x}",
                "ID_USB_DRIVER": driver,
                "ID_PATH": f"platform-xhci-usb-0:{socket}:1.{number}",
                **({"ID_SERIAL_SHORT": serial} if serial else {}),
            }
            adapters.append(self._tty(name, port, properties, [usb, interface, port]))
        return adapters

    def uart(self, name: str, tag: str = "", path: str = "platform-3f201000.serial") -> Adapter:
        """Add a UART of the device tree, with the tag that a rule has given it."""
        device = self._add("platform", path.removeprefix("platform-"), None, {}, "uart-pl011")
        tags = {"TAGS": f":systemd:{tag}:"} if tag else {}
        return self._tty(name, device, {"ID_PATH": path, **tags}, [device])

    def unplug(self, *adapters: Adapter) -> None:
        """Pull out an adapter: all ports of one device at once."""
        for adapter in adapters:
            adapter.line.vanish()
        for device in sorted(
            {path for adapter in adapters for path in adapter.devices}, key=len, reverse=True
        ):
            self.call("remove", device)

    def _tty(self, name: str, parent: str, properties: dict[str, str], above: list[str]) -> Adapter:
        line = Pair(self.root / "dev" / name)
        self.lines.append(line)
        line.appear()
        number = str(int("".join(filter(str.isdigit, name))))
        node = {"DEVNAME": f"/dev/{name}", "MAJOR": "188", "MINOR": number}
        path = self.call("add", "tty", name, parent, {"dev": f"188:{number}"}, {**node, **properties})
        self.call("link", path, "device", f"../../{Path(parent).name}")
        return Adapter(line, [*above, path])

    def _add(
        self,
        subsystem: str,
        name: str,
        parent: str | None,
        properties: dict[str, str],
        driver: str,
        attributes: dict[str, str] | None = None,
    ) -> str:
        path: str = self.call("add", subsystem, name, parent, attributes or {}, properties)
        self.call("link", path, "driver", f"../../../drivers/{driver}")
        return path


@contextlib.contextmanager
def udev() -> Iterator[Udev]:
    """Yield a testbed without any device; its lines and itself are gone in the end."""
    command = ["umockdev-wrapper", sys.executable, str(TESTBED)]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as process:
        bed = Udev(process)
        try:
            yield bed
        finally:
            for line in bed.lines:
                line.vanish()
            process.communicate(timeout=10)
            shutil.rmtree(bed.root, ignore_errors=True)
