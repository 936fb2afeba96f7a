"""`dertwin scenario start | stop | status` against a service that runs."""

import json
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
import yaml
from support.service import free_port, service, wait_for

START = {"write": {"bess-1.start_stop_standby": 1, "bess-1.active_power_setpoint_w": 3000}}


class Bench:
    """A service in a folder, and the command against it."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.control = folder / "control"
        self.states = folder / "states"

    def dertwin(self, *arguments: str) -> subprocess.CompletedProcess[str]:
        command = [sys.executable, "-m", "bench.cli", "scenario", *arguments, "--control", str(self.control)]
        return subprocess.run(command, cwd=self.folder, capture_output=True, text=True, timeout=60)

    def write(self, name: str, **scenario: object) -> str:
        (self.folder / name).write_text(yaml.safe_dump({"scenario": name.removesuffix(".yaml"), **scenario}))
        return name


@pytest.fixture
def running(tmp_path: Path) -> Iterator[Bench]:
    bench = Bench(tmp_path)
    site = {"assets": [{"type": "bess", "port": free_port()}]}
    options = "--control", str(bench.control), "--state-dir", str(bench.states)
    with service(site, tmp_path, *options):
        wait_for(bench.control.is_socket)
        yield bench


def test_a_scenario_is_started_followed_and_ends_with_its_verdict(running: Bench) -> None:
    assert running.dertwin("status").stdout == "no scenario has run\n"
    expect = {"that": "bess-1.active_power_w == 3000", "within": 3, "for": 0.5}
    good = running.dertwin(
        "start", "--wait", running.write("good.yaml", steps=[{"do": START, "expect": expect}])
    )
    assert (good.returncode, good.stderr) == (0, "")
    assert good.stdout.endswith("good: passed\n")
    status = json.loads(running.dertwin("status", "--json").stdout)
    assert status["cases"][0]["expectations"][0]["outcome"] == "passed"


def test_a_scenario_that_failed_leaves_an_incident_behind(running: Bench) -> None:
    bad = running.dertwin(
        "start",
        "--wait",
        running.write("bad.yaml", steps=[{"expect": {"never": "bess-1.soc > 0", "for": 1}}]),
    )
    assert (bad.returncode, bad.stderr) == (1, "")
    wait_for(lambda: list((running.states / "incidents").glob("*.zip")))
    (report,) = (running.states / "reports").iterdir()
    assert f"report: {report}" in running.dertwin("status").stdout
    assert "bess-1.soc" in (report / "report.html").read_text()


def test_a_scenario_can_be_stopped(running: Bench) -> None:
    file = running.write("long.yaml", duration=600, steps=[{"do": START}])
    assert running.dertwin("start", file).stdout.endswith("long: running\n")
    again = running.dertwin("start", file)
    assert again.returncode == 69
    assert "the scenario 'long' is running; stop it first, or wait" in again.stderr
    assert running.dertwin("stop").stdout.endswith("long: not complete\n")


def test_recordings_beside_the_scenario_come_along(running: Bench) -> None:
    (running.folder / "load.csv").write_text("0,700\n9,700\n")
    step = {"do": {"environment": "load_w", "csv": "load.csv", "duration": 1}, "expect": {
        "that": "site.load_w == 700", "within": 0.5}}  # fmt: skip
    done = running.dertwin("start", "--wait", running.write("replay.yaml", steps=[step]))
    assert (done.returncode, done.stderr) == (0, "")


def test_faults_of_the_scenario_are_told(running: Bench) -> None:
    bad = running.dertwin("start", running.write("wrong.yaml", steps=[{"do": {"write": {"bess-9.x": 1}}}]))
    assert bad.returncode == 69
    assert 'wrong.yaml: steps[0].do: write: "bess-9.x" is not allowed; ' in bad.stderr
    assert running.dertwin("start", "none.yaml").returncode == 78


def test_without_a_service_it_says_so(tmp_path: Path) -> None:
    done = Bench(tmp_path).dertwin("status")
    assert done.returncode == 69
    assert "No such file or directory" in done.stderr


def test_whoever_waits_is_told_of_everything_that_happens(running: Bench) -> None:
    load = {"environment": "load_w", "step": 700, "duration": 0.05}
    steps: list[object] = [{"name": f"step {number}", "after": 0.05, "do": load} for number in range(40)]
    steps.append({"name": "the last one", "do": load, "expect": {"that": "site.load_w > 1", "within": 1}})
    told = running.dertwin("start", "--wait", running.write("many.yaml", steps=steps)).stdout
    assert told.count("load_w = 700") == 41
    assert "passed   site.load_w > 1 within 1 s\nall steps: " in told


def test_a_recording_that_no_service_takes_is_refused_with_the_reason(running: Bench) -> None:
    (running.folder / "load.csv").write_text("".join(f"{n},{n / 7}\n" for n in range(200_000)))
    step = {"do": {"environment": "load_w", "csv": "load.csv"}}
    done = running.dertwin("start", running.write("large.yaml", steps=[step]))
    assert done.returncode == 69
    assert "bytes are to be sent, and a service takes 4194304; send less" in done.stderr
