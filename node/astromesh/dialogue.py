"""What agents, models and tools say to each other. Pure values, the same in every room and on every wire."""

from __future__ import annotations

import sys
from array import array
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any, Literal

Role = Literal["system", "user", "assistant", "tool"]
FinishReason = Literal["stop", "length", "tool_calls", "content_filter"]


@dataclass(frozen=True, slots=True)
class ToolCall:
    """A model's wish to call a tool. `arguments` is JSON text as the model wrote it: whether it parses is for the tool room to say."""

    id: str
    name: str
    arguments: str


@dataclass(frozen=True, slots=True)
class Message:
    role: Role
    content: str
    tool_calls: tuple[ToolCall, ...] = ()
    tool_call_id: str | None = None  # only in a message of role "tool": the call that it answers
    failed: bool = field(default=False, kw_only=True, compare=False)  # of that call; known where it was made, and no part of what is said


Transcript = tuple[Message, ...]


@dataclass(frozen=True, slots=True)
class ToolSchema:
    name: str
    description: str
    parameters: Mapping[str, Any]  # JSON Schema


@dataclass(frozen=True, slots=True)
class Answer:
    """An act's outcome: what the agent says to the one who asked."""

    text: str
    by: str
    work: Transcript = ()  # what led to it, calls of tools and their results: kept with the turn
    data: Any = None  # the answer as JSON values, where the agent's document has an `output_schema`: they obey it


@dataclass(frozen=True, slots=True)
class HandOff:
    """An act's outcome: another agent goes on with the conversation. Who conducts the run asks it to; who hands off has ended."""

    to: str
    by: str
    reason: str = ""
    work: Transcript = ()


Outcome = Answer | HandOff


@dataclass(frozen=True, slots=True)
class Sampling:
    """How to pick tokens. None leaves the choice to the model's server."""

    temperature: float | None = None
    top_p: float | None = None
    top_k: int | None = None
    min_p: float | None = None
    seed: int | None = None
    presence_penalty: float | None = None
    frequency_penalty: float | None = None
    repeat_penalty: float | None = None
    max_tokens: int | None = None
    stop: tuple[str, ...] = ()
    logit_bias: tuple[tuple[int, float], ...] = ()  # (token id, what is added to its logit)
    logprobs: int | None = None  # tell every token's log-probability, and those of so many others in its place


@dataclass(frozen=True, slots=True)
class Resume:
    """An answer that broke off: its tokens so far, and the ends of the batches that read its prompt. Its seed is in the sampling.

    `identity` is that of the model which made them: to any other, the numbers are other words.
    """

    identity: str
    tokens: tuple[int, ...]
    borders: tuple[int, ...]


@dataclass(frozen=True, slots=True)
class ModelRequest:
    """One completion. `model` is the name under which the mesh offers it. A `prompt` stands instead of a transcript: text to go on with."""

    model: str
    transcript: Transcript
    tools: tuple[ToolSchema, ...] = ()
    tool_choice: str | Mapping[str, Any] | None = None  # OpenAI's values
    sampling: Sampling = field(default_factory=Sampling)
    response_format: Mapping[str, Any] | None = None  # OpenAI's values
    stream: bool = True  # False: nobody watches, so a server may send the whole reply in one piece
    resume: Resume | None = None  # to a local model of the same identity: go on behind these tokens, and stream what follows them
    prompt: str | None = None


@dataclass(frozen=True, slots=True)
class Usage:
    """Tokens. `cached_tokens` is the part of `tokens_in` that was not computed again."""

    tokens_in: int = 0
    tokens_out: int = 0
    cached_tokens: int = 0

    def __add__(self, other: Usage) -> Usage:
        return Usage(self.tokens_in + other.tokens_in, self.tokens_out + other.tokens_out, self.cached_tokens + other.cached_tokens)


@dataclass(frozen=True, slots=True)
class AnswerBegan:
    """A local model has read the prompt. With the tokens that follow, it is what another node needs to go on with the answer."""

    identity: str  # sha256 of the model's file
    kernel: str  # equal kernels make equal greedy text; empty where that was not seen to be so
    borders: tuple[int, ...]
    seed: int


@dataclass(frozen=True, slots=True)
class TokenLogprob:
    """A token and its natural logarithm of probability, as the model itself saw it: before penalties, biases, grammar and temperature.

    `piece` are its bytes, which need not be whole characters. `top` are the likeliest tokens in that place, best first.
    """

    piece: bytes
    logprob: float
    top: tuple[TokenLogprob, ...] = ()

    @property
    def text(self) -> str:
        return self.piece.decode(errors="replace")


@dataclass(frozen=True, slots=True)
class TextDelta:
    """The next piece of a model's text: a token as the model made it. A local model also says which tokens it took since the last piece."""

    text: str
    tokens: tuple[int, ...] = ()
    logprobs: tuple[TokenLogprob, ...] = ()  # where they were asked for: of the tokens that this text is made of


@dataclass(frozen=True, slots=True)
class ToolCallDelta:
    """The next piece of tool call number `index`: `id` and `name` come with its first piece, `arguments` grows."""

    index: int
    id: str = ""
    name: str = ""
    arguments: str = ""
    tokens: tuple[int, ...] = ()  # as in `TextDelta`


@dataclass(frozen=True, slots=True)
class ModelReply:
    """The end of a completion: all that streamed before it, and what it cost."""

    text: str
    tool_calls: tuple[ToolCall, ...] = ()
    finish_reason: FinishReason = "stop"
    usage: Usage = field(default_factory=Usage)
    model: str = ""
    timings: Mapping[str, float] = field(default_factory=dict)  # queue_ms, prefill_ms, decode_tok_s, where the server tells
    logprobs: tuple[TokenLogprob, ...] = ()

    def as_message(self) -> Message:
        return Message("assistant", self.text, self.tool_calls)


ModelEvent = AnswerBegan | TextDelta | ToolCallDelta | ModelReply
"""What a completion streams: perhaps `AnswerBegan`, any number of deltas, then exactly one `ModelReply`."""


FLOAT_BYTES = 4


@dataclass(frozen=True, slots=True)
class Vectors:
    """`(texts, dimensions)` float32, little-endian, row after row; of embeddings every row has the length 1.

    Bytes, because a node only passes them on: it has no use for an array library, and an idle one may not load it.
    """

    dimensions: int
    data: bytes = field(repr=False)

    def __post_init__(self) -> None:
        if self.dimensions < 1 or len(self.data) % (FLOAT_BYTES * self.dimensions):
            raise ValueError(f"{len(self.data)} bytes are no rows of {self.dimensions} numbers")

    def __len__(self) -> int:
        return len(self.data) // (FLOAT_BYTES * self.dimensions)

    def rows(self) -> Iterator[bytes]:
        size = FLOAT_BYTES * self.dimensions
        return (self.data[start : start + size] for start in range(0, len(self.data), size))

    def numbers(self) -> Iterator[list[float]]:
        """Row by row: a large answer holds a million, and making them all at once would hold the interpreter."""
        for row in self.rows():
            numbers = array("f", row)
            if sys.byteorder == "big":
                numbers.byteswap()
            yield numbers.tolist()


EncodingTask = Literal["embed", "classify", "rerank"]


@dataclass(frozen=True, slots=True)
class EncodingRequest:
    """Texts to be turned into numbers.

    `dimensions`, to embed: how many numbers each vector must have; None takes what the model makes. `query`, to rerank and only then: what
    each text is held against.
    """

    model: str
    texts: tuple[str, ...] = field(repr=False)
    dimensions: int | None = None
    task: EncodingTask = "embed"
    query: str | None = field(default=None, repr=False)


@dataclass(frozen=True, slots=True)
class Encodings:
    """One row for each text, in their order: its vector, the scores of `labels`, or one number that says how well it answers the query.

    `truncated`: the places of those that were longer than the model reads, and were cut.
    """

    vectors: Vectors
    usage: Usage
    model: str
    truncated: tuple[int, ...] = ()
    labels: tuple[str, ...] = ()
