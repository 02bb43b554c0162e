"""Nothing that is promised is forgotten: a test shows it, or its user is told that it does not work."""

from __future__ import annotations

from pathlib import Path

import pytest
from tests.contracts import page, surface
from tests.contracts.conftest import COLLECTED
from tests.contracts.files import keys
from tests.contracts.shown import SHOWN, SHOWN_ELSEWHERE, items, shown
from tests.contracts.words import sample

ROOT = Path(__file__).resolve().parents[2]


def test_every_item_of_the_doors_is_shown_by_a_test_or_listed_as_missing() -> None:
    found = shown()
    assert [item for item in surface.doors() if item not in found and not surface.missing(item)] == []
    assert [item for item in found if surface.missing(item)] == [], "works, and is listed as missing"


def test_every_key_of_a_file_is_shown_by_a_test_or_its_user_is_told_that_it_does_nothing() -> None:
    found = shown()
    assert [item for item in keys() if item not in found and not sample(item).said] == []


def test_the_table_names_tests_that_there_are_and_items_that_are_promised(pytestconfig: pytest.Config) -> None:
    """Of the files that this run has collected: all of them where it is the folder's."""
    tests = pytestconfig.stash[COLLECTED]
    files = {test.partition("::")[0] for test in tests} - {Path(one.partition("::")[0]).stem for one in pytestconfig.args if "::" in one}
    named = {f"{file}::{test}" for file, rows in SHOWN.items() if file in files for test in rows}
    assert sorted(named - tests) == []
    show_something = {test.partition("[")[0] for test in named} | {"test_contract", "test_openapi"}
    silent = [test for test in sorted(tests) if not {test.partition("[")[0], test.partition("::")[0]} & show_something]
    assert [test for test in silent if test.partition("::")[0] in files] == []
    for place in SHOWN_ELSEWHERE:
        path, _, name = place.partition("::")
        assert f"def {name}(" in (ROOT / path).read_text(encoding="utf-8"), place
    assert [item for item in shown() if item not in items()] == []


async def test_the_page_says_what_tests_show_and_what_the_program_answers_now() -> None:
    assert page.PAGE.read_text(encoding="utf-8") == await page.made(), "write it again: python -m tests.contracts.page"
