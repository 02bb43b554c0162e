"""What people see: aligned tables, durations, sizes, and a line that shows how far something is.

Plain text; colour and lines that rewrite themselves only on a terminal, colour not with NO_COLOR.
"""

from __future__ import annotations

import os
import re
import sys
from collections.abc import Iterable, Sequence
from time import monotonic
from typing import TextIO

BAR_CHARACTERS = 24
REDRAW_S = 0.1
# Without a terminal a line each time: often enough to see that it lives, rare enough for a log.
LINE_EVERY_S = 5.0
_CONTROL = re.compile(r"[\x00-\x08\x0b-\x1f\x7f-\x9f]")
_DIM, _BOLD, _END = "\x1b[2m", "\x1b[1m", "\x1b[0m"


def is_terminal(stream: TextIO) -> bool:
    return stream.isatty() and os.environ.get("TERM") != "dumb"


def dim(text: str, stream: TextIO) -> str:
    return f"{_DIM}{text}{_END}" if _coloured(stream) else text


def bold(text: str, stream: TextIO) -> str:
    return f"{_BOLD}{text}{_END}" if _coloured(stream) else text


def _coloured(stream: TextIO) -> bool:
    return is_terminal(stream) and not os.environ.get("NO_COLOR")


def printable(text: str) -> str:
    """Without what a terminal would obey: names and answers come from other machines and from models."""
    return _CONTROL.sub("\ufffd", text)


def table(head: Sequence[str], rows: Iterable[Sequence[str]], stream: TextIO) -> str:
    """Columns as wide as their widest cell; empty cells are a dash. The last column is not padded."""
    cells = [[printable(cell) or "-" for cell in row] for row in rows]
    widths = [max(len(row[column]) for row in (list(head), *cells)) for column in range(len(head))]

    def line(row: Sequence[str]) -> str:
        return "  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip()

    return "\n".join((bold(line(head), stream), *(line(row) for row in cells)))


def duration(seconds: float) -> str:
    """`4 s`, `12 min`, `3 h 5 min`, `8 d 2 h`."""
    whole = max(0, int(seconds))
    minutes, hours, days = whole // 60, whole // 3600, whole // 86_400
    if whole < 60:
        return f"{whole} s"
    if hours < 1:
        return f"{minutes} min"
    if days < 1:
        return f"{hours} h {minutes % 60} min"
    return f"{days} d {hours % 24} h"


def size(count: float) -> str:
    """Bytes in decimal units, as disks are sold."""
    for unit, one in (("GB", 1e9), ("MB", 1e6), ("kB", 1e3)):
        if count >= one:
            return f"{count / one:.1f} {unit}"
    return f"{count:.0f} B"


def warn(warnings: Iterable[str]) -> None:
    """One line each on stderr."""
    for warning in warnings:
        sys.stderr.write(f"warning: {warning}\n")


class ProgressLine:
    """One line on stderr that rewrites itself on a terminal, and says something every few seconds elsewhere.

    `report` fits `inference.port.Progress`. Rates are of the current activity.
    """

    def __init__(self, stream: TextIO | None = None, *, shown: bool = True, every_s: float = LINE_EVERY_S) -> None:
        self._stream = sys.stderr if stream is None else stream
        self._shown = shown
        self._live = is_terminal(self._stream)
        self._every_s = REDRAW_S if self._live else every_s
        self._what = ""
        self._began_at = 0.0
        self._began_done = 0  # what was there already: a download that is gone on with is not that fast
        self._shown_at = 0.0
        self._complete = False
        self._open = False

    def report(self, done: int, total: int, what: str) -> None:
        now = monotonic()
        if what != self._what:
            self._what, self._began_at, self._shown_at, self._complete = what, now, now - self._every_s, False
            self._began_done = done
        complete = 0 < total <= done
        if now - self._shown_at >= self._every_s or (complete and not self._complete):
            self._shown_at, self._complete = now, complete
            self._show(_progress(done, total, what, now - self._began_at, came=done - self._began_done) if total else f"{what} …")

    def say(self, text: str) -> None:
        """Something without a measure. Said again only when it changes, and without a terminal when some seconds have passed."""
        now = monotonic()
        if text != self._what or (not self._live and now - self._shown_at >= self._every_s):
            self._what, self._shown_at = text, now
            self._show(text)

    def end(self) -> None:
        """Takes the line away where it can be; what follows begins at the left."""
        if self._open:
            self._stream.write("\r\x1b[K")
            self._stream.flush()
            self._open = False

    def _show(self, text: str) -> None:
        if not self._shown:
            return
        if self._live:
            self._stream.write(f"\r\x1b[K{text}")
            self._open = True
        else:
            self._stream.write(f"{text}\n")
        self._stream.flush()


def _progress(done: int, total: int, what: str, seconds: float, *, came: int) -> str:
    part = min(1.0, done / total)
    bar = "#" * round(part * BAR_CHARACTERS)
    rate = f"  {size(came / seconds)}/s" if seconds > 0 and came > 0 else ""
    if rate and done < total and (left_s := seconds * (total - done) / came) >= 1:
        rate += f"  {duration(left_s)} left"
    return f"{what}  [{bar.ljust(BAR_CHARACTERS, '.')}] {part:4.0%}  {size(done)} of {size(total)}{rate}"
