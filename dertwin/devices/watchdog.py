"""Communication watchdog: what a device does when its EMS falls silent."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Literal, Self

from pydantic import Field, model_validator

from dertwin.config_errors import use
from dertwin.devices.classic import CLASSIC
from dertwin.devices.device import Command, CommandRange
from dertwin.schema import FrozenModel
from dertwin.stepping import TOLERANCE


class WatchdogConfig(FrozenModel):
    """When a device gives up on its EMS, and what it does then.

    `fed_by`: any request (reads too), any accepted write, a write to one register (an equal value
    counts), or that register taking a new value (a toggling or counting word). `register` names its
    command, `heartbeat` unless given. `fallback` maps commands to the values the device takes, in
    the unit of the name (`active_power_setpoint` kW, `active_power_setpoint_w` W); left out, the
    device does what is safe for its type.
    """

    timeout_s: float = Field(gt=0)
    fed_by: Literal["any_request", "any_write", "register", "toggle"] = "any_request"
    fed_register: str | None = Field(default=None, alias="register")  # a model cannot have a field `register`
    fallback: dict[str, float] | None = None

    @model_validator(mode="after")
    def _only_a_register_has_a_name(self) -> Self:
        if self.fed_register is not None and self.fed_by in ("any_request", "any_write"):
            raise ValueError(f"`register` has no meaning with fed_by: {self.fed_by}; use register or toggle")
        return self


@dataclass(slots=True)
class WatchdogState:
    """How long nothing has fed the watchdog (s), whether it has expired, the last toggling word."""

    silent_s: float = 0.0
    expired: bool = False
    last_word: float | None = None


class Watchdog:
    """Replaces the commands of a silent EMS by a fallback, until it is fed again.

    Raises ValueError naming the known commands, the closest first, for an unknown name.
    """

    def __init__(
        self,
        config: WatchdogConfig,
        device_type: str,
        commands: Mapping[str, CommandRange],
        default_fallback: Sequence[Command],
    ) -> None:
        self.timeout_s = config.timeout_s
        self.fed_by = config.fed_by
        self.register, _ = _known(config.fed_register or "heartbeat", device_type, commands, "register")
        if config.fallback is None:
            self.fallback = tuple(default_fallback)
        else:
            self.fallback = tuple(
                _fallback_command(name, value, device_type, commands)
                for name, value in config.fallback.items()
            )

    def step(
        self, state: WatchdogState, commands: Sequence[Command], requests: int, dt_s: float
    ) -> Sequence[Command]:
        """Let dt_s (s) pass and return the commands to take: the given, then (while expired) the fallback."""
        if self._is_fed(state, commands, requests):
            state.silent_s = 0.0
            state.expired = False
            return commands
        state.silent_s += dt_s
        if state.silent_s >= self.timeout_s - TOLERANCE:
            state.expired = True
        return (*commands, *self.fallback) if state.expired else commands

    def _is_fed(self, state: WatchdogState, commands: Sequence[Command], requests: int) -> bool:
        if self.fed_by == "any_request":
            return requests > 0 or len(commands) > 0
        if self.fed_by == "any_write":
            return len(commands) > 0
        fed = False
        for name, value in commands:
            if name == self.register:
                fed = fed or self.fed_by == "register" or value != state.last_word
                state.last_word = value
        return fed


def _fallback_command(
    name: str, value: float, device_type: str, commands: Mapping[str, CommandRange]
) -> Command:
    si_name, factor = _known(name, device_type, commands, "fallback")
    si_value = value / factor
    taken = commands[si_name].accept(si_value)
    # A rating in kW and its value in W may differ by a rounding.
    if taken is None or abs(taken - si_value) > TOLERANCE * abs(si_value):
        allowed = commands[si_name].in_words(factor)
        raise ValueError(f"watchdog.fallback.{name}: {value:g} is not allowed; {allowed}")
    return Command(si_name, taken)


def _known(
    name: str, device_type: str, commands: Mapping[str, CommandRange], place: str
) -> tuple[str, float]:
    """Return the SI name of a command, and the factor from its SI value to the value under this name."""
    classic = {key: known for key, known in CLASSIC.get(device_type, {}).items() if known[0] in commands}
    names = {**{key: (key, 1.0) for key in commands}, **classic}
    if name in names:
        return names[name]
    raise ValueError(f"watchdog.{place}: {name!r} is no command of a {device_type}; {use(names, name)}")
