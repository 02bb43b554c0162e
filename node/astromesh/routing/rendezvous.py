"""Which of several nodes a thing belongs to, without anybody keeping a list: highest random weight. Pure.

Thaler and Ravishankar, "Using Name-Based Mappings to Increase Hit Rates", 1998. Whoever sees the same nodes comes to the same one, and when
a node comes or goes, only what is (or becomes) its own moves.
"""

from __future__ import annotations

from collections.abc import Iterable
from hashlib import blake2b

WEIGHT_BYTES = 8


def chosen(thing: str, nodes: Iterable[str]) -> str:
    """The node with the highest weight for this thing, of at least one."""
    return max(nodes, key=lambda node: (_weight(thing, node), node))


def _weight(thing: str, node: str) -> bytes:
    """The length stands before the thing, so that no two pairs read alike."""
    return blake2b(f"{len(thing)} {thing} {node}".encode("utf-8", "surrogatepass"), digest_size=WEIGHT_BYTES).digest()
