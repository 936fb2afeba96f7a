"""Serves a site config with a recorder or without one; usage: recorder_server.py CONFIG on|off."""

import asyncio
import sys
from pathlib import Path

import uvloop

from bench.app import Bench
from bench.check import check_site
from bench.recorder import Recorder


async def serve(config: Path, recorder: Recorder | None) -> None:
    async with Bench(check_site(config), recorder):
        await asyncio.get_running_loop().create_future()


if __name__ == "__main__":
    uvloop.run(serve(Path(sys.argv[1]), Recorder() if sys.argv[2] == "on" else None))
