"""What keeps hostile input from filling the disk."""

from structlog.testing import capture_logs

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
