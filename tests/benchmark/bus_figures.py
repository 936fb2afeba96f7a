"""How a shared line fares: every disturbance of `support.bus`, on a pair that our service makes."""

from pathlib import Path

import programs
import rtu_figures
from support import bus
from table import Figure

ROUNDS = 100


def _answers(line: bus.Bus) -> bool:
    line.send(bus.read_request(bus.OWN_UNITS[0]))
    return len(line.receive(7, 0.2)) == 7


def figures(folder: Path) -> list[Figure]:
    """Count good replies and bytes out of turn over all disturbances; the worst case is named."""
    port = {"kind": "modbus_rtu", "port": str(folder / "bus"), "baudrate": 115200, "fallback": "pty"}
    assets = [{"type": "bess", "protocols": [{**port, "unit_id": unit_id}]} for unit_id in bus.OWN_UNITS]
    with programs.running(programs.our_server(folder, assets)) as process:
        client_end = folder / "bus_client"
        rtu_figures.wait_until(process, client_end.exists)
        line = bus.Bus(str(client_end))
        # What arrives before the service has opened its end is lost, as on any line.
        rtu_figures.wait_until(process, lambda: _answers(line))
        tallies = {name: bus.run(name, line, ROUNDS) for name in bus.CASES}
        line.close()
    requests = sum(tally.requests for tally in tallies.values())
    good = {name: tally.good / tally.requests for name, tally in tallies.items()}
    worst = min(good, key=good.__getitem__)
    remark = f"{requests} own requests in {len(tallies)} kinds of traffic"
    if good[worst] < 1.0:
        remark += f"; worst: {worst}, {good[worst]:.1%}"
    answered = 100.0 * sum(tally.good for tally in tallies.values()) / requests
    return [
        Figure(
            "own requests answered on a shared bus, all disturbances",
            "%",
            {"ours": answered},
            "100",
            lambda m: m["ours"] == 100.0,
            remark,
        ),
        Figure(
            "bytes sent out of turn meanwhile",
            "bytes",
            {"ours": float(sum(tally.out_of_turn for tally in tallies.values()))},
            "0",
            lambda m: m["ours"] == 0.0,
        ),
    ]
