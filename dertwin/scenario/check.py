"""Whether a scenario fits a site: its devices, measurements, commands and verdict packs."""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any

from pydantic import ValidationError

from dertwin.config_errors import use, validation_errors
from dertwin.devices.device import Device
from dertwin.faults import Fault
from dertwin.scenario.actions import CallPack, WriteCommand, action_of
from dertwin.scenario.conditions import names
from dertwin.scenario.link import WholeLinkFault
from dertwin.scenario.packs import PACKS
from dertwin.scenario.signals import Memory, reader
from dertwin.scenario.wire import ExchangeFault

if TYPE_CHECKING:
    from dertwin.scenario.document import Scenario, Step

Problem = tuple[tuple[str | int, ...], str]


def record_problems(record: Sequence[str], devices: Mapping[str, Device]) -> Iterator[Problem]:
    """Yield the place and the words of every recorded signal that the site does not have."""
    for index, signal in enumerate(record):
        yield from _unreadable([signal], devices, ("record", index))


def time_problems(scenario: "Scenario") -> Iterator[Problem]:
    """Yield the place and the words of every step that would come before the one before it, or too late."""
    earliest_s = 0.0
    for index, step in enumerate(scenario.steps):
        if step.at is not None and step.at < earliest_s:
            before = f"the step before it comes at {earliest_s:g} at the earliest"
            yield ("steps", index, "at"), f"{step.at:g} is not allowed; {before}: put the steps in order"
        elif step.at is not None:
            earliest_s = step.at
        elif isinstance(step.after, float | int):
            earliest_s += step.after
        if scenario.duration is not None and earliest_s > scenario.duration:
            late = f"comes at {earliest_s:g} at the earliest, after the end at {scenario.duration:g}"
            yield ("steps", index), f"{late}; use a longer `duration`"
            return


def step_problems(step: "Step", devices: Mapping[str, Device]) -> Iterator[Problem]:
    """Yield the place within a step, and the words, of everything that the site does not have."""
    if step.after is not None and not isinstance(step.after, float | int):
        yield from _unreadable(names(step.after), devices, ("after",))
    for position, action in enumerate(step.do):
        spot = ("do", position) if len(step.do) > 1 else ("do",)
        yield from ((spot, problem) for problem in action_problems(action, devices))
    for position, expectation in enumerate(step.expect):
        spot = ("expect", position) if len(step.expect) > 1 else ("expect",)
        for condition in (expectation.that, expectation.never):
            if condition is not None:
                yield from _unreadable(names(condition), devices, spot)


def action_problems(action: Any, devices: Mapping[str, Device]) -> Iterator[str]:
    """Yield why an action cannot be done to a site with these devices."""
    if isinstance(action, Fault):
        device = devices.get(action.device)
        if device is None:
            yield f'device: "{action.device}" is not allowed; {use(devices, action.device)}'
        elif problem := action.problem(device):
            yield problem
    elif isinstance(action, ExchangeFault | WholeLinkFault):
        if action.device is not None and action.device not in devices:
            yield f'device: "{action.device}" is not allowed; {use(devices, action.device)}'
    elif isinstance(action, WriteCommand):
        for target, value in action.write.items():
            if problem := _no_write(target, value, devices):
                yield problem
    elif isinstance(action, CallPack):
        yield from _pack_problems(action, devices)


def split_command(target: str, devices: Mapping[str, Device]) -> tuple[str, str]:
    """Return asset id and command of a `DEVICE.COMMAND`; empty asset id if there is no such device."""
    asset_id = max((d for d in devices if target.startswith(f"{d}.")), key=len, default="")
    return asset_id, target.removeprefix(f"{asset_id}.")


def _no_write(target: str, value: float, devices: Mapping[str, Device]) -> str:
    asset_id, command = split_command(target, devices)
    if not asset_id:
        return (
            f'write: "{target}" is not allowed; {use(devices, target.partition(".")[0])}, a dot and a command'
        )
    known = devices[asset_id].commands
    if command not in known:
        return f'write: "{target}" is not allowed; {use(known, command)}'
    if known[command].accept(value) is None:
        return f"write: {value:g} is not allowed for {target}; {known[command].in_words()}"
    return ""


def _unreadable(
    signals: Iterable[str], devices: Mapping[str, Device], place: tuple[str | int, ...]
) -> Iterator[Problem]:
    for signal in signals:
        try:
            reader(signal, devices, Memory())
        except ValueError as error:
            yield place, str(error)


def _pack_problems(call: CallPack, devices: Mapping[str, Device]) -> Iterator[str]:
    """Yield what is wrong with the parameters of a pack, or with what it would do to this site."""
    pack = PACKS.get(call.verdict)
    if pack is None:
        yield f'verdict: "{call.verdict}" is not allowed; {use(PACKS, call.verdict)}'
        return
    try:
        plan = pack.plan(pack.params.model_validate(call.with_))
    except ValidationError as error:
        for each in validation_errors(error, pack.params, call.with_, "", ["with"]):
            yield f"{each.place}: {each.message}"
        return
    except ValueError as error:
        yield f"with: {error}"
        return
    for _, problem in _unreadable(plan.signals, devices, ()):
        yield problem
    for _, document in plan.actions:
        action = action_of(document)
        if isinstance(action, CallPack):
            yield f"verdict: {action.verdict} cannot begin within {call.verdict}; use a step of its own"
        else:
            yield from action_problems(action, devices)
