"""Serial lines on USB adapters, two that the site names and two that it does not."""

from pathlib import Path

import pytest

from image.test.figures import Figures
from image.test.probes import http, read_rtu, read_tcp, status, wait_until_ready, wire
from image.test.site_files import FIRST, SECOND, STRANGERS
from image.test.vm import Vm, wait_for

LIMIT_S = 2.0


def plug_four(bench: Vm) -> None:
    """Plug all adapters in, strangers first, so that the site's are not ttyUSB0 and ttyUSB1."""
    for number, serial in enumerate((*STRANGERS, FIRST, SECOND)):
        bench.plug(number, serial, number + 1)
    wait_until_ready(bench)


def test_every_device_says_the_same_over_tcp_and_over_its_line(bench: Vm, tmp_path: Path) -> None:
    plug_four(bench)
    with (
        wire(bench.adapter(2), tmp_path / "first") as first,
        wire(bench.adapter(3), tmp_path / "second") as second,
    ):
        for line, unit_id, port, address, count in (
            (first, 1, 55001, 4, 3),  # state of charge, state of health, voltage
            (first, 2, 55002, 0, 3),  # status, fault, watchdog
            (second, 1, 55003, 0, 2),  # voltage
        ):
            over_tcp = read_tcp(bench, port, unit_id, address, count)
            over_rtu = wait_for("an answer", lambda: read_rtu(line, unit_id, address, count), 60)  # noqa: B023
            assert len(over_rtu) == count
            assert over_rtu == pytest.approx(over_tcp, rel=0.02)


def test_strangers_are_left_alone(bench: Vm, tmp_path: Path) -> None:
    plug_four(bench)
    assert bench.run("ls /dev/serial/by-id | wc -l") == "4"
    with wire(bench.adapter(0), tmp_path / "stranger") as stranger:
        assert read_rtu(stranger, 1, 0, 1) == []
    where = {
        link["where"]
        for device in status(bench)["devices"]
        for link in device["links"]
        if "rtu" in link["link"]
    }
    assert len(where) == 2
    opened = set(bench.run("find /proc/[0-9]*/fd -lname '/dev/ttyUSB*' -printf '%l\\n'", check=False).split())
    assert opened == where


def test_ftdi_adapters_do_not_keep_bytes_back(bench: Vm) -> None:
    plug_four(bench)
    bench.run("udevadm settle")
    assert bench.run("cat /sys/bus/usb-serial/devices/*/latency_timer").split() == ["1"] * 4


def test_two_adapters_that_change_places_serve_their_lines_again(
    bench: Vm, tmp_path: Path, figures: Figures
) -> None:
    plug_four(bench)
    bench.unplug(2)
    bench.unplug(3)
    wait_for("both lines down", lambda: not http(bench, "/readyz"))
    # In the other order, each in the socket where the other was.
    bench.plug(3, SECOND, 3)
    bench.plug(2, FIRST, 4)
    with (
        wire(bench.adapter(2), tmp_path / "first") as first,
        wire(bench.adapter(3), tmp_path / "second") as second,
    ):
        wait_for("the first line", lambda: read_rtu(first, 1, 4, 1), 60)
        wait_for("the second line", lambda: read_rtu(second, 1, 0, 2), 60)
    took = max(_served_after(bench, serial) for serial in (FIRST, SECOND))
    figures["line served again after its adapter is back, guest time"] = took
    assert 0.0 < took <= LIMIT_S


def _served_after(bench: Vm, serial: str) -> float:
    """Return how long after the kernel saw an adapter last its line was up (s, the guest's clock)."""
    seen = bench.run(
        f"journalctl -k -o short-monotonic -g 'SerialNumber: {serial}' -n 1 --no-pager | tail -1"
    )
    up = bench.run(
        f"journalctl -u dertwin -o short-monotonic -g 'link up.*{serial}' -n 1 --no-pager | tail -1"
    )
    return _stamp(up) - _stamp(seen)


def _stamp(line: str) -> float:
    return float(line[1:].partition("]")[0])
