"""What set-up writes for the programs of the box, checked by these programs, and what faults do to it."""

import os
import subprocess
from pathlib import Path

import pytest
from support.box import KEY, NAME, boot, configure, make_box, options, put_on_card, served, site
from support.certificates import Authority

from bench import cli
from bench.appliance.places import Places
from bench.appliance.site_files import demo_site

ETHERNET = "etc/systemd/network/10-dertwin-ethernet.network"
EVERYWHERE = {"address": "0.0.0.0", "port": 9100}


@pytest.fixture
def box(tmp_path: Path) -> Places:
    return make_box(tmp_path)


def read(places: Places, path: str) -> str:
    return (places.root / path).read_text()


def passes(*command: object) -> str:
    done = subprocess.run(list(map(str, command)), capture_output=True, text=True, timeout=20)
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


def test_an_empty_card_makes_a_box_that_serves_the_demo_site(box: Places) -> None:
    status = boot(box)
    assert status.startswith("dertwin-")
    assert read(box, "etc/hostname").startswith("dertwin-")
    assert (box.served / "site.json").read_bytes() == demo_site().read_bytes()
    assert "demo-site: the demo site" in status
    assert "pv-1, unit 1 at address 0.0.0.0:55002" in status
    assert "DHCP=yes" in read(box, ETHERNET)
    assert "nobody can: bench.yaml has no ssh_keys" in status
    assert not (box.root / "etc/wpa_supplicant").exists()


def test_it_is_a_command(box: Places) -> None:
    assert cli.main(["appliance", "setup", *options(box)]) == 0
    assert (box.served / "site.json").exists()


@pytest.mark.parametrize(
    "source", ["proc/device-tree/serial-number", "sys/class/dmi/id/product_uuid", "etc/machine-id"]
)
def test_boxes_have_names_of_their_own_that_stay(source: str, tmp_path: Path) -> None:
    names = []
    for number in (1, 2, 1):
        box = make_box(tmp_path / str(len(names)))
        file = box.root / source
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(f"4c4c4544-0042-3510-8036-b4c04f4d373{number}\n")
        boot(box)
        names.append(read(box, "etc/hostname"))
    assert names[0] == names[2] != names[1]


def test_an_identifier_that_many_pcs_have_names_none_of_them(tmp_path: Path) -> None:
    names = set()
    for machine in "12":
        box = make_box(tmp_path / machine)
        (box.root / "sys/class/dmi/id").mkdir(parents=True)
        (box.root / "sys/class/dmi/id/product_uuid").write_text("03000200-0400-0500-0006-000700080009\n")
        (box.root / "etc").mkdir()
        (box.root / "etc/machine-id").write_text(32 * machine)
        boot(box)
        names.add(read(box, "etc/hostname"))
    assert len(names) == 2


def test_the_settings_reach_the_programs_of_the_box(box: Places) -> None:
    fixed = {"address": "192.168.1.50/24", "gateway": "192.168.1.1", "dns": ["9.9.9.9"]}
    configure(box, network=fixed, ssh_keys=[KEY], timezone="Europe/Berlin", metrics=EVERYWHERE)
    status = boot(box)
    assert f"ssh bench@{NAME}.local" in status
    assert read(box, "etc/hostname") == f"{NAME}\n"
    assert f"127.0.1.1 {NAME}\n" in read(box, "etc/hosts")
    lines = read(box, ETHERNET).splitlines()
    assert {"Address=192.168.1.50/24", "Gateway=192.168.1.1", "DNS=9.9.9.9"} <= set(lines)
    assert read(box, "etc/ssh/authorized_keys/bench") == f"{KEY}\n"
    assert os.readlink(box.root / "etc/localtime") == "/usr/share/zoneinfo/Europe/Berlin"
    assert read(box, "etc/dertwin-box/service.env") == 'DERTWIN_OPTIONS="--listen-metrics 0.0.0.0:9100"\n'


def test_the_options_of_the_service_are_understood_by_it(box: Places) -> None:
    configure(box, metrics={"address": "fd00::1", "port": 9100})
    boot(box)
    words = read(box, "etc/dertwin-box/service.env").partition('"')[2].rstrip('"\n').split()
    parsed = cli._parser().parse_args(["run", "-c", "x", *words])
    assert parsed.listen_metrics == ("fd00::1", 9100)


@pytest.mark.parametrize(
    ("metrics", "ports"), [(EVERYWHERE, "22, 502, 9100"), ({"port": 9100}, "22, 502")], ids=["all", "the box"]
)
def test_the_firewall_lets_in_what_is_served(metrics: dict[str, object], ports: str, box: Places) -> None:
    local = {"type": "energy_meter", "protocols": [{"kind": "modbus_tcp", "port": 503, "ip": "127.0.0.1"}]}
    put_on_card(box, site("mine", *site("")["assets"], local))
    configure(box, metrics=metrics)
    boot(box)
    assert f"tcp dport {{ {ports} }} accept" in read(box, "etc/nftables.conf")
    # In a network of its own: only its root may ask the kernel, even if it is only to check.
    passes("unshare", "-rn", "/usr/sbin/nft", "-c", "-f", box.root / "etc/nftables.conf")


@pytest.mark.parametrize("servers", [[], ["ntp.lab", "10.0.0.1"]], ids=["default", "given"])
def test_chrony_takes_the_time_servers(servers: list[str], box: Places) -> None:
    configure(box, time_servers=servers)
    boot(box)
    printed = passes("/usr/sbin/chronyd", "-p", "-f", box.root / "etc/chrony/sources.d/dertwin.sources")
    assert all(f"server {server} iburst" in printed for server in servers)
    assert printed.count("iburst") == max(len(servers), 1)


def test_sshd_takes_its_config_and_only_keys_log_in(box: Places) -> None:
    configure(box, ssh_keys=[KEY])
    boot(box)
    Path("/run/sshd").mkdir(exist_ok=True)
    printed = passes("/usr/sbin/sshd", "-T", "-f", box.root / "etc/ssh/sshd_config.d/dertwin.conf")
    told = set(printed.lower().splitlines())
    assert {"passwordauthentication no", "kbdinteractiveauthentication no", "permitrootlogin no"} <= told
    assert {"authenticationmethods publickey", "allowusers bench"} <= told


def test_the_host_key_is_made_once(box: Places) -> None:
    boot(box)
    key = box.data / "ssh/ssh_host_ed25519_key"
    first = key.read_bytes()
    assert key.stat().st_mode & 0o777 == 0o600
    # As a power cut in the middle of the first boot leaves it.
    (box.data / "ssh/new").write_text("")
    boot(box)
    assert key.read_bytes() == first
    assert passes("ssh-keygen", "-y", "-f", key).split()[1] in Path(f"{key}.pub").read_text()


def test_a_key_that_was_cut_off_is_made_anew(box: Places) -> None:
    (box.data / "ssh").mkdir()
    (box.data / "ssh/new").write_text("")
    boot(box)
    assert (box.data / "ssh/ssh_host_ed25519_key").read_text().startswith("-----BEGIN OPENSSH")


@pytest.mark.parametrize("left", ["", "-----BEGIN OPENSSH PRIVATE KEY-----\n"])
def test_a_host_key_that_a_broken_disk_has_damaged_is_made_anew(left: str, box: Places) -> None:
    boot(box)
    key = box.data / "ssh/ssh_host_ed25519_key"
    key.write_text(left)
    boot(box)
    assert passes("ssh-keygen", "-y", "-f", key).split()[1] in Path(f"{key}.pub").read_text()


def test_wpa_supplicant_takes_any_name_and_password(box: Places) -> None:
    configure(box, wifi={"ssid": 'my "net"\u00e9', "psk": 'a "quoted" \\ one', "country": "DE"})
    boot(box)
    config = box.root / "etc/wpa_supplicant/wpa_supplicant-wlan0.conf"
    assert config.stat().st_mode & 0o777 == 0o600
    command = ["/usr/sbin/wpa_supplicant", "-D", "none", "-i", "dertwin0", "-c", config]
    done = subprocess.run(command, capture_output=True, text=True, timeout=20)
    assert "No such device" in done.stdout + done.stderr  # the config is read before
    assert "parse" not in done.stdout + done.stderr
    assert "Type=wlan" in read(box, "etc/systemd/network/10-dertwin-wifi.network")


def test_the_key_of_a_wifi_is_that_of_wpa_passphrase(box: Places) -> None:
    configure(box, wifi={"ssid": "lab", "psk": "correct horse", "country": "DE"})
    boot(box)
    written = read(box, "etc/wpa_supplicant/wpa_supplicant-wlan0.conf")
    (line,) = [
        line for line in passes("wpa_passphrase", "lab", "correct horse").splitlines() if "\tpsk" in line
    ]
    assert line.strip() in written


def test_a_web_config_is_copied_with_what_it_names_and_only_for_the_service(box: Places) -> None:
    certificate, key = Authority(box.user_files).issue("box")
    tls = f"tls_server_config: {{cert_file: {certificate.name}, key_file: {key.name}}}\n"
    (box.user_files / "web.yaml").write_text(tls)
    configure(box, metrics={**EVERYWHERE, "web_config": "web.yaml"})
    assert "web.yaml" not in boot(box)
    assert "--web-config /etc/dertwin-box/web/web.yaml" in read(box, "etc/dertwin-box/service.env")
    copied = {path.name: path for path in (box.root / "etc/dertwin-box/web").iterdir()}
    assert copied.keys() == {"web.yaml", certificate.name, key.name}
    assert all(path.stat().st_mode & 0o007 == 0 for path in copied.values())


@pytest.mark.parametrize("web_config", ["missing.yaml", "bench.yaml"])
def test_with_a_bad_web_config_the_metrics_stay_on_the_box(web_config: str, box: Places) -> None:
    configure(box, metrics={**EVERYWHERE, "web_config": web_config})
    status = boot(box)
    assert web_config in status.partition("Wrong in bench.yaml")[2]
    assert read(box, "etc/dertwin-box/service.env") == 'DERTWIN_OPTIONS="--listen-metrics 127.0.0.1:9555"\n'
    assert "9100" not in read(box, "etc/nftables.conf")


def test_what_is_wrong_in_bench_yaml_is_in_status_txt_and_the_rest_counts(box: Places) -> None:
    configure(box, network={"address": "here"}, ssh_keys=[KEY, "nonsense"])
    status = boot(box)
    assert 'network.address: "here" is not allowed' in status
    assert 'ssh_keys[1]: "nonsense" is not allowed' in status
    assert "DHCP=yes" in read(box, ETHERNET)
    assert read(box, "etc/ssh/authorized_keys/bench") == f"{KEY}\n"


def test_a_box_without_a_disk_is_reachable_all_the_same(box: Places) -> None:
    box.data.rmdir()
    box.data.write_text("this is no folder")
    put_on_card(box, site("mine"))
    configure(box, ssh_keys=[KEY])
    status = boot(box)
    assert "the site cannot be kept" in status
    assert served(box)["site_name"] == "mine"
    key = read(box, "etc/ssh/sshd_config.d/dertwin.conf").split()[1]
    assert Path(key).is_relative_to(box.root)
    assert Path(key).exists()


def test_status_txt_is_only_written_when_it_says_something_new(box: Places) -> None:
    boot(box)
    status = box.user_files / "status.txt"
    os.utime(status, (1, 1))
    boot(box)
    assert status.stat().st_mtime == 1
    status.write_bytes(b"\xff\x00torn")
    assert boot(box).startswith("dertwin-")
