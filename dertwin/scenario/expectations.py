"""Expectations: what must become true, stay true, or never be true."""

import math
from typing import Literal, NamedTuple, Self

from pydantic import Field, model_validator

from dertwin.scenario.conditions import All, Any_, Condition, Not, Read, compiled
from dertwin.schema import FrozenModel
from dertwin.stepping import TOLERANCE

Outcome = Literal["pending", "passed", "failed"]


class Expectation(FrozenModel):
    """What the site must do from the moment of its step on.

    `that` must become true `within` some time (s), or is to be true at once; then it must stay true `for`
    some time (s). `never` must not be true `for` some time, until the scenario ends if left out. While the
    time of `within` is not over, a condition that became untrue may become true again.
    """

    name: str = ""
    that: Condition | None = None
    never: Condition | None = None
    within: float | None = Field(default=None, gt=0)
    for_: float | None = Field(default=None, gt=0, alias="for")

    @model_validator(mode="after")
    def _one_kind(self) -> Self:
        if (self.that is None) == (self.never is None):
            raise ValueError("give `that` or `never`, one of them")
        if self.never is not None and self.within is not None:
            raise ValueError("`within` goes with `that`; say with `for` how long something must never be")
        if self.that is not None and self.within is None and self.for_ is None:
            raise ValueError(
                "say `within` which time (s) it must become true, or `for` how long it must hold"
            )
        return self

    def in_words(self) -> str:
        """Return the expectation as a sentence of its own."""
        return self.name or self.terms()

    def terms(self) -> str:
        """Return what is expected, and in which times, whatever its name is."""
        times = [f"within {self.within:g} s"] if self.within is not None else []
        times += [f"for {self.for_:g} s"] if self.for_ is not None else []
        what = f"never {_words(self.never)}" if self.never is not None else _words(self.that)
        return " ".join([what, *times])


class Checked(NamedTuple):
    """An expectation and what came of it; times in s since the start of the scenario.

    `margin` is by how much it was met, in the unit of its signals: the least one while it had to hold,
    the best one if it never did. `became_s` is how long it took to become true (NaN if it did not).
    """

    text: str
    outcome: Outcome
    armed_s: float
    decided_s: float
    margin: float
    became_s: float
    expectation: Expectation


class Watch:
    """Follows one expectation from the step in which it was armed."""

    def __init__(self, expectation: Expectation, armed_s: float) -> None:
        self.expectation = expectation
        self._armed_s = armed_s
        self._measure = compiled(
            expectation.never if expectation.that is None else expectation.that  # type: ignore[arg-type]
        )
        self._outcome: Outcome = "pending"
        self._decided_s = math.nan
        self._true_since_s = math.nan
        self._best, self._least = -math.inf, math.inf

    @property
    def pending(self) -> bool:
        """Tell whether it is not decided yet."""
        return self._outcome == "pending"

    @property
    def last_s(self) -> float:
        """Return when it is decided at the latest (s since the start); infinite if only the end decides."""
        expectation = self.expectation
        if expectation.never is not None and expectation.for_ is None:
            return math.inf
        return self._armed_s + (expectation.within or 0.0) + (expectation.for_ or 0.0)

    def look(self, now_s: float, read: Read) -> None:
        """Judge a step that ended at now_s, later than the one in which it was armed."""
        margin = self._measure(read)
        if self.expectation.that is None:
            self._must_not(now_s, margin)
        else:
            self._must(now_s, margin)

    def end(self, now_s: float) -> None:
        """Decide at the end of the scenario what is still pending."""
        if self.pending:
            kept = self.expectation.never is not None and self.expectation.for_ is None
            self._decide("passed" if kept else "failed", now_s)

    def checked(self) -> Checked:
        """Return what has come of it so far."""
        held = not math.isnan(self._true_since_s) or self.expectation.that is None
        margin = self._least if held and math.isfinite(self._least) else self._best
        became_s = self._true_since_s - self._armed_s
        return Checked(
            self.expectation.in_words(),
            self._outcome,
            self._armed_s,
            self._decided_s,
            margin,
            became_s,
            self.expectation,
        )

    def _must_not(self, now_s: float, margin: float) -> None:
        clear = -margin
        self._least = min(self._least, clear)
        until_s = self.last_s
        if margin >= 0.0:
            self._decide("failed", now_s)
        elif now_s >= until_s - TOLERANCE:
            self._decide("passed", now_s)

    def _must(self, now_s: float, margin: float) -> None:
        within_s, for_s = self.expectation.within or 0.0, self.expectation.for_ or 0.0
        in_time = now_s <= self._armed_s + within_s + TOLERANCE
        self._best = max(self._best, margin)
        if margin >= 0.0:
            if math.isnan(self._true_since_s):
                # Without `within` it is to be true from the start: the first step is not late.
                if self.expectation.within is not None and not in_time:
                    self._decide("failed", now_s)
                    return
                self._true_since_s = now_s if self.expectation.within is not None else self._armed_s
                self._least = math.inf
            self._least = min(self._least, margin)
            if now_s >= self._true_since_s + for_s - TOLERANCE:
                self._decide("passed", now_s)
        elif in_time:
            self._true_since_s = math.nan
        else:
            self._least = min(self._least, margin)
            self._decide("failed", now_s)

    def _decide(self, outcome: Outcome, now_s: float) -> None:
        self._outcome, self._decided_s = outcome, now_s


def _words(condition: Condition | None) -> str:
    match condition:
        case All(all=parts):
            return f"all of ({'; '.join(map(_words, parts))})"
        case Any_(any=parts):
            return f"any of ({'; '.join(map(_words, parts))})"
        case Not():
            return f"not ({_words(condition.not_)})"
    return condition or ""
