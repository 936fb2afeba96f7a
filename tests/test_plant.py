"""A site in simulated time, and an EMS in Python against it."""

import math
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml

from bench.check import CheckedSite, check_site
from bench.plant import Ems, NoReply, Plant, Refused, run_ems
from bench.scenario_view import summary
from dertwin.config_errors import ConfigErrors
from dertwin.scenario.actions import action_of
from dertwin.scenario.document import LoadedScenario, load_scenario
from dertwin.site import build_site

SITE: dict[str, Any] = {
    "step": 0.5,
    "assets": [
        {"type": "bess", "port": 55001},
        {"type": "chp", "port": 55002},
        {"type": "energy_meter", "asset_id": "meter"},
    ],
}


@pytest.fixture(scope="module")
def checked() -> CheckedSite:
    return check_site(SITE)


def scenario(folder: Path, checked: CheckedSite, **content: Any) -> LoadedScenario:
    path = folder / "scenario.yaml"
    path.write_text(yaml.safe_dump({"scenario": "test", **content}))
    return load_scenario(path, build_site(checked.config).devices)


def test_registers_are_read_and_written_by_name_in_the_unit_of_the_map(checked: CheckedSite) -> None:
    plant = Plant(checked)
    assert plant.read("bess-1", "soc") == 50.0
    plant.write("bess-1", "start_stop_standby", 1)
    plant.write("bess-1", "active_power_setpoint", -7_000)
    plant.bench.tick()
    assert plant.read("bess-1", "active_power") == -7_000.0
    assert plant.read("bess-1", "active_power_setpoint") == -7_000.0


def test_a_refused_write_raises_its_exception_code(checked: CheckedSite) -> None:
    with pytest.raises(Refused) as refused:
        Plant(checked).write("bess-1", "start_stop_standby", 9)
    assert refused.value.code == 3


def test_names_that_are_not_there_are_told_with_the_closest(checked: CheckedSite) -> None:
    plant = Plant(checked)
    with pytest.raises(ValueError, match=r'"bess-1\.sock" cannot be read; the closest is soc'):
        plant.read("bess-1", "sock")
    with pytest.raises(ValueError, match=r'"bess-1\.soc" cannot be written'):
        plant.write("bess-1", "soc", 1)
    with pytest.raises(ValueError, match='"meter" has no registers here'):
        plant.read("meter", "active_power")


def test_an_ems_sleeps_in_simulated_time_and_is_judged(tmp_path: Path, checked: CheckedSite) -> None:
    turns: list[float] = []

    def ems(plant: Plant) -> Iterator[float]:
        plant.write("bess-1", "start_stop_standby", 1)
        while True:
            turns.append(plant.now_s)
            plant.write("bess-1", "active_power_setpoint", 4_000)
            yield 2.0

    result = run_ems(
        checked,
        scenario(
            tmp_path,
            checked,
            steps=[{"expect": {"that": "bess-1.active_power_w == 4000", "within": 1, "for": 7}}],
            record=["bess-1.writes"],
        ),
        ems,
    )
    assert result.passed
    assert turns == [0.0, 2.0, 4.0, 6.0]
    assert result.cases[0].record.signal("bess-1.writes").values[-1] == 5
    assert len(result.cases[0].record.exchanges) == 5
    assert math.isfinite(result.cases[0].record.exchanges[0].replied_s)


def test_an_ems_that_ends_leaves_the_site_to_itself(tmp_path: Path, checked: CheckedSite) -> None:
    def ems(plant: Plant) -> Iterator[float]:
        plant.write("bess-1", "start_stop_standby", 1)
        yield 1.0

    never = {"never": "bess-1.active_power_w > 0", "for": 5}
    assert run_ems(checked, scenario(tmp_path, checked, steps=[{"expect": never}]), ems).passed


def boom(plant: Plant) -> Iterator[float]:
    yield 1.0
    plant.read("bess-1", "sock")


def asks_for_ever(plant: Plant) -> Iterator[float]:
    while plant.read("bess-1", "soc") < 99:
        pass
    yield 1.0


def sleeps_no_time(plant: Plant) -> Iterator[float]:
    yield math.nan


def no_generator(plant: Plant) -> Any:
    plant.read("bess-1", "soc")


@pytest.mark.parametrize(
    ("ems", "told"),
    [
        (boom, 'in line [0-9]+ of test_plant.py: ValueError: "bess-1.sock" cannot be read'),
        (asks_for_ever, "RuntimeError: 20000 requests at once; let time pass between them"),
        (sleeps_no_time, "TypeError: it has yielded nan; use the s that it sleeps"),
        (no_generator, "TypeError: 'NoneType' object is not iterable"),
    ],
)
def test_an_ems_that_fails_ends_the_scenario_and_is_told_where(
    tmp_path: Path, checked: CheckedSite, ems: Ems, told: str
) -> None:
    never = {"never": "bess-1.active_power_w > 0", "for": 5}
    result = run_ems(checked, scenario(tmp_path, checked, steps=[{"expect": never}]), ems)
    assert not result.complete
    shown: list[str] = []
    summary(result, shown.append)
    (note,) = [line for line in shown if line.startswith("  note    the EMS has failed")]
    assert re.search(told, note), note


def test_no_reply_costs_the_ems_its_time_out(checked: CheckedSite) -> None:
    plant = Plant(checked)
    with pytest.raises(NoReply):
        plant.request("bess-1", bytes((200,)))  # no function code gets no reply
    assert plant.now_s == 1.0


def in_scenario(folder: Path, checked: CheckedSite, action: dict[str, Any], at_s: float) -> list[str]:
    """Return what an EMS that asks once a second meets while an action acts from at_s on for 3 s."""
    met: list[str] = []

    def ems(plant: Plant) -> Iterator[float]:
        while True:
            try:
                plant.write("bess-1", "start_stop_standby", 1)
                met.append(f"{plant.read('bess-1', 'working_status'):g}")
            except NoReply:
                met.append("no reply")
            except Refused as refused:
                met.append(f"exception {refused.code}")
            yield 1.0

    run_ems(checked, scenario(folder, checked, steps=[{"at": at_s, "do": action}], duration=8), ems)
    return met


def test_a_rebooting_device_is_silent_and_then_has_to_be_started_again(
    tmp_path: Path, checked: CheckedSite
) -> None:
    reboot = {"device_fault": "reboot", "device": "bess-1", "duration": 3}
    met = in_scenario(tmp_path, checked, reboot, 2.0)
    # Each time-out takes a second, so of the three seconds two attempts are left.
    assert met == ["0", "1", "no reply", "no reply", "0", "1"]


def test_a_device_that_refuses_commands_answers_writes_with_its_code(
    tmp_path: Path, checked: CheckedSite
) -> None:
    refuse = {"device_fault": "refused_commands", "device": "bess-1", "code": 6, "duration": 3}
    met = in_scenario(tmp_path, checked, refuse, 2.0)
    assert met == ["0", "1", "exception 6", "exception 6", "exception 6", "1", "1", "1"]


@pytest.mark.parametrize(
    ("fault", "met"),
    [
        ({"wire_fault": "no_reply", "device": "bess-1"}, "no reply"),
        ({"wire_fault": "exception", "unit_id": 1, "functions": ["write_multiple_registers"]}, "exception 6"),
        ({"wire_fault": "wrong_transaction_id", "device": "bess-1"}, "no reply"),
        ({"wire_fault": "late_reply", "delay_s": 2, "device": "bess-1"}, "no reply"),
        ({"link_fault": "refuse", "device": "bess-1"}, "no reply"),
        ({"link_fault": "hang", "link": "tcp 0.0.0.0:55001"}, "no reply"),
    ],
)
def test_faults_of_wires_and_links_reach_an_ems_without_wires(
    tmp_path: Path, checked: CheckedSite, fault: dict[str, Any], met: str
) -> None:
    told = in_scenario(tmp_path, checked, {**fault, "duration": 3}, 2.0)
    assert told[2] == met
    assert told[-1] == "1"


def test_a_late_reply_takes_its_time(checked: CheckedSite) -> None:
    plant = Plant(checked)
    plant.bench.faults.start(action_of({"wire_fault": "late_reply", "delay_s": 0.25, "duration": 9}))
    plant.read("bess-1", "soc")
    assert plant.now_s == 0.25


def test_a_wire_fault_that_the_site_cannot_have_is_refused_before_it_starts(
    tmp_path: Path, checked: CheckedSite
) -> None:
    steps = [
        {"do": {"link_fault": "unplugged", "duration": 1}},
        {"do": {"wire_fault": "echo", "link": "tcp x", "count": 1}},
    ]
    loaded = scenario(tmp_path, checked, steps=steps)
    with pytest.raises(ConfigErrors) as refused:
        run_ems(checked, loaded, lambda _: iter(()))
    assert [error.place for error in refused.value.errors] == ["steps[0].do", "steps[1].do"]
