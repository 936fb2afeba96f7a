"""A device as any Modbus client has it: connected, its registers read and written."""

import argparse
import os
import socket
import time
from collections.abc import Iterator, Sequence
from decimal import Decimal
from typing import TYPE_CHECKING, Any, NamedTuple

from dertwin.bindings import RtuBinding
from dertwin.registers.register import COIL, DISCRETE_INPUT, Register

if TYPE_CHECKING:
    from pymodbus.client.base import ModbusBaseSyncClient

MOST_REGISTERS = 125
MOST_BITS = 2000
# What units may need for a broadcast before the next request (MODBUS over Serial Line V1.02, 2.4.1).
BROADCAST_PAUSE_S = 0.2


class ClientError(Exception):
    """The device cannot be reached or refuses; the message says what and what helps."""


class Reading(NamedTuple):
    """One register's value in the map's unit, exactly as the raw value and the scale give it.

    The label is its option's, or the names of the bits that are set.
    """

    name: str
    value: Decimal | float | str | None
    unit: str
    label: str


class Device:
    """One unit behind a connected client; on a line, unit 0 is all of them."""

    def __init__(self, client: "ModbusBaseSyncClient", unit_id: int, on_a_line: bool) -> None:
        self._client = client
        self._unit_id = unit_id
        self.broadcasts = on_a_line and unit_id == 0

    def __enter__(self) -> "Device":
        return self

    def __exit__(self, *_: object) -> None:
        self._client.close()  # type: ignore[no-untyped-call]

    def read(self, registers: Sequence[Register]) -> Iterator[Reading]:
        """Read registers in as few requests as gaps allow. Raises ClientError."""
        if self.broadcasts:
            raise ClientError("unit 0 means all units of a line, and none replies; use -u with the id of one")
        for block in _blocks(registers):
            first, count = block[0], block[-1].stop - block[0].address
            reply = self._ask(_READS[first.table], first.address, count=count)
            words = reply.bits if first.table in (COIL, DISCRETE_INPUT) else reply.registers
            for register in block:
                start = register.address - first.address
                yield _reading(register, words[start : start + register.count])

    def write(self, register: Register, value: float) -> None:
        """Write one value in the map's unit. Raises ClientError."""
        if register.table == COIL:
            self._ask("write_coil", register.address, bool(value))
            return
        codec = register.codec
        raw, says_the_same = codec.fit(value / register.scale)
        if not says_the_same:
            raise ClientError(
                f"{register.name}: {value:g} does not fit into {register.type} x {register.scale:g}"
            )
        data = codec.pack(raw)
        words = [int.from_bytes(data[i : i + 2], "big") for i in range(0, len(data), 2)]
        if len(words) == 1:
            self._ask("write_register", register.address, words[0])
        else:
            self._ask("write_registers", register.address, words)

    def _ask(self, method: str, address: int, *arguments: Any, **keywords: Any) -> Any:
        from pymodbus import ModbusException

        what = f"{method.replace('_', ' ')} at {address} of unit {self._unit_id}"
        if self.broadcasts:
            keywords["no_response_expected"] = True
        try:
            reply = getattr(self._client, method)(address, *arguments, **keywords, device_id=self._unit_id)
        except (ModbusException, OSError) as error:
            raise ClientError(f"{what}: no reply; check address, wiring, baud rate and unit id") from error
        if self.broadcasts:
            time.sleep(BROADCAST_PAUSE_S)
        elif reply.isError():
            code = getattr(reply, "exception_code", 0)
            raise ClientError(f"{what}: exception {code:02d}, {_MEANINGS.get(code, 'see the device manual')}")
        return reply


_READS = {1: "read_coils", 2: "read_discrete_inputs", 3: "read_holding_registers", 4: "read_input_registers"}
_MEANINGS = {
    1: "the device does not offer this function",
    2: "the device has no such address; is this its register map?",
    3: "the device refuses this value or length",
    4: "the device failed",
    11: "no such unit id behind this address",
}


def connected(options: argparse.Namespace) -> Device:
    """Connect to what `target` and the other options of the command name. Raises ClientError."""
    from pymodbus import FramerType, pymodbus_apply_logging_config
    from pymodbus.client import ModbusSerialClient, ModbusTcpClient

    pymodbus_apply_logging_config("CRITICAL")  # what goes wrong is told once, by us
    host, colon, port = options.target.rpartition(":")
    client: ModbusTcpClient | ModbusSerialClient
    if colon and port.isdecimal() and not os.path.exists(options.target):
        framer = FramerType.RTU if options.rtu_over_tcp else FramerType.SOCKET
        address = host.strip("[]"), int(port)
        client = ModbusTcpClient(
            address[0], port=address[1], framer=framer, timeout=options.timeout, retries=1
        )
        if not client.connect():  # type: ignore[no-untyped-call]
            raise ClientError(f"cannot open {options.target}: {_why_no_connection(address, options.timeout)}")
        return Device(client, options.unit, options.rtu_over_tcp)
    # Pseudo-terminals have no parity and may refuse one.
    virtual = os.path.realpath(options.target).startswith("/dev/pts/")
    client = ModbusSerialClient(
        options.target,
        baudrate=options.baudrate,
        parity="N" if virtual else options.parity,
        stopbits=options.stopbits,
        timeout=options.timeout,
        retries=1,
    )
    if not client.connect():
        raise ClientError(f"cannot open {_why_no_port(options)}")
    return Device(client, options.unit, True)


def _why_no_connection(address: tuple[str, int], timeout_s: float) -> str:
    """Return why a connection cannot be made, which the client library keeps to itself."""
    try:
        socket.create_connection(address, timeout_s).close()
    except ConnectionRefusedError:
        return "connection refused; is the service running, and is this its port?"
    except TimeoutError:
        return f"no answer within {timeout_s:g} s; is the address right, and no firewall in between?"
    except OSError as error:
        return f"{error.strerror or error}; is the address right?"
    return "it did not answer at first; try again"


def _why_no_port(options: argparse.Namespace) -> str:
    from bench.links.link import LinkDown
    from bench.links.settings import open_port

    path = options.target
    settings = RtuBinding.model_construct(
        kind="modbus_rtu",
        port=path,
        baudrate=options.baudrate,
        parity=options.parity,
        stopbits=options.stopbits,
    )
    try:
        open_port(path, settings).close()
    except LinkDown as reason:
        if str(reason).endswith("does not exist"):
            return f"{reason}; use HOST:PORT, or a serial port that is there: `dertwin ports` lists them"
        return str(reason)
    return f"{path}: it could not be opened at first; try again"


def _blocks(registers: Sequence[Register]) -> Iterator[list[Register]]:
    """Yield runs of registers without gaps that one request reads."""
    block: list[Register] = []
    for register in registers:
        most = MOST_BITS if register.table in (COIL, DISCRETE_INPUT) else MOST_REGISTERS
        goes_on = (
            block
            and register.table == block[0].table
            and register.address == block[-1].stop
            and register.stop - block[0].address <= most
        )
        if not goes_on:
            if block:
                yield block
            block = []
        block.append(register)
    if block:
        yield block


def _reading(register: Register, words: Sequence[int]) -> Reading:
    codec = register.codec
    unit = register.unit or ""
    if register.table in (COIL, DISCRETE_INPUT):
        raw: Any = int(words[0])
    else:
        raw = codec.unpack(b"".join(word.to_bytes(2, "big") for word in words))
    if isinstance(raw, bytes):
        return Reading(register.name, raw.rstrip(b"\0").decode("ascii", "replace"), unit, "")
    if raw != raw or (codec.sentinel is not None and raw == codec.sentinel):
        return Reading(register.name, None, unit, "not available")
    label = (register.options or {}).get(int(raw), "") if isinstance(raw, int) else ""
    if register.bits and isinstance(raw, int):
        on = [name for bit, name in sorted(register.bits.items()) if raw >> bit & 1]
        if register.name in register.bits.values():  # it is read for the sake of this bit
            return Reading(register.name, Decimal(register.name in on), unit, "")
        label = ", ".join(on)
    # Exactly raw x scale: 49987 x 0.001 is 49.987, not 49.987000000000002.
    scale = Decimal(repr(register.scale)) if register.scale % 1 else int(register.scale)
    value = Decimal(raw) * scale if isinstance(raw, int) else raw * register.scale
    return Reading(register.name, value, unit, label)
