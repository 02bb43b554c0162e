"""How busy a node is, in two bytes."""

from __future__ import annotations

import pytest

from astromesh.fleet.loads import Load, read, write
from maia.config import LOAD_BYTES_MAX


@pytest.mark.parametrize(
    "load",
    [Load(0.0, 0.0, 0, 0), Load(100.0, 100.0, 192, 192), Load(6.7, 53.3, 3, 4), Load(46.7, 20.0, 16, 8)],
)
def test_what_lies_on_a_level_reads_back(load: Load) -> None:
    assert len(write(load)) <= LOAD_BYTES_MAX
    assert read(write(load)) == load


def test_everything_else_goes_to_a_level_near_it_and_no_figure_leaves_its_range() -> None:
    assert read(write(Load(51.0, 49.0, 5, 100_000))) == Load(53.3, 46.7, 4, 192)
    assert read(write(Load(400.0, -3.0, -1, 0))) == Load(100.0, 0.0, 0, 0)


def test_few_requests_are_told_exactly() -> None:
    for requests in range(5):
        told = read(write(Load(0.0, 0.0, requests, requests)))
        assert told is not None
        assert (told.active_requests, told.queued_requests) == (requests, requests)


def test_what_a_newer_node_appends_is_ignored_and_what_is_too_short_says_nothing() -> None:
    value = write(Load(20.0, 40.0, 2, 1))
    assert read(value + b"and more") == read(value)
    assert read(b"") is None
    assert read(b"x") is None


def test_a_request_more_weighs_more_than_any_processor_and_one_that_waits_weighs_twice() -> None:
    assert Load(100.0, 0.0, 0, 0).busy < Load(0.0, 0.0, 1, 0).busy
    assert Load(0.0, 0.0, 2, 0).busy == Load(0.0, 0.0, 1, 1).busy
    assert Load(0.0, 0.0, 0, 0).busy < Load(80.0, 0.0, 0, 0).busy
