"""That the bench at a thousand nodes sees what it says, tried on a few."""

from __future__ import annotations

from pathlib import Path

import orjson
import pytest
from tests.bench.gossip_plots import draw
from tests.bench.gossip_scale import Finding, capped_kbit, findings, percentile, plan, read, tables
from tests.bench.gossip_trials import Changes, Crashes, Patience, Reading, Traffic, Trial, carry_out

from maia.config import LAN_FAST


def test_a_crash_is_timed_at_the_first_and_the_last_survivor() -> None:
    reading = carry_out(Crashes(profile="lan-fast", nodes=5, seed=1, crashes=2))
    assert (reading.missed, reading.deaths) == (0, 0)
    assert len(reading.first_s) == len(reading.last_s) == 2
    assert LAN_FAST.suspicion_flat_s is not None
    for first_s, last_s in zip(reading.first_s, reading.last_s, strict=True):
        assert LAN_FAST.suspicion_flat_s[0] < first_s <= last_s < 10.0


def test_a_change_is_timed_until_the_last_node_knows_it() -> None:
    reading = carry_out(Changes(profile="lan-fast", nodes=6, seed=1, changes=20))
    assert (reading.missed, len(reading.last_s)) == (0, 20)
    assert min(reading.last_s) > 0.0


def test_idle_nodes_send_no_offers_and_changes_cost_what_their_pushes_are_long() -> None:
    idle = carry_out(Traffic(profile="lan-fast", nodes=6, seed=1, seconds=20.0))
    busy = carry_out(Traffic(profile="lan-fast", nodes=6, seed=1, seconds=20.0, per_second=5.0))
    assert "offers" not in idle.bytes_out
    pushes_bytes_per_s = 5.0 * 5 / 6 * 250  # changes, receivers, nodes; less than an entry with its signature and headers
    assert busy.bytes_out["offers"] > pushes_bytes_per_s
    assert busy.bytes_out["ping"] == pytest.approx(idle.bytes_out["ping"], rel=0.05)


def test_acks_and_refutations_are_outside_the_cap() -> None:
    assert capped_kbit(Reading(bytes_out={"ping": 125.0, "offers": 250.0, "ack": 1e6, "alive": 1e6})) == 3.0


def test_a_starved_node_is_suspected_and_lives() -> None:
    calm = carry_out(Patience(profile="lan-fast", nodes=5, seed=1, seconds=60.0, sky="calm"))
    starved = carry_out(Patience(profile="lan-fast", nodes=5, seed=1, seconds=60.0, sky="loss and one starved"))
    assert calm.suspicions == 0
    assert starved.suspicions > 0
    assert calm.node_hours == pytest.approx(5 / 60)


def test_a_crash_that_somebody_never_learned_of_misses_its_goal() -> None:
    trial = Crashes(profile="lan-fast", nodes=100, seed=1, crashes=3)
    assert all(finding.met for finding in findings([(trial, Reading(last_s=[1.2, 1.3, 1.4]))]))
    assert not all(finding.met for finding in findings([(trial, Reading(last_s=[1.2, 1.3], missed=1))]))


def test_a_goal_is_missed_by_whatever_lies_beyond_it() -> None:
    assert Finding("G9", "idle", 12.0, 12.0, "kbit/s").met
    assert not Finding("G9", "idle", 12.1, 12.0, "kbit/s").met
    assert "MISSED" in str(Finding("G9", "idle", float("nan"), 12.0, "kbit/s"))


@pytest.mark.parametrize(("share", "expected"), [(0.0, 1), (0.5, 3), (0.99, 4), (1.0, 4)])
def test_a_percentile_is_a_number_that_was_measured(share: float, expected: float) -> None:
    assert percentile([3, 1, 4, 2], share) == expected


def test_every_goal_of_the_bench_has_a_world_that_is_measured_for_it() -> None:
    trials = plan((3, 10, 100, 1000), share=0.01)
    assert {finding.goal for finding in findings([(trial, filled(trial)) for trial in trials])} == {"G8", "G9", "G11"}
    assert len(findings([(trial, filled(trial)) for trial in trials])) == 13


def filled(trial: Trial) -> Reading:
    return Reading(first_s=[1.0], last_s=[1.0], bytes_out={"ping": 1.0}, node_hours=1.0)


def test_curves_and_tables_are_the_same_for_the_same_figures(tmp_path: Path) -> None:
    results = [(trial, filled(trial)) for trial in plan((3, 10), share=0.01)]
    draw(results, tmp_path / "one")
    draw(results, tmp_path / "other")
    drawn = sorted((tmp_path / "one").iterdir())
    assert [path.name for path in drawn] == ["gossip-bytes.svg", "gossip-change.svg", "gossip-crash.svg"]
    for path in drawn:
        assert path.read_bytes() == (tmp_path / "other" / path.name).read_bytes()
        assert path.stat().st_size < 200_000
    assert "| `lan-fast` | 10 | 5 |" in tables(results)


def test_what_a_run_wrote_is_read_again(tmp_path: Path) -> None:
    raw = {"worlds": [["Crashes", {"profile": "lan", "nodes": 3, "seed": 7, "crashes": 1}, {"last_s": [5.5]}]]}
    path = tmp_path / "raw.json"
    path.write_bytes(orjson.dumps(raw))
    assert read([path]) == [(Crashes(profile="lan", nodes=3, seed=7, crashes=1), Reading(last_s=[5.5]))]
