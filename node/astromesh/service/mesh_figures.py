"""The mesh's figures for Prometheus, made from its counters and its view at the moment of a scrape.

Names carry their unit. Labels are few and bounded: kinds of messages, reasons of refusals, outcomes and statuses are constants of the mesh.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from itertools import accumulate

from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, HistogramMetricFamily, Metric

from maia.view import LAG_BUCKETS_S, Counters, MeshView, Status

STATUSES: tuple[Status, ...] = ("alive", "suspect", "dead", "left")
STREAM = "stream"  # the kind of everything that went over TCP: whole states, too large for a packet


def figures(counters: Counters, view: MeshView) -> Iterator[Metric]:
    """`counters` is a copy that nobody changes any more."""
    for name, text, value in (
        ("maia_suspicions", "Members that came under suspicion here, whoever accused them first.", counters.suspicions),
        ("maia_suspicions_confirmed", "Times that another accuser joined a suspicion.", counters.confirmations),
        ("maia_suspicions_refuted", "Suspicions that ended because the member said that it lives.", counters.cleared),
        ("maia_deaths", "Members given up here.", counters.deaths),
        ("maia_refutations", "Accusations of this node itself that it refuted.", counters.refutations),
        ("maia_stalls", "Times that this node stood still for longer than a probe may take.", counters.stalls),
        ("maia_probes_by_stream", "Probes that were answered over TCP alone: something keeps UDP from passing.", counters.probes_by_stream),
        ("maia_indirect_probes", "Times that another member was asked to ping one for this node.", counters.indirect_pings),
        ("maia_pulls", "Times that this node asked another for offers that it seemed to lack.", counters.pulls),
        ("maia_offers_accepted", "Offers of other members that were news here.", counters.entries_accepted),
        ("maia_datagrams_received", "Datagrams that arrived.", counters.datagrams_in),
        ("maia_events_dropped", "Events that a part of this node was too slow to hear.", counters.events_dropped),
    ):
        yield CounterMetricFamily(name, text, value=value)
    probes = {
        "acked": counters.probes_acked,
        "late": counters.probes_late,
        "failed": counters.probes_failed,
        "voided": counters.probes_voided,
    }
    exchanges = {"done": counters.exchanges, "failed": counters.exchanges_failed}
    received = {**counters.bytes_in_by_kind, STREAM: counters.stream_bytes_in}
    sent = {**counters.bytes_out, STREAM: counters.stream_bytes_out}
    probes_text = "Probes of a member: answered, answered late or through another, failed, or voided because this node stood still."
    yield _by("maia_probes", probes_text, "outcome", probes)
    yield _by("maia_exchanges", "Exchanges of the whole state with one other member.", "outcome", exchanges)
    serf = {"intent": counters.intents, "event": counters.user_events, "query": counters.queries}
    yield _by("maia_serf_messages", "Broadcasts of Serf's layer, each heard the first time.", "kind", serf)
    yield _by("maia_datagrams_rejected", "Messages that were refused, by reason.", "reason", counters.rejected)
    yield _by("maia_datagrams_sent", "Datagrams sent, by the kind of their first message.", "kind", counters.datagrams_out)
    yield _by("maia_received_bytes", "Bytes that arrived, by the kind of the first message.", "kind", received)
    yield _by("maia_sent_bytes", "Bytes sent, by the kind of the first message.", "kind", sent)
    yield GaugeMetricFamily("maia_health_score", "Lifeguard's local health: 0 is well, 7 is starved.", value=counters.health)
    yield GaugeMetricFamily("maia_rumours_queued", "News that is still to be told to others.", value=counters.rumours)
    members = GaugeMetricFamily("maia_members", "Members as this node sees them, by status.", labels=["status"])
    statuses = [member.status for member in view.members.values()]
    for status in STATUSES:
        members.add_metric([status], statuses.count(status))
    yield members
    # Cumulative, as Prometheus wants it: each bucket holds all that were not later.
    bounds = (*map(str, LAG_BUCKETS_S), "+Inf")
    buckets = [(bound, float(count)) for bound, count in zip(bounds, accumulate(counters.lags), strict=True)]
    lag_text = "How much later than it wanted to the mesh's thread woke: what starves it makes it blame others."
    yield HistogramMetricFamily("maia_loop_lag_seconds", lag_text, buckets=buckets, sum_value=counters.lag_sum_s)


def _by(name: str, text: str, label: str, counts: Mapping[str, int]) -> Metric:
    family = CounterMetricFamily(name, text, labels=[label])
    for value, count in sorted(counts.items()):
        family.add_metric([value], count)
    return family
