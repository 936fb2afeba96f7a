"""What all asset configs share: the binding in two spellings."""

from typing import Any

import pytest
from pydantic import ValidationError

from dertwin.bindings import TcpBinding
from dertwin.devices.bess import BessConfig
from dertwin.devices.chp import ChpConfig
from dertwin.devices.meter import EnergyMeterConfig
from dertwin.devices.pv import PvInverterConfig


def meter(**config: Any) -> EnergyMeterConfig:
    return EnergyMeterConfig.model_validate({"type": "energy_meter", **config})


def test_the_short_spelling_is_one_modbus_tcp_binding() -> None:
    binding = {"ip": "127.0.0.1", "port": 55001, "unit_id": 3, "register_map": "meter.yaml"}
    assert meter(**binding) == meter(protocols=[{"kind": "modbus_tcp", **binding}])
    assert meter(port=55001).protocols == [TcpBinding(kind="modbus_tcp", port=55001)]


def test_an_asset_without_a_binding_is_one_for_use_as_a_library() -> None:
    assert meter().protocols == []


@pytest.mark.parametrize(
    ("config", "said"),
    [
        ({"port": 55001, "protocols": []}, "write them in `protocols` or on the asset, not both"),
        ({"unit_id": 3}, "port"),
        ({"port": 99999}, "less than or equal to 65535"),
        ({"asset_id": ""}, "at least 1 character"),
        ({"grid_protection": {}}, "grid_protection\n  Extra inputs"),
    ],
)
def test_a_binding_or_name_that_makes_no_sense_is_refused(config: dict[str, Any], said: str) -> None:
    with pytest.raises(ValidationError, match=said):
        meter(**config)


@pytest.mark.parametrize(
    ("config", "type_name"), [(BessConfig, "bess"), (PvInverterConfig, "inverter"), (ChpConfig, "chp")]
)
def test_what_feeds_the_grid_has_a_protection_with_known_keys(config: Any, type_name: str) -> None:
    unit = config.model_validate({"type": type_name, "grid_protection": {"reconnect_s": 5}})
    assert unit.grid_protection.reconnect_s == 5.0
    with pytest.raises(ValidationError, match="Extra inputs"):
        config.model_validate({"type": type_name, "grid_protection": {"reconnect": 5}})
