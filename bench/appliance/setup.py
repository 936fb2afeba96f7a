"""`dertwin appliance setup`: makes the box, at each boot, what its card and its data partition say.

No mistake on the card, and no broken partition, keeps the box from being reached: what cannot be done is
said in status.txt and in the journal, and the rest is done.
"""

import os
import shutil
import socket
import subprocess
from collections.abc import Callable
from pathlib import Path
from typing import TypeVar

import structlog

from bench.appliance.identity import keep_host_key, unique_name, version
from bench.appliance.places import Places
from bench.appliance.report import Report, load_report, tell
from bench.appliance.settings import BenchConfig, Metrics, Settings, read_settings
from bench.appliance.sites import choose, open_ports, serve
from bench.appliance.system_files import (
    AUTHORIZED_KEYS,
    SECRETS,
    SSH_SERVER,
    USER,
    WEB_CONFIG,
    ssh_server,
    system_files,
)
from bench.files import reason, replace_file
from bench.log import set_up_logging
from bench.web_config import read_web_config
from dertwin.config_errors import ConfigError, ConfigErrors

log = structlog.get_logger()

T = TypeVar("T")


class Attempts:
    """Carries out steps; what goes wrong is kept in words, and the next step has its turn."""

    def __init__(self) -> None:
        """Nothing has gone wrong yet."""
        self.faults: list[str] = []

    def __call__(self, what: str, step: Callable[[], T]) -> T | None:
        """Return what a step returns, None if it fails."""
        try:
            return step()
        except subprocess.CalledProcessError as error:
            told = (error.stderr or "").strip() or f"status {error.returncode}"
            self.faults.append(f"{what}: {error.cmd[0]}: {told}")
        except (OSError, LookupError) as error:
            told = reason(error) if isinstance(error, OSError) else str(error)
            self.faults.append(f"{what}: {told}")
        return None


def set_up(places: Places) -> int:
    """Carry out all steps, whatever becomes of each, and return the exit status 0."""
    set_up_logging()
    attempt = Attempts()
    if places.live and not _lasts(places.data):
        message = (
            "the data partition is broken: what is put here is lost when the power goes; flash the card again"
        )
        attempt.faults.append(message)
    config, errors = _take_web_config(places, read_settings(places.settings))
    name = config.hostname or unique_name(places)
    attempt("system files", lambda: _write_system_files(places, config, name))
    attempt("SSH", lambda: _write_ssh_server(places))
    attempt("time zone", lambda: _set_time_zone(places, config.timezone))
    report = Report(
        host_name=name,
        version=version(places),
        can_log_in=bool(config.ssh_keys),
        settings_faults=[str(error) for error in errors],
        system_faults=attempt.faults,
    )
    attempt("incoming sites", lambda: _make_incoming(places))
    chosen = choose(places)
    report = attempt("site", lambda: serve(places, chosen, report)) or report
    attempt("firewall", lambda: open_ports(places, chosen, config.metrics))
    attempt("report", lambda: report.save(places))
    attempt("status.txt", lambda: tell(places, report))
    for fault in [*report.settings_faults, *report.site_faults, *attempt.faults]:
        log.error("set-up found a fault", fault=fault)
    return 0


def _lasts(folder: Path) -> bool:
    """Tell whether a folder is mounted, and not what image/initrd/init mounts where it finds no disk."""
    mounted = [line.split()[:2] for line in Path("/proc/self/mounts").read_text().splitlines()]
    return any(place == str(folder) and source != "memory" for source, place in mounted)


def take_site(places: Places) -> int:
    """Choose the site again, and serve it from now on; for the start of the service.

    Raises OSError or CalledProcessError.
    """
    set_up_logging()
    chosen = choose(places)
    report = serve(places, chosen, load_report(places))
    report.save(places)
    open_ports(places, chosen, read_settings(places.settings).config.metrics)
    for fault in report.site_faults:
        log.error("site refused", fault=fault)
    return 0


def _take_web_config(places: Places, settings: Settings) -> Settings:
    """Copy the web config and its certificates; if they are bad, metrics stay on the box."""
    named = settings.config.metrics.web_config
    if named is None:
        return settings
    source = places.user_files / named
    try:
        _, files = read_web_config(source)
        target = places.root / WEB_CONFIG
        for file in files:
            copy = target if file == source else target.parent / file.relative_to(source.parent)
            copy.parent.mkdir(parents=True, exist_ok=True)
            replace_file(copy, file.read_bytes(), 0o640)  # hashed passwords, and the private key
            if places.live:
                shutil.chown(copy, group="dertwin")
    except (ConfigErrors, OSError, ValueError, LookupError) as error:
        found = getattr(error, "errors", (ConfigError(str(source), "", str(error)),))
        only_here = settings.config.model_copy(update={"metrics": Metrics()})
        return Settings(only_here, [*settings.errors, *found])
    return settings


def _write_system_files(places: Places, config: BenchConfig, name: str) -> None:
    for path, text in system_files(config, name).items():
        file = places.root / path
        file.parent.mkdir(parents=True, exist_ok=True)
        replace_file(file, text.encode(), 0o600 if path in SECRETS else 0o644)
    if places.live:
        # The kernel has the name of the image since it started.
        socket.sethostname(name)


def _make_incoming(places: Places) -> None:
    places.incoming.mkdir(exist_ok=True)
    if places.live:
        shutil.chown(places.incoming, USER, USER)


def _write_ssh_server(places: Places) -> None:
    key = keep_host_key(places)
    file = places.root / SSH_SERVER
    file.parent.mkdir(parents=True, exist_ok=True)
    replace_file(file, ssh_server(str(key), str(places.root / AUTHORIZED_KEYS)).encode())


def _set_time_zone(places: Places, zone: str) -> None:
    link = places.root / "etc/localtime"
    new = link.with_name("localtime.new")
    new.unlink(missing_ok=True)
    new.symlink_to(f"/usr/share/zoneinfo/{zone}")
    os.replace(new, link)
