"""What came of a scenario as plain data: the result.json of reports and of incident bundles."""

import math
import platform
from collections.abc import Mapping
from importlib.metadata import version
from typing import Any

from dertwin import __version__
from dertwin.scenario.expectations import Checked
from dertwin.scenario.record import Requirement
from dertwin.scenario.run import CaseResult, PackVerdict, ScenarioResult

_PACKAGES = ("pydantic", "pyserial", "prometheus-client")


def verdict(result: ScenarioResult) -> dict[str, Any]:
    """Return what came of a scenario as what JSON can hold, without the recorded signals."""
    return {
        "scenario": result.scenario,
        "description": result.description,
        "site": result.site,
        "seed": result.seed,
        "passed": result.passed,
        "complete": result.complete,
        "cases": [_case(case) for case in result.cases],
    }


def versions() -> dict[str, str]:
    """Return the versions of dertwin and of what it runs on."""
    return {
        "dertwin": __version__,
        "python": platform.python_version(),
        "system": platform.platform(),
        **{name: version(name) for name in _PACKAGES},
    }


def plain(values: Mapping[str, Any]) -> dict[str, Any]:
    """Return values with what JSON has no word for as text: nan, inf and -inf."""
    return {
        name: str(value) if isinstance(value, float) and not math.isfinite(value) else value
        for name, value in values.items()
    }


def _case(case: CaseResult) -> dict[str, Any]:
    return {
        "name": case.name,
        "parameters": plain(case.parameters),
        "passed": case.passed,
        "duration_s": case.duration_s,
        "missed": list(case.missed),
        "checks": [_check(check) for check in case.checks],
        "verdicts": [_pack(each) for each in case.verdicts],
    }


def _check(check: Checked) -> dict[str, Any]:
    return plain(check._asdict() | {"expectation": check.expectation.terms()})


def _pack(each: PackVerdict) -> dict[str, Any]:
    return {
        "pack": each.pack,
        "title": each.title,
        "edition": each.edition,
        "started_s": each.started_s,
        "passed": each.passed,
        "requirements": [_requirement(requirement) for requirement in each.requirements],
    }


def _requirement(requirement: Requirement) -> dict[str, Any]:
    judged = {"met": requirement.met, "margin": requirement.margin}
    return plain(requirement._asdict() | judged)
