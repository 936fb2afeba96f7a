"""How a watcher asks the service, with nothing of ours in between."""

import asyncio
import contextlib
import socket
import ssl
from collections.abc import Iterator
from http.client import HTTPConnection, HTTPResponse, HTTPSConnection
from pathlib import Path
from typing import NamedTuple

from bench.http import HttpLink, pages
from bench.links.supervise import LinkStatus, supervise
from bench.scenario_host import ScenarioHost
from bench.web_config import Access
from support.inprocess import Running
from support.service import free_port, wait_for


class Answer(NamedTuple):
    status: int
    text: str
    response: HTTPResponse


def get(
    port: int,
    path: str,
    method: str = "GET",
    headers: dict[str, str] | None = None,
    tls: ssl.SSLContext | None = None,
) -> Answer:
    """Make one request with Python's own client."""
    connection = (
        HTTPSConnection("localhost", port, timeout=10.0, context=tls)
        if tls
        else HTTPConnection("127.0.0.1", port, timeout=10.0)
    )
    with contextlib.closing(connection):
        connection.request(method, path, headers=headers or {})
        response = connection.getresponse()
        return Answer(response.status, response.read().decode(), response)


def raw(port: int, data: bytes) -> bytes:
    """Send bytes and return everything that comes until the server closes."""
    with socket.create_connection(("127.0.0.1", port), timeout=15.0) as connection:
        connection.sendall(data)
        received = b""
        with contextlib.suppress(ConnectionResetError):
            while part := connection.recv(65536):
                received += part
        return received


@contextlib.contextmanager
def watched(running: Running, web_config: Path | None = None) -> Iterator[int]:
    """Serve the pages of a bench and yield their port."""
    port = free_port()
    status = LinkStatus()

    async def start() -> asyncio.Task[None]:
        link = HttpLink(
            "127.0.0.1", port, Access(web_config), pages(running.bench, ScenarioHost(running.bench))
        )
        return asyncio.create_task(supervise(link, status))

    task = running.wait(start())
    try:
        wait_for(lambda: status.up, what="the pages")
        yield port
    finally:
        running.call(task.cancel)
