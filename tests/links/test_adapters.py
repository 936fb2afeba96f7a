"""Lines of a real service on adapters found through udev, which come, go and move (umockdev)."""

import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from prometheus_client.parser import text_string_to_metric_families
from support.bus import Bus
from support.service import RUN, Service, free_port, service, wait_for
from support.sites import READ_SETPOINT, battery, site
from support.udev import Udev, needs_umockdev, udev
from support.watch import get

from dertwin.modbus.rtu import crc16, frame

pytestmark = needs_umockdev
BACK_WITHIN_S = 2.0


@pytest.fixture
def bed() -> Iterator[Udev]:
    with udev() as made:
        yield made


def line_to(port: Any, unit_id: int = 1, **settings: Any) -> dict[str, Any]:
    return battery({"kind": "modbus_rtu", "port": port, "unit_id": unit_id, "baudrate": 115200, **settings})


def serving(bed: Udev, folder: Path, *assets: dict[str, Any]) -> Any:
    return service(site(folder, *assets), folder, command=bed.command(*RUN))


def answers(client: Path | str, unit_id: int = 1) -> bool:
    try:
        bus = Bus(str(client))
    except OSError:
        return False
    try:
        bus.send(frame(unit_id, READ_SETPOINT))
        reply = bus.receive(7, 0.2)
        return reply[:1] == bytes((unit_id,)) and crc16(reply) == 0
    except OSError:
        return False
    finally:
        bus.close()


def wait_until_served(client: Path | str, unit_id: int = 1) -> None:
    wait_for(lambda: answers(client, unit_id), BACK_WITHIN_S, f"a reply on {client}")


def changes(running: Service, link: str) -> list[tuple[str, str]]:
    """Return what the log tells of a line: whether it came up or went down, and where or why."""
    return [
        (line["event"].removeprefix("link "), line.get("where") or line["reason"])
        for line in running.log()
        if line.get("link") == f"rtu {link}"
    ]


def shown(port: int, metric: str) -> list[tuple[dict[str, str], float]]:
    """Return labels and value of each sample of a metric."""
    families = text_string_to_metric_families(get(port, "/metrics").text)
    return [(s.labels, s.value) for family in families for s in family.samples if s.name == metric]


def test_an_adapter_is_found_again_under_whatever_name_and_the_other_lines_do_not_notice(
    bed: Udev, tmp_path: Path
) -> None:
    moving, staying = bed.plug("ttyUSB0", "FT1"), bed.plug("ttyUSB1", "FT2", socket="2")
    with serving(bed, tmp_path, line_to("usb:FT1"), line_to({"serial": "FT2"})) as running:
        wait_until_served(moving.client)
        bus = Bus(str(staying.client))
        for number, socket in ((7, "1"), (0, "4.3"), (1000, "2.1")):
            bed.unplug(moving)
            wait_for(lambda: changes(running, "usb:FT1")[-1][0] == "down")
            moving = bed.plug(f"ttyUSB{number}", "FT1", socket)
            wait_until_served(moving.client)
            bus.send(frame(1, READ_SETPOINT))
            assert len(bus.receive(7)) == 7
        bus.close()
        names = [where for event, where in changes(running, "usb:FT1") if event == "up"]
        assert names == ["/dev/ttyUSB0", "/dev/ttyUSB7", "/dev/ttyUSB0", "/dev/ttyUSB1000"]
        assert changes(running, "usb:FT2") == [("up", "/dev/ttyUSB1")]
        assert running.stop()[0] == 0


def test_an_adapter_that_is_not_there_yet_is_told_with_what_is_there_instead(
    bed: Udev, tmp_path: Path
) -> None:
    bed.plug("ttyUSB0", "FT1")
    bed.plug("ttyUSB1", socket="2", ids=("1a86", "7523"), driver="ch341-uart")
    with serving(bed, tmp_path, line_to("usb:FT9")) as running:
        reason = "no port matches usb:FT9: /dev/ttyUSB0 has serial FT1; /dev/ttyUSB1 has no serial"
        assert changes(running, "usb:FT9") == [("down", reason)]
        assert any(f"not yet: {reason}" in line for line in running.lines)
        late = bed.plug("ttyUSB2", "FT9", socket="3")
        wait_until_served(late.client)


def test_two_equal_adapters_are_told_apart_or_the_line_says_what_to_add(bed: Udev, tmp_path: Path) -> None:
    first, second = bed.plug("ttyUSB0", socket="1"), bed.plug("ttyUSB1", socket="2")
    equal = {"vendor": "0403", "product": "6001"}
    by_socket = {"path": "platform-xhci-usb-0:2:1.0"}
    with serving(bed, tmp_path, line_to(equal), line_to(by_socket, 2)) as running:
        wait_until_served(second.client, 2)
        (change,) = changes(running, "{vendor: 0403, product: 6001}")
        assert change[0] == "down"
        assert change[1].startswith(
            "/dev/ttyUSB0 (path platform-xhci-usb-0:1:1.0, interface 00) and "
            "/dev/ttyUSB1 (path platform-xhci-usb-0:2:1.0, interface 00) match {vendor: 0403, product: 6001}"
        )
        bed.unplug(second)
        wait_until_served(first.client)
        back = bed.plug("ttyUSB5", socket="2")
        wait_until_served(back.client, 2)
        assert answers(first.client), "what is served goes on, although a second one would match now"


def test_the_ports_of_one_adapter_are_lines_of_their_own(bed: Udev, tmp_path: Path) -> None:
    names = [f"ttyUSB{number}" for number in range(4)]
    ports = bed.plug_ports(names, "FT4", ids=("0403", "6011"), model="Quad_RS232-HS")
    lines = [line_to({"serial": "FT4", "interface": number}, number + 1) for number in range(4)]
    with serving(bed, tmp_path, *lines) as running:
        for number, port in enumerate(ports):
            wait_until_served(port.client, number + 1)
        bed.unplug(*ports)
        wait_for(lambda: len(running.events("link down")) >= 4)
        # They come back in another order: the interface tells them apart.
        ports = bed.plug_ports(["ttyUSB9", "ttyUSB8", "ttyUSB3", "ttyUSB4"], "FT4")
        for number, port in enumerate(ports):
            wait_until_served(port.client, number + 1)


def test_a_uart_of_the_board_is_found_by_its_tag(bed: Udev, tmp_path: Path) -> None:
    bed.uart("ttyAMA1", path="platform-3f215040.serial")
    tagged = bed.uart("ttyAMA0", tag="dertwin")
    with serving(bed, tmp_path, line_to({"tag": "dertwin"})) as running:
        wait_until_served(tagged.client)
        assert changes(running, "{tag: dertwin}") == [("up", "/dev/ttyAMA0")]


def test_bindings_with_the_same_match_are_units_of_one_line(bed: Udev, tmp_path: Path) -> None:
    adapter = bed.plug("ttyUSB0", "FT1")
    with serving(bed, tmp_path, line_to("usb:FT1"), line_to({"serial": "FT1"}, 2)):
        wait_until_served(adapter.client)
        assert answers(adapter.client, 2)


def test_a_pair_stands_in_for_an_absent_adapter_and_makes_way_for_it(bed: Udev, tmp_path: Path) -> None:
    serial = f"FT{os.getpid()}"
    stand_in = f"/tmp/dertwin_usb-{serial}_client"
    with serving(bed, tmp_path, line_to(f"usb:{serial}", fallback="pty")) as running:
        for number in range(2):
            wait_until_served(stand_in)
            adapter = bed.plug(f"ttyUSB{number}", serial)
            wait_until_served(adapter.client)
            assert not os.path.lexists(stand_in)
            bed.unplug(adapter)
        wait_until_served(stand_in)
        where = [text for event, text in changes(running, f"usb:{serial}") if event == "up"]
        pair = f"/tmp/dertwin_usb-{serial}, open {stand_in} in the client"
        absent = f"{pair} (no port matches usb:{serial}: there is none)"
        assert where == [absent, "/dev/ttyUSB0", absent, "/dev/ttyUSB1", absent]
        assert running.stop()[0] == 0
    assert not os.path.lexists(stand_in)


def test_many_adapters_pulled_and_put_back_cost_no_memory_of_the_past(bed: Udev, tmp_path: Path) -> None:
    with serving(bed, tmp_path, line_to("usb:FT1")) as running:
        descriptors = Path(f"/proc/{running.process.pid}/fd")
        open_before = 0
        for number in range(6):
            adapter = bed.plug(f"ttyUSB{number}", "FT1")
            wait_until_served(adapter.client)
            open_before = open_before or len(list(descriptors.iterdir()))
            assert len(list(descriptors.iterdir())) == open_before
            bed.unplug(adapter)
        assert running.events("link failed") == []


def test_a_line_with_rs485_on_an_adapter_that_cannot_switch_says_so(bed: Udev, tmp_path: Path) -> None:
    bed.plug("ttyUSB0", "FT1")
    with serving(bed, tmp_path, line_to("usb:FT1", rs485={"delay_before_ms": 1})) as running:
        (change,) = changes(running, "usb:FT1")
        assert change == (
            "down",
            "/dev/ttyUSB0: its driver cannot switch an RS-485 transceiver; "
            "leave rs485 out if the adapter switches by itself, as most do",
        )


def test_the_driver_is_told_of_low_latency_and_how_to_switch_the_direction(bed: Udev, tmp_path: Path) -> None:
    adapter = bed.uart("ttyAMA0", tag="hat")
    bed.call("give_settings", "/dev/ttyAMA0")
    rs485 = {"rts_on_send": False, "rts_after_send": True, "delay_before_ms": 3, "delay_after_ms": 57}
    with serving(bed, tmp_path, line_to({"tag": "hat"}, rs485=rs485)):
        wait_until_served(adapter.client)
        settings = bed.call("settings", "/dev/ttyAMA0")
    # From <linux/serial.h>: flags, then the delays; the flags of a serial_struct are its fifth word.
    enabled, rts_after_send, low_latency = 1, 4, 1 << 13
    assert settings["rs485"][:3] == [enabled | rts_after_send, 3, 57]
    assert settings["serial"][4] == low_latency


def test_the_metrics_say_which_adapter_a_line_is_on_while_it_is(bed: Udev, tmp_path: Path) -> None:
    port = free_port()
    config = site(tmp_path, line_to("usb:FT1", fallback="pty"), line_to("usb:FT2"))
    options = "--listen-metrics", f"127.0.0.1:{port}"

    def adapters() -> list[dict[str, str]]:
        return [labels for labels, value in shown(port, "dertwin_adapter_info") if value == 1.0]

    with service(config, tmp_path, *options, command=bed.command(*RUN)) as running:
        assert adapters() == []
        adapter = bed.plug("ttyUSB7", "FT1", socket="2")
        bed.plug("ttyUSB8", "FT2", socket="3", ids=("1a86", "7523"), driver="ch341-uart")
        wait_for(lambda: len(adapters()) == 2, what="both adapters")
        first = next(labels for labels in adapters() if labels["link"] == "rtu usb:FT1")
        assert first == {
            "site": "site",
            "link": "rtu usb:FT1",
            "kind": "rtu",
            "device_node": "/dev/ttyUSB7",
            "driver": "ftdi_sio",
            "serial": "FT1",
            "path": "platform-xhci-usb-0:2:1.0",
            "interface": "00",
            "vendor": "0403",
            "product": "6001",
        }
        ((timer, seconds),) = shown(port, "dertwin_adapter_latency_timer_seconds")
        assert (timer["link"], seconds) == ("rtu usb:FT1", 0.016), "the other driver has none"
        bed.unplug(adapter)
        wait_for(lambda: changes(running, "usb:FT1")[-1][1].startswith("/tmp/"), what="the pair in its place")
        assert [labels["link"] for labels in adapters()] == ["rtu usb:FT2"]
