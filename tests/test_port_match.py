"""Which port a match means, over properties as udev gives them."""

from typing import Any

import pytest
from pydantic import ValidationError

from bench.port_list import stanza
from bench.ports import Port, PortAbsent, PortAmbiguous, choose
from dertwin.bindings import RtuBinding
from dertwin.port_match import PortMatch

FTDI = {
    "ID_BUS": "usb",
    "ID_MODEL": "FT232R_USB_UART",
    "ID_MODEL_ID": "6001",
    "ID_PATH": "platform-fd500000.pcie-pci-0000:01:00.0-usb-0:1.2:1.0",
    "ID_SERIAL": "FTDI_FT232R_USB_UART_FT4XYZ12",
    "ID_SERIAL_SHORT": "FT4XYZ12",
    "ID_USB_DRIVER": "ftdi_sio",
    "ID_USB_INTERFACE_NUM": "00",
    "ID_VENDOR_ID": "0403",
    "TAGS": ":systemd:",
}
# As systemd 257 shows QEMU's adapter.
EMULATED = {
    "ID_MODEL_ID": "6001",
    "ID_PATH": "platform-4010000000.pcie-pci-0000:00:02.0-usb-0:1:1.0",
    "ID_SERIAL_SHORT": "FT1AAAAA",
    "ID_USB_SERIAL_SHORT": "FT1AAAAA",
    "ID_USB_VENDOR_ID": "0403",
    "ID_VENDOR_ID": "0403",
    "ID_USB_INTERFACE_NUM": "00",
}
CH340 = {
    "ID_BUS": "usb",
    "ID_MODEL": "USB_Serial",
    "ID_MODEL_ID": "7523",
    "ID_PATH": "platform-fd500000.pcie-pci-0000:01:00.0-usb-0:1.3:1.0",
    "ID_SERIAL": "1a86_USB_Serial",
    "ID_USB_DRIVER": "ch341",
    "ID_USB_INTERFACE_NUM": "00",
    "ID_VENDOR_ID": "1a86",
}
THIRD_OF_FOUR = {**FTDI, "ID_MODEL_ID": "6011", "ID_USB_INTERFACE_NUM": "02"}
BOARD = {"TAGS": ":systemd:dertwin:"}


@pytest.mark.parametrize(
    ("match", "properties", "differences"),
    [
        ({"serial": "FT4XYZ12"}, FTDI, []),
        ({"serial": "FT1AAAAA"}, EMULATED, []),
        ({"serial": "FT4XYZ12"}, EMULATED, ["serial FT1AAAAA"]),
        ({"serial": "ft4xyz12"}, FTDI, ["serial FT4XYZ12"]),
        ({"serial": "FT4XYZ12"}, CH340, ["no serial"]),
        ({"path": "platform-fd500000.pcie-pci-0000:01:00.0-usb-0:1.3:1.0"}, CH340, []),
        ({"path": "usb-0:1.3"}, CH340, [f"path {CH340['ID_PATH']}"]),
        ({"vendor": "1A86", "product": "7523"}, CH340, []),
        ({"vendor": "0403", "product": "6015"}, FTDI, ["product 6001"]),
        ({"vendor": "0403", "product": "6001"}, CH340, ["vendor 1a86", "product 7523"]),
        ({"serial": "FT4XYZ12", "interface": 2}, THIRD_OF_FOUR, []),
        ({"serial": "FT4XYZ12", "interface": 1}, THIRD_OF_FOUR, ["interface 2"]),
        ({"interface": 0}, FTDI, []),
        ({"interface": 10}, {"ID_USB_INTERFACE_NUM": "0a"}, []),
        ({"interface": 0}, BOARD, ["no interface"]),
        ({"tag": "dertwin"}, BOARD, []),
        ({"tag": "dert"}, BOARD, ["no tag dert"]),
        ({"tag": "dertwin"}, {}, ["no tag dertwin"]),
        ({"serial": "X", "tag": "dertwin"}, {}, ["no serial", "no tag dertwin"]),
    ],
    ids=str,
)
def test_every_key_must_fit_and_what_does_not_is_named(
    match: dict[str, Any], properties: dict[str, str], differences: list[str]
) -> None:
    assert PortMatch(**match).differences(properties) == differences
    assert PortMatch(**match).matches(properties) == (not differences)


def test_a_serial_number_has_a_short_spelling() -> None:
    short, long = (
        RtuBinding.model_validate({"kind": "modbus_rtu", "port": port})
        for port in ("usb:FT4XYZ12", {"serial": "FT4XYZ12"})
    )
    assert short == long
    assert str(short.port) == "usb:FT4XYZ12"


@pytest.mark.parametrize(
    "match", [{}, {"serial": ""}, {"vendor": "403"}, {"product": "60 1"}, {"seral": "x"}]
)
def test_a_match_that_can_mean_nothing_is_refused(match: dict[str, Any]) -> None:
    with pytest.raises(ValidationError):
        PortMatch(**match)


def port(node: str, properties: dict[str, str]) -> Port:
    return Port(f"/dev/{node}", properties, "", "")


PORTS = [port("ttyUSB1", CH340), port("ttyUSB0", FTDI), port("ttyAMA0", BOARD)]


def test_the_one_port_that_matches_is_chosen() -> None:
    assert choose(PortMatch(vendor="1a86"), PORTS).node == "/dev/ttyUSB1"


def test_no_match_is_told_with_the_candidates_and_why_each_does_not_match() -> None:
    with pytest.raises(PortAbsent) as error:
        choose(PortMatch(vendor="0403", serial="FT9"), PORTS)
    assert str(error.value) == (
        "no port matches {serial: FT9, vendor: 0403}: /dev/ttyAMA0 has no serial, no vendor; "
        "/dev/ttyUSB0 has serial FT4XYZ12; /dev/ttyUSB1 has no serial, vendor 1a86"
    )


def test_more_than_one_match_is_told_with_what_tells_them_apart() -> None:
    with pytest.raises(PortAmbiguous) as error:
        choose(PortMatch(interface=0), PORTS)
    assert str(error.value) == (
        f"/dev/ttyUSB0 (serial FT4XYZ12, path {FTDI['ID_PATH']}, interface 00) and "
        f"/dev/ttyUSB1 (path {CH340['ID_PATH']}, interface 00) "
        "match {interface: 0}; say more: `dertwin ports` shows what"
    )


LINKS = "/dev/serial/by-path/x-port{0} /dev/serial/by-id/usb-MOXA-if00-port{0}"
# One interface for two ports, as some drivers have it: only the links of udev tell them apart.
MOXA = [{**CH340, "ID_SERIAL_SHORT": "M1", "DEVLINKS": LINKS.format(number)} for number in (0, 1)]


@pytest.mark.parametrize(
    ("wanted", "others", "expected"),
    [
        (FTDI, [CH340, BOARD], '"port": "usb:FT4XYZ12"'),
        (CH340, [FTDI], f'"port": {{"path": "{CH340["ID_PATH"]}"}}'),
        (THIRD_OF_FOUR, [{**THIRD_OF_FOUR, "ID_USB_INTERFACE_NUM": "01"}],
         '"port": {"serial": "FT4XYZ12", "interface": 2}'),
        # Two cheap adapters with the serial number of their whole series.
        ({**CH340, "ID_SERIAL_SHORT": "0001"}, [{**FTDI, "ID_SERIAL_SHORT": "0001"}],
         f'"port": {{"path": "{CH340["ID_PATH"]}"}}'),
        (BOARD, [FTDI], '"port": {"tag": "dertwin"}'),
        (MOXA[1], [MOXA[0]], '"port": "/dev/serial/by-id/usb-MOXA-if00-port1"'),
        ({}, [FTDI], '"port": "/dev/wanted"'),
    ],
)  # fmt: skip
def test_what_to_write_in_a_config_means_this_port_and_no_other(
    wanted: dict[str, str], others: list[dict[str, str]], expected: str
) -> None:
    this = port("wanted", wanted)
    assert stanza(this, [this, *(port(f"other{n}", other) for n, other in enumerate(others))]) == expected
