"""The local control socket of a service: a JSON object a line for each request, and one for its answer.

A request has a `verb` and what that needs; an answer has `ok`, and either what came of it or an `error` in
words. When it has `attached`, so many bytes follow it.
"""

import asyncio
import contextlib
import glob
import json
import os
import socket
from collections.abc import Awaitable, Callable, Mapping
from pathlib import Path
from typing import Any, NamedTuple

import structlog

from bench.app import Bench
from bench.counters import Latency
from bench.links.link import LinkDown
from bench.scenario_host import ScenarioHost
from bench.unit import Unit
from dertwin.config_errors import ConfigErrors, show, use

log = structlog.get_logger()

# A scenario with the recordings that it plays.
MAX_REQUEST_BYTES = 4 * 1024 * 1024
MAX_CLIENTS = 8
REQUEST_TIMEOUT_S = 10.0
# A dump of full rings takes some seconds on a small host.
ANSWER_TIMEOUT_S = 120.0


class Refused(Exception):
    """The service does not do what was asked; the message says why."""


class Answer(NamedTuple):
    """What comes of a request: for JSON, and bytes that follow."""

    content: Mapping[str, Any]
    attached: bytes = b""


Verb = Callable[[Mapping[str, Any]], Awaitable[Answer]]


def verbs(bench: Bench, scenarios: ScenarioHost) -> Mapping[str, Verb]:
    """Return what can be asked of a bench that serves, and of its scenarios, by verb."""
    one_at_a_time = asyncio.Lock()

    async def record_dump(request: Mapping[str, Any]) -> Answer:
        if bench.recorder is None:
            raise Refused("nothing is recorded here")
        from bench.incident import bundled, default_name

        async with one_at_a_time:
            bundle = await bundled(bench, str(request.get("reason", "record dump")))
        return Answer({"name": default_name(bench.site.config.site_name)}, bundle)

    async def scenario_start(request: Mapping[str, Any]) -> Answer:
        name, files = request.get("name"), request.get("files")
        if not isinstance(name, str) or not isinstance(files, dict) or name not in files:
            raise Refused("use `name`, and `files` with the text of each by its name")
        if not all(isinstance(text, str) for text in files.values()):
            raise Refused("files: use texts")
        try:
            return Answer(await scenarios.start(name, files))
        except ConfigErrors as errors:
            raise Refused("\n".join(map(str, errors.errors))) from errors

    async def scenario_stop(_: Mapping[str, Any]) -> Answer:
        return Answer(scenarios.stop())

    async def scenario_status(_: Mapping[str, Any]) -> Answer:
        return Answer(scenarios.status())

    return {
        "record dump": record_dump,
        "scenario start": scenario_start,
        "scenario stop": scenario_stop,
        "scenario status": scenario_status,
    }


def own_path(site_name: str) -> Path | None:
    """Return where the control socket of a service is made; None if the host has no place for it.

    systemd sets RUNTIME_DIRECTORY for a service, and XDG_RUNTIME_DIR for whoever has logged in.
    """
    if folder := os.environ.get("RUNTIME_DIRECTORY", "").partition(":")[0]:
        return Path(folder, "control")
    folder = os.environ.get("XDG_RUNTIME_DIR") or ("/run" if os.geteuid() == 0 else "")
    name = "".join(letter if letter.isalnum() else "-" for letter in site_name)
    return Path(folder, f"dertwin-{name}.sock") if folder else None


def find_path(run: Path = Path("/run")) -> Path:
    """Return the control socket of the only service that runs here. Raises Refused if it is not one."""
    user = os.environ.get("XDG_RUNTIME_DIR")
    patterns = [f"{run}/dertwin/control", f"{run}/dertwin-*/control", f"{run}/dertwin-*.sock"]
    patterns += [f"{user}/dertwin-*.sock"] if user else []
    found = sorted({path for pattern in patterns for path in glob.glob(pattern) if _answers(path)})
    if len(found) == 1:
        return Path(found[0])
    if not found:
        raise Refused("no service runs here whose control socket you may use; name it with --control PATH")
    raise Refused(f"several services run here; use --control with one of {', '.join(found)}")


def ask(path: Path, request: Mapping[str, Any]) -> Answer:
    """Ask the service behind a control socket. Raises Refused."""
    line = json.dumps(request).encode() + b"\n"
    if len(line) > MAX_REQUEST_BYTES:
        raise Refused(f"{len(line)} bytes are to be sent, and a service takes {MAX_REQUEST_BYTES}; send less")
    try:
        with socket.socket(socket.AF_UNIX) as client, client.makefile("rb") as received:
            client.settimeout(ANSWER_TIMEOUT_S)
            client.connect(str(path))
            with contextlib.suppress(BrokenPipeError):  # it may have answered already that it is busy
                client.sendall(line)
            content = json.loads(received.readline())
            attached = received.read(content.get("attached", 0))
    except (OSError, ValueError) as error:
        reason = os.strerror(error.errno) if isinstance(error, OSError) and error.errno else error
        raise Refused(f"{path}: {reason}") from error
    if not content.get("ok"):
        raise Refused(f"{path}: {content.get('error')}")
    if len(attached) != content.get("attached", 0):
        raise Refused(f"{path}: the service ended before all had come")
    return Answer(content, attached)


class ControlLink:
    """The socket at which a service is asked; kept up like any other link."""

    def __init__(self, path: Path, known: Mapping[str, Verb]) -> None:
        self.units: dict[int, Unit] = {}
        self.latency = Latency()
        self._path = path
        self._verbs = known
        self._clients: set[asyncio.Task[None]] = set()

    @property
    def name(self) -> str:
        """Return the link's name in logs."""
        return f"control {self._path}"

    @property
    def required(self) -> bool:
        """Tell that the site is ready without it."""
        return False

    async def serve(self, up: Callable[[str], None]) -> None:
        """Listen until cancelled; see Link."""
        listener = _listen(self._path)
        server = await asyncio.start_unix_server(self._converse, sock=listener, limit=MAX_REQUEST_BYTES)
        up(str(self._path))
        try:
            await asyncio.get_running_loop().create_future()
        finally:
            server.close()
            for client in self._clients:
                client.cancel()
            self._path.unlink(missing_ok=True)

    async def _converse(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        client = asyncio.current_task()
        assert client is not None
        self._clients.add(client)
        try:
            if len(self._clients) > MAX_CLIENTS:
                writer.write(_encoded(_error("too many ask at the same time; try again")))
                return
            while line := await _line(reader):
                writer.write(_encoded(await self._answer(line)))
                await writer.drain()
        except (OSError, TimeoutError, asyncio.CancelledError):
            pass  # nobody to answer any more
        except ValueError:
            writer.write(_encoded(_error(f"a request has at most {MAX_REQUEST_BYTES} bytes")))
        finally:
            self._clients.discard(client)
            writer.close()

    async def _answer(self, line: bytes) -> Answer:
        try:
            request = json.loads(line)
            if not isinstance(request, dict):
                return _error("use a JSON object")
            verb = request.get("verb")
            if not isinstance(verb, str) or verb not in self._verbs:
                return _error(f"verb: {show(verb)} is not allowed; {use(self._verbs, verb)}")
            return await self._verbs[verb](request)
        except (ValueError, RecursionError) as error:
            return _error(f"is not JSON: {error}")
        except Refused as error:
            return _error(str(error))
        except Exception:
            log.exception("request failed", link=self.name, request=line.decode(errors="replace"))
            return _error("the service failed at this; its log has more")


async def _line(reader: asyncio.StreamReader) -> bytes:
    async with asyncio.timeout(REQUEST_TIMEOUT_S):
        return await reader.readline()


def _error(text: str) -> Answer:
    return Answer({"ok": False, "error": text})


def _encoded(answer: Answer) -> bytes:
    content = {"ok": True, **answer.content}
    if answer.attached:
        content["attached"] = len(answer.attached)
    return json.dumps(content).encode() + b"\n" + answer.attached


def _listen(path: Path) -> socket.socket:
    """Return a socket that owner and group may use. Raises LinkDown."""
    if _answers(str(path)):
        raise LinkDown(f"{path}: in use by another program; choose another with --control")
    listener = socket.socket(socket.AF_UNIX)
    usual = os.umask(0o117)
    try:
        if path.is_socket():  # left by one that was killed
            path.unlink()
        listener.bind(str(path))
    except OSError as error:
        listener.close()
        raise LinkDown(f"{path}: cannot listen: {error.strerror or error}; see --control") from error
    finally:
        os.umask(usual)
    return listener


def _answers(path: str) -> bool:
    with socket.socket(socket.AF_UNIX) as probe, contextlib.suppress(OSError):
        probe.settimeout(1.0)
        probe.connect(path)
        return True
    return False
