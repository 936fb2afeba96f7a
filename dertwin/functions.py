"""The functions of Modbus by the names that metrics and scenarios have for them, and what they touch."""

from collections.abc import Mapping
from types import MappingProxyType
from typing import Literal, TypeAlias, get_args

FunctionName: TypeAlias = Literal[
    "read_coils",
    "read_discrete_inputs",
    "read_holding_registers",
    "read_input_registers",
    "write_single_coil",
    "write_single_register",
    "diagnostics",
    "write_multiple_coils",
    "write_multiple_registers",
    "mask_write_register",
    "read_write_multiple_registers",
    "read_device_identification",
]
FUNCTIONS: Mapping[int, FunctionName] = MappingProxyType(
    dict(zip((1, 2, 3, 4, 5, 6, 8, 15, 16, 22, 23, 43), get_args(FunctionName), strict=True))
)
_OF_MANY, _OF_ONE, _READ_WRITE = (1, 2, 3, 4, 15, 16), (5, 6, 22), 23


def touched(request: bytes) -> tuple[range, ...]:
    """Return the addresses that a request PDU reads or writes; none for one that has no addresses.

    Source: MODBUS Application Protocol V1.1b3, 6.
    """

    def word(index: int) -> int:
        return int.from_bytes(request[index : index + 2], "big")

    function = request[0] if request else 0
    if function in _OF_ONE:
        return (range(word(1), word(1) + 1),)
    if function in _OF_MANY:
        return (range(word(1), word(1) + word(3)),)
    if function == _READ_WRITE:
        return range(word(1), word(1) + word(3)), range(word(5), word(5) + word(7))
    return ()
