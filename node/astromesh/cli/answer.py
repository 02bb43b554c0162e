"""An answer on the screen: its tokens as they come, who served it and how fast."""

from __future__ import annotations

import sys
from time import monotonic
from typing import Any

import click

from astromesh.cli.client import Event
from astromesh.cli.terminal import is_terminal, printable

SPEED_TOKENS_MIN = 2  # a speed needs two points


class Stopwatch:
    """When the first and the last token came, in seconds since the question."""

    def __init__(self) -> None:
        self._asked_at = monotonic()
        self.first_token_s: float | None = None
        self.last_token_s = 0.0

    def saw(self, kind: str) -> None:
        if kind == "token":
            self.last_token_s = monotonic() - self._asked_at
            if self.first_token_s is None:
                self.first_token_s = self.last_token_s

    def tokens_per_s(self, tokens: int) -> float | None:
        """Of the tokens after the first."""
        spent_s = self.last_token_s - (self.first_token_s or 0.0)
        return (tokens - 1) / spent_s if tokens >= SPEED_TOKENS_MIN and spent_s > 0 else None


def summary(done: dict[str, Any], watch: Stopwatch) -> str:
    """`served by c · home a · desk → billing on b · 37 tokens · 92 tok/s · first token 0.31 s`."""
    tokens = done["usage"]["tokens_out"]
    parts = [f"served by {printable(done['node'])}", f"home {printable(done['home'])}"]
    parts += [printable(f"{one['from']} → {one['to']} on {one['node']}") for one in done.get("handoffs", ())]
    parts.append(f"{tokens} tokens")
    if (speed := watch.tokens_per_s(tokens)) is not None:
        parts.append(f"{speed:.0f} tok/s")
    if watch.first_token_s is not None:
        parts.append(f"first token {watch.first_token_s:.2f} s")
    return " · ".join(parts)


class Screen:
    """Tokens as they come. Each answer of the model begins on a line of its own, and the last line ends."""

    def __init__(self) -> None:
        self._shown = ""

    def event(self, event: Event) -> None:
        match event.kind:
            case "token":
                self._shown = event.data["content"] or self._shown
                click.echo(on_screen(event.data["content"]), nl=False)
            case "tool_call" | "handoff":
                self.close()

    def answer(self, answer: str) -> None:
        """The answer as a whole, where nothing of it streamed."""
        if not self._shown:
            click.echo(on_screen(answer), nl=False)
            self._shown = answer

    def close(self) -> None:
        """Whatever comes next, an error too, begins on the left."""
        if self._shown and not self._shown.endswith("\n"):
            click.echo()
            self._shown = "\n"


def on_screen(text: str) -> str:
    """A model's text must not move the cursor or retitle the window; whoever pipes it gets it as it is."""
    return printable(text) if is_terminal(sys.stdout) else text
