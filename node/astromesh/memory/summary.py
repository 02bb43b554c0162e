"""How a model is asked to fold old turns into a summary. Pure."""

from __future__ import annotations

from collections.abc import Sequence

from astromesh.dialogue import Message, Transcript
from astromesh.memory.port import Summary, Turn

SUMMARY_TOKENS_MAX = 512
FOLDED_CHARACTERS_MAX = 24_000  # of one folding: some 6,000 tokens, which a context of 8,192 holds beside the instruction and the answer
SHOWN_CHARACTERS_MAX = 4000  # of one message: what a tool returned may be a page

INSTRUCTION = (
    "You keep the notes of a conversation. Write down, in at most ten short sentences, everything of it that a later answer may need: "
    "names, facts, numbers, wishes, decisions, open questions. Keep what the earlier notes say unless it was corrected. "
    "Write the notes only."
)


def foldable(turns: Sequence[Turn]) -> Sequence[Turn]:
    """As many of the oldest as one question holds, and at least one."""
    characters = 0
    for count, turn in enumerate(turns):
        characters += len(_written(turn))
        if characters > FOLDED_CHARACTERS_MAX:
            return turns[: max(1, count)]
    return turns


def question(earlier: Summary | None, turns: Sequence[Turn]) -> Transcript:
    """What to ask for a summary of the earlier one and of these turns."""
    notes = f"Earlier notes:\n{earlier.text}\n\n" if earlier is not None else ""
    conversation = "\n".join(_written(turn) for turn in turns)
    return (Message("system", INSTRUCTION), Message("user", f"{notes}The conversation:\n{conversation}"))


def _written(turn: Turn) -> str:
    lines = []
    for message in turn.said:
        said = message.content or ", ".join(f"{call.name}({call.arguments})" for call in message.tool_calls)
        cut = said if len(said) <= SHOWN_CHARACTERS_MAX else f"{said[:SHOWN_CHARACTERS_MAX]} …"
        lines.append(f"{message.role}: {cut}")
    return "\n".join(lines)
