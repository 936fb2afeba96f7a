"""The surroundings of a site: defaults, models, CSV series, load, events."""

from pathlib import Path
from typing import Any

import pytest
from pydantic import ValidationError

from dertwin.devices.device import Conditions
from dertwin.environment import Environment, EnvironmentConfig

NOON = 12.0


def environment(folder: Path | None = None, **config: Any) -> Environment:
    return Environment(
        EnvironmentConfig.model_validate(config, context={"folder": folder} if folder else None)
    )


def at(hour: float, folder: Path | None = None, **config: Any) -> Conditions:
    """The conditions at an hour of the day, reached in one step of no length."""
    return environment(folder, start_time_h=hour, **config).step(0.0)


def after(seconds: float, dt_s: float, **config: Any) -> Conditions:
    surroundings = environment(**config)
    for _ in range(round(seconds / dt_s)):
        conditions = surroundings.step(dt_s)
    return conditions


def models(**external_models: Any) -> dict[str, Any]:
    return {"external_models": external_models}


def test_without_models_everything_is_nominal_day_and_night() -> None:
    for hour in (0.0, NOON):
        assert at(hour) == Conditions(hour * 3600.0, 1000.0, 20.0, 50.0, 400.0, 5000.0, 400.0)


def test_the_clock_starts_at_the_start_hour_and_conditions_are_those_at_the_end_of_a_step() -> None:
    surroundings = environment(start_time_h=6.0, **models(irradiance={"peak": 800.0}))
    assert surroundings.step(0.0).irradiance_w_m2 == 0.0
    conditions = surroundings.step(6 * 3600.0)
    assert (conditions.time_s, conditions.irradiance_w_m2) == (NOON * 3600.0, 800.0)
    assert surroundings.time_s == 6 * 3600.0


def test_the_clock_does_not_drift_over_a_day_of_tenths_of_a_second() -> None:
    surroundings = environment()
    for _ in range(24 * 36_000):
        surroundings.step(0.1)
    assert surroundings.time_s == 86_400.0


def test_models_take_their_defaults_from_the_old_configs() -> None:
    day = models(irradiance={}, ambient_temperature={}, grid_frequency={}, grid_voltage={}, power={})
    noon = at(NOON, **day)
    assert (noon.irradiance_w_m2, noon.load_w, noon.frequency_hz, noon.voltage_ll_v) == (
        1000.0,
        5000.0,
        50.0,
        400.0,
    )
    assert at(15.0, **day).ambient_temp_c == 25.0
    assert at(3.0, **day).irradiance_w_m2 == 0.0


def test_the_nominal_voltage_has_two_spellings() -> None:
    for spelling in ("nominal_v_ll", "nominal_voltage_ll"):
        assert at(NOON, **models(grid_voltage={spelling: 410.0})).voltage_ll_v == 410.0


def test_conditions_tell_what_voltage_the_grid_is_meant_to_have(tmp_path: Path) -> None:
    (tmp_path / "grid.csv").write_text("0,380\n10,390\n")
    assert at(NOON, **models(grid_voltage={"nominal_v_ll": 410.0})).nominal_voltage_ll_v == 410.0
    assert at(NOON, tmp_path, **models(grid_voltage={"csv": "grid.csv"})).nominal_voltage_ll_v == 400.0
    assert at(NOON).nominal_voltage_ll_v == 400.0


@pytest.mark.parametrize("dt_s", [0.1, 60.0])
def test_frequency_and_voltage_stay_within_their_limits_whatever_the_noise(dt_s: float) -> None:
    surroundings = environment(
        **models(grid_frequency={"noise_std": 20.0, "seed": 3}, grid_voltage={"drift_std": 500.0, "seed": 3})
    )
    conditions = [surroundings.step(dt_s) for _ in range(2000)]
    assert {45.0, 55.0} <= {c.frequency_hz for c in conditions}
    assert all(45.0 <= c.frequency_hz <= 55.0 and 300.0 <= c.voltage_ll_v <= 480.0 for c in conditions)


def test_the_seed_decides_the_series_and_left_out_it_is_zero() -> None:
    def series(**seed: int) -> list[float]:
        surroundings = environment(**models(grid_frequency={"noise_std": 0.02, "drift_std": 0.01, **seed}))
        return [surroundings.step(0.1).frequency_hz for _ in range(50)]

    assert series() == series(seed=0)
    assert series(seed=1) == series(seed=1)
    assert series(seed=1) != series(seed=2)


def test_frequency_and_voltage_do_not_move_together_for_equal_seeds() -> None:
    noise = {"noise_std": 1.0, "seed": 42}
    surroundings = environment(**models(grid_frequency=noise, grid_voltage=noise))
    conditions = [surroundings.step(1.0) for _ in range(50)]
    assert all(abs((c.frequency_hz - 50.0) - (c.voltage_ll_v - 400.0)) > 1e-6 for c in conditions)


# Load


def test_a_load_is_five_kilowatts_unless_it_says_otherwise() -> None:
    assert at(NOON, load={}).load_w == 5000.0
    assert at(NOON, load={"base_w": 700.0}).load_w == 700.0
    assert at(NOON, **models(power={"base_load_w": 800.0})).load_w == 800.0


def test_a_profile_is_linear_between_its_points_and_across_midnight() -> None:
    load = {"profile": [[6, 1000], [12, 4000], [18, 2000]]}
    assert [at(hour, load=load).load_w for hour in (6, 9, 12, 15, 18)] == [1000, 2500, 4000, 3000, 2000]
    assert [at(hour, load=load).load_w for hour in (0, 3, 24, 33)] == [1500, 1250, 1500, 2500]
    assert at(9, load={**load, "base_w": 100.0}).load_w == 2600


def test_a_profile_of_one_point_is_a_constant() -> None:
    assert at(3.0, load={"profile": [[12, 900]]}).load_w == 900.0


# CSV


def test_any_series_can_come_from_a_file_next_to_the_config(tmp_path: Path) -> None:
    (tmp_path / "sun.csv").write_text("time,W/m2\n0,0\n\n# noon\n43200,800\n86400,-3\n")
    (tmp_path / "frequency.csv").write_text("0,49.9\n86400,51.9\n")
    (tmp_path / "load.csv").write_text("time_s,power_w\r\n0,100\r\n86400,2500\r\n")
    half = at(
        6.0,
        tmp_path,
        **models(
            irradiance={"csv": "sun.csv"},
            grid_frequency={"csv": "frequency.csv"},
            grid_voltage={"csv": "load.csv"},
        ),
        load={"csv": "load.csv", "base_w": 50.0},
    )
    assert half.irradiance_w_m2 == 400.0
    assert half.frequency_hz == pytest.approx(50.4)
    assert half.voltage_ll_v == 480.0  # its limit
    assert half.load_w == pytest.approx(750.0)
    assert at(24.0, tmp_path, **models(irradiance={"csv": "sun.csv"})).irradiance_w_m2 == 0.0


def test_a_series_holds_its_ends_or_repeats(tmp_path: Path) -> None:
    (tmp_path / "load.csv").write_text("3600,100\n7200,300\n10800,100\n")
    hours = (0.0, 1.5, 2.0, 3.0, 4.0, 5.5)
    held = [at(hour, tmp_path, load={"csv": "load.csv"}).load_w for hour in hours]
    assert held == [100, 200, 300, 100, 100, 100]
    again = [at(hour, tmp_path, load={"csv": "load.csv", "repeat": True}).load_w for hour in hours]
    assert again == [300, 200, 300, 100, 300, 200]


@pytest.mark.parametrize(
    ("content", "said"),
    [
        (None, "cannot be read: No such file"),
        ("", "at least one point"),
        ("time,value\n", "at least one point"),
        ("time,value\n0,1\nnoon,2\n", "line 3: 'noon,2' is not a line of time,value"),
        ("0,1\n10,nan\n", "line 2: '10,nan'"),
        ("0,1\n10,2e20\n", "line 2: 2e20 is not allowed; use 0 or a size from 1e-20 to 1e+20"),
        ("0,-1e-21\n", "line 1: -1e-21 is not allowed; use 0 or a size from 1e-20 to 1e+20"),
        ("0,1\n1e300,2\n", "line 2: 1e300 is not allowed; use 0 or a size from 1e-20 to 1e+20"),
        ("0,1\n10,2,3\n", "line 2: '10,2,3'"),
        ("0;1\n10;2\n", "line 2: '10;2'"),
        ("0,1\n10,2\n10,3\n", "line 3: time 10 does not come after 10"),
        (b"\xff\xfe\x00\x01", "is not a text file"),
    ],
)
def test_a_bad_file_is_named_with_its_line(tmp_path: Path, content: str | bytes | None, said: str) -> None:
    if content is not None:
        (tmp_path / "sun.csv").write_bytes(content.encode() if isinstance(content, str) else content)
    for config in (models(irradiance={"csv": "sun.csv"}), {"load": {"csv": "sun.csv"}}):
        with pytest.raises(ValidationError) as caught:
            environment(tmp_path, **config)
        assert "sun.csv: " + said in str(caught.value)


def test_repeating_needs_a_second_point(tmp_path: Path) -> None:
    (tmp_path / "load.csv").write_text("0,100\n")
    with pytest.raises(ValidationError, match="to repeat two"):
        environment(tmp_path, load={"csv": "load.csv", "repeat": True})


# Events


def event(kind: str, **fields: Any) -> dict[str, Any]:
    return {"events": [{"kind": kind, "start_time": 10.0, "duration": 4.0, **fields}]}


SAG = event("voltage_sag", delta_v=-0.2)


@pytest.mark.parametrize("dt_s", [0.1, 0.5, 1.0, 2.0])
def test_a_step_lasts_from_its_start_to_its_end(dt_s: float) -> None:
    surroundings = environment(**SAG)
    low = [
        c.time_s
        for c in (surroundings.step(dt_s) for _ in range(round(20.0 / dt_s)))
        if c.voltage_ll_v == 320.0
    ]
    assert (low[0], low[-1]) == (pytest.approx(10.0 + dt_s), pytest.approx(14.0))
    assert len(low) == round(4.0 / dt_s)


def test_an_event_acts_on_all_steps_of_its_duration_wherever_it_starts() -> None:
    for tenths in range(0, 400, 7):
        surroundings = environment(
            events=[{"kind": "load_step", "start_time": tenths / 10, "duration": 1, "delta_w": 1.0}]
        )
        loads = [surroundings.step(0.1).load_w for _ in range(tenths + 20)]
        assert loads.index(5001.0) == tenths
        assert loads.count(5001.0) == 10


def test_an_event_of_one_step_is_seen_in_one_step_even_between_their_ends() -> None:
    for start in (0.0, 0.05, 0.1, 0.73):
        surroundings = environment(
            events=[{"kind": "load_step", "start_time": start, "duration": 0.1, "delta_w": 1.0}]
        )
        assert [surroundings.step(0.1).load_w for _ in range(20)].count(5001.0) == 1


def test_an_event_at_the_start_does_not_act_before_the_first_step() -> None:
    surroundings = environment(**event("voltage_sag", delta_v=-0.2, start_time=0.0))
    assert surroundings.step(0.0).voltage_ll_v == 400.0
    assert surroundings.step(0.1).voltage_ll_v == 320.0


def test_a_ramp_rises_to_its_size_and_is_then_gone() -> None:
    ramp = event("frequency_deviation", delta_hz=-0.8, shape="ramp")
    assert after(11.0, 1.0, **ramp).frequency_hz == pytest.approx(49.8)
    assert after(13.0, 1.0, **ramp).frequency_hz == pytest.approx(49.4)
    assert after(14.0, 1.0, **ramp).frequency_hz == pytest.approx(49.2)
    assert after(15.0, 1.0, **ramp).frequency_hz == 50.0


def test_a_table_scales_the_size_linearly_between_its_points() -> None:
    table = event("load_step", delta_w=1000.0, shape="table", table=[[0, 0], [1, 2], [3, -1]])
    loads = [after(t, 1.0, **table).load_w for t in (10.0, 11.0, 12.0, 13.0, 14.0, 15.0)]
    assert loads == pytest.approx([5000.0, 7000.0, 5500.0, 4000.0, 4000.0, 5000.0])


def test_a_cloud_takes_its_share_of_what_the_sun_gives() -> None:
    cloud = event("cloud_passage", delta_irradiance=-0.75)
    assert after(11.0, 1.0, **cloud).irradiance_w_m2 == 250.0
    assert after(11.0, 1.0, **cloud, **models(irradiance={})).irradiance_w_m2 == 0.0  # at night


def test_events_add_up_within_the_limits() -> None:
    both = {
        "events": SAG["events"] + SAG["events"] + event("frequency_deviation", delta_hz=5.0)["events"] * 2
    }
    conditions = after(11.0, 1.0, **both)
    assert (conditions.voltage_ll_v, conditions.frequency_hz) == (
        300.0,
        55.0,
    )  # 256 V and 60 Hz without limits


# Faults of the config


@pytest.mark.parametrize(
    ("config", "said"),
    [
        ({"load": {}, **models(power={})}, "not both"),
        ({"load": {"profile": [[1, 2]], "csv": "x.csv"}}, "not both"),
        ({"load": {"repeat": True}}, "there is none"),
        ({"load": {"profile": [[5, 1], [3, 1]]}}, "times must rise"),
        ({"load": {"profile": [[25, 1]]}}, "within 0..24"),
        ({"load": {"profile": []}}, "at least 1 item"),
        (models(irradiance={"sunrise": 18, "sunset": 6}), "must come after sunrise"),
        (models(irradiance={"csv": "x", "peak": 3}), "Extra inputs"),
        (models(grid_frequency={"nominal_hz": 60}), "less than or equal to 55"),
        (models(grid_frequency={"noise_std": -1}), "greater than or equal to 0"),
        (models(grid_voltage={"nominal_v_ll": "400"}), "valid number"),
        (models(wind={}), "Extra inputs"),
        (event("voltage_sag"), "delta_v"),
        (event("earthquake"), "earthquake"),
        (event("voltage_sag", delta_v=-0.2, shape="table"), "belong together"),
        (event("voltage_sag", delta_v=-0.2, table=[[0, 1]]), "belong together"),
        (event("voltage_sag", delta_v=-0.2, shape="table", table=[[1, 1], [0, 1]]), "times must rise"),
        (event("voltage_sag", delta_v=-0.2, duration=0), "greater than 0"),
        (event("voltage_sag", delta_v=-1.2), "greater than or equal to -1"),
        (event("cloud_passage", delta_irradiance=0.2), "less than or equal to 0"),
    ],
)
def test_a_config_that_makes_no_sense_is_refused(config: dict[str, Any], said: str) -> None:
    with pytest.raises(ValidationError, match=said):
        environment(**config)


def test_notes_of_the_author_are_ignored() -> None:
    assert at(NOON, **models(comment="spring", irradiance={"_source": "DWD"})).irradiance_w_m2 == 1000.0
