"""Scenarios: when steps come, what they do to a site, and what the verdict is."""

from pathlib import Path
from typing import Any

import pytest
from scenario.play import play

from dertwin.config_errors import ConfigErrors
from dertwin.devices.device import Command
from dertwin.site import SiteSnapshot

TRIP = {"device_fault": "trip", "device": "bess-1", "duration": 1}
LIMIT: dict[str, Any] = {
    "verdict": "power_limit",
    "with": {"reach_within_s": 1, "hold_s": 1, "release_within_s": 1},
}
STARTED = {"write": {"bess-1.start_stop_standby": 1, "bess-1.active_power_setpoint_w": 5000}}


def test_steps_come_at_their_time_after_a_delay_and_after_a_condition(tmp_path: Path) -> None:
    seen: list[tuple[float, float]] = []
    play(
        tmp_path,
        {
            "duration": 10,
            "steps": [
                {"at": 2, "do": {"environment": "load_w", "step": 1000}},
                {"after": 1, "do": {"environment": "load_w", "step": 2000}},
                {"after": "site.load_w == 2000", "do": {"environment": "load_w", "step": 3000}},
                {"after": 2.5, "do": {"environment": "load_w", "step": 4000}},
            ],
        },
        look=lambda snapshot: seen.append((snapshot.time_s, snapshot.conditions.load_w)),
    )
    changes = [(t, load) for (t, load), (_, before) in zip(seen[1:], seen, strict=False) if load != before]
    # An action acts on the steps that end after it, so a step of 0.5 s later it is seen.
    assert changes == [(2.5, 1000.0), (3.5, 2000.0), (4.0, 3000.0), (6.5, 4000.0)]


def test_surroundings_step_ramp_and_follow_a_table_and_go_back_to_their_models(tmp_path: Path) -> None:
    seen: dict[float, SiteSnapshot] = {}
    play(
        tmp_path,
        {
            "steps": [
                {
                    "do": [
                        {"environment": "frequency_hz", "ramp": {"to": 49.5, "rate": 0.25}, "duration": 4},
                        {"environment": "load_w", "table": [[0, 0], [2, 4000]], "duration": 3},
                        {"environment": "voltage_ll_v", "step": 200, "duration": 1},
                    ]
                }
            ],
            "duration": 6,
        },
        look=lambda snapshot: seen.__setitem__(snapshot.time_s, snapshot),
    )
    around = {time_s: snapshot.conditions for time_s, snapshot in seen.items()}
    assert [around[t].frequency_hz for t in (0.5, 1.0, 2.0, 4.0, 4.5)] == [49.875, 49.75, 49.5, 49.5, 50.0]
    assert [around[t].load_w for t in (0.5, 1.0, 2.0, 3.0, 3.5)] == [1000.0, 2000.0, 4000.0, 4000.0, 5000.0]
    assert [around[t].voltage_ll_v for t in (1.0, 1.5)] == [200.0, 400.0]


def test_a_table_of_cases_is_run_case_by_case_each_from_a_clean_site(tmp_path: Path) -> None:
    result = play(
        tmp_path,
        {
            "parameters": {"limit_w": 5001},
            "cases": [{"power_w": 5000}, {"power_w": 7000}, {"power_w": 7000, "limit_w": 7001}],
            "steps": [
                {
                    "do": [
                        {
                            "write": {
                                "bess-1.start_stop_standby": 1,
                                "bess-1.active_power_setpoint_w": "${power_w}",
                            }
                        },
                        {"environment": "load_w", "step": "${power_w * 2}"},
                    ],
                    "expect": {"never": "bess-1.active_power_w > ${limit_w}", "for": 5},
                }
            ],
        },
    )
    assert [case.passed for case in result.cases] == [True, False, True]
    assert not result.passed
    assert result.complete
    assert [case.name for case in result.cases] == [
        "power_w 5000",
        "power_w 7000",
        "power_w 7000, limit_w 7001",
    ]


def test_parameters_may_be_in_names_too(tmp_path: Path) -> None:
    result = play(
        tmp_path,
        {
            "parameters": {"device": "bess-1"},
            "steps": [
                {
                    "do": {"write": {"${device}.start_stop_standby": 1}},
                    "expect": {"that": "${device}.working_status == 1", "within": 1},
                }
            ],
        },
    )
    assert result.passed


def test_a_case_sheet_may_be_a_csv_file(tmp_path: Path) -> None:
    (tmp_path / "cases.csv").write_text("power_w,note\n3000,low\n4000.5,high\n")
    result = play(
        tmp_path,
        {
            "cases": {"csv": "cases.csv"},
            "record": ["bess-1.active_power_setpoint_w"],
            "steps": [{"do": {"write": {"bess-1.active_power_setpoint_w": "${power_w}"}}}],
            "duration": 1,
        },
    )
    ends = [case.record.signal("bess-1.active_power_setpoint_w").values[-1] for case in result.cases]
    assert ends == [3000.0, 4000.5]


def test_a_command_that_the_ems_writes_can_be_waited_for_and_looked_at(tmp_path: Path) -> None:
    def ems(snapshot: SiteSnapshot) -> dict[str, list[Command]]:
        return {"bess-1": [Command("active_power_setpoint_w", 1234.0)]} if snapshot.time_s == 3.0 else {}

    result = play(
        tmp_path,
        {
            "duration": 10,
            "steps": [
                {
                    "after": "bess-1.command.active_power_setpoint_w == 1234",
                    "expect": {"that": "bess-1.command.active_power_setpoint_w.age_s >= 2", "within": 3},
                },
                {"expect": {"never": "bess-1.command.active_power_setpoint_w.count > 1"}},
            ],
        },
        ems,
    )
    assert result.passed
    assert result.cases[0].record.received[0].time_s == 3.5
    assert result.cases[0].checks[0].armed_s == 3.5


def test_a_step_that_never_comes_fails_the_scenario_and_is_named(tmp_path: Path) -> None:
    result = play(
        tmp_path,
        {
            "duration": 2,
            "steps": [{"name": "battery full", "after": "bess-1.soc > 0.99", "do": STARTED}],
        },
    )
    assert not result.passed
    assert list(result.cases[0].missed) == ["battery full"]


def test_everything_that_happens_is_told_in_order(tmp_path: Path) -> None:
    result = play(
        tmp_path,
        {
            "steps": [
                {"name": "start", "do": STARTED, "expect": {"that": "bess-1.active_power_w > 1", "within": 2}}
            ]
        },
    )
    told = [(each.time_s, each.kind) for each in result.cases[0].record.happened]
    assert told == [(0.0, "step"), (0.0, "action"), (0.5, "passed")]


def test_the_same_scenario_and_seed_give_the_same_run(tmp_path: Path) -> None:
    def shown(seed: int) -> list[float]:
        values: list[float] = []
        play(
            tmp_path,
            {
                "seed": seed,
                "steps": [
                    {
                        "do": {
                            "device_fault": "noisy",
                            "device": "energy_meter-1",
                            "measurement": "active_power_w",
                            "std": 50,
                            "duration": 5,
                        }
                    }
                ],
            },
            look=lambda snapshot: values.append(snapshot.shown["energy_meter-1"].active_power_w),
        )
        return values

    assert shown(1) == shown(1)
    assert shown(1) != shown(2)
    assert len(set(shown(1))) == 10


def test_the_end_of_a_scenario_clears_what_still_acts(tmp_path: Path) -> None:
    trip = {"device_fault": "trip", "device": "bess-1", "lock_out": True, "duration": 1}
    seen: list[Any] = []
    play(
        tmp_path,
        {"cases": [{"n": 1}, {"n": 2}], "duration": 3, "steps": [{"at": 1, "do": trip}]},
        look=lambda snapshot: seen.append((snapshot.time_s, snapshot.measurements["bess-1"].fault_code)),
    )
    codes = dict(seen)
    assert [codes[t] for t in (1.0, 1.5, 3.0, 3.5, 4.5)] == [0, 9001, 9001, 0, 9001]


@pytest.mark.parametrize(
    ("step", "problem"),
    [
        ({"at": 1, "after": 2, "do": STARTED}, "give `at` or `after`, not both"),
        ({"at": 1}, "does nothing"),
        (
            {"do": {"enviroment": "load_w", "step": 1}},
            "is no action; an action has one of the keys environment,",
        ),
        ({"do": {"environment": "load_w"}}, "give one of step, ramp, table or csv, not none"),
        (
            {"do": {"environment": "frequency_hz", "step": 500}},
            "500 is not allowed for frequency_hz; use 40 to 70",
        ),
        ({"do": {"device_fault": "stuk"}}, '"stuk" is not allowed; the closest is stuck'),
        (
            {"do": {"device_fault": "reboot", "device": "bess-2", "duration": 1}},
            'device: "bess-2" is not allowed; the closest is bess-1',
        ),
        (
            {"do": {"device_fault": "derated", "device": "energy_meter-1", "ratio": 0.5, "duration": 1}},
            "no power",
        ),
        ({"do": {"write": {"bess-1.power": 3}}}, '"bess-1.power" is not allowed; '),
        (
            {"do": {"write": {"bess-1.start_stop_standby": 7}}},
            "7 is not allowed for bess-1.start_stop_standby",
        ),
        ({"do": {"verdict": "nonsense"}}, 'verdict: "nonsense" is not allowed'),
        (
            {"expect": {"that": "bess-1.sock > 1", "within": 1}},
            '"bess-1.sock" is no signal; the closest is soc',
        ),
        (
            {"expect": {"that": "bess-7.soc > 1", "within": 1}},
            '"bess-7.soc" is no signal; the closest is bess-1',
        ),
        ({"after": "bess-1.soc > 1", "do": STARTED}, "give a `duration`"),
        (
            {"do": {"write": {"bess-1.start_stop_standby": "${mode}"}}},
            '"mode" is no parameter; there are none',
        ),
        ({"do": {**LIMIT, "with": LIMIT["with"] | {"announce": LIMIT}}}, "cannot begin within power_limit"),
        ({"do": {**TRIP, "duration": -1}}, "steps[0].do.duration: -1 is not allowed; use a number above 0"),
        ({"do": {**TRIP, "cod": 1}}, "steps[0].do.cod: unknown key; the closest is code"),
        (
            {"do": {"wire_fault": "no_reply", "count": 1, "unit_id": 999}},
            "steps[0].do.unit_id: 999 is not allowed; use an integer from 0 to 255",
        ),
        ({"name": "${'a' * 9}", "do": TRIP}, "use a parameter, or + - * / of parameters and numbers"),
        ({"name": f"${{{'-' * 20_000}1}}", "do": TRIP}, "use a parameter, or"),
        ({"name": f"${{{'1e9*' * 40}1 + 1{'0' * 400} / 2.0}}", "do": TRIP}, "use a parameter, or"),
    ],
)
def test_a_scenario_that_does_not_fit_is_refused_with_place_and_remedy(
    tmp_path: Path, step: dict[str, Any], problem: str
) -> None:
    with pytest.raises(ConfigErrors) as refused:
        play(tmp_path, {"steps": [step]})
    assert any(problem in str(error) for error in refused.value.errors), refused.value
    assert all(error.file.endswith("scenario.yaml") for error in refused.value.errors)


def test_all_faults_of_a_scenario_are_told_at_once(tmp_path: Path) -> None:
    with pytest.raises(ConfigErrors) as refused:
        play(
            tmp_path,
            {
                "steps": [
                    {"do": {"device_fault": "reboot", "device": "bess-2", "duration": 1}},
                    {"do": {"environment": "load_w"}},
                    {"expect": {"that": "bess-1.sock > 1", "within": 1}},
                ]
            },
        )
    assert {error.place.split(".")[0] for error in refused.value.errors} == {
        "steps[0]",
        "steps[1]",
        "steps[2]",
    }


@pytest.mark.parametrize(
    ("changed", "problem"),
    [
        ({"steps": [{"at": 9, "do": STARTED}, {"at": 5, "do": STARTED}]}, "steps[1].at: 5 is not allowed"),
        (
            {"steps": [{"after": 4, "do": STARTED}, {"after": 3, "do": STARTED}], "duration": 6},
            "steps[1]: comes at 7 at the earliest, after the end at 6; use a longer `duration`",
        ),
        ({"cases": {"cvs": "cases.csv"}}, "cases.csv: is missing; use a text that is not empty"),
        ({"cases": {"cvs": "cases.csv"}}, "cases.cvs: unknown key; the closest is csv"),
        ({"cases": {"csv": "cases.csv", "first": 2}}, "cases.first: unknown key"),
    ],
)
def test_times_and_cases_that_cannot_be_are_refused(
    tmp_path: Path, changed: dict[str, Any], problem: str
) -> None:
    with pytest.raises(ConfigErrors) as refused:
        play(tmp_path, {"steps": [{"do": STARTED}], **changed})
    assert any(problem in str(error) for error in refused.value.errors), refused.value


def test_a_step_whose_time_is_over_when_its_turn_comes_counts_from_its_turn(tmp_path: Path) -> None:
    result = play(
        tmp_path,
        {
            "duration": 10,
            "steps": [
                {"at": 6, "do": {"environment": "load_w", "step": 1000}},
                {"after": "site.load_w == 1000", "do": {"environment": "load_w", "step": 2000}},
                {"at": 6, "expect": {"that": "site.load_w == 2000", "within": 0.5}},
            ],
        },
    )
    assert [(check.armed_s, check.outcome) for check in result.cases[0].checks] == [(6.5, "passed")]
