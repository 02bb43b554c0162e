"""An answer on the screen: its tokens as they come, who served it and how fast."""

from __future__ import annotations

import sys
from collections.abc import Callable
from time import monotonic
from typing import Any

import click

from astromesh.cli.client import Event
from astromesh.cli.terminal import is_terminal, printable

SPEED_TOKENS_MIN = 2  # a speed needs two points


class Stopwatch:
    """When the first token came, in seconds since the question, and how fast the others followed.

    A run may call its model several times, and not all of it is shown: each call that streamed is measured by itself, from its first token
    to its last, and what lies between two calls is nobody's speed.
    """

    def __init__(self, clock: Callable[[], float] = monotonic) -> None:
        self._clock = clock
        self._asked_at = clock()
        self.first_token_s: float | None = None
        self._call: tuple[float, float] | None = None  # the first and the last token of the call that streams
        self._tokens = 0  # after the first of each call
        self._spent_s = 0.0

    def saw(self, event: Event) -> None:
        match event.kind:
            case "token":
                now = self._clock() - self._asked_at
                self.first_token_s = now if self.first_token_s is None else self.first_token_s
                self._call = (now if self._call is None else self._call[0], now)
            case "usage" if self._call is not None:
                first_s, last_s = self._call
                self._call = None
                if (tokens := event.data["tokens_out"]) >= SPEED_TOKENS_MIN and last_s > first_s:
                    self._tokens += tokens - 1
                    self._spent_s += last_s - first_s

    @property
    def tokens_per_s(self) -> float | None:
        return self._tokens / self._spent_s if self._spent_s > 0 else None


def summary(done: dict[str, Any], watch: Stopwatch) -> str:
    """`served by c · home a · desk → billing on b · 37 tokens · 92 tok/s · first token 0.31 s`."""
    tokens = done["usage"]["tokens_out"]
    parts = [f"served by {printable(done['node'])}", f"home {printable(done['home'])}"]
    parts += [printable(f"{one['from']} → {one['to']} on {one['node']}") for one in done.get("handoffs", ())]
    if done.get("blocked"):
        parts.append("blocked by a guardrail")
    parts.append(f"{tokens} tokens")
    if (speed := watch.tokens_per_s) is not None:
        parts.append(f"{speed:.0f} tok/s")
    if tokens and watch.first_token_s is not None:  # else a text that no model made
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
