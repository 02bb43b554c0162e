"""The ring of traces: bounded, newest first."""

from __future__ import annotations

from astromesh.telemetry.traces import SPANS_MAX, Ring, Span, Trace


def trace(id: str, *, agent: str = "desk") -> Trace:  # noqa: A002
    return Trace(id, agent, 0.0, "here")


def ids(traces: list[Trace]) -> list[str]:
    return [one.id for one in traces]


def test_the_newest_come_first_and_no_more_than_asked_for() -> None:
    ring = Ring()
    for name in ("a", "b", "c"):
        ring.add(trace(name))
    assert ids(ring.recent(agent=None, limit=2)) == ["c", "b"]


def test_one_agents_traces_can_be_picked_out() -> None:
    ring = Ring()
    ring.add(trace("a", agent="desk"))
    ring.add(trace("b", agent="billing"))
    assert ids(ring.recent(agent="desk", limit=9)) == ["a"]


def test_the_oldest_goes_when_the_ring_is_full() -> None:
    ring = Ring(kept=2)
    for name in ("a", "b", "c"):
        ring.add(trace(name))
    assert ring.get("a") is None
    assert ring.get("c") is not None


def test_an_id_that_is_used_again_is_the_newest_again() -> None:
    ring = Ring(kept=2)
    for name in ("a", "b", "a", "c"):
        ring.add(trace(name))
    assert ids(ring.recent(agent=None, limit=9)) == ["c", "a"]


def test_a_trace_keeps_its_first_spans_and_counts_the_rest() -> None:
    one = trace("a")
    for number in range(SPANS_MAX + 3):
        one.add(Span(f"span {number}", 0.0, 1.0, {}))
    assert (len(one.spans), one.spans[0].name, one.as_json()["spans_dropped"]) == (SPANS_MAX, "span 0", 3)
