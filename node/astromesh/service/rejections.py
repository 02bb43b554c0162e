"""What the mesh refuses to hear, told to the log: at most one line a minute for each reason, however much arrives. Pure.

Every reason has its line in one of the groups below: what it means, and what to do next.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Final

from maia.config import Address

LINE_EVERY_S: Final = 60.0  # for one reason: who floods the mesh must not flood the disk


@dataclass(frozen=True, slots=True)
class Kind:
    """Reasons that mean the same to whoever reads the log. A `harmless` one is no warning: it happens in a mesh that is well."""

    means: str
    then: str
    reasons: tuple[str, ...]
    harmless: bool = False


KINDS: Final = (
    Kind(
        "sent by somebody who has not this cluster's gossip key",
        "if a node of yours is there, give it the keyring of the other members (docs/security.md); else find out who sends",
        ("plaintext", "sealed", "undecryptable", "bad-padding"),
    ),
    Kind(
        "one of the two lacks a key of this cluster",
        "bring it the key: 'A node that was away' in docs/keys.md",
        ("key-missing", "key-missing-there"),
    ),
    Kind(
        "a node of another cluster, or a stock serf agent, which is a member only where the nodes are told so",
        "if it belongs here, give it this cluster's cluster_id, or start every node with --serf; else take this address out of its seeds",
        ("other-cluster",),
    ),
    Kind(
        "a memberlist label, which this mesh does not use",
        "take the label out of that agent's configuration; keys and cluster_id keep clusters apart here",
        ("labelled",),
    ),
    Kind(
        "two identities under one name",
        "rename one of the nodes, or give each a data directory of its own",
        ("name-taken",),
    ),
    Kind(
        "offers that their owner did not sign, or accusations that no node can have earned: somebody with the gossip key forges",
        "replace the gossip key: 'astromesh-node keys' (docs/security.md), and find out who had it",
        ("other-signer", "bad-signature", "unsigned", "hostile-incarnation", "hostile-clock"),
    ),
    Kind(
        "a node was asked to talk across the border of its loopback",
        "check the --gossip address of the member that is named",
        ("beyond-loopback",),
    ),
    Kind(
        "more than this node keeps or does at once",
        "look at maia_members and maia_received_bytes under /metrics: a mesh that outgrew its limits, or a flood",
        (
            "too-many-members", "too-many-streams", "too-many-relays", "too-many-parts", "too-long", "too-long-to-tell", "stream-too-long",
            "state-too-long", "too-deep", "stream-too-slow",
        ),
    ),
    Kind(
        "no messages of this mesh",
        "something else speaks to the gossip port, a network damages packets, or that node runs another version: see what runs there",
        (
            "bad-address", "bad-boolean", "bad-bytes", "bad-checksum", "bad-compression", "bad-digest", "bad-entry", "bad-key-request",
            "bad-key-response", "bad-listing", "bad-load", "bad-msgpack", "bad-name", "bad-number", "bad-offers", "bad-query", "bad-relay",
            "bad-state", "bad-tags", "bad-versions", "bad-want", "empty", "not-a-map", "relay-refused", "stream-already-whole",
            "stream-refused", "truncated", "unexpected-stream", "unknown-compression", "unknown-offers", "unknown-serf", "unknown-stream",
            "unknown-type",
        ),
    ),
    Kind(
        "come too early, too late or to the wrong node, as happens while nodes come and go",
        "nothing, unless it goes on",
        ("alone", "ping-for-another", "stranger", "stream-broken", "unchecked"),
        harmless=True,
    ),
)  # fmt: skip
_KIND_OF: Final = {reason: kind for kind in KINDS for reason in kind.reasons}
_UNHEARD_OF: Final = Kind("refused", "see mesh/ALGORITHM.md", ())


@dataclass(frozen=True, slots=True)
class Line:
    text: str
    harmless: bool


class Rejections:
    """`look` at the counters now and then; it returns what there is to say."""

    def __init__(self) -> None:
        self._told: dict[str, int] = {}
        self._told_s: dict[str, float] = {}

    def look(self, counts: Mapping[str, int], senders: Mapping[str, Address], *, now: float) -> list[Line]:
        """`counts` by reason since the mesh started, which may have started anew; `senders` of the last of each, where known."""
        lines: list[Line] = []
        for reason in sorted(counts):
            told = self._told.get(reason, 0)
            count = counts[reason] - told if counts[reason] >= told else counts[reason]
            told_s = self._told_s.get(reason)
            if not count or (told_s is not None and now < told_s + LINE_EVERY_S):
                continue
            self._told[reason] = counts[reason]
            self._told_s[reason] = now
            kind = _KIND_OF.get(reason, _UNHEARD_OF)
            since = f" in the last {now - told_s:.0f} s" if told_s is not None else ""
            sender = f", the last from {senders[reason]}" if reason in senders else ""
            lines.append(Line(f"the mesh refused {count} as {reason}{since}{sender}: {kind.means}; {kind.then}", kind.harmless))
        return lines
