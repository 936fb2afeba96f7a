"""What the box is like now, asked of those who know: systemd, the kernel, udev."""

import json
import re
import subprocess
from collections.abc import Mapping, Sequence
from typing import NamedTuple

from bench.appliance.led import State
from bench.appliance.places import Places
from bench.appliance.report import Report
from bench.cli import EX_CONFIG
from bench.links.link import LinkDown
from bench.port_list import about, stanza
from bench.ports import look
from dertwin.config_errors import ConfigErrors

SERVICE = "dertwin.service"
_PROPERTIES = "ActiveState,SubState,Result,ExecMainStatus,StatusText,NRestarts,ActiveEnterTimestampMonotonic"
# What the service says of itself (bench/notify.py); how late it is changes all the time.
_STATUS = re.compile(
    r"(?:(?P<complaint>.*?); )?(?P<links>\d+ devices, \d+ of \d+ links up)"
    r"(?:, lag [^;]*)?(?:; (?P<failed>(?!down: ).*?))?(?:; (?P<down>down: .*))?"
)


class Verdict(NamedTuple):
    """How the service is, and why, in lines that stay the same while it does."""

    state: State
    lines: Sequence[str]


def unit_properties() -> dict[str, str]:
    """Return what systemd knows of the service; nothing if it cannot be asked."""
    command = ["systemctl", "show", SERVICE, "-p", _PROPERTIES]
    try:
        printed = subprocess.run(command, capture_output=True, text=True, timeout=10, check=False).stdout
    except (OSError, subprocess.TimeoutExpired):
        return {}
    return dict(line.split("=", 1) for line in printed.splitlines() if "=" in line)


def judge(unit: Mapping[str, str], report: Report) -> Verdict:
    """Return how the service is, by systemd's properties of it and what set-up found."""
    said = unit.get("StatusText", "")
    told = _STATUS.fullmatch(said)
    parts = ("links", "down", "failed", "complaint")
    lines = [told[name] for name in parts if told[name]] if told else [said]
    match unit.get("ActiveState"), unit.get("SubState"):
        case "active", _:
            whole = len(lines) == 1 and told is not None and not report.faults
            return Verdict("running" if whole else "degraded", lines)
        case "activating", "auto-restart":
            return Verdict("failed", [f"it ended ({_end(unit)}) and is started again"])
        case (("activating" | "reloading"), _):
            return Verdict("starting", lines)
    return Verdict("failed", [f"the service has ended ({_end(unit)})"])


def _end(unit: Mapping[str, str]) -> str:
    return f"{unit.get('Result') or 'unknown'}, status {unit.get('ExecMainStatus', '?')}"


def was_refused(unit: Mapping[str, str]) -> bool:
    """Tell whether the service has ended because it refused its config."""
    return unit.get("ActiveState") == "failed" and unit.get("ExecMainStatus") == str(EX_CONFIG)


def config_faults(places: Places) -> list[str]:
    """Return what is wrong with the config that the service reads; nothing if it would take it now."""
    from bench.check import check_site  # takes its time and memory, and is needed here alone

    try:
        check_site(places.served / "site.json")
    except ConfigErrors as errors:
        return [str(error) for error in errors.errors]
    return []


def addresses() -> list[str]:
    """Return the addresses by which others reach the box, each with its adapter."""
    try:
        printed = subprocess.run(
            ["ip", "-json", "address"], capture_output=True, text=True, check=False
        ).stdout
        links = json.loads(printed or "[]")
    except (OSError, ValueError):
        return []
    return [
        f"{link['ifname']}  {address['local']}/{address['prefixlen']}"
        for link in links
        for address in link.get("addr_info", ())
        if address.get("scope") == "global"
        or (address.get("scope"), address.get("family")) == ("link", "inet")
    ]


def adapters() -> list[str]:
    """Return the serial ports, and what to write in a site config to have each."""
    try:
        ports = sorted(look().values(), key=lambda port: (len(port.node), port.node))
    except LinkDown:
        return []
    return [f"{port.node}  {about(port)}: {stanza(port, ports)}" for port in ports]
