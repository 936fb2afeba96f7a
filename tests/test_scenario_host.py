"""Scenarios on a running service: started, stopped, and seen by Prometheus."""

import asyncio
import contextlib
import math
from collections.abc import Callable
from typing import Any

import pytest
import yaml

from bench.app import Bench
from bench.check import check_site
from bench.exposition import exposition
from bench.metrics import registry
from bench.scenario_host import ScenarioHost
from bench.scenario_metrics import ScenarioCollector
from dertwin.config_errors import ConfigErrors

SITE = {
    "step": 1.0,
    "real_time": False,
    "site_name": "yard",
    "assets": [{"type": "bess"}, {"type": "inverter"}],
}
SCENARIO = {
    "scenario": "start",
    "steps": [
        {
            "name": "go",
            "do": {"write": {"bess-1.start_stop_standby": 1, "bess-1.active_power_setpoint_w": 3000}},
            "expect": {"that": "bess-1.active_power_w == 3000", "within": 3, "for": 5},
        }
    ],
}


LOAD = {"environment": "load_w", "step": 700, "duration": 1}


def make(**more: Any) -> tuple[Bench, ScenarioHost]:
    bench = Bench(check_site(SITE))
    return bench, ScenarioHost(bench, now=lambda: 1000.0 + bench.site.time_s, **more)


def begin(host: ScenarioHost, name: str, given: dict[str, str]) -> dict[str, Any]:
    return asyncio.run(host.start(name, given))


def files(**changed: Any) -> dict[str, str]:
    return {"s.yaml": yaml.safe_dump({**SCENARIO, **changed})}


def metrics(bench: Bench, host: ScenarioHost) -> list[str]:
    known = registry(bench)
    known.register(ScenarioCollector(host, bench))
    text = asyncio.run(exposition(known)).decode()
    return [line for line in text.splitlines() if line.startswith("dertwin_scenario_")]


def test_a_scenario_runs_with_the_steps_of_the_site_and_tells_how_it_stands() -> None:
    bench, host = make()
    assert host.status() == {"scenario": None, "running": False}
    assert begin(host, "s.yaml", files())["running"]
    bench.tick()
    status = host.status()
    assert status["cases"][0]["expectations"][0]["outcome"] == "pending"
    assert (status["running"], status["passed"]) == (True, None)
    for _ in range(10):
        bench.tick()
    status = host.status()
    assert (status["running"], status["complete"], status["passed"]) == (False, True, True)
    assert [event["kind"] for event in status["events"]] == ["step", "action", "passed"]
    assert bench.scenario is None


def test_one_scenario_runs_at_a_time() -> None:
    bench, host = make()
    begin(host, "s.yaml", files())
    with pytest.raises(ConfigErrors, match="the scenario 'start' is running; stop it first, or wait"):
        begin(host, "s.yaml", files())
    assert host.stop()["complete"] is False
    begin(host, "s.yaml", files())
    bench.tick()


def test_a_reload_stops_the_scenario_as_the_site_is_another_then() -> None:
    async def reload() -> None:
        bench, host = make()
        async with bench:
            await host.start("s.yaml", files())
            await bench.reload(check_site({**SITE, "site_name": "other"}))
        assert not host.running
        assert host.status()["complete"] is False

    asyncio.run(reload())


def test_faults_of_a_scenario_are_told_by_the_name_that_the_sender_gave() -> None:
    _, host = make()
    with pytest.raises(ConfigErrors) as refused:
        begin(host, "s.yaml", files(steps=[{"do": {"write": {"bess-9.power": 1}}}]))
    assert [error.file for error in refused.value.errors] == ["s.yaml"]


def test_files_beside_the_scenario_are_found_and_stay_in_their_folder() -> None:
    bench, host = make()
    steps = [
        {
            "do": {"environment": "load_w", "csv": "data/load.csv"},
            "expect": {"that": "site.load_w == 700", "within": 2},
        }
    ]
    begin(host, "s.yaml", {**files(steps=steps), "data/load.csv": "0,700\n9,700\n"})
    for _ in range(12):
        bench.tick()
    assert host.status()["passed"]
    with pytest.raises(ConfigErrors, match="/evil is in another folder; put it beside the scenario"):
        begin(host, "s.yaml", {**files(), "../evil": "x"})


def test_a_file_that_did_not_come_along_is_told_by_its_own_name() -> None:
    _, host = make()
    step = {"do": {"environment": "load_w", "csv": "load.csv"}}
    with pytest.raises(ConfigErrors) as refused:
        begin(host, "s.yaml", files(steps=[step]))
    assert str(refused.value) == "s.yaml: steps[0].do: load.csv: cannot be read: No such file or directory"


def test_all_that_happened_is_counted_though_only_the_last_is_kept() -> None:
    bench, host = make()
    begin(host, "s.yaml", files(steps=[{"name": f"step {n}", "at": 0, "do": LOAD} for n in range(40)]))
    bench.tick()
    assert host.status()["told"] == 80
    assert len(host.status()["events"]) == 50


def test_prometheus_sees_expectations_verdict_and_events() -> None:
    bench, host = make()
    assert metrics(bench, host) == ['dertwin_scenario_running{site="yard"} 0']
    begin(host, "s.yaml", files())
    bench.tick()
    assert 'dertwin_scenario_expectations{site="yard",scenario="start",outcome="pending"} 1' in metrics(
        bench, host
    )
    for _ in range(10):
        bench.tick()
    seen = metrics(bench, host)
    assert 'dertwin_scenario_passed{site="yard",scenario="start"} 1' in seen
    assert any(
        line.startswith("dertwin_scenario_event_timestamp_seconds")
        and 'kind="step",text="go"} 1000.0' in line
        for line in seen
    )


def test_a_scenario_that_cannot_go_on_does_not_stop_the_site(monkeypatch: pytest.MonkeyPatch) -> None:
    bench, host = make()
    begin(host, "s.yaml", files())
    assert host.current is not None

    def fail(*_: object) -> Callable[[], None]:
        raise RuntimeError("no more")

    with contextlib.suppress(RuntimeError):
        monkeypatch.setattr(host.current.run, "step", fail)
    bench.tick()
    bench.tick()
    assert math.isclose(bench.site.time_s, 2.0)
    assert not host.running
    assert "the scenario cannot go on: no more" in [event.happened.text for event in host.events]


def test_a_device_that_is_removed_takes_what_was_to_be_written_to_it_along() -> None:
    bench, host = make()
    begin(host, "s.yaml", files())
    bench.remove_asset("bess-1")
    bench.tick()
    assert bench.site.time_s == 1.0
