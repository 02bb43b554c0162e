"""A word for whoever looks on while a node takes its time: some answers wait for other nodes, which may be silent."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TextIO

from astromesh.cli.terminal import ProgressLine, is_terminal


@contextmanager
def waiting(what: str, *, shown: bool = True, stream: TextIO | None = None) -> Iterator[None]:
    """On a terminal alone, and gone with the answer: a script needs no word, and its stderr is for what went wrong."""
    stream = sys.stderr if stream is None else stream
    line = ProgressLine(stream, shown=shown and is_terminal(stream))
    line.say(f"{what} …")
    try:
        yield
    finally:
        line.end()
