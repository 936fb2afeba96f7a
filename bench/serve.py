"""`dertwin run`: serves a site in the foreground until a signal."""

import asyncio
import contextlib
import faulthandler
import gc
import os
import resource
import signal
import sys
from collections.abc import AsyncIterator, Callable, Iterator, Sequence
from pathlib import Path
from typing import Literal, NamedTuple

import structlog
import uvloop

from bench.app import Bench
from bench.check import CheckedSite, check_site
from bench.chronicle import Chronicle
from bench.control import ControlLink, own_path, verbs
from bench.http import HttpLink, pages
from bench.links.link import Link
from bench.links.supervise import LinkStatus, supervise
from bench.log import lead_nowhere, set_up_logging
from bench.notify import Notifier, tell
from bench.recorder import Recorder
from bench.scenario_host import ScenarioHost
from bench.state import SAVE_EVERY_S, StateKeeper
from bench.web_config import Access
from dertwin.bindings import RtuBinding
from dertwin.config_errors import ConfigErrors
from dertwin.config_links import link_errors

log = structlog.get_logger()

MOST_OPEN_FILES = 65536


class RunOptions(NamedTuple):
    """What to serve and how. `fallback` replaces that of all serial bindings.

    States are kept in `state_dir`, unless it is None; `listen_metrics` is where watchers find the pages
    of bench/http.py, under the conditions of `web_config`; `control` is the path of the control socket.
    """

    config: Path
    fallback: Literal["pty", "none"] | None = None
    state_dir: Path | None = None
    save_every_s: float = SAVE_EVERY_S
    listen_metrics: tuple[str, int] | None = None
    web_config: Path | None = None
    control: Path | Literal["default"] | None = None


def serve(options: RunOptions) -> int:
    """Serve a site until SIGINT or SIGTERM and return the exit status; SIGHUP reads the config again.

    Raises ConfigErrors for a bad config.
    """
    set_up_logging()
    _allow_many_connections()
    faulthandler.enable(2)  # systemd ends a stuck service with SIGABRT: the log then shows where it was
    return uvloop.run(_serve(_read(options), Access(options.web_config), options))


async def _serve(checked: CheckedSite, access: Access, options: RunOptions) -> int:
    stop, reload = asyncio.Event(), asyncio.Event()
    loop = asyncio.get_running_loop()
    for number in (signal.SIGINT, signal.SIGTERM):
        loop.add_signal_handler(number, stop.set)
    in_terminal = _has_terminal()

    def hang_up() -> None:
        if in_terminal and not _has_terminal():
            stop.set()
        else:
            reload.set()

    loop.add_signal_handler(signal.SIGHUP, hang_up)
    bench = Bench(checked, Recorder())
    bench.observers.append(Chronicle(bench).observe)
    scenarios = ScenarioHost(bench, options.state_dir)
    _log_site(bench)
    keeper = StateKeeper(options.state_dir, options.save_every_s) if options.state_dir else None
    if keeper:
        keeper.restore(bench)
    notifier = Notifier(bench)
    about = list(_links_about(bench, scenarios, access, options))
    async with bench, _beside(about), asyncio.TaskGroup() as group:
        _freeze()
        tasks = [
            group.create_task(notifier.keep_telling()),
            group.create_task(_keep_reloading(reload, bench, notifier, lambda: _read(options))),
        ]
        if keeper:
            tasks.append(group.create_task(keeper.keep_saving(bench)))
        stopped = asyncio.create_task(stop.wait())
        settled = asyncio.create_task(bench.settled())
        await asyncio.wait((stopped, settled), return_when=asyncio.FIRST_COMPLETED)
        if settled.done():
            _print(reachable(bench))
        settled.cancel()
        await stopped
        log.info("stopping")
        tell("STOPPING=1")
        for task in tasks:
            task.cancel()
    if keeper:
        bench.tick(0.0)  # what was accepted since the last step is to be saved too
        keeper.save(bench)
    if clock := bench.clock:
        log.info("stopped", steps=clock.steps, late=clock.late, skipped=clock.skipped)
    return 0


async def _keep_reloading(
    reload: asyncio.Event, bench: Bench, notifier: Notifier, read: Callable[[], CheckedSite]
) -> None:
    """Serve what the config has become whenever `reload` is set; a bad config leaves everything as it is."""
    while True:
        await reload.wait()
        reload.clear()
        notifier.reloading()
        try:
            checked = await asyncio.to_thread(read)
        except ConfigErrors as errors:
            for error in errors.errors:
                log.error("config refused", error=str(error))
            notifier.complaint = f"config refused: {errors.errors[0]}"
        else:
            await bench.reload(checked)
            await bench.settled()
            gc.unfreeze()
            gc.collect()
            _freeze()
            notifier.complaint = ""
            log.info("config reloaded", devices=len(checked.layouts), links=len(bench.links))
        notifier.reloaded()


def _freeze() -> None:
    # The collector of cyclic garbage would look at all of the site again and again, some 30 ms for 100
    # devices, in which nobody is answered. It stays as long as the service: out of its sight. So does the
    # little garbage of the start, which takes longer to find than to keep.
    gc.freeze()
    gc.enable()


@contextlib.asynccontextmanager
async def _beside(links: Sequence[Link]) -> AsyncIterator[None]:
    """Serve links that are about the site; one whose place is in use hurts nobody else and is tried again."""
    tasks = [asyncio.create_task(supervise(link, LinkStatus())) for link in links]
    try:
        yield
    finally:
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)


def _links_about(
    bench: Bench, scenarios: ScenarioHost, access: Access, options: RunOptions
) -> Iterator[Link]:
    """Yield the links for watchers and for commands about the site."""
    if options.listen_metrics:
        yield HttpLink(*options.listen_metrics, access, pages(bench, scenarios))
    site_name = bench.site.config.site_name
    if path := own_path(site_name) if options.control == "default" else options.control:
        yield ControlLink(path, verbs(bench, scenarios))


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


def _read(options: RunOptions) -> CheckedSite:
    checked = check_site(options.config)
    if options.fallback is None:
        return checked
    return with_fallback(checked, options.fallback, str(options.config))


def _log_site(bench: Bench) -> None:
    config = bench.site.config
    log.info(
        "site built",
        site=config.site_name,
        devices=len(bench.site.devices),
        step_s=config.step,
        speed=config.speed,
    )
    if not config.real_time:
        log.warning(
            "real_time is false: the clock stands still", remedy="set real_time to true to let it run"
        )


def _print(lines: list[str]) -> None:
    """Print lines; when nobody reads them any more, the site goes on all the same."""
    try:
        print("\n".join(lines), flush=True)
    except OSError:
        lead_nowhere(sys.stdout)


def _has_terminal() -> bool:
    """Tell whether we run in a terminal that is still there: when it goes, it sends SIGHUP too."""
    try:
        os.close(os.open("/dev/tty", os.O_RDONLY | os.O_NOCTTY))
    except OSError:
        return False
    return True


def with_fallback(checked: CheckedSite, fallback: Literal["pty", "none"], file: str) -> CheckedSite:
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
