"""One stream of a schedule: its tokens, how far it came, and which batch of it comes next."""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any, Final, Generic, TypeVar

from astromesh.dialogue import Message, Resume, ToolSchema, Transcript
from astromesh.errors import InvalidRequest
from astromesh.inference.answer import Answer
from astromesh.inference.assembly import TextAssembler
from astromesh.inference.sampling import SamplingPlan
from astromesh.inference.tool_calls import CallReader

# The widest batch. A chunk of a prompt holds all others up (0.12 s for SmolLM2 on two cores, where little stands before it) and a cancel
# waits for it. Widths from 32 to 63 read equally fast, twice as wide ones a tenth faster.
CHUNK_TOKENS: Final = 40

S = TypeVar("S")


@dataclass(slots=True, eq=False)
class Stream(Generic[S]):
    """`tokens` are the prompt and then the answer; of them `position` are in the context, and `given` were there at the start."""

    number: int
    transcript: Transcript
    tools: Sequence[ToolSchema]
    tokens: list[int]
    prompt_tokens: int
    given: int
    plan: SamplingPlan
    seed: int
    tokens_max: int  # of its answer
    recorded: tuple[int, ...]  # the borders by which a resumed prompt is to be read
    arrived_s: float
    assembler: TextAssembler
    borders: list[int] = field(default_factory=list)
    sequence: int = -1
    sampler: S | None = None
    position: int = 0
    cached: int = 0  # tokens that were not computed again
    reader: CallReader | None = None  # where tools may be called
    forced: bool = False  # the answer is a call, and under a grammar as a whole
    held: bool = False  # under the grammar of calls for as long as it writes one
    said: Answer = field(default_factory=Answer)
    untold: list[int] = field(default_factory=list)  # tokens taken since the last text that was told
    untold_logprobs: list[list[Any]] = field(default_factory=list)
    admitted_s: float = 0.0
    first_token_s: float = 0.0

    @property
    def cells(self) -> int:
        """What it may need at most."""
        return self.prompt_tokens + self.tokens_max

    @property
    def reading(self) -> bool:
        """Not all that was there at the start is in the context yet."""
        return self.position < self.given

    @property
    def tokens_out(self) -> int:
        return len(self.tokens) - self.prompt_tokens

    @property
    def takeable(self) -> int:
        """How many of its tokens may be taken over: the last one is read, since what comes after it is asked for."""
        return min(self.prompt_tokens, self.given - 1)

    def next_batch(self, *, width: int = CHUNK_TOKENS) -> int:
        """Where the next batch of what it reads ends; a resumed prompt is read by the borders that it had at first."""
        if self.position >= self.prompt_tokens:
            return min(self.position + CHUNK_TOKENS, self.given)
        if self.recorded:
            return self.recorded[bisect_right(self.recorded, self.position)]
        return min(self.position + width, self.prompt_tokens)

    def read_to(self, end: int) -> None:
        """Everything before `end` is in the context now, by one more batch."""
        self.position = end
        if end <= self.prompt_tokens:
            self.borders.append(end)

    def take_to(self, end: int) -> None:
        """Everything before `end` is in the context now, without having been read."""
        self.cached += end - self.position
        while self.position < end:
            self.read_to(min(self.position + CHUNK_TOKENS, end))

    def spoken(self) -> Message:
        """What it answered so far."""
        return self.said.message()


def check_resume(resume: Resume, *, prompt_tokens: int, tokens_max: int) -> None:
    """Raises `InvalidRequest` for what cannot be the middle of an answer to this prompt."""
    borders = resume.borders
    widths = [end - begin for begin, end in zip((0, *borders), borders, strict=False)]
    if not borders or borders[-1] != prompt_tokens or not all(0 < width <= CHUNK_TOKENS for width in widths):
        raise InvalidRequest(
            f"the borders of the answer to go on with do not divide a prompt of {prompt_tokens} tokens into batches of 1 to {CHUNK_TOKENS}",
            param="resume",
            hint="it was begun with another model, template or engine: ask again from the beginning",
        )
    if len(resume.tokens) > tokens_max:
        raise InvalidRequest(f"{len(resume.tokens)} tokens of the answer are there, and {tokens_max} are possible", param="resume")
