"""A whole box but for its kernel: set-up, service and watcher under a real systemd, on real mounts."""

import json
from collections.abc import Iterator
from typing import Any

import pytest
import yaml
from support.box import KEY, site
from support.container import Container, container, install
from support.service import wait_for
from support.sites import MAP, READ_SETPOINT, battery, setpoint_is

SERVICE, WATCHER = "dertwin.service", "watcher.service"
DERTWIN = "/opt/dertwin/bin/dertwin"


@pytest.fixture(scope="module")
def box(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Container]:
    """A box that was started with a card on which there is a site and a fixed address."""
    with container(install(tmp_path_factory), tmp_path_factory.mktemp("box")) as box:
        box.run("useradd", "--system", "--user-group", "bench")
        box.run("mkdir", "-p", "/boot/card", "/data")
        for folder in ("/boot/card", "/data"):
            box.run("mount", "-t", "tmpfs", "tmpfs", folder)
        write(box, "bench.yaml", yaml.safe_dump(settings()))
        write(box, "map.yaml", MAP)
        write(box, "site.json", json.dumps(batteries("first", 502)))
        box.run("mount", "-o", "remount,ro", "/boot/card")
        box.run("ip", "link", "add", "eth9", "type", "veth", "peer", "name", "cable9")
        set_up(box)
        box.run("systemctl", "start", "systemd-networkd.service", SERVICE)
        box.run("systemd-run", f"--unit={WATCHER}", DERTWIN, "appliance", "watch")
        yield box


def settings() -> dict[str, Any]:
    fixed = {"address": "10.7.0.5/24", "gateway": "10.7.0.1", "dns": ["10.7.0.1"]}
    return {"hostname": "lab-7", "network": fixed, "ssh_keys": [KEY], "metrics": {"address": "0.0.0.0"}}


def batteries(name: str, port: int) -> dict[str, Any]:
    return site(name, battery({"port": port, "ip": "0.0.0.0"}, asset_id=name))


def write(box: Container, name: str, text: str) -> None:
    """Write a file into the card's folder from inside, where it is mounted."""
    box.run("mkdir", "-p", "/boot/card/dertwin")
    box.run(*("sh", "-c", 'printf %s "$1" >"/boot/card/dertwin/$2"', "-", text, name))


def edit_card(box: Container, name: str, text: str) -> None:
    """Change the card as a laptop does, and start the box again, as far as it is set-up and service."""
    box.run("mount", "-o", "remount,rw", "/boot/card")
    write(box, name, text)
    box.run("mount", "-o", "remount,ro", "/boot/card")
    set_up(box)
    box.run("systemctl", "restart", SERVICE)


def set_up(box: Container) -> None:
    box.run("systemctl", "reset-failed", SERVICE, check=False)
    box.run(DERTWIN, "appliance", "setup")


def status(box: Container) -> str:
    return box.run("cat", "/boot/card/dertwin/status.txt")


def says(box: Container, *texts: str) -> None:
    """Wait until status.txt has all texts."""
    try:
        wait_for(lambda: all(text in status(box) for text in texts), 30.0)
    except AssertionError:
        raise AssertionError(f"{texts} are not in:\n{status(box)}") from None


def test_the_box_serves_the_site_of_the_card_and_says_that_it_runs(box: Container) -> None:
    assert box.ask(502, READ_SETPOINT) == setpoint_is(0)
    says(box, "lab-7: running", "1 devices, 1 of 1 links up", "first: as on the card", "eth9  10.7.0.5/24")
    assert box.run("hostname").strip() == "lab-7"


def test_the_card_is_read_only_again_after_it_was_written(box: Container) -> None:
    says(box, "lab-7: running")
    wait_for(lambda: "ro" in box.run("findmnt", "-no", "OPTIONS", "/boot/card").split(","), 5.0)
    assert "Wrong on this box" not in status(box)


def test_networkd_takes_the_whole_network_file(box: Container) -> None:
    (link,) = json.loads(box.run("ip", "-json", "address", "show", "eth9"))
    assert "10.7.0.5" in [address["local"] for address in link["addr_info"]]
    route, *_ = json.loads(box.run("ip", "-json", "route", "show", "default"))
    assert route["gateway"] == "10.7.0.1"
    told = [entry["MESSAGE"] for entry in box.journal("-u", "systemd-networkd")]
    about_ours = [message for message in told if "10-dertwin" in message]
    assert about_ours
    assert all("Configuring with" in message for message in about_ours)  # a bad line would be named


def test_the_firewall_is_in_force_and_open_for_what_is_served(box: Container) -> None:
    rules = box.run("/usr/sbin/nft", "list", "ruleset")
    assert "tcp dport { 22, 502, 9555 } accept" in rules
    assert rules.count("policy drop") == 2


def test_a_site_put_in_place_is_served_by_the_running_service(box: Container) -> None:
    before = box.show(SERVICE)["MainPID"]
    (box.root / "root/new.json").write_text(json.dumps(batteries("second", 1502)))
    (box.root / "root/map.yaml").write_text(MAP)
    assert "now served: second" in box.run(DERTWIN, "site", "put", "/root/new.json")
    wait_for(lambda: box.ask(1502, READ_SETPOINT) == setpoint_is(0), 10.0, "the new site")
    assert box.show(SERVICE)["MainPID"] == before
    assert "tcp dport { 22, 1502, 9555 } accept" in box.run("/usr/sbin/nft", "list", "ruleset")
    box.run(DERTWIN, "site", "rollback")
    wait_for(lambda: box.ask(502, READ_SETPOINT) == setpoint_is(0), 10.0, "the old site")


def test_a_site_that_was_copied_in_is_served_after_a_restart(box: Container) -> None:
    drop_in = box.root / f"etc/systemd/system/{SERVICE}.d/incoming.conf"
    drop_in.parent.mkdir(parents=True)
    drop_in.write_text(f"[Service]\nExecStartPre=-+{DERTWIN} appliance site\n")
    box.run("systemctl", "daemon-reload")
    copy = 'printf %s "$1" >/data/incoming/site.json; printf %s "$2" >/data/incoming/map.yaml'
    box.run("runuser", "-u", "bench", "--", "sh", "-c", copy, "-", json.dumps(batteries("copied", 502)), MAP)
    box.run("systemctl", "restart", SERVICE)
    says(box, "lab-7: running", "copied: put in place earlier")
    assert box.run("ls", "/data/incoming") == ""


def test_a_bad_site_on_the_card_is_told_and_the_good_one_is_served(box: Container) -> None:
    edit_card(box, "site.json", '{"assets": [{"type": "bes"}]}')
    says(box, "lab-7: degraded", "Your site is not served", '"bes" is not allowed; the closest is bess')
    assert box.ask(502, READ_SETPOINT) == setpoint_is(0)
    edit_card(box, "site.json", json.dumps(batteries("third", 502)))
    says(box, "lab-7: running", "third: as on the card")


def test_a_site_that_only_the_running_network_can_refuse_is_told(box: Container) -> None:
    elsewhere = site("elsewhere", battery({"port": 502, "ip": "192.0.2.1"}))
    box.run("systemctl", "stop", SERVICE)
    box.run("mount", "-o", "remount,rw", "/boot/card")
    write(box, "site.json", json.dumps(elsewhere))
    box.run("mount", "-o", "remount,ro", "/boot/card")
    set_up(box)
    box.run("systemctl", "start", SERVICE, check=False)
    says(box, "lab-7: failed", '"192.0.2.1" is not an address of this machine')
    # As soon as there is a good one again, the service runs.
    (box.root / "root/new.json").write_text(json.dumps(batteries("fourth", 502)))
    box.run(DERTWIN, "site", "put", "/root/new.json")
    says(box, "lab-7: running", "fourth: put in place earlier")
