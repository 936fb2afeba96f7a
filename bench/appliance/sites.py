"""Which site a box serves: the card's, one put in place over SSH, the last good one, or the demo.

Good sites are kept in numbered folders; `current` and `previous` are links to two of them. What is on the
card counts once, when it is new: `card` has the checksum of what was looked at last.
"""

import os
import shutil
import subprocess
from collections.abc import Iterator, Sequence
from dataclasses import replace
from ipaddress import ip_address
from pathlib import Path
from typing import NamedTuple

from bench.appliance.places import Places, as_user
from bench.appliance.report import Report
from bench.appliance.settings import Metrics
from bench.appliance.site_files import (
    CONFIGS,
    SiteFiles,
    as_json,
    demo_site,
    find_config,
    fingerprint,
    gather,
    store,
)
from bench.appliance.system_files import FIREWALL, firewall
from bench.check import CheckedSite, check_site
from bench.files import reason, replace_file, sync_folder
from dertwin.bindings import TcpBinding
from dertwin.config import SiteConfig, asset_ids
from dertwin.config_errors import ConfigError, ConfigErrors
from dertwin.config_links import link_name

ON_THE_CARD = "as on the card"


class Chosen(NamedTuple):
    """The site to serve: where its config is, where it came from in words, and why not another one."""

    config: Path
    checked: CheckedSite
    origin: str
    faults: Sequence[ConfigError] = ()


def choose(places: Places) -> Chosen:
    """Take a new site from the card, or one that has come in, if it is good; else the best there is."""
    kept, faults = KeptSites(places.sites), list[ConfigError]()
    for take in (_from_the_card, _that_came_in):
        try:
            if chosen := take(places, kept):
                return chosen._replace(faults=[*faults, *chosen.faults])
        except (ConfigErrors, OSError) as found:
            faults += _faults(found)
    for name in ("current", "previous"):
        try:
            if config := kept.config(name):
                return Chosen(
                    config, check_site(config, served_here=False), _origin(places, kept, config), faults
                )
        except (ConfigErrors, OSError) as found:
            faults += _faults(found)
    return Chosen(demo_site(), check_site(demo_site(), served_here=False), "the demo site", faults)


def _from_the_card(places: Places, kept: "KeptSites") -> Chosen | None:
    """Keep the site of the card if it is new and good; return it only if it cannot be kept."""
    config = find_config(places.user_files)
    if config is None or not kept.card_is_new(files := gather(config)):
        return None
    checked = check_site(config, served_here=False)
    try:
        kept.adopt(files)
        kept.note_card(files)
    except OSError as error:
        problem = ConfigError(str(places.sites), "", f"the site cannot be kept: {reason(error)}")
        return Chosen(config, checked, ON_THE_CARD, [problem])
    return None


def _that_came_in(places: Places, kept: "KeptSites") -> None:
    """Keep a site that was copied to the box over SSH, if it is good."""
    if not places.incoming.is_dir():
        return
    owner = places.incoming.stat()
    with as_user(owner.st_uid, owner.st_gid):
        if (config := find_config(places.incoming)) is None:
            return
        check_site(config, served_here=False)
        files = gather(config)
    kept.adopt(files)
    _forget_incoming(places)


def _forget_incoming(places: Places) -> None:
    for path in places.incoming.glob("*"):
        shutil.rmtree(path) if path.is_dir() else path.unlink()


def _faults(found: ConfigErrors | OSError) -> Sequence[ConfigError]:
    return found.errors if isinstance(found, ConfigErrors) else [ConfigError("", "", reason(found))]


def serve(places: Places, chosen: Chosen, report: Report) -> Report:
    """Put a site where the service reads it, and return the report with it. Raises OSError."""
    # The config comes last, when all that it names is there.
    for name, data in as_json(gather(chosen.config), chosen.config).items():
        path = places.served / name
        path.parent.mkdir(parents=True, exist_ok=True)
        replace_file(path, data)
    return replace(
        report,
        site=f"{chosen.checked.config.site_name}: {chosen.origin}",
        devices=_devices(chosen.checked.config),
        site_faults=[str(fault) for fault in chosen.faults],
    )


def open_ports(places: Places, chosen: Chosen, metrics: Metrics) -> None:
    """Let in what is served, and nothing else. Raises OSError or CalledProcessError."""
    rules = places.root / FIREWALL
    replace_file(rules, firewall(_ports(chosen.checked.config, metrics)).encode())
    if places.live:
        subprocess.run(["nft", "-f", str(rules)], check=True, capture_output=True, text=True)


def _ports(config: SiteConfig, metrics: Metrics) -> Iterator[int]:
    for asset in config.assets:
        for binding in asset.protocols:
            if isinstance(binding, TcpBinding) and not _only_here(binding.ip):
                yield binding.port
    if metrics.public:
        yield metrics.port


def _only_here(ip: str) -> bool:
    return ip == "localhost" or ip_address(ip).is_loopback


def _devices(config: SiteConfig) -> list[str]:
    return [
        f"{name}, unit {binding.unit_id} at {link_name(binding)}"
        for name, asset in zip(asset_ids(config.assets), config.assets, strict=True)
        for binding in asset.protocols
    ]


def put(places: Places, files: SiteFiles) -> Chosen:
    """Keep a good site and serve it from now on. Raises OSError; then nothing changes."""
    kept = KeptSites(places.sites)
    kept.adopt(files)
    return _now_current(places, kept)


def roll_back(places: Places) -> Chosen:
    """Serve the site before the current one, and keep that as the one before. Raises ConfigErrors."""
    kept = KeptSites(places.sites)
    if (config := kept.config("previous")) is None:
        message = "there is no site before the current one; put one in place: dertwin site put FILE"
        raise ConfigErrors([ConfigError(str(places.sites), "", message)])
    check_site(config)
    kept.swap()
    return _now_current(places, kept)


def _now_current(places: Places, kept: "KeptSites") -> Chosen:
    _forget_incoming(places)
    try:
        if on_card := find_config(places.user_files):
            kept.note_card(gather(on_card))  # older than what was put in place now
    except ConfigErrors:
        pass  # what is not readable now is new whenever it becomes so
    config = kept.config("current")
    assert config is not None
    return Chosen(config, check_site(config), _origin(places, kept, config))


def _origin(places: Places, kept: "KeptSites", config: Path) -> str:
    if kept.card_is_new(gather(config)):
        return "put in place earlier"
    there = any((places.user_files / name).is_file() for name in CONFIGS)
    return ON_THE_CARD if there else "the last one that was on the card"


class KeptSites:
    """The folder in which good sites are kept."""

    def __init__(self, folder: Path) -> None:
        """Nothing is read yet."""
        self._folder = folder

    def config(self, name: str) -> Path | None:
        """Return the config of `current` or `previous`, if it is there."""
        folder = self._folder / name
        return find_config(folder.resolve()) if folder.is_dir() else None

    def card_is_new(self, files: SiteFiles) -> bool:
        """Tell whether these files are not what was found on the card last."""
        try:
            return (self._folder / "card").read_text() != fingerprint(files)
        except OSError:
            return True

    def note_card(self, files: SiteFiles) -> None:
        """Take it that these files were found on the card."""
        replace_file(self._folder / "card", fingerprint(files).encode())

    def adopt(self, files: SiteFiles) -> None:
        """Keep a site as `current`, and the one that was it as `previous`."""
        current = self.config("current")
        if current and fingerprint(gather(current)) == fingerprint(files):
            return
        self._folder.mkdir(parents=True, exist_ok=True)
        numbers = [int(path.name) for path in self._folder.iterdir() if path.name.isdecimal()]
        new = self._folder / str(max(numbers, default=0) + 1)
        unfinished = new.with_suffix(".new")
        shutil.rmtree(unfinished, ignore_errors=True)
        store(files, unfinished)
        os.replace(unfinished, new)
        if current:
            self._link("previous", current.parent.name)
        self._link("current", new.name)
        self._forget_others()

    def swap(self) -> None:
        """Make `previous` the current site, and the other way round."""
        current, previous = (os.readlink(self._folder / name) for name in ("current", "previous"))
        # A cut in between leaves both names on one site, which can be served.
        self._link("current", previous)
        self._link("previous", current)

    def _link(self, name: str, target: str) -> None:
        temporary = self._folder / f"{name}.new"
        temporary.unlink(missing_ok=True)
        temporary.symlink_to(target)
        os.replace(temporary, self._folder / name)
        sync_folder(self._folder)

    def _forget_others(self) -> None:
        used = {os.readlink(path) for path in self._folder.iterdir() if path.is_symlink()}
        for path in self._folder.iterdir():
            if path.name.isdecimal() and path.name not in used:
                shutil.rmtree(path, ignore_errors=True)
