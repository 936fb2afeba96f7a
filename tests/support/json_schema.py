"""As much of JSON Schema 2020-12 as the schema of a site config uses; what it does not know, it refuses."""

import re
from collections.abc import Callable, Mapping
from typing import Any

_TYPES: Mapping[str, Callable[[Any], bool]] = {
    "object": lambda value: isinstance(value, dict),
    "array": lambda value: isinstance(value, list),
    "string": lambda value: isinstance(value, str),
    "integer": lambda value: isinstance(value, int) and not isinstance(value, bool),
    "number": lambda value: isinstance(value, int | float) and not isinstance(value, bool),
    "boolean": lambda value: isinstance(value, bool),
    "null": lambda value: value is None,
}
_LIMITS: Mapping[str, Callable[[Any, Any], bool]] = {
    "const": lambda value, const: value == const,
    "enum": lambda value, known: value in known,
    "minimum": lambda value, low: value >= low,
    "maximum": lambda value, high: value <= high,
    "exclusiveMinimum": lambda value, low: value > low,
    "exclusiveMaximum": lambda value, high: value < high,
    "minLength": lambda value, low: len(value) >= low,
    "minItems": lambda value, low: len(value) >= low,
    "maxItems": lambda value, high: len(value) <= high,
    "required": lambda value, keys: set(keys) <= set(value),
}
_NOTES = {"title", "description", "default", "discriminator", "$defs", "$schema", "examples"}
_PARTS = {"properties", "patternProperties", "additionalProperties", "items", "prefixItems"}


def accepts(root: Mapping[str, Any], value: Any, schema: Mapping[str, Any] | None = None) -> bool:
    """Tell whether a document fits a schema (of its own, or a part of `root`)."""
    schema = root if schema is None else schema
    unknown = set(schema) - _NOTES - _PARTS - set(_LIMITS) - {"type", "$ref", "anyOf", "oneOf"}
    assert not unknown, unknown
    if "$ref" in schema:
        name = schema["$ref"].removeprefix("#/$defs/")
        if not accepts(root, value, root["$defs"][name]):
            return False
    if "type" in schema and not _TYPES[schema["type"]](value):
        return False
    for key, fewest, most in (("anyOf", 1, 99), ("oneOf", 1, 1)):
        if key in schema and not fewest <= sum(accepts(root, value, s) for s in schema[key]) <= most:
            return False
    if not all(_LIMITS[key](value, schema[key]) for key in _LIMITS if key in schema):
        return False
    if isinstance(value, dict):
        return all(_accepts_member(root, schema, key, member) for key, member in value.items())
    if isinstance(value, list):
        first = schema.get("prefixItems", [])
        rest = [schema.get("items", {})] * (len(value) - len(first))
        return all(accepts(root, item, part) for item, part in zip(value, [*first, *rest], strict=False))
    return True


def _accepts_member(root: Mapping[str, Any], schema: Mapping[str, Any], key: str, member: Any) -> bool:
    parts = [schema["properties"][key]] if key in schema.get("properties", {}) else []
    parts += [part for name, part in schema.get("patternProperties", {}).items() if re.search(name, key)]
    if not parts:
        other = schema.get("additionalProperties", {})
        return other is not False and (other is True or accepts(root, member, other))
    return all(accepts(root, member, part) for part in parts)
