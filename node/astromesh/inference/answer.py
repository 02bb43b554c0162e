"""An answer put together from the pieces that its worker tells. Pure."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from astromesh.dialogue import Message, ModelReply, TextDelta, TokenLogprob, ToolCall, ToolCallDelta, Usage


class Answer:
    """`receive` every piece, then ask for the `reply`, which is what streamed and nothing else."""

    __slots__ = ("_calls", "_logprobs", "_texts")

    def __init__(self) -> None:
        self._texts: list[str] = []
        self._logprobs: list[TokenLogprob] = []
        self._calls: list[tuple[str, str, list[str]]] = []

    def receive(self, text: str, tokens: Sequence[int], logprobs: Sequence[Any], call: Sequence[Any] | None) -> TextDelta | ToolCallDelta:
        """A piece is text, or the next part of a call: `[index, id, name, arguments]`."""
        if call is None:
            told = tuple(_logprob(row) for row in logprobs)
            self._texts.append(text)
            self._logprobs += told
            return TextDelta(text, tuple(tokens), told)
        index, identifier, name, arguments = call
        if index == len(self._calls):
            self._calls.append((identifier, name, []))
        self._calls[index][2].append(arguments)
        return ToolCallDelta(index, identifier, name, arguments, tuple(tokens))

    def message(self) -> Message:
        return Message("assistant", "".join(self._texts), self._whole_calls())

    def reply(self, account: Mapping[str, Any], *, model: str, timings: Mapping[str, float]) -> ModelReply:
        return ModelReply(
            "".join(self._texts),
            self._whole_calls(),
            account["finish_reason"],
            Usage(account["tokens_in"], account["tokens_out"], account["cached_tokens"]),
            model,
            timings,
            tuple(self._logprobs),
        )

    def _whole_calls(self) -> tuple[ToolCall, ...]:
        return tuple(ToolCall(identifier, name, "".join(arguments)) for identifier, name, arguments in self._calls)


def _logprob(row: Sequence[Any]) -> TokenLogprob:
    piece, logprob, top = row
    return TokenLogprob(piece, logprob, tuple(TokenLogprob(other, chance) for other, chance in top))
