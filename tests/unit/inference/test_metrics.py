"""Metrics: what is exported, by which names, and that page, alerts and dashboard know the same."""

import json
import re
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import promql_parser
import pytest
import yaml
from loraland_inference import gauges
from loraland_inference.metrics import Metrics
from prometheus_client import CollectorRegistry, generate_latest

ROOT = Path(__file__).parents[3]
FILES = ROOT / "helm/loraland/files"
PAGE = (ROOT / "docs/operations.md").read_text()
OPERATOR = (ROOT / "operator/loraland_operator/metrics.py").read_text()
ALERTS = [
    rule
    for group in yaml.safe_load((FILES / "alerts/loraland.yaml").read_text())["groups"]
    for rule in group["rules"]
]
DASHBOARD = json.loads((FILES / "dashboards/loraland.json").read_text())
PANELS = [panel for panel in DASHBOARD["panels"] if panel["type"] != "row"]
# What Grafana puts in their place.
VARIABLES = {"$__rate_interval": "5m", "$instance": ".*"}


class Anything:
    """Stands for a replica's parts: every value is one, every collection empty."""

    def __getattr__(self, name: str) -> Any:
        return {"loaded": [], "loaded_slots": [], "stat": lambda _: 1}.get(name, 1)

    def __len__(self) -> int:
        return 0

    def rejections(self) -> dict[str, Any]:
        return {}


def build_registry() -> CollectorRegistry:
    """Return the registry of a replica with all of its metrics."""
    prometheus = CollectorRegistry()
    coordinator = SimpleNamespace(registry=Anything(), slots=Anything())
    parts = gauges.Parts(
        state=cast("Any", Anything()),
        tiers=cast(
            "Any", SimpleNamespace(coordinator=coordinator, disk=Anything(), host=Anything())
        ),
        links={"registry": cast("Any", Anything())},
        engine=cast("Any", Anything()),
        certificate_expires_s=lambda: 1.0,
        is_ready=lambda: True,
    )
    gauges.watch(Metrics(prometheus), parts)
    return prometheus


def exported() -> dict[str, str]:
    """Return the replica's metrics: name as Prometheus stores it, and type."""
    return {
        f"{m.name}_total" if m.type == "counter" else m.name: m.type
        for m in build_registry().collect()
    }


def operator_names() -> set[str]:
    found = re.findall(
        r"(Counter|Gauge|Histogram)(?:MetricFamily)?\(\s*\"(loraland_\w+)\"", OPERATOR
    )
    return {f"{name}_total" if kind == "Counter" else name for kind, name in found}


def test_page_explains_every_metric_with_its_type() -> None:
    """The table and the code have the same rows."""
    section = PAGE.split("### Metrics", 1)[1].split("\n### ", 1)[0]
    rows = re.findall(r"^\| `(\w+)(?:\{[a-z,]+\})?` \| (\w+) \|", section, flags=re.MULTILINE)

    assert exported() == dict(rows)


def test_names_follow_the_conventions() -> None:
    """Counters end in _total, times in _seconds, sizes in _bytes, and nothing says its type."""
    names = exported()

    assert [n for n in names if not n.startswith("loraland_")] == []
    assert [n for n, kind in names.items() if kind == "histogram" and "_seconds" not in n] == []
    assert [n for n in names if re.search(r"_(ms|count|gauge|num|mib)(_|$)", n)] == []


def names_in(expression: str) -> set[str]:
    """Return the metrics that an expression reads, without the suffixes of a histogram."""
    found = set(re.findall(r"\bloraland_\w+", expression))
    return {re.sub(r"_(bucket|sum|count)$", "", name) for name in found}


def parse(expression: str) -> None:
    for variable, value in VARIABLES.items():
        expression = expression.replace(variable, value)
    promql_parser.parse(expression)


@pytest.mark.parametrize("rule", ALERTS, ids=lambda rule: rule["alert"])
def test_alert_is_sound(rule: dict[str, Any]) -> None:
    """It parses, reads what there is, and leads to what to do."""
    parse(rule["expr"])
    runbook = rule["annotations"]["runbook"]

    assert names_in(rule["expr"]) <= set(exported()) | operator_names()
    assert rule["annotations"]["summary"].endswith(".")
    assert rule["labels"]["severity"] in {"critical", "warning", "info"}
    assert runbook == f"docs/operations.md#{rule['alert'].lower()}"
    assert f"\n#### {rule['alert']}\n" in PAGE


@pytest.mark.parametrize("panel", PANELS, ids=lambda panel: panel["title"])
def test_panel_is_sound(panel: dict[str, Any]) -> None:
    """Its expressions parse and read what there is; its place is its own."""
    for target in panel["targets"]:
        parse(target["expr"])
        assert names_in(target["expr"]) <= set(exported()) | operator_names()

    place = panel["gridPos"]
    others = [p["gridPos"] for p in DASHBOARD["panels"] if p is not panel]
    assert [o for o in others if _overlap(place, o)] == []


def _overlap(a: dict[str, int], b: dict[str, int]) -> bool:
    return (
        a["x"] < b["x"] + b["w"]
        and b["x"] < a["x"] + a["w"]
        and a["y"] < b["y"] + b["h"]
        and b["y"] < a["y"] + a["h"]
    )


def test_page_has_no_runbook_of_an_alert_that_is_gone() -> None:
    """Both ways."""
    titles = re.findall(r"^#### (Loraland\w+)$", PAGE, flags=re.MULTILINE)

    assert titles == [rule["alert"] for rule in ALERTS]


def test_every_metric_is_rendered() -> None:
    """A scrape of everything works."""
    text = generate_latest(build_registry()).decode()

    assert 'loraland_redis_failures_total{use="registry"} 1.0' in text
    assert 'loraland_adapter_tier_bytes{tier="disk"} 1.0' in text


def test_series_of_an_adapter_go_with_its_label() -> None:
    """An adapter that nobody uses any more leaves nothing behind."""
    prometheus, now_s = CollectorRegistry(), [0.0]
    metrics = Metrics(prometheus, top=1, clock=lambda: now_s[0])
    metrics.output_tokens.labels(metrics.adapter_label("a/old")).inc(5)
    metrics.ttft.labels("a/old").observe(1)
    now_s[0] = 1e5
    label = metrics.adapter_label("a/new")

    labels = {
        s.labels["adapter"]
        for m in prometheus.collect()
        for s in m.samples
        if "adapter" in s.labels
    }
    assert (label, labels) == ("a/new", set())


def test_scrape_beside_a_change_is_tried_again() -> None:
    """The loop may change a collection while Prometheus reads it."""
    prometheus, attempts = CollectorRegistry(), iter([False, False, True])

    def read() -> float:
        if not next(attempts):
            raise RuntimeError("dictionary changed size during iteration")
        return 7.0

    Metrics(prometheus).watch("test", "A test.", read)

    assert prometheus.get_sample_value("loraland_test") == 7.0
