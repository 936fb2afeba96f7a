"""The page on verdict packs says what the packs have."""

import re
from pathlib import Path
from typing import Any

import pytest
import yaml

from dertwin.documents import read_document
from dertwin.scenario.packs import PACKS
from dertwin.scenario.packs.figures import FOLDER

PAGE = (Path(__file__).parents[2] / "docs" / "verdicts.md").read_text()


def section(pack: str) -> str:
    return PAGE.split(f"\n## {pack}\n", 1)[1].split("\n## ", 1)[0]


def test_the_page_has_all_packs_and_no_others() -> None:
    assert re.findall(r"^\| \[(\w+)\]\(#\1\)", PAGE, re.MULTILINE) == list(PACKS)


@pytest.mark.parametrize("pack", list(PACKS))
def test_every_figure_stands_on_the_page_with_its_source(pack: str) -> None:
    content: dict[str, Any] = read_document(FOLDER / f"{pack}.yaml").content
    text = section(pack)
    assert f"{content['title']}. Edition: {content['edition']}." in text
    rows = re.findall(r"^\| `(\w+)` \| (.*?) \| (\w+): (.*) \|$", text, re.MULTILINE)
    expected = []
    for name, figure in content["figures"].items():
        unit = "" if figure["unit"] == "1" else f" {figure['unit']}"
        expected.append((name, f"{figure['value']:g}{unit}", figure["document"], figure["place"]))
    for name, table in content.get("tables", {}).items():
        expected.append((name, f"{len(table['rows'])} rows", table["document"], table["place"]))
    assert rows == expected
    for key, document in content["documents"].items():
        assert f"- {key}: {' '.join(document.split())}" in text


@pytest.mark.parametrize("pack", list(PACKS))
def test_the_example_of_each_pack_is_good(pack: str) -> None:
    (block,) = re.findall(r"^```yaml\n(.*?)^```", section(pack), re.MULTILINE | re.DOTALL)
    example = yaml.safe_load(block)
    assert example["verdict"] == pack
    params = PACKS[pack].params.model_validate(example["with"])
    assert PACKS[pack].plan(params).duration_s > 0
