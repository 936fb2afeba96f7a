"""The commands of an appliance: `dertwin appliance ...`, `dertwin site ...`, `dertwin update ...`."""

# Imported by each `dertwin`, whatever the command: what takes its time is imported where it is needed.
from __future__ import annotations

TYPE_CHECKING = False  # as in typing, which takes its time
if TYPE_CHECKING:
    import argparse
    from typing import Any

    from bench.appliance.places import Places


def add_commands(commands: Any) -> None:
    """Add these commands to the subcommands of `dertwin`."""
    import argparse
    from pathlib import Path

    where = argparse.ArgumentParser(add_help=False)
    where.add_argument("--card", type=Path, default="/boot/card", help="where the card is (%(default)s)")
    where.add_argument("--data", type=Path, default="/data", help="the data partition (%(default)s)")
    where.add_argument("--root", type=Path, default="/", help="the root file system (%(default)s)")

    appliance = commands.add_parser("appliance", help="what an appliance runs by itself")
    parts = appliance.add_subparsers(required=True, metavar="PART")
    setup = parts.add_parser("setup", parents=[where], help="make the box what its card says; at each boot")
    setup.set_defaults(command=_setup)


def _places(options: argparse.Namespace) -> Places:
    from bench.appliance.places import Places

    return Places(options.card, options.data, options.root)


def _setup(options: argparse.Namespace) -> int:
    from bench.appliance.setup import set_up

    return set_up(_places(options))
