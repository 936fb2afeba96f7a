"""A whole site: the balance, run-time changes, commands, the public API."""

import math
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pydantic import ValidationError

from dertwin.devices.chp import ChpConfig
from dertwin.devices.device import Command
from dertwin.site import Site, SiteSnapshot, build_site

ALL: list[dict[str, Any]] = [
    {"type": "energy_meter"},
    {"type": "bess", "initial_soc": 60.0},
    {"type": "inverter", "rated_kw": 30.0},
    {"type": "bess", "max_discharge_kw": 50.0, "max_charge_kw": 50.0},
    {"type": "chp", "rated_kw": 100.0},
]
RUN = Command("start_stop_standby", 1.0)


def site(*assets: dict[str, Any], **config: Any) -> Site:
    return build_site({"assets": list(assets or ALL), **config})


def setpoint(power_w: float) -> Command:
    return Command("active_power_setpoint_w", power_w)


def generated(snapshot: SiteSnapshot, name: str) -> list[float]:
    return [
        getattr(m, name) for key, m in snapshot.measurements.items() if not key.startswith("energy_meter")
    ]


def test_a_site_is_built_from_a_dict_stepped_and_read() -> None:
    plant = site({"type": "bess"}, {"type": "energy_meter"}, load={"base_w": 7000.0})
    snapshot = plant.step({"bess-1": (RUN, setpoint(5000.0))}, dt_s=1.0)
    assert snapshot.measurements["bess-1"].active_power_w == 5000.0
    assert snapshot.measurements["energy_meter-1"].active_power_w == 2000.0
    assert snapshot.pcc == (2000.0, 0.0)
    assert plant.time_s == snapshot.time_s == 1.0


def test_before_the_first_step_the_snapshot_is_that_of_the_start() -> None:
    plant = site(start_time_h=12.0)
    assert plant.snapshot.time_s == 0.0
    assert plant.snapshot.conditions.time_s == 12 * 3600.0
    assert set(plant.snapshot.measurements) == set(plant.devices)


def test_a_step_takes_the_length_of_the_config_unless_told_otherwise() -> None:
    plant = site(step=0.25)
    assert plant.step().time_s == 0.25
    assert plant.step(dt_s=60.0).time_s == 60.25


@settings(max_examples=30, deadline=None)
@given(
    st.lists(
        st.tuples(
            st.floats(-60e3, 60e3),
            st.floats(-10e3, 10e3),
            st.floats(0.0, 1.1),
            st.sampled_from([0.0, 0.01, 0.1, 1.0, 60.0, 3600.0]),
        ),
        min_size=1,
        max_size=30,
    )
)
def test_the_meter_shows_load_less_generation_of_the_same_step(
    demands: list[tuple[float, float, float, float]],
) -> None:
    plant = site(external_models={"irradiance": {}}, start_time_h=10.0)
    plant.step({"bess-1": (RUN,), "bess-2": (RUN,), "chp-1": (Command("start_stop", 1.0),)})
    imported_wh = plant.snapshot.measurements["energy_meter-1"].import_energy_wh
    exported_wh = plant.snapshot.measurements["energy_meter-1"].export_energy_wh
    for power_w, reactive_var, ratio, dt_s in demands:
        snapshot = plant.step(
            {
                "bess-1": (setpoint(power_w), Command("reactive_power_setpoint_var", reactive_var)),
                "bess-2": (setpoint(-power_w),),
                "inverter-1": (Command("active_power_limit", ratio),),
                "chp-1": (Command("power_setpoint_ratio", ratio),),
            },
            dt_s,
        )
        meter = snapshot.measurements["energy_meter-1"]
        expected_w = math.fsum(
            [snapshot.conditions.load_w, *(-p for p in generated(snapshot, "active_power_w"))]
        )
        expected_var = -math.fsum(generated(snapshot, "reactive_power_var"))
        assert meter.active_power_w == pytest.approx(expected_w, rel=1e-9, abs=1e-9)
        assert meter.reactive_power_var == pytest.approx(expected_var, rel=1e-9, abs=1e-9)
        imported_wh += max(0.0, expected_w) * dt_s / 3600.0
        exported_wh += max(0.0, -expected_w) * dt_s / 3600.0
    assert meter.import_energy_wh == pytest.approx(imported_wh, rel=1e-9, abs=1e-9)
    assert meter.export_energy_wh == pytest.approx(exported_wh, rel=1e-9, abs=1e-9)


DAY = {
    "external_models": {
        "irradiance": {},
        "ambient_temperature": {},
        "grid_frequency": {"noise_std": 0.01, "seed": 1},
        "grid_voltage": {"drift_std": 3.0, "seed": 2},
    },
    "load": {"profile": [[0, 9e3], [8, 70e3], [20, 31e3]]},
}


def test_over_a_week_the_meter_counts_the_energy_of_the_load_less_that_of_all_units() -> None:
    plant = site(**DAY)
    start = {"bess-1": (RUN,), "bess-2": (RUN,), "chp-1": (Command("start_stop", 1.0),)}
    plant.step(start, dt_s=0.0)
    shown: dict[str, list[float]] = {name: [] for name in ("load", "import", "export", *plant.devices)}
    for minute in range(7 * 24 * 60):
        power_w = (-15e3, 4e3, 18e3)[minute // 300 % 3]
        snapshot = plant.step(
            {"bess-1": (setpoint(power_w),), "chp-1": (Command("power_setpoint_ratio", minute % 7 / 7.0),)},
            dt_s=60.0,
        )
        flow_wh = snapshot.pcc.active_power_w / 60.0
        shown["import" if flow_wh > 0.0 else "export"].append(abs(flow_wh))
        shown["load"].append(snapshot.conditions.load_w / 60.0)
        for name, measured in snapshot.measurements.items():
            shown[name].append(measured.active_power_w / 60.0)  # type: ignore[attr-defined]
    counted: Any = plant.snapshot.measurements
    meter, batteries = counted["energy_meter-1"], [counted["bess-1"], counted["bess-2"]]
    seen = {name: math.fsum(energies) for name, energies in shown.items()}

    assert min(seen["import"], seen["export"]) > 100e3
    assert meter.import_energy_wh == pytest.approx(seen["import"], rel=1e-9)
    assert meter.export_energy_wh == pytest.approx(seen["export"], rel=1e-9)
    assert counted["inverter-1"].lifetime_energy_wh == pytest.approx(seen["inverter-1"], rel=1e-9)
    assert counted["chp-1"].energy_wh == pytest.approx(seen["chp-1"], rel=1e-9)
    for name, battery in zip(("bess-1", "bess-2"), batteries, strict=True):
        discharged = math.fsum(energy for energy in shown[name] if energy > 0.0)
        charged = -math.fsum(energy for energy in shown[name] if energy < 0.0)
        assert battery.discharged_energy_wh == pytest.approx(discharged, rel=1e-9)
        assert battery.charged_energy_wh == pytest.approx(charged, rel=1e-9)

    generated_wh = counted["inverter-1"].lifetime_energy_wh + counted["chp-1"].energy_wh
    generated_wh += math.fsum(b.discharged_energy_wh - b.charged_energy_wh for b in batteries)
    net_wh = meter.import_energy_wh - meter.export_energy_wh
    assert net_wh == pytest.approx(seen["load"] - generated_wh, abs=1e-9 * seen["load"])


@pytest.mark.parametrize("nominal_v", [320.0, 380.0, 400.0, 415.0, 480.0])
def test_no_unit_leaves_a_grid_of_any_nominal_voltage_as_long_as_it_has_it(nominal_v: float) -> None:
    plant = site(external_models={"grid_voltage": {"nominal_v_ll": nominal_v}})
    plant.add_asset({"type": "inverter", "asset_id": "late"})
    plant.step({"chp-1": (Command("start_stop", 1.0),)}, dt_s=0.0)
    for _ in range(20):
        measurements: Any = plant.step(dt_s=60.0).measurements
    faults = {name: m.fault_code for name, m in measurements.items() if name != "energy_meter-1"}
    assert set(faults.values()) == {0}, faults
    assert measurements["chp-1"].circuit_breaker_closed == 1


@pytest.mark.parametrize("nominal_v", [320.0, 400.0])
def test_a_sag_is_relative_to_the_voltage_of_the_site_unless_the_protection_names_its_own(
    nominal_v: float,
) -> None:
    def fault(**protection: float) -> int:
        sag = {"kind": "voltage_sag", "start_time": 0, "duration": 10, "delta_v": -0.06}
        grid = {"grid_voltage": {"nominal_v_ll": nominal_v}}
        unit = {"type": "inverter", "grid_protection": {"under_voltage_pu": 0.95, **protection}}
        measured: Any = site(unit, events=[sag], external_models=grid).step(dt_s=2.0).measurements
        return int(measured["inverter-1"].fault_code)

    assert fault() == 1
    assert fault(nominal_voltage_ll_v=nominal_v * 0.9) == 0


def test_every_meter_of_a_site_shows_the_same_flow() -> None:
    plant = site({"type": "energy_meter"}, {"type": "inverter"}, {"type": "energy_meter"})
    measurements = plant.step().measurements
    assert measurements["energy_meter-1"] == measurements["energy_meter-2"]


def test_assets_are_named_by_type_and_order_unless_they_have_a_name() -> None:
    plant = site(
        {"type": "bess"}, {"type": "chp", "asset_id": "engine"}, {"type": "bess"}, {"type": "energy_meter"}
    )
    assert list(plant.devices) == ["bess-1", "engine", "bess-2", "energy_meter-1"]


def test_an_asset_counts_from_the_step_after_it_is_added_until_it_is_removed() -> None:
    plant = site({"type": "energy_meter"}, load={"base_w": 50_000.0})
    assert plant.step().pcc.active_power_w == 50_000.0
    asset_id = plant.add_asset({"type": "inverter", "rated_kw": 20.0})
    assert asset_id == "inverter-1"
    snapshot = plant.step()
    power_w = snapshot.measurements[asset_id].active_power_w
    assert power_w > 10_000.0
    assert snapshot.measurements["energy_meter-1"].active_power_w == pytest.approx(50_000.0 - power_w)
    plant.remove_asset(asset_id)
    snapshot = plant.step()
    assert snapshot.pcc.active_power_w == 50_000.0
    assert list(snapshot.measurements) == ["energy_meter-1"]


@pytest.mark.parametrize("kind", ["bess", "inverter", "chp", "energy_meter"])
def test_an_added_asset_shows_the_present_conditions_at_once(kind: str) -> None:
    grid = {"grid_frequency": {"nominal_hz": 49.8}, "grid_voltage": {"nominal_v_ll": 420.0}}
    plant = site({"type": "inverter"}, external_models=grid, start_time_h=30.0, load={"base_w": 70e3})
    pcc = plant.step(dt_s=60.0).pcc
    asset_id = plant.add_asset({"type": kind})
    measured: Any = plant.devices[asset_id].measurements
    assert measured.frequency_hz == 49.8
    if kind == "bess":
        assert measured.voltage_ab_v == 420.0
    elif kind != "chp":
        assert measured.voltage_an_v == pytest.approx(420.0 / math.sqrt(3.0))
    if kind == "energy_meter":
        assert (measured.active_power_w, measured.reactive_power_var) == pcc
        assert measured.import_energy_wh == 0.0


def test_added_assets_get_the_next_free_name_and_may_be_config_models() -> None:
    plant = site({"type": "chp"}, {"type": "chp"})
    assert plant.add_asset(ChpConfig(type="chp")) == "chp-3"
    plant.remove_asset("chp-2")
    assert plant.add_asset({"type": "chp"}) == "chp-2"
    assert plant.add_asset({"type": "energy_meter", "asset_id": "main"}) == "main"
    assert "main" in plant.step().measurements


def test_an_added_meter_measures_from_then_on() -> None:
    plant = site({"type": "inverter"})
    plant.add_asset({"type": "energy_meter"})
    meter = plant.step(dt_s=3600.0).measurements["energy_meter-1"]
    assert meter.active_power_w == plant.snapshot.pcc.active_power_w != 0.0


def test_unknown_and_taken_names_are_errors_that_list_the_known_ones() -> None:
    plant = site({"type": "bess"}, {"type": "energy_meter"})
    with pytest.raises(ValueError, match="no asset 'bess-2'; the site has bess-1, energy_meter-1"):
        plant.remove_asset("bess-2")
    with pytest.raises(ValueError, match="asset id 'bess-1' is taken; the site has bess-1, energy_meter-1"):
        plant.add_asset({"type": "chp", "asset_id": "bess-1"})
    with pytest.raises(ValueError, match="asset id 'x' is taken"):
        site({"type": "bess", "asset_id": "x"}, {"type": "chp", "asset_id": "x"})
    with pytest.raises(ValidationError, match="capcity_kwh"):
        plant.add_asset({"type": "bess", "capcity_kwh": 5.0})
    assert list(plant.devices) == ["bess-1", "energy_meter-1"]


@pytest.mark.parametrize(
    ("commands", "said"),
    [
        ({"bess": (RUN,)}, "no asset 'bess'; the site has energy_meter-1, bess-1, inverter-1, bess-2, chp-1"),
        ({"bess-1": (Command("active_power_setpont_w", 1.0),)}, "the closest is active_power_setpoint_w"),
        ({"bess-1": (Command("zzz", 1.0),)}, "'zzz'; use one of start_stop_standby"),
        ({"bess-1": (Command("start_stop_standby", 4.0),)}, "use one of 1, 2, 3"),
        ({"bess-1": (setpoint(math.nan),)}, "nan is not allowed; use -20000 to 20000"),
        ({"inverter-1": (Command("power_factor_setpoint", 0.05),)}, "use -1 to -0.1 or 0.1 to 1"),
    ],
)
def test_a_command_that_cannot_be_taken_is_an_error_and_the_site_does_not_step(
    commands: dict[str, tuple[Command, ...]], said: str
) -> None:
    plant = site()
    before = plant.snapshot
    with pytest.raises(ValueError, match=said):
        plant.step({"bess-2": (RUN,), **commands})
    assert plant.snapshot is before
    assert plant.step().measurements["bess-2"].working_status == 0


def test_what_a_device_would_clamp_is_no_error() -> None:
    plant = site()
    plant.step({"bess-1": (RUN, setpoint(math.inf)), "bess-2": (RUN, setpoint(-1e9))})
    measurements = plant.step().measurements
    assert measurements["bess-1"].active_power_setpoint_w == 20_000.0
    assert measurements["bess-2"].active_power_setpoint_w == -50_000.0


@pytest.mark.parametrize("dt_s", [-0.1, math.nan, math.inf])
def test_a_step_of_no_sensible_length_is_an_error(dt_s: float) -> None:
    with pytest.raises(ValueError, match="use a finite number of seconds >= 0"):
        site().step(dt_s=dt_s)


def test_a_snapshot_never_changes() -> None:
    plant = site()
    snapshot = plant.step()
    taken = (snapshot.time_s, snapshot.conditions, snapshot.pcc, dict(snapshot.measurements))
    plant.add_asset({"type": "bess"})
    plant.step({"bess-1": (RUN, setpoint(9000.0))}, dt_s=60.0)
    assert (snapshot.time_s, snapshot.conditions, snapshot.pcc, dict(snapshot.measurements)) == taken
    with pytest.raises(TypeError):
        snapshot.measurements["bess-1"] = ()  # type: ignore[index]


def test_requests_reach_the_watchdog_of_their_device() -> None:
    watched = {"watchdog": {"timeout_s": 1.0}}
    plant = site({"type": "energy_meter", **watched}, {"type": "chp", **watched})
    for _ in range(3):
        snapshot = plant.step(dt_s=0.5, requests={"chp-1": 2})
    assert snapshot.measurements["chp-1"].watchdog_expired == 0
    assert snapshot.measurements["energy_meter-1"].watchdog_expired == 1


def test_an_event_reaches_the_devices_and_the_meter_in_its_step() -> None:
    cloud = {"kind": "cloud_passage", "start_time": 10, "duration": 5, "delta_irradiance": -0.9}
    plant = site({"type": "inverter"}, {"type": "energy_meter"}, events=[cloud], step=1.0)
    powers = [plant.step().measurements["energy_meter-1"].active_power_w for _ in range(20)]
    assert powers[9] < powers[10] == powers[14]
    assert powers[9] == pytest.approx(powers[15], rel=0.01)


def test_a_config_with_a_fault_is_refused() -> None:
    with pytest.raises(ValidationError, match="assets"):
        build_site({"assets": []})
