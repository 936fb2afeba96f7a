"""bench.yaml: what is good is used, and what is not is left out and told, whatever it is."""

import json
import tempfile
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from support.box import KEY

from bench.appliance.settings import BenchConfig, FixedNetwork, Metrics, read_settings

GOOD = f"""
hostname: lab-1
timezone: Europe/Berlin
network: {{address: 192.168.1.50/24, gateway: 192.168.1.1, dns: [192.168.1.1, 9.9.9.9]}}
wifi: {{ssid: my net, psk: correct horse, country: DE}}
ssh_keys: [{KEY}]
time_servers: [ntp.lab, 10.0.0.1]
metrics: {{address: 0.0.0.0, port: 9100}}
"""
ANYTHING = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(), inner, max_size=3),
    max_leaves=5,
)


def read(folder: Path, text: str) -> tuple[BenchConfig, list[str]]:
    file = folder / "bench.yaml"
    file.write_text(text)
    config, errors = read_settings(file)
    assert all(error.file == str(file) for error in errors)
    return config, [f"{error.place}: {error.message}" for error in errors]


def test_good_settings_are_used(tmp_path: Path) -> None:
    config, faults = read(tmp_path, GOOD)
    assert faults == []
    assert config.network == FixedNetwork(
        address="192.168.1.50/24", gateway="192.168.1.1", dns=["192.168.1.1", "9.9.9.9"]
    )
    assert (config.hostname, config.timezone, config.ssh_keys) == ("lab-1", "Europe/Berlin", [KEY])
    assert config.metrics == Metrics(address="0.0.0.0", port=9100)


@pytest.mark.parametrize("text", ["# nothing but a comment\n", "{}", "hostname:\nwifi:\n"])
def test_what_says_nothing_means_the_defaults(text: str, tmp_path: Path) -> None:
    assert read(tmp_path, text) == (BenchConfig(), [])


def test_no_file_means_the_defaults(tmp_path: Path) -> None:
    assert read_settings(tmp_path / "bench.yaml") == (BenchConfig(), ())


def test_what_is_no_document_at_all_means_the_defaults(tmp_path: Path) -> None:
    config, (fault,) = read(tmp_path, "hostname: [\n")
    assert config == BenchConfig()
    assert "line 2" in fault


# What is bad, where that is told, in which words, and what is left of the settings.
# fmt: off
BAD: list[tuple[str, str, str, dict[str, Any]]] = [
    ("hostname: my_box", "hostname", "letters, digits and hyphens", {}),
    ("hostname: 17", "hostname", "use a text", {}),
    ("timezone: Europe/Berlim", "timezone", "such as Europe/Berlin", {}),
    ("timezone: ../../etc/passwd", "timezone", "such as Europe/Berlin", {}),
    ("hostnme: a\ntimezone: Europe/Rome", "hostnme", "closest is hostname", {"timezone": "Europe/Rome"}),
    ("network: static", "network", "use dhcp, or address, gateway and dns", {}),
    ("network: {gateway: 10.0.0.1}", "network.address", "is missing", {}),
    ("network: {address: 10.0.0.1}", "network.address", "prefix length", {}),
    ("network: {address: 10.0.0.0/24}", "network.address", "prefix length", {}),
    ("network: {address: 10.0.0.5/24, gateway: 10.0.1.1}", "network.gateway", "an address in 10.0.0.0/24",
     {"network": FixedNetwork(address="10.0.0.5/24")}),
    ("network: {address: 10.0.0.5/24, dns: [a, 10.0.0.1, b]}", "network.dns[0]", "use an IP address",
     {"network": FixedNetwork(address="10.0.0.5/24", dns=["10.0.0.1"])}),
    (f"wifi: {{ssid: {'ä' * 17}, psk: long enough, country: DE}}", "wifi.ssid", "up to 32 bytes", {}),
    ("wifi: {ssid: a, psk: 12345678, country: DE}", "wifi.psk", "put it in quotes", {}),
    ("wifi: {ssid: a, psk: short, country: DE}", "wifi.psk", "8 to 63 characters", {}),
    ("wifi: {ssid: a, psk: long enough, country: Germany}", "wifi.country", "two letters", {}),
    (f"ssh_keys: [nonsense, {KEY}]", "ssh_keys[0]", "use the line in your .pub file", {"ssh_keys": [KEY]}),
    (f"ssh_keys: {KEY}", "ssh_keys", "use a list", {}),
    ("ssh_keys: ['-----BEGIN OPENSSH PRIVATE KEY-----']", "ssh_keys[0]", "is a private key", {}),
    (f'ssh_keys: ["{KEY}\\nssh-rsa AAAA"]', "ssh_keys[0]", "more than one line", {}),
    ("ssh_keys: ['command=\"x\" ssh-ed25519 AAAA']", "ssh_keys[0]", ".pub file", {}),
    ("time_servers: [a b, ntp.lab]", "time_servers[0]", "a host name or an IP address",
     {"time_servers": ["ntp.lab"]}),
    ("metrics: {address: everywhere}", "metrics.address", "use an IP address", {}),
    ("metrics: {address: 0.0.0.0, web_config: 5}", "metrics.web_config", "use a text", {}),
    ("metrics: {port: 0}", "metrics.port", "from 1 to 65535", {}),
    ("[hostname]", "", "use an object", {}),
]
# fmt: on


@pytest.mark.parametrize(("text", "place", "words", "left"), BAD, ids=[bad[0][:40] for bad in BAD])
def test_what_is_bad_is_left_out_and_told(
    text: str, place: str, words: str, left: dict[str, Any], tmp_path: Path
) -> None:
    config, faults = read(tmp_path, text)
    assert faults[0].startswith(f"{place}: ")
    assert words in faults[0]
    assert config == BenchConfig(**left)


def test_all_faults_are_told_at_once_and_the_good_is_used(tmp_path: Path) -> None:
    config, faults = read(tmp_path, GOOD.replace("9100", "0").replace("psk: correct horse", "psk: no"))
    assert [fault.split(":")[0] for fault in faults] == ["wifi.psk", "metrics.port"]
    assert (config.hostname, config.wifi, config.metrics) == ("lab-1", None, Metrics())


@pytest.mark.parametrize("psk", ["short", "12345678", "[secretsecret]"])
def test_a_password_is_never_told(psk: str, tmp_path: Path) -> None:
    _, faults = read(tmp_path, f"wifi: {{ssid: a, psk: {psk}, country: DE}}")
    assert faults
    assert not any(psk.strip("[]") in fault for fault in faults)


@given(st.dictionaries(st.sampled_from(list(BenchConfig.model_fields)), ANYTHING))
@settings(max_examples=100, deadline=None)
def test_whatever_is_written_there_are_settings(document: dict[str, Any]) -> None:
    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder) / "bench.yaml"
        file.write_text(json.dumps(document))
        assert isinstance(read_settings(file).config, BenchConfig)
