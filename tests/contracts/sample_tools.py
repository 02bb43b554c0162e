"""A module that a node under test lists."""

from __future__ import annotations


def words(text: str) -> int:
    """How many words a text has."""
    return len(text.split())
