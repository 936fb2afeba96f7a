"""Modbus clients that others wrote, all with the same two methods, so that what they see can be compared."""

import asyncio
import re
import subprocess
from collections.abc import Sequence
from types import TracebackType
from typing import Any, NamedTuple, Self

from pymodbus import FramerType
from pymodbus.client import (
    AsyncModbusSerialClient,
    AsyncModbusTcpClient,
    ModbusSerialClient,
    ModbusTcpClient,
)

COIL, DISCRETE_INPUT, HOLDING, INPUT = 1, 2, 3, 4
BAUDRATE = 115200
TIMEOUT_S = 2.0
HOST = "127.0.0.1"


class Reach(NamedTuple):
    """Where the units of a service are: a TCP port, a TCP port with RTU frames, a serial line."""

    tcp: int
    rtu_over_tcp: int
    rtu: str


class Pymodbus:
    """pymodbus's sync client on one of the ways to a service; a context manager."""

    def __init__(self, way: str, reach: Reach) -> None:
        if way == "rtu":
            self._client: Any = self.serial(reach.rtu, baudrate=BAUDRATE, timeout=TIMEOUT_S, retries=0)
        else:
            framer = FramerType.RTU if way == "rtu_over_tcp" else FramerType.SOCKET
            port = getattr(reach, way)
            self._client = self.tcp(HOST, port=port, framer=framer, timeout=TIMEOUT_S, retries=0)

    tcp: type = ModbusTcpClient
    serial: type = ModbusSerialClient

    def __enter__(self) -> Self:
        assert self._client.connect()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self._client.close()

    def read(self, table: int, unit_id: int, address: int, count: int) -> list[int]:
        """Return registers, or bits as 0 and 1."""
        method = {
            COIL: "read_coils",
            DISCRETE_INPUT: "read_discrete_inputs",
            HOLDING: "read_holding_registers",
            INPUT: "read_input_registers",
        }[table]
        reply = self._ask(method, address, count=count, device_id=unit_id)
        if table in (COIL, DISCRETE_INPUT):
            return [int(bit) for bit in reply.bits[:count]]
        return list(reply.registers)

    def write(self, table: int, unit_id: int, address: int, values: Sequence[int]) -> None:
        """Write registers or bits: one with function 05 or 06, more with 15 or 16."""
        kind = "coil" if table == COIL else "register"
        given: Any = [bool(value) for value in values] if table == COIL else list(values)
        if len(given) == 1:
            self._ask(f"write_{kind}", address, given[0], device_id=unit_id)
        else:
            self._ask(f"write_{kind}s", address, given, device_id=unit_id)

    def _ask(self, method: str, *arguments: Any, **keywords: Any) -> Any:
        reply = getattr(self._client, method)(*arguments, **keywords)
        assert not reply.isError(), reply
        return reply


class AsyncPymodbus(Pymodbus):
    """pymodbus's async client."""

    tcp = AsyncModbusTcpClient
    serial = AsyncModbusSerialClient

    def __init__(self, way: str, reach: Reach) -> None:
        self._runner = asyncio.Runner()
        self._runner.run(self._create(way, reach))

    async def _create(self, way: str, reach: Reach) -> None:
        super().__init__(way, reach)

    def __enter__(self) -> Self:
        assert self._runner.run(self._client.connect())
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self._runner.get_loop().call_soon(self._client.close)
        self._runner.close()

    def _ask(self, method: str, *arguments: Any, **keywords: Any) -> Any:
        reply = self._runner.run(getattr(self._client, method)(*arguments, **keywords))
        assert not reply.isError(), reply
        return reply


_MBPOLL_TYPES = {COIL: "0", DISCRETE_INPUT: "1", HOLDING: "4", INPUT: "3"}


class Mbpoll:
    """mbpoll, a C program on libmodbus, run once for each request."""

    def __init__(self, way: str, reach: Reach) -> None:
        if way == "rtu":
            self._options = ["-m", "rtu", "-b", str(BAUDRATE), "-P", "none"]
            self._target = reach.rtu
        else:
            self._options = ["-m", "tcp", "-p", str(reach.tcp)]
            self._target = HOST

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        pass

    def read(self, table: int, unit_id: int, address: int, count: int) -> list[int]:
        """Return registers, or bits as 0 and 1."""
        shown = self._run(unit_id, address, "-t", _MBPOLL_TYPES[table], "-c", str(count))
        return [int(value) for value in re.findall(r"^\[\d+\]:\s+(\d+)", shown, re.MULTILINE)]

    def read_as(self, kind: str, table: int, unit_id: int, address: int, low_word_first: bool) -> float:
        """Return one number of two registers as mbpoll understands it; `kind` is `int` or `float`."""
        order = [] if low_word_first else ["-B"]
        shown = self._run(unit_id, address, "-t", f"{_MBPOLL_TYPES[table]}:{kind}", *order)
        (value,) = re.findall(r"^\[\d+\]:\s+(\S+)", shown, re.MULTILINE)
        return float(value)

    def write(self, table: int, unit_id: int, address: int, values: Sequence[int]) -> None:
        """Write registers or bits: one with function 05 or 06, more with 15 or 16."""
        self._run(unit_id, address, "-t", _MBPOLL_TYPES[table], values=values)

    def write_as(self, kind: str, unit_id: int, address: int, value: float, low_word_first: bool) -> None:
        """Write one number to two holding registers as mbpoll understands it."""
        order = [] if low_word_first else ["-B"]
        self._run(unit_id, address, "-t", f"4:{kind}", *order, values=[value])

    def _run(self, unit_id: int, address: int, *options: str, values: Sequence[float] = ()) -> str:
        written = ["--", *map(str, values)] if values else []
        command = ["mbpoll", "-0", "-1", "-q", "-o", str(TIMEOUT_S), "-a", str(unit_id), "-r", str(address)]
        done = subprocess.run(
            [*command, *self._options, *options, self._target, *written],
            capture_output=True,
            text=True,
            timeout=20,
            check=False,
        )
        assert done.returncode == 0, done.stdout + done.stderr
        return done.stdout
