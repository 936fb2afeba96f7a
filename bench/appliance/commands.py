"""The commands of an appliance: `dertwin appliance ...`, `dertwin site ...`, `dertwin update ...`."""

# Imported by each `dertwin`, whatever the command: what takes its time is imported where it is needed.
from __future__ import annotations

TYPE_CHECKING = False  # as in typing, which takes its time
if TYPE_CHECKING:
    import argparse
    from collections.abc import Callable
    from typing import Any

    from bench.appliance.places import Places


def add_commands(commands: Any) -> None:
    """Add these commands to the subcommands of `dertwin`."""
    import argparse
    from pathlib import Path

    # Where the file systems of the box are; elsewhere in tests only.
    where = argparse.ArgumentParser(add_help=False)
    for name, usual in (("card", "/boot/card"), ("data", "/data"), ("root", "/")):
        where.add_argument(f"--{name}", type=Path, default=usual, help=argparse.SUPPRESS)

    appliance = commands.add_parser("appliance", help="what an appliance runs by itself")
    parts = appliance.add_subparsers(required=True, metavar="PART")
    setup = parts.add_parser("setup", parents=[where], help="make the box what its card says; at each boot")
    setup.set_defaults(command=_setup)
    take = parts.add_parser("site", parents=[where], help="take a site that has come in; before the service")
    take.set_defaults(command=_take)
    watch = parts.add_parser("watch", parents=[where], help="keep status.txt and the light true; for ever")
    watch.set_defaults(command=_watch)

    site = commands.add_parser("site", help="put a site on an appliance, take it back, show it")
    acts = site.add_subparsers(required=True, metavar="ACT")
    host_help = "the appliance, as ssh has it (default: this machine is it)"
    put = acts.add_parser("put", parents=[where], help="serve a site from now on, if it is good")
    put.add_argument("file", metavar="FILE", help="site config; the maps and CSV files it names go with it")
    put.set_defaults(command=_put)
    back = acts.add_parser("rollback", parents=[where], help="serve the site before the current one again")
    back.set_defaults(command=_roll_back)
    show = acts.add_parser("show", parents=[where], help="print the site that is served, and why this one")
    show.set_defaults(command=_show)
    for act in (put, back, show):
        act.add_argument("host", metavar="HOST", nargs="?", help=host_help)

    update = commands.add_parser("update", parents=[where], help="update an appliance from a signed bundle")
    update.add_argument("bundle", metavar="BUNDLE")
    update.add_argument("host", metavar="HOST", nargs="?", help=host_help)
    update.add_argument("--partition", type=Path, help=argparse.SUPPRESS)
    update.set_defaults(command=_update)


def _places(options: argparse.Namespace) -> Places:
    import os

    from bench.appliance.places import Places

    os.umask(0o022)  # whoever calls us may have a stricter one, and others must read what we write
    return Places(options.card, options.data, options.root)


def _setup(options: argparse.Namespace) -> int:
    _keep_garbage()
    from bench.appliance.setup import set_up

    return set_up(_places(options))


def _take(options: argparse.Namespace) -> int:
    _keep_garbage()
    from bench.appliance.setup import take_site

    return _tried(lambda: take_site(_places(options)))


def _keep_garbage() -> None:
    # The start of the box waits for these, and they end before garbage could matter.
    import gc

    gc.disable()


def _watch(options: argparse.Namespace) -> int:
    from bench.appliance.watch import watch

    return watch(_places(options))


def _put(options: argparse.Namespace) -> int:
    from bench.appliance import site_command

    return _tried(lambda: site_command.put_site(_places(options), options.file, options.host))


def _roll_back(options: argparse.Namespace) -> int:
    from bench.appliance import site_command

    return _tried(lambda: site_command.roll_back_site(_places(options), options.host))


def _show(options: argparse.Namespace) -> int:
    from bench.appliance import site_command

    return _tried(lambda: site_command.show_site(_places(options), options.host))


def _update(options: argparse.Namespace) -> int:
    import sys

    from bench.appliance.bundle import BadBundle
    from bench.appliance.update import update

    try:
        return _tried(lambda: update(_places(options), options.bundle, options.host, options.partition))
    except BadBundle as error:
        print(f"{options.bundle}: {error}", file=sys.stderr)
        return 1


def _tried(act: Callable[[], int]) -> int:
    """Carry out what needs rights and working disks; say what was missing."""
    import subprocess
    import sys

    from bench.files import reason

    try:
        return act()
    except PermissionError as error:
        print(f"{reason(error)}; use sudo", file=sys.stderr)
    except OSError as error:
        print(reason(error), file=sys.stderr)
    except subprocess.CalledProcessError as error:
        print(f"{error.cmd[0]}: {(error.stderr or '').strip() or error.returncode}", file=sys.stderr)
    return 1
