"""What the stub model says: a function of the request alone, so that every run of a test reads the same words.

A test drives the model through its prompt. A line `call NAME {"key": "value"}` in the user's last message makes it call that tool (several
lines: several calls at once); results of tools are repeated; anything else is echoed. What cannot be said that way is queued with
`StubOpenAI.say`.
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

CALL_LINE = re.compile(r"^\s*call (?P<name>[\w.:-]+)[ \t]*(?P<arguments>\{.*\})?\s*$", re.MULTILINE)
# Words with the white space in front of them: joined again they give the text back, as the pieces of a real tokenizer do.
PIECE = re.compile(r"\s*\S+")


@dataclass(frozen=True, slots=True)
class Say:
    """One answer of a model: words, or calls of tools given as (name, arguments)."""

    text: str = ""
    calls: tuple[tuple[str, Mapping[str, Any]], ...] = ()


@dataclass(frozen=True, slots=True)
class Spoken:
    """An answer cut to what the request allows, with its count of tokens. One piece is one token."""

    pieces: tuple[str, ...]
    calls: tuple[tuple[str, str], ...]
    finish_reason: str
    prompt_tokens: int
    completion_tokens: int

    @property
    def text(self) -> str:
        return "".join(self.pieces)

    @property
    def usage(self) -> dict[str, int]:
        prompt, completion = self.prompt_tokens, self.completion_tokens
        return {"prompt_tokens": prompt, "completion_tokens": completion, "total_tokens": prompt + completion}


def text_of(message: Mapping[str, Any]) -> str:
    """The text of a message, whether its content is a string, a list of parts, or absent."""
    content = message.get("content")
    if isinstance(content, str):
        return content
    if isinstance(content, list):
        return "".join(part.get("text", "") for part in content if isinstance(part, dict))
    return ""


def answer(body: Mapping[str, Any]) -> Say:
    """What the model says to this request when nothing was queued for it."""
    messages: Sequence[Mapping[str, Any]] = body["messages"]
    results: list[str] = []
    for message in reversed(messages):
        if message.get("role") != "tool":
            break
        results.append(text_of(message))
    if results:
        return Say(text="The tools said: " + " | ".join(reversed(results)))
    said = next((text_of(message) for message in reversed(messages) if message.get("role") == "user"), "")
    offered = {tool["function"]["name"] for tool in body.get("tools") or ()}
    wanted = [(line["name"], json.loads(line["arguments"] or "{}")) for line in CALL_LINE.finditer(said)]
    calls = tuple(call for call in wanted if call[0] in offered)
    return Say(calls=calls) if calls else Say(text=f"You said: {said}")


def spoken(say: Say, body: Mapping[str, Any]) -> Spoken:
    """`say` under the request's limit of tokens. Calls of tools are never cut: a stub that half-calls a tool would test nothing we meet."""
    pieces = tuple(PIECE.findall(say.text))
    calls = tuple((name, json.dumps(dict(arguments), separators=(",", ":"))) for name, arguments in say.calls)
    limit = body.get("max_completion_tokens") or body.get("max_tokens")
    cut = isinstance(limit, int) and len(pieces) > limit
    if cut:
        pieces = pieces[:limit]
    finish_reason = "tool_calls" if calls else "length" if cut else "stop"
    prompt_tokens = sum(len(PIECE.findall(text_of(message))) for message in body["messages"])
    completion_tokens = len(pieces) + sum(len(PIECE.findall(arguments)) + 1 for _, arguments in calls)
    return Spoken(pieces, calls, finish_reason, prompt_tokens, completion_tokens)
