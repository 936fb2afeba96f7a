"""What set-up found, and status.txt: the state of the box in words, on the card for a laptop to read."""

import json
from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

from bench.appliance.places import Places, writable
from bench.files import replace_file

_FILE = "run/dertwin-appliance.json"


@dataclass(frozen=True, slots=True)
class Report:
    """What set-up, or a site put in place since, has decided; faults are lines for the user."""

    host_name: str = ""
    version: str = ""
    can_log_in: bool = False
    site: str = ""
    devices: Sequence[str] = ()
    site_faults: Sequence[str] = ()
    settings_faults: Sequence[str] = ()
    system_faults: Sequence[str] = ()

    @property
    def faults(self) -> bool:
        """Tell whether anything is not as it was meant to be."""
        return bool(self.site_faults or self.settings_faults or self.system_faults)

    def save(self, places: Places) -> None:
        """Keep the report until the next boot. Raises OSError."""
        path = places.root / _FILE
        path.parent.mkdir(parents=True, exist_ok=True)
        replace_file(path, json.dumps(asdict(self)).encode())


def load_report(places: Places) -> Report:
    """Return the report of this boot; an empty one if there is none."""
    try:
        return Report(**json.loads((places.root / _FILE).read_text()))
    except (OSError, ValueError, TypeError):
        return Report()


@dataclass(frozen=True, slots=True)
class Live:
    """What the box is like now: the service's state and what it says, addresses, adapters, the update."""

    state: str = "starting"
    lines: Sequence[str] = ()
    addresses: Sequence[str] = ()
    adapters: Sequence[str] = ()
    update: Sequence[str] = ()


STARTING = Live()


def status_text(report: Report, live: Live) -> str:
    """Return what stands in status.txt: the same as long as nothing changes."""
    name = report.host_name
    log_in = f"ssh bench@{name}.local" if report.can_log_in else "nobody can: bench.yaml has no ssh_keys"
    sections = {
        "Site": [report.site],
        "Your site is not served": report.site_faults,
        "Devices": report.devices,
        "Wrong in bench.yaml, and left out": report.settings_faults,
        "Wrong on this box": report.system_faults,
        "Addresses": live.addresses,
        "Log in": [log_in],
        "Serial adapters": live.adapters,
        "Update": live.update,
        "Software": [report.version],
    }
    shown = [_section(title, lines) for title, lines in sections.items() if any(lines)]
    return "\n".join([_section(f"{name}: {live.state}", live.lines), *shown])


def _section(title: str, lines: Iterable[str]) -> str:
    return "".join(f"{line}\n" for line in [title, *(f"  {line}" for line in lines if line)])


def tell(places: Places, report: Report, live: Live = STARTING) -> bool:
    """Write status.txt on the card unless it says so already; return whether. Raises OSError."""
    path, text = places.user_files / "status.txt", status_text(report, live).encode()
    if _content(path) == text:
        return False
    with writable(places.card):
        path.parent.mkdir(exist_ok=True)
        replace_file(path, text)
    return True


def _content(path: Path) -> bytes | None:
    try:
        return path.read_bytes()
    except OSError:
        return None
