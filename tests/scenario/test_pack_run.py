"""Verdict packs on a site in simulated time, with an EMS in Python: the plans fit, and the verdicts tell."""

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, get_args

import pytest
import yaml
from support.packs import RATED_W, SITE, WITH

from bench.check import CheckedSite, check_site
from bench.plant import Ems, NoReply, Plant, Refused, run_ems
from dertwin.scenario.actions import Action, action_of
from dertwin.scenario.check import action_problems
from dertwin.scenario.document import load_scenario
from dertwin.scenario.packs import PACKS
from dertwin.scenario.record import Requirement
from dertwin.scenario.signals import Memory, reader
from dertwin.site import build_site

WIRE_FAULTS = "wire_fault" in {kind.__metadata__[-1].tag for kind in get_args(get_args(Action)[0])}
wire_faults = pytest.mark.skipif(not WIRE_FAULTS, reason="scenarios have no wire faults yet")

Power = Callable[[Plant], float]


@pytest.fixture(scope="module")
def checked() -> CheckedSite:
    return check_site(SITE)


def ems(power: Power, every_s: float) -> Ems:
    """Return an EMS that writes what `power` (W) says, every so often."""

    def run(plant: Plant) -> Iterator[float]:
        plant.write("bess-1", "start_stop_standby", 1)
        while True:
            plant.write("bess-1", "active_power_setpoint", round(power(plant)))
            yield every_s

    return run


def verdict(
    folder: Path, checked: CheckedSite, pack: str, power: Power, every_s: float = 0.1
) -> dict[str, Requirement]:
    return verdict_on(folder, checked, pack, ems(power, every_s))


def verdict_on(
    folder: Path, checked: CheckedSite, pack: str, run: Ems, **more: Any
) -> dict[str, Requirement]:
    path = folder / "scenario.yaml"
    steps = [{"do": {"verdict": pack, "with": WITH[pack] | more}}]
    path.write_text(yaml.safe_dump({"scenario": "test", "steps": steps}))
    loaded = load_scenario(path, build_site(checked.config).devices)
    (case,) = run_ems(checked, loaded, run).cases
    (found,) = case.verdicts
    assert found.title == PACKS[pack].title
    return {requirement.name: requirement for requirement in found.requirements}


def unmet(requirements: dict[str, Requirement]) -> list[str]:
    return [name for name, requirement in requirements.items() if not requirement.met]


def droop(none_hz: float, full_hz: float) -> Power:
    """The power (W) of an ideal droop for the frequency that the meter shows, at most RATED_W."""

    def power(plant: Plant) -> float:
        share = (plant.read("energy_meter-1", "frequency") - none_hz) / (full_hz - none_hz)
        return RATED_W * min(1.0, max(0.0, share))

    return power


@pytest.mark.parametrize("pack", list(PACKS))
def test_the_plan_of_each_pack_can_be_carried_out(pack: str, checked: CheckedSite) -> None:
    devices = build_site(checked.config).devices
    plan = PACKS[pack].plan(PACKS[pack].params.model_validate(WITH[pack]))
    if not WIRE_FAULTS and any("wire_fault" in action for _, action in plan.actions):
        pytest.skip("scenarios have no wire faults yet")
    for at_s, document in plan.actions:
        assert 0.0 <= at_s < plan.duration_s
        assert list(action_problems(action_of(document), devices)) == []
    for signal in plan.signals:
        reader(signal, devices, Memory())


def test_fcr_d_passes_with_a_fast_ems_and_fails_with_a_slow_one(tmp_path: Path, checked: CheckedSite) -> None:
    fast = verdict(tmp_path, checked, "fcr_d", droop(49.9, 49.5), every_s=0.5)
    assert unmet(fast) == []
    assert fast["frequency as planned"].measured == pytest.approx(0.0, abs=1e-9)
    slow = verdict(tmp_path, checked, "fcr_d", droop(49.9, 49.5), every_s=5.0)
    assert "requirement 4: deactivation" in unmet(slow)
    assert "frequency as planned" not in unmet(slow)


def test_lfsm_passes_with_a_droop(tmp_path: Path, checked: CheckedSite) -> None:
    def over(plant: Plant) -> float:
        return -max(0.0, plant.read("energy_meter-1", "frequency") - 50.2) / 50.0 / 0.05 * RATED_W

    assert unmet(verdict(tmp_path, checked, "lfsm", over, every_s=1.0)) == []


def test_ffr_passes_when_its_support_ends_slowly(tmp_path: Path, checked: CheckedSite) -> None:
    def support(until_s: float, rate_per_s: float) -> Power:
        began_s = [-1e6]

        def power(plant: Plant) -> float:
            if plant.read("energy_meter-1", "frequency") <= 49.7 and plant.now_s - began_s[0] > 60:
                began_s[0] = plant.now_s
            since_s = plant.now_s - began_s[0]
            return RATED_W * min(1.0, max(0.0, 1.0 - (since_s - until_s) * rate_per_s))

        return power

    assert unmet(verdict(tmp_path, checked, "ffr", support(6.0, 0.18), every_s=0.2)) == []


def test_a_limit_is_kept_by_an_ems_that_hears_of_it(tmp_path: Path, checked: CheckedSite) -> None:
    def keeps(plant: Plant) -> float:
        limited = plant.read("energy_meter-1", "heartbeat_echo") == 1
        return 11e3 - 4e3 if limited else 0.0

    assert unmet(verdict(tmp_path, checked, "power_limit", keeps)) == []
    assert unmet(verdict(tmp_path, checked, "power_limit", lambda _: 0.0)) == ["limit reached", "limit held"]


def test_the_latency_is_that_of_the_turns_of_the_ems(tmp_path: Path, checked: CheckedSite) -> None:
    def follow(plant: Plant) -> float:
        bess_w = plant.read("bess-1", "active_power")
        return plant.read("energy_meter-1", "active_power") + bess_w

    requirements = verdict(tmp_path, checked, "latency", follow, every_s=0.3)
    assert unmet(requirements) == []
    # It writes in the turn in which it reads; the battery takes the next step for it.
    assert requirements["served to write: longest"].measured == pytest.approx(0.0, abs=1e-9)
    assert requirements["served to power: longest"].measured == pytest.approx(0.1, abs=0.1)


def test_polite_and_impolite_ems_are_told_apart(tmp_path: Path, checked: CheckedSite) -> None:
    def steady(plant: Plant) -> float:
        return plant.read("energy_meter-1", "active_power") * 0.0

    assert unmet(verdict(tmp_path, checked, "manners", steady, every_s=1.0)) == []
    hasty = verdict(tmp_path, checked, "manners", steady, every_s=0.05)
    assert {"bess-1: request rate", "bess-1: writes within 1 s"} & set(unmet(hasty))


def stubborn(gives_up: bool) -> Ems:
    """Return an EMS that discharges with 10 kW and goes on after a lost reply, or stays away from then on."""

    def run(plant: Plant) -> Iterator[float]:
        while True:
            try:
                plant.read("energy_meter-1", "active_power")
                plant.write("bess-1", "start_stop_standby", 1)
                plant.write("bess-1", "active_power_setpoint", 10_000)
            except NoReply:
                if gives_up:
                    return
            except Refused:
                pass
            yield 1.0

    return run


@wire_faults
def test_a_cut_off_battery_is_safe_with_a_watchdog_and_not_without(
    tmp_path: Path, checked: CheckedSite
) -> None:
    bess, meter = SITE["assets"]
    guarded = check_site(SITE | {"assets": [bess | {"watchdog": {"timeout_s": 15.0}}, meter]})
    safe = verdict_on(tmp_path, guarded, "comm_loss", stubborn(gives_up=False))
    assert unmet(safe) == []
    name = "1. bess-1 loses requests: bess-1.active_power_w is safe"
    # The last request was up to a second before the cut.
    assert safe[name].measured == pytest.approx(15.0, abs=1.2)
    assert unmet(verdict_on(tmp_path, checked, "comm_loss", stubborn(gives_up=False))) == [name]
    assert unmet(verdict_on(tmp_path, guarded, "comm_loss", stubborn(gives_up=True))) == [
        "1. bess-1 loses requests: talks again", "1. bess-1 loses requests: commands again",
    ]  # fmt: skip


@wire_faults
def test_an_ems_that_takes_busy_and_silence_well_passes(tmp_path: Path, checked: CheckedSite) -> None:
    both = {"busy_device": "bess-1", "silent_device": "energy_meter-1"}
    assert unmet(verdict_on(tmp_path, checked, "manners", stubborn(gives_up=False), **both)) == []
