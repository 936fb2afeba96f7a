"""What a verdict pack is: a sequence to play through a site, and the arithmetic that judges the answer."""

from collections.abc import Callable, Mapping, Sequence
from datetime import datetime
from typing import Any, NamedTuple

from dertwin.scenario.record import Record, Requirement
from dertwin.schema import FrozenModel


class Plan(NamedTuple):
    """What a pack does: it lasts `duration_s`, and starts each action its time (s) after the pack.

    An action is written as in a scenario file. `signals` are those that the arithmetic wants recorded; with
    `exchanges` it wants all requests and replies.
    """

    duration_s: float
    actions: Sequence[tuple[float, Mapping[str, Any]]]
    signals: Sequence[str]
    exchanges: bool = False


def no_files(params: Any, record: Record, start_s: float, began: datetime) -> Mapping[str, str]:
    """Return no files: what most packs have for others to evaluate."""
    return {}


class Pack(NamedTuple):
    """A verdict pack: `params` is the model of what a scenario says under `with`.

    `judge` gets the parameters, the record of the case and when the pack began (s since the case did).
    `files` gets these and the time of day (UTC) then, and returns the names and texts of files that somebody
    else evaluates.
    """

    title: str
    edition: str
    params: type[FrozenModel]
    plan: Callable[[Any], Plan]
    judge: Callable[[Any, Record, float], Sequence[Requirement]]
    files: Callable[[Any, Record, float, datetime], Mapping[str, str]] = no_files
