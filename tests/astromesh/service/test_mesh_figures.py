"""The mesh's figures: what they say, and that Prometheus's linter would find nothing in them."""

from __future__ import annotations

from prometheus_client.parser import text_string_to_metric_families
from tests.rig.mesh_view import member, mesh_view
from tests.rig.prometheus_lint import complaints

from astromesh.service.mesh_figures import figures
from astromesh.telemetry.metrics import Metrics
from maia.view import LAG_BUCKETS_S, Counters


def counted() -> Counters:
    counters = Counters(probes_acked=5, probes_late=2, probes_failed=3, probes_voided=1, suspicions=4, confirmations=6, cleared=2, deaths=1)
    counters.rumours, counters.health, counters.stream_bytes_in, counters.stream_bytes_out = 7, 2, 900, 800
    counters.received("ping", 40)
    counters.received("ping", 60)
    counters.sent("ack", 30)
    counters.reject("bad-crc")
    counters.probes_by_stream, counters.indirect_pings, counters.pulls, counters.entries_accepted = 8, 9, 10, 11
    counters.intents, counters.user_events, counters.queries = 3, 2, 1
    for seconds in (0.0005, 0.003, 0.003, 10.0):
        counters.lagged(seconds)
    return counters


def text() -> str:
    view = mesh_view(member("b-000001"), member("c-000002", status="dead"))
    metrics = Metrics()
    metrics.watch(lambda: figures(counted(), view))
    return metrics.text().decode()


def samples() -> dict[tuple[str, tuple[str, ...]], float]:
    families = text_string_to_metric_families(text())
    return {(sample.name, tuple(sample.labels.values())): sample.value for family in families for sample in family.samples}


def test_what_was_counted_is_what_is_shown() -> None:
    found = samples()
    assert [found["maia_probes_total", (outcome,)] for outcome in ("acked", "late", "failed", "voided")] == [5, 2, 3, 1]
    suspicions = ("maia_suspicions_total", "maia_suspicions_confirmed_total", "maia_suspicions_refuted_total", "maia_deaths_total")
    assert [found[name, ()] for name in suspicions] == [4, 6, 2, 1]
    assert (found["maia_received_bytes_total", ("ping",)], found["maia_received_bytes_total", ("stream",)]) == (100, 900)
    assert (found["maia_sent_bytes_total", ("ack",)], found["maia_sent_bytes_total", ("stream",)]) == (30, 800)
    assert (found["maia_health_score", ()], found["maia_rumours_queued", ()]) == (2, 7)
    assert found["maia_datagrams_rejected_total", ("bad-crc",)] == 1
    more = ("maia_probes_by_stream_total", "maia_indirect_probes_total", "maia_pulls_total", "maia_offers_accepted_total")
    assert [found[name, ()] for name in more] == [8, 9, 10, 11]
    assert [found["maia_serf_messages_total", (kind,)] for kind in ("intent", "event", "query")] == [3, 2, 1]
    assert [found["maia_members", (status,)] for status in ("alive", "suspect", "dead", "left")] == [2, 0, 1, 0]


def test_the_lag_is_a_histogram_in_seconds_whose_buckets_grow() -> None:
    found = samples()
    buckets = [found["maia_loop_lag_seconds_bucket", (bound,)] for bound in (*map(str, LAG_BUCKETS_S), "+Inf")]
    assert buckets == sorted(buckets)
    assert (buckets[0], buckets[1], buckets[-2], buckets[-1]) == (1, 3, 3, 4)
    assert found["maia_loop_lag_seconds_count", ()] == 4
    assert found["maia_loop_lag_seconds_sum", ()] > 10


def test_prometheus_s_linter_has_nothing_to_say() -> None:
    assert complaints(text()) == []
