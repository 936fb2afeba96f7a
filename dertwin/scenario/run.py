"""Runs a scenario: looks at a site after each step and says what is to be done to it. No clock of its own."""

import math
from collections import deque
from collections.abc import Callable, Mapping, Sequence
from typing import NamedTuple

from dertwin.devices.device import Device
from dertwin.faults import Fault
from dertwin.overrides import Override
from dertwin.scenario.actions import Action, CallPack, WriteCommand, action_of
from dertwin.scenario.conditions import compiled, names
from dertwin.scenario.document import Case, LoadedScenario, Step
from dertwin.scenario.expectations import Checked, Watch
from dertwin.scenario.pack import Plan
from dertwin.scenario.packs import PACKS
from dertwin.scenario.record import Exchange, Happened, Received, Record, Requirement
from dertwin.scenario.signals import Memory, Observation, reader
from dertwin.schema import FrozenModel
from dertwin.stepping import TOLERANCE

Exchanges = Callable[[float], Sequence[Exchange]]
"""Returns all requests and replies since a time (s since the start of the run), in order."""


class Due(NamedTuple):
    """An action that is to be done now; it counts from `at_s` (s since the start of the run)."""

    action: Action
    at_s: float
    seed: str


class Acts(NamedTuple):
    """What is to be done to a site before its next step: with `clear` end all that acts, then `start`.

    `happened` is what is new since the last step.
    """

    clear: bool = False
    start: Sequence[Due] = ()
    happened: Sequence[Happened] = ()


class PackVerdict(NamedTuple):
    """What a verdict pack found; `started_s` is in s since the start of the case.

    `params` is what the scenario said to the pack.
    """

    pack: str
    title: str
    edition: str
    started_s: float
    requirements: Sequence[Requirement]
    params: FrozenModel | None = None

    @property
    def passed(self) -> bool:
        """Tell whether all requirements are met."""
        return all(requirement.met for requirement in self.requirements)


class CaseResult(NamedTuple):
    """What came of one case; times in it are s since its start. `missed` names steps that never came."""

    name: str
    parameters: Mapping[str, float | int | str | bool]
    duration_s: float
    checks: Sequence[Checked]
    verdicts: Sequence[PackVerdict]
    missed: Sequence[str]
    record: Record

    @property
    def passed(self) -> bool:
        """Tell whether every expectation and requirement was met, and every step reached."""
        return (
            not self.missed
            and all(check.outcome == "passed" for check in self.checks)
            and all(verdict.passed for verdict in self.verdicts)
        )


class ScenarioResult(NamedTuple):
    """What came of a scenario; `complete` is false if it was stopped before its end."""

    scenario: str
    description: str
    seed: int
    site: str
    complete: bool
    cases: Sequence[CaseResult]

    @property
    def passed(self) -> bool:
        """Tell the verdict: complete, and all cases passed."""
        return self.complete and bool(self.cases) and all(case.passed for case in self.cases)


class _PackRun(NamedTuple):
    name: str
    params: FrozenModel
    plan: Plan
    started_s: float


class CaseRun:
    """One case under way."""

    def __init__(self, case: Case, devices: Mapping[str, Device], seed: int, exchanges: Exchanges) -> None:
        self._case = case
        self._devices = devices
        self._seed = seed
        self._exchanges = exchanges
        self._start_s = math.nan
        self._waiting = deque(enumerate(case.scenario.steps))
        self._holds = {
            index: compiled(step.after)
            for index, step in self._waiting
            if step.after is not None and not isinstance(step.after, float | int)
        }
        self._timed: list[tuple[float, Action]] = []
        self._before_s = 0.0
        self._busy_until_s = 0.0
        self._started = 0
        self._told = 0
        self._memory = Memory()
        self._now_s = 0.0
        self._packs: list[_PackRun] = []
        self.verdicts: list[PackVerdict] = []
        self.watches: list[Watch] = []
        self._pending: list[Watch] = []
        wanted = dict.fromkeys((*case.scenario.record, *_signals(case)))
        self.record = Record(wanted)
        self._values: dict[str, float] = {}
        self._signals = [
            (name, reader(name, devices, self._memory), column.append)
            for name, column in self.record.columns.items()
        ]
        self.done = False

    def step(self, observation: Observation) -> list[Due]:
        """Look at a step's outcome, and return what is to be done before the next one."""
        if math.isnan(self._start_s):
            self._start_s = observation.snapshot.time_s
        now_s = self._now_s = observation.snapshot.time_s - self._start_s
        self._memory.note(observation)
        self._sample(now_s, observation)
        if now_s > 0.0:
            for watch in self._pending:
                watch.look(now_s, self._values.__getitem__)
                self._tell(watch)
            self._pending = [watch for watch in self._pending if watch.pending]
        self._judge(now_s)
        due = self._fire(now_s) + self._take_timed(now_s)
        if self._is_over(now_s):
            self.end()
        return due

    def end(self) -> None:
        """End the case: what is pending is decided now."""
        if self.done:
            return
        self.done = True
        for watch in self._pending:
            watch.end(self._now_s)
            self._tell(watch)
        for pack in self._packs:
            self._judge_pack(pack)
        self._packs.clear()
        self.record.exchanges = self._exchanges(self._start_s)

    def note(self, text: str) -> None:
        """Keep something that happened outside of the site, now."""
        self._happened(self._now_s, "note", text)

    def news(self) -> Sequence[Happened]:
        """Return what has happened since the last call."""
        happened = self.record.happened
        if len(happened) == self._told:
            return ()
        told, self._told = self._told, len(happened)
        return happened[told:]

    def result(self) -> CaseResult:
        """Return what has come of it so far."""
        steps = [step.name or f"step {index + 1}" for index, step in self._waiting]
        return CaseResult(
            self._case.name,
            self._case.parameters,
            self._now_s,
            [watch.checked() for watch in self.watches],
            list(self.verdicts),
            steps if self.done else [],
            self.record,
        )

    def _sample(self, now_s: float, observation: Observation) -> None:
        record, values = self.record, self._values
        record.times.append(now_s)
        for name, read, append in self._signals:
            value = read(observation)
            values[name] = value
            append(value)
        for device, batch in observation.commands.items():
            record.received += [Received(now_s, device, command.name, command.value) for command in batch]

    def _fire(self, now_s: float) -> list[Due]:
        """Take the steps whose time has come, in their order."""
        due: list[Due] = []
        while self._waiting:
            index, step = self._waiting[0]
            at_s = self._time_of(index, step, now_s)
            if at_s is None or at_s > now_s + TOLERANCE:
                break
            self._waiting.popleft()
            self._before_s = at_s
            if step.name:
                self.record.happened.append(Happened(at_s, "step", step.name))
            for action in step.do:
                due += self._start(action, at_s)
            for expectation in step.expect:
                self.watches.append(Watch(expectation, at_s))
                self._pending.append(self.watches[-1])
        return due

    def _time_of(self, index: int, step: Step, now_s: float) -> float | None:
        """Return when a step is due (s since the start); None as long as nobody knows."""
        if step.at is not None:  # not before the step before it, which may have waited for a condition
            return max(step.at, self._before_s)
        if step.after is None:
            return self._before_s
        if isinstance(step.after, float | int):
            return self._before_s + step.after
        return now_s if self._holds[index](self._values.__getitem__) >= 0.0 else None

    def _start(self, action: Action, at_s: float) -> list[Due]:
        if isinstance(action, CallPack):
            pack = PACKS[action.verdict]
            params = pack.params.model_validate(action.with_)
            plan = pack.plan(params)
            self._packs.append(_PackRun(action.verdict, params, plan, at_s))
            self._timed += [(at_s + after_s, action_of(each)) for after_s, each in plan.actions]
            self._timed.sort(key=lambda timed: timed[0])
            self._happened(at_s, "verdict", f"{pack.title} begins")
            return []
        lasts_s = action.lasts_s() if isinstance(action, Override) else getattr(action, "duration", None)
        self._busy_until_s = max(self._busy_until_s, at_s + (lasts_s or 0.0))
        self._started += 1
        self._happened(
            at_s,
            "action",
            in_words(action),
            getattr(action, "device", "") or "",
            getattr(action, "link", "") or "",
        )
        return [Due(action, self._start_s + at_s, f"{self._seed} {self._case.name} {self._started}")]

    def _take_timed(self, now_s: float) -> list[Due]:
        due: list[Due] = []
        while self._timed and self._timed[0][0] <= now_s + TOLERANCE:
            at_s, action = self._timed.pop(0)
            due += self._start(action, at_s)
        return due

    def _judge(self, now_s: float) -> None:
        for pack in [p for p in self._packs if now_s >= p.started_s + p.plan.duration_s - TOLERANCE]:
            self._packs.remove(pack)
            self._judge_pack(pack)

    def _judge_pack(self, run: _PackRun) -> None:
        pack = PACKS[run.name]
        if run.plan.exchanges:
            self.record.exchanges = self._exchanges(self._start_s)
        requirements = pack.judge(run.params, self.record, run.started_s)
        verdict = PackVerdict(run.name, pack.title, pack.edition, run.started_s, requirements, run.params)
        self.verdicts.append(verdict)
        self._happened(
            self._now_s, "passed" if verdict.passed else "failed", f"{pack.title}: {_counted(requirements)}"
        )

    def _is_over(self, now_s: float) -> bool:
        duration_s = self._case.scenario.duration
        if duration_s is not None:
            return now_s >= duration_s - TOLERANCE
        open_ended = all(math.isinf(watch.last_s) for watch in self._pending)
        waiting = self._waiting or self._timed or self._packs
        return open_ended and not waiting and now_s >= self._busy_until_s - TOLERANCE

    def _tell(self, watch: Watch) -> None:
        if not watch.pending:
            checked = watch.checked()
            self._happened(checked.decided_s, checked.outcome, checked.text)

    def _happened(self, time_s: float, kind: str, text: str, device: str = "", link: str = "") -> None:
        self.record.happened.append(Happened(time_s, kind, text, device, link))


class ScenarioRun:
    """A scenario under way: its cases one after the other.

    Call `step` first with the site as it is, then after each of its steps, and do what it says before
    the next one.
    """

    def __init__(
        self,
        loaded: LoadedScenario,
        site: str,
        devices: Mapping[str, Device],
        exchanges: Exchanges = lambda _: (),
    ) -> None:
        """Begin nothing yet. Packs that judge requests and replies get them from `exchanges`."""
        self._loaded = loaded
        self._site = site
        self._open = deque(CaseRun(case, devices, loaded.seed, exchanges) for case in loaded.cases)
        self._over: list[CaseRun] = []
        self._count = len(loaded.cases)
        self.stopped = False

    @property
    def done(self) -> bool:
        """Tell whether there is nothing left to do."""
        return self.stopped or not self._open

    @property
    def current(self) -> CaseRun | None:
        """Return the case that is under way."""
        return self._open[0] if self._open else None

    @property
    def progress(self) -> tuple[int, int]:
        """Return which case is under way, from 1, and how many there are."""
        return min(len(self._over) + 1, self._count), self._count

    def step(self, observation: Observation) -> Acts:
        """Look at a step's outcome, and return what is to be done before the next one."""
        if self.done:
            return Acts()
        case = self._open[0]
        due = case.step(observation)
        if not case.done:
            return Acts(False, due, case.news())
        self._over.append(self._open.popleft())
        # The next case begins with the site as this step has left it.
        start = self._open[0].step(observation) if self._open else ()
        return Acts(True, start, [*case.news(), *(self._open[0].news() if self._open else ())])

    def note(self, text: str) -> Acts:
        """Keep something that happened outside of the site, now, among what happened."""
        if self.done:
            return Acts()
        self._open[0].note(text)
        return Acts(happened=self._open[0].news())

    def stop(self) -> Acts:
        """End the scenario before its time; what is pending has failed, or held so far."""
        if self.done:
            return Acts(clear=True)
        self.stopped = True
        case = self._open.popleft()
        case.end()
        self._over.append(case)
        return Acts(clear=True, happened=case.news())

    def result(self) -> ScenarioResult:
        """Return what has come of it so far."""
        runs = [*self._over, *([self._open[0]] if self._open and not self.stopped else [])]
        loaded = self._loaded
        return ScenarioResult(
            loaded.name,
            loaded.description,
            loaded.seed,
            self._site,
            not self.stopped and not self._open,
            [run.result() for run in runs],
        )


def in_words(action: Action) -> str:
    """Return an action as one line."""
    if isinstance(action, WriteCommand):
        return ", ".join(f"write {target} = {value:g}" for target, value in action.write.items())
    given = action.model_dump(exclude_none=True, exclude_defaults=True, by_alias=True)
    if isinstance(action, Override):
        return f"{action.environment} {action.in_words()}"
    (kind,) = (kind for kind in given if kind in ("environment", "device_fault", "wire_fault", "link_fault"))
    rest = ", ".join(f"{key} {value}" for key, value in given.items() if key not in (kind, "table"))
    name = str(given[kind]).replace("_", " ") if isinstance(action, Fault) else given[kind]
    return f"{name}: {rest}" if rest else str(name)


def _signals(case: Case) -> list[str]:
    """Return the signals that the conditions and packs of a case look at, in order."""
    found: list[str] = []
    for step in case.scenario.steps:
        if step.after is not None and not isinstance(step.after, float | int):
            found += names(step.after)
        for expectation in step.expect:
            found += [
                name
                for condition in (expectation.that, expectation.never)
                if condition is not None
                for name in names(condition)
            ]
        for action in step.do:
            if isinstance(action, CallPack):
                pack = PACKS[action.verdict]
                found += pack.plan(pack.params.model_validate(action.with_)).signals
    return found


def _counted(requirements: Sequence[Requirement]) -> str:
    met = sum(requirement.met for requirement in requirements)
    return f"{met} of {len(requirements)} requirements met"
