"""Scenario files: one document that says what is done to a site, when, and what must come of it."""

import csv
from collections.abc import Iterator, Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Annotated, Any, NamedTuple, Self

from pydantic import BeforeValidator, Field, ValidationError, model_validator

from dertwin.config_errors import ConfigError, ConfigErrors, place_of, validation_errors
from dertwin.devices.device import Device
from dertwin.documents import read_document
from dertwin.scenario.actions import Action
from dertwin.scenario.check import record_problems, step_problems, time_problems
from dertwin.scenario.conditions import Condition
from dertwin.scenario.expectations import Expectation
from dertwin.scenario.substitute import Place, Value, substituted
from dertwin.schema import FrozenModel


def _listed(value: Any) -> Any:
    return value if isinstance(value, list) else [value]


def _delay_or_condition(value: Any) -> str:
    return "delay" if isinstance(value, int | float) else "condition"


class Step(FrozenModel):
    """One step of a scenario: when, what is done then, and what is expected from then on.

    `at` is s since the start; `after` is a delay (s) since the step before it, or a condition that must
    become true after that one. Without either it comes with the step before it. `do` and `expect` are one
    or a list.
    """

    name: str = ""
    at: float | None = Field(default=None, ge=0)
    after: float | Condition | None = None
    do: Annotated[list[Action], BeforeValidator(_listed)] = Field(default_factory=list)
    expect: Annotated[list[Expectation], BeforeValidator(_listed)] = Field(default_factory=list)

    @model_validator(mode="after")
    def _one_time_and_something_to_do(self) -> Self:
        if self.at is not None and self.after is not None:
            raise ValueError("give `at` or `after`, not both")
        if isinstance(self.after, float | int) and self.after < 0:
            raise ValueError(f"after: {self.after:g} is not allowed; use a number of at least 0")
        if not self.do and not self.expect:
            raise ValueError("does nothing; give it something to `do` or to `expect`")
        return self


class CsvCases(FrozenModel):
    """A case sheet: a CSV file with the parameters in its first line and a case in each other one."""

    csv: str = Field(min_length=1)


class Scenario(FrozenModel):
    """A named timeline over a site.

    `parameters` may be used as `${name}` anywhere below; with `cases` the steps are carried out once for
    each of them, with its parameters in place of the others. `duration` (s) ends each case; left out, it ends
    when nothing is left to be done or decided. `record` names signals that the report shall show besides
    those of the expectations. The same `seed` gives the same faults.
    """

    scenario: str = Field(min_length=1)
    description: str = ""
    seed: int = 0
    parameters: dict[str, Value] = Field(default_factory=dict)
    cases: list[dict[str, Value]] | CsvCases | None = None
    duration: float | None = Field(default=None, gt=0)
    record: list[str] = Field(default_factory=list)
    steps: list[Step] = Field(min_length=1)

    @model_validator(mode="after")
    def _it_ends(self) -> Self:
        waits = [
            step for step in self.steps if step.after is not None and not isinstance(step.after, float | int)
        ]
        if waits and self.duration is None:
            raise ValueError("a step waits for a condition that may never come; give a `duration` (s)")
        return self


class Case(NamedTuple):
    """One run through the steps of a scenario; `name` is empty if it has no cases."""

    name: str
    parameters: Mapping[str, Value]
    scenario: Scenario


class LoadedScenario(NamedTuple):
    """A scenario that can be run: its cases, parameters put in, and what it was read from.

    `beside` has the text of each CSV file that it names, by the name.
    """

    name: str
    description: str
    seed: int
    file: str
    text: str
    beside: Mapping[str, str]
    cases: Sequence[Case]


def load_scenario(path: Path, devices: Mapping[str, Device]) -> LoadedScenario:
    """Read a scenario for a site with these devices. Raises ConfigErrors with all its faults."""
    document, errors = read_document(path)
    cases: list[Case] = []
    for name, parameters, place, more in _cases(document, path):
        errors += more
        if more:
            continue
        problems: list[tuple[Place, str]] = []
        content = substituted(
            {key: value for key, value in document.items() if key not in ("parameters", "cases")},
            parameters,
            problems,
        )
        context = {"folder": path.parent}
        found = [ConfigError(str(path), place_of(at), problem) for at, problem in problems]
        steps: Mapping[int, Step] = {}
        try:
            scenario = Scenario.model_validate(content, context=context)
            steps = dict(enumerate(scenario.steps))
            cases.append(Case(name, parameters, scenario))
            problems = [*record_problems(scenario.record, devices), *time_problems(scenario)]
        except ValidationError as error:
            spoilt = {each.place for each in found}
            more = validation_errors(error, Scenario, content, str(path))
            found += [each for each in more if each.place not in spoilt]
            steps, problems = _sound_steps(content, context), []
        problems += [
            (("steps", index, *at), problem)
            for index, step in steps.items()
            for at, problem in step_problems(step, devices)
        ]
        found += [ConfigError(str(path), place_of(at), problem) for at, problem in problems]
        errors += [each._replace(message=f"{each.message} (in {place})") if place else each for each in found]
    if errors:
        raise ConfigErrors(_once(errors))
    first = cases[0].scenario
    text = path.read_text(encoding="utf-8-sig")
    beside = files_beside(path, document)
    return LoadedScenario(first.scenario, first.description, first.seed, str(path), text, beside, cases)


def files_beside(path: Path, document: Any) -> dict[str, str]:
    """Return the text of the CSV files that the scenario at a path names, by the name.

    One that cannot be read is left out: who wants its content tells.
    """
    found = {}
    for name in dict.fromkeys(_named_csv(document)):
        with suppress(OSError, UnicodeDecodeError):
            found[name] = (path.parent / name).read_text(encoding="utf-8-sig")
    return found


def _named_csv(content: Any) -> Iterator[str]:
    if isinstance(content, dict):
        if isinstance(content.get("csv"), str):
            yield content["csv"]
        content = content.values()
    elif not isinstance(content, list):
        return
    for value in content:
        yield from _named_csv(value)


def scenario_schema() -> dict[str, Any]:
    """Return the JSON Schema of a scenario file."""
    schema = Scenario.model_json_schema(by_alias=True)
    return {"$schema": "https://json-schema.org/draft/2020-12/schema", **schema}


def _sound_steps(content: Mapping[str, Any], context: Mapping[str, Any]) -> dict[int, Step]:
    """Return what is usable of the steps of a scenario that has faults, by their place."""
    steps = content.get("steps")
    sound = {}
    for index, step in enumerate(steps if isinstance(steps, list) else []):
        with suppress(ValidationError):
            sound[index] = Step.model_validate(step, context=context)
    return sound


def _once(errors: Sequence[ConfigError]) -> list[ConfigError]:
    """Leave out what is the same in another case."""
    kept: dict[tuple[str, str], ConfigError] = {}
    for error in errors:
        kept.setdefault((error.place, error.message.split(" (in cases")[0]), error)
    return list(kept.values())


def _cases(document: Any, path: Path) -> Iterator[tuple[str, Mapping[str, Value], str, list[ConfigError]]]:
    """Yield name, parameters, place and faults of each case; a single one if there are none."""
    file = str(path)
    if not isinstance(document, dict):
        yield "", {}, "", [ConfigError(file, "", "is no scenario; use an object with `scenario` and `steps`")]
        return
    given = document.get("parameters", {})
    problem = _no_parameters(given)
    if problem:
        yield "", {}, "", [ConfigError(file, "parameters", problem)]
        return
    sheet: Any = document.get("cases", [{}])
    if isinstance(sheet, dict):
        try:
            sheet = _read_sheet(path.parent / CsvCases.model_validate(sheet).csv)
        except ValidationError as error:
            yield "", given, "", validation_errors(error, CsvCases, sheet, file, ["cases"])
            return
        except ValueError as error:
            yield "", given, "", [ConfigError(file, "cases.csv", str(error))]
            return
    if not isinstance(sheet, list) or not sheet:
        yield (
            "",
            given,
            "",
            [ConfigError(file, "cases", "use a list of cases that is not empty, or {csv: FILE}")],
        )
        return
    named = "cases" in document
    for index, case in enumerate(sheet):
        place = f"cases[{index}]" if named else ""
        if problem := _no_parameters(case):
            yield "", given, place, [ConfigError(file, place, problem)]
            continue
        name = ", ".join(f"{key} {value}" for key, value in case.items())
        yield name, {**given, **case}, place, []


def _no_parameters(value: Any) -> str:
    """Return why a value is no mapping of parameters; empty if it is."""
    if not isinstance(value, dict):
        return "is not allowed; use an object of names and values"
    for name, each in value.items():
        if not (isinstance(name, str) and name.isidentifier()):
            return f'"{name}" is no name of a parameter; use letters, digits and _'
        if not isinstance(each, str | int | float | bool):
            return f"{name} is not allowed; use a number, a text, true or false"
    return ""


def _read_sheet(path: Path) -> list[dict[str, Value]]:
    try:
        with path.open(newline="", encoding="utf-8-sig") as file:
            rows = list(csv.DictReader(file, strict=True))
    except OSError as error:
        raise ValueError(f"{path}: cannot be read: {error.strerror}") from error
    except (csv.Error, UnicodeDecodeError) as error:
        raise ValueError(f"{path}: is no CSV file: {error}") from error
    for number, row in enumerate(rows, start=2):
        if None in row or None in row.values():
            raise ValueError(f"{path}: line {number}: use as many values as the first line has names")
    return [{key.strip(): _typed(value) for key, value in row.items()} for row in rows]


def _typed(text: str) -> Value:
    for kind in (int, float):
        try:
            return kind(text)
        except ValueError:
            continue
    return text.strip()
