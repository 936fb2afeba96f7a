"""What keeps hostile input from filling the disk, and the log from stopping the service."""

import json
import signal
import socket
import subprocess
import sys
from pathlib import Path

from structlog.testing import capture_logs
from support.service import free_port

from bench.log import OncePerMinute


def test_a_peer_has_a_line_a_minute_and_peers_do_not_silence_each_other() -> None:
    now = 0.0
    once = OncePerMinute(lambda: now)
    with capture_logs() as log:
        for second in range(121):
            now = float(second)
            once("10.0.0.1", "closed", reason="nonsense")
            if second == 30:
                once("10.0.0.2", "closed", reason="nonsense")
    assert [line["peer"] for line in log] == ["10.0.0.1", "10.0.0.2", "10.0.0.1", "10.0.0.1"]
    assert log[0] == {
        "event": "closed",
        "log_level": "warning",
        "peer": "10.0.0.1",
        "reason": "nonsense",
    }


def test_a_peer_that_never_stops_is_remembered_while_thousands_of_others_come_and_go() -> None:
    now = 0.0
    once = OncePerMinute(lambda: now)
    with capture_logs() as log:
        for other in range(5000):
            now += 0.01
            once("10.0.0.1", "closed")
            once(f"10.1.{other // 256}.{other % 256}", "closed")
    assert sum(line["peer"] == "10.0.0.1" for line in log) == 1


def test_a_log_that_nobody_reads_any_more_does_not_stop_the_service(tmp_path: Path) -> None:
    """`dertwin run 2>&1 | head -1`: the pipe breaks, and the links go on."""
    port = free_port()
    config = {"assets": [{"type": "bess", "ip": "127.0.0.1", "port": port}]}
    (tmp_path / "site.json").write_text(json.dumps(config))
    command = [sys.executable, "-m", "bench.cli", "run", "-c", str(tmp_path / "site.json")]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE) as process:
        assert process.stdout
        assert process.stderr
        process.stderr.close()
        assert b"Serving" in process.stdout.readline()
        with socket.create_connection(("127.0.0.1", port)) as client:
            client.sendall(b"\x00\x01\x00\x00\xff\xff\x01")  # a length that is worth a line in the log
            assert client.recv(1) == b""
        with socket.create_connection(("127.0.0.1", port)) as client:
            client.sendall(bytes.fromhex("0001 0000 0006 01 04 0000 0001"))
            assert client.recv(256)[:4] == b"\x00\x01\x00\x00"
        process.send_signal(signal.SIGTERM)
        assert process.wait(timeout=10) == 0
