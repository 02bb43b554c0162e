"""Whatever a tool gives back is text that fits a prompt."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

import pytest

from astromesh.tools.port import ToolFailed
from astromesh.tools.results import as_text, fitted, shown_bytes


@dataclass
class Ticket:
    number: int
    open: bool


@pytest.mark.parametrize(
    ("value", "text"),
    [
        ("as it is", "as it is"),
        (None, "done"),
        (3, "3"),
        (True, "true"),
        ({"a": [1, None]}, '{"a":[1,null]}'),
        (Ticket(7, True), '{"number":7,"open":true}'),
        ((1, {2}), "[1,[2]]"),
        (datetime(2026, 1, 2, tzinfo=UTC), '"2026-01-02T00:00:00Z"'),
        (float("nan"), '"NaN"'),
        (b"bytes of text", "bytes of text"),
        (bytearray(b"\xff\xfe\0"), "[3 bytes, not text]"),
        ({"raw": b"\xff"}, '{"raw":"_w=="}'),
    ],
)
def test_every_value_becomes_text(value: Any, text: str) -> None:
    assert as_text(value) == text


def test_what_json_has_no_word_for_is_a_failure_that_says_so() -> None:
    circle: list[Any] = []
    circle.append(circle)
    for value in (object(), circle, lambda: None):
        with pytest.raises(ToolFailed, match="what it gave back is no JSON"):
            as_text(value)


@pytest.mark.parametrize(
    ("data", "charset", "kind", "text"),
    [
        (b"plain", "utf-8", "", "plain"),
        ("Zürich".encode("latin-1"), "latin-1", "text/plain", "Zürich"),
        ("Zürich".encode("latin-1"), "utf-8", "text/html", "Z\ufffdrich"),
        ("Zürich".encode(), "no-such-charset", "application/json", "Zürich"),
        (b"\xff\xd8\xff", "utf-8", "image/jpeg", "[3 bytes of image/jpeg, not text]"),
        (b"a\0b", "utf-8", "text/plain", "[3 bytes of text/plain, not text]"),
    ],
)
def test_bytes_are_read_as_what_they_are_said_to_be_or_counted(data: bytes, charset: str, kind: str, text: str) -> None:
    assert shown_bytes(data, charset=charset, kind=kind) == text


@pytest.mark.parametrize(
    ("text", "tokens", "shown"),
    [
        ("x" * 8, 2, "x" * 8),
        ("x" * 9, 2, "x" * 8 + "\n[cut: the first 8 of 9 characters; ask for less at once]"),
        ("日本語", 2, "日本\n[cut: the first 2 of 3 characters; ask for less at once]"),
        ("a\ud800", 2, "a?"),
        ("", 1, ""),
    ],
)
def test_a_text_is_cut_at_its_tokens_between_two_characters(text: str, tokens: int, shown: str) -> None:
    assert fitted(text, tokens) == shown
