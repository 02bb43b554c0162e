"""What may be shown of a text that comes in pieces: the guarded whole, wherever it is cut, and as early as can be."""

from __future__ import annotations

from collections.abc import Sequence

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from astromesh.guardrails.release import Release
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
