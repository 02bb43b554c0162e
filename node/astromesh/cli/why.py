"""Why a member has its status, for people: the evidence of its last few changes, the last one first. Pure."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import datetime
from typing import Any

from astromesh.cli.terminal import duration, printable

HEALTH_MAX = 7
_OUTCOMES = {
    "acked": "answered",
    "late": "answered late or through another",
    "failed": "failed",
    "voided": "void, as this node stood still,",
}


def why(member: dict[str, Any], *, now: float) -> str:
    """`member` as `GET /v1/mesh/members/{name}` has it; `now` on the node's own clock."""
    lines = [f"{member['name']} is {member['status']}, for {duration(now - _seconds(member['since']))}"]
    lines.append(f"{member['wire_name']}, gossip {member['gossip']}, incarnation {member['incarnation']}")
    for change in reversed(member["history"]):
        lines += ["", *_change(change)]
    if not member["history"]:
        lines += ["", "nothing has happened to it yet"]
    return "\n".join(printable(line) for line in lines)


def _change(change: dict[str, Any]) -> Iterator[str]:
    says = f", says {change['accuser']}" if change["accuser"] else ""
    yield f"{clock(change['at'])}  {change['status']}{says}: {change['how']}"
    if change["accusers"]:
        yield f"  accused by   {', '.join(change['accusers'])}"
    yield f"  this node    health {change['own_health']} of {HEALTH_MAX} (0 is well), timers up to {_ms(change['own_lag_seconds'])} late"
    for probe in change["probes"]:
        ended = f"failed: {probe['how']}" if probe["how"] else f"{_OUTCOMES[probe['outcome']]} after {_ms(probe['took_seconds'])}"
        yield f"  probe        {clock(probe['at'])}  {ended}"


def clock(at: str) -> str:
    """The node's time of day, to the millisecond, in the zone of whoever looks."""
    return datetime.fromisoformat(at).astimezone().strftime("%H:%M:%S.%f")[:-3]


def _seconds(at: str) -> float:
    return datetime.fromisoformat(at).timestamp()


def _ms(seconds: float) -> str:
    return f"{seconds * 1000:.1f} ms" if seconds < 0.01 else f"{seconds * 1000:.0f} ms"
