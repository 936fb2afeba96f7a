"""Each verdict pack passes its EMS in examples/verdicts, and tells what is wrong with the others there."""

import csv
import importlib.util
import inspect
import json
import re
import subprocess
import sys
from functools import cache
from pathlib import Path

import pytest

from bench.check import CheckedSite, check_site
from bench.cli import _parser
from bench.plant import Ems, run_ems
from dertwin.scenario.document import load_scenario
from dertwin.scenario.packs import PACKS
from dertwin.scenario.record import Requirement
from dertwin.site import build_site

ROOT = Path(__file__).parents[2]
PAGE = (ROOT / "docs/verdicts.md").read_text()

STEPS = ("step 1", "step 2", "step 3")
SIZES = {f"{step}: size" for step in STEPS}
SETTLING = {f"{step}: settling time" for step in STEPS}
FCR_D = {
    "requirement 1: steady state",
    "requirement 2: power at 7.5 s",
    "requirement 3: energy in 7.5 s",
    "requirement 12: stays activated",
    "capacity",
}
UPWARDS = {"requirement 1 upwards: steady state", "requirement 12 upwards: stays activated"}
DOWNWARDS = {"requirement 1 downwards: steady state", "requirement 12 downwards: stays activated"}
BATTERY, METER = "1. bess-1 loses requests", "2. energy_meter-1 loses replies"
WRONG: dict[str, dict[str, set[str]]] = {
    "fcr_d": {
        "too_slow": {"requirement 3: energy in 7.5 s", "requirement 4: deactivation", "capacity"},
        "wrong_sign": FCR_D,
        "half_capacity": FCR_D,
    },
    "fcr_n": {
        "dead_band": UPWARDS | DOWNWARDS | {"capacity"},
        "asymmetric": DOWNWARDS | {"capacity"},
    },
    "ffr": {
        "late": {"full activation", "full activation after 15 min"},
        "short_support": {"support duration"},
        "abrupt_end": {"deactivation"},
        "not_ready_again": {"full activation after 15 min"},
    },
    "lfsm": {
        "no_response": SIZES | SETTLING | {"droop", "threshold", "change of power"},
        "wrong_droop": SIZES | SETTLING | {"droop"},
        "wrong_threshold": SIZES | SETTLING | {"threshold"},
        "too_slow": SETTLING | {"back at 50 Hz"},
    },
    "comm_loss": {
        "keeps_the_last_setpoint": {f"{METER}: bess-1.active_power_w is safe"},
        "gives_up": {f"{BATTERY}: talks again", f"{BATTERY}: commands again", f"{METER}: talks again"},
        "comes_back_late": {f"{BATTERY}: talks again", f"{BATTERY}: commands again", f"{METER}: talks again"},
    },
    "power_limit": {
        "too_late": {"limit reached", "limit held"},
        "not_held": {"limit reached", "limit held"},
        "not_released": {"limit released"},
    },
    "manners": {
        "too_fast": {"bess-1: request rate", "energy_meter-1: request rate"},
        "illegal_address": {"illegal addresses"},
        "no_pause_when_busy": {"bess-1 is busy: not at once"},
        "starves_the_others": {"energy_meter-1 is silent: bess-1 waits"},
    },
    "latency": {
        "averages": {"served to write: 95 %", "served to power: 95 %"},
        "ramps_slowly": {"served to power: 95 %"},
        "dead_band": {"changes written", "changes delivered"},
    },
}
SERVICES = {"fcr_d": "FcrdUp", "fcr_n": "Fcrn"}
BY_NAME = [(pack, name) for pack, wrong in WRONG.items() for name in wrong]


def section(pack: str) -> str:
    return PAGE.split(f"\n## {pack}\n", 1)[1].split("\n## ", 1)[0]


def command(pack: str) -> list[str]:
    """Return the command line of the page that runs the EMS of a pack."""
    (line,) = re.findall(r"^dertwin (scenario run .*)$", section(pack), re.MULTILINE)
    assert line.endswith(f" --ems examples/verdicts/{pack}.py:ems")
    return line.split()


@cache
def all_ems(pack: str) -> dict[str, Ems]:
    spec = importlib.util.spec_from_file_location(pack, ROOT / f"examples/verdicts/{pack}.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return {name: each for name, each in vars(module).items() if inspect.isgeneratorfunction(each)}


@cache
def site(pack: str) -> CheckedSite:
    return check_site(ROOT / _parser().parse_args(command(pack)).config)


def requirements(pack: str, ems: Ems, checked: CheckedSite) -> dict[str, Requirement]:
    file = ROOT / _parser().parse_args(command(pack)).file
    (case,) = run_ems(checked, load_scenario(file, build_site(checked.config).devices), ems).cases
    (verdict,) = case.verdicts
    assert verdict.pack == pack
    return {requirement.name: requirement for requirement in verdict.requirements}


@cache
def wrong(pack: str, name: str) -> dict[str, Requirement]:
    return requirements(pack, all_ems(pack)[name], site(pack))


def unmet(found: dict[str, Requirement]) -> set[str]:
    return {name for name, requirement in found.items() if not requirement.met}


@pytest.mark.parametrize("pack", list(PACKS))
def test_the_command_of_each_pack_runs_its_ems_and_passes(pack: str, tmp_path: Path) -> None:
    words = [sys.executable, "-m", "bench.cli", *command(pack)]
    if pack in SERVICES:
        words += ["--report", str(tmp_path)]
    done = subprocess.run(words, cwd=ROOT, capture_output=True, text=True, timeout=100)
    assert (done.returncode, done.stderr) == (0, "")
    assert PACKS[pack].title in done.stdout
    assert re.search(": passed$", done.stdout, re.MULTILINE)
    if pack in SERVICES:
        (file,) = tmp_path.glob(f"case-1/BESS1_{SERVICES[pack]}_*_SE3_UTC_*_100ms.csv")
        rows = list(csv.DictReader(file.open()))
        assert len(rows) == {"fcr_d": 10501, "fcr_n": 12601}[pack]
        assert max(float(row["InsAcPow"]) for row in rows) == float(rows[0][f"Cap_{SERVICES[pack]}"])
        assert {row["SOC"] for row in rows[:10]} == {"50.000"}


@pytest.mark.parametrize(("pack", "name"), BY_NAME)
def test_what_is_wrong_with_an_ems_is_what_it_fails_for(pack: str, name: str) -> None:
    assert unmet(wrong(pack, name)) == WRONG[pack][name]


@pytest.mark.parametrize("pack", list(PACKS))
def test_each_pack_has_wrong_ems_and_the_page_names_them(pack: str) -> None:
    assert len(WRONG[pack]) >= 2
    assert set(all_ems(pack)) == {"ems", *WRONG[pack]}
    (named,) = re.findall(r"^- Wrong in one way each: (.*?)\n\n", section(pack), re.MULTILINE | re.DOTALL)
    assert re.findall(r"`(\w+)`", named) == list(WRONG[pack])


def test_a_battery_without_a_watchdog_outlives_its_ems() -> None:
    config = json.loads((ROOT / _parser().parse_args(command("comm_loss")).config).read_text())
    del config["assets"][0]["watchdog"]
    found = requirements("comm_loss", all_ems("comm_loss")["ems"], check_site(config))
    assert unmet(found) == {f"{BATTERY}: bess-1.active_power_w is safe"}


def test_a_limit_that_comes_late_and_one_that_ends_early_are_told_apart() -> None:
    late, short = wrong("power_limit", "too_late")["limit reached"], wrong("power_limit", "not_held")
    assert late.measured == pytest.approx(90.0, abs=2.0)
    assert "when the limit ended" in short["limit reached"].detail


def test_the_latency_of_an_average_is_a_good_part_of_what_it_is_over() -> None:
    found = wrong("latency", "averages")
    assert found["served to write: median"].measured == pytest.approx(5.1 * 5 / 20, abs=0.3)
    assert found["served to power: median"].measured == pytest.approx(5.1 * 0.9, abs=0.3)
