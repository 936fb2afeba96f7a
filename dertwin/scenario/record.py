"""What happened during a run of a scenario, for verdicts and reports to look at."""

import math
from array import array
from bisect import bisect_left, bisect_right
from collections.abc import Iterable, Mapping, Sequence
from typing import NamedTuple


class Happened(NamedTuple):
    """Something that happened at a time (s since the start of the scenario).

    `kind` is a word such as action, ended, passed, failed, alarm; `text` tells it to a person; `device` and
    `link` are empty when it is about none.
    """

    time_s: float
    kind: str
    text: str
    device: str = ""
    link: str = ""


class Received(NamedTuple):
    """An accepted write that the site took at a time (s): the SI name of a command and its SI value."""

    time_s: float
    device: str
    command: str
    value: float


class Exchange(NamedTuple):
    """A request to a device and its reply as they were on the wire, faults included.

    Times in s since the start of the scenario; `replied_s` is NaN and `reply` empty if there was none.
    `request` and `reply` are PDUs. `client` tells the connections of a link apart (empty on a serial line).
    """

    time_s: float
    replied_s: float
    link: str
    client: str
    unit_id: int
    device: str
    request: bytes
    reply: bytes


class Requirement(NamedTuple):
    """One requirement of a verdict: what was measured, and the band it must lie in.

    An open end of the band is infinite. `measured` is NaN if it could not be measured, which is not met.
    `source` names document, edition and place; `detail` tells a person what matters besides.
    """

    name: str
    measured: float
    low: float
    high: float
    unit: str
    source: str
    detail: str = ""

    @property
    def met(self) -> bool:
        """Tell whether the measured value lies in the band."""
        return self.low <= self.measured <= self.high

    @property
    def margin(self) -> float:
        """Return how far inside the band the value is, in its unit; negative outside, NaN if not measured."""
        return min(self.measured - self.low, self.high - self.measured)


class Signal(NamedTuple):
    """A sampled quantity: times (s, rising) and values; between samples it is held."""

    times: Sequence[float]
    values: Sequence[float]

    def at(self, time_s: float) -> float:
        """Return the value valid at a time: of the last sample not after it; NaN before the first."""
        index = bisect_right(self.times, time_s + 1e-9)
        return self.values[index - 1] if index else math.nan

    def between(self, start_s: float, end_s: float) -> "Signal":
        """Return the samples with start_s <= time <= end_s."""
        first, last = bisect_left(self.times, start_s - 1e-9), bisect_right(self.times, end_s + 1e-9)
        return Signal(self.times[first:last], self.values[first:last])


class Record:
    """The signals of a run, sampled at each step, and what happened; times in s since its start."""

    def __init__(self, signals: Iterable[str]) -> None:
        """Record the signals of these names."""
        self.times = array("d")
        self.columns: Mapping[str, array[float]] = {name: array("d") for name in signals}
        self.happened: list[Happened] = []
        self.received: list[Received] = []
        self.exchanges: Sequence[Exchange] = ()

    def signal(self, name: str) -> Signal:
        """Return a recorded signal. Raises KeyError for one that was not recorded."""
        return Signal(self.times, self.columns[name])
