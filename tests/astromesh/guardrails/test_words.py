"""Words and patterns of a document: whole words, however they are written; patterns as they are."""

from __future__ import annotations

import pytest

from astromesh.guardrails.scan import Chain
from astromesh.guardrails.words import Patterns, Words


def marked(matcher: Words | Patterns, text: str, *, by: int = 1_000_000) -> str:
    chain = Chain([matcher])
    return "".join(chain.feed(text[start : start + by]) for start in range(0, len(text), by)) + chain.finish()


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("The WAR, a warship and post-war.", "The [REDACTED], a warship and post-[REDACTED]."),
        ("wаr wár w\u200bar ｗａｒ 𝔴𝔞𝔯 wa\u0301r", "[REDACTED] [REDACTED] [REDACTED] [REDACTED] [REDACTED] [REDACTED]"),
        ("money\n  laundering and money", "[REDACTED] and [REDACTED]"),
        ("money launderings", "[REDACTED] launderings"),
        ("internal_only_x", "[REDACTED]_x"),
        ("これは禁止です", "これは[REDACTED]です"),
        ("C++ and C", "[REDACTED] and C"),
        ("STRASSE", "[REDACTED]"),
        ("Война", "[REDACTED]"),
        ("nothing", "nothing"),
    ],
)
def test_a_word_is_found_however_it_is_written_and_only_as_a_whole(text: str, shown: str) -> None:
    words = Words(("war", "money", "money laundering", "internal_only", "禁止", "C++", "Straße", "война"), found="a word")
    assert marked(words, text) == shown
    assert marked(words, text, by=1) == shown


@pytest.mark.parametrize(
    ("pattern", "text", "shown"),
    [
        (r"sk-[a-z]{4}", "a sk-abcd b", "a [REDACTED] b"),
        (r"(?i)sk-[a-z]{4}", "SK-ABCDE", "[REDACTED]E"),
        (r"secret$", "secret, secret", "secret, [REDACTED]"),
        (r"^a", "aa a", "[REDACTED]a a"),
        (r"(?m)^#.*$", "x\n# y\nz", "x\n[REDACTED]\nz"),
        (r"\bab?c?d?\b", "abc abcde", "[REDACTED] abcde"),
        (r"code", "c\u200bo\u00adde ｃｏｄｅ", "[REDACTED] [REDACTED]"),
        (r"é", "é e", "[REDACTED] e"),
    ],
)
def test_a_pattern_is_found_wherever_the_text_is_cut(pattern: str, text: str, shown: str) -> None:
    matcher = Patterns([pattern])
    assert marked(matcher, text) == shown
    assert marked(matcher, text, by=1) == shown
