"""`dertwin site ...`: puts a site on a box, takes it back, shows it; on the box itself or over SSH."""

import contextlib
import fcntl
import io
import os
import subprocess
import sys
import tarfile
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import IO

from bench.appliance.places import Places, as_user
from bench.appliance.remote import over_ssh
from bench.appliance.report import load_report
from bench.appliance.settings import read_settings
from bench.appliance.site_files import SiteFiles, find_config, gather
from bench.appliance.sites import Chosen, open_ports, put, roll_back, serve
from bench.check import check_site
from dertwin.config_errors import ConfigError, ConfigErrors

# What comes over SSH is unpacked in memory.
MOST_BYTES = 64 * 1024 * 1024


def put_site(places: Places, file: str, host: str | None) -> int:
    """Put a site in place, `-` for a tar of it from standard input. Raises ConfigErrors if it is bad."""
    if host:
        config = Path(file)
        check_site(config, served_here=False)  # whether addresses are the box's, only the box knows
        return over_ssh(host, ["site", "put", "-"], io.BytesIO(_packed(gather(config))))
    with _changing(places):
        with _as_caller():
            files = _good_site(file)
        return _serve(places, put(places, files))


def roll_back_site(places: Places, host: str | None) -> int:
    """Serve the site before the current one again. Raises ConfigErrors if there is none that is good."""
    if host:
        return over_ssh(host, ["site", "rollback"])
    with _changing(places):
        return _serve(places, roll_back(places))


def show_site(places: Places, host: str | None) -> int:
    """Print the config that is served, and to standard error where it came from. Raises OSError."""
    if host:
        return over_ssh(host, ["site", "show"])
    config = (places.served / "site.json").read_text()
    report = load_report(places)
    print("\n".join([report.site, *report.site_faults]), file=sys.stderr, flush=True)
    print(config.rstrip("\n"))
    return 0


@contextlib.contextmanager
def _changing(places: Places) -> Iterator[None]:
    """Let one at a time change which site is served. Raises OSError, ConfigErrors where there is no box."""
    if not places.data.is_dir():
        message = "is not there: this is no appliance; say on which one: dertwin site ... HOST"
        raise ConfigErrors([ConfigError(str(places.data), "", message)])
    places.sites.mkdir(exist_ok=True)
    folder = os.open(places.sites, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        fcntl.flock(folder, fcntl.LOCK_EX)
        yield
    finally:
        os.close(folder)


@contextlib.contextmanager
def _as_caller() -> Iterator[None]:
    """Have the rights of whoever has called sudo."""
    with as_user(int(os.environ.get("SUDO_UID", "0")), int(os.environ.get("SUDO_GID", "0"))):
        yield


def _good_site(file: str) -> SiteFiles:
    """Read a site, `-` for a tar of it from standard input. Raises ConfigErrors if it is bad."""
    if file != "-":
        check_site(Path(file))
        return gather(Path(file))
    with _unpacked(sys.stdin.buffer) as config:
        check_site(config)
        return gather(config)


def _serve(places: Places, chosen: Chosen) -> int:
    report = serve(places, chosen, load_report(places))
    report.save(places)
    open_ports(places, chosen, read_settings(places.settings).config.metrics)
    if places.live:
        # A service that runs goes on with what stays the same; one that has failed is started.
        reload = ["systemctl", "reload-or-restart", "dertwin.service"]
        subprocess.run(reload, check=True, capture_output=True, text=True)
    print("\n".join(["now served: " + report.site, *(f"  {device}" for device in report.devices)]))
    return 0


def _packed(files: SiteFiles) -> bytes:
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w") as tar:
        for name, data in files.items():
            member = tarfile.TarInfo(name)
            member.size = len(data)
            tar.addfile(member, io.BytesIO(data))
    return buffer.getvalue()


@contextlib.contextmanager
def _unpacked(stream: IO[bytes]) -> Iterator[Path]:
    """Unpack a site, and yield its config, relative to where the process is then. Raises ConfigErrors."""
    data = stream.read(MOST_BYTES + 1)
    if len(data) > MOST_BYTES:
        message = f"has more than {MOST_BYTES >> 20} MiB with its files; make its CSV files smaller"
        raise ConfigErrors([ConfigError("the site", "", message)])
    with tempfile.TemporaryDirectory() as folder, contextlib.chdir(folder):
        try:
            with tarfile.open(fileobj=io.BytesIO(data)) as tar:
                tar.extractall(filter="data")
        except tarfile.TarError as error:
            message = f"is not what `dertwin site put` sends: {error}"
            raise ConfigErrors([ConfigError("standard input", "", message)]) from error
        if (config := find_config(Path())) is None:
            raise ConfigErrors([ConfigError("standard input", "", "has no site.json or site.yaml in it")])
        yield config
