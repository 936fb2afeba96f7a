"""What is on the card when it is flashed."""

import json
import re
from pathlib import Path

from support.box import KEY

from bench.appliance.settings import BenchConfig, read_settings
from bench.appliance.site_files import demo_site
from bench.check import check_site
from dertwin.config import load_site

CARD = Path(__file__).parent.parent.parent / "image/card/dertwin"


def test_the_settings_on_the_card_are_the_defaults() -> None:
    assert read_settings(CARD / "bench.yaml") == (BenchConfig(), [])


def test_all_settings_are_explained_and_good_when_their_comment_sign_is_taken_away(tmp_path: Path) -> None:
    text = re.sub(r"^#(?! )", "", (CARD / "bench.yaml").read_text(), flags=re.MULTILINE)
    text = re.sub(r"^#(?=  )", "", text, flags=re.MULTILINE)
    (tmp_path / "bench.yaml").write_text(text.replace("ssh-ed25519 AAAA... you@laptop", KEY))
    config, errors = read_settings(tmp_path / "bench.yaml")
    assert errors == []
    assert config.model_fields_set == set(BenchConfig.model_fields)


def test_the_example_is_the_demo_site() -> None:
    example = CARD / "site-example.yaml"
    check_site(example)
    assert load_site(example) == load_site(demo_site())


def test_the_line_of_the_example_that_is_commented_out_is_good(tmp_path: Path) -> None:
    text = (CARD / "site-example.yaml").read_text()
    uncommented = re.sub(r"^      #(?! )", "      ", text, flags=re.MULTILINE)
    uncommented = re.sub(r"^      #(?=  )", "      ", uncommented, flags=re.MULTILINE)
    assert uncommented != text
    (tmp_path / "site.yaml").write_text(uncommented)
    meter = check_site(tmp_path / "site.yaml").config.assets[2]
    assert [binding.kind for binding in meter.protocols] == ["modbus_tcp", "modbus_rtu"]


def test_readme_names_each_file_on_the_card() -> None:
    text = (CARD / "README.txt").read_text()
    for path in CARD.iterdir():
        assert path.name == "README.txt" or path.name in text
    assert all(len(line) <= 110 for line in text.splitlines())
    assert json.loads(demo_site().read_text())["assets"][2]["protocols"][0]["port"] == 55003
