"""What there is to say about a document: where, what, and what to write instead. Pure.

Written for the person who has the file open. Neither message nor remedy ever holds a secret or the value of a variable.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from traceback import extract_tb

FINDINGS_MAX = 100  # of one document, of each sort: nobody reads more before mending these, and every hint costs time

Path = tuple[str | int, ...]
"""The way from a document's top to a value: keys and positions."""


def dotted(path: Sequence[str | int]) -> str:
    """`("spec", "tools", 0, "name")` as people write it: `spec.tools[0].name`."""
    text = ""
    for step in path:
        if isinstance(step, int):
            text += f"[{step}]"
        else:
            text += f".{step}" if text else step
    return text


@dataclass(frozen=True, slots=True)
class Finding:
    """`line` and `column` count from 1; 0 where the document did not come as text."""

    source: str
    line: int
    column: int
    path: str
    message: str
    remedy: str = ""

    def __str__(self) -> str:
        place = f"{self.source}:{self.line}" if self.line else self.source
        said = f"{self.message.rstrip('.')}. {self.remedy}" if self.remedy else self.message
        line = ": ".join(part for part in (place, self.path, said) if part)
        # A key or a value may hold line ends, and a log reader trusts that a line is a line.
        return line if line.isprintable() else "".join(sign if sign.isprintable() else " " for sign in line)


def unforeseen(failure: Exception) -> tuple[str, str]:
    """Message and remedy for a document that the reading of it failed on. Where, but not what was said: a value may stand in that."""
    frame = extract_tb(failure.__traceback__)[-1]
    where = f"{frame.filename.rpartition('/')[2]}:{frame.lineno}"
    return (
        f"this cannot be read, for a reason that nobody foresaw: {type(failure).__name__} in {where}",
        "Write it more simply: halve it until it can be read, to find the place.",
    )


@dataclass(frozen=True, slots=True)
class Mistake(Finding):
    """The resource cannot be used until this is mended."""


@dataclass(frozen=True, slots=True)
class Caution(Finding):
    """The resource is used, and something in it does not do what it says."""
