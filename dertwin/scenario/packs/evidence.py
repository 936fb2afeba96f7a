"""The evidence that a verdict pack judges: the part of a record that belongs to its plan."""

import math
from collections.abc import Sequence

from dertwin.scenario.packs.figures import Figure
from dertwin.scenario.packs.sampled import TOLERANCE_S, spacing
from dertwin.scenario.record import Record, Requirement, Signal

NOTHING = Signal((), ())


class Evidence:
    """The part of a record that belongs to a plan, in s since the plan's start.

    `faults` collects why something could not be had; requirements that could not be measured say so.
    """

    def __init__(self, record: Record, start_s: float, duration_s: float) -> None:
        """Look at duration_s (s) of a record from start_s on."""
        self.record = record
        self.start_s = start_s
        self.duration_s = duration_s
        self.faults: list[str] = []

    def signal(self, *names: str) -> Signal:
        """Return the sum of signals; nothing, and a fault, if one of them was not recorded."""
        times = self.record.times
        end_s = self.start_s + self.duration_s
        columns: list[Sequence[float]] = []
        for name in names:
            column = self.record.columns.get(name)
            if column is None or len(column) != len(times):
                self._fault(f"{name} was not recorded")
                return NOTHING
            columns.append(Signal(times, column).between(self.start_s, end_s).values)
        at_s = Signal(times, times).between(self.start_s, end_s).times
        if not at_s:
            self._fault("nothing was recorded")
            return NOTHING
        values = columns[0] if len(columns) == 1 else [sum(samples) for samples in zip(*columns, strict=True)]
        signal = Signal([time_s - self.start_s for time_s in at_s], values)
        self._look_for_faults(" + ".join(names), signal)
        return signal

    def require(
        self,
        name: str,
        measured: float,
        figure: Figure,
        low: float = -math.inf,
        high: float = math.inf,
        detail: str = "",
    ) -> Requirement:
        """Return a requirement in the unit of a figure and with its source."""
        if math.isnan(measured):
            detail = "; ".join(filter(None, [detail, *self.faults])) or "could not be measured"
        return Requirement(name, measured, low, high, figure.unit, figure.source, detail)

    def _look_for_faults(self, name: str, signal: Signal) -> None:
        end_s = signal.times[-1]
        if self.duration_s - end_s > 1.5 * spacing(signal) + TOLERANCE_S:
            self._fault(f"the record ends at {end_s:.6g} s of {self.duration_s:.6g} s")
        odd = [t for t, value in zip(*signal, strict=True) if not math.isfinite(value)]
        if odd:
            self._fault(f"{name}: {len(odd)} samples are no numbers, the first at {odd[0]:.6g} s")

    def _fault(self, text: str) -> None:
        if text not in self.faults:
            self.faults.append(text)


def of_scenario(parameter: str, unit: str) -> Figure:
    """Return what stands for a figure where the scenario gives the limit itself, under this name."""
    return Figure(math.nan, unit, f"the scenario, {parameter}")


def unless_given(figure: Figure, value: float, parameter: str) -> Figure:
    """Return the figure that is the default of a parameter, or the scenario if that has another value."""
    return figure if value == figure.value else of_scenario(parameter, figure.unit)


def power_signals(devices: Sequence[str]) -> list[str]:
    """Return the names of the active power of devices."""
    return [f"{device}.active_power_w" for device in devices]
