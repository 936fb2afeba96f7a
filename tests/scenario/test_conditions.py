"""Conditions: what they compare, and by how much they hold."""

import math

import pytest
from pydantic import TypeAdapter, ValidationError

from dertwin.scenario.conditions import Condition, compiled, names

CONDITION: TypeAdapter[Condition] = TypeAdapter(Condition)
NOW = {"bess-1.soc": 0.4, "pcc.active_power_w": -50.0, "meter-1.active_power_w": -48.0, "x.nan": math.nan}


def margin(condition: object) -> float:
    return compiled(CONDITION.validate_python(condition))(NOW.__getitem__)


@pytest.mark.parametrize(
    ("condition", "by"),
    [
        ("bess-1.soc >= 0.25", 0.15),
        ("bess-1.soc <= 0.25", -0.15),
        ("pcc.active_power_w in -100..100", 50.0),
        ("pcc.active_power_w in 0..100", -50.0),
        ("meter-1.active_power_w == pcc.active_power_w +- 5", 3.0),
        ("meter-1.active_power_w == pcc.active_power_w ± 1e0", -1.0),
        ("meter-1.active_power_w != pcc.active_power_w +- 1", 1.0),
        ({"all": ["bess-1.soc > 0", "pcc.active_power_w < 0"]}, 0.4),
        ({"any": ["bess-1.soc > 1", "pcc.active_power_w < 0"]}, 50.0),
        ({"not": "pcc.active_power_w < 0"}, -50.0),
    ],
)
def test_a_condition_tells_by_how_much_it_holds(condition: object, by: float) -> None:
    assert margin(condition) == pytest.approx(by)


@pytest.mark.parametrize(
    ("condition", "holds"),
    [
        ("bess-1.soc <= 0.4", True),
        ("bess-1.soc >= 0.4", True),
        ("bess-1.soc == 0.4", True),
        ("bess-1.soc < 0.4", False),
        ("bess-1.soc > 0.4", False),
        ("bess-1.soc != 0.4", False),
        ({"not": "bess-1.soc < 0.4"}, True),
        ({"not": "bess-1.soc == 0.4"}, False),
    ],
)
def test_equal_sides_hold_where_equality_is_allowed(condition: object, holds: bool) -> None:
    assert (margin(condition) >= 0.0) is holds


@pytest.mark.parametrize("operator", ["<", "<=", "==", ">=", ">", "!="])
def test_what_has_no_value_fulfils_nothing(operator: str) -> None:
    assert margin(f"x.nan {operator} 1") < 0.0
    assert margin(f"bess-1.soc {operator} x.nan") < 0.0


@pytest.mark.parametrize(
    "text",
    [
        "",
        "bess-1.soc",
        "bess-1.soc >> 1",
        "bess-1.soc > 1 +- 2",
        "a.b in 5..1",
        "a.b in 1",
        "a b > 1",
        "a.b == 1 +- -2",
    ],
)
def test_what_is_no_condition_is_refused_with_the_form_of_one(text: str) -> None:
    with pytest.raises(ValidationError, match="is not allowed"):
        CONDITION.validate_python(text)


def test_a_condition_names_all_the_signals_it_looks_at() -> None:
    condition = CONDITION.validate_python({"any": ["a.x > b.y", {"not": "c.z in 0..1"}]})
    assert list(names(condition)) == ["a.x", "b.y", "c.z"]
