"""Device faults: what goes wrong in a device on purpose, for a while, and what its registers then show.

Measurements are in SI units under their SI names, as `docs/names.md` lists them. Every fault ends by
itself after `duration` (s of simulated time).
"""

import math
from collections.abc import Iterable, Mapping, Sequence
from random import Random
from typing import Annotated, Any, Literal, NamedTuple, TypeAlias

from pydantic import ConfigDict, Field, PrivateAttr

from dertwin.config_errors import use
from dertwin.devices.device import UNIMPAIRED, Command, Conditions, Device, Impairment
from dertwin.events import Point
from dertwin.physics.series import Series
from dertwin.physics.weather import gauss
from dertwin.schema import FrozenModel
from dertwin.stepping import TOLERANCE

SQRT3 = math.sqrt(3.0)
# What makes a device forget a lock-out: command and value by device type.
RESETS: Mapping[str, Command] = {
    "bess": Command("fault_reset", 1.0),
    "chp": Command("remote_acknowledgment", 4321.0),
    "inverter": Command("remote_on_off", 1.0),
}


class Fault(FrozenModel):
    """What all device faults have: the asset id of the device, and how long the fault lasts (s)."""

    model_config = ConfigDict(defer_build=True)  # a service that has no fault shall not wait for it

    device: str = Field(min_length=1)
    duration: float = Field(gt=0)

    def problem(self, device: Device) -> str:
        """Return why a device cannot have this fault; empty if it can."""
        return ""


class SensorFault(Fault):
    """A fault of one measurement: the device itself goes on as it is, its registers show something else."""

    measurement: str = Field(min_length=1)

    def problem(self, device: Device) -> str:
        known = device.measurements._fields
        return "" if self.measurement in known else f"measurement: {_unknown(self.measurement, known)}"

    def shown(self, value: float, held: float, since_s: float, random: Random) -> float:
        """Return what is shown of a value; `held` is what was shown when the fault began."""
        raise NotImplementedError


class Stuck(SensorFault):
    """The measurement stays what it was when the fault began."""

    device_fault: Literal["stuck"]

    def shown(self, value: float, held: float, since_s: float, random: Random) -> float:
        return held


class Drifting(SensorFault):
    """The measurement runs away by `per_s` (its unit per second)."""

    device_fault: Literal["drifting"]
    per_s: float

    def shown(self, value: float, held: float, since_s: float, random: Random) -> float:
        return value + self.per_s * since_s


class Noisy(SensorFault):
    """The measurement has white noise with the standard deviation `std` (its unit)."""

    device_fault: Literal["noisy"]
    std: float = Field(gt=0)

    def shown(self, value: float, held: float, since_s: float, random: Random) -> float:
        return value + self.std * gauss(random)


class Offset(SensorFault):
    """The measurement is wrong by a constant `by` (its unit)."""

    device_fault: Literal["offset"]
    by: float

    def shown(self, value: float, held: float, since_s: float, random: Random) -> float:
        return value + self.by


class WrongSign(SensorFault):
    """The measurement has the wrong sign, as with a current transformer the wrong way round."""

    device_fault: Literal["wrong_sign"]

    def shown(self, value: float, held: float, since_s: float, random: Random) -> float:
        return -value


class SetMeasurement(SensorFault):
    """The measurement shows `value`, or goes through a `table` of [s since the start, value]."""

    device_fault: Literal["set_measurement"]
    value: float | None = None
    table: list[Point] | None = Field(default=None, min_length=1)
    _series: Series = PrivateAttr()

    def model_post_init(self, context: Any, /) -> None:
        if (self.value is None) == (self.table is None):
            raise ValueError("give `value` or `table`, one of them")
        table = self.table or [(0.0, self.value or 0.0)]
        self._series = Series([time_s for time_s, _ in table], [value for _, value in table])

    def shown(self, value: float, held: float, since_s: float, random: Random) -> float:
        return self._series.at(since_s)


class Frozen(Fault):
    """All registers show what they showed when the fault began; the device itself goes on."""

    device_fault: Literal["frozen"]


class LostPhase(Fault):
    """The device does not see one phase: its voltage, current and power are 0, totals lack them.

    Voltages to the lost line fall to line-to-neutral. Counters go on.
    """

    device_fault: Literal["lost_phase"]
    phase: Literal["a", "b", "c"]

    def problem(self, device: Device) -> str:
        fields = device.measurements._fields
        seen = "voltage_an_v" in fields or "voltage_ab_v" in fields
        return "" if seen else "phase: this device measures no phases"


class Trip(Fault):
    """The device trips: no power, `code` as its fault code.

    With `lock_out` it stays tripped after `duration` until its EMS resets it: bess fault_reset 1,
    inverter remote_on_off 1, chp remote_acknowledgment 4321. (A CHP always wants to be acknowledged.)
    """

    device_fault: Literal["trip"]
    code: int = Field(default=9001, ge=1, le=65535)
    lock_out: bool = False

    def problem(self, device: Device) -> str:
        return _no_generator(device)


class Derated(Fault):
    """The power is at most `ratio` (0..1) of the ratings."""

    device_fault: Literal["derated"]
    ratio: float = Field(ge=0, le=1)

    def problem(self, device: Device) -> str:
        return _no_generator(device)


class SlowActuator(Fault):
    """Commands act `delay_s` later, and the power moves by at most `rate_w_per_s`."""

    device_fault: Literal["slow_actuator"]
    delay_s: float = Field(default=0.0, ge=0)
    rate_w_per_s: float | None = Field(default=None, gt=0)

    def problem(self, device: Device) -> str:
        return _no_generator(device) if self.rate_w_per_s is not None else ""


class IgnoredCommands(Fault):
    """Writes are accepted, and nothing comes of them: all commands, or those named (SI names)."""

    device_fault: Literal["ignored_commands"]
    commands: list[str] | None = Field(default=None, min_length=1)

    def problem(self, device: Device) -> str:
        wrong = [name for name in self.commands or () if name not in device.commands]
        return f"commands: {_unknown(wrong[0], device.commands)}" if wrong else ""


class RefusedCommands(Fault):
    """Every write gets an exception reply with `code`; reads are answered."""

    device_fault: Literal["refused_commands"]
    code: int = Field(default=4, ge=1, le=11)


class Reboot(Fault):
    """The device is silent and without power for `duration`, then it goes on with its default settings."""

    device_fault: Literal["reboot"]


class ClockJump(Fault):
    """The device's own clock is off by `by_s` (s): its day begins at another time."""

    device_fault: Literal["clock_jump"]
    by_s: float

    def problem(self, device: Device) -> str:
        keeps_time = "today_energy_wh" in device.measurements._fields
        return "" if keeps_time else "device: nothing in this device depends on the time of day"


DeviceFault: TypeAlias = Annotated[
    Stuck
    | Drifting
    | Noisy
    | Offset
    | WrongSign
    | SetMeasurement
    | Frozen
    | LostPhase
    | Trip
    | Derated
    | SlowActuator
    | IgnoredCommands
    | RefusedCommands
    | Reboot
    | ClockJump,
    Field(discriminator="device_fault"),
]


class Active(NamedTuple):
    """A fault that acts: from when until when (s since the start of the run), and what it needs to know."""

    fault: Fault
    from_s: float
    until_s: float
    held: Any
    random: Random

    def locked_out(self) -> bool:
        """Tell whether it outlives its time until it is reset."""
        return isinstance(self.fault, Trip) and self.fault.lock_out


class DeviceFaults:
    """The faults that act on the devices of a site now; falsy while there is none."""

    def __init__(self) -> None:
        self._active: list[Active] = []
        self._late: list[tuple[float, str, Command]] = []

    def __bool__(self) -> bool:
        return bool(self._active or self._late)

    @property
    def active(self) -> Sequence[Active]:
        """Return what acts now, in the order in which it began."""
        return tuple(self._active)

    def start(self, fault: Fault, device: Device, shown: Any, at_s: float, seed: str) -> None:
        """Let a fault act from at_s on; `shown` is what the device's registers show now."""
        self._active.append(Active(fault, at_s, at_s + fault.duration, shown, Random(seed)))
        if isinstance(fault, Reboot):
            device.reboot()
        self._impair(fault.device, device)

    def clear(self, devices: Mapping[str, Device]) -> None:
        """End all faults; commands that are under way arrive no more."""
        hit = {active.fault.device for active in self._active}
        self._active.clear()
        self._late.clear()
        for asset_id in hit & devices.keys():
            devices[asset_id].impairment = UNIMPAIRED

    def expire(
        self, devices: Mapping[str, Device], commands: Mapping[str, Sequence[Command]], time_s: float
    ) -> None:
        """End what has lasted its time before a step that ends at time_s, or was reset in it."""
        over = [
            active
            for active in self._active
            if time_s > active.until_s + TOLERANCE
            and not (active.locked_out() and not _reset(active.fault, devices, commands))
        ]
        for active in over:
            self._active.remove(active)
            if device := devices.get(active.fault.device):
                self._impair(active.fault.device, device)

    def arriving(
        self, commands: Mapping[str, Sequence[Command]], time_s: float
    ) -> Mapping[str, Sequence[Command]]:
        """Return the commands that reach the devices in a step that ends at time_s."""
        due = [late for late in self._late if late[0] <= time_s + TOLERANCE]
        self._late = [late for late in self._late if late[0] > time_s + TOLERANCE]
        arrived: dict[str, list[Command]] = {}
        for _, asset_id, command in due:
            arrived.setdefault(asset_id, []).append(command)
        for asset_id, batch in commands.items():
            ignored, delay_s = self._in_the_way(asset_id)
            for command in batch:
                if ignored is not None and (not ignored or command.name in ignored):
                    continue
                if delay_s:
                    self._late.append((time_s + delay_s, asset_id, command))
                else:
                    arrived.setdefault(asset_id, []).append(command)
        return arrived

    def conditions(self, asset_id: str, conditions: Conditions) -> Conditions:
        """Return what surrounds a device as the device sees it."""
        for active in self._active:
            if isinstance(active.fault, ClockJump) and active.fault.device == asset_id:
                conditions = conditions._replace(time_s=conditions.time_s + active.fault.by_s)
        return conditions

    def shown(self, measurements: Mapping[str, Any], time_s: float) -> Mapping[str, Any]:
        """Return what the registers of all devices show at time_s."""
        shown = dict(measurements)
        for fault, from_s, _, held, random in self._active:
            if fault.device not in shown:
                continue
            measured = shown[fault.device]
            if isinstance(fault, SensorFault):
                name = fault.measurement
                value = fault.shown(getattr(measured, name), getattr(held, name), time_s - from_s, random)
                shown[fault.device] = measured._replace(**{name: value})
            elif isinstance(fault, Frozen):
                shown[fault.device] = held
            elif isinstance(fault, LostPhase):
                shown[fault.device] = without_phase(measured, fault.phase)
        return shown

    def _in_the_way(self, asset_id: str) -> tuple[frozenset[str] | None, float]:
        """Return which commands a device ignores (None: none, empty: all), and how late others are (s)."""
        ignored: frozenset[str] | None = None
        delay_s = 0.0
        for active in self._active:
            fault = active.fault
            if fault.device != asset_id:
                continue
            if isinstance(fault, IgnoredCommands):
                names = frozenset(fault.commands or ())
                ignored = (
                    names if ignored is None else (ignored | names if ignored and names else frozenset())
                )
            elif isinstance(fault, SlowActuator):
                delay_s += fault.delay_s
        return ignored, delay_s

    def _impair(self, asset_id: str, device: Device) -> None:
        code, ratio, rate = UNIMPAIRED
        for active in self._active:
            fault = active.fault
            if fault.device != asset_id:
                continue
            if isinstance(fault, Trip):
                code = fault.code
            elif isinstance(fault, Reboot):
                ratio = 0.0
            elif isinstance(fault, Derated):
                ratio = min(ratio, fault.ratio)
            elif isinstance(fault, SlowActuator):
                rate = min(rate, fault.rate_w_per_s or math.inf)
        impairment = Impairment(code, ratio, rate)
        device.impairment = UNIMPAIRED if impairment == UNIMPAIRED else impairment


def without_phase(measured: Any, phase: str) -> Any:
    """Return measurements as a device shows them that does not see one phase."""
    fields = measured._fields
    changed = {
        name: 0.0
        for name in (
            f"voltage_{phase}n_v",
            f"current_{phase}_a",
            f"active_power_{phase}_w",
            f"reactive_power_{phase}_var",
            f"apparent_power_{phase}_va",
        )
        if name in fields
    }
    for pair in ("ab", "bc", "ca"):
        if phase in pair and (name := f"voltage_{pair}_v") in fields:
            changed[name] = getattr(measured, name) / SQRT3
    for quantity, unit in (("active_power", "w"), ("reactive_power", "var"), ("apparent_power", "va")):
        if (part := f"{quantity}_{phase}_{unit}") in fields:
            total = f"{quantity}_{unit}"
            changed[total] = getattr(measured, total) - getattr(measured, part)
    return measured._replace(**changed)


def _reset(fault: Fault, devices: Mapping[str, Device], commands: Mapping[str, Sequence[Command]]) -> bool:
    device = devices.get(fault.device)
    return device is None or RESETS.get(device.config.type) in commands.get(fault.device, ())


def _no_generator(device: Device) -> str:
    return "" if device.config.type in RESETS else "device: this device makes no power"


def _unknown(name: str, known: Iterable[str]) -> str:
    return f'"{name}" is not allowed; {use(known, name)}'
