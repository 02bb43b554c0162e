"""Nothing that is promised is forgotten: a test shows it, or its user is told that it does not work."""

from __future__ import annotations

import re
from pathlib import Path

from tests.contracts import page, surface
from tests.contracts.files import keys
from tests.contracts.shown import SHOWN, SHOWN_ELSEWHERE, items, shown
from tests.contracts.words import sample

FOLDER = Path(__file__).parent


def test_every_item_of_the_doors_is_shown_by_a_test_or_listed_as_missing() -> None:
    found = shown()
    assert [item for item in surface.doors() if item not in found and not surface.missing(item)] == []
    assert [item for item in found if surface.missing(item)] == [], "works, and is listed as missing"


def test_every_key_of_a_file_is_shown_by_a_test_or_its_user_is_told_that_it_does_nothing() -> None:
    found = shown()
    assert [item for item in keys() if item not in found and not sample(item).said] == []


def test_the_table_names_tests_that_there_are_and_items_that_are_promised() -> None:
    tests = {
        f"{file.stem}::{name}"
        for file in FOLDER.glob("test_*.py")
        for name in re.findall(r"^(?:async )?def (test_\w+)", file.read_text(encoding="utf-8"), re.MULTILINE)
    }
    claiming = {f"{file}::{test.partition('[')[0]}" for file, rows in SHOWN.items() for test in rows}
    assert [test for test in sorted(claiming) if test not in tests] == []
    for place in SHOWN_ELSEWHERE:
        path, _, name = place.partition("::")
        assert f"def {name}(" in (FOLDER.parents[1] / path).read_text(encoding="utf-8"), place
    assert [item for item in shown() if item not in items()] == []
    about_the_table = {"test_contract", "test_openapi"}
    assert [test for test in sorted(tests) if test not in claiming and test.partition("::")[0] not in about_the_table] == []


async def test_the_page_says_what_tests_show_and_what_the_program_answers_now() -> None:
    assert page.PAGE.read_text(encoding="utf-8") == await page.made(), "write it again: python -m tests.contracts.page"
