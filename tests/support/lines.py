"""Serial lines of the test's own: pairs that come and go, and a line that echoes."""

import contextlib
import os
import select
import subprocess
import threading
import tty
from collections.abc import Iterator
from pathlib import Path

from support.service import wait_for


class Pair:
    """A line made by a socat of the test's own, between `port` (the server's) and `client`."""

    def __init__(self, port: Path) -> None:
        self.port = port
        self.client = port.with_name(f"{port.name}_far")
        self._socat: subprocess.Popen[bytes] | None = None

    def appear(self) -> None:
        self._socat = subprocess.Popen(["socat", *(f"pty,rawer,link={p}" for p in (self.client, self.port))])
        wait_for(self.port.exists, what=f"{self.port}")

    def vanish(self) -> None:
        """End the line as if its adapter were pulled out: no farewell, and its name is gone."""
        if self._socat:
            self._socat.kill()
            self._socat.wait()
            self._socat = None
        for end in (self.port, self.client):
            end.unlink(missing_ok=True)


@contextlib.contextmanager
def pair(port: Path) -> Iterator[Pair]:
    """Yield a pair that is not there yet; it is gone in the end."""
    line = Pair(port)
    try:
        yield line
    finally:
        line.vanish()


@contextlib.contextmanager
def echoing_line(port: Path) -> Iterator[Path]:
    """Make a line at `port` whose adapter echoes all that the server sends; yield the client's path."""
    client = port.with_name(f"{port.name}_far")
    ends = [os.openpty(), os.openpty()]
    for path, (_, end) in zip((port, client), ends, strict=True):
        tty.setraw(end)
        path.symlink_to(os.ttyname(end))
    (server_side, _), (client_side, _) = ends
    stopped, stop = os.pipe()

    def relay() -> None:
        while True:
            ready = select.select([server_side, client_side, stopped], [], [])[0]
            if stopped in ready:
                return
            if server_side in ready:
                data = os.read(server_side, 4096)
                os.write(client_side, data)
                os.write(server_side, data)
            if client_side in ready:
                os.write(server_side, os.read(client_side, 4096))

    thread = threading.Thread(target=relay)
    thread.start()
    try:
        yield client
    finally:
        os.write(stop, b".")
        thread.join()
        for descriptor in (*ends[0], *ends[1], stopped, stop):
            os.close(descriptor)
