"""`dertwin run`: serves a site in the foreground until a signal."""

import asyncio
import contextlib
import gc
import resource
import signal
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Literal

import structlog
import uvloop

from bench.app import Bench
from bench.check import CheckedSite, check_site
from bench.http import HttpLink, pages
from bench.links.supervise import LinkStatus, supervise
from bench.log import set_up_logging
from bench.web_config import Access
from dertwin.bindings import RtuBinding
from dertwin.config_errors import ConfigErrors
from dertwin.config_links import link_errors

log = structlog.get_logger()

MOST_OPEN_FILES = 65536


def serve(
    config: Path,
    fallback: Literal["pty", "none"] | None,
    listen_metrics: tuple[str, int] | None = None,
    web_config: Path | None = None,
) -> int:
    """Serve a site until SIGINT or SIGTERM and return the exit status.

    `fallback` replaces that of all serial bindings; `listen_metrics` is where watchers find the pages
    of bench/http.py, under the conditions of `web_config`. Raises ConfigErrors for a bad config.
    """
    set_up_logging()
    _allow_many_connections()
    checked = check_site(config)
    if fallback is not None:
        checked = _with_fallback(checked, fallback, str(config))
    return uvloop.run(_serve(checked, listen_metrics, Access(web_config)))


async def _serve(checked: CheckedSite, listen_metrics: tuple[str, int] | None, access: Access) -> int:
    stop = asyncio.Event()
    loop = asyncio.get_running_loop()
    for number in (signal.SIGINT, signal.SIGTERM):
        loop.add_signal_handler(number, stop.set)
    config = checked.config
    log.info(
        "site built",
        site=config.site_name,
        devices=len(checked.layouts),
        step_s=config.step,
        speed=config.speed,
    )
    if not config.real_time:
        log.warning(
            "real_time is false: the clock stands still", remedy="set real_time to true to let it run"
        )
    async with Bench(checked) as bench, _watched(bench, listen_metrics, access):
        # The collector of cyclic garbage would look at all of this again and again, some 30 ms for 100
        # devices, in which nobody is answered. It stays as long as the service: out of its sight.
        gc.collect()
        gc.freeze()
        stopped = asyncio.create_task(stop.wait())
        settled = asyncio.create_task(bench.settled())
        await asyncio.wait((stopped, settled), return_when=asyncio.FIRST_COMPLETED)
        if settled.done():
            print("\n".join(reachable(bench)), flush=True)
        settled.cancel()
        await stopped
        log.info("stopping")
    if clock := bench.clock:
        log.info("stopped", steps=clock.steps, late=clock.late, skipped=clock.skipped)
    return 0


@contextlib.asynccontextmanager
async def _watched(bench: Bench, address: tuple[str, int] | None, access: Access) -> AsyncIterator[None]:
    """Serve the pages about a bench; a port that is in use hurts nobody else and is tried again."""
    if address is None:
        yield
        return
    task = asyncio.create_task(supervise(HttpLink(*address, access, pages(bench)), LinkStatus()))
    try:
        yield
    finally:
        task.cancel()
        await asyncio.wait((task,))


def reachable(bench: Bench) -> list[str]:
    """Return a line for each device and link: its name, unit id, and where a client reaches it."""
    lines = [f"Serving {bench.site.config.site_name}; stop with Ctrl-C."]
    for key, link in bench.links.items():
        status = bench.status[key]
        where = status.where if status.up else f"not yet: {status.reason}"
        kind = link.name.split()[0]
        lines += [
            f"  {unit.asset_id:<18} unit {unit_id:<3} {kind:<12} {where}"
            for unit_id, unit in sorted(link.units.items())
        ]
    return lines


def _allow_many_connections() -> None:
    """Raise the limit of open files, usually 1024, which the connections of some 15 ports use up."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    most = MOST_OPEN_FILES if hard == resource.RLIM_INFINITY else min(hard, MOST_OPEN_FILES)
    resource.setrlimit(resource.RLIMIT_NOFILE, (max(soft, most), hard))


def _with_fallback(checked: CheckedSite, fallback: Literal["pty", "none"], file: str) -> CheckedSite:
    """Raises ConfigErrors if with virtual pairs the lines would be in each other's way."""
    assets = [
        asset.model_copy(
            update={
                "protocols": [
                    b.model_copy(update={"fallback": fallback}) if isinstance(b, RtuBinding) else b
                    for b in asset.protocols
                ]
            }
        )
        for asset in checked.config.assets
    ]
    bindings = {
        f"assets[{i}].protocols[{j}]": binding
        for i, asset in enumerate(assets)
        for j, binding in enumerate(asset.protocols)
    }
    if conflicts := list(link_errors(file, bindings)):
        raise ConfigErrors(conflicts)
    return checked._replace(config=checked.config.model_copy(update={"assets": assets}))
