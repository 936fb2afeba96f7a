"""What is wrong with a config or a register map, one line for each fault."""

import json
from collections.abc import Iterable, Mapping, Sequence
from difflib import get_close_matches
from types import NoneType, UnionType
from typing import Annotated, Any, Literal, NamedTuple, Union, get_args, get_origin

from pydantic import Tag, ValidationError
from pydantic.fields import FieldInfo
from pydantic_core import ErrorDetails
from pydantic_core.core_schema import ErrorType

from dertwin.schema import FrozenModel, spellings

SHOWN_CHARACTERS = 60
# What pydantic calls a key that a model does not have, or that is no text.
UNKNOWN_KEY = ("extra_forbidden", "invalid_key")


class ConfigError(NamedTuple):
    """One fault: the file, the place in its document (may be empty), the value and what is allowed."""

    file: str
    place: str
    message: str

    def __str__(self) -> str:
        line = ": ".join(part for part in self if part)
        # What authors write, paths included, must neither break the line nor steer the terminal.
        return "".join(c if c.isprintable() else c.encode("unicode_escape").decode() for c in line)


class ConfigErrors(Exception):
    """All faults found in a config and the files it names; `str()` gives one line for each."""

    def __init__(self, errors: Sequence[ConfigError]) -> None:
        """Keep each fault once, in the order they were found."""
        self.errors = tuple(dict.fromkeys(errors))
        super().__init__("\n".join(map(str, self.errors)))

    def without(self, folder: str) -> "ConfigErrors":
        """Return the same faults; what lies in a folder is named without it."""
        return ConfigErrors(
            [ConfigError(*(part.replace(f"{folder}/", "") for part in each)) for each in self.errors]
        )


def show(value: object) -> str:
    """Return a value as it would stand in JSON, cut when it is long."""
    text = json.dumps(value, default=_plain) if not isinstance(value, set) else str(value)
    return text if len(text) <= SHOWN_CHARACTERS else text[: SHOWN_CHARACTERS - 3] + "..."


def _plain(value: object) -> object:
    return value.model_dump() if isinstance(value, FrozenModel) else str(value)


def place_of(path: Iterable[str | int]) -> str:
    """Return a path into a document as text: `assets[2].protocols[0].baudrate`."""
    text = ""
    for part in path:
        if isinstance(part, int):
            text += f"[{part}]"
        elif part.isidentifier() and part.isascii():
            text += f".{part}" if text else part
        else:
            text += f"[{show(part)}]"
    return text


def use(known: Iterable[str], wrong: object = None) -> str:
    """Return "use one of ...", after the known name that is closest to the wrong one, if one is close."""
    names = {name.lower(): name for name in known}
    near = get_close_matches(wrong.lower(), names, n=1) if isinstance(wrong, str) else []
    closest = f"the closest is {names[near[0]]}; " if near else ""
    return f"{closest}use one of {', '.join(names.values())}"


def validation_errors(
    error: ValidationError, model: Any, document: object, file: str, at: Sequence[str | int] = ()
) -> list[ConfigError]:
    """Return what pydantic found when it read `document`, which lies at `at` in `file`, as a `model`."""
    found = []
    for fault in error.errors(include_url=False):
        if fault["type"] == "too_short" and fault["input"]:
            continue  # it is not: pydantic counts only the sound items of a tuple
        spot = _Spot(model, document)
        spot.follow(fault["loc"], fault["type"] in ("missing", *UNKNOWN_KEY))
        path, message = _explain(spot, fault)
        found.append(ConfigError(file, place_of([*at, *path]), message))
    return found


class _Spot:
    """Follows pydantic's `loc` through the model and the document to the spot of a fault.

    pydantic puts the tags of unions into a `loc`, and keys that a validator has made up; the path
    keeps what the document has.
    """

    def __init__(self, annotation: Any, document: object) -> None:
        self.path: list[str | int] = []
        self.annotation = annotation
        self.constraints: list[Any] = []
        self.owner: type[FrozenModel] | None = None
        self._value: Any = document
        self._key_annotation: Any = None

    def follow(self, loc: Sequence[str | int], about_a_key: bool) -> None:
        for position, part in enumerate(loc):
            self._unwrap()
            if part == "[key]":
                self.annotation = self._key_annotation
                continue
            if _is_union(self.annotation):
                self.annotation = _member(self.annotation, self.constraints, part)
                self.constraints = []
                continue
            last = position == len(loc) - 1
            self._descend(part)
            if self._has(part):
                self._value = self._value[part]
                self.path.append(part)
            elif last and about_a_key:
                self.path.append(part)
        self._unwrap()

    def _has(self, part: str | int) -> bool:
        if isinstance(self._value, dict):
            return part in self._value
        return isinstance(self._value, list) and isinstance(part, int) and part < len(self._value)

    def _descend(self, part: str | int) -> None:
        annotation, self.annotation, self.constraints = self.annotation, None, []
        self.owner = None
        arguments = get_args(annotation)
        if isinstance(annotation, type) and issubclass(annotation, FrozenModel):
            self.owner = annotation
            field = _field(annotation, part)
            if field is not None:
                self.annotation, self.constraints = field.annotation, [field, *field.metadata]
        elif get_origin(annotation) is dict:
            self._key_annotation, self.annotation = arguments
        elif arguments:
            fixed = isinstance(part, int) and part < len(arguments) and Ellipsis not in arguments
            self.annotation = arguments[part] if fixed and isinstance(part, int) else arguments[0]

    def _unwrap(self) -> None:
        self.annotation, inner = _unwrapped(self.annotation)
        self.constraints = [*self.constraints, *inner]


def _explain(spot: _Spot, fault: ErrorDetails) -> tuple[list[str | int], str]:
    kind, value, context = fault["type"], fault["input"], fault.get("ctx", {})
    if kind in UNKNOWN_KEY:
        known = known_keys(spot.owner) if spot.owner else []
        return spot.path, f"unknown key; {use(known, spot.path[-1])}"
    if kind == "missing":
        return spot.path, f"is missing; {_allowed(spot.annotation, spot.constraints)}"
    if kind in ("union_tag_invalid", "union_tag_not_found"):
        key = context["discriminator"].strip("'")
        tags = _tags(spot.annotation, key)
        if not isinstance(value, dict) or key not in value:
            return [*spot.path, key], f"is missing; {use(tags)}"
        return [*spot.path, key], f"{show(value[key])} is not allowed; {use(tags, value[key])}"
    if kind == "value_error":
        return spot.path, str(context["error"])
    if kind not in get_args(ErrorType):
        return spot.path, fault["msg"]
    return spot.path, f"{show(value)} is not allowed; {_allowed(spot.annotation, spot.constraints, value)}"


def known_keys(model: type[FrozenModel]) -> list[str]:
    """Return the keys that a document may use for the fields of a model."""
    fields = [key for name, field in model.model_fields.items() for key in spellings(name, field)]
    return [*fields, *model.also_accepted]


def _field(model: type[FrozenModel], key: str | int) -> FieldInfo | None:
    for name, field in model.model_fields.items():
        if key == name or key in spellings(name, field):
            return field
    return None


def _is_union(annotation: Any) -> bool:
    return get_origin(annotation) in (Union, UnionType)


def _unwrapped(annotation: Any) -> tuple[Any, list[Any]]:
    """Return the type inside `Annotated` and `... | None`, and the metadata found on the way."""
    constraints: list[Any] = []
    while True:
        members = [member for member in get_args(annotation) if member is not NoneType]
        if get_origin(annotation) is Annotated:
            constraints += get_args(annotation)[1:]
            annotation = get_args(annotation)[0]
        elif _is_union(annotation) and len(members) == 1:
            (annotation,) = members
        else:
            return annotation, constraints


def _member(union: Any, constraints: list[Any], tag: str | int) -> Any:
    """Return the member of a union that pydantic calls `tag`."""
    key = next((c.discriminator for c in constraints if getattr(c, "discriminator", None)), None)
    for member in get_args(union):
        inner, metadata = _unwrapped(member)
        if any(isinstance(m, Tag) and m.tag == tag for m in metadata):
            return member
        if isinstance(key, str) and tag in get_args(inner.model_fields[key].annotation):
            return inner
        if getattr(inner, "__name__", None) == tag:
            return inner
    return None


def _tags(annotation: Any, key: str) -> list[str]:
    return [
        tag
        for member in get_args(annotation)
        for tag in get_args(_unwrapped(member)[0].model_fields[key].annotation)
    ]


def _allowed(annotation: Any, constraints: Sequence[Any], wrong: object = None) -> str:
    """Return what to use for a field: "use an integer from 1 to 255"."""
    inner, more = _unwrapped(annotation)
    if get_origin(inner) is Literal:
        return use(map(str, get_args(inner)), wrong)
    members = get_args(inner) if _is_union(inner) else [inner]
    limits = _limits([*constraints, *more])
    return f"use {' or '.join(dict.fromkeys(_in_words(member, limits) for member in members))}"


def _in_words(annotation: Any, limits: Mapping[str, float]) -> str:
    if annotation is str:
        return "a text" + (" that is not empty" if "min_length" in limits else "")
    if annotation is bool:
        return "true or false"
    if annotation in (int, float):
        return ("an integer" if annotation is int else "a number") + _range(limits)
    if get_origin(annotation) in (list, tuple):
        return "a list" + (" that is not empty" if "min_length" in limits else "")
    return "an object"


def _limits(constraints: Sequence[Any]) -> dict[str, Any]:
    found: dict[str, Any] = {}
    for constraint in constraints:
        if isinstance(constraint, FieldInfo):
            found |= _limits(constraint.metadata)
        for name in ("ge", "gt", "le", "lt", "min_length"):
            if getattr(constraint, name, None) is not None:
                found[name] = getattr(constraint, name)
    return found


def _range(limits: Mapping[str, float]) -> str:
    words = {"ge": "from", "gt": "above", "le": "up to", "lt": "below"}
    if "ge" in limits and "le" in limits:
        words["le"] = "to"
    elif "ge" in limits:
        words["ge"] = "of at least"
    return "".join(f" {word} {limits[name]:.10g}" for name, word in words.items() if name in limits)
