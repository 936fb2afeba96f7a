"""TLS and users as Prometheus exporters have them, re-read without a restart, refused in one line a fault."""

import base64
import json
import os
import ssl
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import bcrypt
import pytest
from support.certificates import Authority
from support.inprocess import Running, running
from support.prometheus import needs_prometheus, prometheus
from support.service import free_port, wait_for
from support.sites import battery, site
from support.watch import get, raw, watched

from bench.web_config import read_web_config
from dertwin.config_errors import ConfigErrors

PASSWORD = "correct horse"
HASH = bcrypt.hashpw(PASSWORD.encode(), bcrypt.gensalt(4)).decode()


@pytest.fixture
def bench(tmp_path: Path) -> Iterator[Running]:
    with running(site(tmp_path, battery({"port": free_port()})), tmp_path) as bench:
        yield bench


@pytest.fixture
def authority(tmp_path: Path) -> Authority:
    folder = tmp_path / "certificates"
    folder.mkdir()
    return Authority(folder)


def write(folder: Path, **config: Any) -> Path:
    """Write a web config so that it is seen to have changed, however fast the test is."""
    path = folder / "web.yml"
    new = folder / "web.yml.new"
    new.write_text(json.dumps(config))
    os.replace(new, path)
    return path


def tls_config(authority: Authority, **more: str) -> dict[str, str]:
    certificate, key = authority.issue("server")
    return {"cert_file": str(certificate), "key_file": str(key), **more}


def trusting(authority: Authority) -> ssl.SSLContext:
    return ssl.create_default_context(cafile=str(authority.certificate))


def basic(user: str, password: str) -> dict[str, str]:
    return {"Authorization": f"Basic {base64.b64encode(f'{user}:{password}'.encode()).decode()}"}


def test_only_users_with_their_password_may_read(bench: Running, tmp_path: Path) -> None:
    web = write(tmp_path, basic_auth_users={"prometheus": HASH})
    with watched(bench, web) as port:
        for path in ("/metrics", "/status", "/healthz", "/nothing"):
            status, text, response = get(port, path)
            assert status == 401
            assert response.headers["WWW-Authenticate"] == 'Basic realm="dertwin"'
            assert "dertwin_" not in text
        assert get(port, "/metrics", headers=basic("prometheus", PASSWORD)).status == 200
        assert get(port, "/metrics", headers=basic("prometheus", PASSWORD)).status == 200
        for user, password in (("prometheus", "wrong"), ("nobody", PASSWORD), ("", ""), ("prometheus", "")):
            assert get(port, "/metrics", headers=basic(user, password)).status == 401


@pytest.mark.parametrize(
    "authorization",
    [
        "",
        "Basic",
        "Basic !!!",
        "Bearer abc",
        "Basic " + base64.b64encode(b"\xff\xfe:x").decode(),
        "Basic cHJvbWV0aGV1cw==",
    ],
)
def test_an_odd_authorization_is_none(bench: Running, tmp_path: Path, authorization: str) -> None:
    web = write(tmp_path, basic_auth_users={"prometheus": HASH})
    with watched(bench, web) as port:
        assert get(port, "/metrics", headers={"Authorization": authorization}).status == 401


def test_a_password_with_colons_and_of_any_length_works(bench: Running, tmp_path: Path) -> None:
    password = "a:b" * 30
    hashed = bcrypt.hashpw(password.encode()[:72], bcrypt.gensalt(4)).decode()
    with watched(bench, write(tmp_path, basic_auth_users={"u": hashed})) as port:
        assert get(port, "/healthz", headers=basic("u", password)).status == 200
        assert get(port, "/healthz", headers=basic("u", "a\0b")).status == 401


def test_users_are_read_again_without_a_restart_and_a_broken_file_changes_nothing(
    bench: Running, tmp_path: Path
) -> None:
    web = write(tmp_path, basic_auth_users={"old": HASH})
    with watched(bench, web) as port:
        assert get(port, "/healthz", headers=basic("old", PASSWORD)).status == 200
        write(tmp_path, basic_auth_users={"new": HASH})
        assert get(port, "/healthz", headers=basic("old", PASSWORD)).status == 401
        assert get(port, "/healthz", headers=basic("new", PASSWORD)).status == 200
        write(tmp_path, basic_auth_user={"third": HASH})
        assert get(port, "/healthz", headers=basic("new", PASSWORD)).status == 200
        assert get(port, "/healthz").status == 401
        web.unlink()
        assert get(port, "/healthz").status == 401
        write(tmp_path, basic_auth_users={})
        assert get(port, "/healthz").status == 200


def test_the_pages_are_served_over_tls(bench: Running, tmp_path: Path, authority: Authority) -> None:
    web = write(tmp_path, tls_server_config=tls_config(authority))
    with watched(bench, web) as port:
        assert get(port, "/healthz", tls=trusting(authority)).status == 200
        assert not raw(port, b"GET /healthz HTTP/1.1\r\n\r\n").startswith(b"HTTP")
        assert get(port, "/healthz", tls=trusting(authority)).status == 200


def test_tls_can_be_turned_on_and_its_certificate_changed_without_a_restart(
    bench: Running, tmp_path: Path, authority: Authority
) -> None:
    web = write(tmp_path, basic_auth_users={})
    other_folder = tmp_path / "other"
    other_folder.mkdir()
    other = Authority(other_folder)
    with watched(bench, web) as port:
        assert get(port, "/healthz").status == 200
        write(tmp_path, tls_server_config=tls_config(authority))
        assert get(port, "/healthz", tls=trusting(authority)).status == 200
        # The same names, new files: what a renewal does.
        for renewed, used in zip(other.issue("server"), authority.issue("server"), strict=True):
            os.replace(renewed, used)
        assert get(port, "/healthz", tls=trusting(other)).status == 200
        with pytest.raises(ssl.SSLCertVerificationError):
            get(port, "/healthz", tls=trusting(authority))


def test_clients_without_a_certificate_are_refused_when_one_is_required(
    bench: Running, tmp_path: Path, authority: Authority
) -> None:
    config = tls_config(
        authority, client_auth_type="RequireAndVerifyClientCert", client_ca_file=str(authority.certificate)
    )
    with watched(bench, write(tmp_path, tls_server_config=config)) as port:
        with pytest.raises((ssl.SSLError, ConnectionError)):
            get(port, "/healthz", tls=trusting(authority))
        known = trusting(authority)
        known.load_cert_chain(*authority.issue("client"))
        assert get(port, "/healthz", tls=known).status == 200


def test_an_old_version_of_tls_is_refused(bench: Running, tmp_path: Path, authority: Authority) -> None:
    web = write(tmp_path, tls_server_config=tls_config(authority, min_version="TLS13"))
    with watched(bench, web) as port:
        old = trusting(authority)
        old.maximum_version = ssl.TLSVersion.TLSv1_2
        with pytest.raises((ssl.SSLError, ConnectionError)):
            get(port, "/healthz", tls=old)
        assert get(port, "/healthz", tls=trusting(authority)).status == 200


@needs_prometheus
def test_prometheus_scrapes_over_tls_as_a_user(bench: Running, tmp_path: Path, authority: Authority) -> None:
    users = {"prometheus": HASH}
    web = write(tmp_path, tls_server_config=tls_config(authority), basic_auth_users=users)
    scrape = {
        "scheme": "https",
        "basic_auth": {"username": "prometheus", "password": PASSWORD},
        "tls_config": {"ca_file": str(authority.certificate), "server_name": "localhost"},
    }
    with watched(bench, web) as port, prometheus(port, tmp_path, **scrape) as server:
        wait_for(lambda: server.ask('up{job="dertwin"} == 1'), 20.0, "a scrape")


FAULTS: list[tuple[dict[str, Any], str]] = [
    ({"basic_auth_user": {}}, "basic_auth_user: unknown key; the closest is basic_auth_users"),
    (
        {"basic_auth_users": {"a": "secret"}},
        'basic_auth_users: the password of "a" is no bcrypt hash; make one: htpasswd',
    ),
    ({"tls_server_config": {}}, "tls_server_config.cert_file: is missing"),
    (
        {"tls_server_config": {"cert_file": "no.pem", "key_file": "no.key"}},
        'tls_server_config.cert_file: "no.pem" cannot be read: No such file or directory',
    ),
    (
        {"tls_server_config": {"cert_file": "GOOD", "key_file": "GOOD", "min_version": "TLS10"}},
        'tls_server_config.min_version: "TLS10" is not allowed',
    ),
    (
        {
            "tls_server_config": {
                "cert_file": "GOOD",
                "key_file": "GOOD",
                "client_auth_type": "RequestClientCert",
            }
        },
        'tls_server_config.client_auth_type: "RequestClientCert" is not allowed',
    ),
    (
        {
            "tls_server_config": {
                "cert_file": "GOOD",
                "key_file": "GOOD",
                "client_auth_type": "RequireAndVerifyClientCert",
            }
        },
        "tls_server_config.client_auth_type: client_ca_file and a client_auth_type that verifies",
    ),
    (
        {"tls_server_config": {"cert_file": "web.yml", "key_file": "web.yml"}},
        'tls_server_config.cert_file: "web.yml" and "web.yml" are no certificate and its key: ',
    ),
]


@pytest.mark.parametrize(("config", "line"), FAULTS)
def test_a_fault_is_told_in_a_line_with_its_place(
    tmp_path: Path, authority: Authority, config: dict[str, Any], line: str
) -> None:
    certificate, key = authority.issue("server")
    text = (
        json.dumps(config)
        .replace('"GOOD"', json.dumps(str(certificate)), 1)
        .replace('"GOOD"', json.dumps(str(key)))
    )
    path = write(tmp_path, **json.loads(text))
    with pytest.raises(ConfigErrors) as raised:
        read_web_config(path)
    lines = [str(error) for error in raised.value.errors]
    assert lines[0].startswith(f"{path}: {line}")
    assert not any("\n" in each or "secret" in each for each in lines)


def test_a_service_with_a_broken_web_config_does_not_start(tmp_path: Path) -> None:
    (tmp_path / "site.json").write_text(json.dumps(site(tmp_path, battery({"port": free_port()}))))
    web = write(tmp_path, tls_server_config={"cert_file": "no.pem", "key_file": "no.key"})
    done = subprocess.run(
        [sys.executable, "-m", "bench.cli", "run", "-c", tmp_path / "site.json", "--web-config", web],
        capture_output=True,
        text=True,
        timeout=30,
    )
    assert done.returncode == 78
    assert [line for line in done.stderr.splitlines() if "no.key" in line or "no.pem" in line] == [
        f'{web}: tls_server_config.{key}: "{name}" cannot be read: No such file or directory'
        for key, name in (("cert_file", "no.pem"), ("key_file", "no.key"))
    ]


@pytest.mark.parametrize("address", ["9555", "host:", "host:0", "host:65536", "host:http", ""])
def test_an_address_that_is_none_is_refused(address: str) -> None:
    done = subprocess.run(
        [sys.executable, "-m", "bench.cli", "run", "-c", "x", "--listen-metrics", address],
        capture_output=True,
        text=True,
        timeout=30,
    )
    assert done.returncode == 2
    assert "use HOST:PORT, :PORT (any host), or none" in done.stderr
