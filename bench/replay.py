"""`dertwin replay`: makes the steps of an incident bundle again and tells whether they come out the same."""

import csv
import json
import tempfile
import zipfile
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, NamedTuple, TextIO

from bench import tick_file
from bench.incident import ABOUT, EXCHANGES, FORMAT, RESULT, SITE, TICKS
from bench.state import NotAState
from bench.ticks import Act, Counted, Entry, Step, Stopped, digest
from bench.verdict import verdict
from dertwin.config import load_site
from dertwin.config_errors import ConfigError, ConfigErrors
from dertwin.devices.device import Command
from dertwin.overrides import Override
from dertwin.scenario.document import load_scenario
from dertwin.scenario.record import Exchange
from dertwin.scenario.run import ScenarioRun
from dertwin.scenario.signals import NO_REQUESTS, Observation, Requests
from dertwin.site import NO_COMMANDS, Site, SiteSnapshot, build_site

MOST_BYTES = 1 << 30


class Replayed(NamedTuple):
    """What came of a replay: simulated times (s) of its steps, and where they first came out differently.

    `verdict` is that of the scenario now and `recorded` as the bundle has it, None if there is none.
    """

    site: str
    start_s: float
    end_s: float
    steps: int
    differs_at_s: float | None
    verdict: Mapping[str, Any] | None
    recorded: Mapping[str, Any] | None

    @property
    def same(self) -> bool:
        """Tell whether everything came out as it was recorded."""
        return self.differs_at_s is None and self.verdict == self.recorded


Observer = Callable[[SiteSnapshot, Mapping[str, Sequence[Command]]], None]


def replay(bundle: Path, observe: Observer = lambda *_: None) -> Replayed:
    """Make all steps of a bundle again; `observe` sees the outcome and the commands of each.

    Raises ConfigErrors if the file is no bundle, or one that this version cannot replay.
    """
    with tempfile.TemporaryDirectory(prefix="dertwin-replay-") as name:
        try:
            return _replayed(bundle, Path(name), observe)
        except ConfigErrors as errors:
            raise errors.without(name) from None


def _replayed(bundle: Path, folder: Path, observe: Observer) -> Replayed:
    about = _unpack(bundle, folder)
    site = build_site(load_site(folder / SITE))
    with _reading(bundle, TICKS, "is missing: no step was recorded, so none can be replayed"):
        with (folder / TICKS).open(encoding="utf-8") as lines:
            state, entries, last = tick_file.read(lines, site)
        site.go_back_to(state)
    with _reading(bundle, EXCHANGES):
        judge = _Judge(folder, str(about["scenario"]), site) if about.get("scenario") else None
    recorded = None
    if (folder / RESULT).exists():
        with _reading(bundle, RESULT):
            recorded = json.loads((folder / RESULT).read_text())
    start_s = site.time_s
    with _reading(bundle, TICKS):
        steps, differs_at_s = _steps(site, entries, last, judge, observe)
    now = judge.verdict() if judge else None
    return Replayed(str(about.get("site")), start_s, site.time_s, steps, differs_at_s, now, recorded)


@contextmanager
def _reading(bundle: Path, name: str, missing: str = "is missing") -> Iterator[None]:
    """Tell of a file of a bundle that is not what it should be. Raises ConfigErrors."""
    try:
        yield
    except FileNotFoundError:
        raise _refused(bundle, name, missing) from None
    except (ValueError, LookupError, TypeError, AttributeError, NotAState) as error:
        raise _refused(bundle, name, f"cannot be replayed: {error}") from error


def tables(folder: Path) -> "Tables":
    """Return what writes measurements.csv and commands.csv into a folder. Raises OSError."""
    folder.mkdir(parents=True, exist_ok=True)
    return Tables(
        (folder / "measurements.csv").open("w", newline="", encoding="utf-8"),
        (folder / "commands.csv").open("w", newline="", encoding="utf-8"),
    )


class Tables:
    """Writes what was measured after each step, and the commands that it took, as CSV."""

    def __init__(self, measurements: TextIO, commands: TextIO) -> None:
        self._files = measurements, commands
        self._measurements, self._commands = csv.writer(measurements), csv.writer(commands)
        self._commands.writerow(("time_s", "device", "command", "value"))
        self._head: list[str] = []

    def observe(self, snapshot: SiteSnapshot, commands: Mapping[str, Sequence[Command]]) -> None:
        """Write a step."""
        values = dict(_signals(snapshot))
        if not self._head:
            self._head = list(values)
            self._measurements.writerow(("time_s", *self._head))
        self._measurements.writerow((snapshot.time_s, *(values.get(name, "") for name in self._head)))
        for asset_id, batch in commands.items():
            self._commands.writerows((snapshot.time_s, asset_id, *command) for command in batch)

    def close(self) -> None:
        """Close the files."""
        for file in self._files:
            file.close()


class _Judge:
    """The scenario of a bundle, which sees the steps that are made again."""

    def __init__(self, folder: Path, file: str, site: Site) -> None:
        self._counts: dict[str, Requests] = {}
        self._exchanges = list(_exchanges(folder / EXCHANGES))
        loaded = load_scenario(folder / file, site.devices)
        self._run = ScenarioRun(loaded, site.config.site_name, site.devices, self._since)
        self._seen = Observation(site.snapshot, NO_COMMANDS, self._requests_of)
        self._looked = False

    def counted(self, counted: Counted) -> None:
        self._counts[counted.device] = counted.requests

    def look(self) -> None:
        """Let the scenario see the last step, once."""
        if not self._looked:
            self._run.step(self._seen)
            self._looked = True

    def saw(self, snapshot: SiteSnapshot, commands: Mapping[str, Sequence[Command]]) -> None:
        self._seen, self._looked = Observation(snapshot, commands, self._requests_of), False

    def stop(self) -> None:
        self.look()
        self._run.stop()

    def verdict(self) -> dict[str, Any]:
        self.look()
        content: dict[str, Any] = json.loads(json.dumps(verdict(self._run.result())))
        return content

    def _requests_of(self, asset_id: str) -> Requests:
        return self._counts.get(asset_id, NO_REQUESTS)

    def _since(self, since_s: float) -> Sequence[Exchange]:
        return [
            each._replace(time_s=each.time_s - since_s, replied_s=each.replied_s - since_s)
            for each in self._exchanges
            if each.time_s >= since_s
        ]


def _steps(
    site: Site, entries: Sequence[Entry], last: int, judge: _Judge | None, observe: Observer
) -> tuple[int, float | None]:
    """Make the steps; return how many, and the time (s) at which a digest was first another one."""
    steps, differs_at_s = 0, None
    for entry in entries:
        if isinstance(entry, Step):
            if judge:
                judge.look()
            # What was there at the start is no outcome of a step that is made again.
            if steps and differs_at_s is None and digest(site.snapshot) != entry.digest:
                differs_at_s = site.time_s
            snapshot = site.step(entry.commands, entry.dt_s, entry.requests)
            steps += 1
            observe(snapshot, entry.commands)
            if judge:
                judge.saw(snapshot, entry.commands)
        elif isinstance(entry, Act):
            _act(site, entry)
        elif judge:
            judge.stop() if isinstance(entry, Stopped) else judge.counted(entry)
    if differs_at_s is None and digest(site.snapshot) != last:
        differs_at_s = site.time_s
    return steps, differs_at_s


def _act(site: Site, act: Act) -> None:
    if act.what is None:
        site.end_faults()
    elif isinstance(act.what, Override):
        site.override(act.what, act.at_s)
    else:
        site.start_fault(act.what, act.at_s, act.seed)


def _unpack(bundle: Path, folder: Path) -> dict[str, Any]:
    """Unpack a bundle and return what it says about itself. Raises ConfigErrors."""
    try:
        with zipfile.ZipFile(bundle) as archive:
            if sum(info.file_size for info in archive.infolist()) > MOST_BYTES:
                raise _refused(bundle, "", "is larger than any bundle")
            archive.extractall(folder)
        about: dict[str, Any] = json.loads((folder / ABOUT).read_text())
    except FileNotFoundError as error:
        what = f"has no {ABOUT}; use a bundle of `dertwin record dump`" if bundle.exists() else error.strerror
        raise _refused(bundle, "", str(what)) from error
    except (OSError, zipfile.BadZipFile, ValueError, RuntimeError, NotImplementedError) as error:
        raise _refused(bundle, "", f"is no incident bundle: {error}") from error
    if not isinstance(about, dict):
        raise _refused(bundle, ABOUT, "is no object; use a bundle of `dertwin record dump`")
    if about.get("format") != FORMAT:
        problem = f"{about.get('format')!r} is not a format that this version reads; use {FORMAT!r}"
        raise _refused(bundle, f"{ABOUT}: format", problem)
    return about


def _exchanges(file: Path) -> Iterator[Exchange]:
    for line in file.read_text().splitlines():
        content = json.loads(line)
        content["replied_s"] = float(content["replied_s"])
        content["request"], content["reply"] = (bytes.fromhex(content[key]) for key in ("request", "reply"))
        yield Exchange(**content)


def _signals(snapshot: SiteSnapshot) -> Iterator[tuple[str, Any]]:
    yield from (
        (f"site.{name}", value)
        for name, value in snapshot.conditions._asdict().items()
        if name != "nominal_voltage_ll_v"
    )
    yield from ((f"pcc.{name}", value) for name, value in snapshot.pcc._asdict().items())
    for asset_id, measured in snapshot.measurements.items():
        yield from ((f"{asset_id}.{name}", value) for name, value in measured._asdict().items())


def _refused(bundle: Path, place: str, message: str) -> ConfigErrors:
    return ConfigErrors([ConfigError(str(bundle), place, message)])
