"""`dertwin ports`: the table, following what is plugged, and the check of two ports wired together."""

import contextlib
import os
import select
import subprocess
import sys
import threading
import tty
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from support.lines import Pair, echoing_line, pair
from support.service import wait_for
from support.udev import Udev, needs_umockdev, udev

from bench import cli
from bench.loopback import BAUDRATES, wrong_bytes
from bench.port_list import users

PORTS = (sys.executable, "-m", "bench.cli", "ports")


@pytest.fixture
def bed() -> Iterator[Udev]:
    with udev() as made:
        yield made


def listed(bed: Udev) -> list[str]:
    done = subprocess.run(bed.command(*PORTS), capture_output=True, text=True, timeout=30, check=True)
    assert done.stderr == ""
    return done.stdout.splitlines()


@needs_umockdev
def test_each_port_is_a_row_with_its_identity_and_what_to_write_in_a_config(bed: Udev) -> None:
    bed.plug("ttyUSB10", "FT4XYZ12")
    bed.plug("ttyUSB2", socket="2", ids=("1a86", "7523"), driver="ch341-uart", model="USB_Serial")
    bed.plug_ports(["ttyUSB3", "ttyUSB4"], "Q7", "3", ("0403", "6010"), model="Dual_RS232-HS")
    bed.uart("ttyAMA0", tag="rs485-hat")
    cells = [[cell.strip() for cell in line.split("  ") if cell] for line in listed(bed)]
    assert cells == [
        ["DEVICE", "ADAPTER", "DRIVER", "LATENCY", "USED BY", "IN THE CONFIG"],
        ["/dev/ttyAMA0", "UART", "uart-pl011", "-", "-", '"port": {"tag": "rs485-hat"}'],
        ["/dev/ttyUSB2", "1a86:7523, USB Serial, no serial number", "ch341-uart", "-", "-",
         '"port": {"path": "platform-xhci-usb-0:2:1.0"}'],
        ["/dev/ttyUSB3", "0403:6010, Dual RS232-HS, serial Q7", "ftdi_sio", "16 ms", "-",
         '"port": {"serial": "Q7", "interface": 0}'],
        ["/dev/ttyUSB4", "0403:6010, Dual RS232-HS, serial Q7", "ftdi_sio", "16 ms", "-",
         '"port": {"serial": "Q7", "interface": 1}'],
        ["/dev/ttyUSB10", "0403:6001, FT232R USB UART, serial FT4XYZ12", "ftdi_sio", "16 ms", "-",
         '"port": "usb:FT4XYZ12"'],
    ]  # fmt: skip


@needs_umockdev
def test_a_machine_without_ports_says_so(bed: Udev) -> None:
    bed.unplug(bed.plug("ttyUSB0", "FT1"))
    assert listed(bed) == ["no serial port found"]


@needs_umockdev
def test_watch_tells_what_is_there_and_then_what_comes_and_goes(bed: Udev, tmp_path: Path) -> None:
    first = bed.plug("ttyUSB0", "FT1")
    printed = tmp_path / "printed"
    with (
        printed.open("w") as output,
        subprocess.Popen(bed.command(*PORTS, "--watch"), stdout=output) as process,
    ):

        def told(count: int) -> list[str]:
            wait_for(lambda: len(printed.read_text().splitlines()) == count, what=f"line {count}")
            return printed.read_text().splitlines()

        try:
            assert told(1) == ['+  /dev/ttyUSB0  0403:6001, FT232R USB UART, serial FT1  "port": "usb:FT1"']
            bed.plug("ttyUSB1", socket="2")
            assert told(2)[-1].startswith("+  /dev/ttyUSB1  0403:6001, FT232R USB UART, no serial number")
            bed.unplug(first)
            assert told(3)[-1] == "-  /dev/ttyUSB0"
            bed.plug("ttyUSB0", "FT2")
            assert told(4)[-1].endswith('"port": "usb:FT2"')
        finally:
            process.terminate()


@pytest.fixture
def wired(tmp_path: Path) -> Iterator[Pair]:
    with pair(tmp_path / "a") as line:
        line.appear()
        yield line


def test_the_programs_that_have_a_port_open_are_named(wired: Pair) -> None:
    def told() -> list[str]:
        return users([str(wired.port)])[str(wired.port)]

    # A container that another test runs has pseudo-terminals of its own, of the same names.
    others = [user for user in told() if not user.startswith("socat (")]
    (socat,) = [user for user in told() if user.startswith("socat (")]
    with wired.port.open("rb", buffering=0):
        known = [socat, *others]
        assert [user.split()[-1] for user in told() if user not in known] == [f"({os.getpid()})"]
    assert socat in told()
    assert f"({os.getpid()})" not in " ".join(told())


@pytest.fixture
def check(capsys: pytest.CaptureFixture[str]) -> Callable[..., tuple[int, list[str], str]]:
    """Run `dertwin ports --test` in this process; return its status and what it printed to both streams."""

    def run(*ports: object) -> tuple[int, list[str], str]:
        status = cli.main(["ports", "--test", *map(str, ports)])
        out, err = capsys.readouterr()
        return status, out.splitlines(), err

    return run


Check = Callable[..., tuple[int, list[str], str]]


def test_a_good_pair_loses_nothing_at_any_baud_rate(check: Check, wired: Pair) -> None:
    status, out, err = check(wired.port, wired.client)
    assert (status, err) == (0, "")
    assert out[-1] == "good: every byte arrived"
    rows = [line.split() for line in out[2:-1]]
    assert [int(row[0]) for row in rows] == list(BAUDRATES)
    for baudrate, sent, wrong, median_ms, max_ms, wire_ms in rows:
        assert int(sent) > 300
        assert int(wrong) == 0
        assert 0 < float(median_ms) <= float(max_ms)
        assert float(wire_ms) == pytest.approx(160_000 / int(baudrate), abs=0.01)


@contextlib.contextmanager
def damaging_line(folder: Path) -> Iterator[tuple[Path, Path]]:
    """Make two ports joined by a line on which one byte of each chunk is damaged, in one direction."""
    ends = [os.openpty(), os.openpty()]
    paths = folder / "good", folder / "bad"
    for path, (_, end) in zip(paths, ends, strict=True):
        tty.setraw(end)
        path.symlink_to(os.ttyname(end))
    (one, _), (other, _) = ends
    stopped, stop = os.pipe()

    def relay() -> None:
        while stopped not in (ready := select.select([one, other, stopped], [], [])[0]):
            if one in ready:
                os.write(other, os.read(one, 4096))
            if other in ready:
                data = os.read(other, 4096)
                os.write(one, bytes((data[0] ^ 1,)) + data[1:])

    thread = threading.Thread(target=relay)
    thread.start()
    try:
        yield paths
    finally:
        os.write(stop, b".")
        thread.join()
        for descriptor in (*ends[0], *ends[1], stopped, stop):
            os.close(descriptor)


def test_damaged_bytes_are_counted(check: Check, tmp_path: Path) -> None:
    with damaging_line(tmp_path) as (one, other):
        status, out, _ = check(one, other)
    assert status == 1
    assert out[-1] == "BAD: bytes were damaged or lost"
    for row in (line.split() for line in out[2:-1]):
        assert len(row) == 3, "no round trip is shown for a line that damages"
        assert 0 < int(row[2]) < int(row[1]) / 2


def test_ports_that_are_not_wired_together_lose_everything(check: Check, tmp_path: Path) -> None:
    with pair(tmp_path / "a") as line, pair(tmp_path / "b") as other:
        line.appear()
        other.appear()
        status, out, _ = check(line.port, other.port)
    assert status == 1
    for row in (line.split() for line in out[2:-1]):
        assert row[1] == row[2]


def test_a_port_that_hears_itself_is_named_and_its_line_is_good(check: Check, tmp_path: Path) -> None:
    with echoing_line(tmp_path / "a") as far_end:
        status, out, _ = check(tmp_path / "a", far_end)
    assert (status, out[-1]) == (0, "good: every byte arrived")
    assert out[-2] == f'{tmp_path / "a"} hears what it sends: write "suppress_echo": true for its line'


@pytest.mark.parametrize(
    ("ports", "told"),
    [
        (("/dev/none-a", "/dev/none-b"), "/dev/none-a: does not exist"),
        (("/dev/same", "/dev/same"), "are the same port; take two that are wired together"),
        (("{serial: 1}", "/dev/b"), "{serial: 1} is not JSON"),
        (('{"seral": "x"}', "/dev/b"), "port.seral: unknown key; the closest is serial"),
        (("pty:a", "pty:b"), "pty:a is made by `dertwin run`; give the path of a port that is there"),
    ],
)
def test_ports_that_cannot_be_tested_are_told_in_one_line(
    check: Check, ports: tuple[str, str], told: str
) -> None:
    status, _, err = check(*ports)
    assert status == 1
    assert told in err
    assert len(err.splitlines()) == 1


def test_a_port_in_use_is_not_disturbed(check: Check, wired: Pair) -> None:
    from bench.links.settings import open_port
    from dertwin.bindings import RtuBinding

    with open_port(str(wired.port), RtuBinding(kind="modbus_rtu", port=str(wired.port))):
        status, _, err = check(wired.port, wired.client)
    assert (status, err) == (1, f"{wired.port}: in use by another program; `dertwin ports` shows which\n")


@pytest.mark.parametrize(
    ("sent", "heard", "wrong"),
    [(b"abc", b"abc", 0), (b"abc", b"axc", 1), (b"abc", b"ab", 1), (b"abc", b"", 3)],
)
def test_a_byte_is_wrong_when_it_is_damaged_or_lost(sent: bytes, heard: bytes, wrong: int) -> None:
    assert wrong_bytes(sent, heard) == wrong
