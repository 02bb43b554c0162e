"""Which turns go into a prompt. Pure: a history and what each turn costs in, a transcript out.

A turn goes in whole or stays out: half of one, a call of a tool without its result, misleads the model or is refused by its server.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

from astromesh.dialogue import Message, Transcript
from astromesh.memory.port import History, Turn

# Where no tokenizer can be asked. English is about four bytes a token with the tokenizers of today's models, code three, other scripts two
# to three: dividing by three errs on the side of a prompt that fits.
BYTES_A_TOKEN = 3
TOKENS_A_MESSAGE = 4  # what a chat template writes around each: role, start and end

SUMMARY_PREFACE = "What we said earlier, in short:"
SUMMARY_REPLY = "I remember that."


@dataclass(frozen=True, slots=True)
class Window:
    """What a document says of it: at most so many turns, and, where there is a budget, at most so many tokens."""

    turns_max: int
    tokens_max: int | None = None
    folds: bool = False  # what leaves the window goes on in a summary

    @property
    def turns_read_max(self) -> int:
        """How many turns of a history have to be read: those that wait to be folded are used as long as there is no summary of them."""
        return 2 * self.turns_max if self.folds else self.turns_max


def estimated_tokens(said: Transcript) -> int:
    """At least what it is, for most texts and tokenizers."""
    return sum(TOKENS_A_MESSAGE + -(-_bytes(message) // BYTES_A_TOKEN) for message in said)


def texts(said: Transcript) -> list[str]:
    """All of it that a tokenizer would read, but for what a chat template adds."""
    return ["\n".join((message.content, *(f"{call.name} {call.arguments}" for call in message.tool_calls))) for message in said]


def in_prompt(history: History, window: Window, cost: Callable[[Turn], int]) -> Transcript:
    """The summary, if there is one, and the newest turns that fit. `cost`: a turn's tokens, asked only where there is a budget."""
    turns = history.unfolded if window.folds else history.turns
    chosen = _newest(turns, turns_max=window.turns_read_max, tokens_max=window.tokens_max, cost=cost)
    said = tuple(message for turn in chosen for message in turn.said)
    if window.folds and history.summary is not None:
        # As a turn: the templates of many models take neither a second system message nor two messages of the user in a row.
        text = f"{SUMMARY_PREFACE}\n\n{history.summary.text}"
        return (Message("user", text), Message("assistant", SUMMARY_REPLY), *said)
    return said


def outside(history: History, window: Window, cost: Callable[[Turn], int]) -> tuple[Turn, ...]:
    """The turns to fold into a summary, oldest first: none while what is not folded fits.

    Once it does not, half of the window is emptied: folding one turn after each question would ask the model for a summary every time.
    """
    unfolded = history.unfolded
    if not window.folds or len(_newest(unfolded, turns_max=window.turns_max, tokens_max=window.tokens_max, cost=cost)) == len(unfolded):
        return ()
    half = None if window.tokens_max is None else window.tokens_max // 2
    stay = _newest(unfolded, turns_max=window.turns_max // 2, tokens_max=half, cost=cost)
    return unfolded[: len(unfolded) - len(stay)]


def _newest(turns: Sequence[Turn], *, turns_max: int, tokens_max: int | None, cost: Callable[[Turn], int]) -> Sequence[Turn]:
    """As many of the last ones as fit, without a gap: a turn that does not fit hides those before it."""
    fitting = turns[len(turns) - min(len(turns), turns_max) :]
    if tokens_max is None:
        return fitting
    room, first = tokens_max, len(fitting)
    while first and (room := room - cost(fitting[first - 1])) >= 0:
        first -= 1
    return fitting[first:]


def _bytes(message: Message) -> int:
    return sum(len(text.encode(errors="replace")) for text in texts((message,)))
