"""A site on which all verdict packs can run, and parameters for each of them."""

from typing import Any

RATED_W = 80e3
SITE: dict[str, Any] = {
    "external_models": {"irradiance": {"peak": 0.0}},
    "assets": [
        {
            "type": "bess", "port": 55001, "capacity_kwh": 200, "max_charge_kw": 80, "max_discharge_kw": 80,
            "ramp_rate_kw_per_s": 400,
        },
        {"type": "energy_meter", "port": 55002},
    ],
}  # fmt: skip
WORD = {"type": "int32"}
WITH: dict[str, dict[str, Any]] = {
    "fcr_d": {"devices": ["bess-1"], "direction": "up", "capacity_w": RATED_W},
    "fcr_n": {"devices": ["bess-1"], "capacity_w": RATED_W},
    "ffr": {"devices": ["bess-1"], "capacity_w": RATED_W},
    "lfsm": {"devices": ["bess-1"], "mode": "over", "rated_w": RATED_W},
    "comm_loss": {
        "cuts": [
            {
                "device": "bess-1", "watchdog_s": 20.0,
                "safe": [{"signal": "bess-1.active_power_w", "low": -100.0, "high": 100.0}],
            }
        ]
    },
    "power_limit": {
        "limit_w": 4200.0, "load_w": 11e3, "reach_within_s": 10.0, "hold_s": 30.0, "release_within_s": 10.0,
        "announce": {"write": {"energy_meter-1.heartbeat": 1}},
        "release": {"write": {"energy_meter-1.heartbeat": 2}},
    },
    "manners": {"devices": ["bess-1", "energy_meter-1"]},
    "latency": {
        "quantity": "load_w", "levels": [5e3, 25e3], "count": 10,
        "measurement": WORD | {"device": "energy_meter-1", "address": 12}, "measurement_change": 5e3,
        "command": WORD | {"device": "bess-1", "address": 1004}, "command_change": 5e3,
        "power": "bess-1.active_power_w", "write_within_s": 0.5, "power_within_s": 1.0,
    },
}  # fmt: skip
