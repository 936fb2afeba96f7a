"""How a device is reached: the entries of an asset's `protocols`."""

import re
from ipaddress import ip_address
from typing import Annotated, Literal

from pydantic import AfterValidator, Discriminator, Field, Tag, field_validator

from dertwin.port_match import PortMatch
from dertwin.schema import FrozenModel

TcpUnitId = Annotated[int, Field(ge=1, le=255)]
SerialUnitId = Annotated[int, Field(ge=1, le=247)]
TcpPort = Annotated[int, Field(ge=1, le=65535)]
Baudrate = Annotated[int, Field(ge=50, le=4_000_000)]
# A path or a name, or what udev must tell of the port.
SerialPort = Annotated[
    Annotated[str, Field(min_length=1), Tag("name")] | Annotated[PortMatch, Tag("match")],
    Discriminator(lambda port: "match" if isinstance(port, dict | PortMatch) else "name"),
]


class TcpBinding(FrozenModel):
    """A Modbus TCP server socket, or (`modbus_rtu_over_tcp`) RTU frames on one.

    Bindings with the same `ip` and `port` are one server with several units.
    `unknown_unit` says what a request for no unit of this server gets: exception 0x0B or silence.
    """

    kind: Literal["modbus_tcp", "modbus_rtu_over_tcp"]
    ip: str = "0.0.0.0"
    port: TcpPort
    unit_id: TcpUnitId = 1
    register_map: str | None = None
    max_connections: int = Field(default=64, ge=1, le=10_000)
    unknown_unit: Literal["exception", "silent"] = "exception"

    @field_validator("ip")
    @classmethod
    def _one_can_listen_on_it(cls, ip: str) -> str:
        try:
            address = None if ip == "localhost" else ip_address(ip)
        except ValueError:
            address = ip_address("255.255.255.255")
        if address and (address.is_multicast or (address.version == 4 and address.is_reserved)):
            raise ValueError(
                f'"{ip}" is not allowed; use an IP address of this machine, 0.0.0.0 or localhost'
            )
        return ip


class Rs485(FrozenModel):
    """How the kernel's driver switches an RS-485 transceiver with RTS; delays in ms."""

    rts_on_send: bool = True
    rts_after_send: bool = False
    delay_before_ms: int = Field(default=0, ge=0, le=100)
    delay_after_ms: int = Field(default=0, ge=0, le=100)


def _hub(text: str) -> str:
    if not re.fullmatch(r"[0-9]+(-[0-9]+(\.[0-9]+)*)?", text):
        raise ValueError(f'"{text}" is not allowed; use a hub as uhubctl lists it, e.g. "1-1.4"')
    return text


def _chip(text: str) -> str:
    if not re.fullmatch(r"(/dev/)?gpiochip[0-9]+", text):
        raise ValueError(f'"{text}" is not allowed; use a chip as gpiodetect lists it, e.g. "gpiochip0"')
    return text


class UsbPower(FrozenModel):
    """A port of a USB hub that can switch its power; `hub` and `port` as the program uhubctl lists them."""

    hub: Annotated[str, AfterValidator(_hub)]
    port: int = Field(ge=1, le=255)


class GpioPower(FrozenModel):
    """A relay that cuts an adapter off while a GPIO line is driven to `level`.

    `chip` and `line` are as the program gpioset (libgpiod 2) takes them. At all other times the line is not
    driven: wire the relay so that the adapter then works.
    """

    chip: Annotated[str, AfterValidator(_chip)] = "gpiochip0"
    line: int = Field(ge=0, le=1023)
    level: Literal[0, 1] = 1


Power = Annotated[
    Annotated[UsbPower, Tag("usb")] | Annotated[GpioPower, Tag("gpio")],
    Discriminator(
        lambda power: (
            "usb"
            if isinstance(power, UsbPower) or (isinstance(power, dict) and "line" not in power)
            else "gpio"
        )
    ),
]


class RtuBinding(FrozenModel):
    """A Modbus RTU server on a serial line.

    `port` is a path, `pty:NAME` (a virtual pair), `usb:SERIAL` or a PortMatch. Bindings with the same
    `port` are one server with several units on one line. `timeout` (s) is accepted for compatibility;
    a server does not wait for anything. `fallback: pty` serves a virtual pair while the path does not
    exist or no port matches. `rs485` is for ports whose driver switches the direction; most adapters
    do so themselves and want none. `power` is what cuts the adapter's power, for the fault `unplugged`.
    """

    kind: Literal["modbus_rtu"]
    port: SerialPort
    baudrate: Baudrate = 9600
    parity: Literal["N", "E", "O"] = "N"
    stopbits: Literal[1, 2] = 1
    bytesize: Literal[7, 8] = 8
    timeout: float = Field(default=1.0, gt=0)
    unit_id: SerialUnitId = 1
    register_map: str | None = None
    min_turnaround_ms: float = Field(default=2.0, ge=0, le=1000)
    suppress_echo: bool = False
    rs485: Rs485 | None = None
    power: Power | None = None
    fallback: Literal["pty", "none"] = "none"

    @field_validator("port")
    @classmethod
    def _a_name_is_complete(cls, port: str | PortMatch) -> str | PortMatch:
        if isinstance(port, PortMatch):
            return port
        serial = port.removeprefix("usb:")
        if serial != port:
            if not serial:
                raise ValueError(f'"{port}" is not allowed; use usb: and a serial number')
            return PortMatch(serial=serial)
        name = port.removeprefix("pty:")
        if name != port and not (name.isascii() and name.replace("-", "_").isidentifier()):
            raise ValueError(f'"{port}" is not allowed; use pty: and a name of letters, digits, _ and -')
        return port


Binding = Annotated[TcpBinding | RtuBinding, Field(discriminator="kind")]
