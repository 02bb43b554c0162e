"""A trace as a tree: each span under the one that it was a part of, with its time, its node and what there is to say of it. Pure."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from datetime import datetime
from typing import Any, TextIO

from astromesh.cli.terminal import printable, table

Span = Mapping[str, Any]

# In words of their own, or in a column.
_TOLD = ("model", "role", "label", "route", "agent", "to", "tools", "tokens_in", "tokens_out", "node", "pid", "error")
HEAD = ("SPAN", "AT", "TOOK", "NODE", "")


def tree(trace: Mapping[str, Any], stream: TextIO) -> str:
    """`trace` as `GET /v1/traces/{id}` has it."""
    started = datetime.fromtimestamp(trace["started_at"]).astimezone().strftime("%Y-%m-%d %H:%M:%S")
    took = "still running" if trace["status"] == "running" else f"{trace['status']} after {span_time(trace['duration_ms'])}"
    counted = tokens(trace["spans"])
    said = [f"agent {trace['agent']}", took, f"home {trace['node']}", started, *([f"{counted} tokens"] if counted else [])]
    lines = [printable(f"{trace['trace_id']}"), printable(" · ".join(said)), ""]
    rows = [
        (f"{branch}{span['name']}", f"+{span_time(span['start_ms'])}", _took(span), _node(span, trace["node"]), _what(span) or " ")
        for branch, span in _branches(trace["spans"])
    ]
    lines.append(table(HEAD, rows, stream) if rows else "no act of it was recorded")
    if trace.get("spans_dropped"):
        lines.append(f"and {trace['spans_dropped']} more, which were not kept")
    return "\n".join(lines)


def span_time(milliseconds: float) -> str:
    if milliseconds < 10:
        return f"{milliseconds:.1f} ms"
    return f"{milliseconds:.0f} ms" if milliseconds < 10_000 else f"{milliseconds / 1000:.1f} s"


def tokens(spans: Iterable[Span]) -> str:
    """`120 → 37`: read and written by all models together."""
    counts = [(span["attributes"].get("tokens_in"), span["attributes"].get("tokens_out")) for span in spans]
    known = [(read, written) for read, written in counts if isinstance(read, int) and isinstance(written, int)]
    return f"{sum(read for read, _ in known)} → {sum(written for _, written in known)}" if known else ""


def _branches(spans: list[Span]) -> Iterator[tuple[str, Span]]:
    """Each span behind the lines that lead to it, in the order in which they began. One whose parent was not kept has none."""
    ids = {span["id"] for span in spans if span.get("id")}
    under: dict[str, list[Span]] = {}
    for span in sorted(spans, key=lambda span: span["start_ms"]):
        parent = span.get("parent", "")
        under.setdefault(parent if parent in ids else "", []).append(span)
    waiting = [("", span, last) for span, last in _marked(under.get("", []))][::-1]
    while waiting:
        before, span, last = waiting.pop()
        yield before + ("└ " if last else "├ "), span
        inner = under.get(span["id"], []) if span.get("id") else []
        waiting += [(before + ("  " if last else "│ "), child, its) for child, its in _marked(inner)][::-1]


def _marked(spans: list[Span]) -> Iterator[tuple[Span, bool]]:
    """Each, and whether it is the last."""
    return ((span, number == len(spans)) for number, span in enumerate(spans, start=1))


def _took(span: Span) -> str:
    return "…" if span["duration_ms"] is None else span_time(span["duration_ms"])


def _node(span: Span, home: str) -> str:
    """Who did it; of a completion, who made the tokens."""
    return str(span["attributes"].get("node") or span.get("node") or home)


def _what(span: Span) -> str:
    told = span["attributes"]
    parts = [str(told[key]) for key in ("agent", "to", "label", "model") if told.get(key)]
    if told.get("role", "default") != "default":
        parts.append(f"as {told['role']}")
    if told.get("route", "local") != "local":
        parts.append(f"by {told['route']}")
    if told.get("tools"):
        parts.append(", ".join(map(str, told["tools"])))
    if "tokens_in" in told:
        parts.append(f"{told['tokens_in']} → {told.get('tokens_out', 0)} tokens")
    parts += [f"{key} {value}" for key, value in told.items() if key not in _TOLD and isinstance(value, str | int | float)]
    if told.get("error"):
        parts.append(f"failed: {told['error']}")
    return " · ".join(parts)
