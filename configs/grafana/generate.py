"""Writes the dashboards that Grafana reads from dashboards.yaml: python configs/grafana/generate.py"""

import json
from pathlib import Path
from typing import Any

import yaml

HERE = Path(__file__).parent
DATASOURCE = {"type": "prometheus", "uid": "${datasource}"}
COLUMNS = 24
# What happens in a scenario, as marks in all curves. Grafana wants times in ms.
SCENARIO_EVENTS = {
    "name": "Scenario",
    "datasource": DATASOURCE,
    "enable": True,
    "iconColor": "orange",
    "expr": 'dertwin_scenario_event_timestamp_seconds{site=~"$site"} * 1000',
    "useValueForTime": True,
    "titleFormat": "{{scenario}}: {{kind}}",
    "textFormat": "{{text}}",
}
WIDTH = {"stat": 4, "table": 24}
HEIGHT = {"stat": 4}


def dashboards() -> dict[Path, str]:
    """Return the text of each dashboard by its file."""
    described = yaml.safe_load((HERE / "dashboards.yaml").read_text())
    return {HERE / "dashboards" / f"{each['file']}.json": _dashboard(each) for each in described}


def _dashboard(described: dict[str, Any]) -> str:
    variables = {"site": "label_values(dertwin_build_info, site)", **described.get("variables", {})}
    document = {
        "uid": f"dertwin-{described['file']}",
        "title": f"dertwin: {described['title']}",
        "tags": ["dertwin"],
        "schemaVersion": 39,
        "version": 1,
        "editable": True,
        "graphTooltip": 1,
        "refresh": "5s",
        "time": {"from": "now-15m", "to": "now"},
        "links": [{"type": "dashboards", "title": "dertwin", "tags": ["dertwin"], "asDropdown": True}],
        "annotations": {"list": [SCENARIO_EVENTS]},
        "templating": {
            "list": [
                {"name": "datasource", "type": "datasource", "query": "prometheus", "hide": 0},
                *(_variable(name, query) for name, query in variables.items()),
            ]
        },
        "panels": _panels(described),
    }
    return json.dumps(document, indent=1) + "\n"


def _panels(described: dict[str, Any]) -> list[dict[str, Any]]:
    """Return the panels, from left to right and then below."""
    panels = []
    x = y = row_height = 0
    for number, panel in enumerate(described["panels"], 1):
        kind = panel.get("kind", "timeseries")
        width, height = panel.get("width", WIDTH.get(kind, 12)), HEIGHT.get(kind, 8)
        if x + width > COLUMNS:
            x, y, row_height = 0, y + row_height, 0
        queries = [
            (expr.replace("%", described["selector"]), name) for expr, name in panel["queries"].items()
        ]
        panels.append(
            {
                "id": number,
                "title": panel["title"],
                "type": kind,
                "datasource": DATASOURCE,
                "gridPos": {"x": x, "y": y, "w": width, "h": height},
                "fieldConfig": {"defaults": {"unit": panel["unit"]}, "overrides": []},
                "options": {},
                "targets": [_target(kind, *query, "ABCDEFGH"[i]) for i, query in enumerate(queries)],
            }
        )
        x, row_height = x + width, max(row_height, height)
    return panels


def _target(kind: str, expr: str, name: str, letter: str) -> dict[str, Any]:
    target: dict[str, Any] = {"refId": letter, "datasource": DATASOURCE, "expr": expr}
    if kind == "table":
        return target | {"format": "table", "instant": True}
    target["legendFormat"] = name
    return target | {"format": "heatmap"} if kind == "heatmap" else target


def _variable(name: str, query: str) -> dict[str, Any]:
    return {
        "name": name,
        "type": "query",
        "datasource": DATASOURCE,
        "query": {"query": query, "refId": name},
        "refresh": 2,
        "multi": True,
        "includeAll": True,
        "allValue": ".*",
        "current": {"text": "All", "value": "$__all"},
    }


if __name__ == "__main__":
    for path, text in dashboards().items():
        path.parent.mkdir(exist_ok=True)
        path.write_text(text)
