"""A bench in this process, on an event loop of its own thread, so that tests can use plain sockets."""

import asyncio
import contextlib
import json
import threading
from collections.abc import Callable, Coroutine, Iterator
from concurrent.futures import Future
from pathlib import Path
from typing import Any, TypeVar

import uvloop

from bench.app import Bench
from bench.check import check_site
from bench.recorder import Recorder

T = TypeVar("T")


class Running:
    """A bench that serves, and the way to make calls on its event loop."""

    def __init__(self, bench: Bench, loop: asyncio.AbstractEventLoop) -> None:
        self.bench = bench
        self._loop = loop

    def call(self, function: Callable[..., T], *arguments: Any) -> T:
        """Call a function on the event loop and return its result, or raise what it raises."""

        async def call() -> T:
            return function(*arguments)

        return self.wait(call())

    def wait(self, coroutine: Coroutine[Any, Any, T]) -> T:
        return asyncio.run_coroutine_threadsafe(coroutine, self._loop).result(10.0)


@contextlib.contextmanager
def running(config: dict[str, Any], folder: Path, recorder: Recorder | None = None) -> Iterator[Running]:
    """Serve a site config from a thread; yields once all links are up or have failed."""
    path = folder / "site.json"
    path.write_text(json.dumps(config))
    started: Future[Running] = Future()
    stop = asyncio.Event()

    async def serve() -> None:
        async with Bench(check_site(path), recorder) as bench:
            await bench.settled()
            started.set_result(Running(bench, asyncio.get_running_loop()))
            await stop.wait()

    def run() -> None:
        try:
            uvloop.run(serve())
        except BaseException as error:
            if started.done():
                raise
            started.set_exception(error)

    thread = threading.Thread(target=run)
    thread.start()
    try:
        bench = started.result(10.0)
        yield bench
    finally:
        if started.done() and not started.exception():
            bench.call(stop.set)
        thread.join(10.0)
        assert not thread.is_alive()
