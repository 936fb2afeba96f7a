"""The configs that come with the project: each is good, and is the site that its users were promised."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest
import yaml

from bench.check import check_site, shipped_maps
from dertwin.bindings import RtuBinding, TcpBinding
from dertwin.config import SiteConfig, asset_ids, load_site
from dertwin.site import build_site

CONFIGS = Path(__file__).parent.parent / "configs"
NAMES = (
    "simple_config",
    "demo_config",
    "full_site_config",
    "mixed_protocol_config",
    "multidrop_config",
)


def load(name: str) -> SiteConfig:
    return load_site(CONFIGS / f"{name}.json")


def types(config: SiteConfig) -> list[str]:
    return [asset.type for asset in config.assets]


def test_no_config_is_shipped_that_is_not_tested() -> None:
    assert {path.stem for path in CONFIGS.glob("*_config.*")} == set(NAMES)


@pytest.mark.parametrize("name", NAMES)
def test_a_shipped_config_is_good_and_takes_the_shipped_maps(name: str) -> None:
    checked = check_site(CONFIGS / f"{name}.json")
    assert checked.map_roots == (CONFIGS, shipped_maps())
    assert (
        checked.config.site_name
        == name.removesuffix("_config").replace("_", "-").removesuffix("-site") + "-site"
    )
    for asset, layouts in zip(checked.config.assets, checked.layouts.values(), strict=True):
        assert asset.protocols
        assert len(layouts) == len(asset.protocols)


@pytest.mark.parametrize("name", NAMES)
def test_a_shipped_config_steps_for_a_minute(name: str) -> None:
    site = build_site(load(name))
    for _ in range(600):
        snapshot = site.step()
    measurements: Mapping[str, Any] = snapshot.measurements
    assert snapshot.time_s == pytest.approx(60.0)
    generated = sum(
        measurements[asset_id].active_power_w
        for asset_id, asset in zip(asset_ids(site.config.assets), site.config.assets, strict=True)
        if asset.type != "energy_meter"
    )
    assert snapshot.pcc.active_power_w == pytest.approx(snapshot.conditions.load_w - generated)


@pytest.mark.parametrize("name", NAMES)
def test_a_shipped_config_is_the_same_site_when_written_in_yaml(name: str, tmp_path: Path) -> None:
    same = tmp_path / f"{name}.yaml"
    same.write_text((CONFIGS / f"{name}.json").read_text())
    block = tmp_path / f"{name}.yml"
    block.write_text(yaml.safe_dump(yaml.safe_load(same.read_text())))
    assert load_site(same).model_dump() == load_site(block).model_dump() == load(name).model_dump()


def test_the_simple_site_is_one_battery_on_tcp() -> None:
    config = load("simple_config")
    assert types(config) == ["bess"]
    (binding,) = config.assets[0].protocols
    assert isinstance(binding, TcpBinding)
    assert (binding.ip, binding.port, binding.unit_id) == ("0.0.0.0", 55001, 1)


def test_the_demo_site_has_three_devices_on_three_ports() -> None:
    config = load("demo_config")
    assert types(config) == ["bess", "inverter", "energy_meter"]
    assert [asset.protocols[0].port for asset in config.assets] == [55001, 55002, 55003]


def test_the_full_site_has_every_type_of_device_external_model_and_event() -> None:
    config = load("full_site_config")
    assert sorted(types(config)) == ["bess", "bess", "chp", "energy_meter", "inverter"]
    models = config.external_models
    assert models.irradiance
    assert models.ambient_temperature
    assert models.grid_frequency
    assert models.grid_voltage
    assert {event.kind for event in config.events} == {
        "cloud_passage",
        "frequency_deviation",
        "load_step",
        "voltage_sag",
    }


def test_the_mixed_site_has_its_battery_on_tcp_and_the_rest_on_serial_lines_from_noon() -> None:
    config = load("mixed_protocol_config")
    assert config.start_time_h == 12.0
    assert types(config) == ["bess", "inverter", "energy_meter"]
    battery, pv, meter = (asset.protocols[0] for asset in config.assets)
    assert isinstance(battery, TcpBinding)
    assert isinstance(pv, RtuBinding)
    assert isinstance(meter, RtuBinding)
    assert (battery.ip, battery.port) == ("0.0.0.0", 55001)
    assert (pv.port, pv.baudrate, pv.unit_id) == ("/tmp/dertwin_pv", 9600, 1)
    assert (meter.port, meter.baudrate, meter.unit_id) == ("/tmp/dertwin_meter", 9600, 1)


def test_the_multidrop_site_has_several_units_on_one_line_and_on_one_tcp_port() -> None:
    bindings = [binding for asset in load("multidrop_config").assets for binding in asset.protocols]
    line = [binding.unit_id for binding in bindings if binding.port == "pty:bus"]
    port = [binding.unit_id for binding in bindings if binding.port == 55001]
    assert line == [1, 2, 3]
    assert port == [1, 2, 3]
