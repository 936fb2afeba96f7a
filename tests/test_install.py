"""What users get: the package that `pip install .` makes of the repository, and `make run`."""

import json
import os
import re
import shutil
import signal
import subprocess
import sys
import sysconfig
import venv
import zipfile
from pathlib import Path

import pytest
from support.service import START_TIMEOUT_S, free_port, wait_for

from bench import cli
from dertwin import __version__

ROOT = Path(__file__).parent.parent
SITE_PACKAGES = Path(sysconfig.get_path("purelib"))
SCRIPT = """
from bench.app import Bench
from bench.check import check_site
from dertwin.devices.bess import BessMeasurements
from dertwin.site import build_site

site = build_site({"assets": [{"type": "bess"}]})
snapshot = site.step()
battery: BessMeasurements = snapshot.measurements["bess-1"]
soc: float = battery.soc
power_w: float = site.devices["bess-1"].measurements.active_power_w
bench = Bench(check_site({"assets": [{"type": "bess"}]}))
"""


def run(*words: str | Path, cwd: Path) -> "subprocess.CompletedProcess[str]":
    environment = {name: value for name, value in os.environ.items() if name != "PYTHONPATH"}
    return subprocess.run(
        list(map(str, words)), cwd=cwd, env=environment, capture_output=True, text=True, timeout=120
    )


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Build the package from a copy of the repository, so that nothing is left in it."""
    folder = tmp_path_factory.mktemp("build")
    for name in ("dertwin", "bench", "register_maps", "configs"):
        shutil.copytree(ROOT / name, folder / name, ignore=shutil.ignore_patterns("__pycache__"))
    for name in ("pyproject.toml", "README.md", "LICENSE"):
        shutil.copy(ROOT / name, folder)
    pip = [sys.executable, "-m", "pip", "--disable-pip-version-check"]
    done = run(*pip, "wheel", "--no-deps", "--no-build-isolation", "--no-index", ".", cwd=folder)
    assert done.returncode == 0, done.stderr
    (built,) = folder.glob("*.whl")
    return built


@pytest.fixture(scope="module")
def installed(wheel: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Install the package into an environment of its own; what it depends on is that of the tests."""
    folder = tmp_path_factory.mktemp("installed")
    venv.create(folder, with_pip=False)
    pip = [sys.executable, "-m", "pip", "--disable-pip-version-check", "--python", folder / "bin" / "python"]
    done = run(*pip, "install", "--no-deps", "--no-index", wheel, cwd=folder)
    assert done.returncode == 0, done.stderr
    # Names the folder only: the link to the repository that is in it is not followed.
    (packages,) = folder.glob("lib/python*/site-packages")
    (packages / "of_the_tests.pth").write_text(f"{SITE_PACKAGES}\n")
    return folder


def test_the_package_has_what_is_needed_without_the_repository(wheel: Path) -> None:
    names = set(zipfile.ZipFile(wheel).namelist())
    for package in ("dertwin", "bench"):
        assert f"{package}/py.typed" in names
        files = (ROOT / package).rglob("*.*")
        sources = {path.relative_to(ROOT).as_posix() for path in files if path.suffix in (".py", ".yaml")}
        assert sources <= names
    maps = {path.name for path in (ROOT / "register_maps").iterdir()}
    assert {f"dertwin/register_maps/{name}" for name in maps} <= names


def test_the_installed_command_finds_the_shipped_maps_from_anywhere(installed: Path, tmp_path: Path) -> None:
    binding = {"kind": "modbus_tcp", "port": 55001}
    site = {"assets": [{"type": "bess", "protocols": [{**binding, "register_map": "bess_modbus.yaml"}]}]}
    (tmp_path / "site.json").write_text(json.dumps(site))
    python, dertwin = installed / "bin" / "python", installed / "bin" / "dertwin"
    where = run(python, "-c", "import dertwin, bench.check as b; print(b.shipped_maps())", cwd=tmp_path)
    assert Path(where.stdout.strip()).is_relative_to(installed), where.stderr
    checked = run(dertwin, "check", "site.json", cwd=tmp_path)
    assert (checked.stdout, checked.stderr) == ("site.json: good: 1 devices, 1 bindings\n", "")
    assert run(dertwin, "--version", cwd=tmp_path).stdout == f"dertwin {__version__}\n"
    assert "active_power" in run(dertwin, "map", "bess_modbus.yaml", cwd=tmp_path).stdout


def test_a_type_checker_knows_the_installed_package(installed: Path, tmp_path: Path) -> None:
    page = (ROOT / "docs" / "library.md").read_text()
    shown = re.findall(r"^```python\n(.*?)^```", page, re.MULTILINE | re.DOTALL)
    scripts = {f"good_{i}.py": text for i, text in enumerate([SCRIPT, *shown])}
    for name, text in scripts.items():
        (tmp_path / name).write_text(text)
    (tmp_path / "bad.py").write_text(SCRIPT + "battery.sco\nsnapshot.pcc.power\nsite.stepp()\n")
    mypy = [sys.executable, "-m", "mypy", "--strict", "--python-executable", installed / "bin" / "python"]
    good = run(*mypy, *scripts, cwd=tmp_path)
    assert good.returncode == 0, good.stdout
    bad = run(*mypy, "bad.py", cwd=tmp_path).stdout
    assert re.findall(r'has no attribute "(\w+)"', bad) == ["sco", "power", "stepp"]


def test_make_run_serves_the_mixed_site_until_ctrl_c(tmp_path: Path) -> None:
    port = free_port()
    site = json.loads((ROOT / "configs" / "mixed_protocol_config.json").read_text())
    battery, *others = site["assets"]
    battery["protocols"][0] |= {"ip": "127.0.0.1", "port": port}
    for asset in others:
        asset["protocols"][0]["port"] = str(tmp_path / asset["type"])
    (tmp_path / "site.json").write_text(json.dumps(site))
    # The environment is there already, and `--old-file` says so: nothing is to be fetched.
    words = ["make", "run", f"VENV={sys.prefix}", f"CONFIG={tmp_path / 'site.json'}"]
    out, log = tmp_path / "out", tmp_path / "log"
    with out.open("w") as stdout, log.open("w") as stderr:
        make = subprocess.Popen(
            [*words, f"--old-file={sys.prefix}/.installed"],
            cwd=ROOT,
            stdout=stdout,
            stderr=stderr,
            # Not that of the `make test` that may have started us.
            env={name: value for name, value in os.environ.items() if not name.startswith("MAKE")},
            start_new_session=True,
        )
    try:

        def serving() -> bool:
            assert make.poll() is None, log.read_text()
            return len(out.read_text().splitlines()) == 4

        wait_for(serving, START_TIMEOUT_S, "make run")
        for asset in others:
            assert f"{asset['protocols'][0]['port']}_client" in out.read_text()
        assert cli.main(["read", f"127.0.0.1:{port}", "bess_modbus.yaml", "soc"]) == 0
        pv = f"{tmp_path / 'inverter'}_client"
        assert cli.main(["read", pv, "pv_inverter_modbus.yaml", "active_power"]) == 0
        os.killpg(make.pid, signal.SIGINT)
        make.wait(timeout=5)
    finally:
        if make.poll() is None:
            os.killpg(make.pid, signal.SIGKILL)
            make.wait()
    assert "Traceback" not in log.read_text()
    assert '"event": "stopped"' in log.read_text()
    assert not (tmp_path / "inverter").is_symlink()
