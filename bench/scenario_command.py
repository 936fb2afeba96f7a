"""`dertwin scenario`: runs a scenario on a site of its own, and ends with its verdict."""

import argparse
import asyncio
import contextlib
import importlib.util
import signal
import sys
import time
from collections.abc import Iterator
from datetime import datetime
from pathlib import Path

import uvloop

from bench.app import Bench
from bench.check import CheckedSite, check_site
from bench.log import INFO, WARNING, set_up_logging
from bench.plant import Ems, run_ems
from bench.recorder import Recorder
from bench.report import Context, write_report
from bench.scenario_view import ScenarioView, summary
from bench.scenarios import BenchScenario, check_wires, recorded_exchanges
from bench.serve import reachable, with_fallback
from dertwin.config_errors import ConfigError, ConfigErrors
from dertwin.scenario.document import LoadedScenario, load_scenario
from dertwin.scenario.run import ScenarioResult
from dertwin.site import build_site

PASSED, FAILED, NOT_COMPLETE = 0, 1, 3  # 2 is a command line that nobody understands
REFRESH_S = 0.25


def check(options: argparse.Namespace) -> int:
    """Check a scenario against a site. Raises ConfigErrors."""
    checked, loaded = _read(options)
    check_wires(Bench(checked), loaded)
    cases = f", {len(loaded.cases)} cases" if len(loaded.cases) > 1 else ""
    print(f"{options.file}: good: {len(loaded.cases[0].scenario.steps)} steps{cases}")
    return PASSED


def run(options: argparse.Namespace) -> int:
    """Run a scenario; return 0 if it passed, 1 if it failed, 3 if it was stopped. Raises ConfigErrors."""
    checked, loaded = _read(options)
    if options.report:
        _make(options.report)
    started_at, started = datetime.now().astimezone(), time.monotonic()
    if options.ems:
        set_up_logging(WARNING)
        result = run_ems(checked, loaded, load_ems(options.ems))
    else:
        set_up_logging(
            WARNING if sys.stdout.isatty() else INFO
        )  # the view has its own lines for what happens
        if not checked.config.real_time:
            problem = "false is not allowed here; use true, or an EMS in Python with --ems"
            raise ConfigErrors([ConfigError(str(options.config), "real_time", problem)])
        result = uvloop.run(_live(checked, loaded))
    summary(result)
    if options.report:
        took_s = time.monotonic() - started
        context = Context(loaded, str(options.config), checked.config, options.ems or "", started_at, took_s)
        _report(result, context, options.report)
    return PASSED if result.passed else FAILED if result.complete else NOT_COMPLETE


def _make(folder: Path) -> None:
    """Make the folder of the report before anything runs: that it cannot be made is better known then."""
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        problem = f"{folder} cannot be made: {error.strerror}; use another folder"
        raise ConfigErrors([ConfigError("", "--report", problem)]) from error


def _report(result: ScenarioResult, context: Context, folder: Path) -> None:
    """Write the report; what is wrong with a disk does not change the verdict."""
    try:
        write_report(result, context, folder)
    except OSError as error:
        print(f"{error.filename or folder}: cannot be written: {error.strerror}", file=sys.stderr)
    else:
        print(f"report: {folder / 'report.html'}")


def load_ems(name: str) -> Ems:
    """Return the generator function FILE.py:FUNCTION. Raises ConfigErrors."""
    file, _, function = name.rpartition(":")
    path = Path(file or name)
    spec = importlib.util.spec_from_file_location(path.stem, path) if path.is_file() else None
    if not file or spec is None or spec.loader is None:
        raise ConfigErrors([ConfigError("", "--ems", f'"{name}" is not allowed; use FILE.py:FUNCTION')])
    module = importlib.util.module_from_spec(spec)
    sys.path.insert(0, str(path.parent.absolute()))
    try:
        spec.loader.exec_module(module)
        ems: Ems = getattr(module, function)
    except Exception as error:  # the file is not ours
        problem = f"cannot be used: {type(error).__name__}: {error}"
        raise ConfigErrors([ConfigError(str(path), function, problem)]) from error
    if not callable(ems):
        problem = "cannot be used: it is no function; use one that yields how long it sleeps (s)"
        raise ConfigErrors([ConfigError(str(path), function, problem)])
    return ems


def _read(options: argparse.Namespace) -> tuple[CheckedSite, LoadedScenario]:
    checked = check_site(options.config)
    if getattr(options, "fallback", None):
        checked = with_fallback(checked, options.fallback, str(options.config))
    return checked, load_scenario(options.file, build_site(checked.config).devices)


async def _live(checked: CheckedSite, loaded: LoadedScenario) -> ScenarioResult:
    """Serve the site and run the scenario on it in real time; a signal stops it."""
    view = ScenarioView()
    with _stopping() as stop:
        async with Bench(checked, Recorder()) as bench:
            await bench.settled()
            print("\n".join(reachable(bench)), flush=True)
            scenario = BenchScenario(bench, loaded, recorded_exchanges(bench), view.tell)
            while not scenario.over.is_set():
                view.refresh(scenario)
                with contextlib.suppress(TimeoutError):
                    await asyncio.wait_for(_either(scenario.over, stop), REFRESH_S)
                if stop.is_set():
                    scenario.stop()
            view.refresh(scenario)
    return scenario.result()


@contextlib.contextmanager
def _stopping() -> Iterator[asyncio.Event]:
    """Give an event that SIGINT and SIGTERM set."""
    stop, loop = asyncio.Event(), asyncio.get_running_loop()
    for number in (signal.SIGINT, signal.SIGTERM):
        loop.add_signal_handler(number, stop.set)
    try:
        yield stop
    finally:
        for number in (signal.SIGINT, signal.SIGTERM):
            loop.remove_signal_handler(number)


async def _either(*events: asyncio.Event) -> None:
    waits = [asyncio.create_task(event.wait()) for event in events]
    try:
        await asyncio.wait(waits, return_when=asyncio.FIRST_COMPLETED)
    finally:
        for wait in waits:
            wait.cancel()
