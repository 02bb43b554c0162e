"""Key pairs of nodes that exist in tests alone, and entries under them."""

from __future__ import annotations

from functools import lru_cache
from hashlib import sha256

from maia.catalogue.signature import signed
from maia.identity import KeyPair, node_id_of
from maia.wire.offers import Entry


@lru_cache(maxsize=1024)
def key_of(name: str) -> KeyPair:
    """The same for the same name, in every run."""
    return KeyPair(sha256(name.encode()).digest())


def id_of(name: str) -> str:
    return node_id_of(key_of(name).public_key)


def entry_of(
    node: str,
    generation: int,
    key: str,
    version: int,
    flags: int,
    value: bytes,
    *,
    signer: str = "",
    cluster_id: str = "",
) -> Entry:
    """An entry signed by its owner, or by another node."""
    return signed(Entry(node, generation, key, version, flags, value), signer=key_of(signer or node), cluster_id=cluster_id)
