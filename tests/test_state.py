"""What a site has become outlives the service, however that ends."""

import itertools
import json
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from structlog.testing import capture_logs
from support.service import free_port, service
from support.sites import battery, site
from support.tcp import Client, ask

from bench.app import Bench
from bench.check import check_site
from bench.state import Saved, StateFile, StateKeeper, capture
from dertwin.devices.device import Command
from dertwin.site import build_site

TESTS = Path(__file__).parent
READ_HEARTBEAT = b"\x03\x00\xc7\x00\x01"
DAY_STEPS = 24 * 60
PLANT: dict[str, Any] = {
    "step": 60,
    "real_time": False,
    "external_models": {"irradiance": {}, "ambient_temperature": {}},
    "load": {"profile": [[0, 3000], [12, 20000], [18, 9000]]},
    "assets": [
        {"type": "bess", "asset_id": "bess"},
        {"type": "inverter", "asset_id": "pv"},
        {"type": "chp", "asset_id": "chp", "watchdog": {"timeout_s": 9e6}},
        {"type": "energy_meter", "asset_id": "meter"},
    ],
}
COMMANDS = {
    "bess": [Command("start_stop_standby", 1.0), Command("active_power_setpoint_w", 1000.0)],
    "chp": [Command("start_stop", 1.0), Command("power_setpoint_ratio", 0.7)],
    "pv": [Command("power_factor_setpoint", 0.95)],
}


@pytest.fixture
def keeper(tmp_path: Path) -> StateKeeper:
    return StateKeeper(tmp_path / "states")


@pytest.fixture
def file(tmp_path: Path) -> StateFile:
    return StateFile(tmp_path / "states", "site")


def bench(folder: Path, config: dict[str, Any]) -> Bench:
    path = folder / "site.json"
    path.write_text(json.dumps(config))
    return Bench(check_site(path))


def plant(folder: Path, **changes: Any) -> Bench:
    return bench(folder, PLANT | changes)


def reasons(logs: list[Any], event: str = "state not restored") -> dict[str | None, str]:
    """Return what was logged as the reason, by device."""
    return {line.get("device"): line.get("reason", "") for line in logs if line["event"] == event}


def states(bench: Bench) -> dict[str, Any]:
    return {asset_id: device.state for asset_id, device in bench.site.devices.items()}


def test_a_week_in_pieces_ends_like_a_week_in_one(tmp_path: Path, keeper: StateKeeper) -> None:
    whole = build_site(PLANT)
    piece = plant(tmp_path)
    for day in range(7):
        for step in range(DAY_STEPS):
            commands = COMMANDS if (day, step) == (0, 5) else {}
            whole.step(commands)
            piece.site.step(commands)
        keeper.save(piece)
        piece = plant(tmp_path)
        keeper.restore(piece)
        assert states(piece) == {asset_id: device.state for asset_id, device in whole.devices.items()}
        assert piece.site.time_s == whole.time_s
    counted = whole.snapshot.measurements["meter"]
    assert piece.site.snapshot.measurements["meter"] == counted
    assert counted.import_energy_wh > 0


def test_the_registers_show_the_restored_state_before_the_first_step(tmp_path: Path) -> None:
    keeper = StateKeeper(tmp_path / "states")
    config = site(tmp_path, battery({"port": free_port()}), real_time=False)
    before = bench(tmp_path, config)
    before.site.step({"bess-1": [Command("heartbeat", 42.0)]})
    keeper.save(before)
    after = bench(tmp_path, config)
    keeper.restore(after)
    (link,) = after.links.values()
    assert link.units[1].respond(READ_HEARTBEAT) == b"\x03\x02\x00\x2a"


@pytest.mark.parametrize(
    ("changes", "reason"),
    [
        ({"capacity_kwh": 200.0}, "capacity_kwh was 100.0, is 200.0"),
        ({"type": "inverter"}, "type was bess, is inverter"),
        ({"asset_id": "other"}, "the site has no such asset any more"),
    ],
)
def test_a_state_that_does_not_fit_is_not_restored_and_the_log_says_why(
    tmp_path: Path, keeper: StateKeeper, changes: dict[str, Any], reason: str
) -> None:
    first = plant(tmp_path)
    first.site.step(COMMANDS)
    keeper.save(first)
    second = plant(tmp_path, assets=[PLANT["assets"][0] | changes, *PLANT["assets"][1:]])
    with capture_logs() as logs:
        keeper.restore(second)
    assert reason in reasons(logs)["bess"]
    assert states(second)["pv"] == states(first)["pv"]
    if "bess" in second.site.devices:
        assert states(second)["bess"] != states(first)["bess"]


def test_how_a_device_is_reached_and_protected_is_not_part_of_what_must_fit(
    tmp_path: Path, keeper: StateKeeper
) -> None:
    first = plant(tmp_path)
    first.site.step(COMMANDS)
    keeper.save(first)
    changes = {"port": 1502, "watchdog": {"timeout_s": 5}, "grid_protection": {"reconnect_s": 5}}
    second = plant(tmp_path, assets=[PLANT["assets"][0] | changes, *PLANT["assets"][1:]])
    keeper.restore(second)
    assert states(second) == states(first)


def test_time_goes_on_unless_the_surroundings_change(tmp_path: Path, keeper: StateKeeper) -> None:
    first = plant(tmp_path)
    first.site.step(dt_s=100.0)
    keeper.save(first)
    for changes, time_s in (({}, 100.0), ({"step": 10}, 100.0), ({"start_time_h": 6}, 0.0)):
        again = plant(tmp_path, **changes)
        keeper.restore(again)
        assert again.site.time_s == time_s


def test_a_site_that_does_not_persist_neither_reads_nor_writes(tmp_path: Path, keeper: StateKeeper) -> None:
    first = plant(tmp_path)
    first.site.step(COMMANDS)
    keeper.save(first)
    (saved,) = (tmp_path / "states").iterdir()
    before = saved.read_bytes()
    second = plant(tmp_path, persist=False)
    with capture_logs() as logs:
        keeper.restore(second)
    assert "persist is false" in reasons(logs)[None]
    assert second.site.time_s == 0.0
    keeper.save(second)
    assert saved.read_bytes() == before


@pytest.mark.parametrize(
    ("damage", "reason"),
    [
        (lambda data: data[: len(data) // 2], "checksum"),
        (lambda data: data[:-1] + b"!", "checksum"),
        (lambda data: b"", "does not begin with"),
        (lambda data: b"\x00" * len(data), "does not begin with"),
        (lambda data: b'{"soc": 50}', "does not begin with"),
    ],
    ids=["torn", "changed", "empty", "zeros", "foreign"],
)
def test_a_damaged_file_is_set_aside_and_the_one_before_it_is_used(
    tmp_path: Path, keeper: StateKeeper, file: StateFile, damage: Any, reason: str
) -> None:
    first = plant(tmp_path)
    for _ in range(2):
        first.site.step(COMMANDS)
        keeper.save(first)
    damaged = damage(file.path.read_bytes())
    file.path.write_bytes(damaged)
    second = plant(tmp_path)
    with capture_logs() as logs:
        keeper.restore(second)
    assert reason in reasons(logs, "state set aside")[None]
    assert file.set_aside.read_bytes() == damaged
    assert second.site.time_s == 60.0
    keeper.save(second)
    assert file.read() is not None


def test_a_file_of_another_site_is_set_aside(tmp_path: Path, file: StateFile) -> None:
    folder = tmp_path / "states"
    folder.mkdir()
    other = StateFile(folder, "other")
    other.write(Saved("other", "", 1.0, "", {}))
    other.path.rename(file.path)
    with capture_logs() as logs:
        assert file.read() is None
    assert "'other'" in reasons(logs, "state set aside")[None]


def test_a_folder_that_cannot_be_written_is_told_once_and_not_fatal(tmp_path: Path) -> None:
    blocked = tmp_path / "blocked"
    blocked.write_text("a file where the folder should be")
    keeper = StateKeeper(blocked)
    site = plant(tmp_path)
    with capture_logs() as logs:
        keeper.restore(site)
        keeper.save(site)
        keeper.save(site)
    assert len([line for line in logs if line["event"] == "state not saved"]) == 1


def test_names_of_sites_are_names_of_files_whatever_is_in_them(tmp_path: Path) -> None:
    names = ["a/b", "a b", "..", ".", "ä%2Fb", "a%2Fb"]
    for name in names:
        StateFile(tmp_path, name).write(Saved(name, "", 0.0, "", {}))
    assert len(list(tmp_path.iterdir())) == len(names)
    for name in names:
        saved = StateFile(tmp_path, name).read()
        assert saved is not None
        assert saved.site == name


CUT = """
import os, sys
from pathlib import Path
from bench.state import Saved, StateFile
last, calls = int(sys.argv[2]), 0
def cut(function):
    def called(*arguments, **options):
        global calls
        calls += 1
        if calls == last:
            if function.__name__ == "write":
                function(arguments[0], arguments[1][: len(arguments[1]) // 2])
            os._exit(9)
        return function(*arguments, **options)
    return called
for name in ("open", "write", "fsync", "close", "replace"):
    setattr(os, name, cut(getattr(os, name)))
StateFile(Path(sys.argv[1]), "site").write(Saved("site", "", 2.0, "", {}))
"""


def cuts(folder: Path) -> Iterator[int]:
    """Cut a save before its first call to the system, before its second, ... until one is complete."""
    for call in itertools.count(1):
        StateFile(folder, "site").write(Saved("site", "", 1.0, "", {}))
        done = subprocess.run([sys.executable, "-c", CUT, str(folder), str(call)], cwd=TESTS.parent)
        if done.returncode == 0:
            return
        assert done.returncode == 9
        yield call


def test_a_save_that_is_cut_anywhere_leaves_the_old_or_the_new_state(tmp_path: Path) -> None:
    found = []
    for _ in cuts(tmp_path):
        with capture_logs() as logs:
            saved = StateFile(tmp_path, "site").read()
        assert saved is not None
        assert logs == []
        found.append(saved.time_s)
    assert found == sorted(found)
    assert set(found) == {1.0, 2.0}
    assert len(found) >= 9  # open, write, fsync, close, replace, replace, open, fsync, close


def test_a_service_that_is_killed_again_and_again_loses_at_most_the_interval(tmp_path: Path) -> None:
    interval_s, slack_s = 0.2, 0.4
    port = free_port()
    config = site(tmp_path, battery({"port": port}), step=0.01)
    options = ("--state-dir", str(tmp_path / "states"), "--save-every", str(interval_s))
    written_at = {0: 0.0}
    for _ in range(4):
        with service(config, tmp_path, *options) as run, Client(port) as client:
            restored = int.from_bytes(client.ask(READ_HEARTBEAT)[2:], "big")
            last, at = max(written_at.items())
            assert at - written_at[restored] <= interval_s + slack_s
            until = time.monotonic() + 3 * interval_s
            while time.monotonic() < until:
                last += 1
                client.ask(b"\x06\x00\xc7" + last.to_bytes(2, "big"))
                written_at[last] = time.monotonic()
            run.process.send_signal(signal.SIGKILL)
            run.process.wait()
    assert restored > 0


def test_a_stopped_service_has_saved_all_that_it_accepted(tmp_path: Path) -> None:
    port = free_port()
    config = site(tmp_path, battery({"port": port}), step=5)
    with service(config, tmp_path, "--state-dir", str(tmp_path / "states")) as run:
        ask(port, b"\x06\x00\xc7\x00\x07")
        assert run.stop()[0] == 0
    with service(config, tmp_path, "--state-dir", str(tmp_path / "states")) as run:
        assert ask(port, READ_HEARTBEAT) == b"\x03\x02\x00\x07"
        (event,) = run.events("state restored")
        assert event["devices"] == 1


def test_systemd_says_where_states_are_kept(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("STATE_DIRECTORY", f"{tmp_path / 'one'}:{tmp_path / 'two'}")
    with service(site(tmp_path, battery({"port": free_port()})), tmp_path) as run:
        run.stop()
    assert [path.name for path in (tmp_path / "one").iterdir()] == ["site.json"]


def test_a_service_keeps_no_state_unless_told_where(tmp_path: Path) -> None:
    with service(site(tmp_path, battery({"port": free_port()})), tmp_path) as run:
        run.stop()
        assert run.events("state restored") == []
    assert {path.name for path in tmp_path.iterdir()} == {
        "map.yaml",
        "site.json",
        "service.log",
        "service.out",
    }


def test_saving_a_large_site_stops_the_clock_for_less_than_ten_milliseconds(tmp_path: Path) -> None:
    large = bench(tmp_path, {"assets": [{"type": kind} for kind in ("bess", "inverter") for _ in range(50)]})
    capture(large.site)
    seconds = []
    for _ in range(5):
        start = time.perf_counter()
        capture(large.site)
        seconds.append(time.perf_counter() - start)
    assert min(seconds) < 0.01
