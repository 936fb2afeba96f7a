"""The errors a Modbus server answers with: one class per exception code on the wire.

Source: MODBUS Application Protocol V1.1b3, 7.
"""

from typing import ClassVar


class ModbusError(Exception):
    """A request that is answered with an exception reply; `code` is its second byte."""

    code: ClassVar[int]


class IllegalFunction(ModbusError):
    """The server does not offer the function (or its sub-function, or its MEI type)."""

    code = 0x01


class IllegalDataAddress(ModbusError):
    """The request touches an address that the device does not have, or must not touch."""

    code = 0x02


class IllegalDataValue(ModbusError):
    """The request has a wrong length, quantity or byte count, or a value that is refused."""

    code = 0x03


class ServerDeviceFailure(ModbusError):
    """The server failed while it executed a valid request."""

    code = 0x04


class GatewayTargetFailedToRespond(ModbusError):
    """No unit of this server has the unit id of the request."""

    code = 0x0B
