"""The linter finds what promtool would find."""

from __future__ import annotations

import pytest
from tests.rig.prometheus_lint import SERIES_MAX, complaints


def exposition(name: str, kind: str, *, text: str = "What it is.", sample: str = "", label: str = "a") -> str:
    return f'# HELP {name} {text}\n# TYPE {name} {kind}\n{sample or name}{{{label}="x"}} 1\n'


def test_good_figures_pass() -> None:
    good = (
        exposition("node_runs_total", "counter") + exposition("node_wait_seconds", "gauge") + exposition("node_read_bytes_total", "counter")
    )
    assert complaints(good) == []


@pytest.mark.parametrize(
    ("text", "said"),
    [
        (exposition("node_runs", "counter"), "without _total"),
        (exposition("node_runs_total", "gauge"), "looks like a part"),
        (exposition("node_wait_ms", "gauge"), "the unit ms"),
        (exposition("nodeWait", "gauge"), "small letters"),
        (exposition("node_gauge_level", "gauge"), "the type is in the name"),
        (exposition("node_level", "gauge", label="aB"), "the label aB"),
        ("# TYPE node_level gauge\nnode_level 1\n", "no help"),
        (exposition("node_level", "gauge") * 2, "2 families"),
        (exposition("node_level", "gauge") + "".join(f'node_level{{a="{n}"}} 1\n' for n in range(SERIES_MAX)), "series"),
    ],
)
def test_each_rule_that_is_broken_is_named(text: str, said: str) -> None:
    (found,) = complaints(text)
    assert said in found
