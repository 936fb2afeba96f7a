"""How much memory a service takes for 100 devices, and whether it stays flat over a simulated day."""

import struct
import time
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import programs
import yaml
from programs import Missing, Process
from support.service import free_ports
from table import Figure

KINDS = {"bess": "bess_modbus", "inverter": "pv_inverter_modbus", "energy_meter": "energy_meter_modbus"}
# The service is simulated this much faster, at steps so long that it has time to spare.
SPEED, STEP_S, DAY_S = 1000, 10.0, 86_400
FLAT_MIB = 1.0


def figures(folder: Path) -> list[Figure]:
    """Weigh a service of 100 devices against one of a single device, then watch it for a simulated day."""
    try:
        first_mib, _ = _weigh(folder, 1, seconds=0)
        many_mib, after_a_day_mib = _weigh(folder, 100, seconds=DAY_S / SPEED)
    except Missing as error:
        remark = f"ours not measured: {error}"
        added, growth = {}, {}
    else:
        remark = f"{first_mib:.1f} MiB with one device, {many_mib:.1f} MiB with 100"
        added, growth = {"ours": many_mib - first_mib}, {"ours": after_a_day_mib - many_mib}
    return [
        Figure(
            "memory of 100 devices above that of one",
            "MiB",
            added,
            "<= 20",
            lambda m: m["ours"] <= 20.0,
            remark,
        ),
        Figure(
            "growth of 100 devices over a simulated day",
            "MiB",
            growth,
            f"<= {FLAT_MIB:g}",
            lambda m: m["ours"] <= FLAT_MIB,
        ),
    ]


def _weigh(folder: Path, count: int, seconds: float) -> tuple[float, float]:
    """Return the resident memory (MiB) of a service with a port for each device, now and after `seconds`."""
    kinds = [list(KINDS)[n % len(KINDS)] for n in range(count)]
    devices = dict(zip(free_ports(count), kinds, strict=True))
    assets: list[dict[str, Any]] = [
        {"type": kind, "ip": "127.0.0.1", "port": port} for port, kind in devices.items()
    ]
    with ExitStack() as stack:
        command = programs.our_server(folder, assets, speed=SPEED, step=STEP_S)
        process = stack.enter_context(programs.running(command))
        end = time.monotonic() + seconds
        _read_all(process, devices)
        start_mib = _resident_mib(process)
        while (left_s := end - time.monotonic()) > 0:
            time.sleep(min(5.0, left_s))
            _read_all(process, devices)
        return start_mib, _resident_mib(process)


def _read_all(process: Process, devices: dict[int, str]) -> None:
    """Read a register of every device, so that every register image is in memory."""
    for port, kind in devices.items():
        programs.wait_until_answered(process, port, _request(kind))


def _request(kind: str) -> bytes:
    """Return the request for the first register that the shipped map of a device type can be read at."""
    text = (programs.REPOSITORY / "register_maps" / f"{KINDS[kind]}.yaml").read_text()
    entries = yaml.safe_load(text)["registers"]
    first = next(e for e in entries if e["direction"] == "read" and e["func"] in (3, 4))
    return struct.pack(">HHHBBHH", 1, 0, 6, 1, first["func"], first["address"], first["count"])


def _resident_mib(process: Process) -> float:
    status = Path(f"/proc/{process.pid}/status").read_text()
    (line,) = (line for line in status.splitlines() if line.startswith("VmRSS:"))
    return int(line.split()[1]) / 1024
