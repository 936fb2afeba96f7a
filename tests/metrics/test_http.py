"""The pages for those who watch: what they say, and what a hostile client can do to them."""

import json
import re
import socket
from collections.abc import Iterator
from pathlib import Path

import pytest
from prometheus_client.parser import text_string_to_metric_families
from support.inprocess import Running, running
from support.service import free_port, service, wait_for
from support.sites import battery, setpoint_is, site
from support.tcp import Client, ask
from support.watch import get, raw, watched

from bench.http import MAX_CONNECTIONS, MAX_HEAD_BYTES

GET = b"GET /healthz HTTP/1.1\r\nHost: x\r\n"


@pytest.fixture
def bench(tmp_path: Path) -> Iterator[Running]:
    with running(site(tmp_path, battery({"port": free_port()})), tmp_path) as bench:
        yield bench


def port_of(bench: Running) -> int:
    (link,) = bench.bench.links.values()
    return int(link.name.rpartition(":")[2])


def test_a_service_that_serves_is_alive_and_ready(bench: Running) -> None:
    with watched(bench) as port:
        assert get(port, "/healthz")[:2] == (200, "ok\n")
        assert get(port, "/readyz")[:2] == (200, "ok\n")


def test_a_link_that_is_down_makes_the_service_unready_but_not_dead(tmp_path: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        config = site(tmp_path, battery({"port": taken.getsockname()[1]}))
        with running(config, tmp_path) as bench, watched(bench) as port:
            status, text, _ = get(port, "/readyz")
            assert status == 503
            assert "Address already in use" in text
            assert get(port, "/healthz").status == 200
            document = json.loads(get(port, "/status").text)
            assert not document["ready"]
            assert document["reasons"] == text.splitlines()
            taken.close()
            wait_for(lambda: get(port, "/readyz").status == 200, what="readiness")


def test_a_clock_that_falls_behind_is_unready_then_dead(bench: Running) -> None:
    def fall_behind(seconds: float) -> None:
        clock = bench.bench.clock
        assert clock
        clock._now = lambda: clock._deadline() + seconds

    with watched(bench) as port:
        bench.call(bench.bench._tasks["tick"].cancel)
        bench.call(fall_behind, 2.0)
        assert get(port, "/readyz")[:2] == (503, "the next step is 2.0 s late\n")
        assert get(port, "/healthz").status == 200
        bench.call(fall_behind, 60.0)
        assert get(port, "/healthz")[:2] == (503, "the next step is 60.0 s late\n")


def test_a_site_that_its_caller_steps_is_never_late(tmp_path: Path) -> None:
    config = site(tmp_path, battery({"port": free_port()}), real_time=False)
    with running(config, tmp_path) as bench, watched(bench) as port:
        assert get(port, "/healthz").status == 200
        assert get(port, "/readyz").status == 200


def test_the_status_tells_devices_and_where_they_are(bench: Running) -> None:
    with watched(bench) as port:
        _, text, response = get(port, "/status")
        assert response.headers["Content-Type"] == "application/json"
        status = json.loads(text)
        assert (status["site"], status["ready"], status["step_s"]) == ("site", True, 0.1)
        ((link,),) = [device["links"] for device in status["devices"]]
        address = f"127.0.0.1:{port_of(bench)}"
        assert (link["link"], link["where"], link["unit_id"], link["up"]) == (
            f"tcp {address}",
            address,
            1,
            True,
        )
        steps = status["ticks"]["steps"]
        wait_for(lambda: json.loads(get(port, "/status").text)["ticks"]["steps"] > steps, what="a step")


def test_the_metrics_are_what_prometheus_reads(bench: Running) -> None:
    with watched(bench) as port:
        ask(port_of(bench))
        _, text, response = get(port, "/metrics")
        assert response.headers["Content-Type"] == "text/plain; version=0.0.4; charset=utf-8"
        families = {family.name: family for family in text_string_to_metric_families(text)}
        (requests,) = families["dertwin_modbus_requests"].samples
        assert requests.value == 1.0
        assert "process_resident_memory_bytes" in families


@pytest.mark.parametrize(
    ("request_bytes", "status"),
    [
        (b"POST /metrics HTTP/1.1\r\nContent-Length: 3\r\n\r\nabc", 405),
        (b"DELETE /status HTTP/1.0\r\n\r\n", 405),
        (b"GET /etc/passwd HTTP/1.1\r\n\r\n", 404),
        (b"GET /../../metrics HTTP/1.1\r\n\r\n", 404),
        (b"GET metrics HTTP/1.1\r\n\r\n", 400),
        (b"GET  /metrics HTTP/1.1\r\n\r\n", 400),
        (b"GET /metrics HTTP/2.0\r\n\r\n", 400),
        (b"GET /metrics\r\n\r\n", 400),
        (b"GET /met\0rics HTTP/1.1\r\n\r\n", 400),
        (b"GET /healthz HTTP/1.1\r\nno colon\r\n\r\n", 400),
        (b"GET /healthz HTTP/1.1\r\nName : x\r\n\r\n", 400),
        (b"GET /healthz HTTP/1.1\r\n: x\r\n\r\n", 400),
        (b"\xff\xfe\xfd\r\n\r\n", 400),
        (b"\r\n\r\n", 400),
        (GET + b"X: " + b"a" * MAX_HEAD_BYTES + b"\r\n\r\n", 431),
        (b"GET /" + b"a" * 10 * MAX_HEAD_BYTES, 431),
        (GET + b"Y: 1\r\n" * 500, 200),
    ],
)
def test_odd_requests_get_the_answer_of_the_standard(
    bench: Running, request_bytes: bytes, status: int
) -> None:
    with watched(bench) as port:
        if status == 200:
            request_bytes += b"\r\n"
        answer = raw(port, request_bytes)
        assert re.match(rb"HTTP/1\.1 %d " % status, answer) or (status == 431 and answer == b"")
        assert get(port, "/healthz").status == 200


def test_a_head_request_gets_the_head_only(bench: Running) -> None:
    with watched(bench) as port:
        status, text, response = get(port, "/status", "HEAD")
        assert (status, text) == (200, "")
        assert int(response.headers["Content-Length"]) > 100


def test_a_query_does_not_matter(bench: Running) -> None:
    with watched(bench) as port:
        assert get(port, "/healthz?verbose=1").status == 200


def test_clients_that_say_nothing_make_room_for_those_that_do(bench: Running) -> None:
    with watched(bench) as port:
        silent = [socket.create_connection(("127.0.0.1", port)) for _ in range(3 * MAX_CONNECTIONS)]
        for connection in silent[::2]:
            connection.sendall(b"GET /metr")
        assert get(port, "/healthz").status == 200
        assert ask(port_of(bench)) == setpoint_is(0)
        for connection in silent:
            connection.close()


def test_clients_that_neither_ask_nor_read_are_cut_off(
    bench: Running, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("bench.http.DEADLINE_S", 0.5)
    with watched(bench) as port, socket.socket() as deaf:
        deaf.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 1024)
        deaf.connect(("127.0.0.1", port))
        deaf.sendall(GET.replace(b"/healthz", b"/metrics"))
        slow = socket.create_connection(("127.0.0.1", port), timeout=5.0)
        slow.sendall(b"GET /heal")
        assert slow.recv(100) == b""
        assert get(port, "/metrics").status == 200


def test_a_device_that_comes_and_goes_does_so_in_the_metrics(bench: Running, tmp_path: Path) -> None:
    def devices(port: int) -> list[str]:
        return [
            sample.labels["device"]
            for family in text_string_to_metric_families(get(port, "/metrics").text)
            for sample in family.samples
            if sample.name == "dertwin_active_power_watts"
        ]

    odd = 'a "b" \\ c'
    with watched(bench) as port:
        assert devices(port) == ["bess-1"]
        bench.call(bench.bench.add_asset, {"type": "inverter", "asset_id": odd})
        wait_for(lambda: devices(port) == ["bess-1", odd], what="the new device")
        bench.call(bench.bench.remove_asset, "bess-1")
        wait_for(lambda: devices(port) == [odd], what="the device to go")
        assert "dertwin_link_up{" not in get(port, "/metrics").text


def test_a_port_that_is_taken_stops_nobody_and_is_tried_again(tmp_path: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        metrics, port = taken.getsockname()[1], free_port()
        config = site(tmp_path, battery({"port": port}))
        with service(config, tmp_path, "--listen-metrics", f"127.0.0.1:{metrics}") as running_service:
            assert ask(port) == setpoint_is(0)
            (down,) = running_service.events("link down")
            assert "Address already in use" in down["reason"]
            taken.close()
            wait_for(
                lambda: running_service.events("link up")[-1]["link"].startswith("http"), what="the pages"
            )
            assert get(metrics, "/readyz").status == 200
            with Client(port) as client:
                client.send(b"")
            assert running_service.stop()[0] == 0
