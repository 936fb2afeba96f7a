"""What Prometheus sees of scenarios on a running service; Grafana shows the events as annotations."""

from collections import Counter
from collections.abc import Iterator

from prometheus_client.core import Metric
from prometheus_client.registry import Collector

from bench.app import Bench
from bench.exposition import add, family, labels
from bench.scenario_host import ScenarioHost

_OUTCOMES = ("pending", "passed", "failed")


class ScenarioCollector(Collector):
    """Collects how the scenario stands that runs, or ran last."""

    def __init__(self, host: ScenarioHost, bench: Bench) -> None:
        self._host = host
        self._bench = bench

    def collect(self) -> Iterator[Metric]:
        """Yield all families; those about a scenario are empty before the first one."""
        running = family("dertwin_scenario_running", "gauge", "1 while a scenario is under way.")
        passed = family("dertwin_scenario_passed", "gauge", "1 if the last scenario passed, 0 if not.")
        time = family(
            "dertwin_scenario_time_seconds", "gauge", "Time of the case that is under way, or was last."
        )
        expectations = family("dertwin_scenario_expectations", "gauge", "Expectations by how they stand.")
        events = family(
            "dertwin_scenario_event_timestamp_seconds",
            "gauge",
            "When each of the last things in the scenario happened, in s since 1970.",
        )
        current = self._host.current
        site = ("site", self._bench.site.config.site_name)
        add(running, labels(site), int(self._host.running))
        if current is not None:
            result = current.result()
            own = labels(site, ("scenario", result.scenario))
            if not self._host.running:
                add(passed, own, int(result.passed))
            add(time, own, result.cases[-1].duration_s)
            counts: Counter[str] = Counter(check.outcome for case in result.cases for check in case.checks)
            for outcome in _OUTCOMES:
                add(
                    expectations,
                    labels(site, ("scenario", result.scenario), ("outcome", outcome)),
                    counts[outcome],
                )
            for number, (at, happened) in enumerate(self._host.events):
                add(
                    events,
                    labels(
                        site,
                        ("scenario", result.scenario),
                        ("number", str(number)),
                        ("kind", happened.kind),
                        ("text", happened.text),
                    ),
                    at,
                )
        yield from (running, passed, time, expectations, events)
