"""Opens serial ports: exclusively, with the settings of their line, and as fast as the driver can."""

import contextlib
import errno
import os
import sys
import termios
from collections.abc import Iterable

from serial import Serial, SerialException
from serial.rs485 import RS485Settings

from bench.links.link import LinkDown
from dertwin.bindings import Rs485, RtuBinding
from dertwin.scenario.link import Break, WholeLinkFault, WrongSettings

_REMEDIES = {
    errno.ENOENT: "does not exist",
    errno.EACCES: "permission denied; add this user to the group dialout and log in again",
    errno.EPERM: "not permitted; the service or container it runs in must be given the device",
    errno.EWOULDBLOCK: "in use by another program; `dertwin ports` shows which",
    errno.EBUSY: "in use by another program; `dertwin ports` shows which",
    errno.ENOTTY: "is not a serial port",
    errno.EISDIR: "is not a serial port",
    errno.EINVAL: "does not take this baudrate, bytesize, parity or stopbits",
}


def open_port(path: str, binding: RtuBinding) -> Serial:
    """Open the port at `path` with the settings of a binding, not blocking. Raises LinkDown."""
    # Pseudo-terminals have no parity, and when opened a second time with one they refuse it.
    virtual = is_virtual(path)
    try:
        port = Serial(
            path,
            baudrate=binding.baudrate,
            bytesize=8 if virtual else binding.bytesize,
            parity="N" if virtual else binding.parity,
            stopbits=binding.stopbits,
            timeout=0,
            # Makes VMIN 1: with 0, a wake-up without data would look as if the port had gone.
            inter_byte_timeout=0,
            exclusive=True,
        )
        port.reset_input_buffer()
    except (SerialException, OSError, ValueError, termios.error) as error:
        number = _error_number(error)
        raise LinkDown(f"{path}: {_REMEDIES.get(number) or os.strerror(number)}") from error
    try:
        if sys.platform == "linux":
            with contextlib.suppress(ValueError):  # the driver has no such setting
                port.set_low_latency_mode(True)
        if binding.rs485 and not virtual:
            _switch_direction(port, binding.rs485)
    except BaseException:
        port.close()
        raise
    return port


def is_virtual(path: str) -> bool:
    """Tell whether a port is a pseudo-terminal."""
    return os.path.realpath(path).startswith("/dev/pts/")


def set_faults(port: Serial, binding: RtuBinding, faults: Iterable[WholeLinkFault]) -> None:
    """Give an open port the settings and the break state that faults want, else what its binding has.

    A pseudo-terminal has only a baud rate. Raises LinkDown if the driver refuses.
    """
    baudrate, parity, broken = binding.baudrate, binding.parity, False
    for fault in faults:
        broken = broken or isinstance(fault, Break)
        if isinstance(fault, WrongSettings):
            baudrate, parity = fault.baudrate or baudrate, fault.parity or parity
    try:
        port.baudrate = baudrate
        if not is_virtual(str(port.port)):
            port.parity = parity
            port.break_condition = broken
    except (SerialException, OSError, ValueError, termios.error) as error:
        number = _error_number(error)
        raise LinkDown(f"{port.port}: {_REMEDIES.get(number) or os.strerror(number)}") from error


def _switch_direction(port: Serial, rs485: Rs485) -> None:
    """Let the driver drive the transceiver: RTS while sending, and for how long before and after."""
    try:
        port.rs485_mode = RS485Settings(
            rts_level_for_tx=rs485.rts_on_send,
            rts_level_for_rx=rs485.rts_after_send,
            delay_before_tx=rs485.delay_before_ms / 1000,
            delay_before_rx=rs485.delay_after_ms / 1000,
        )
    except (ValueError, NotImplementedError) as error:
        remedy = "leave rs485 out if the adapter switches by itself, as most do"
        raise LinkDown(f"{port.port}: its driver cannot switch an RS-485 transceiver; {remedy}") from error


def _error_number(error: BaseException) -> int:
    """Return the operating system's number for what pyserial raised, or hid in the text of what it raised."""
    if isinstance(error, OSError) and error.errno:
        return error.errno
    if isinstance(error, termios.error):
        return int(error.args[0])
    return _error_number(error.__context__) if error.__context__ else errno.EINVAL
