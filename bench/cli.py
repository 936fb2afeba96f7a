"""The command `dertwin`."""

# Here is imported only what loads at once: signals must be heeded from the start, and --help is quick.
from __future__ import annotations

import gc
import os
import signal
import sys

from bench.appliance.commands import add_commands
from dertwin import __version__

TYPE_CHECKING = False  # as in typing, which takes its time
if TYPE_CHECKING:
    import argparse
    from collections.abc import Callable, Sequence
    from pathlib import Path
    from typing import Any

EX_CONFIG = 78
"""Exit status of a bad config, as in sysexits.h: a supervisor must not restart into it."""


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command and return its exit status; `dertwin -c FILE` means `dertwin run -c FILE`.

    Without arguments it is the process's own command, and signals are its to take.
    """
    given = list(sys.argv[1:] if arguments is None else arguments)
    if given and given[0] in ("-c", "--config"):
        given.insert(0, "run")
    if arguments is None and given[:1] == ["run"]:
        # Until the event loop takes the signals, there is nothing to stop.
        for number in (signal.SIGINT, signal.SIGTERM):
            signal.signal(number, lambda *_: os._exit(0))
        gc.disable()  # until all is built: what loads now stays, and looking at it takes a tenth of the start
    try:
        options = _parse(given)
        status = _carry_out(options.command, options)
        sys.stdout.flush()
    except KeyboardInterrupt:
        return 0
    except BrokenPipeError:
        # The reader of our output, e.g. `head`, has what it wanted.
        from bench.log import lead_nowhere

        lead_nowhere(sys.stdout)
        return 0
    return status


def _carry_out(command: Callable[[argparse.Namespace], int], options: argparse.Namespace) -> int:
    from dertwin.config_errors import ConfigErrors

    try:
        return command(options)
    except ConfigErrors as errors:
        for error in errors.errors:
            print(error, file=sys.stderr)
        return EX_CONFIG


def _parse(arguments: Sequence[str]) -> argparse.Namespace:
    parser = _parser()
    options, rest = parser.parse_known_args(arguments)
    # argparse settles for no names at all when options stand before them.
    if rest and getattr(options, "names", None) == [] and not any(word.startswith("-") for word in rest):
        options.names = rest
    elif rest:
        parser.error(f"unrecognized arguments: {' '.join(rest)}")
    return options


def _parser() -> argparse.ArgumentParser:
    import argparse
    from pathlib import Path

    parser = argparse.ArgumentParser(prog="dertwin", description=__doc__)
    parser.add_argument("--version", action="version", version=f"dertwin {__version__}")
    commands = parser.add_subparsers(required=True, metavar="COMMAND")

    run = commands.add_parser("run", help="serve a site until stopped (also: dertwin -c FILE)")
    run.add_argument("-c", "--config", type=Path, required=True, help="site config, JSON or YAML")
    run.add_argument(
        "--fallback",
        choices=("pty", "none"),
        help="for all serial ports: whether a missing one is replaced by a virtual pair",
    )
    run.add_argument(
        "--state-dir",
        type=Path,
        metavar="DIR",
        help="go on from the state saved there, and save it (default: $STATE_DIRECTORY, else none is kept)",
    )
    run.add_argument(
        "--save-every", type=seconds, default=10.0, metavar="S", help="save the state each S seconds (10)"
    )
    run.add_argument(
        "--listen-metrics",
        type=_address,
        default="127.0.0.1:9555",
        metavar="HOST:PORT",
        help="where /metrics, /healthz, /readyz and /status are (default %(default)s; `none`: nowhere)",
    )
    run.add_argument(
        "--web-config",
        type=Path,
        metavar="FILE",
        help="TLS and users for these, as for Prometheus exporters",
    )
    run.add_argument(
        "--control",
        type=_control,
        default="default",
        metavar="PATH",
        help="where the control socket is (default: in the run-time folder of the service or user; `none`)",
    )
    run.set_defaults(command=_run)

    check = commands.add_parser("check", help="check a site config and its register maps; opens no port")
    check.add_argument("config", type=Path)
    check.set_defaults(command=_check)

    schema = commands.add_parser("schema", help="print the JSON Schema of a site config")
    schema.set_defaults(command=_schema)

    table = commands.add_parser("map", help="print a register map as a table")
    table.add_argument("file", help="a path, or the name of a shipped map")
    table.set_defaults(command=_map)

    ports = commands.add_parser("ports", help="list the serial ports and what to write in a config for each")
    how = ports.add_mutually_exclusive_group()
    how.add_argument("--watch", action="store_true", help="follow what is plugged in and pulled out")
    how.add_argument(
        "--test",
        nargs=2,
        metavar=("PORT_A", "PORT_B"),
        help="check two ports that are wired together; each a path, usb:SERIAL or a match as in a config",
    )
    ports.set_defaults(command=_ports)

    read = commands.add_parser("read", help="read a device's registers by name through its map")
    _add_device(read)
    read.add_argument("names", nargs="*", help="registers to read, or bits of them (default: all)")
    read.add_argument("--json", action="store_true", help="one JSON object instead of a table")
    read.add_argument(
        "--watch",
        type=seconds,
        nargs="?",
        const=1.0,
        metavar="S",
        help="read again each S seconds (default 1)",
    )
    read.set_defaults(command=_read)

    write = commands.add_parser("write", help="write a device's registers by name through its map")
    _add_device(write)
    write.add_argument(
        "values", nargs="+", metavar="NAME=VALUE", help="in the unit of the map, or one of its labels"
    )
    write.set_defaults(command=_write)

    add_commands(commands)
    _add_scenario(commands)
    _add_record(commands)
    return parser


def _add_record(commands: Any) -> None:
    """Add `record` with what can be done with the recording of a service, and `replay`."""
    from pathlib import Path

    record = commands.add_parser("record", help="what a running service has recorded")
    verbs = record.add_subparsers(required=True, metavar="VERB")
    dump = verbs.add_parser("dump", help="write the last minutes as an incident bundle")
    dump.add_argument("file", type=Path, nargs="?", help="default: SITE-TIME.zip in this folder")
    dump.add_argument("--control", type=Path, metavar="PATH", help="control socket of the service")
    dump.set_defaults(command=_record_dump)

    replay = commands.add_parser("replay", help="make the steps of an incident bundle again; the same?")
    replay.add_argument("bundle", type=Path)
    replay.add_argument(
        "--csv", type=Path, metavar="FOLDER", help="write measurements.csv and commands.csv there"
    )
    replay.set_defaults(command=_replay)


def _add_scenario(commands: Any) -> None:
    """Add `scenario` with what can be done with one."""
    from pathlib import Path

    scenario = commands.add_parser("scenario", help="make things go wrong on purpose, and judge the EMS")
    verbs = scenario.add_subparsers(required=True, metavar="VERB", dest="verb")
    run = verbs.add_parser("run", help="run a scenario on a site; the exit status is the verdict")
    check = verbs.add_parser("check", help="check a scenario against a site; opens no port")
    for verb in (run, check):
        verb.add_argument("file", type=Path, help="scenario, YAML or JSON")
        verb.add_argument("-c", "--config", type=Path, required=True, help="site config, JSON or YAML")
    run.add_argument(
        "--ems",
        metavar="FILE.py:FUNCTION",
        help="an EMS written in Python: it runs in simulated time, as fast as the machine goes",
    )
    run.add_argument("--fallback", choices=("pty", "none"), help="as for `dertwin run`")
    run.add_argument(
        "--report", type=Path, metavar="FOLDER", help="write report.html, junit.xml and plain data there"
    )
    start = verbs.add_parser("start", help="run a scenario on the service that is running here")
    start.add_argument("file", type=Path, help="scenario, YAML or JSON")
    start.add_argument("--wait", action="store_true", help="until its end; the exit status is the verdict")
    stop = verbs.add_parser("stop", help="stop the scenario that runs on the service")
    status = verbs.add_parser("status", help="show how the scenario on the service stands, or ended")
    for verb in (start, stop, status):
        verb.add_argument("--control", type=Path, metavar="PATH", help="control socket of the service")
        verb.add_argument("--json", action="store_true", help="all there is, as JSON")
        verb.set_defaults(command=_scenario_on_service)
    page = verbs.add_parser("reference", help="print all that a scenario file may say, as Markdown")
    page.set_defaults(command=_scenario_reference)
    schema = verbs.add_parser("schema", help="print the JSON Schema of a scenario file")
    schema.set_defaults(command=_scenario_schema)
    run.set_defaults(command=_scenario_run)
    check.set_defaults(command=_scenario_check)


def _add_device(parser: argparse.ArgumentParser) -> None:
    """Add what `read` and `write` have in common: where the device is, and its map."""
    parser.add_argument("target", help="HOST:PORT for Modbus TCP, or the path of a serial port")
    parser.add_argument("map", help="register map: a path or the name of a shipped one")
    parser.add_argument(
        "-u", "--unit", type=unit_id, default=1, help="unit id (default 1; 0 on a line: all units)"
    )
    parser.add_argument("--rtu-over-tcp", action="store_true", help="HOST:PORT takes RTU frames")
    parser.add_argument("--baudrate", type=baudrate, default=9600)
    parser.add_argument("--parity", choices=("N", "E", "O"), default="N")
    parser.add_argument("--stopbits", type=int, choices=(1, 2), default=1)
    parser.add_argument("--timeout", type=seconds, default=1.0, help="s to wait for a reply (default 1)")


# Argument types: argparse shows the name of the function and the text it refused.
def unit_id(text: str) -> int:
    """Return a unit id. Raises ValueError."""
    if not 0 <= int(text) <= 255:
        raise ValueError
    return int(text)


def baudrate(text: str) -> int:
    """Return a baud rate. Raises ValueError."""
    if int(text) <= 0:
        raise ValueError
    return int(text)


def seconds(text: str) -> float:
    """Return a time (s) to wait. Raises ValueError."""
    if not 0 < float(text) <= 86_400:
        raise ValueError
    return float(text)


def _address(text: str) -> tuple[str, int] | None:
    from argparse import ArgumentTypeError

    if text == "none":
        return None
    host, colon, port = text.rpartition(":")
    host = host.removeprefix("[").removesuffix("]")
    if not colon or not port.isascii() or not port.isdecimal() or not 1 <= int(port) <= 65535:
        raise ArgumentTypeError(f"{text!r} is not allowed; use HOST:PORT, :PORT (any host), or none")
    return host or "0.0.0.0", int(port)


def _control(text: str) -> Path | str | None:
    from pathlib import Path

    return None if text == "none" else "default" if text == "default" else Path(text)


def _run(options: argparse.Namespace) -> int:
    from pathlib import Path

    from bench.serve import RunOptions, serve

    # systemd gives all state directories of a unit, separated by colons.
    given = os.environ.get("STATE_DIRECTORY", "").partition(":")[0]
    return serve(
        RunOptions(
            options.config,
            options.fallback,
            options.state_dir or (Path(given) if given else None),
            options.save_every,
            options.listen_metrics,
            options.web_config,
            options.control,
        )
    )


def _check(options: argparse.Namespace) -> int:
    from bench.check import check_site

    site = check_site(options.config)
    bindings = sum(len(layouts) for layouts in site.layouts.values())
    print(f"{options.config}: good: {len(site.layouts)} devices, {bindings} bindings")
    return 0


def _schema(options: argparse.Namespace) -> int:
    import json

    from dertwin.config import site_schema

    print(json.dumps(site_schema(), indent=2))
    return 0


def _ports(options: argparse.Namespace) -> int:
    import asyncio

    from bench import loopback, port_list
    from bench.links.link import LinkDown

    try:
        if options.test:
            return 0 if loopback.check_pair(*options.test) else 1
        if options.watch:
            asyncio.run(port_list.watch_ports())
        port_list.print_ports()
    except LinkDown as error:
        print(error, file=sys.stderr)
        return 1
    return 0


def _record_dump(options: argparse.Namespace) -> int:
    from bench.record import dump

    return dump(options)


def _replay(options: argparse.Namespace) -> int:
    from bench.record import replay_bundle

    return replay_bundle(options)


def _scenario_run(options: argparse.Namespace) -> int:
    from bench.scenario_command import run

    return run(options)


def _scenario_check(options: argparse.Namespace) -> int:
    from bench.scenario_command import check

    return check(options)


def _scenario_on_service(options: argparse.Namespace) -> int:
    from bench import scenario_client

    return {"start": scenario_client.start, "stop": scenario_client.stop, "status": scenario_client.status}[
        options.verb
    ](options)


def _scenario_reference(options: argparse.Namespace) -> int:
    from dertwin.scenario.reference import reference

    print(reference(), end="")
    return 0


def _scenario_schema(options: argparse.Namespace) -> int:
    import json

    from dertwin.scenario.document import scenario_schema

    print(json.dumps(scenario_schema(), indent=2))
    return 0


def _map(options: argparse.Namespace) -> int:
    from bench.client import find_map
    from dertwin.registers.table import Row, table

    rows = [Row(*Row._fields), *table(find_map(options.file))]
    widths = [max(len(row[column]) for row in rows) for column in range(len(Row._fields))]
    for row in rows:
        print("  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip())
    return 0


def _read(options: argparse.Namespace) -> int:
    from bench.client import read

    return read(options)


def _write(options: argparse.Namespace) -> int:
    from bench.client import write

    return write(options)


if __name__ == "__main__":
    sys.exit(main())
