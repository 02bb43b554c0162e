"""Who gets the next decode: continuous batching of several streams over one context. Touches nothing but the decoder it is given.

- A stream is admitted when a sequence is free and the cells that it may need at most are free, in the order of arrival. So a stream that
  began can always end: nobody is thrown out for want of cells.
- Tokens of streams that are being decoded share one decode. A chunk of somebody's prompt never shares it with them: its width
  would change their sums, and with them greedy text. Chunks and decode steps alternate, so a long prompt slows others and stops nobody.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Generic, Protocol, TypeVar

from astromesh.dialogue import FinishReason
from astromesh.errors import InvalidRequest
from astromesh.inference.assembly import TextAssembler
from astromesh.inference.chat import ChatTemplate
from astromesh.inference.request import sampling_of, tools_of, transcript_of
from astromesh.inference.sampling import SamplingPlan

# How many tokens of a prompt one decode takes. A cancel acts between two of them, and other streams wait for one: on two cores 128 tokens
# of SmolLM2-135M take 0.4 s. Wider ones are hardly faster on a CPU.
CHUNK_TOKENS = 128

# No vocabulary has a longer token (SmolLM2's longest has 162 bytes, that of Llama 3 256). Tokenizing runs at 1 to 3 MB/s and holds up all
# streams, so what cannot fit is not tokenized to say by how much.
TOKEN_CHARACTERS_MAX = 256

CONTEXT_HINT = "shorten the conversation, or raise spec.inference.models[].context"

S = TypeVar("S")


@dataclass(frozen=True, slots=True)
class Piece:
    """Tokens of one sequence for one decode. `output` asks for what comes after its last token."""

    sequence: int
    position: int
    tokens: Sequence[int]
    output: bool


class Decoder(Protocol[S]):
    """The engine as the schedule sees it. `S` is its sampler: one for each stream, with a memory of what it took."""

    def tokenize(self, prompt: str) -> list[int]: ...

    def sampler(self, plan: SamplingPlan, *, seed: int, window: int) -> S: ...

    def release(self, sampler: S) -> None: ...

    def decode(self, pieces: Sequence[Piece]) -> list[int]:
        """For every piece with `output`, in order, the index that `sample` takes."""
        ...

    def sample(self, sampler: S, output: int) -> int: ...

    def piece(self, token: int) -> bytes: ...

    def ends(self, token: int) -> bool:
        """Whether this token ends a turn."""
        ...

    def forget(self, sequence: int) -> None:
        """Frees every cell of a sequence."""
        ...


@dataclass(slots=True)
class _Stream(Generic[S]):
    number: int
    prompt: list[int]
    plan: SamplingPlan
    seed: int
    tokens_max: int  # of its answer
    arrived_s: float
    assembler: TextAssembler
    sequence: int = -1
    sampler: S | None = None
    position: int = 0  # cells that it fills
    pending: int = -1  # sampled, not decoded yet
    tokens_out: int = 0
    admitted_s: float = 0.0
    first_token_s: float = 0.0

    @property
    def cells(self) -> int:
        """What it may need at most."""
        return len(self.prompt) + self.tokens_max

    @property
    def in_prompt(self) -> bool:
        return self.position < len(self.prompt)


@dataclass(slots=True)
class Step:
    """What one decode brought: text by stream, and the streams that ended with it."""

    pieces: list[list[Any]] = field(default_factory=list)  # [number, text]
    ended: list[dict[str, Any]] = field(default_factory=list)

    def as_frame(self) -> dict[str, Any]:
        return {"kind": "step", "pieces": self.pieces, "ended": self.ended}


class Schedule(Generic[S]):
    def __init__(
        self, decoder: Decoder[S], template: ChatTemplate, *, context: int, cells: int, sequences: int, clock: Callable[[], float]
    ) -> None:
        """`context` bounds one stream, `cells` all of them together, `sequences` their number. `clock` is monotonic, in seconds."""
        self._decoder = decoder
        self._clock = clock
        self._template = template
        self._context = context
        self._free_cells = cells
        self._free_sequences = list(range(sequences - 1, -1, -1))
        self._waiting: deque[_Stream[S]] = deque()  # bounded by the parent: it sends no more requests than there are sequences
        self._running: list[_Stream[S]] = []
        self._prompt_came_last = False

    @property
    def idle(self) -> bool:
        return not self._running and not self._waiting

    def submit(self, frame: Mapping[str, Any], *, seed: int) -> None:
        """Takes a request in; `seed` is for a caller who gave none.

        Raises `InvalidRequest` where the prompt does not fit or the template refuses it; nothing is kept then.
        """
        text = self._template.render(transcript_of(frame), tools_of(frame))
        if len(text) > self._context * TOKEN_CHARACTERS_MAX:
            raise InvalidRequest(
                f"the prompt has {len(text)} characters, far more than the {self._context} tokens that the context of this model has",
                param="messages",
                hint=CONTEXT_HINT,
            )
        prompt = self._decoder.tokenize(text)
        if not prompt:
            raise InvalidRequest("the model's chat template makes an empty prompt of these messages", param="messages")
        if len(prompt) >= self._context:
            raise InvalidRequest(
                f"the prompt has {len(prompt)} tokens and the context of this model has {self._context}, with the answer in it",
                param="messages",
                hint=CONTEXT_HINT,
            )
        plan = sampling_of(frame)
        room = self._context - len(prompt)
        tokens_max = room if plan.max_tokens is None else min(room, plan.max_tokens)
        seed = seed if plan.seed is None else plan.seed
        self._waiting.append(_Stream(frame["number"], prompt, plan, seed, tokens_max, self._clock(), TextAssembler(plan.stop)))

    def cancel(self, number: int) -> bool:
        """Ends a stream without another word. False where there is none of that number: it has just ended."""
        for stream in self._waiting:
            if stream.number == number:
                self._waiting.remove(stream)
                return True
        for stream in self._running:
            if stream.number == number:
                self._release(stream)
                return True
        return False

    def step(self) -> Step:
        """One decode: a chunk of a prompt, or one token of every stream that is past its own."""
        self._admit()
        in_prompt = next((stream for stream in self._running if stream.in_prompt), None)
        decoding = [stream for stream in self._running if not stream.in_prompt]
        step = Step()
        if in_prompt is not None and not (decoding and self._prompt_came_last):
            self._prompt_came_last = True
            self._prefill(in_prompt, step)
        elif decoding:
            self._prompt_came_last = False
            outputs = self._decoder.decode([Piece(s.sequence, s.position, (s.pending,), output=True) for s in decoding])
            for stream, output in zip(decoding, outputs, strict=True):
                stream.position += 1
                self._sample(stream, output, step)
        return step

    def _admit(self) -> None:
        while self._waiting and self._free_sequences and self._waiting[0].cells <= self._free_cells:
            stream = self._waiting.popleft()
            self._free_cells -= stream.cells
            stream.sequence = self._free_sequences.pop()
            stream.admitted_s = self._clock()
            stream.sampler = self._decoder.sampler(stream.plan, seed=stream.seed, window=self._context)
            self._running.append(stream)

    def _prefill(self, stream: _Stream[S], step: Step) -> None:
        chunk = stream.prompt[stream.position : stream.position + CHUNK_TOKENS]
        last = stream.position + len(chunk) == len(stream.prompt)
        outputs = self._decoder.decode([Piece(stream.sequence, stream.position, chunk, output=last)])
        stream.position += len(chunk)
        if last:
            stream.first_token_s = self._clock()
            self._sample(stream, outputs[0], step)
        else:  # the next prompt's turn, so that a short one is not behind a long one
            self._running.remove(stream)
            self._running.append(stream)

    def _sample(self, stream: _Stream[S], output: int, step: Step) -> None:
        assert stream.sampler is not None
        token = self._decoder.sample(stream.sampler, output)
        stream.tokens_out += 1
        stream.pending = token
        reason: FinishReason | None = None
        text = ""
        if self._decoder.ends(token):
            reason = "stop"
        else:
            text = stream.assembler.feed(self._decoder.piece(token))
            if stream.assembler.stopped_by is not None:
                reason = "stop"
            elif stream.tokens_out >= stream.tokens_max:
                reason = "length"
        if reason is not None:
            text += stream.assembler.finish()
        if text:
            step.pieces.append([stream.number, text])
        if reason is not None:
            step.ended.append(self._account(stream, reason))
            self._release(stream)

    def _account(self, stream: _Stream[S], reason: FinishReason) -> dict[str, Any]:
        now = self._clock()
        timings = {
            "queue_ms": (stream.admitted_s - stream.arrived_s) * 1e3,
            "prefill_ms": (stream.first_token_s - stream.admitted_s) * 1e3,
        }
        if stream.tokens_out > 1:  # the first token came out of the prompt's last chunk
            timings["decode_tok_s"] = (stream.tokens_out - 1) / max(now - stream.first_token_s, 1e-9)
        return {
            "number": stream.number,
            "finish_reason": reason,
            "tokens_in": len(stream.prompt),
            "tokens_out": stream.tokens_out,
            "timings": timings,
        }

    def _release(self, stream: _Stream[S]) -> None:
        self._running.remove(stream)
        self._free_cells += stream.cells
        self._free_sequences.append(stream.sequence)
        self._decoder.forget(stream.sequence)
        if stream.sampler is not None:
            self._decoder.release(stream.sampler)
