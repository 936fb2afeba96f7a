"""The reference of scenario files, made from the models: what docs/scenario-reference.md shows."""

import inspect
from collections.abc import Iterable, Iterator, Mapping
from typing import Any, get_args

from pydantic import BaseModel

from dertwin.faults import RESETS, DeviceFault
from dertwin.overrides import LIMITS, Override
from dertwin.scenario import signals
from dertwin.scenario.actions import CallPack, WriteCommand
from dertwin.scenario.conditions import FORM
from dertwin.scenario.document import CsvCases, Scenario, Step
from dertwin.scenario.expectations import Expectation
from dertwin.scenario.link import LinkFault, WholeLinkFault
from dertwin.scenario.packs import PACKS
from dertwin.scenario.wire import ExchangeFault, WireFault

_INTRODUCTION = """# Reference of scenario files

Made from the models by `dertwin scenario reference`. [scenarios.md](scenarios.md) is the tutorial. Times
are in s, values in SI units. Keys named `comment` or starting with `_` are notes. Every key without a
default must be there.
"""


def reference() -> str:
    """Return the page."""
    return "\n".join(_parts()).rstrip() + "\n"


def _parts() -> Iterator[str]:
    yield _INTRODUCTION
    yield from _model("Scenario", Scenario)
    yield from _model("Case sheet", CsvCases)
    yield from _model("Step", Step)
    yield from _model("Expectation", Expectation)
    yield "## Conditions\n"
    yield f"A condition is a text, {FORM.removeprefix('use ')}; or `all` or `any` of a list, or `not` one.\n"
    yield "## Signals\n"
    yield _text(signals.__doc__).partition("\n\n")[2] + "\n"
    yield "[names.md](names.md) lists measurements and commands.\n"
    yield "## Actions\n"
    yield from _model("environment", Override, "###")
    yield "| quantity | allowed |\n| --- | --- |"
    yield from (f"| `{name}` | {low:g} to {high:g} |" for name, (low, high) in LIMITS.items())
    yield ""
    yield from _model("write", WriteCommand, "###")
    yield from _model("verdict", CallPack, "###")
    yield "## Device faults\n"
    yield "Each is an action with `device_fault`.\n"
    for fault in _members(DeviceFault):
        yield from _model(_tag(fault, "device_fault"), fault, "###")
    resets = ", ".join(f"{kind} {command} {value:g}" for kind, (command, value) in RESETS.items())
    yield f"A locked-out device is reset by: {resets}.\n"
    yield "## Wire faults\n"
    yield "Each is an action with `wire_fault`; duration and count are those of real time.\n"
    yield from _model("What all of them have", ExchangeFault, "###")
    for wire_fault in _members(WireFault):
        yield from _model(_tag(wire_fault, "wire_fault"), wire_fault, "###", "", ExchangeFault)
    yield "## Link faults\n"
    yield "Each is an action with `link_fault`.\n"
    yield from _model("What all of them have", WholeLinkFault, "###")
    for link_fault in _members(LinkFault):
        yield from _model(_tag(link_fault, "link_fault"), link_fault, "###", "", WholeLinkFault)
    yield "## Verdict packs\n"
    yield "The keys are those of `with`. What each measures, and its sources: [verdicts.md](verdicts.md).\n"
    for name, pack in PACKS.items():
        yield from _model(name, pack.params, "###", f"{pack.title}. Edition: {pack.edition}.")


def _members(union: Any) -> Iterable[type[BaseModel]]:
    return get_args(get_args(union)[0])


def _tag(model: type[BaseModel], key: str) -> str:
    return str(get_args(model.model_fields[key].annotation)[0])


def _model(
    title: str,
    model: type[BaseModel],
    heading: str = "##",
    text: str = "",
    above: type[BaseModel] = BaseModel,
) -> Iterator[str]:
    """Yield what there is to say of a model; `above` has the keys that were explained before."""
    schema = model.model_json_schema(by_alias=True)
    definitions = schema.get("$defs", {})
    yield f"{heading} {title}\n"
    yield "\n\n".join(filter(None, (text, _text(model.__doc__)))) + "\n"
    rows = [
        f"| `{key}` | {_words(field, definitions)} | {_default(field, key in schema.get('required', ()))} |"
        for key, field in schema.get("properties", {}).items()
        if key not in above.model_fields or "const" in field
    ]
    if rows:
        yield "| key | takes | default |\n| --- | --- | --- |"
        yield from rows
        yield ""


def _text(docstring: str | None) -> str:
    return inspect.cleandoc(docstring or "")


def _default(field: Mapping[str, Any], required: bool) -> str:
    if required:
        return ""
    default = field.get("default")
    if default is None:
        return "none"
    return (
        "empty"
        if default in ("", [], {})
        else f"`{default}`".replace("True", "true").replace("False", "false")
    )


def _words(field: Mapping[str, Any], definitions: Mapping[str, Any]) -> str:
    """Return what a field takes."""
    if "$ref" in field:
        name = field["$ref"].rpartition("/")[2]
        return _words(definitions[name], definitions) if name not in _NAMES else _NAMES[name]
    if "const" in field:
        return f"`{field['const']}`"
    if "enum" in field:
        return "one of " + ", ".join(f"`{value}`" for value in field["enum"])
    for key in ("anyOf", "oneOf"):
        if key in field:
            parts = [_words(part, definitions) for part in field[key] if part.get("type") != "null"]
            if any(part.get("$ref", "").endswith("/Not") for part in field[key]):
                return "a condition"
            return " or ".join(dict.fromkeys(parts))
    kind = field.get("type")
    if kind == "array":
        if "prefixItems" in field:
            return "a pair of numbers"
        inner = field.get("items", {})
        return (
            "an action or a list of them" if "Trip" in str(inner) else f"a list: {_words(inner, definitions)}"
        )
    if kind == "object":
        return _NAMES.get(field.get("title", ""), "an object")
    return {
        "number": "a number",
        "integer": "an integer",
        "string": "a text",
        "boolean": "true or false",
    }.get(str(kind), "anything") + _range(field)


_NAMES = {
    "Ramp": "`{to: VALUE, rate: UNIT PER S}`",
    "Step": "steps, see below",
    "CsvCases": "`{csv: FILE}`",
    "Expectation": "an expectation",
}


def _range(field: Mapping[str, Any]) -> str:
    low, above = field.get("minimum"), field.get("exclusiveMinimum")
    high, below = field.get("maximum"), field.get("exclusiveMaximum")
    if low is not None and high is not None:
        return f" from {low:g} to {high:g}"
    words = [
        f"{word} {limit:g}"
        for word, limit in (("of at least", low), ("above", above), ("up to", high), ("below", below))
        if limit is not None
    ]
    return f" {' and '.join(words)}" if words else ""
