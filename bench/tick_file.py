"""How the steps of a site are written down: a JSON object a line, first the state that they begin with.

Steps have `dt_s`, and (if there are any) `commands` and `requests` by device; `digest` is the checksum of
what was measured before it. Between them stands what was done: `override`, `fault`, `clear`, `stop`, and
the counts of requests that a scenario was told. The last line has the checksum after the last step.
"""

import json
from collections.abc import Iterable, Iterator
from typing import Any

from pydantic import TypeAdapter

from bench.state import plain, state_of
from bench.ticks import Act, Counted, Entry, Step, Stopped, Ticks
from dertwin.devices.device import Command
from dertwin.environment import EnvironmentState
from dertwin.faults import DeviceFault, Fault
from dertwin.overrides import Override
from dertwin.physics.weather import WanderState
from dertwin.scenario.signals import Requests
from dertwin.site import Site, SiteState

_FAULT: TypeAdapter[Fault] = TypeAdapter(DeviceFault)


def written(ticks: Ticks, unix_s: float) -> Iterator[str]:
    """Yield the lines; `unix_s` is the Unix time (s) at which the clock of the steps was at zero."""
    state = ticks.state
    devices = {asset_id: plain(device_state) for asset_id, device_state in state.devices.items()}
    yield _line({"state": [state.environment, devices, state.failed]})
    for entry in ticks.entries:
        yield _line(_content(entry, unix_s))
    yield _line({"digest": ticks.digest})


def read(lines: Iterable[str], site: Site) -> tuple[SiteState, list[Entry], int]:
    """Return state, entries and last digest of lines about such a site.

    Raises ValueError, KeyError or TypeError for lines that are none, NotAState for another site's.
    """
    first, *rest, last = map(json.loads, lines)
    (time_s, lost_s, noise), devices, failed = first["state"]
    state = SiteState(
        EnvironmentState(time_s, lost_s, [WanderState(*each) for each in noise]),
        {asset_id: state_of(site.devices[asset_id], content) for asset_id, content in devices.items()},
        failed,
    )
    return state, list(_entries(rest, time_s)), last["digest"]


def _content(entry: Entry, unix_s: float) -> dict[str, Any]:
    if isinstance(entry, Step):
        content: dict[str, Any] = {"unix_s": round(entry.at + unix_s, 6), "dt_s": entry.dt_s}
        if entry.commands:
            content["commands"] = entry.commands
        if entry.requests:
            content["requests"] = entry.requests
        return content | {"digest": entry.digest}
    if isinstance(entry, Counted):
        return {"counted": entry.device, "requests": entry.requests}
    if isinstance(entry, Stopped):
        return {"stop": True}
    if entry.what is None:
        return {"clear": True}
    given = entry.what.model_dump(mode="json", by_alias=True, exclude_unset=True)
    if isinstance(entry.what, Override):
        return {"override": _with_points(entry.what, given), "at_s": entry.at_s}
    return {"fault": given, "at_s": entry.at_s, "seed": entry.seed}


def _with_points(override: Override, given: dict[str, Any]) -> dict[str, Any]:
    """Return what was given of an override, its points in place of the file that has them."""
    if override.points is None:
        return given
    rest = {key: value for key, value in given.items() if key not in ("csv", "table")}
    return rest | {"table": list(zip(override.points.times, override.points.values, strict=True))}


def _entries(contents: Iterable[dict[str, Any]], time_s: float) -> Iterator[Entry]:
    for content in contents:
        if "dt_s" in content:
            commands = {
                asset_id: [Command(*each) for each in batch]
                for asset_id, batch in content.get("commands", {}).items()
            }
            yield Step(
                content["unix_s"],
                time_s,
                content["dt_s"],
                commands,
                content.get("requests", {}),
                content["digest"],
            )
            time_s += content["dt_s"]
        elif "counted" in content:
            yield Counted(content["counted"], Requests(*content["requests"]))
        elif "override" in content:
            yield Act(Override.model_validate(content["override"]), content["at_s"])
        elif "fault" in content:
            yield Act(_FAULT.validate_python(content["fault"]), content["at_s"], content["seed"])
        elif "stop" in content:
            yield Stopped()
        else:
            yield Act(None)


def _line(content: dict[str, Any]) -> str:
    return json.dumps(content, separators=(",", ":")) + "\n"
