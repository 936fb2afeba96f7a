"""What status.txt and the light say of the service, by what systemd and the service say themselves."""

import os
import subprocess
import sys
import threading
from pathlib import Path

import pytest
from support.box import boot, make_box, options, put_on_card, site
from support.service import free_port, wait_for
from support.udev import needs_umockdev, udev

from bench.app import Bench
from bench.appliance.led import Led
from bench.appliance.live import config_faults, judge, was_refused
from bench.appliance.places import writable
from bench.appliance.report import Live, Report, load_report, tell
from bench.appliance.watch import START_EVERY_S, WRITE_EVERY_S, WRITES_AT_ONCE, Watcher
from bench.check import check_site
from bench.notify import Notifier

READY = {"ActiveState": "active", "SubState": "running"}
REFUSED = {"ActiveState": "failed", "ExecMainStatus": "78"}
PROPER = Report(host_name="lab-1", site="mine: as on the card")


def said(complaint: str = "") -> str:
    """Return what a service with one battery would say before any link is up."""
    binding = {"kind": "modbus_tcp", "ip": "127.0.0.1", "port": free_port()}
    bench = Bench(check_site({"assets": [{"type": "bess", "protocols": [binding]}]}))
    notifier = Notifier(bench)
    notifier.complaint = complaint
    return notifier.status()


def test_a_service_with_all_links_up_runs() -> None:
    text = said().partition("; down")[0].replace("0 of 1", "1 of 1")
    assert judge({**READY, "StatusText": text}, PROPER) == ("running", ["1 devices, 1 of 1 links up"])


def test_how_late_it_is_now_is_not_told() -> None:
    text = "3 devices, 3 of 3 links up, lag 17 ms, 4 steps late, 2 skipped"
    assert judge({**READY, "StatusText": text}, PROPER) == ("running", ["3 devices, 3 of 3 links up"])


def test_a_link_that_is_down_is_told_and_the_service_is_degraded() -> None:
    state, lines = judge({**READY, "StatusText": said()}, PROPER)
    assert state == "degraded"
    assert lines[0] == "1 devices, 0 of 1 links up"
    assert lines[1].startswith("down: tcp 127.0.0.1:")


def test_a_config_that_was_refused_is_told_and_the_service_is_degraded() -> None:
    text = said("config refused: site.json: assets[0]: unknown; use a or b").partition("; down")[0]
    state, lines = judge({**READY, "StatusText": text}, PROPER)
    assert state == "degraded"
    assert lines[1] == "config refused: site.json: assets[0]: unknown; use a or b"


def test_what_the_service_itself_finds_wrong_is_told() -> None:
    text = "1 devices, 1 of 1 links up, lag 0 ms, 0 steps late, 0 skipped; an observer failed"
    assert judge({**READY, "StatusText": text}, PROPER) == ("degraded", [text[:26], "an observer failed"])


@pytest.mark.parametrize("fault", ["site_faults", "settings_faults", "system_faults"])
def test_a_fault_that_set_up_found_makes_it_degraded(fault: str) -> None:
    unit = {**READY, "StatusText": "3 devices, 3 of 3 links up"}
    assert judge(unit, Report(**{fault: ["something"]})).state == "degraded"  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("unit", "state"),
    [
        ({"ActiveState": "activating", "SubState": "start", "StatusText": "x"}, "starting"),
        ({"ActiveState": "reloading", "SubState": "reload", "StatusText": "reloading"}, "starting"),
        ({"ActiveState": "activating", "SubState": "auto-restart", "Result": "signal"}, "failed"),
        ({"ActiveState": "failed", "SubState": "failed", "Result": "exit-code"}, "failed"),
        ({"ActiveState": "inactive", "SubState": "dead"}, "failed"),
        ({}, "failed"),
    ],
)
def test_a_service_that_is_not_there_is_told(unit: dict[str, str], state: str) -> None:
    assert judge(unit, PROPER).state == state


def test_a_refused_config_is_told_with_all_its_faults(tmp_path: Path) -> None:
    box = make_box(tmp_path)
    boot(box)
    elsewhere = {"type": "bess", "protocols": [{"kind": "modbus_tcp", "ip": "192.0.2.1", "port": 502}]}
    put_on_card(box, site("mine", elsewhere, elsewhere))
    put_on_card(box, site("mine", elsewhere))
    boot(box)
    (fault,) = config_faults(box)
    assert '"192.0.2.1" is not an address of this machine' in fault
    assert was_refused(REFUSED)
    assert not was_refused({**REFUSED, "ExecMainStatus": "1"})


def test_a_service_whose_address_has_come_is_started_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    box = make_box(tmp_path)
    put_on_card(
        box,
        site("mine", {"type": "bess", "protocols": [{"kind": "modbus_tcp", "ip": "0.0.0.0", "port": 502}]}),
    )
    boot(box)
    asked = tmp_path / "asked"
    systemctl = tmp_path / "bin/systemctl"
    systemctl.parent.mkdir()
    said = "".join(f"echo {key}={value}\n" for key, value in REFUSED.items())
    systemctl.write_text(f'#!/bin/sh\n[ "$1" = show ] || echo "$@" >>{asked}\n{said}')
    systemctl.chmod(0o755)
    monkeypatch.setenv("PATH", f"{systemctl.parent}:{os.environ['PATH']}")
    monkeypatch.setattr("bench.appliance.watch.adapters", list)
    now_s = 0.0
    watcher = Watcher(box, lambda: now_s)
    config = box.served / "site.json"
    good = config.read_text()
    config.write_text(good.replace("0.0.0.0", "192.0.2.1"))
    watcher.look()
    assert not asked.exists()
    config.write_text(good)
    for now_s in (1.0, 2.0, 1.0 + START_EVERY_S):  # noqa: B007
        watcher.look()
    assert asked.read_text() == 2 * "--no-block start dertwin.service\n"


def test_status_txt_has_everything_in_words(tmp_path: Path) -> None:
    box = make_box(tmp_path)
    boot(box)
    live = Live("running", ["3 devices, 3 of 3 links up"], ["eth0  192.168.1.50/24"], ["/dev/ttyUSB0  FT1"])
    assert tell(box, load_report(box), live)
    assert not tell(box, load_report(box), live)
    status = (box.user_files / "status.txt").read_text()
    assert status.splitlines()[0].endswith(": running")
    for text in ("demo-site: the demo site", "eth0  192.168.1.50/24", "/dev/ttyUSB0  FT1", "dertwin "):
        assert f"  {text}" in status


def test_what_changes_all_the_time_is_not_written_all_the_time(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    box = make_box(tmp_path)
    monkeypatch.setattr("bench.appliance.watch.adapters", list)  # looking for them takes its time
    now_s, looks, apart_s = 0.0, 50, 10.0
    watcher = Watcher(box, lambda: now_s)
    written = []
    for look in range(looks):
        Report(host_name=str(look)).save(box)
        watcher.look()
        now_s += apart_s
        written.append((box.user_files / "status.txt").read_text().partition(":")[0])
    assert written[:WRITES_AT_ONCE] == [str(look) for look in range(WRITES_AT_ONCE)]
    assert len(set(written)) == pytest.approx(WRITES_AT_ONCE + looks * apart_s / WRITE_EVERY_S, abs=2)


def test_two_that_write_the_card_take_turns(tmp_path: Path) -> None:
    order = []
    inside, leave = threading.Event(), threading.Event()

    def first() -> None:
        with writable(tmp_path):
            inside.set()
            leave.wait(10.0)
            order.append("first")

    def second() -> None:
        with writable(tmp_path):
            order.append("second")

    one, other = threading.Thread(target=first), threading.Thread(target=second)
    one.start()
    assert inside.wait(10.0)
    other.start()
    other.join(0.2)
    assert order == []
    leave.set()
    one.join(10.0)
    other.join(10.0)
    assert order == ["first", "second"]


def led(root: Path, name: str = "ACT") -> Path:
    folder = root / "sys/class/leds" / name
    folder.mkdir(parents=True)
    (folder / "max_brightness").write_text("255\n")
    return folder


@pytest.mark.parametrize("name", ["ACT", "led0", "green:act", "PWR"])
def test_the_light_is_steady_blinks_slowly_or_fast(name: str, tmp_path: Path) -> None:
    led(tmp_path, "mmc0::")
    folder = led(tmp_path, name)
    light = Led(tmp_path)
    light.show("degraded")
    assert (folder / "trigger").read_text() == "timer"
    slow = int((folder / "delay_on").read_text())
    light.show("failed")
    assert int((folder / "delay_off").read_text()) < slow / 4
    light.show("running")
    assert (folder / "trigger").read_text() == "none"
    assert (folder / "brightness").read_text() == "255"
    assert not (tmp_path / "sys/class/leds/mmc0::/trigger").exists()


def test_the_green_light_comes_before_the_red_one(tmp_path: Path) -> None:
    folders = led(tmp_path, "PWR"), led(tmp_path, "green:act")
    Led(tmp_path).show("running")
    assert [(folder / "trigger").exists() for folder in folders] == [False, True]


def test_a_board_without_a_light_is_fine(tmp_path: Path) -> None:
    Led(tmp_path).show("running")


@needs_umockdev
def test_the_adapters_are_told_with_what_to_write_for_each(tmp_path: Path) -> None:
    box = make_box(tmp_path)
    boot(box)
    status = box.user_files / "status.txt"
    with udev() as bed:
        bed.plug("ttyUSB0", "FT4XYZ12")
        command = bed.command(sys.executable, "-m", "bench.cli", "appliance", "watch", *options(box))
        with subprocess.Popen(command, stderr=subprocess.DEVNULL) as watch:
            try:
                wait_for(lambda: "ttyUSB0" in status.read_text(), 20.0, "the adapter in status.txt")
            finally:
                watch.terminate()
    (line,) = [line for line in status.read_text().splitlines() if "ttyUSB0" in line]
    assert "FT232R USB UART, serial FT4XYZ12" in line
    assert line.endswith('"port": "usb:FT4XYZ12"')
