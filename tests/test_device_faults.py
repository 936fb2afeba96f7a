"""Device faults: what the device does, and what its registers show meanwhile."""

import math
from typing import Any

import pytest
from pydantic import TypeAdapter

from dertwin.devices.device import Command
from dertwin.faults import DeviceFault, Fault
from dertwin.site import Site, build_site

FAULT: TypeAdapter[Fault] = TypeAdapter(DeviceFault)


def site(*types: str, **more: Any) -> Site:
    assets = [{"type": kind} for kind in types or ("bess", "inverter", "chp", "energy_meter")]
    return build_site({"step": 1.0, "assets": assets, **more})


def start(on: Site, fault: str, device: str, duration: float = 10.0, **more: Any) -> None:
    on.start_fault(
        FAULT.validate_python({"device_fault": fault, "device": device, "duration": duration, **more})
    )


def discharging(power_w: float = 10_000.0) -> Site:
    built = site()
    built.step({"bess-1": [Command("start_stop_standby", 1), Command("active_power_setpoint_w", power_w)]})
    return built


def shown(on: Site, device: str, name: str, steps: int = 1) -> list[float]:
    return [getattr(on.step().shown[device], name) for _ in range(steps)]


def test_a_stuck_sensor_shows_what_it_showed_and_the_rest_goes_on() -> None:
    running = discharging()
    before = running.snapshot.shown["bess-1"].soc
    start(running, "stuck", "bess-1", 3.0, measurement="soc")
    values = shown(running, "bess-1", "soc", 4)
    assert values[:3] == [before] * 3
    assert values[3] < before
    assert running.snapshot.shown["bess-1"].active_power_w == 10_000.0


@pytest.mark.parametrize(
    ("fault", "more", "expected"),
    [
        ("offset", {"by": 7.0}, [57.0, 57.0, 50.0]),
        ("drifting", {"per_s": 0.5}, [50.5, 51.0, 50.0]),
        ("wrong_sign", {}, [-50.0, -50.0, 50.0]),
        ("set_measurement", {"value": 12.0}, [12.0, 12.0, 50.0]),
        ("set_measurement", {"table": [[0, 0], [2, 20]]}, [10.0, 20.0, 50.0]),
    ],
)
def test_a_sensor_shows_something_else_and_the_site_is_as_it_was(
    fault: str, more: dict[str, Any], expected: list[float]
) -> None:
    running = site()
    start(running, fault, "energy_meter-1", 2.0, measurement="frequency_hz", **more)
    assert shown(running, "energy_meter-1", "frequency_hz", 3) == expected
    assert running.snapshot.measurements["energy_meter-1"].frequency_hz == 50.0


def test_a_noisy_sensor_scatters_about_the_value_with_its_deviation() -> None:
    running = site("energy_meter")
    start(running, "noisy", "energy_meter-1", 5000.0, measurement="frequency_hz", std=0.1)
    values = shown(running, "energy_meter-1", "frequency_hz", 4000)
    mean = sum(values) / len(values)
    assert mean == pytest.approx(50.0, abs=0.01)
    deviation = math.sqrt(sum((value - mean) ** 2 for value in values) / len(values))
    assert deviation == pytest.approx(0.1, rel=0.05)


def test_faults_of_one_sensor_add_up_in_the_order_in_which_they_began() -> None:
    running = site()
    start(running, "offset", "energy_meter-1", measurement="frequency_hz", by=1.0)
    start(running, "wrong_sign", "energy_meter-1", measurement="frequency_hz")
    assert shown(running, "energy_meter-1", "frequency_hz") == [-51.0]


def test_frozen_registers_show_the_past_while_the_device_obeys() -> None:
    running = discharging()
    start(running, "frozen", "bess-1", 2.0)
    running.step({"bess-1": [Command("active_power_setpoint_w", 3_000.0)]})
    assert running.snapshot.shown["bess-1"].active_power_setpoint_w == 10_000.0
    assert running.snapshot.measurements["bess-1"].active_power_w == 3_000.0
    running.step()
    assert running.step().shown["bess-1"].active_power_w == 3_000.0


def test_a_meter_that_lost_a_phase_lacks_its_power_and_voltage() -> None:
    running = site()
    whole = running.step().measurements["energy_meter-1"]
    start(running, "lost_phase", "energy_meter-1", phase="b")
    lame = running.step().shown["energy_meter-1"]
    assert (lame.voltage_an_v, lame.voltage_bn_v, lame.current_b_a, lame.active_power_b_w) == (
        whole.voltage_an_v, 0.0, 0.0, 0.0,
    )  # fmt: skip
    assert lame.active_power_w == pytest.approx(whole.active_power_w * 2 / 3)
    assert lame.active_power_a_w + lame.active_power_c_w == pytest.approx(lame.active_power_w)


def test_a_battery_that_lost_a_phase_sees_two_low_voltages() -> None:
    running = site()
    start(running, "lost_phase", "bess-1", phase="a")
    lame = running.step().shown["bess-1"]
    low = 400.0 / math.sqrt(3.0)
    assert [lame.voltage_ab_v, lame.voltage_bc_v, lame.voltage_ca_v] == pytest.approx([low, 400.0, low])


def test_a_tripped_device_gives_nothing_and_shows_the_code_until_its_time_is_over() -> None:
    running = discharging()
    start(running, "trip", "bess-1", 2.0, code=4711)
    battery = running.step().measurements["bess-1"]
    assert (battery.active_power_w, battery.fault_code, battery.working_status) == (0.0, 4711, 2)
    assert running.snapshot.pcc.active_power_w == pytest.approx(
        5000.0 - running.snapshot.measurements["inverter-1"].active_power_w
    )
    running.step()
    battery = running.step().measurements["bess-1"]
    assert (battery.active_power_w, battery.fault_code) == (10_000.0, 0)


@pytest.mark.parametrize(
    ("device", "reset"),
    [
        ("bess-1", Command("fault_reset", 1.0)),
        ("inverter-1", Command("remote_on_off", 1.0)),
        ("chp-1", Command("remote_acknowledgment", 4321.0)),
    ],
)
def test_a_locked_out_device_waits_for_its_reset(device: str, reset: Command) -> None:
    running = discharging()
    start(running, "trip", device, 2.0, lock_out=True, code=4711)
    for _ in range(10):
        running.step()
    assert running.snapshot.measurements[device].fault_code == 4711
    assert running.step({device: [reset]}).measurements[device].fault_code == 0


def test_a_reset_before_the_cause_is_gone_does_not_help() -> None:
    running = discharging()
    start(running, "trip", "bess-1", 5.0, lock_out=True)
    assert running.step({"bess-1": [Command("fault_reset", 1.0)]}).measurements["bess-1"].fault_code == 9001


def test_a_derated_device_is_limited_and_keeps_its_setpoint() -> None:
    running = discharging()
    start(running, "derated", "bess-1", 2.0, ratio=0.25)
    start(running, "derated", "inverter-1", 2.0, ratio=0.1)
    measured = running.step().measurements
    assert measured["bess-1"].active_power_w == 5_000.0
    assert measured["bess-1"].active_power_setpoint_w == 10_000.0
    assert measured["bess-1"].available_discharge_power_w == 5_000.0
    assert measured["inverter-1"].active_power_w == pytest.approx(1_000.0)
    running.step()
    assert running.step().measurements["bess-1"].active_power_w == 10_000.0


def test_a_derated_chp_takes_less_load() -> None:
    running = build_site({"step": 1.0, "assets": [{"type": "chp", "rated_kw": 100}]})
    running.step({"chp-1": [Command("start_stop", 1), Command("power_setpoint_ratio", 1.0)]})
    for _ in range(300):
        running.step()
    assert running.snapshot.measurements["chp-1"].active_power_w == 100_000.0
    start(running, "derated", "chp-1", 1000.0, ratio=0.5)
    for _ in range(100):
        running.step()
    assert running.snapshot.measurements["chp-1"].active_power_w == pytest.approx(55_000.0)
    assert running.snapshot.measurements["chp-1"].permitted_power_ratio == pytest.approx(0.55)


def test_a_slow_actuator_takes_commands_late_and_moves_slowly() -> None:
    running = discharging(0.0)
    start(running, "slow_actuator", "bess-1", 30.0, delay_s=2.0, rate_w_per_s=1_000.0)
    running.step({"bess-1": [Command("active_power_setpoint_w", 4_000.0)]})
    powers = [running.step().measurements["bess-1"].active_power_w for _ in range(6)]
    assert powers == [0.0, 1_000.0, 2_000.0, 3_000.0, 4_000.0, 4_000.0]


def test_a_command_on_its_way_still_arrives_when_the_fault_is_over() -> None:
    running = discharging(0.0)
    start(running, "slow_actuator", "bess-1", 1.0, delay_s=3.0)
    running.step({"bess-1": [Command("active_power_setpoint_w", 4_000.0)]})
    powers = [running.step().measurements["bess-1"].active_power_w for _ in range(3)]
    assert powers == [0.0, 0.0, 4_000.0]


def test_ignored_commands_change_nothing_the_others_do() -> None:
    running = discharging()
    start(running, "ignored_commands", "bess-1", commands=["active_power_setpoint_w"])
    running.step(
        {"bess-1": [Command("active_power_setpoint_w", 1.0), Command("reactive_power_setpoint_var", 500.0)]}
    )
    battery = running.snapshot.measurements["bess-1"]
    assert (battery.active_power_setpoint_w, battery.reactive_power_setpoint_var) == (10_000.0, 500.0)
    start(running, "ignored_commands", "bess-1")
    running.step({"bess-1": [Command("reactive_power_setpoint_var", 0.0)]})
    assert running.snapshot.measurements["bess-1"].reactive_power_setpoint_var == 500.0


@pytest.mark.parametrize(
    ("device", "command", "settings"),
    [
        ("bess-1", Command("lower_soc_limit_1", 0.4), ("lower_soc_limit_1", 0.25)),
        ("inverter-1", Command("active_power_limit", 0.5), ("active_power_limit", 2.55)),
        ("energy_meter-1", Command("current_transformer_ratio", 5.0), ("current_transformer_ratio", 1.0)),
        ("chp-1", Command("power_setpoint_ratio", 0.9), ("power_setpoint_ratio", 0.0)),
    ],
)
def test_a_rebooted_device_has_its_default_settings(
    device: str, command: Command, settings: tuple[str, float]
) -> None:
    running = discharging()
    running.step({device: [command]})
    start(running, "reboot", device, 3.0)
    running.step()
    name, default = settings
    assert getattr(running.snapshot.measurements[device], name) == default


def test_a_rebooted_battery_stops_and_keeps_its_charge() -> None:
    running = discharging()
    for _ in range(600):
        running.step()
    before = running.snapshot.measurements["bess-1"]
    start(running, "reboot", "bess-1", 3.0)
    after = running.step().measurements["bess-1"]
    assert (after.active_power_w, after.working_status) == (0.0, 0)
    assert (after.soc, after.discharged_energy_wh) == (before.soc, before.discharged_energy_wh)


def test_a_rebooting_inverter_gives_nothing_until_it_is_up() -> None:
    running = site()
    running.step()
    start(running, "reboot", "inverter-1", 2.0)
    powers = [running.step().measurements["inverter-1"].active_power_w for _ in range(3)]
    assert powers[:2] == [0.0, 0.0]
    assert powers[2] > 9_000.0


def test_a_clock_that_jumps_over_midnight_begins_a_new_day() -> None:
    running = site("inverter", start_time_h=12.0)
    for _ in range(60):
        running.step()
    assert running.snapshot.measurements["inverter-1"].today_energy_wh > 100.0
    start(running, "clock_jump", "inverter-1", 100.0, by_s=12 * 3600.0)
    assert running.step().measurements["inverter-1"].today_energy_wh < 5.0


def test_a_site_without_faults_shows_what_it_measures() -> None:
    running = site()
    assert running.snapshot.shown is running.snapshot.measurements
    start(running, "offset", "energy_meter-1", 1.0, measurement="frequency_hz", by=1.0)
    assert running.step().shown is not running.snapshot.measurements
    assert running.step().shown is running.snapshot.measurements


def test_all_faults_can_be_ended_at_once() -> None:
    running = discharging()
    start(running, "trip", "bess-1", lock_out=True)
    start(running, "offset", "energy_meter-1", measurement="frequency_hz", by=1.0)
    running.step()
    running.end_faults()
    snapshot = running.step()
    assert snapshot.measurements["bess-1"].active_power_w == 10_000.0
    assert snapshot.shown["energy_meter-1"].frequency_hz == 50.0


def test_a_fault_that_a_device_cannot_have_is_refused() -> None:
    running = site()
    with pytest.raises(ValueError, match="no asset 'bess-9'"):
        start(running, "frozen", "bess-9")
    with pytest.raises(ValueError, match='measurement: "sock" is not allowed; the closest is soc'):
        start(running, "stuck", "bess-1", measurement="sock")
    with pytest.raises(ValueError, match="measures no phases"):
        start(running, "lost_phase", "chp-1", phase="a")
    with pytest.raises(ValueError, match="depends on the time of day"):
        start(running, "clock_jump", "bess-1", by_s=3600)
