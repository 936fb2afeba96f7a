"""Cuts the power of a serial adapter for a while: a port of a USB hub, or a relay on a GPIO line."""

import asyncio
import contextlib
import shutil
from collections.abc import AsyncIterator

from bench.links.link import LinkDown
from bench.links.pty import die_with_parent
from dertwin.bindings import GpioPower, UsbPower

_PACKAGES = {"uhubctl": "uhubctl", "gpioset": "gpiod"}
# A program that cannot do what it was asked to ends well within this.
_FAILS_WITHIN_S = 0.3
_TIMEOUT_S = 10.0


def unavailable(power: UsbPower | GpioPower) -> str:
    """Return why the power cannot be switched here; empty if it can be tried."""
    program = _command(power)[0]
    if shutil.which(program):
        return ""
    return f"{program} is not installed; install the package {_PACKAGES[program]}"


@contextlib.asynccontextmanager
async def switched_off(power: UsbPower | GpioPower | None) -> AsyncIterator[None]:
    """Keep the power off inside the context; None: there is none to switch.

    Raises LinkDown when the program that switches it is missing or fails.
    """
    if power is None:
        yield
    elif isinstance(power, UsbPower):
        try:
            await _run(_command(power, "off"))
            yield
        finally:
            await _run(_command(power, "on"))
    else:
        process = await _start(_command(power))
        try:
            await _still_runs(process, _command(power))
            yield
        finally:
            with contextlib.suppress(ProcessLookupError):
                process.terminate()
            await process.communicate()


def _command(power: UsbPower | GpioPower, action: str = "") -> list[str]:
    if isinstance(power, UsbPower):
        return ["uhubctl", "-l", power.hub, "-p", str(power.port), "-a", action]
    # It holds the line until it is told to end.
    return ["gpioset", "--chip", power.chip, f"{power.line}={power.level}"]


async def _start(command: list[str]) -> asyncio.subprocess.Process:
    try:
        return await asyncio.create_subprocess_exec(
            *command,
            stdin=asyncio.subprocess.DEVNULL,
            stdout=asyncio.subprocess.DEVNULL,
            stderr=asyncio.subprocess.PIPE,
            preexec_fn=die_with_parent(),
        )
    except OSError as error:
        raise LinkDown(f"{command[0]} cannot be started: {error.strerror}") from error


async def _run(command: list[str]) -> None:
    process = await _start(command)
    try:
        _, stderr = await asyncio.wait_for(process.communicate(), _TIMEOUT_S)
    except TimeoutError as error:
        raise LinkDown(f"{' '.join(command)}: did not end within {_TIMEOUT_S:g} s") from error
    finally:
        if process.returncode is None:
            process.kill()
            await process.communicate()
    if process.returncode:
        raise _failed(command, process.returncode, stderr)


async def _still_runs(process: asyncio.subprocess.Process, command: list[str]) -> None:
    with contextlib.suppress(TimeoutError):
        status = await asyncio.wait_for(process.wait(), _FAILS_WITHIN_S)
        _, stderr = await process.communicate()
        raise _failed(command, status, stderr)


def _failed(command: list[str], status: int, stderr: bytes) -> LinkDown:
    told = stderr.decode(errors="replace").strip().splitlines()
    return LinkDown(f"{' '.join(command)}: {told[0] if told else f'exit status {status}'}")
