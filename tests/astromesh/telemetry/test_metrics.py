"""Figures as Prometheus reads them."""

from __future__ import annotations

from prometheus_client.core import GaugeMetricFamily
from prometheus_client.parser import text_string_to_metric_families

from astromesh.telemetry.metrics import Metrics


def figures(metrics: Metrics) -> dict[str, float]:
    families = text_string_to_metric_families(metrics.text().decode())
    return {sample.name + str(sorted(sample.labels.items())): sample.value for family in families for sample in family.samples}


def test_the_text_can_be_parsed_and_counts() -> None:
    metrics = Metrics()
    metrics.runs.labels("desk", "ok").inc()
    metrics.runs.labels("desk", "ok").inc()
    assert figures(metrics)["astromesh_runs_total[('agent', 'desk'), ('outcome', 'ok')]"] == 2


def test_two_nodes_in_one_process_share_no_figures() -> None:
    one, other = Metrics(), Metrics()
    one.runs.labels("desk", "ok").inc()
    assert not any(name.startswith("astromesh_runs_total") for name in figures(other))


def test_figures_of_a_part_are_read_at_the_moment_of_the_scrape() -> None:
    metrics, level = Metrics(), [1.0]
    metrics.watch(lambda: [GaugeMetricFamily("astromesh_level", "How high it stands.", value=level[0])])
    level[0] = 5.0
    assert figures(metrics)["astromesh_level[]"] == 5.0


def test_figures_are_the_same_as_json_with_one_row_for_each_set_of_labels() -> None:
    metrics = Metrics()
    metrics.runs.labels("desk", "ok").inc(2)
    metrics.runs.labels("till", "ok").inc()
    metrics.first_token.labels("m").observe(0.5)
    told = metrics.figures()
    assert told["counters"]["astromesh_runs"] == [
        {"labels": {"agent": "desk", "outcome": "ok"}, "value": 2.0},
        {"labels": {"agent": "till", "outcome": "ok"}, "value": 1.0},
    ]
    assert told["histograms"]["astromesh_model_first_token_seconds"] == [{"labels": {"model": "m"}, "count": 1.0, "sum": 0.5}]
