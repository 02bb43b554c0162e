"""Two catalogues compared in twelve bytes a node."""

from __future__ import annotations

from maia.catalogue.digest import (
    bucket_hashes,
    bucket_of,
    buckets_in,
    buckets_that_differ,
    in_buckets,
    mask_of,
    rows,
    rows_that_differ,
    shelves_that_differ,
)
from maia.catalogue.shelf import Shelf
from maia.wire.offers import ROW_BYTES, Entry


def shelf(node: str, *versions: int) -> Shelf:
    made = Shelf(node, node)
    for version in versions:
        made.put(Entry(node, 1, f"k/{version}", version, 0, b"x"))
    return made


def test_equal_shelves_do_not_differ_whatever_the_order() -> None:
    ours, theirs = [shelf("a", 1, 2), shelf("b", 3)], [shelf("b", 3), shelf("a", 2, 1)]
    digest = rows(theirs, most=9)
    assert len(digest) == 2 * ROW_BYTES
    assert shelves_that_differ(ours, digest) == []
    assert not rows_that_differ(ours, digest)


def test_what_they_lack_or_have_otherwise_differs() -> None:
    ours = [shelf("a", 1, 2), shelf("b", 3), shelf("c", 4)]
    digest = rows([shelf("a", 1), shelf("b", 3)], most=9)
    assert [differing.node for differing in shelves_that_differ(ours, digest)] == ["a", "c"]


def test_what_only_they_have_shows_on_our_side() -> None:
    ours = [shelf("a", 1)]
    assert rows_that_differ(ours, rows([shelf("a", 1), shelf("b", 1)], most=9))
    assert rows_that_differ(ours, rows([shelf("a", 1, 2)], most=9))


def test_an_empty_shelf_has_no_row() -> None:
    assert rows([shelf("a")], most=9) == b""
    assert shelves_that_differ([shelf("a")], b"") == []


def test_buckets_tell_which_nodes_to_compare() -> None:
    ours = [shelf(f"n{number}", 1) for number in range(200)]
    theirs = [*(shelf(f"n{number}", 1) for number in range(200) if number != 7), shelf("new", 1)]
    differing = buckets_that_differ(ours, bucket_hashes(theirs))
    assert differing == sorted({bucket_of("n7"), bucket_of("new")})
    assert len(bucket_hashes(ours)) == 512
    assert buckets_in(mask_of(differing)) == differing
    shown = in_buckets(ours, differing)
    assert [one.node for one in shown] == [one.node for one in ours if bucket_of(one.node) in differing]
    assert [one.node for one in shelves_that_differ(shown, rows(in_buckets(theirs, differing), most=99))] == ["n7"]


def test_equal_catalogues_have_equal_buckets_whatever_the_order() -> None:
    ours = [shelf(f"n{number}", number) for number in range(50)]
    assert buckets_that_differ(ours, bucket_hashes([*ours[::-1], shelf("without entries")])) == []
