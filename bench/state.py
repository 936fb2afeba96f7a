"""Saves what a site has become, and lets the next run go on from there: one file for each site.

A file is a line with the format and the SHA-256 of the rest, then JSON. Writing is atomic: whenever
it is cut, the file or the one before it (`.previous`) is whole.
"""

import asyncio
import contextlib
import hashlib
import json
import os
from dataclasses import dataclass
from datetime import UTC, datetime
from functools import cache
from pathlib import Path
from typing import Any
from urllib.parse import quote

import structlog
from pydantic import TypeAdapter, ValidationError

from bench.app import Bench
from bench.files import sync_folder, write_through
from dertwin.devices.device import Device
from dertwin.environment import EnvironmentConfig
from dertwin.site import Site

log = structlog.get_logger()

FORMAT = b"dertwin-state-1"
SAVE_EVERY_S = 10.0


class NotAState(Exception):
    """The file is no saved state of this site; the message says why."""


@dataclass(frozen=True, slots=True)
class SavedAsset:
    """The state of a device, and the ratings that it belongs to."""

    ratings: dict[str, Any]
    state: dict[str, Any]


@dataclass(frozen=True, slots=True)
class Saved:
    """A saved site: simulated time (s), a checksum of the config of its surroundings, assets by id."""

    site: str
    saved_at: str
    time_s: float
    surroundings: str
    assets: dict[str, SavedAsset]


class StateFile:
    """The file in which one site is saved; files of other sites may be beside it."""

    def __init__(self, folder: Path, site_name: str) -> None:
        """Nothing is opened yet."""
        name = quote(site_name, safe=" ")
        self.path = folder / f"{name}.json"
        self.previous = folder / f"{name}.json.previous"
        self.set_aside = folder / f"{name}.json.set-aside"
        self._temporary = folder / f"{name}.json.new"
        self._site_name = site_name

    def write(self, saved: Saved) -> None:
        """Replace the file, keep the one before. Raises OSError."""
        body = json.dumps(_adapter(Saved).dump_python(saved)).encode()
        write_through(self._temporary, b"%s %s\n%s" % (FORMAT, _checksum(body), body))
        with contextlib.suppress(FileNotFoundError):
            os.replace(self.path, self.previous)
        os.replace(self._temporary, self.path)
        sync_folder(self.path.parent)

    def read(self) -> Saved | None:
        """Return what was saved last; None if there is nothing. What is no state is moved out of the way."""
        for path in (self.path, self.previous):
            try:
                return self._parse(path.read_bytes())
            except FileNotFoundError:
                continue
            except NotAState as error:
                log.error("state set aside", file=str(path), reason=str(error), moved_to=str(self.set_aside))
                with contextlib.suppress(OSError):
                    os.replace(path, self.set_aside)
            except OSError as error:
                log.error("state not read", file=str(path), reason=error.strerror)
        return None

    def _parse(self, data: bytes) -> Saved:
        header, _, body = data.partition(b"\n")
        format_, _, checksum = header.partition(b" ")
        if format_ != FORMAT:
            raise NotAState(f"it does not begin with {FORMAT.decode()}")
        if checksum != _checksum(body):
            raise NotAState("its checksum is wrong: it is torn or was changed")
        try:
            saved: Saved = _adapter(Saved).validate_json(body)
        except ValidationError as error:
            raise NotAState(f"it does not fit this version of dertwin: {error}") from error
        if saved.site != self._site_name:
            raise NotAState(f"it is of the site {saved.site!r}")
        return saved


class StateKeeper:
    """Restores a bench from the state file of its site, and saves it there.

    Whether, and where, follows the site config that is served now.
    """

    def __init__(self, folder: Path, save_every_s: float = SAVE_EVERY_S) -> None:
        """Keep states in a folder, which is made when it is needed."""
        self._folder = folder
        self._save_every_s = save_every_s
        self._failed = ""

    def restore(self, bench: Bench) -> None:
        """Let a bench that does not run yet go on from what was saved; log what was not restored, and why."""
        if not bench.site.config.persist:
            log.info("state not restored", reason="persist is false: each run starts afresh")
        elif saved := self._file(bench.site).read():
            states = {}
            for asset_id, entry in saved.assets.items():
                try:
                    states[asset_id] = _fitting(entry, bench.site.devices.get(asset_id))
                except NotAState as error:
                    log.warning("state not restored", device=asset_id, reason=str(error))
            for asset_id in bench.site.devices.keys() - saved.assets.keys():
                log.info("state not restored", device=asset_id, reason="nothing was saved of this asset id")
            time_s = saved.time_s
            if saved.surroundings != _surroundings(bench.site):
                log.warning("time not restored", reason="the surroundings in the config have changed")
                time_s = 0.0
            bench.go_on_from(time_s, states)
            log.info("state restored", saved_at=saved.saved_at, devices=len(states), time_s=round(time_s, 3))

    async def keep_saving(self, bench: Bench) -> None:
        """Save again and again until cancelled."""
        while True:
            await asyncio.sleep(self._save_every_s)
            if bench.site.config.persist:
                # Nothing steps while the state is copied; the disk is waited for beside the clock.
                file, saved = self._file(bench.site), capture(bench.site)
                writing = asyncio.create_task(asyncio.to_thread(self._write, file, saved))
                try:
                    await asyncio.shield(writing)
                except asyncio.CancelledError:
                    await writing  # or it would overwrite what is saved last
                    raise

    def save(self, bench: Bench) -> None:
        """Save now."""
        if bench.site.config.persist:
            self._write(self._file(bench.site), capture(bench.site))

    def _file(self, site: Site) -> StateFile:
        return StateFile(self._folder, site.config.site_name)

    def _write(self, file: StateFile, saved: Saved) -> None:
        try:
            self._folder.mkdir(parents=True, exist_ok=True)
            file.write(saved)
        except OSError as error:
            failed = f"{error.filename or file.path}: {error.strerror}"
            if failed != self._failed:
                log.error("state not saved", reason=failed)
            self._failed = failed
        else:
            if self._failed:
                log.info("state saved again", file=str(file.path))
            self._failed = ""


def capture(site: Site) -> Saved:
    """Return a copy of what there is to save of a site: nothing of a device that has failed."""
    assets = {
        asset_id: SavedAsset(device.config.ratings(), plain(device.state))
        for asset_id, device in site.devices.items()
        if asset_id not in site.failed
    }
    now = datetime.now(UTC).isoformat(timespec="seconds")
    return Saved(site.config.site_name, now, site.time_s, _surroundings(site), assets)


def _fitting(entry: SavedAsset, device: Device | None) -> Any:
    """Return a saved state as that of a device. Raises NotAState if it does not fit."""
    if device is None:
        raise NotAState("the site has no such asset any more")
    ratings = device.config.ratings()
    if changed := [
        f"{name} was {saved}, is {ratings.get(name)}"
        for name, saved in entry.ratings.items()
        if saved != ratings.get(name)
    ]:
        raise NotAState("; ".join(changed))
    return state_of(device, entry.state)


def plain(state: Any) -> dict[str, Any]:
    """Return the state of a device as what JSON can hold."""
    content: dict[str, Any] = _adapter(state.__class__).dump_python(state)
    return content


def state_of(device: Device, content: dict[str, Any]) -> Any:
    """Return what `plain` has made of the state of such a device. Raises NotAState if it does not fit."""
    try:
        return _adapter(device.state.__class__).validate_json(json.dumps(content), strict=True)
    except ValidationError as error:
        raise NotAState(f"it does not fit this version of dertwin: {error}") from error


@cache
def _adapter(state: Any) -> TypeAdapter[Any]:
    return TypeAdapter(state)


def _checksum(body: bytes) -> bytes:
    return hashlib.sha256(body).hexdigest().encode()


def _surroundings(site: Site) -> str:
    config = site.config.model_dump_json(include=set(EnvironmentConfig.model_fields))
    return hashlib.sha256(config.encode()).hexdigest()
