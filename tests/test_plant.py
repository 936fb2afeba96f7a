"""A site in simulated time, and an EMS in Python against it."""

import math
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml

from bench.check import CheckedSite, check_site
from bench.plant import NoReply, Plant, Refused, run_ems
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


def test_no_reply_costs_the_ems_its_time_out(checked: CheckedSite) -> None:
    plant = Plant(checked)
    with pytest.raises(NoReply):
        plant.request("bess-1", bytes((200,)))  # no function code gets no reply
    assert plant.now_s == 1.0
