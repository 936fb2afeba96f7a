"""A power limit at the grid connection, or for devices: reached in time, held, released."""

import math
from collections.abc import Mapping
from typing import Any, Literal

from pydantic import Field

from dertwin.scenario.actions import Action
from dertwin.scenario.pack import Plan
from dertwin.scenario.packs.evidence import Evidence, of_scenario, power_signals, unless_given
from dertwin.scenario.packs.figures import shipped
from dertwin.scenario.packs.sampled import Points, first_at_least, highest, mean, settled_at, stretch
from dertwin.scenario.record import Record, Requirement, Signal
from dertwin.schema import FrozenModel

FIGURES = shipped("power_limit")
_PCC = "pcc.active_power_w"
_PERCENT = 100.0


class Params(FrozenModel):
    """What is limited, to what, how the EMS hears of it, and within which times.

    `limits`: import is what flows into the site, export what flows out; with `devices` it is what these
    draw or deliver together, without it is the flow at the grid connection. `limit_w` is 4200 W unless
    given (section 14a EnWG). `announce` and `release` are the actions, as in a scenario file, that tell
    the EMS; `load_w` is the load of the site meanwhile, so that the limit has something to limit.
    `reach_within_s` and `release_within_s` are for the grid operator to say; `hold_s` is how long the
    limit is there.
    """

    limits: Literal["import", "export"] = "import"
    limit_w: float = Field(default=FIGURES.value("limit"), ge=0)
    devices: list[str] = Field(default_factory=list)
    announce: Action | None = None
    release: Action | None = None
    load_w: float | None = None
    reach_within_s: float = Field(gt=0)
    hold_s: float = Field(gt=0)
    release_within_s: float = Field(gt=0)


def plan(params: Params) -> Plan:
    """Return the limit and its release, with the load around them."""
    start_s, end_s = _limited(params)
    duration_s = end_s + params.release_within_s + FIGURES.value("before")
    actions: list[tuple[float, Mapping[str, Any]]] = []
    if params.load_w is not None:
        actions.append((0.0, {"environment": "load_w", "step": params.load_w, "duration": duration_s}))
    if params.announce is not None:
        actions.append((start_s, _written_out(params.announce)))
    if params.release is not None:
        actions.append((end_s, _written_out(params.release)))
    return Plan(duration_s, actions, _signals(params))


def judge(params: Params, record: Record, start_s: float) -> list[Requirement]:
    """Judge a run of the plan that began at start_s (s)."""
    limited_s, released_s = _limited(params)
    evidence = Evidence(record, start_s, plan(params).duration_s)
    power = _power(params, evidence)
    before_w = mean(stretch(power, limited_s - FIGURES.value("settled_window"), limited_s))
    during = stretch(power, limited_s, released_s)
    held = stretch(power, limited_s + params.reach_within_s, released_s)
    return [
        _bites(params, evidence, before_w),
        _reached(params, evidence, during, limited_s),
        _held(params, evidence, held),
        _released(params, evidence, power, before_w, released_s),
    ]


def _bites(params: Params, evidence: Evidence, before_w: float) -> Requirement:
    figure = unless_given(FIGURES.numbers["limit"], params.limit_w, "limit_w")
    detail = "the power before the limit; if it is not above the limit, there is nothing to see: raise load_w"
    return evidence.require("power to limit", before_w, figure, low=_allowed_w(params), detail=detail)


def _reached(params: Params, evidence: Evidence, during: Points, limited_s: float) -> Requirement:
    after_s = settled_at(during, -math.inf, _allowed_w(params)) - limited_s
    detail = f"until the power stays below {_allowed_w(params):g} W"
    if during and math.isnan(after_s):
        detail = f"the power was {during[-1][1]:.6g} W when the limit ended"
    figure = of_scenario("reach_within_s", "s")
    return evidence.require("limit reached", after_s, figure, high=params.reach_within_s, detail=detail)


def _held(params: Params, evidence: Evidence, held: Points) -> Requirement:
    figure = unless_given(FIGURES.numbers["limit"], params.limit_w, "limit_w")
    detail = f"the highest power from {params.reach_within_s:g} s after the limit to its end"
    return evidence.require("limit held", highest(held), figure, high=_allowed_w(params), detail=detail)


def _released(
    params: Params, evidence: Evidence, power: Signal, before_w: float, released_s: float
) -> Requirement:
    after = stretch(power, released_s, evidence.duration_s)
    back_w = params.limit_w + FIGURES.value("back") / _PERCENT * (before_w - params.limit_w)
    after_s = first_at_least(after, back_w) - released_s
    detail = f"until the power is back at {back_w:.6g} W, before the limit it was {before_w:.6g} W"
    if after and math.isnan(after_s) and not math.isnan(back_w):
        detail = (
            f"the power came no further than {highest(after):.6g} W, before the limit it was {before_w:.6g} W"
        )
    figure = of_scenario("release_within_s", "s")
    return evidence.require("limit released", after_s, figure, high=params.release_within_s, detail=detail)


def _written_out(action: Action) -> Mapping[str, Any]:
    return action.model_dump(exclude_none=True, by_alias=True)


def _allowed_w(params: Params) -> float:
    share = FIGURES.value("tolerance") / _PERCENT * params.limit_w
    return params.limit_w + max(share, FIGURES.value("least_tolerance"))


def _limited(params: Params) -> tuple[float, float]:
    """Return from when to when the limit is there (s)."""
    start_s = FIGURES.value("before")
    return start_s, start_s + params.reach_within_s + params.hold_s


def _signals(params: Params) -> list[str]:
    return power_signals(params.devices) if params.devices else [_PCC]


def _power(params: Params, evidence: Evidence) -> Signal:
    """Return what the limit is about (W): positive in the direction that is limited."""
    signal = evidence.signal(*_signals(params))
    # Out of a device is positive, and so is import at the grid connection.
    sign = (1.0 if params.limits == "import" else -1.0) * (-1.0 if params.devices else 1.0)
    return Signal(signal.times, [sign * value for value in signal.values])
