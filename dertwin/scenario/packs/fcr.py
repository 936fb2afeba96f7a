"""What the Nordic FCR products have in common: steady state response and reduced capacity."""

from dertwin.scenario.packs.evidence import Evidence
from dertwin.scenario.packs.fcr_csv import Resource
from dertwin.scenario.packs.figures import Figures
from dertwin.scenario.packs.sampled import least, lowest, mean, stretch
from dertwin.scenario.record import Requirement, Signal

PERCENT = 100.0


def extra_signals(csv: Resource | None) -> list[str]:
    """Return the signals that only the TSO's file needs."""
    return [csv.soc] if csv and csv.soc else []


def settled(power: Signal, until_s: float, figures: Figures) -> float:
    """Return the steady state power (W): the mean of the last part of a level that ends at until_s (s)."""
    return mean(stretch(power, until_s - figures.value("settled_window"), until_s))


def steady_state(
    evidence: Evidence, name: str, share: float, factor: float, figures: Figures, detail: str
) -> Requirement:
    """Judge requirement 1: a response as a share of the theoretical one, with a claimed reduction factor.

    The factor used is the largest that the response allows, because the document lets the provider choose.
    """
    low, high = figures.numbers["under_delivery"], figures.numbers["over_delivery"]
    used = min(1.0, max(factor, _least_delivered(share, figures)))
    # The factor may have been chosen to reach the limit: what rounding left must not decide.
    deviation = round((share / used - 1.0) * PERCENT, 9)
    if share < 0.0:
        detail += ", in the wrong direction"
    if used < 1.0:
        detail += f", with a reduction factor of {used:.4g}"
    return evidence.require(name, deviation, low, low.value, high.value, detail)


def steady_factor(share: float, figures: Figures) -> float:
    """Return the largest reduction factor with which requirement 1 holds; 0 if there is none."""
    if share > 1.0 + figures.value("over_delivery") / PERCENT:
        return 0.0
    return least(1.0, _least_delivered(share, figures))


def capacity(
    evidence: Evidence, factor: float, claimed: float, rated_w: float, figures: Figures
) -> Requirement:
    """Judge the capacity (W) that a reduction factor leaves against the claimed one."""
    figure = figures.numbers["smallest_factor"]
    left = 0.0 if factor < figure.value else factor
    detail = f"a reduction factor of {factor:.4g}, allowed from {figure.value:g}"
    in_watts = figure._replace(unit="W")
    return evidence.require("capacity", left * rated_w, in_watts, low=claimed * rated_w, detail=detail)


def stays_activated(
    evidence: Evidence,
    name: str,
    response: Signal,
    start_s: float,
    end_s: float,
    rated_w: float,
    figures: Figures,
) -> Requirement:
    """Judge requirement 12: a settled response stays until the next change of frequency."""
    figure = figures.numbers["endurance"]
    share = lowest(stretch(response, start_s + figures.value("settling"), end_s)) / rated_w
    detail = f"the least response from {start_s + figures.value('settling'):g} s to {end_s:g} s"
    return evidence.require(name, (share - 1.0) * PERCENT, figure, low=figure.value, detail=detail)


def _least_delivered(share: float, figures: Figures) -> float:
    return round(share / (1.0 + figures.value("under_delivery") / PERCENT), 12)
