"""A real service on a real socat pair: everything that a shared line may carry, seen by a raw client."""

from collections.abc import Iterator

import pytest
from support import bus
from support.service import service

from dertwin.modbus.rtu import frame

ROUNDS = 25

MAP = """
registers:
  - name: setpoint
    internal_name: active_power_setpoint_w
    address: 1000
    type: int16
    count: 1
    func: 0x06
    direction: write
"""


@pytest.fixture(scope="module")
def line(tmp_path_factory: pytest.TempPathFactory) -> Iterator[bus.Bus]:
    folder = tmp_path_factory.mktemp("bus")
    (folder / "map.yaml").write_text(MAP)
    port = {"kind": "modbus_rtu", "port": str(folder / "line"), "baudrate": 115200, "fallback": "pty"}
    config = {
        "register_map_root": ".",
        "assets": [
            {"type": "bess", "protocols": [{**port, "unit_id": unit_id, "register_map": "map.yaml"}]}
            for unit_id in bus.OWN_UNITS
        ],
    }
    with service(config, folder):
        client = bus.Bus(str(folder / "line_client"))
        yield client
        client.close()


@pytest.mark.parametrize("name", list(bus.CASES))
def test_every_own_request_is_answered_and_nothing_else(line: bus.Bus, name: str) -> None:
    tally = bus.run(name, line, ROUNDS)
    assert tally.requests > 0
    assert tally.good == tally.requests
    assert tally.out_of_turn == 0


def test_a_broadcast_write_acts_on_every_unit(line: bus.Bus) -> None:
    for value in (1234, 4321):
        line.send(frame(0, b"\x06\x03\xe8" + value.to_bytes(2, "big")))
        assert line.heard_within(0.05) == b""
        for unit_id in bus.OWN_UNITS:
            line.send(bus.read_request(unit_id))
            assert line.receive(7) == bus.read_reply(unit_id, value.to_bytes(2, "big"))
