"""Incident bundles: what is in them, and that what they tell happens again."""

import json
import math
import os
import shutil
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from support.sites import MAP, rtu

from bench import incident, ticks
from bench.app import Bench
from bench.check import check_site
from bench.incident import gather, write
from bench.recorder import RECEIVED, SENT, Recorder
from bench.replay import replay, tables
from bench.scenarios import BenchScenario
from bench.verdict import verdict
from dertwin.config import load_site
from dertwin.config_errors import ConfigErrors
from dertwin.modbus import mbap
from dertwin.scenario.document import load_scenario

ROOT = Path(__file__).parent.parent
PLANT: dict[str, Any] = {
    "site_name": "plant",
    "real_time": False,
    "start_time_h": 9.5,
    "external_models": {
        "irradiance": {"csv": "../elsewhere/sun.csv"},
        "grid_frequency": {"noise_std": 0.01, "drift_std": 0.02, "seed": 7},
        "grid_voltage": {"noise_std": 0.5},
    },
    "load": {"csv": "load.csv", "repeat": True, "base_w": 100.0},
    "events": [{"kind": "voltage_sag", "start_time": 5.0, "duration": 3.0, "delta_v": -0.2}],
    "assets": [
        {"type": "bess", "protocols": [{"kind": "modbus_tcp", "port": 55001, "register_map": "own.yaml"}]},
        {"type": "inverter", "protocols": [rtu("/dev/ttyUSB0")]},
        {"type": "chp", "watchdog": {"timeout_s": 4.0}},
        {"type": "energy_meter"},
    ],
}
SCENARIO = """
scenario: a battery that goes away
seed: 3
duration: 6
steps:
  - at: 1
    do: {environment: frequency_hz, csv: dip.csv, duration: 3}
  - at: 2
    do:
      - {device_fault: noisy, device: bess-1, measurement: soc, std: 0.01, duration: 2}
      - {write: {bess-1.active_power_setpoint_w: 5000}}
    expect: {that: "bess-1.active_power_w > 1000", within: 3}
  - at: 3
    expect: {that: "bess-1.requests >= 12", within: 2}
"""


class Clock:
    """A clock that goes on with the steps."""

    def __init__(self) -> None:
        self.time_s = 5000.0

    def __call__(self) -> float:
        return self.time_s


class Made:
    """A bench that records, stepped by hand, with an EMS that writes and reads."""

    def __init__(self, folder: Path, **changes: Any) -> None:
        self.folder = folder / "site"
        self.folder.mkdir()
        (folder / "elsewhere").mkdir()
        (folder / "elsewhere/sun.csv").write_text("time,value\n0,0\n40000,900.1\n86400,0\n")
        (self.folder / "load.csv").write_text("0,1000\n7,3000.123456789\n")
        (self.folder / "own.yaml").write_text(MAP)
        path = self.folder / "site.json"
        path.write_text(json.dumps(PLANT | changes))
        self.clock = Clock()
        self.recorder = Recorder(now=self.clock)
        self.bench = Bench(check_site(path), self.recorder)
        self.snapshots = []
        self._tap = self.recorder.begin("tcp 0.0.0.0:55001", ("192.0.2.7", 4000), ("192.0.2.1", 55001))

    def run(self, steps: int, dt_s: float = 0.1) -> None:
        (link,) = (link for link in self.bench.links.values() if link.name.endswith(":55001"))
        write, read = b"\x06\x00\xc7", b"\x03\x00\xc7\x00\x01"
        for number in range(steps):
            for pdu in (write + number.to_bytes(2, "big"), read) if number % 3 == 0 else ():
                self._tap(RECEIVED, self.clock.time_s, mbap.frame(number, 1, pdu))
                self._tap(SENT, self.clock.time_s, mbap.frame(number, 1, link.units[1].respond(pdu)))
            self.clock.time_s += dt_s
            self.snapshots.append(self.bench.tick(dt_s))

    def bundle(self, name: str = "incident.zip", **more: Any) -> Path:
        file = self.folder / name
        write(gather(self.bench, "asked for", **more), file)
        return file


@pytest.fixture
def made(tmp_path: Path) -> Made:
    return Made(tmp_path)


def contents(bundle: Path) -> dict[str, bytes]:
    with zipfile.ZipFile(bundle) as archive:
        return {name: archive.read(name) for name in archive.namelist()}


def changed(bundle: Path, name: str, change: Callable[[str], str]) -> Path:
    """Return a copy of a bundle in which one file is another one."""
    other = bundle.with_name("changed.zip")
    with zipfile.ZipFile(other, "w") as archive:
        for each, data in contents(bundle).items():
            archive.writestr(each, change(data.decode()) if each == name else data)
    return other


def test_a_bundle_has_all_that_is_known_of_a_site(made: Made) -> None:
    made.run(30)
    found = contents(made.bundle(metrics=b"dertwin_up 1\n"))
    assert set(found) == {
        "incident.json",
        "site.json",
        "register_maps/own.yaml",
        "register_maps/pv_inverter_modbus.yaml",
        "series/irradiance.csv",
        "series/load.csv",
        "ticks.jsonl",
        "frames.pcapng",
        "exchanges.jsonl",
        "metrics.txt",
    }
    about = json.loads(found["incident.json"])
    assert (about["format"], about["reason"], about["site"]) == (incident.FORMAT, "asked for", "plant")
    assert {"dertwin", "python", "pydantic"} <= set(about["versions"])
    assert "mbtcp.tcp.port:55001" in about["decode"]
    assert found["metrics.txt"] == b"dertwin_up 1\n"
    exchange = json.loads(found["exchanges.jsonl"].splitlines()[1])
    assert (exchange["device"], exchange["request"], exchange["reply"]) == (
        "bess-1",
        "0300c70001",
        "03020000",
    )
    assert found["frames.pcapng"][:4] == b"\x0a\x0d\x0d\x0a"
    assert len(found["ticks.jsonl"].splitlines()) == 32


def test_every_step_comes_out_the_same_bit_by_bit(made: Made) -> None:
    made.run(40)
    made.run(20, dt_s=1.7)
    replayed_steps = []
    replayed = replay(made.bundle(), lambda snapshot, _: replayed_steps.append(snapshot))
    assert replayed.same
    assert (replayed.steps, replayed.start_s) == (60, 0.0)
    assert replayed_steps == made.snapshots


def test_what_is_left_of_a_long_run_comes_out_the_same_from_the_middle_on(
    made: Made, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(ticks, "BLOCK_STEPS", 50)
    made.recorder.ticks.max_age_s = 20.0
    made.run(1000)
    replayed = replay(made.bundle())
    assert replayed.same
    assert 200 <= replayed.steps <= 300
    assert replayed.end_s == pytest.approx(100.0)


def test_the_log_of_steps_is_bounded(made: Made, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(ticks, "BLOCK_STEPS", 50)
    made.recorder.ticks.max_bytes = 200_000
    made.run(1000)
    replayed = replay(made.bundle())
    assert replayed.same
    assert 100 < replayed.steps < 500


def test_a_device_that_comes_or_goes_begins_a_new_recording(made: Made) -> None:
    made.run(10)
    made.bench.add_asset({"type": "bess", "port": 55009})
    made.run(10)
    replayed = replay(made.bundle())
    assert (replayed.same, replayed.steps) == (True, 10)
    made.bench.remove_asset("chp-1")
    made.run(5)
    replayed = replay(made.bundle())
    assert (replayed.same, replayed.steps) == (True, 5)


def test_a_scenario_gives_the_same_verdict_again(made: Made) -> None:
    made.run(25)
    scenario = begun(made)
    made.run(80)
    result = scenario.result()
    assert result.complete
    bundle = made.bundle()
    replayed = replay(bundle)
    assert replayed.same
    assert replayed.steps == 80
    assert replayed.verdict == json.loads(json.dumps(verdict(result)))
    assert [check["outcome"] for check in replayed.verdict["cases"][0]["checks"]] == ["failed", "passed"]
    names = set(contents(bundle))
    assert {"scenario/bad.yaml", "scenario/dip.csv", "result.json"} <= names


def begun(made: Made) -> BenchScenario:
    (made.folder / "dip.csv").write_text("0,50\n1,49.1234567\n3,50\n")
    (made.folder / "bad.yaml").write_text(SCENARIO)
    return BenchScenario(made.bench, load_scenario(made.folder / "bad.yaml", made.bench.site.devices))


def test_a_scenario_that_was_stopped_is_stopped_again(made: Made) -> None:
    scenario = begun(made)
    made.run(30)
    scenario.stop()
    made.run(10)
    replayed = replay(made.bundle())
    assert replayed.same
    assert replayed.verdict is not None
    assert (replayed.verdict["complete"], replayed.verdict["passed"]) == (False, False)


def test_a_recording_that_outlives_a_scenario_with_faults_still_replays(
    made: Made, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(ticks, "BLOCK_STEPS", 10)
    made.recorder.ticks.max_bytes = 60_000
    begun(made)
    made.run(300)
    replayed = replay(made.bundle())
    assert replayed.same
    assert replayed.verdict is None
    assert 10 < replayed.steps < 250


def test_where_it_first_differs_is_told(made: Made) -> None:
    made.run(30)

    def without_a_write(lines: str) -> str:
        kept = lines.splitlines()
        step = json.loads(kept[13])
        assert step.pop("commands")
        kept[13] = json.dumps(step)
        return "\n".join(kept)

    replayed = replay(changed(made.bundle(), "ticks.jsonl", without_a_write))
    assert not replayed.same
    assert replayed.differs_at_s == pytest.approx(1.3)


def test_another_verdict_is_not_the_same(made: Made) -> None:
    begun(made)
    made.run(80)
    bundle = made.bundle()
    replayed = replay(
        changed(bundle, "result.json", lambda text: text.replace('"passed": false', '"passed": true'))
    )
    assert replayed.differs_at_s is None
    assert not replayed.same


def test_measurements_and_commands_become_tables(made: Made, tmp_path: Path) -> None:
    made.run(7)
    csv = tables(tmp_path / "csv")
    replay(made.bundle(), csv.observe)
    csv.close()
    measured = [line.split(",") for line in (tmp_path / "csv/measurements.csv").read_text().splitlines()]
    column = measured[0].index("bess-1.soc")
    assert [float(row[column]) for row in measured[1:]] == [
        s.measurements["bess-1"].soc for s in made.snapshots
    ]
    assert [float(row[0]) for row in measured[1:]] == [s.time_s for s in made.snapshots]
    assert {"pcc.active_power_w", "site.frequency_hz", "energy_meter-1.active_power_w"} <= set(measured[0])
    commands = [line.split(",") for line in (tmp_path / "csv/commands.csv").read_text().splitlines()]
    assert commands[0] == ["time_s", "device", "command", "value"]
    assert [
        (row[1:], math.isclose(float(row[0]), at))
        for row, at in zip(commands[1:], (0.1, 0.4, 0.7), strict=True)
    ] == [(["bess-1", "heartbeat", value], True) for value in ("0.0", "3.0", "6.0")]


@pytest.mark.parametrize("config", sorted((ROOT / "configs").glob("*.json")), ids=lambda path: path.name)
def test_the_config_in_a_bundle_is_the_same_site(config: Path, tmp_path: Path) -> None:
    bench = Bench(check_site(config), Recorder())
    bench.tick()
    write(gather(bench, ""), tmp_path / "incident.zip")
    with zipfile.ZipFile(tmp_path / "incident.zip") as archive:
        archive.extractall(tmp_path / "site")
    again = check_site(tmp_path / "site/site.json")
    assert {name: [r.registers for r in maps] for name, maps in again.maps.items()} == {
        name: [r.registers for r in maps] for name, maps in check_site(config).maps.items()
    }
    named = [
        device.config.model_copy(update={"asset_id": asset_id})
        for asset_id, device in bench.site.devices.items()
    ]
    assert load_site(tmp_path / "site/site.json").assets == named
    assert replay(tmp_path / "incident.zip").same


def test_a_bundle_is_there_when_it_is_complete_and_not_before(
    made: Made, monkeypatch: pytest.MonkeyPatch
) -> None:
    made.run(3)
    file = made.bundle()
    before = file.read_bytes()
    seen = []

    def full(*_: Any) -> None:
        seen.append(file.read_bytes())
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "replace", full)
    made.run(3)
    with pytest.raises(OSError, match="No space"):
        made.bundle()
    assert seen == [before]
    assert file.read_bytes() == before


def test_without_a_step_there_is_a_bundle_that_says_so_when_replayed(made: Made) -> None:
    bundle = made.bundle()
    assert "frames.pcapng" in contents(bundle)
    with pytest.raises(ConfigErrors, match="no step was recorded"):
        replay(bundle)


@pytest.mark.parametrize(
    ("damage", "told"),
    [
        (lambda file: file.write_bytes(b"PK\x03\x04 no"), "is no incident bundle"),
        (lambda file: file.write_bytes(file.read_bytes()[:-300]), "is no incident bundle"),
        (lambda file: file.unlink(), "No such file"),
        (lambda file: shutil.copy(ROOT / "README.md", file), "is no incident bundle"),
        (lambda file: zipfile.ZipFile(file, "w").close(), "has no incident.json"),
        (
            lambda file: changed(file, "incident.json", lambda text: text.replace("-1", "-9")).replace(file),
            "is not a format that this version reads",
        ),
        (
            lambda file: changed(file, "ticks.jsonl", lambda text: text[:-30]).replace(file),
            "ticks.jsonl: cannot be replayed",
        ),
    ],
    ids=[
        "not a zip",
        "cut",
        "missing",
        "a text",
        "empty zip",
        "another format",
        "cut steps",
    ],
)
def test_what_is_no_bundle_is_refused_in_words(made: Made, damage: Callable[[Path], Any], told: str) -> None:
    made.run(3)
    file = made.bundle()
    damage(file)
    with pytest.raises(ConfigErrors) as refused:
        replay(file)
    (error,) = refused.value.errors
    assert str(file) in str(error)
    assert told in str(error)


@pytest.mark.parametrize(
    ("name", "content", "told"),
    [
        ("incident.json", "[1]", "incident.json: is no object; use a bundle of `dertwin record dump`"),
        ("exchanges.jsonl", "null", "exchanges.jsonl: cannot be replayed: "),
        ("exchanges.jsonl", "{}", "exchanges.jsonl: cannot be replayed: 'replied_s'"),
        ("result.json", "{", "result.json: cannot be replayed: "),
        ("scenario/dip.csv", "0,fifty", "scenario/bad.yaml: steps[0].do: scenario/dip.csv: "),
        ("site.json", "{}", "site.json: assets: is missing"),
    ],
)
def test_a_bundle_with_a_spoilt_part_is_refused_by_the_name_of_the_part(
    made: Made, name: str, content: str, told: str
) -> None:
    begun(made)
    made.run(30)
    with pytest.raises(ConfigErrors) as refused:
        replay(changed(made.bundle(), name, lambda _: content))
    assert told in str(refused.value)
    assert "dertwin-replay-" not in str(refused.value)
