"""Figures of verdict packs: each has its source, and a broken file says where."""

from pathlib import Path

import pytest

from dertwin.config_errors import ConfigErrors
from dertwin.scenario.packs import PACKS
from dertwin.scenario.packs.figures import FOLDER, read_figures, shipped

GOOD = """\
title: a test
edition: 2025
documents: {d: A Document}
figures:
  speed: {value: 2, unit: s, document: d, place: "3.1"}
tables:
  ramps: {document: d, place: "3.2", columns: [a, b], rows: [[1, 2], [3, 4.5]]}
"""


@pytest.mark.parametrize("name", list(PACKS))
def test_every_pack_has_figures_with_sources_and_an_edition(name: str) -> None:
    figures = shipped(name)
    assert (figures.title, figures.edition) == (PACKS[name].title, PACKS[name].edition)
    for figure in (*figures.numbers.values(), *figures.tables.values()):
        assert any(figure.source.startswith(document) for document in figures.documents.values())


def test_every_file_of_figures_belongs_to_a_pack() -> None:
    assert {path.stem for path in FOLDER.glob("*.yaml")} == set(PACKS)


def test_a_figure_knows_its_source(tmp_path: Path) -> None:
    path = tmp_path / "good.yaml"
    path.write_text(GOOD.replace("2025", '"2025"'))
    figures = read_figures(path)
    assert figures.numbers["speed"] == (2.0, "s", "A Document, 3.1")
    assert figures.tables["ramps"] == ([[1.0, 2.0], [3.0, 4.5]], "A Document, 3.2")


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        ("value: 2", "value: two", 'figures.speed.value: "two" is not allowed'),
        (', place: "3.1"', "", "figures.speed.place: is missing"),
        ("document: d, place", "document: e, place", 'figures.speed.document: "e" is not allowed'),
        ("[3, 4.5]", "[3]", "each row needs 2 numbers"),
    ],
)  # fmt: skip
def test_a_broken_file_is_refused_with_its_place(tmp_path: Path, old: str, new: str, message: str) -> None:
    path = tmp_path / "broken.yaml"
    path.write_text(GOOD.replace("2025", '"2025"').replace(old, new, 1))
    with pytest.raises(ConfigErrors) as caught:
        read_figures(path)
    assert message in str(caught.value)
    assert str(path) in str(caught.value)
