"""The figures of a verdict pack: numbers, each with its source, in a YAML file beside the pack's code."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import NamedTuple, Self

from pydantic import Field, ValidationError, model_validator

from dertwin.config_errors import ConfigError, ConfigErrors, place_of, show, use, validation_errors
from dertwin.documents import read_document
from dertwin.schema import FrozenModel

FOLDER = Path(__file__).parent


class Figure(NamedTuple):
    """A number with its unit, and where it is from: document, edition and place."""

    value: float
    unit: str
    source: str


class Table(NamedTuple):
    """Rows of numbers, and where they are from."""

    rows: Sequence[Sequence[float]]
    source: str


class _Sourced(FrozenModel):
    """Where something is from: the key of a document, the place in it, and a note for who reads the file."""

    document: str
    place: str = Field(min_length=1)
    note: str = ""


class _Number(_Sourced):
    value: float
    unit: str = Field(min_length=1)


class _Rows(_Sourced):
    columns: list[str] = Field(min_length=1)
    rows: list[list[float]] = Field(min_length=1)

    @model_validator(mode="after")
    def _full_rows(self) -> Self:
        if any(len(row) != len(self.columns) for row in self.rows):
            raise ValueError(f"each row needs {len(self.columns)} numbers, as many as `columns`")
        return self


class _File(FrozenModel):
    title: str = Field(min_length=1)
    edition: str = Field(min_length=1)
    documents: dict[str, str] = Field(min_length=1)
    figures: dict[str, _Number] = Field(min_length=1)
    tables: dict[str, _Rows] = Field(default_factory=dict)


class Figures(NamedTuple):
    """All figures of a pack; `title` and `edition` are for people, `documents` the full names of sources."""

    title: str
    edition: str
    documents: Mapping[str, str]
    numbers: Mapping[str, Figure]
    tables: Mapping[str, Table]

    def value(self, name: str) -> float:
        """Return a number. Raises KeyError for one that the file does not have."""
        return self.numbers[name].value


def read_figures(path: Path) -> Figures:
    """Read the figures of a pack. Raises ConfigErrors with all faults of the file."""
    document, errors = read_document(path)
    try:
        file = _File.model_validate(document)
    except ValidationError as error:
        raise ConfigErrors([*errors, *validation_errors(error, _File, document, str(path))]) from error
    sourced: dict[str, _Sourced] = {**file.figures, **file.tables}
    for name, entry in sourced.items():
        if entry.document not in file.documents:
            section = "figures" if name in file.figures else "tables"
            message = f"{show(entry.document)} is not allowed; {use(file.documents, entry.document)}"
            errors.append(ConfigError(str(path), place_of([section, name, "document"]), message))
    if errors:
        raise ConfigErrors(errors)

    def source(entry: _Sourced) -> str:
        return f"{file.documents[entry.document]}, {entry.place}"

    return Figures(
        file.title,
        file.edition,
        file.documents,
        {name: Figure(number.value, number.unit, source(number)) for name, number in file.figures.items()},
        {name: Table(table.rows, source(table)) for name, table in file.tables.items()},
    )


def shipped(pack: str) -> Figures:
    """Return the figures that ship with a pack."""
    return read_figures(FOLDER / f"{pack}.yaml")
