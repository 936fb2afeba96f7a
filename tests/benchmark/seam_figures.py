"""What it costs each request that faults could act on it, while none does."""

import asyncio
import gc
import json
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any, cast

import programs
from support.service import free_port
from table import Figure

from bench.app import Bench
from bench.check import check_site
from bench.links.tcp import MbapConnection, TcpLink
from dertwin.modbus import mbap
from dertwin.scenario.wire import NoReply

# Short rounds of each in turn, of which the fastest counts: what disturbs the machine makes others slower.
ROUNDS, REQUESTS = 2000, 200


class Transport:
    """A socket that takes everything."""

    def write(self, data: bytes) -> None:
        pass

    def get_extra_info(self, name: str) -> None:
        pass

    def set_write_buffer_limits(self, high: int) -> None:
        pass


class WithoutSeam(MbapConnection):
    """A connection that no fault can disturb."""

    def _answer(self, frames: list[mbap.Frame], received_at: float) -> None:
        link = self._link
        units = link.units
        replies = []
        for transaction_id, unit_id, pdu in frames:
            unit = units.get(unit_id) or link.unit(unit_id)
            reply = unit.respond(pdu) if unit is not None else self._refuse(pdu)
            if reply:
                replies.append(mbap.frame(transaction_id, unit_id, reply))
        if replies:
            sent_at = self.send(b"".join(replies))
            link.latency.observe(sent_at - received_at, len(replies))


def figures(folder: Path) -> list[Figure]:
    """Ask connections in memory with and without the seam in turn, and return the difference."""
    bess = {"type": "bess", "port": free_port(), "register_map": "ten_registers.yaml"}
    path = folder / "seam.json"
    path.write_text(json.dumps({"register_map_root": str(programs.HERE), "assets": [bess]}))
    bench = Bench(check_site(path))
    (link,) = bench.links.values()
    assert isinstance(link, TcpLink)
    connections = MbapConnection(link), WithoutSeam(link)
    for connection in connections:
        connection.connection_made(cast(Any, Transport()))
    gc.disable()
    with_us, without_us = _fastest_us(*(each.data_received for each in connections))
    gc.enable()
    asyncio.run(_disturb(bench))
    disturbed_us, _ = _fastest_us(connections[0].data_received, lambda request: None)
    return [
        Figure(
            "what a request pays for faults while there is none",
            "us",
            {"ours": with_us - without_us},
            "<= 1",
            lambda m: m["ours"] <= 1.0,
            f"{with_us:.2f} us in all, {without_us:.2f} us without the seam,"
            f" {disturbed_us:.2f} us while there is a fault for another unit; in memory",
        )
    ]


async def _disturb(bench: Bench) -> None:
    bench.faults.start(NoReply(wire_fault="no_reply", unit_id=9, count=1))


def _fastest_us(*functions: Callable[[bytes], None]) -> list[float]:
    fastest = [float("inf")] * len(functions)
    for _ in range(ROUNDS):
        for index, function in enumerate(functions):
            start = time.perf_counter()
            for _ in range(REQUESTS):
                function(programs.REQUEST)
            fastest[index] = min(fastest[index], time.perf_counter() - start)
    return [seconds / REQUESTS * 1e6 for seconds in fastest]
