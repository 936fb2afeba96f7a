"""The small site that most link tests serve: batteries with a setpoint and a heartbeat to write and read."""

import struct
from pathlib import Path
from typing import Any

# Gaps read as zeros, so that one request can ask for the most that a reply may hold.
MAP = """
gaps: zero
registers:
  - {name: setpoint, internal_name: active_power_setpoint_w, address: 0, type: int16, count: 1,
     func: 0x06, direction: write}
  - {name: heartbeat, internal_name: heartbeat, address: 199, type: uint16, count: 1,
     func: 0x06, direction: write}
"""
READ_SETPOINT = b"\x03\x00\x00\x00\x01"
READ_MOST = b"\x03\x00\x00\x00\x7d"


def write_setpoint(value: int) -> bytes:
    return struct.pack(">BHh", 6, 0, value)


def setpoint_is(value: int) -> bytes:
    return struct.pack(">BBh", 3, 2, value)


def rtu(port: Path | str, unit_id: int = 1, **settings: Any) -> dict[str, Any]:
    """Return a binding to a serial line."""
    return {"kind": "modbus_rtu", "port": str(port), "unit_id": unit_id, **settings}


def battery(*bindings: dict[str, Any], **config: Any) -> dict[str, Any]:
    """Return the config of a battery; bindings of no other kind are Modbus TCP on the loopback."""
    tcp = {"kind": "modbus_tcp", "ip": "127.0.0.1"}
    protocols = [
        {**({} if binding.get("kind") == "modbus_rtu" else tcp), "register_map": "map.yaml", **binding}
        for binding in bindings
    ]
    return {"type": "bess", **config, "protocols": protocols}


def site(folder: Path, *assets: dict[str, Any], **config: Any) -> dict[str, Any]:
    """Return the config of a site whose maps are in `folder`, and put MAP there."""
    (folder / "map.yaml").write_text(MAP)
    return {"register_map_root": str(folder), "assets": list(assets), **config}
