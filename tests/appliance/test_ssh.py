"""A laptop puts sites on a box through a real sshd."""

import json
from collections.abc import Iterator
from pathlib import Path

import pytest
from support.box import boot, make_box, served, site
from support.ssh import ssh_to

from bench import cli
from bench.appliance.places import Places


@pytest.fixture
def box(tmp_path: Path) -> Places:
    (tmp_path / "box").mkdir()
    return make_box(tmp_path / "box")


@pytest.fixture
def host(box: Places, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[str]:
    (tmp_path / "ssh").mkdir()
    with ssh_to(box, tmp_path / "ssh", monkeypatch) as host:
        yield host


def test_a_site_goes_to_the_box_with_its_files_and_comes_back(
    box: Places, host: str, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    boot(box)
    (tmp_path / "load.csv").write_text("0,1000\n3600,2000\n")
    for name in ("one", "two"):
        config = tmp_path / f"{name}.json"
        config.write_text(json.dumps({**site(name), "load": {"csv": "load.csv"}}))
        assert cli.main(["site", "put", str(config), host]) == 0
        assert served(box)["site_name"] == name
    assert "now served: two" in capfd.readouterr().out
    assert (box.served / "load.csv").read_text() == "0,1000\n3600,2000\n"
    assert cli.main(["site", "rollback", host]) == 0
    capfd.readouterr()
    assert cli.main(["site", "show", host]) == 0
    assert json.loads(capfd.readouterr().out)["site_name"] == "one"


def test_a_bad_site_does_not_leave_the_laptop(
    box: Places, host: str, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    config = tmp_path / "bad.json"
    config.write_text('{"assets": []}')
    assert cli.main(["site", "put", str(config), host]) == cli.EX_CONFIG
    assert f"{config}: assets" in capfd.readouterr().err
    assert not box.sites.exists()


def test_what_only_the_box_can_find_wrong_is_told_too(
    box: Places, host: str, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    elsewhere = {"type": "bess", "protocols": [{"kind": "modbus_tcp", "ip": "192.0.2.1", "port": 502}]}
    config = tmp_path / "site.json"
    config.write_text(json.dumps(site("x", elsewhere)))
    assert cli.main(["site", "put", str(config), host]) == cli.EX_CONFIG
    assert 'site.json: assets[0].protocols[0].ip: "192.0.2.1" is not an address' in capfd.readouterr().err


def test_a_box_that_is_not_there_is_told(
    host: str, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "ssh/ssh_config").write_text("Host box\n HostName 127.0.0.1\n Port 1\n")
    assert cli.main(["site", "show", host]) == 255
    assert "Connection refused" in capfd.readouterr().err
