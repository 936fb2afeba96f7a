"""Files that the tests put on a card."""

import json
from typing import Any

KEY = "operator"
FIRST, SECOND = "FT1AAAAA", "FT2BBBBB"
STRANGERS = ("FT8XXXXX", "FT9YYYYY")

BENCH_YAML = """\
ssh_keys:
  - {key}
"""


def _asset(kind: str, name: str, tcp: int, adapter: str, unit_id: int, register_map: str, **more: Any) -> Any:
    return {
        "type": kind,
        "asset_id": name,
        **more,
        "protocols": [
            {
                "kind": "modbus_tcp",
                "ip": "0.0.0.0",
                "port": tcp,
                "unit_id": unit_id,
                "register_map": register_map,
            },
            {
                "kind": "modbus_rtu",
                "port": {"serial": adapter},
                "baudrate": 19200,
                "unit_id": unit_id,
                "register_map": register_map,
            },
        ],
    }


_SITE: dict[str, Any] = {
    "site_name": "two-lines",
    "start_time_h": 12.0,
    "external_models": {"irradiance": {"peak": 1000.0, "sunrise": 6.0, "sunset": 18.0}},
    "assets": [
        _asset("bess", "bess-1", 55001, FIRST, 1, "bess_modbus.yaml", capacity_kwh=100.0, initial_soc=42.0,
               max_charge_kw=30.0, max_discharge_kw=30.0),
        _asset("inverter", "pv-1", 55002, FIRST, 2, "pv_inverter_modbus.yaml", rated_kw=20.0),
        _asset("energy_meter", "meter-1", 55003, SECOND, 1, "energy_meter_modbus.yaml"),
    ],
}  # fmt: skip
SITE = json.dumps(_SITE, indent=2)
OTHER_SITE = json.dumps(
    {
        "site_name": "other-site",
        "assets": [
            {
                "type": "bess",
                "asset_id": "bess-9",
                "initial_soc": 77.0,
                "protocols": [
                    {"kind": "modbus_tcp", "ip": "0.0.0.0", "port": 55011, "register_map": "bess_modbus.yaml"}
                ],
            }
        ],
    }
)
BAD_SITE = OTHER_SITE.replace("77.0", "770.0")
