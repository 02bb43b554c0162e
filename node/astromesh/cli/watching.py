"""`members --watch`: the mesh as it changes, until Ctrl-C, whatever becomes of the node that tells it.

On a terminal a table that is drawn anew at changes; elsewhere, and with --json, a line of JSON for each of them. A node that goes away is
waited for: when it is back, `members` says who is there now, so that nothing that happened in between is missed for good.
"""

from __future__ import annotations

import io
import shutil
import sys
import time
from collections import deque
from collections.abc import Callable, Iterator
from datetime import UTC, datetime
from queue import Empty, Queue
from threading import Thread
from typing import Any, TextIO

from astromesh.cli.client import Event, NodeClient
from astromesh.cli.failures import NodeUnreachable
from astromesh.cli.options import print_json_line
from astromesh.cli.terminal import bold, dim, is_terminal, printable, table
from astromesh.cli.why import clock
from astromesh.errors import AstromeshError

AGAIN_S = 1.0  # between two looks for a node that went away
REDRAW_S = 0.25  # four times a second is all that eyes take in
WAITING_MAX = 1024  # events read and not yet drawn; then the reader waits, and in the end the node drops us
SHOWN_LAST = 6  # events under the table
LOST = "unreachable"
HEAD = ("NAME", "STATUS", "ADDRESS", "API", "ROLE", "INCARNATION", "SINCE")
FURNITURE_LINES = 6  # what is no member and no event: a line above and two that are empty, the head, and the cursor's with one to spare

Pause = Callable[[float], None]


def watch(client: NodeClient, *, as_json: bool) -> None:
    """Never returns. Raises `NodeUnreachable` where no node answers at the start, and what a node refuses."""
    if as_json or not is_terminal(sys.stdout):
        for event in mesh_events(client, pause=time.sleep):
            print_json_line({"event": event.kind, **event.data})
    else:
        draw(mesh_events(client, pause=time.sleep), Table(client.url, sys.stdout), pause=time.sleep)


def mesh_events(client: NodeClient, *, pause: Pause) -> Iterator[Event]:
    """The node's events, and `unreachable` of our own, once each time that it goes away."""
    met = there = False
    while True:
        try:
            for event in client.mesh_events():
                met = there = True
                yield event
        except NodeUnreachable as lost:
            if not met:
                raise
            if there:
                there = False
                yield Event(LOST, {"at": datetime.now(UTC).isoformat(timespec="milliseconds"), "url": client.url, "message": lost.message})
        pause(AGAIN_S)


def draw(events: Iterator[Event], screen: Table, *, pause: Pause) -> None:
    """Draws what changed, at most four times a second. Reading goes on beside it: a line that is awaited cannot also be timed."""
    waiting: Queue[Event | AstromeshError] = Queue(WAITING_MAX)

    def read() -> None:
        try:
            for event in events:
                waiting.put(event)
        except AstromeshError as error:
            waiting.put(error)

    Thread(target=read, name="events of the mesh", daemon=True).start()
    while True:
        news = waiting.get()
        while True:
            if isinstance(news, AstromeshError):
                raise news
            screen.take(news)
            try:
                news = waiting.get_nowait()
            except Empty:
                break
        screen.draw()
        pause(REDRAW_S)


class Table:
    """Members by name, what happened last, and whether the node that tells it is there."""

    def __init__(self, url: str, stream: TextIO) -> None:
        self._url = url
        self._stream = stream
        self._rows: dict[str, dict[str, Any]] = {}
        self._last: deque[str] = deque(maxlen=SHOWN_LAST)
        self._node = ""
        self._lost_at = ""

    def take(self, event: Event) -> None:
        data = event.data
        match event.kind:
            case "members":
                if self._lost_at:
                    self._last.append(f"{clock(data['at'])}  {data['node']} answers again")
                self._node, self._lost_at = data["node"], ""
                self._rows = {row["wire_name"]: row for row in data["members"]}
                return
            case "unreachable":
                self._lost_at = data["at"]
                self._last.append(f"{clock(data['at'])}  {data['message']}")
                return
        if data["member"] is None:
            self._rows.pop(data["wire_name"], None)
        else:
            self._rows[data["wire_name"]] = data["member"]
        says = f", says {data['accuser']}" if data["accuser"] else ""
        self._last.append(f"{clock(data['at'])}  {data['name']} {event.kind}{says}")

    def draw(self) -> None:
        """From the top of the screen, and never more than fits on it: a line that wraps would push the table away."""
        width, height = shutil.get_terminal_size()
        said, head, *rest = (_cut(line, width) for line in self._lines(height))
        styled = bold(said, self._stream) if self._lost_at else dim(said, self._stream)
        self._stream.write("\n".join(("\x1b[H\x1b[2J" + styled, "", bold(head, self._stream), *rest)) + "\n")
        self._stream.flush()

    def _lines(self, height: int) -> Iterator[str]:
        if self._lost_at:
            yield f"the node at {self._url} is gone since {clock(self._lost_at)} and waited for; below is what it saw last"
        else:
            yield printable(f"the mesh as {self._node} sees it, at {self._url}; Ctrl-C ends")
        rows = sorted(self._rows.values(), key=lambda row: (row["name"], row["wire_name"]))
        room = max(1, height - len(self._last) - FURNITURE_LINES)
        shown = rows if len(rows) <= room else rows[: room - 1]
        yield from table(HEAD, map(_cells, shown), io.StringIO()).splitlines()
        if len(shown) < len(rows):
            yield f"and {len(rows) - len(shown)} more, for which this window is too low"
        yield ""
        yield from map(printable, self._last)


def _cut(line: str, width: int) -> str:
    return line if len(line) < width else line[: max(0, width - 2)] + "…"


def _cells(row: dict[str, Any]) -> tuple[str, ...]:
    api = (row["url"] or "").removeprefix("http://")
    return row["name"], row["status"], row["gossip"], api, row["role"], str(row["incarnation"]), clock(row["since"])[:8]
