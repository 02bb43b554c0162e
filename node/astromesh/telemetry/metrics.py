"""Figures for Prometheus. Names carry their unit; labels are few and bounded: routes, codes, models and agents that this node knows."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any

from prometheus_client import CollectorRegistry, Counter, Histogram, generate_latest
from prometheus_client.core import Metric

# What a sample is, by the end of its name; buckets are for whoever reads the text.
_TOLD = {"": "value", "_total": "value", "_sum": "sum", "_count": "count"}
FIRST_TOKEN_BUCKETS_S = (0.005, 0.02, 0.05, 0.1, 0.25, 0.5, 1.0, 2.0, 5.0, 15.0, 60.0)


class Metrics:
    """One registry a node; two nodes in one process (tests, a chat without a daemon) do not share any."""

    def __init__(self) -> None:
        self.registry = CollectorRegistry(auto_describe=False)
        self.http_requests = Counter(
            "astromesh_http_requests", "Requests answered, by route and status.", ["route", "status"], registry=self.registry
        )
        self.runs = Counter(
            "astromesh_runs", "Agent runs conducted here, by agent and how they ended.", ["agent", "outcome"], registry=self.registry
        )
        self.model_requests = Counter(
            "astromesh_model_requests",
            "Completions asked for by this node, by model, by the way they went, and how they ended.",
            ["model", "route", "outcome"],
            registry=self.registry,
        )
        self.served = Counter(
            "astromesh_peer_calls_served",
            "Calls of other nodes carried out here, by kind and outcome.",
            ["kind", "outcome"],
            registry=self.registry,
        )
        self.first_token = Histogram(
            "astromesh_model_first_token_seconds",
            "From asking a model to its first token.",
            ["model"],
            buckets=FIRST_TOKEN_BUCKETS_S,
            registry=self.registry,
        )
        self.tokens = Counter(
            "astromesh_model_tokens", "Tokens of completions asked for by this node.", ["model", "direction"], registry=self.registry
        )

    def watch(self, collect: Callable[[], Iterable[Metric]]) -> None:
        """Adds figures that are read at the moment of the scrape, from parts that keep count for themselves."""
        self.registry.register(_Reading(collect))

    def figures(self) -> dict[str, dict[str, list[dict[str, Any]]]]:
        """What `text` tells, as JSON: by kind and by name a row for each set of labels; of a histogram sum and count alone."""
        told: dict[str, dict[str, list[dict[str, Any]]]] = {"counters": {}, "gauges": {}, "histograms": {}}
        for family in self.registry.collect():
            kind = {"counter": "counters", "histogram": "histograms"}.get(family.type, "gauges")
            rows: dict[tuple[tuple[str, str], ...], dict[str, Any]] = {}
            for sample in family.samples:
                what = _TOLD.get(sample.name.removeprefix(family.name))
                if what is not None:
                    labels = {str(name): str(value) for name, value in sample.labels.items()}
                    rows.setdefault(tuple(sorted(labels.items())), {"labels": labels})[what] = sample.value
            told[kind][family.name] = list(rows.values())
        return told

    def text(self) -> bytes:
        """Prometheus text format, version 0.0.4."""
        return generate_latest(self.registry)


class _Reading:
    def __init__(self, collect: Callable[[], Iterable[Metric]]) -> None:
        self.collect = collect

    def describe(self) -> list[Metric]:
        """Nothing ahead of time: a part may not be there yet when it is registered."""
        return []
