"""What an agent does before it speaks, a dim line for each on stderr: whom it asks, what it plans, which tools it calls, who goes on.

For who sits before it: without a terminal nothing of it is shown.
"""

from __future__ import annotations

import json
import shutil
import sys
from collections.abc import Iterator
from typing import Any

import click

from astromesh.cli.client import Event
from astromesh.cli.terminal import dim, is_terminal, printable

GIVEN_CHARACTERS_MAX = 60  # of a task or of arguments, so that what came of it fits on the line, too
COLUMNS_UNKNOWN = 80


class Aside:
    def __init__(self) -> None:
        self._shown = is_terminal(sys.stderr)

    def line(self, event: Event) -> str | None:
        """As wide as the terminal at most; None: there is nothing to tell of this event, or nobody to tell it to."""
        said = line_of(event) if self._shown else None
        return None if said is None else within(said, shutil.get_terminal_size((COLUMNS_UNKNOWN, 0)).columns - 1)


def show(line: str) -> None:
    click.echo(dim(line, sys.stderr), err=True)


def line_of(event: Event) -> str | None:
    """Texts of models and names of other machines, as one line that commands no terminal."""
    data = event.data
    match event.kind:
        case "status" if data.get("state") == "delegated":
            return _plain(f"→ {data.get('agent')} on {data.get('node')}")
        case "status" if data.get("state") == "loading":
            return _plain(f"· waits for the model {data.get('model')} to load")
        case "handoff":
            return _plain(f"→ {data.get('to')} on {data.get('node')} goes on, handed over by {data.get('from')}")
        case "tool_call":
            return _plain(f"{_by(data)}calls {data.get('name')} {_given(data.get('arguments'))}")
        case "step" if data.get("action"):
            return _step(data)
    return None


def _step(data: dict[str, Any]) -> str:
    given, seen = _given(data.get("action_input")), str(data.get("observation") or "")
    did = _plain(f"{_by(data)}{data['action']}{': ' if given else ''}{given}")
    return f"{did} → {_plain(seen)}" if seen else did


def _by(data: dict[str, Any]) -> str:
    """Who it is about, where it is not the one who was asked."""
    who = data.get("label") or data.get("agent")
    return f"· {who}: " if who else "· "


def _given(text: object) -> str:
    """The texts in a piece of JSON: a plan by the names of its steps, a task by its words."""
    try:
        said = ", ".join(_texts(json.loads(text))) if isinstance(text, str) and text else ""
    except ValueError:
        said = str(text)
    return within(_plain(said), GIVEN_CHARACTERS_MAX)


def _texts(value: object) -> Iterator[str]:
    if isinstance(value, dict):
        for one in value.values():
            yield from _texts(one)
    elif isinstance(value, list):
        for one in value:
            # The first text of each names it.
            yield from list(_texts(one))[:1]
    elif value is not None:
        yield str(value)


def _plain(text: str) -> str:
    return printable(" ".join(text.split()))


def within(text: str, characters_max: int) -> str:
    return text if len(text) <= characters_max else f"{text[: max(0, characters_max - 1)].rstrip()}…"
