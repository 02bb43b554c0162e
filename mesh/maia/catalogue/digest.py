"""Two catalogues compared in twelve bytes a node: four of its name's hash, eight of its shelf's.

Many nodes are compared in 64 buckets first, eight bytes each, and then only those in the buckets that differ.
"""

from __future__ import annotations

from collections.abc import Iterable
from functools import lru_cache
from hashlib import blake2b

from maia.catalogue.shelf import Shelf
from maia.wire.offers import BUCKET_BYTES, BUCKETS, MASK_BYTES, ROW_BYTES

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


def bucket_of(name: str) -> int:
    return name_hash(name)[0] % BUCKETS


def bucket_hashes(shelves: Iterable[Shelf]) -> bytes:
    """A hash of each bucket, combined as the root is."""
    hashes = [0] * BUCKETS
    for shelf in shelves:
        hashes[bucket_of(shelf.node)] ^= shelf.hash
    return b"".join(one.to_bytes(BUCKET_BYTES, "big") for one in hashes)


def buckets_that_differ(shelves: Iterable[Shelf], theirs: bytes) -> list[int]:
    ours = bucket_hashes(shelves)
    spans = [slice(at, at + BUCKET_BYTES) for at in range(0, len(ours), BUCKET_BYTES)]
    return [bucket for bucket, span in enumerate(spans) if ours[span] != theirs[span]]


def in_buckets(shelves: Iterable[Shelf], buckets: Iterable[int]) -> list[Shelf]:
    """Those that hold something, and fall into one of these."""
    wanted = [False] * BUCKETS
    for bucket in buckets:
        wanted[bucket] = True
    return [shelf for shelf in shelves if shelf.by_key and wanted[bucket_of(shelf.node)]]


def mask_of(buckets: Iterable[int]) -> bytes:
    """One bit for each bucket."""
    return sum(1 << bucket for bucket in buckets).to_bytes(MASK_BYTES, "big")


def buckets_in(mask: bytes) -> list[int]:
    bits = int.from_bytes(mask, "big")
    return [bucket for bucket in range(BUCKETS) if bits >> bucket & 1]
