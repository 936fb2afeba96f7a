"""Reports: nothing that was judged is missing, no text does harm, every reader reads it."""

import csv
import json
import math
import re
import time
import xml.etree.ElementTree as ET
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import html5lib
import pytest
import yaml
from junitparser import JUnitXml

from bench.check import CheckedSite, check_site
from bench.plant import Plant, run_ems
from bench.report import Context, write_report
from bench.report.bands import Band, Edge, bands
from bench.report.plot import HEIGHT, LEFT, TOP, Axes, panels, ticks, trace
from bench.report.rows import rows
from bench.report.words import limits, number, unit
from dertwin.scenario.document import LoadedScenario, load_scenario
from dertwin.scenario.expectations import Expectation
from dertwin.scenario.record import Happened, Record, Requirement, Signal
from dertwin.scenario.run import CaseResult, PackVerdict, ScenarioResult
from dertwin.site import build_site

SITE: dict[str, Any] = {"site_name": "yard", "step": 0.5, "assets": [{"type": "bess", "port": 55001}]}
SCENARIO: dict[str, Any] = {
    "scenario": "step up",
    "description": "The battery follows.",
    "seed": 42,
    "parameters": {"limit_w": 4500},
    "cases": [{"limit_w": 4500}, {"limit_w": 3000}],
    "record": ["site.frequency_hz", "bess-1.command.active_power_setpoint_w"],
    "duration": 20,
    "steps": [
        {"name": "sag", "at": 2, "do": {"environment": "frequency_hz", "step": 49.5, "duration": 5}},
        {"expect": {"that": "bess-1.active_power_w in 3900..4100", "within": 10, "for": 3}},
        {"expect": {"name": "the limit holds", "never": "bess-1.active_power_w > ${limit_w}", "for": 12}},
        {"name": "later", "after": "bess-1.soc > 0.9", "expect": {"that": "bess-1.soc > 0", "for": 1}},
    ],
}
HOSTILE = "<script>alert(\"1\")</script> & 'x' ]]> \n\x00\x1b \ud800 ± 漢字 \U0001f50b"
SHOWN = HOSTILE.replace("\x00", "\ufffd").replace("\x1b", "\ufffd").replace("\ud800", "\ufffd")
STARTED = datetime(2026, 3, 1, 12, 0, 5, tzinfo=UTC)


def ems(plant: Plant) -> Iterator[float]:
    plant.write("bess-1", "start_stop_standby", 1)
    while True:
        plant.write("bess-1", "active_power_setpoint", 4000)
        yield 1.0


class Written:
    """A report in a folder, read back."""

    def __init__(self, folder: Path, result: ScenarioResult, context: Context) -> None:
        write_report(result, context, folder)
        self.folder, self.result, self.context = folder, result, context
        self.html = (folder / "report.html").read_text(encoding="utf-8")
        self.page = ET.fromstring(self.html.removeprefix("<!DOCTYPE html>"))
        self.words = re.sub(r"\s+", " ", "".join(self.page.itertext()))
        self.junit = JUnitXml.fromfile(str(folder / "junit.xml"))
        self.content = json.loads((folder / "result.json").read_text())

    def csv(self, case: int, name: str) -> list[dict[str, str]]:
        with (self.folder / f"case-{case}" / name).open(newline="", encoding="utf-8") as file:
            return list(csv.DictReader(file, strict=True))

    def all(self, tag: str, kind: str) -> list[ET.Element]:
        found = self.page.iter(f"{{http://www.w3.org/1999/xhtml}}{tag}")
        return [each for each in found if set(kind.split()) <= set(each.get("class", "").split())]


@pytest.fixture(scope="module")
def checked() -> CheckedSite:
    return check_site(SITE)


def load(folder: Path, checked: CheckedSite, content: dict[str, Any]) -> LoadedScenario:
    path = folder / "scenario.yaml"
    path.write_text(yaml.safe_dump(content))
    return load_scenario(path, build_site(checked.config).devices)


@pytest.fixture(scope="module")
def written(tmp_path_factory: pytest.TempPathFactory, checked: CheckedSite) -> Written:
    folder = tmp_path_factory.mktemp("report")
    loaded = load(folder, checked, SCENARIO)
    result = run_ems(checked, loaded, ems)
    first = result.cases[0]
    required = [
        Requirement("reached", 2.25, -math.inf, 5.0, "s", "Book, 1st edition, 3.2"),
        Requirement("held", 81.5, 90.0, 110.0, "%", "Book, 1st edition, 3.3", "from 10 s on"),
        Requirement("released", math.nan, 0.0, math.inf, "W", "Another, 4"),
    ]
    verdict = PackVerdict("power_limit", "Power limit", "May 2024", 2.0, required)
    result = result._replace(cases=[first._replace(verdicts=[verdict]), *result.cases[1:]])
    context = Context(loaded, "site.json", checked.config, "ems.py:ems", STARTED, 1.5)
    return Written(folder / "out", result, context)


def test_the_page_is_strict_html_and_needs_nothing_else(written: Written) -> None:
    html5lib.HTMLParser(strict=True).parse(written.html)
    assert not re.findall(r"<(?:script|link|img|iframe|object)\b|\bsrc=|url\((?!#)|@import", written.html)
    links = re.findall(r'href="([^"]*)"', written.html)
    assert links
    targets = [each.get("id") for each in written.page.iter()]
    assert all(link.startswith("#") and link[1:] in targets for link in links)
    assert len(targets) - targets.count(None) == len({each for each in targets if each})


def test_the_page_tells_verdict_and_circumstances(written: Written) -> None:
    (verdict,) = written.all("div", "verdict")
    assert verdict.get("class") == "verdict failed"
    assert "".join(verdict.itertext()).startswith(
        "✘ FAILED3 of 4 expectations met, 1 of 3 requirements met, 2 steps never came"
    )
    for expected in (
        "step up", "The battery follows.", "yard", "site.json", "ems.py:ems", "2026-03-01 12:00:05 UTC",
        "40 s of the site, 1.5 s on the clock", "power_limit (May 2024)", "Seed42", "dertwin0.",
        "Book, 1st edition, 3.3", "never: bess-1.active_power_w > ${limit_w}", '"site_name": "yard"',
    ):  # fmt: skip
        assert expected in written.words, expected


def test_every_row_of_the_page_tells_its_verdict_in_words(written: Written) -> None:
    told = ["".join(each.itertext()) for each in written.all("span", "")]
    assert told == (
        ["✘ FAILED"] * 2
        + ["✔ met", "✔ met", "✔ met", "✘ NOT MET", "✘ NOT MET", "✘ NOT MET"]
        + ["✔ met", "✘ NOT MET", "✘ NOT MET"]
    )


def test_measured_value_limit_and_margin_of_each_requirement_are_there(written: Written) -> None:
    lines = {
        each[0].text: ["".join(cell.itertext()).replace("\u00a0", " ") for cell in each]
        for each in written.all("tr", "")
        if (each.get("id") or "").startswith("c1-")
    }
    assert lines["R1"] == ["R1", "reached", "✔ met", "2.25 s", "at most 5 s", "2.75 s", "[1]"]
    assert lines["R2"][1:] == ["heldfrom 10 s on", "✘ NOT MET", "81.5 %", "90 to 110 %", "\u22128.5 %", "[2]"]
    assert lines["R3"][1:] == ["released", "✘ NOT MET", "not measured", "at least 0 W", "no value", "[3]"]
    assert lines["E1"][1] == "bess-1.active_power_w in 3900..4100 within 10 s for 3 s"
    assert lines["E1"][3] == "bess-1.active_power_w 4\u202f000 W"
    assert lines["E1"][5] == "100 W"
    assert lines["S1"][1] == "later"


def plots(written: Written, signal: str) -> list[ET.Element]:
    return [each for each in written.page.iter() if each.get("aria-label") == signal]


def drawn(plot: ET.Element, kind: str) -> list[str]:
    return [
        each.get("d", "") for each in plot.iter() if set(kind.split()) <= set(each.get("class", "").split())
    ]


def test_what_was_expected_is_shaded_where_and_while_it_was(written: Written) -> None:
    first, second = plots(written, "bess-1.active_power_w")
    held, limit = drawn(first, "band area held")
    (waiting,) = drawn(first, "band area waiting")
    check = written.result.cases[0].checks[0]
    axis = Axes(20.0, 0.0, 1.0)
    assert waiting.startswith(f"M{axis.x(2.0):.1f} ")
    assert held.startswith(f"M{axis.x(2.0 + check.became_s):.1f} ")
    assert f"L{axis.x(check.decided_s):.1f} " in held
    assert limit.startswith(f"M{axis.x(2.0):.1f} ")
    assert f"L{axis.x(14.0):.1f} " in limit
    assert drawn(first, "cross") == []
    (cross,) = drawn(second, "cross")
    failed = written.result.cases[1].checks[1]
    assert cross.startswith(f"M{axis.x(failed.decided_s) - 4:.1f} ")


def test_a_setpoint_is_drawn_with_what_follows_it(written: Written) -> None:
    axis = Axes(20.0, 0.0, 1.0)
    assert plots(written, "bess-1.command.active_power_setpoint_w") == []
    assert drawn(plots(written, "bess-1.active_power_w")[0], "command")[0].startswith(f"M{axis.x(0.5):.0f} ")
    assert [panel.signal for panel in panels(["a.shown.soc", "a.soc", "a.command.soc", "b.command.x_w"])] == [
        "a.soc",
        "b.command.x_w",
    ]


def test_build_servers_read_the_verdict(written: Written) -> None:
    suites = list(written.junit)
    assert [(suite.name, suite.tests, suite.failures) for suite in suites] == [
        ("step up: limit_w 4500", 6, 3),
        ("step up: limit_w 3000", 3, 2),
    ]
    cases = [case for suite in suites for case in suite]
    failed = {case.name: case.result[0].message for case in cases if case.result}
    assert failed["R2 held"].replace("\u00a0", " ") == "81.5 %, must be 90 to 110 %, from 10 s on"
    assert failed["E2 the limit holds"].startswith("never bess-1.active_power_w > 3000 for 12 s; seen: ")
    assert set(failed) == {"R2 held", "R3 released", "E2 the limit holds", "S1 later"}
    assert {each.name: each.value for each in suites[0].properties()}["seed"] == "42"


def test_the_tables_hold_the_record_to_the_last_bit(written: Written) -> None:
    for place, case in enumerate(written.result.cases, start=1):
        lines = written.csv(place, "signals.csv")
        assert [float(line["time_s"]) for line in lines] == list(case.record.times)
        for name, values in case.record.columns.items():
            read = [float(line[name] or "nan") for line in lines]
            assert read == pytest.approx(list(values), rel=0, abs=0, nan_ok=True)
        events = [Happened(float(e.pop("time_s")), **e) for e in written.csv(place, "events.csv")]  # type: ignore[arg-type]
        assert events == case.record.happened
        commands = written.csv(place, "commands.csv")
        assert [(float(c["time_s"]), c["device"], c["command"], float(c["value"])) for c in commands] == [
            tuple(each) for each in case.record.received
        ]


def test_the_table_of_what_was_judged_has_measured_value_band_and_margin(written: Written) -> None:
    lines = {line["label"]: line for line in written.csv(1, "requirements.csv")}
    assert list(lines) == ["E1", "E2", "R1", "R2", "R3", "S1"]
    assert [lines["R2"][key] for key in ("measured", "low", "high", "margin")] == [
        "81.5",
        "90.0",
        "110.0",
        "-8.5",
    ]
    assert (lines["R3"]["measured"], lines["R3"]["high"]) == ("", "inf")
    assert [lines["E2"][key] for key in ("measured", "high", "unit")] == ["4000.0", "4500.0", "W"]
    judged = list(rows(written.result.cases[1]))
    assert float(written.csv(2, "requirements.csv")[1]["margin"]) == judged[1].margin < 0


def test_the_result_is_there_for_programs(written: Written) -> None:
    content = written.content
    assert (content["scenario"], content["seed"], content["passed"], content["complete"]) == (
        "step up",
        42,
        False,
        True,
    )
    assert content["started_at"] == "2026-03-01T12:00:05+00:00"
    assert set(content["versions"]) > {"dertwin", "python"}
    case = content["cases"][0]
    assert case["parameters"] == {"limit_w": 4500}
    assert case["checks"][1]["expectation"] == "never bess-1.active_power_w > 4500 for 12 s"
    assert case["verdicts"][0]["requirements"][1]["margin"] == -8.5
    assert case["verdicts"][0]["requirements"][2]["measured"] == "nan"


def test_hostile_names_are_shown_and_do_nothing(tmp_path: Path, checked: CheckedSite) -> None:
    loaded = load(tmp_path, checked, SCENARIO | {"cases": [{"limit_w": 4500}]})
    record = Record([HOSTILE])
    record.times.append(0.0)
    record.columns[HOSTILE].append(1.0)
    record.happened.append(Happened(0.0, HOSTILE, HOSTILE, HOSTILE, HOSTILE))
    requirement = Requirement(HOSTILE, 1.0, 2.0, 3.0, HOSTILE, HOSTILE, HOSTILE)
    verdict = PackVerdict(HOSTILE, HOSTILE, HOSTILE, 0.0, [requirement])
    case = CaseResult(HOSTILE, {"x": HOSTILE}, 1.0, [], [verdict], [HOSTILE], record)
    result = ScenarioResult(HOSTILE, HOSTILE, 0, HOSTILE, True, [case])
    context = Context(
        loaded._replace(text=HOSTILE, file=HOSTILE), HOSTILE, checked.config, HOSTILE, STARTED, 0.0
    )
    report = Written(tmp_path / "out", result, context)
    html5lib.HTMLParser(strict=True).parse(report.html)
    assert "<script" not in report.html
    assert SHOWN in "".join(report.page.itertext())
    (suite,) = report.junit
    assert [case.result[0].type for case in suite] == ["requirement", "step"]
    assert " ".join(SHOWN.split()) in " ".join(next(iter(suite)).name.split())
    assert report.csv(1, "events.csv")[0]["text"] == HOSTILE.replace("\ud800", "?")
    assert report.content["scenario"] == HOSTILE


def test_what_was_stopped_is_neither_passed_nor_forgotten(tmp_path: Path, checked: CheckedSite) -> None:
    loaded = load(tmp_path, checked, SCENARIO)
    result = run_ems(checked, loaded, ems)
    stopped = result._replace(complete=False, cases=result.cases[:1])
    report = Written(
        tmp_path / "out", stopped, Context(loaded, "site.json", checked.config, "", STARTED, 0.5)
    )
    assert "NOT COMPLETE" in report.words
    assert "Stopped before its end, in case 1 of 2." in report.words
    assert "limit_w 3000NOT RUN" in report.words
    assert [(suite.tests, suite.failures) for suite in report.junit][-1] == (1, 1)


def test_a_peak_of_one_sample_is_drawn_and_a_long_run_stays_small(
    tmp_path: Path, checked: CheckedSite
) -> None:
    loaded = load(tmp_path, checked, SCENARIO | {"cases": [{"limit_w": 4500}]})
    names = [f"meter-{index}.active_power_w" for index in range(10)]
    record = Record(names)
    for index in range(10501):
        record.times.append(index / 10)
        for place, name in enumerate(names):
            record.columns[name].append(1000.0 * math.sin(index * (1 + place)))
    record.columns[names[0]][5555] = 9000.0
    case = CaseResult("", {}, 1050.0, [], [], [], record)
    result = ScenarioResult("long", "", 0, "yard", True, [case])
    began = time.process_time()
    report = Written(tmp_path / "out", result, Context(loaded, "", checked.config, "", STARTED, 0.5))
    assert time.process_time() - began < 2.0
    assert len(report.html) < 1_000_000
    (path,) = drawn(plots(report, names[0])[0], "main")
    assert min(float(y) for y in re.findall(r"V([\d.]+)", path)) == pytest.approx(
        TOP + HEIGHT * 0.08 / 1.16, abs=0.1
    )


def test_a_trace_has_gaps_where_there_is_no_value() -> None:
    axes = Axes(4.0, 0.0, 1.0)
    assert (
        trace(Signal([0.0, 1.0, 2.0, 3.0], [0.0, math.nan, 1.0, math.inf]), axes)
        == f"M{LEFT} {TOP + HEIGHT}.0H247M428 {TOP}.0H609"
    )
    assert trace(Signal([0.0, 1.0], [math.nan, math.nan]), axes) == ""


@pytest.mark.parametrize(
    ("expectation", "expected"),
    [
        ({"that": "a in 1..2", "for": 1}, [Band("a", Edge(1.0), Edge(2.0))]),
        ({"that": "a <= 5", "for": 1}, [Band("a", None, Edge(5.0))]),
        ({"that": "a == b +- 2", "for": 1}, [Band("a", Edge(-2.0, "b"), Edge(2.0, "b"))]),
        ({"that": "a != 3 +- 1", "for": 1}, [Band("a", Edge(2.0), Edge(4.0), False)]),
        ({"never": "a > b"}, [Band("a", None, Edge(0.0, "b"))]),
        ({"never": "a in 1..2"}, [Band("a", Edge(1.0), Edge(2.0), False)]),
        ({"that": {"not": "a < 1"}, "for": 1}, [Band("a", Edge(1.0), None)]),
        (
            {"that": {"all": ["a > 1", "b < 2"]}, "for": 1},
            [Band("a", Edge(1.0), None), Band("b", None, Edge(2.0))],
        ),
        ({"never": {"any": ["a > 1", "b < 2"]}}, [Band("a", None, Edge(1.0)), Band("b", Edge(2.0), None)]),
        ({"that": {"any": ["a > 1", "b < 2"]}, "for": 1}, []),
        ({"never": {"all": ["a > 1", "b < 2"]}}, []),
    ],
)  # fmt: skip
def test_the_bands_of_a_condition_are_those_that_each_signal_must_keep(
    expectation: dict[str, Any], expected: list[Band]
) -> None:
    assert bands(Expectation.model_validate(expectation)) == expected


def test_numbers_are_short_and_have_their_unit() -> None:
    assert [number(v) for v in (0.0, -5.25, 1234567.0, 49.9876, 1e-7, -5e-324, math.inf)] == [
        "0", "\u22125.25", "1\u202f234\u202f600", "49.988", "1e\u221207", "\u22120", "∞",
    ]  # fmt: skip
    names = ("a.active_power_w", "a.b_w_m2", "a.soc", "a.working_status", "a.silence_s")
    assert [unit(name) for name in names] == ["W", "W/m²", "", "", "s"]
    assert limits(-math.inf, math.inf, "W") == "any"
    assert limits(2.0, 2.0, "") == "2"


def test_the_scale_of_a_plot_has_round_numbers() -> None:
    assert ticks(0.0, 1050.0, 10) == [0, 200, 400, 600, 800, 1000]
    assert ticks(49.4, 50.1, 4) == pytest.approx([49.4, 49.6, 49.8, 50.0])
