"""Which of two versions of an agent is the higher one, whatever its author writes for a version. Pure."""

from __future__ import annotations

import re

_PART = re.compile(r"[0-9]{1,18}|[a-z]+", re.ASCII | re.IGNORECASE)
_WORD, _END, _NUMBER = range(3)


def order(version: str) -> tuple[tuple[int, int, str], ...]:
    """To be compared: numbers by their value, 1.2 before 1.2.1, and 2.0-rc1 before 2.0. No version at all is before every other."""
    parts = _PART.findall(version)
    if not parts:
        return ()
    return (*((_NUMBER, int(part), "") if part.isdigit() else (_WORD, 0, part.lower()) for part in parts), (_END, 0, ""))
