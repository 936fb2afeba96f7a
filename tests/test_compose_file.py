"""`generate_compose.py`: the Compose file that it writes for a site config, and what it refuses."""

import importlib.util
import json
import re
import shutil
import subprocess
import sys
import tomllib
from collections.abc import Callable
from pathlib import Path
from types import ModuleType
from typing import Any, NamedTuple

import pytest
import yaml

from bench import container
from bench.container import Bridge
from dertwin.config import SiteConfig

ROOT = Path(__file__).parent.parent
CONFIGS = sorted(ROOT.glob("configs/*_config.json"))
MIXED = ROOT / "configs/mixed_protocol_config.json"


def load_generator() -> ModuleType:
    spec = importlib.util.spec_from_file_location("generate_compose", ROOT / "generate_compose.py")
    assert spec
    assert spec.loader
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


generator = load_generator()


class Done(NamedTuple):
    """The exit status of the program, and what it has printed."""

    status: int
    out: str
    err: str


Generate = Callable[[Path | str], Done]


@pytest.fixture
def generate(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Generate:
    """Return what runs the program for a config in an empty folder."""
    monkeypatch.chdir(tmp_path)

    def run(config: Path | str) -> Done:
        status = generator.main([str(config)])
        return Done(status, *capsys.readouterr())

    return run


def written(folder: Path) -> dict[str, Any]:
    """Return the service that the program has written into a folder."""
    document = yaml.safe_load((folder / "docker-compose.yml").read_text())
    simulator: dict[str, Any] = document["services"]["simulator"]
    return simulator


def fits_compose(*files: Path) -> bool:
    """Tell whether files fit the Compose specification's schema, as check-jsonschema has it."""
    program = Path(sys.executable).with_name("check-jsonschema")
    checked = subprocess.run(
        [program, "--builtin-schema", "vendor.compose-spec", *files], capture_output=True, timeout=60
    )
    return checked.returncode == 0


def tcp(port: int, **changes: Any) -> dict[str, Any]:
    return {"kind": "modbus_tcp", "port": port, **changes}


def line(port: str | dict[str, Any], **changes: Any) -> dict[str, Any]:
    return {"kind": "modbus_rtu", "port": port, **changes}


def site(*bindings: dict[str, Any], **changes: Any) -> dict[str, Any]:
    """Return a site with a battery for each binding."""
    return {"assets": [{"type": "bess", "protocols": [binding]} for binding in bindings], **changes}


def save(folder: Path, config: dict[str, Any]) -> Path:
    folder.mkdir(exist_ok=True)
    path = folder / "site.json"
    path.write_text(json.dumps(config))
    return path


def test_the_mixed_site_gets_its_tcp_port_a_bridge_for_each_line_and_metrics_on_this_machine_only(
    tmp_path: Path,
    generate: Generate,
) -> None:
    done = generate(MIXED)
    assert (done.status, done.err) == (0, "")
    ports = ["55001:55001", "56001:56001", "56002:56002", "127.0.0.1:9555:9555"]
    assert written(tmp_path)["ports"] == ports
    shown = re.findall(r"^  (socat .*)$", done.out, re.MULTILINE)
    assert shown == [
        "socat pty,rawer,link=/tmp/dertwin_pv_client tcp:localhost:56001,nodelay &",
        "socat pty,rawer,link=/tmp/dertwin_meter_client tcp:localhost:56002,nodelay &",
    ]
    for file in (tmp_path / "docker-compose.yml", ROOT / "docs/containers.md"):
        assert all(command in file.read_text() for command in shown)


def test_the_files_for_all_shipped_configs_fit_the_compose_specification(tmp_path: Path) -> None:
    files = [tmp_path / f"{config.stem}.yml" for config in CONFIGS]
    for config, file in zip(CONFIGS, files, strict=True):
        file.write_text(yaml.safe_dump(generator.compose(generator.check(config), config)))
    assert fits_compose(*files, ROOT / "compose.dashboards.yml")
    (tmp_path / "wrong.yml").write_text(files[0].read_text().replace("ports:", "prots:"))
    assert not fits_compose(tmp_path / "wrong.yml")


def test_a_second_run_replaces_the_file_and_one_of_somebody_else_is_left_alone(
    tmp_path: Path, generate: Generate
) -> None:
    assert generate(ROOT / "configs/simple_config.json").status == 0
    assert generate(MIXED).status == 0
    assert len(written(tmp_path)["ports"]) == 4
    (tmp_path / "docker-compose.yml").write_text("services: {}\n")
    refused = generate(MIXED)
    assert refused.status == 78
    assert refused.err.startswith("docker-compose.yml: is there and was not written by this program;")
    assert (tmp_path / "docker-compose.yml").read_text() == "services: {}\n"


def test_all_that_is_wrong_with_a_config_is_told_at_once_and_nothing_written(
    tmp_path: Path, generate: Generate
) -> None:
    bindings = (
        tcp(502, ip="127.0.0.1"),
        tcp(9555),
        line("/run/lines/pv"),
        tcp(55001, register_map="none.yaml"),
        tcp(99999),
    )
    done = generate(save(tmp_path, site(*bindings)))
    assert done.status == 78
    told = [text.removeprefix(f"{tmp_path}/site.json: assets[") for text in done.err.splitlines()]
    assert sorted(told)[:3] == [
        '0].protocols[0].ip: "127.0.0.1" is not allowed in a container; use "0.0.0.0"',
        "1].protocols[0].port: 9555 is not allowed in a container, whose metrics it has; use another",
        '2].protocols[0].port: "/run/lines/pv" is not allowed in a container; '
        "use a path in /tmp, or pty: and a name",
    ]
    assert sorted(told)[3].startswith('3].protocols[0].register_map: "none.yaml" is not a file')
    assert sorted(told)[4].startswith("4].protocols[0].port: 99999 is not allowed")
    assert len(told) == 5
    assert not (tmp_path / "docker-compose.yml").exists()


def test_a_config_that_is_not_there_is_told_in_one_line(tmp_path: Path, generate: Generate) -> None:
    done = generate("nowhere.json")
    assert (done.status, done.err) == (
        78,
        "nowhere.json: cannot be read: No such file or directory\n",
    )


def test_where_nothing_can_be_written_that_is_told_in_one_line(tmp_path: Path, generate: Generate) -> None:
    (tmp_path / "docker-compose.yml").symlink_to("nowhere/docker-compose.yml")
    done = generate(MIXED)
    assert (done.status, done.err) == (
        1,
        "docker-compose.yml: cannot be written: No such file or directory\n",
    )


def test_bridge_ports_are_one_for_each_line_and_leave_out_those_of_devices() -> None:
    adapter = {"serial": "FT4XYZ12"}
    bindings = (
        line("pty:bus", unit_id=1),
        line("pty:bus", unit_id=2),
        tcp(56002),
        line(adapter),
        line("/dev/ttyUSB0"),
    )
    assert container.bridges(SiteConfig.model_validate(site(*bindings))) == [
        Bridge(56001, "/tmp/dertwin_bus_client"),
        Bridge(56003, "/tmp/dertwin_usb-FT4XYZ12_client"),
        Bridge(56004, "/tmp/dertwin_ttyUSB0_client"),
    ]


def test_ports_below_1024_may_be_served_by_any_user_also_where_that_is_not_the_default(
    tmp_path: Path,
    generate: Generate,
) -> None:
    assert generate(save(tmp_path, site(tcp(502)))).status == 0
    assert written(tmp_path)["sysctls"] == {"net.ipv4.ip_unprivileged_port_start": 0}
    assert generate(save(tmp_path, site(tcp(1502)))).status == 0
    assert "sysctls" not in written(tmp_path)
    assert written(tmp_path)["ports"][0] == "1502:1502"


@pytest.mark.parametrize(
    ("root", "maps", "target"),
    [
        (None, "sites", None),
        ("maps", "sites/maps", None),
        ("../maps", "maps", "/app/maps"),
        ("maps", "maps", "/app/maps"),
    ],
    ids=["beside the config", "in its folder", "out of it", "in the working directory"],
)
def test_the_folders_that_a_site_reads_are_in_the_container_where_it_looks_for_them(
    tmp_path: Path, generate: Generate, root: str | None, maps: str, target: str | None
) -> None:
    config = site(tcp(55001, register_map="own.yaml"))
    file = save(tmp_path / "sites", config | ({"register_map_root": root} if root else {}))
    (tmp_path / maps).mkdir(exist_ok=True)
    shutil.copy(ROOT / "register_maps/bess_modbus.yaml", tmp_path / maps / "own.yaml")
    done = generate("sites/site.json")
    assert (done.status, done.err) == (0, "")
    mounts = {volume["target"]: volume["source"] for volume in written(tmp_path)["volumes"]}
    assert mounts == {"/app/configs": "./sites"} | ({target: f"./{maps}"} if target else {})
    assert written(tmp_path)["environment"] == {"CONFIG_PATH": f"/app/configs/{file.name}"}


def test_a_dollar_in_a_path_is_not_a_variable_to_compose(tmp_path: Path, generate: Generate) -> None:
    save(tmp_path / "s$HOME", site(tcp(55001)))
    assert generate("s$HOME/site.json").status == 0
    assert written(tmp_path)["volumes"][0]["source"] == "./s$$HOME"


def test_with_a_python_that_has_no_packages_it_uses_those_of_make_run_or_says_how_to_get_them(
    tmp_path: Path,
) -> None:
    shutil.copy(ROOT / "generate_compose.py", tmp_path)
    alone = [sys.executable, "-S", str(tmp_path / "generate_compose.py"), str(MIXED)]
    refused = subprocess.run(alone, cwd=tmp_path, capture_output=True, text=True, timeout=60)
    assert refused.returncode == 1
    assert re.fullmatch(r"\w+ is missing; run once: python3 -m venv .* install .*\n", refused.stderr)
    (tmp_path / ".venv").symlink_to(sys.prefix)
    for name in ("bench", "dertwin", "register_maps"):
        (tmp_path / name).symlink_to(ROOT / name)
    done = subprocess.run(alone, cwd=tmp_path, capture_output=True, text=True, timeout=60)
    assert (done.returncode, done.stderr) == (0, "")
    assert written(tmp_path)["build"] == "."


def test_the_image_is_built_from_all_that_the_package_is_made_of() -> None:
    build = tomllib.loads((ROOT / "pyproject.toml").read_text())["tool"]["hatch"]["build"]["targets"]["wheel"]
    first_stage = (ROOT / "Dockerfile").read_text().partition("RUN")[0]
    copied = set(re.findall(r"^COPY (\S+) \1$", first_stage, re.MULTILINE))
    needed = {path.partition("/")[0] for path in (*build["packages"], *build["force-include"])}
    assert needed <= copied
    sent = (ROOT / ".dockerignore").read_text().split()
    assert {f"!{name}" for name in copied} <= set(sent)


def test_the_folders_of_the_image_are_those_that_the_compose_file_means() -> None:
    dockerfile = (ROOT / "Dockerfile").read_text()
    assert f"\nWORKDIR {generator.APP}\n" in dockerfile
    assert f"CONFIG_PATH={generator.CONFIGS}/simple_config.json\n" in dockerfile
