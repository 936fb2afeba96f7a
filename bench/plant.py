"""A served site without wires and without a clock: an EMS written in Python against it, as fast as it goes.

An EMS is a generator function: it reads and writes, and yields how long it sleeps (s) before it goes on.

    def ems(plant: Plant) -> Iterator[float]:
        while True:
            import_w = plant.read("meter-1", "active_power")
            plant.write("bess-1", "active_power_setpoint", import_w)
            yield 1.0

Every read and write is a Modbus request to the device's register image, under the names of its register
map and in the units of that.
"""

import math
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from traceback import extract_tb
from typing import Any

from bench.app import Bench
from bench.check import CheckedSite
from bench.disturbance import Disturbance
from bench.faults import Faults
from bench.links.link import ModbusLink
from bench.scenarios import BenchScenario
from bench.unit import Unit
from dertwin.config_errors import use
from dertwin.registers.register import COIL, DISCRETE_INPUT, Register
from dertwin.scenario.document import LoadedScenario
from dertwin.scenario.link import WholeLinkFault
from dertwin.scenario.record import Exchange
from dertwin.scenario.run import ScenarioResult
from dertwin.stepping import TOLERANCE

REPLY_TIMEOUT_S = 1.0
# Who asks more often without letting time pass waits for something that cannot come.
MOST_REQUESTS_AT_ONCE = 20_000
_WRITE_COIL, _WRITE_REGISTERS = 0x05, 0x10


class NoReply(Exception):
    """The device did not answer within the time-out, which has passed in simulated time."""


class Refused(Exception):
    """The device answered with an exception reply; `code` is its Modbus exception code."""

    def __init__(self, code: int, what: str) -> None:
        super().__init__(f"{what}: exception {code:02d}")
        self.code = code


class Plant:
    """A site in simulated time, as an EMS in Python sees it."""

    def __init__(self, checked: CheckedSite) -> None:
        """Build the site; no port is opened."""
        self.bench = Bench(checked)
        self.bench.faults = Faults(self.bench, now=lambda: self.now_s)
        self.exchanges: list[Exchange] = []
        self.waited_s = 0.0
        self._asked_before = 0
        self._units: dict[str, tuple[ModbusLink, int, Unit]] = {}
        for link in self.bench.links.values():
            for unit_id, unit in link.units.items():
                self._units.setdefault(unit.asset_id, (link, unit_id, unit))
        self._registers = {
            asset_id: ({r.name: r for r in maps[0].registers} if maps else {})
            for asset_id, maps in checked.maps.items()
        }

    @property
    def now_s(self) -> float:
        """Return the simulated time since the start of the run (s), as the EMS has waited for it."""
        return self.bench.site.time_s + self.waited_s

    def read(self, device: str, name: str) -> float:
        """Return a value in the unit of the map; NaN if the device has none. Raises NoReply, Refused."""
        register = self._register(device, name, "read")
        request = bytes((register.table,)) + _words(register.address, register.count)
        data = self.request(device, request)[2:]
        if register.table in (COIL, DISCRETE_INPUT):
            return float(data[0] & 1)
        codec = register.codec
        raw = codec.unpack(data)
        if isinstance(raw, bytes):
            raise ValueError(f"{device}.{name} is a text")
        return math.nan if codec.sentinel is not None and raw == codec.sentinel else raw * register.scale

    def write(self, device: str, name: str, value: float) -> None:
        """Write a value in the unit of the map. Raises NoReply, Refused."""
        register = self._register(device, name, "written")
        if register.table == COIL:
            self.request(device, bytes((_WRITE_COIL,)) + _words(register.address, 0xFF00 if value else 0))
            return
        raw, fits = register.codec.fit(value / register.scale)
        if not fits:
            raise ValueError(f"{device}.{name}: {value:g} does not fit into {register.type}")
        data = register.codec.pack(raw)
        head = bytes((_WRITE_REGISTERS,)) + _words(register.address, register.count)
        self.request(device, head + bytes((len(data),)) + data)

    def tick(self) -> None:
        """Let a step of simulated time pass."""
        self.waited_s = 0.0
        self._asked_before = len(self.exchanges)
        self.bench.tick()
        self.bench.faults.expire()

    def request(self, device: str, pdu: bytes) -> bytes:
        """Return the reply PDU of a device to a request PDU. Raises NoReply, Refused.

        Raises RuntimeError when so many came without a step in between that nobody can mean it.
        """
        if len(self.exchanges) - self._asked_before >= MOST_REQUESTS_AT_ONCE:
            raise RuntimeError(f"{MOST_REQUESTS_AT_ONCE} requests at once; let time pass between them")
        link, unit_id, unit = self._unit(device)
        asked_s = self.now_s
        reply, late_s = _exchanged(link.disturbance, device, unit_id, pdu, unit)
        if late_s >= REPLY_TIMEOUT_S:
            reply = b""
        self.waited_s += late_s if reply else REPLY_TIMEOUT_S
        replied_s = self.now_s if reply else math.nan
        self.exchanges.append(Exchange(asked_s, replied_s, link.name, "ems", unit_id, device, pdu, reply))
        if not reply:
            raise NoReply(f"{device}: no reply within {REPLY_TIMEOUT_S:g} s")
        if reply[0] & 0x80:
            raise Refused(reply[1], f"{device}: function {pdu[0]}")
        return reply

    def _unit(self, device: str) -> tuple[ModbusLink, int, Unit]:
        if device not in self._units:
            raise ValueError(f'"{device}" has no registers here; {use(self._units, device)}')
        return self._units[device]

    def _register(self, device: str, name: str, done: str) -> Register:
        registers: Mapping[str, Register] = self._registers.get(device, {})
        register = registers.get(name)
        if register is None or (done == "written") != (register.direction == "write"):
            if register is not None and done == "read" and register.access != "wo":
                return register
            self._unit(device)
            known = [r.name for r in registers.values() if done == "read" or r.direction == "write"]
            raise ValueError(f'"{device}.{name}" cannot be {done}; {use(known, name)}')
        return register


def _exchanged(
    disturbance: Disturbance | None, device: str, unit_id: int, pdu: bytes, unit: Unit
) -> tuple[bytes, float]:
    """Return the reply that reaches the client (empty: none), and how late it is (s)."""
    if disturbance is None:
        return unit.respond(pdu), 0.0
    if any(isinstance(each.fault, WholeLinkFault) and each.fault.closed for each in disturbance.ongoing):
        return b"", 0.0
    outcome = disturbance.exchange(device, unit_id, pdu, unit.respond)
    return outcome.taken, outcome.late_s


Ems = Callable[[Plant], Iterator[float]]


def run_ems(
    checked: CheckedSite, loaded: LoadedScenario, ems: Ems, tell: Callable[..., Any] = lambda _: None
) -> ScenarioResult:
    """Run a scenario on a site with an EMS in Python, as fast as it goes, and return the result.

    When the EMS raises anything but NoReply or Refused, the scenario is stopped: it is not complete.
    """
    plant = Plant(checked)
    bench, site = plant.bench, plant.bench.site
    scenario = BenchScenario(bench, loaded, lambda since_s: exchanges_since(plant, since_s), tell)
    turns, awake_s = _turns(ems, plant), site.time_s
    while not scenario.over.is_set():
        while awake_s <= site.time_s + TOLERANCE:
            plant.waited_s = 0.0
            pause_s = _turn(turns, ems, scenario)
            awake_s = site.time_s + plant.waited_s + max(pause_s, site.config.step)
        plant.tick()
    return scenario.result()


def _turns(ems: Ems, plant: Plant) -> Iterator[float]:
    """Yield how long the EMS sleeps after each of its turns (s). Raises TypeError if that is no time."""
    for pause_s in ems(plant):
        if not isinstance(pause_s, float | int) or not pause_s >= 0.0:
            raise TypeError(f"it has yielded {pause_s!r}; use the s that it sleeps")
        yield pause_s


def _turn(turns: Iterator[float], ems: Ems, scenario: BenchScenario) -> float:
    """Let the EMS do what it does, and return how long it sleeps then (s): for ever when it has ended."""
    try:
        return next(turns, math.inf)
    except (NoReply, Refused) as error:
        scenario.note(f"the EMS has ended: {error}")
    except Exception as error:  # noqa: BLE001 - the EMS is not ours: whatever it raises is told as its own
        place = _place_in(error, ems)
        scenario.note(f"the EMS has failed{place}: {type(error).__name__}: {error}")
        scenario.stop()
    return math.inf


def _place_in(error: Exception, ems: Ems) -> str:
    """Return where in the file of an EMS it raised something; empty if it was not there."""
    code = getattr(ems, "__code__", None)
    lines = [
        frame.lineno
        for frame in extract_tb(error.__traceback__)
        if code and frame.filename == code.co_filename
    ]
    return f" in line {lines[-1]} of {Path(code.co_filename).name}" if code and lines else ""


def exchanges_since(plant: Plant, since_s: float) -> list[Exchange]:
    """Return the requests of a plant since a time (s since the start of the run), which becomes their 0."""
    return [
        each._replace(time_s=each.time_s - since_s, replied_s=each.replied_s - since_s)
        for each in plant.exchanges
        if each.time_s >= since_s - TOLERANCE
    ]


def _words(*values: int) -> bytes:
    return b"".join(value.to_bytes(2, "big") for value in values)
