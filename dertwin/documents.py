"""Documents that people write: strict JSON, or YAML 1.2; no key twice, and errors with line or place."""

import json
import math
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

import yaml

from dertwin.config_errors import ConfigError, ConfigErrors, place_of, show

Place = tuple[str | int, ...]

# Sizes that floating point can multiply and divide without end; 64-bit integers are among them.
SMALLEST, LARGEST = 1e-20, 1e20
DEEPEST = 100
MOST_VALUES = 1_000_000


class Document(NamedTuple):
    """What a file or a caller gave, and the keys that it has twice (the last value counts)."""

    content: Any
    errors: list[ConfigError]


def read_document(path: Path) -> Document:
    """Read a document: JSON if the file's name or its first character says so, otherwise YAML.

    Raises ConfigErrors if the file cannot be read or is not such a document.
    """
    try:
        text = path.read_text(encoding="utf-8-sig")
    except OSError as error:
        raise _refused(path, f"cannot be read: {error.strerror}") from error
    except UnicodeDecodeError as error:
        raise _refused(path, f"is not UTF-8 text: {error.reason} at byte {error.start}") from error
    if not text.strip():
        raise _refused(path, "is empty")
    suffix = path.suffix.lower()
    is_json = suffix == ".json" or (suffix not in (".yaml", ".yml") and text.lstrip()[0] == "{")
    try:
        content, twice = (_read_json if is_json else _read_yaml)(text)
        _refuse_oddities(content, str(path))
    except json.JSONDecodeError as error:
        raise _refused(path, f"line {error.lineno}, column {error.colno}: {error.msg}") from error
    except yaml.MarkedYAMLError as error:
        mark = error.problem_mark or error.context_mark
        where = f"line {mark.line + 1}, column {mark.column + 1}: " if mark else ""
        raise _refused(path, f"{where}{error.problem or error.context}") from error
    except (yaml.YAMLError, ValueError, LookupError) as error:
        raise _refused(path, " ".join(str(error).split())) from error
    except RecursionError as error:
        raise _refused(path, "is nested too deep") from error
    message = "the key {} is there twice; use it once"
    return Document(
        content, [ConfigError(str(path), place_of(place), message.format(show(place[-1]))) for place in twice]
    )


def check_document(content: Any) -> Document:
    """Return what a caller has built as if it had been read. Raises ConfigErrors as for a file."""
    try:
        _refuse_oddities(content, "")
    except RecursionError as error:
        raise ConfigErrors([ConfigError("", "", "is nested too deep")]) from error
    return Document(content, [])


def _refused(path: Path, message: str) -> ConfigErrors:
    return ConfigErrors([ConfigError(str(path), "", message)])


def _values(content: Any, place: Place = ()) -> Iterator[tuple[Place, Any]]:
    if len(place) > DEEPEST:
        raise RecursionError
    yield place, content
    if isinstance(content, dict | list):
        for key, value in content.items() if isinstance(content, dict) else enumerate(content):
            yield from _values(value, (*place, key))


def _refuse_oddities(content: Any, file: str) -> None:
    odd = [
        ConfigError(file, place_of(place), problem)
        for place, value in _values(content)
        if (problem := _oddity(value))
    ]
    if odd:
        raise ConfigErrors(odd)


def _oddity(value: Any) -> str:
    """Return what is wrong with a value wherever it stands; empty if nothing is."""
    if isinstance(value, str) and not value.isascii() and any(0xD800 <= ord(c) <= 0xDFFF for c in value):
        return f"{show(value)} is not allowed; use whole characters"
    if not isinstance(value, int | float) or value == 0 or SMALLEST <= abs(value) <= LARGEST:
        return ""
    if value != value or abs(value) == math.inf:
        return ""  # the models have words of their own for these
    return f"{show(value)} is not allowed; use 0 or a size from {SMALLEST:g} to {LARGEST:g}"


def _read_json(text: str) -> tuple[Any, list[Place]]:
    repeated: list[tuple[dict[str, Any], str]] = []

    def build(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
        built = dict(pairs)
        if len(built) < len(pairs):
            keys = [key for key, _ in pairs]
            repeated.extend((built, key) for key in built if keys.count(key) > 1)
        return built

    content = json.loads(text, object_pairs_hook=build)
    if not repeated:
        return content, []
    return content, [
        (*place, key) for place, value in _values(content) for owner, key in repeated if owner is value
    ]


class _Yaml(getattr(yaml, "CSafeLoader", yaml.SafeLoader)):  # type: ignore[misc]
    """Reads YAML 1.2 scalars: `1e-3` is a number; `On` and `12:30` are text."""

    # Filled below; they must not be the tables of the YAML 1.1 loader, which has dates, sets and bytes.
    yaml_implicit_resolvers: dict[str, list[Any]] = {}  # noqa: RUF012
    yaml_constructors: dict[str | None, Any] = {  # noqa: RUF012
        tag: build
        for tag, build in yaml.SafeLoader.yaml_constructors.items()
        if tag is None or tag.rpartition(":")[2] in ("null", "bool", "int", "float", "str", "seq", "map")
    }


for _tag, _pattern, _first in (
    ("bool", r"true|True|TRUE|false|False|FALSE", "tTfF"),
    ("int", r"[-+]?(0|[1-9][0-9]*)|0o[0-7]+|0x[0-9a-fA-F]+", "-+0123456789"),
    ("float", r"[-+]?(\.[0-9]+|[0-9]+(\.[0-9]*)?)([eE][-+]?[0-9]+)?", "-+.0123456789"),
    ("float", r"[-+]?\.(inf|Inf|INF)|\.(nan|NaN|NAN)", "-+."),
    ("null", r"~|null|Null|NULL|", ["~", "n", "N", ""]),
    ("merge", r"<<", "<"),
):
    _Yaml.add_implicit_resolver(f"tag:yaml.org,2002:{_tag}", re.compile(f"^(?:{_pattern})$"), list(_first))


def _read_yaml(text: str) -> tuple[Any, list[Place]]:
    loader = _Yaml(text)
    try:
        root = loader.get_single_node()
        if root and _size(root, {}) > MOST_VALUES:
            raise ValueError(f"has more than {MOST_VALUES} values when its aliases are put in; use fewer")
        # No node at all: the file has nothing but comments.
        return (loader.construct_document(root), list(_keys_twice(root))) if root else (None, [])
    finally:
        loader.dispose()


def _size(node: yaml.Node, known: dict[int, int]) -> int:
    """Return how many values a node has with all that is below it, what aliases stand for included."""
    if id(node) not in known:
        known[id(node)] = 0  # an alias of a node that it is part of has no size; that is refused elsewhere
        parts = node.value if isinstance(node, yaml.CollectionNode) else ()
        inner = (each for part in parts for each in (part if isinstance(part, tuple) else (part,)))
        known[id(node)] = 1 + sum(_size(each, known) for each in inner)
    return known[id(node)]


def _keys_twice(node: yaml.Node, place: Place = (), above: frozenset[int] = frozenset()) -> Iterator[Place]:
    if id(node) in above:  # an alias of a node that it is part of
        return
    above |= {id(node)}
    if isinstance(node, yaml.SequenceNode):
        for index, item in enumerate(node.value):
            yield from _keys_twice(item, (*place, index), above)
    elif isinstance(node, yaml.MappingNode):
        seen: set[str] = set()
        for key, value in node.value:
            name = str(key.value)
            if name in seen:
                yield *place, name
            seen.add(name)
            yield from _keys_twice(value, (*place, name), above)
