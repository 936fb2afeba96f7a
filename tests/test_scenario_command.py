"""`dertwin scenario`: what it prints, and what its exit status says."""

import json
import signal
import subprocess
import sys
from pathlib import Path

import pytest
import yaml
from support.service import free_port, wait_for

EMS = """
def ems(plant):
    plant.write("bess-1", "start_stop_standby", 1)
    while True:
        plant.write("bess-1", "active_power_setpoint", {setpoint})
        yield 1.0
"""
LIMIT = {"scenario": "limit", "steps": [{"expect": {"never": "bess-1.active_power_w > 5000", "for": 5}}]}
QUICK = {"scenario": "quick", "steps": [{"do": {"write": {"bess-1.start_stop_standby": 1}}, "expect": {
    "that": "bess-1.working_status == 1", "within": 2}}]}  # fmt: skip


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    (tmp_path / "site.json").write_text(json.dumps({"assets": [{"type": "bess", "port": free_port()}]}))
    (tmp_path / "ems.py").write_text(EMS.format(setpoint=4000))
    (tmp_path / "wild.py").write_text(EMS.format(setpoint=6000))
    (tmp_path / "limit.yaml").write_text(yaml.safe_dump(LIMIT))
    (tmp_path / "quick.yaml").write_text(yaml.safe_dump(QUICK))
    return tmp_path


def dertwin(folder: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "bench.cli", "scenario", *arguments, "-c", "site.json"]
    return subprocess.run(command, cwd=folder, capture_output=True, text=True, timeout=60)


def test_the_exit_status_is_the_verdict_on_an_ems_in_python(folder: Path) -> None:
    good = dertwin(folder, "run", "limit.yaml", "--ems", "ems.py:ems")
    assert (good.returncode, good.stderr) == (0, "")
    assert good.stdout.endswith("limit: passed\n")
    bad = dertwin(folder, "run", "limit.yaml", "--ems", "wild.py:ems")
    assert (bad.returncode, bad.stderr) == (1, "")
    assert "FAILED  never bess-1.active_power_w > 5000 for 5 s, margin -1000" in bad.stdout


def test_the_report_is_written_whatever_the_verdict(folder: Path) -> None:
    for ems, verdict in (("ems.py:ems", "passed"), ("wild.py:ems", "failed")):
        done = dertwin(folder, "run", "limit.yaml", "--ems", ems, "--report", "new/report")
        assert done.stdout.endswith(f"limit: {verdict}\nreport: new/report/report.html\n")
        assert json.loads((folder / "new/report/result.json").read_text())["ems"] == ems
        assert verdict.upper() in (folder / "new/report/report.html").read_text()
    assert sorted(each.name for each in (folder / "new/report/case-1").iterdir()) == [
        "commands.csv", "events.csv", "requirements.csv", "signals.csv",
    ]  # fmt: skip


def test_a_folder_that_cannot_be_made_is_told_before_anything_runs(folder: Path) -> None:
    done = dertwin(folder, "run", "limit.yaml", "--ems", "ems.py:ems", "--report", "ems.py/report")
    assert (done.returncode, done.stdout) == (78, "")
    assert done.stderr == ("--report: ems.py/report cannot be made: Not a directory; use another folder\n")


def test_an_ems_that_meets_a_refusal_it_did_not_expect_has_ended(folder: Path) -> None:
    (folder / "ems.py").write_text(
        "def ems(plant):\n    plant.write('bess-1', 'start_stop_standby', 9)\n    yield 1\n"
    )
    done = dertwin(folder, "run", "limit.yaml", "--ems", "ems.py:ems")
    assert (done.returncode, done.stderr) == (0, "")
    assert "note    the EMS has ended: bess-1: function 16: exception 03 (at 0 s)\n" in done.stdout


def test_a_scenario_runs_on_a_served_site_in_real_time(folder: Path) -> None:
    done = dertwin(folder, "run", "quick.yaml")
    assert done.returncode == 0, done.stderr
    assert "bess-1             unit 1   tcp" in done.stdout
    assert "passed   bess-1.working_status == 1 within 2 s" in done.stdout
    assert done.stdout.endswith("quick: passed\n")


def test_a_scenario_that_is_stopped_is_not_complete(folder: Path) -> None:
    command = [sys.executable, "-m", "bench.cli", "scenario", "run", "limit.yaml", "-c", "site.json"]
    with (folder / "out").open("w") as out, subprocess.Popen(command, cwd=folder, stdout=out) as running:
        wait_for(lambda: "Serving" in (folder / "out").read_text())
        running.send_signal(signal.SIGINT)
        assert running.wait(20) == 3
    assert (folder / "out").read_text().endswith("limit: not complete\n")


def test_check_says_what_is_good_and_what_is_not(folder: Path) -> None:
    assert dertwin(folder, "check", "quick.yaml").stdout == "quick.yaml: good: 1 steps\n"
    (folder / "bad.yaml").write_text("scenario: bad\nsteps: [{do: {write: {bess-1.powr: 1}}}]\n")
    bad = dertwin(folder, "check", "bad.yaml")
    assert bad.returncode == 78
    assert bad.stderr.startswith('bad.yaml: steps[0].do: write: "bess-1.powr" is not allowed; ')


@pytest.mark.parametrize("ems", ["ems.py", "none.py:ems", "ems.py:nothing", "ems.py:NUMBER", "wrong.py:ems"])
def test_an_ems_that_is_not_there_is_refused(folder: Path, ems: str) -> None:
    (folder / "ems.py").write_text("NUMBER = 5")
    (folder / "wrong.py").write_text("ems = unknown")
    done = dertwin(folder, "run", "limit.yaml", "--ems", ems)
    assert done.returncode == 78
    assert "Traceback" not in done.stderr
