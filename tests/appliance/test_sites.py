"""Which site a box serves: the newest good one, whatever is put on the card or in place over SSH."""

import json
import os
import shutil
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from support.box import BATTERY, boot, make_box, options, put_on_card, served, site

from bench import cli
from bench.appliance.places import Places
from bench.appliance.report import load_report
from bench.appliance.site_files import find_config, fingerprint, gather
from bench.appliance.sites import KeptSites

BAD = {"assets": [{"type": "bes"}]}
MAP = (
    "registers: [{name: p, internal_name: active_power_w, address: 0, type: int16, count: 1, func: 4,"
    " direction: read}]"
)


@pytest.fixture
def box(tmp_path: Path) -> Places:
    return make_box(tmp_path)


def name(places: Places) -> str:
    served_name: str = served(places)["site_name"]
    return served_name


def act(places: Places, *words: str) -> int:
    return cli.main(["site", *words, *options(places)])


def put(places: Places, document: Any, folder: Path) -> int:
    (folder / "mine.json").write_text(json.dumps(document))
    return act(places, "put", str(folder / "mine.json"))


def test_a_good_site_on_the_card_is_served(box: Places) -> None:
    put_on_card(box, site("one"))
    assert "one: as on the card" in boot(box)
    assert name(box) == "one"
    put_on_card(box, site("two"))
    boot(box)
    assert name(box) == "two"


def test_a_site_that_is_taken_off_the_card_is_served_on_and_said_to_be_gone(box: Places) -> None:
    put_on_card(box, site("one"))
    boot(box)
    (box.user_files / "site.json").unlink()
    assert "one: the last one that was on the card" in boot(box)
    assert name(box) == "one"


def test_a_bad_site_on_the_card_leaves_the_last_good_one_and_says_why(box: Places) -> None:
    put_on_card(box, site("one"))
    assert "Your site is not served" not in boot(box)
    put_on_card(box, BAD)
    for _ in range(2):  # it stays bad
        status = boot(box)
        assert name(box) == "one"
        why = status.partition("Your site is not served")[2]
        assert 'site.json: assets[0].type: "bes" is not allowed' in why
    put_on_card(box, site("two"))
    assert "Your site is not served" not in boot(box)
    assert name(box) == "two"


def test_a_bad_first_site_leaves_the_demo(box: Places) -> None:
    put_on_card(box, BAD)
    assert "demo-site: the demo site" in boot(box)
    assert "bes" in (box.user_files / "status.txt").read_text()


@pytest.mark.parametrize(
    ("names", "words"),
    [
        (["site.json", "site.yaml"], "both there"),
        (["site.json.txt"], "not looked at"),
        (["site.txt"], "not looked at"),
    ],
)
def test_an_unclear_card_is_said(names: list[str], words: str, box: Places) -> None:
    for each in names:
        put_on_card(box, site("one"), each)
    assert words in boot(box)
    assert name(box) == "demo-site"


def test_a_site_in_yaml_takes_its_maps_and_series_along(box: Places) -> None:
    (box.user_files / "maps").mkdir()
    (box.user_files / "maps/mine.yaml").write_text(MAP)
    (box.user_files / "load.csv").write_text("0,1000\n3600,2000\n")
    (box.user_files / "site.yaml").write_text(
        "site_name: in yaml\nregister_map_root: maps\nload: {csv: load.csv}\n"
        "assets: [{type: bess, protocols: [{kind: modbus_tcp, port: 502, register_map: mine.yaml}]}]\n"
    )
    boot(box)
    assert name(box) == "in yaml"
    assert cli.main(["check", str(box.served / "site.json")]) == 0
    kept = find_config((box.sites / "current").resolve())
    assert kept is not None
    assert gather(kept).keys() == {"site.yaml", "maps/mine.yaml", "load.csv"}
    # A change of the map alone is a change of the site.
    (box.user_files / "maps/mine.yaml").write_text(MAP.replace("address: 0", "address: 7"))
    boot(box)
    assert "address: 7" in (box.served / "maps/mine.yaml").read_text()


def test_files_outside_of_the_folder_do_not_go_along(tmp_path: Path) -> None:
    (tmp_path / "secret").write_text("x")
    (tmp_path / "site").mkdir()
    config = tmp_path / "site/site.json"
    (tmp_path / "site/link").symlink_to(tmp_path / "secret")
    named = ["../secret", str(tmp_path / "secret"), "link", "\0", "x" * 5000]
    config.write_text(json.dumps({**site("one"), "comment": named}))
    assert gather(config).keys() == {"site.json"}


NOBODY = 65534
needs_root = pytest.mark.skipif(os.geteuid() != 0, reason="only root can take the rights of others")


@pytest.fixture
def curious_site(tmp_path: Path) -> Iterator[Path]:
    """A site in a folder of somebody else, that names a file which only root may read."""
    secret = tmp_path / "secret"
    secret.write_text("time,kw\nhunter2\n")
    secret.chmod(0o600)
    # Where everybody can get to.
    with tempfile.TemporaryDirectory(dir="/dev/shm") as folder:
        config = Path(folder) / "site.json"
        config.write_text(json.dumps({**site("mine"), "load": {"csv": str(secret)}}))
        for path in (config, Path(folder)):
            os.chown(path, NOBODY, NOBODY)
        yield config


@needs_root
def test_who_puts_a_site_in_place_cannot_have_files_of_root_read(
    box: Places, curious_site: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    boot(box)
    assert act(box, "put", str(curious_site)) == cli.EX_CONFIG
    assert "hunter2" in capsys.readouterr().err  # root itself is told what is wrong in it
    monkeypatch.setenv("SUDO_UID", str(NOBODY))
    monkeypatch.setenv("SUDO_GID", str(NOBODY))
    assert act(box, "put", str(curious_site)) == cli.EX_CONFIG
    said = capsys.readouterr().err
    assert "Permission denied" in said
    assert "hunter2" not in said
    assert os.geteuid() == 0


@needs_root
def test_who_copies_a_site_to_the_box_cannot_have_files_of_root_read(box: Places, curious_site: Path) -> None:
    shutil.rmtree(box.incoming, ignore_errors=True)
    box.incoming.symlink_to(curious_site.parent)
    status = boot(box)
    assert "Permission denied" in status
    assert "hunter2" not in status


def test_a_site_put_in_place_counts_until_the_card_changes(box: Places, tmp_path: Path) -> None:
    put_on_card(box, site("card"))
    boot(box)
    assert put(box, site("put"), tmp_path) == 0
    assert name(box) == "put"
    assert "put: put in place earlier" in boot(box)
    assert name(box) == "put"
    put_on_card(box, site("new card"))
    boot(box)
    assert name(box) == "new card"


def test_a_bad_site_is_refused_and_changes_nothing(
    box: Places, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    boot(box)
    put(box, site("good"), tmp_path)
    before = {path: path.read_bytes() for path in box.data.rglob("*") if path.is_file()}
    capsys.readouterr()
    assert put(box, BAD, tmp_path) == cli.EX_CONFIG
    assert "mine.json: assets[0].type" in capsys.readouterr().err
    assert name(box) == "good"
    assert {path: path.read_bytes() for path in box.data.rglob("*") if path.is_file()} == before


def test_a_site_with_an_address_of_another_machine_is_refused_where_it_would_be_served(
    box: Places, tmp_path: Path
) -> None:
    boot(box)
    elsewhere = {"type": "bess", "protocols": [{"kind": "modbus_tcp", "ip": "192.0.2.1", "port": 502}]}
    assert put(box, site("x", elsewhere), tmp_path) == cli.EX_CONFIG
    # At boot the network is not there yet, and nobody can tell.
    put_on_card(box, site("y", elsewhere))
    boot(box)
    assert name(box) == "y"


def come_in(places: Places, document: Any, name: str = "site.json") -> None:
    """Copy a site into the box, as scp does."""
    places.incoming.mkdir(exist_ok=True)
    (places.incoming / name).write_text(json.dumps(document))


def start_service(places: Places) -> None:
    assert cli.main(["appliance", "site", *options(places)]) == 0


def test_a_site_that_came_in_is_served_from_the_next_start_of_the_service(box: Places) -> None:
    put_on_card(box, site("card"))
    boot(box)
    come_in(box, site("in"))
    start_service(box)
    assert name(box) == "in"
    assert list(box.incoming.iterdir()) == []
    boot(box)
    assert name(box) == "in"
    assert act(box, "rollback") == 0
    assert name(box) == "card"


def test_a_bad_site_that_came_in_is_told_until_there_is_a_good_one(box: Places, tmp_path: Path) -> None:
    put_on_card(box, site("card"))
    boot(box)
    come_in(box, BAD)
    start_service(box)
    assert name(box) == "card"
    assert "incoming/site.json: assets[0].type" in load_report(box).site_faults[0]
    assert "incoming/site.json: assets[0].type" in boot(box)
    put(box, site("put"), tmp_path)
    assert "not served" not in boot(box)
    assert name(box) == "put"


def test_a_card_that_cannot_be_read_leaves_the_last_good_site(box: Places) -> None:
    put_on_card(box, site("one"))
    boot(box)
    (box.user_files / "site.json").unlink()
    (box.user_files / "site.json").symlink_to("site.json")
    (box.user_files / "site.yaml").symlink_to("/proc/self/mem")
    status = boot(box)
    assert "site.yaml: " in status
    assert name(box) == "one"


def test_rollback_goes_back_and_forth(
    box: Places, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    boot(box)
    assert act(box, "rollback") == cli.EX_CONFIG
    assert "no site before the current one" in capsys.readouterr().err
    put(box, site("one"), tmp_path)
    put(box, site("two"), tmp_path)
    for expected in ("one", "two", "one"):
        assert act(box, "rollback") == 0
        assert name(box) == expected
        boot(box)
        assert name(box) == expected
    put(box, site("three"), tmp_path)
    act(box, "rollback")
    assert name(box) == "one"
    # The two that can be served are kept, and no more.
    assert len([path for path in box.sites.iterdir() if path.name.isdecimal()]) == 2


def test_the_same_site_again_does_not_push_out_the_one_before(box: Places, tmp_path: Path) -> None:
    boot(box)
    for each in ("one", "two", "two"):
        put(box, site(each), tmp_path)
    act(box, "rollback")
    assert name(box) == "one"


def test_the_firewall_follows_the_site(box: Places, tmp_path: Path) -> None:
    boot(box)
    put(box, site("one", {**BATTERY, "protocols": [{"kind": "modbus_tcp", "port": 1502}]}), tmp_path)
    assert "tcp dport { 22, 1502 } accept" in (box.root / "etc/nftables.conf").read_text()


def test_show_prints_the_config_and_tells_where_it_is_from(
    box: Places, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    boot(box)
    put(box, site("one"), tmp_path)
    capsys.readouterr()
    assert act(box, "show") == 0
    shown = capsys.readouterr()
    assert json.loads(shown.out)["site_name"] == "one"
    assert "put in place earlier" in shown.err


def test_on_a_machine_that_is_no_appliance_the_host_is_asked_for(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    nowhere = Places(tmp_path / "card", tmp_path / "data", tmp_path / "root")
    assert put(nowhere, site("one"), tmp_path) == cli.EX_CONFIG
    assert "no appliance" in capsys.readouterr().err


def test_a_site_of_an_older_version_that_is_bad_now_gives_way_to_the_one_before(
    box: Places, tmp_path: Path
) -> None:
    boot(box)
    put(box, site("one"), tmp_path)
    put(box, site("two"), tmp_path)
    (box.sites / "current/site.json").write_text(json.dumps(BAD))
    assert "bes" in boot(box)
    assert name(box) == "one"


def cuts(change: Callable[[], object]) -> Iterator[None]:
    """Let a child make a change and end before its first call to the system, its second, ... its last."""
    for last in range(1, 1000):
        child = os.fork()
        if child == 0:
            _cut_at(last)
            change()
            os._exit(0)
        status = os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
        if status == 0:
            return
        assert status == 9
        yield
    raise AssertionError("the change never ends")


def _cut_at(last: int) -> None:
    calls = iter(range(1, 1000))

    def cut(function: Callable[..., Any]) -> Callable[..., Any]:
        def called(*arguments: Any, **named: Any) -> Any:
            if next(calls) == last:
                os._exit(9)
            return function(*arguments, **named)

        return called

    for each in ("open", "write", "fsync", "replace", "symlink", "unlink", "mkdir", "rmdir"):
        setattr(os, each, cut(getattr(os, each)))


@pytest.mark.parametrize("change", ["adopt", "swap"])
def test_a_change_that_is_cut_anywhere_leaves_a_site_that_is_whole(change: str, tmp_path: Path) -> None:
    contents = {each: {"site.json": json.dumps(site(each)).encode()} for each in ("one", "two", "three")}
    kept = KeptSites(tmp_path / "0")
    found = set()
    run = 0

    def make() -> None:
        kept.adopt(contents["three"]) if change == "adopt" else kept.swap()

    def fresh() -> None:
        nonlocal kept, run
        run += 1
        kept = KeptSites(tmp_path / str(run))
        kept.adopt(contents["one"])
        kept.adopt(contents["two"])

    fresh()
    for _ in cuts(lambda: make()):
        current = kept.config("current")
        assert current is not None
        found.add(json.loads(current.read_text())["site_name"])
        assert fingerprint(gather(current)) in map(fingerprint, contents.values())
        kept.adopt(contents["three"])  # what was cut does not stand in the way
        current = kept.config("current")
        assert current is not None
        assert json.loads(current.read_text())["site_name"] == "three"
        fresh()
    assert found == ({"two", "three"} if change == "adopt" else {"two", "one"})
    assert run > 5
