"""How much text a pattern can span: exactly as much as Python's own reading of it says, where the two dialects agree."""

from __future__ import annotations

import re
import warnings

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from astromesh.specs.patterns import BadPattern, compiled, width

ATOMS = st.sampled_from(["a", "é", ".", r"\d", r"\b", "^", "$", "[ab]", "[^]x]", r"[\]a-z]", r"\.", r"\x41", "{", "}"])
OPENINGS = st.sampled_from(["(", "(?:", "(?P<n>", "(?i:"])
CLOSINGS = st.sampled_from([")", ")?", ")*", ")+", "){2}", "){1,3}", "){2,}?"])
PATTERNS = st.recursive(
    ATOMS,
    lambda inner: st.one_of(
        st.lists(inner, min_size=1, max_size=3).map("".join),
        st.tuples(inner, inner).map("|".join),
        st.tuples(OPENINGS, inner, CLOSINGS).map("".join),
    ),
    max_leaves=6,
)


@settings(max_examples=500, deadline=None)
@given(PATTERNS)
def test_the_width_of_a_pattern_is_that_of_its_longest_match(pattern: str) -> None:
    try:
        compiled(pattern)
        with warnings.catch_warnings(action="ignore"):
            reading = re._parser.parse(pattern)  # type: ignore[attr-defined]
    except (BadPattern, re.error):
        return
    longest = reading.getwidth()[1]
    assert width(pattern) == (None if longest >= re._constants.MAXREPEAT else longest)  # type: ignore[attr-defined]


@pytest.mark.parametrize(
    ("pattern", "longest"),
    [
        (r"[[:alpha:]]{3}", 3),
        (r"[^[:digit:]x]?", 1),
        (r"\pL\p{Greek}\x{10FFFF}", 3),
        (r"\Qa.b*\E", 4),
        (r"\Aab\z", 2),
        (r"(?i)ab|(?s:.)c{2,4}", 5),
        (r"\07a", 2),
        (r"(\b)*", 0),
        ("", 0),
    ],
)
def test_what_only_re2_reads_is_measured_too(pattern: str, longest: int) -> None:
    compiled(pattern)
    assert width(pattern) == longest


def test_a_pattern_that_backtracking_would_never_finish_takes_no_time() -> None:
    """Not measured: with an engine that backtracks, this test would outlive the machine."""
    assert compiled(r"(a+)+$").search("a" * 100_000 + "b") is None
