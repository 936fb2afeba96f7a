"""A small HTTP server for those who watch: /metrics, /healthz, /readyz, /status.

It answers GET and HEAD, one request a connection, and nothing that a client does costs it more than
a few kilobytes for a few seconds: few connections, a bounded head, one deadline for all of it.
"""

import asyncio
import base64
import binascii
import contextlib
import json
import re
import socket
import ssl
from collections.abc import Awaitable, Callable, Mapping
from typing import NamedTuple

import structlog

from bench.app import Bench
from bench.counters import Latency
from bench.exposition import CONTENT_TYPE, exposition
from bench.health import status, stuck, unready
from bench.links.link import LinkDown
from bench.metrics import registry
from bench.scenario_host import ScenarioHost
from bench.scenario_metrics import ScenarioCollector
from bench.unit import Unit
from bench.web_config import Access

log = structlog.get_logger()

MAX_CONNECTIONS = 32
MAX_HEAD_BYTES = 8 * 1024
# For everything: handshake, request, reply. Prometheus waits 10 s by default.
DEADLINE_S = 10.0
_REQUEST_LINE = re.compile(r"([A-Z]{1,16}) (/[!-~]*) HTTP/1\.[01]")
_REASONS = {
    200: "OK",
    400: "Bad Request",
    401: "Unauthorized",
    404: "Not Found",
    405: "Method Not Allowed",
    431: "Request Header Fields Too Large",
    500: "Internal Server Error",
    503: "Service Unavailable",
}
TEXT, JSON = "text/plain; charset=utf-8", "application/json"


class Response(NamedTuple):
    """What a request is answered with."""

    status: int
    body: bytes
    content_type: str = TEXT
    headers: tuple[str, ...] = ()


class Refused(Exception):
    """A request that is not answered as it would like."""

    def __init__(self, status: int, why: str, *headers: str) -> None:
        super().__init__(why)
        self.response = Response(status, f"{why}\n".encode(), headers=headers)


Page = Callable[[], Awaitable[Response]]


def pages(bench: Bench, scenarios: ScenarioHost) -> Mapping[str, Page]:
    """Return what is to be read about a bench and its scenarios, by path."""
    known = registry(bench)
    known.register(ScenarioCollector(scenarios, bench))
    one_at_a_time = asyncio.Lock()

    async def metrics() -> Response:
        async with one_at_a_time:
            return Response(200, await exposition(known), CONTENT_TYPE)

    async def healthz() -> Response:
        return _verdict(stuck(bench))

    async def readyz() -> Response:
        return _verdict(unready(bench))

    async def status_page() -> Response:
        return Response(200, json.dumps(status(bench), indent=2).encode() + b"\n", JSON)

    return {"/metrics": metrics, "/healthz": healthz, "/readyz": readyz, "/status": status_page}


def _verdict(reasons: list[str]) -> Response:
    text = "".join(f"{reason}\n" for reason in reasons or ["ok"])
    return Response(503 if reasons else 200, text.encode())


class HttpLink:
    """The address at which all this is served; kept up like any other link."""

    def __init__(self, host: str, port: int, access: Access, known_pages: Mapping[str, Page]) -> None:
        self.units: dict[int, Unit] = {}
        self.latency = Latency()
        self._address = host, port
        self._access = access
        self._pages = known_pages
        self._clients: set[asyncio.Task[None]] = set()
        # Those whose request is not complete yet, the one that waits for longest first.
        self._silent: dict[asyncio.Task[None], None] = {}

    @property
    def name(self) -> str:
        """Return the link's name in logs."""
        host, port = self._address
        return f"http {f'[{host}]' if ':' in host else host}:{port}"

    @property
    def required(self) -> bool:
        """Tell that the site is ready without it."""
        return False

    async def serve(self, up: Callable[[str], None]) -> None:
        """Listen until cancelled; see Link."""
        loop = asyncio.get_running_loop()
        try:
            family = socket.AF_INET6 if ":" in self._address[0] else socket.AF_INET
            listener = socket.create_server(self._address, family=family, backlog=MAX_CONNECTIONS)
        except OSError as error:
            raise LinkDown(f"cannot listen: {error.strerror}; see --listen-metrics") from error
        try:
            listener.setblocking(False)
            scheme = "https" if self._access.current().tls else "http"
            up(f"{scheme}://{self.name.removeprefix('http ')}/metrics")
            while True:
                connection, _ = await loop.sock_accept(listener)
                self._admit(connection)
        finally:
            listener.close()
            for client in self._clients:
                client.cancel()

    def _admit(self, connection: socket.socket) -> None:
        """Serve a connection; when there are too many, one that says nothing has to go for it."""
        if len(self._clients) >= MAX_CONNECTIONS:
            if not self._silent:
                connection.close()
                return
            oldest = next(iter(self._silent))
            del self._silent[oldest]
            oldest.cancel()
        client = asyncio.create_task(self._converse(connection))
        self._clients.add(client)
        self._silent[client] = None
        client.add_done_callback(self._forget)

    def _forget(self, client: "asyncio.Task[None]") -> None:
        self._clients.discard(client)
        self._silent.pop(client, None)

    async def _converse(self, connection: socket.socket) -> None:
        reader = asyncio.StreamReader(limit=MAX_HEAD_BYTES)
        protocol = asyncio.StreamReaderProtocol(reader)
        loop = asyncio.get_running_loop()
        transport: asyncio.Transport | None = None
        try:
            async with asyncio.timeout(DEADLINE_S):
                transport, _ = await loop.connect_accepted_socket(
                    lambda: protocol, connection, ssl=self._access.current().tls
                )
                writer = asyncio.StreamWriter(transport, protocol, reader, loop)
                writer.write(await self._reply(reader))
                await writer.drain()
                writer.close()
                await writer.wait_closed()
        except (TimeoutError, OSError, ssl.SSLError, asyncio.IncompleteReadError):
            pass  # a client that is gone, slow, or speaks no TLS: nobody to answer
        except Exception:
            log.exception("a watcher's request failed")
        finally:
            if transport is None:
                connection.close()
            else:
                transport.abort()

    async def _reply(self, reader: asyncio.StreamReader) -> bytes:
        method = "GET"
        try:
            head = await _head(reader)
            client = asyncio.current_task()
            assert client is not None
            self._silent.pop(client, None)
            method, path, fields = _parse(head)
            await self._authenticate(fields.get("authorization", ""))
            response = await self._answer(method, path)
        except Refused as refused:
            response = refused.response
        return _encode(response, with_body=method != "HEAD")

    async def _authenticate(self, authorization: str) -> None:
        if not self._access.current().users:
            return
        scheme, _, encoded = authorization.partition(" ")
        user = password = ""
        if scheme.lower() == "basic":
            with contextlib.suppress(binascii.Error, ValueError):
                user, _, password = base64.b64decode(encoded, validate=True).decode().partition(":")
        if not user or not await self._access.admits(user, password):
            raise Refused(401, "who are you?", 'WWW-Authenticate: Basic realm="dertwin"')

    async def _answer(self, method: str, path: str) -> Response:
        page = self._pages.get(path)
        if page is None:
            raise Refused(404, f"nothing here; there are {', '.join(self._pages)}")
        if method not in ("GET", "HEAD"):
            raise Refused(405, "only GET and HEAD", "Allow: GET, HEAD")
        return await page()


async def _head(reader: asyncio.StreamReader) -> str:
    try:
        return (await reader.readuntil(b"\r\n\r\n")).decode("latin-1")
    except asyncio.LimitOverrunError as error:
        raise Refused(431, f"the request's head has more than {MAX_HEAD_BYTES} bytes") from error


def _parse(head: str) -> tuple[str, str, dict[str, str]]:
    """Return method, path and header fields (names in lower case) of a request."""
    first, *rest = head[:-4].split("\r\n")
    request = _REQUEST_LINE.fullmatch(first)
    if request is None:
        raise Refused(400, "this is no HTTP request")
    fields = {}
    for line in rest:
        name, colon, value = line.partition(":")
        if not colon or not name or name != name.strip():
            raise Refused(400, "a header field has no name")
        fields[name.lower()] = value.strip()
    return request[1], request[2].partition("?")[0], fields


def _encode(response: Response, with_body: bool) -> bytes:
    lines = (
        f"HTTP/1.1 {response.status} {_REASONS[response.status]}",
        f"Content-Type: {response.content_type}",
        f"Content-Length: {len(response.body)}",
        "Cache-Control: no-store",
        "X-Content-Type-Options: nosniff",
        "Connection: close",
        *response.headers,
    )
    head = "".join(f"{line}\r\n" for line in lines) + "\r\n"
    return head.encode("latin-1") + (response.body if with_body else b"")
