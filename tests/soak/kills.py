"""Kills the service again and again, at any moment from its start on, and looks what the next run knows."""

import json
import random
import subprocess
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

from ems import heartbeat_at
from plant import Unit
from support.service import START_TIMEOUT_S
from support.tcp import Client

ROUNDS = 20
SAVE_EVERY_S = 0.5
# A step until the write is in the state, and the disk.
SLACK_S = 0.5
LONGEST_RUN_S = 2.0
WHILE_STARTING = 0.25
PAUSE_S = 0.002


class Kills(NamedTuple):
    """What was lost at each restart that got so far as to answer (s of writes), and what was wrong."""

    lost_s: list[float]
    wrong: list[str]


class _Counter:
    """The only writer of the heartbeat of a unit: it writes the numbers from one on, and knows when."""

    def __init__(self, port: int, unit: Unit) -> None:
        self._written_at = {0: time.monotonic()}
        self._port = port
        self._unit_id = unit.unit_id
        self._at = heartbeat_at(unit).to_bytes(2, "big")

    def connect(self, until: float) -> Client | None:
        """Return a connection as soon as there is one; None if there is none until a time."""
        while time.monotonic() < until:
            try:
                return Client(self._port)
            except OSError:
                time.sleep(0.005)
        return None

    def look(self, client: Client, kills: Kills) -> None:
        """Note what of the writes before was lost."""
        restored = int.from_bytes(client.ask(b"\x03" + self._at + b"\0\1", self._unit_id)[2:], "big")
        written_at = self._written_at
        if restored in written_at:
            kills.lost_s.append(max(0.0, written_at[max(written_at)] - written_at[restored]))
        else:
            kills.wrong.append(f"{restored} was restored, which nobody wrote")
        written_at[restored] = time.monotonic()  # until it is saved again, this is what there is to restore

    def count_on(self, client: Client, until: float) -> None:
        """Write one number after the other until a time."""
        number = max(self._written_at)
        while time.monotonic() < until:
            number += 1
            client.ask(b"\x06" + self._at + number.to_bytes(2, "big"), self._unit_id)
            self._written_at[number] = time.monotonic()
            time.sleep(PAUSE_S)


def kill_again_and_again(
    run: Sequence[str], config: dict[str, Any], folder: Path, port: int, unit: Unit, rng: random.Random
) -> Kills:
    """Kill ROUNDS runs of a site; `unit`, at a TCP port of it, has a heartbeat that is kept."""
    path, log = folder / "killed.json", folder / "killed.log"
    path.write_text(json.dumps(config))
    options = ("--state-dir", str(folder / "killed"), "--save-every", str(SAVE_EVERY_S))
    command = [*run, "-c", str(path), *options, "--listen-metrics", "none", "--control", "none"]
    kills, counter = Kills([], []), _Counter(port, unit)
    with log.open("w") as stderr:
        for number in range(ROUNDS + 1):
            with subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=stderr) as process:
                while_starting = number < ROUNDS and rng.random() < WHILE_STARTING
                patience_s = rng.uniform(0.0, LONGEST_RUN_S) if while_starting else START_TIMEOUT_S
                try:
                    if client := counter.connect(time.monotonic() + patience_s):
                        with client:
                            counter.look(client, kills)
                            counter.count_on(client, time.monotonic() + rng.uniform(0.0, LONGEST_RUN_S))
                except (AssertionError, OSError) as error:
                    kills.wrong.append(f"run {number} of those killed: {error!r}")
                finally:
                    process.kill()
    for line in map(json.loads, log.read_text().splitlines()):
        if line["event"] in ("state set aside", "state not restored", "state not read", "time not restored"):
            kills.wrong.append(f"{line['event']}: {line.get('reason')}")
    return kills
