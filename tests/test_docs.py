"""What the documentation shows works as it stands."""

import json
import os
import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from pydantic import TypeAdapter
from support.service import free_port, service

from bench.appliance.settings import BenchConfig, read_settings
from bench.cli import _parser
from bench.pcapng import decoding
from dertwin.bindings import Binding
from dertwin.config import SiteConfig
from dertwin.registers.map import load_map
from dertwin.scenario.reference import reference

ROOT = Path(__file__).parent.parent
PAGES = [ROOT / "README.md", *sorted((ROOT / "docs").rglob("*.md"))]


def blocks(page: str, language: str) -> list[str]:
    return re.findall(rf"^```{language}\n(.*?)^```", (ROOT / page).read_text(), re.MULTILINE | re.DOTALL)


def commands() -> Iterator[str]:
    for block in blocks("README.md", "sh"):
        for line in block.splitlines():
            yield line.split("#")[0].strip()


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_links_lead_somewhere(page: Path) -> None:
    for target in re.findall(r"\]\(([^)#]+)\)", page.read_text()):
        assert (page.parent / target).exists(), f"{page.name}: {target}"


def test_the_smallest_config_of_the_readme_is_good() -> None:
    (block,) = blocks("README.md", "json")
    SiteConfig.model_validate(json.loads(block))


def test_the_keys_of_the_readme_are_those_of_a_site() -> None:
    table = (ROOT / "README.md").read_text().split("| key | what it is | default |")[1].split("\n\n")[0]
    assert set(re.findall(r"^\| `(\w+)`", table, re.MULTILINE)) == set(SiteConfig.model_fields)


def test_the_config_snippets_are_good() -> None:
    bindings, *rest = blocks("docs/config.md", "json")
    adapter: TypeAdapter[Any] = TypeAdapter(Binding)
    for line in bindings.splitlines():
        adapter.validate_python(json.loads(line))
    document: dict[str, Any] = {"assets": [{"type": "bess"}]}
    for block in rest:
        part = json.loads("{" + block + "}")
        if "watchdog" in part:
            document["assets"][0] |= part
        else:
            document |= part
    del document["external_models"]["grid_voltage"]  # the CSV file is the reader's
    SiteConfig.model_validate(document)


def test_the_bindings_of_the_bench_are_good() -> None:
    adapter: TypeAdapter[Any] = TypeAdapter(Binding)
    for block in blocks("docs/bench.md", "json"):
        for line in block.splitlines():
            adapter.validate_python(json.loads(line))


def test_the_commands_of_the_bench_exist() -> None:
    found = re.findall(r"^ *dertwin (.*)$", (ROOT / "docs/bench.md").read_text(), re.MULTILINE)
    assert len(found) == 2
    for line in found:
        _parser().parse_args(line.split())


def test_the_commands_for_containers_exist() -> None:
    lines = "\n".join(blocks("docs/containers.md", "sh")).splitlines()
    (read,) = (line for line in lines if line.startswith("dertwin "))
    _parser().parse_args(read.split()[1:])
    scripts = re.findall(r"^\S*python3? (\S+)", "\n".join(lines), re.MULTILINE)
    assert scripts == ["generate_compose.py", "examples/main_mixed.py"]
    assert all((ROOT / script).exists() for script in scripts)
    for file in re.findall(r"-f (\S+)", "\n".join(lines)):
        assert file == "docker-compose.yml" or (ROOT / file).exists(), file


def test_the_commands_of_the_appliance_exist() -> None:
    found = [
        line.split("#")[0].split()
        for block in blocks("docs/appliance.md", "sh")
        for line in block.splitlines()
    ]
    ours = [words[1:] for words in found if words[:1] == ["dertwin"]]
    assert len(ours) == 4
    for words in ours:
        _parser().parse_args(words)


def test_the_settings_of_the_appliance_are_those_there_are(tmp_path: Path) -> None:
    table = (ROOT / "docs/appliance.md").read_text().split("## bench.yaml")[1].split("```")[0]
    assert set(re.findall(r"^\| `(\w+)` \|", table, re.MULTILINE)) == set(BenchConfig.model_fields)
    (block,) = blocks("docs/appliance.md", "yaml")
    (tmp_path / "bench.yaml").write_text(block)
    assert read_settings(tmp_path / "bench.yaml").errors == []


def test_the_commands_of_the_recorder_exist() -> None:
    found = re.findall(r"^dertwin ([^#\n]*)", "\n".join(blocks("docs/recorder.md", "sh")), re.MULTILINE)
    assert len(found) == 4
    for line in found:
        _parser().parse_args(line.split())


def test_wireshark_is_called_as_the_page_on_the_recorder_says() -> None:
    links = ["tcp 0.0.0.0:502", "tcp 0.0.0.0:55001", "rtu-over-tcp 0.0.0.0:55002", "rtu pty:line"]
    assert " ".join(["tshark -r frames.pcapng", *decoding(links)]) in (ROOT / "docs/recorder.md").read_text()


def test_the_example_map_is_good(tmp_path: Path) -> None:
    (block,) = blocks("docs/registers.md", "yaml")
    (tmp_path / "map.yaml").write_text(block)
    assert len(load_map(tmp_path / "map.yaml").registers) == 3


@pytest.mark.parametrize("index", [0, 1, 2])
def test_the_library_scripts_run(index: int, tmp_path: Path) -> None:
    code = blocks("docs/library.md", "python")[index]
    for port in ("55001", "55010"):
        code = code.replace(port, str(free_port()))
    result = subprocess.run(
        [sys.executable, "-c", code], cwd=tmp_path, capture_output=True, text=True, timeout=60
    )
    assert result.returncode == 0, result.stderr
    if index == 0:
        soc, power_w, _ = map(float, result.stdout.split())
        assert (soc, power_w) == (pytest.approx(0.396, abs=0.002), 10_000.0)


def test_the_tests_of_the_testing_page_pass(tmp_path: Path) -> None:
    (block,) = blocks("docs/testing.md", "python")
    (tmp_path / "test_ems.py").write_text(block)
    command = [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", "test_ems.py"]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, timeout=100)
    assert "3 passed" in done.stdout, done.stdout


def test_the_readme_commands_work_against_the_demo_site(tmp_path: Path) -> None:
    port = free_port()
    site = json.loads((ROOT / "configs/mixed_protocol_config.json").read_text())
    site["assets"][0]["protocols"][0] |= {"ip": "127.0.0.1", "port": port}
    for asset in site["assets"][1:]:
        asset["protocols"][0]["port"] = str(tmp_path / Path(asset["protocols"][0]["port"]).name)
    shown = [line for line in commands() if re.search(r"/dertwin (read|write|map) ", line)]
    assert len(shown) == 4
    with service(site, tmp_path, "--fallback", "pty"):
        for line in shown:
            line = line.replace("55001", str(port)).replace("/tmp/", f"{tmp_path}/").replace(" --watch", "")
            words = [sys.executable, "-m", "bench.cli", *line.split()[1:]]
            result = subprocess.run(words, cwd=ROOT, capture_output=True, text=True, timeout=30)
            assert result.returncode == 0, f"{line}: {result.stderr}"
            assert result.stdout


def test_every_other_command_of_the_readme_exists() -> None:
    for line in commands():
        words = line.split()
        if words[0] == "make":
            targets = re.findall(r"^([\w-]+):", (ROOT / "Makefile").read_text(), re.MULTILINE)
            assert words[1] in targets
        elif words[0].endswith("/dertwin"):
            _parser().parse_args(words[1:])
        else:
            assert words[0].endswith("/python")
            assert os.path.exists(ROOT / words[1]), line


def test_the_reference_of_scenarios_is_what_the_models_say() -> None:
    assert (ROOT / "docs/scenario-reference.md").read_text() == reference(), (
        "out of date: dertwin scenario reference >docs/scenario-reference.md"
    )


def test_the_scenario_of_the_tutorial_is_the_shipped_one_and_tells_the_two_ems_apart(tmp_path: Path) -> None:
    page = (ROOT / "docs/scenarios.md").read_text()
    (shown,) = blocks("docs/scenarios.md", "yaml")
    shipped = (ROOT / "configs/scenarios/silent_meter.yaml").read_text()
    names = re.findall(r"name: ([a-z ]+)", shown)
    assert names
    assert all(name in shipped for name in names)
    lines = re.findall(r"^dertwin (scenario .*)$", page, re.MULTILINE)
    outcomes = []
    for line in lines:
        if re.match("scenario (start|stop|status)", line) or ("run" in line and "--ems" not in line):
            _parser().parse_args(line.split())
            continue
        command = [sys.executable, "-m", "bench.cli", *line.split()]
        done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=100)
        outcomes.append(done.returncode)
        printed = done.stdout
    assert outcomes == [0, 0, 1]
    told = page.split("```\nlose request: FAILED")[1].split("```")[0]
    assert f"lose request: FAILED{told}" in printed
