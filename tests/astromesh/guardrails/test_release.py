"""What may be shown of a text that comes in pieces: the guarded whole, wherever it is cut, and as early as can be."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from astromesh.guardrails.personal import KINDS
from astromesh.guardrails.release import Block, Finding, Release
from astromesh.guardrails.rules import rules
from astromesh.specs.agent import Guardrail

PERSONAL = Guardrail(type="pii_detection")
WORDS = Guardrail(type="content_filter", forbidden_keywords=("internal_only", "to buy", "日本"), action="redact")
PATTERNS = Guardrail(type="content_filter", blocked_patterns=(r"\bab{1,3}\b", r"(?m)^x.", r"a.?$", "[é-ü]+"), action="redact")
BOUNDED = Guardrail(type="content_filter", blocked_patterns=(r"\bab{1,3}\b", r"(?m)^x.", r"a.?$"), action="redact")
LENGTH = Guardrail(type="max_length", max_chars=30, action="redact")
BLOCKED = Guardrail(type="topic_filter", blocked_topics=("war",), allowed_topics=("peace", "a"))
WATCHED = Guardrail(type="pii_detection", action="warn")
ALL = {
    "personal": [PERSONAL],
    "words": [WORDS],
    "patterns": [PATTERNS],
    "bounded patterns": [BOUNDED],
    "length": [LENGTH],
    "blocked": [BLOCKED],
    "watched": [WATCHED],
    "all": [PERSONAL, WORDS, BOUNDED, WATCHED, LENGTH],
    "all, and blocked": [PERSONAL, WATCHED, BLOCKED, WORDS],
}

# Texts near what rules look for: random letters would never hold any of it.
PARTS = st.sampled_from(
    [
        "john@example.com", "a@b", ".co", " @ ", "[at]", " (dot) ", "com", "j o h n @ x . c o m", "4111 1111 1111 1111", "4111", "1111-",
        "+1 ", "(555) ", "123-45-6789", "123", "4567", "0176 ", "01.02.2024", "internal_only", "internal", "to  buy", "to", "日本", "日",
        "ab", "abbb", "a", "b", "x", "\n", " ", "  ", "\u200b", "\u0301", "é", "ａ", "℡", "㏂", "п", "о", "１", "-", "–", ".", "@", "+",
        "(", ")", "[", "9", "0", "war", "peace", "\u200b" * 20, " " * 12, "z" * 70, "7" * 25,
    ]
)  # fmt: skip
TEXTS = st.lists(PARTS | st.text(alphabet="ab19 .-@+(x\n\u200d", max_size=4), max_size=14).map("".join)


def guarded(given_rules: Sequence[Guardrail], pieces: Sequence[str]) -> tuple[str, object]:
    release = Release(rules(given_rules))
    shown = "".join(release.feed(piece) for piece in pieces) + release.finish()
    return shown, (release.block, release.redacted, release.warnings)


def cut(text: str, places: Sequence[int]) -> list[str]:
    ends = [*sorted({place % (len(text) + 1) for place in places}), len(text)]
    return [text[start:end] for start, end in zip([0, *ends[:-1]], ends, strict=True)]


@pytest.mark.parametrize("which", ALL)
@settings(max_examples=250, deadline=None)
@given(text=TEXTS, places=st.lists(st.integers(0, 400), max_size=12))
@example(text="j o h n @ e x . c o m", places=[1, 3])
@example(text="2024-01-02 10:00", places=[14])
@example(text="abb b", places=[3])
def test_the_streamed_text_is_the_guarded_whole_however_it_is_cut(which: str, text: str, places: list[int]) -> None:
    whole = guarded(ALL[which], [text])
    assert guarded(ALL[which], cut(text, places)) == whole
    assert guarded(ALL[which], list(text)) == whole


SIMPLE = st.lists(st.sampled_from(["to buy", "to", "buy", "ab", "abbb", "x", "a@b", ".co", "12", "345 ", "-", ",", "\n", "."]), max_size=30)


@pytest.mark.parametrize(
    ("rule", "longest"),
    [
        (WORDS, len("internal_only")),
        (BOUNDED, len("abbb")),
        (PERSONAL, max(kind.characters_max for kind in KINDS)),
        (LENGTH, 0),
        (WATCHED, 0),
    ],
)
@settings(max_examples=150, deadline=None)
@given(parts=SIMPLE)
def test_no_more_is_held_back_than_the_longest_match(rule: Guardrail, longest: int, parts: list[str]) -> None:
    release = Release(rules([rule]))
    text, shown = "".join(parts), ""
    for count, sign in enumerate(text, start=1):
        shown += release.feed(sign)
        if "[REDACTED" in shown or len(shown) >= 30:
            break  # from here on, what is shown is shorter or longer than what was said
        assert count - len(shown) <= longest


@pytest.mark.parametrize(
    ("rule", "fed", "shown"),
    [
        (PERSONAL, "Good day, my friend", "Good day, my "),  # the last word may become an address
        (PERSONAL, "Good day, my friend. I", "Good day, my friend. "),
        (PERSONAL, "on 12", "on "),
        (WORDS, "I want to ", "I want "),
        (WORDS, "I want to sell", "I want to sell"),
        (BLOCKED, "Nothing of it", ""),
        (PATTERNS, "Nothing of it", ""),
        (WATCHED, "all of it: a@b.co", "all of it: a@b.co"),
    ],
)
def test_what_is_shown_at_once(rule: Guardrail, fed: str, shown: str) -> None:
    assert Release(rules([rule])).feed(fed) == shown


def test_a_rule_reads_what_the_one_before_it_shows_in_the_order_of_the_document() -> None:
    no_marks = Guardrail(type="content_filter", forbidden_keywords=("redacted_email",), message="No marks.")
    text = "I am a@b.co"
    first, (block, _, _) = guarded([PERSONAL, no_marks], [text])
    assert (first, block) == ("", Block("content_filter", "a forbidden keyword", "No marks."))
    assert guarded([no_marks, PERSONAL], [text])[0] == "I am [REDACTED_EMAIL]"


def test_what_is_found_is_told_by_kind_and_number() -> None:
    _, found = guarded(
        [PERSONAL, Guardrail(type="content_filter", blocked_patterns=("a", "b"), action="warn")], ["b: a@b.co, +1 555 123 4567"]
    )
    assert found == (None, Counter({"a mail address": 1, "a phone number": 1}), (Finding("content_filter", "blocked_patterns[1]"),))


def test_a_remark_may_be_long_and_off_topic_and_may_not_hold_what_is_forbidden() -> None:
    by_answers = [Guardrail(type="max_length", max_chars=3), Guardrail(type="topic_filter", allowed_topics=("peace",), action="warn")]
    release = Release(rules(by_answers))
    assert release.feed("Let me look") + release.finish(remark=True) == "Let me look"
    assert (release.block, release.warnings) == (None, ())
    release = Release(rules([BLOCKED]))
    assert release.feed("war and peace") + release.finish(remark=True) == ""
    assert release.block is not None
