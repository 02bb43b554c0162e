"""Two catalogues compared in twelve bytes a node."""

from __future__ import annotations

from maia.catalogue.digest import rows, rows_that_differ, shelves_that_differ
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
