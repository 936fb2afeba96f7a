"""Incident bundles: all that led to an incident in one file, from which it can be made again.

A bundle is a .zip. What goes into it is gathered at once, while nothing steps; to write it takes longer and
may be done by another thread.
"""

import asyncio
import io
import json
import os
import sys
import time
import zipfile
from collections.abc import Iterable, Iterator, Mapping, Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, NamedTuple

import structlog

from bench import tick_file
from bench.app import Bench
from bench.check import MapFolders
from bench.exchanges import Units, exchanges, units_of
from bench.exposition import exposition
from bench.files import replace_file
from bench.metrics import registry
from bench.pcapng import capture, decoding
from bench.recorder import Frame
from bench.ticks import Ticks
from bench.verdict import plain, verdict, versions
from dertwin.config import SiteConfig
from dertwin.physics.series import Series
from dertwin.scenario.document import LoadedScenario
from dertwin.scenario.record import Exchange
from dertwin.scenario.run import ScenarioResult

log = structlog.get_logger()

FORMAT = "dertwin-incident-1"
KEPT_INCIDENTS = 10
ABOUT, SITE, TICKS, EXCHANGES, RESULT = (
    "incident.json",
    "site.json",
    "ticks.jsonl",
    "exchanges.jsonl",
    "result.json",
)
FRAMES, METRICS, MAPS = "frames.pcapng", "metrics.txt", "register_maps"
SWITCH_INTERVAL_S = 0.0005


class Incident(NamedTuple):
    """What a bundle is made of. `start` is when (s of time.monotonic) a simulated time of `start_s` was
    reached, `unix_ns` the Unix time at which that clock was at zero.
    """

    reason: str
    made_at: str
    config: SiteConfig
    maps: Mapping[str, Path]
    ticks: Ticks | None
    frames: Iterator[Frame]
    units: Mapping[str, Units]
    start: float
    start_s: float
    unix_ns: int
    metrics: bytes
    result: ScenarioResult | None


async def keep_incident(bench: Bench, folder: Path, reason: str) -> None:
    """Write the bundle of a bench that records into a folder, in which the newest few are kept."""
    file = folder / default_name(bench.site.config.site_name)
    try:
        bundle = await bundled(bench, reason)
        folder.mkdir(parents=True, exist_ok=True)
        await asyncio.to_thread(replace_file, file, bundle)
        for old in sorted(folder.glob("*.zip"), key=lambda path: path.stat().st_mtime)[:-KEPT_INCIDENTS]:
            old.unlink(missing_ok=True)
    except OSError as error:
        log.error("incident not kept", file=str(file), reason=error.strerror)
    else:
        log.info("incident kept", file=str(file), reason=reason)


async def bundled(bench: Bench, reason: str) -> bytes:
    """Return the bundle of a bench that records and serves; requests are answered meanwhile."""
    incident = gather(bench, reason, await exposition(registry(bench)))
    usual = sys.getswitchinterval()
    # The loop gets its turn at once while the other thread packs, not after 5 ms.
    sys.setswitchinterval(SWITCH_INTERVAL_S)
    try:
        return await asyncio.to_thread(packed, incident)
    finally:
        sys.setswitchinterval(usual)


def gather(bench: Bench, reason: str, metrics: bytes = b"") -> Incident:
    """Return what there is to tell about a bench that records."""
    assert bench.recorder is not None
    site, log, result = bench.site, bench.recorder.ticks, bench.recorder.result
    assets = [
        device.config.model_copy(update={"asset_id": asset_id}) for asset_id, device in site.devices.items()
    ]
    folders = MapFolders(bench.map_roots, "")
    names = {binding.register_map or asset.default_map for asset in assets for binding in asset.protocols}
    ticks = log.ticks(site)
    start_s = ticks.state.environment.time_s if ticks else site.time_s
    return Incident(
        reason,
        datetime.now(UTC).isoformat(timespec="seconds"),
        site.config.model_copy(update={"assets": assets}),
        {name: folders.file(name, "register_map") for name in sorted(names)},
        ticks,
        bench.recorder.frames(),
        units_of(bench.links.values()),
        log.when(start_s),
        start_s,
        time.time_ns() - time.monotonic_ns(),
        metrics,
        result() if result and ticks and ticks.scenario else None,
    )


def write(incident: Incident, file: Path) -> None:
    """Write a bundle; the file is there when it is complete, and not before. Raises OSError."""
    replace_file(file, packed(incident))


def packed(incident: Incident) -> bytes:
    """Return a bundle as the bytes of its file."""
    data = io.BytesIO()
    with zipfile.ZipFile(data, "w", zipfile.ZIP_DEFLATED) as bundle:
        for name, pieces in _files(incident):
            with bundle.open(name, "w") as file:
                for piece in pieces:
                    file.write(piece)
    return data.getvalue()


def default_name(site_name: str) -> str:
    """Return what a bundle of a site that is made now is called unless somebody says."""
    stem = "".join(letter if letter.isalnum() or letter in "-_" else "-" for letter in site_name)
    return f"{stem}-{datetime.now(UTC):%Y%m%dT%H%M%SZ}.zip"


def _files(incident: Incident) -> Iterator[tuple[str, Iterable[bytes]]]:
    """Yield the name and the content, in pieces, of each file of a bundle."""
    yield ABOUT, [_json(_about(incident))]
    config, series = _portable(incident.config)
    yield SITE, [_json(config)]
    for name, points in series.items():
        yield name, [_csv(points)]
    for name, path in incident.maps.items():
        yield f"{MAPS}/{name}", [path.read_bytes()]
    if incident.ticks:
        lines = tick_file.written(incident.ticks, incident.unix_ns / 1e9)
        yield TICKS, (line.encode() for line in lines)
        if incident.ticks.scenario:
            yield from _scenario_files(incident.ticks.scenario)
    frames = list(incident.frames)
    yield FRAMES, capture(frames, incident.unix_ns)
    found = exchanges(frames, incident.units, incident.start, incident.config.speed)
    yield EXCHANGES, (_exchange(each, incident.start_s) for each in found)
    if incident.metrics:
        yield METRICS, [incident.metrics]
    if incident.result:
        yield RESULT, [_json(verdict(incident.result))]


def _about(incident: Incident) -> dict[str, Any]:
    ticks = incident.ticks
    return {
        "format": FORMAT,
        "reason": incident.reason,
        "made_at": incident.made_at,
        "site": incident.config.site_name,
        "scenario": scenario_name(ticks.scenario) if ticks and ticks.scenario else None,
        "seed": incident.result.seed if incident.result else None,
        "versions": versions(),
        "decode": f"tshark -r {FRAMES} {' '.join(decoding(incident.units))}",
    }


def scenario_name(scenario: LoadedScenario) -> str:
    """Return what the file of a scenario is called in a bundle."""
    return f"scenario/{Path(scenario.file).name}"


def _scenario_files(scenario: LoadedScenario) -> Iterator[tuple[str, Iterable[bytes]]]:
    """Yield a scenario and the CSV files beside it, or below, that it names."""
    yield scenario_name(scenario), [scenario.text.encode()]
    for name, text in sorted(scenario.beside.items()):
        inside = os.path.normpath(name)
        if not (os.path.isabs(inside) or inside.startswith("..")):
            yield f"scenario/{inside}", [text.encode()]


def _portable(config: SiteConfig) -> tuple[dict[str, Any], dict[str, Series]]:
    """Return a config whose maps and series lie in the bundle, and these series by name."""
    document: dict[str, Any] = config.model_dump(mode="json", by_alias=True, exclude_unset=True)
    document["register_map_root"] = MAPS
    sources = {
        f"external_models/{name}": (document.get("external_models", {}).get(name), model)
        for name, model in config.external_models
    }
    sources["load"] = document.get("load"), config.load
    series = {}
    for name, (given, model) in sources.items():
        if given and given.get("csv"):
            given["csv"] = f"series/{name.rpartition('/')[2]}.csv"
            series[given["csv"]] = model.points
    return document, series


def _csv(series: Series) -> bytes:
    lines = (f"{time_s!r},{value!r}\n" for time_s, value in zip(series.times, series.values, strict=True))
    return "".join(lines).encode()


def _exchange(exchange: Exchange, start_s: float) -> bytes:
    content = exchange._asdict() | {
        "time_s": exchange.time_s + start_s,
        "replied_s": exchange.replied_s + start_s,
        "request": exchange.request.hex(),
        "reply": exchange.reply.hex(),
    }
    return json.dumps(plain(content)).encode() + b"\n"


def _json(content: Mapping[str, Any] | Sequence[Any]) -> bytes:
    return json.dumps(content, indent=2).encode() + b"\n"
