"""Two catalogues compared in twelve bytes a node: four of its name's hash, eight of its shelf's."""

from __future__ import annotations

from collections.abc import Iterable
from functools import lru_cache
from hashlib import blake2b

from maia.catalogue.shelf import Shelf
from maia.wire.offers import ROW_BYTES

NAME_HASH_BYTES = 4


@lru_cache(maxsize=8192)
def name_hash(name: str) -> bytes:
    return blake2b(name.encode(), digest_size=NAME_HASH_BYTES).digest()


def rows(shelves: Iterable[Shelf], *, most: int) -> bytes:
    """One row for each shelf that holds something, at most `most` of them."""
    held = [shelf for shelf in shelves if shelf.by_key]
    return b"".join(name_hash(shelf.node) + shelf.hash.to_bytes(8, "big") for shelf in held[:most])


def shelves_that_differ(shelves: Iterable[Shelf], theirs: bytes) -> list[Shelf]:
    """Ours that they lack or have otherwise. What only they have shows when they compare."""
    known = {theirs[at : at + NAME_HASH_BYTES]: theirs[at + NAME_HASH_BYTES : at + ROW_BYTES] for at in range(0, len(theirs), ROW_BYTES)}
    return [shelf for shelf in shelves if shelf.by_key and known.get(name_hash(shelf.node)) != shelf.hash.to_bytes(8, "big")]


def rows_that_differ(shelves: Iterable[Shelf], theirs: bytes) -> bool:
    """Whether they have a shelf that we lack or have otherwise."""
    ours = {name_hash(shelf.node): shelf.hash.to_bytes(8, "big") for shelf in shelves}
    return any(
        ours.get(theirs[at : at + NAME_HASH_BYTES]) != theirs[at + NAME_HASH_BYTES : at + ROW_BYTES]
        for at in range(0, len(theirs), ROW_BYTES)
    )
