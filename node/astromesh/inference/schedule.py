"""Who gets the next decode: continuous batching of several streams over one context. Touches nothing but the decoder it is given.

- A stream is admitted when a sequence is free and the cells that it may need at most are free, in the order of arrival. So a stream that
  began can always end: nobody is thrown out for want of cells.
- Tokens of streams that are being decoded share one decode. A chunk of somebody's prompt never shares it with them. Chunks and decode
  steps alternate, so a long prompt slows others and stops nobody.
- What another stream has in the context already, or the tree of prefixes has in memory, is taken over and not computed again. It is looked
  for before each chunk, so that of two equal prompts that arrive together each chunk is computed once.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Generic, Protocol, TypeVar

from astromesh.dialogue import FinishReason, Message
from astromesh.errors import ContextExceeded, InvalidRequest
from astromesh.inference import session_state
from astromesh.inference.assembly import TextAssembler
from astromesh.inference.chat import ChatTemplate
from astromesh.inference.dialects import calls_grammar
from astromesh.inference.prefixes import TAIL_TOKENS_MIN, PrefixTree, State, shared_tokens
from astromesh.inference.request import resume_of, sampling_of, tools_of, transcript_of
from astromesh.inference.sampling import SamplingPlan
from astromesh.inference.stream import CHUNK_TOKENS, Stream, check_resume
from astromesh.inference.tool_calls import CallReader, Heard, call_ids
from astromesh.inference.warmth import digests, encode

# No vocabulary has a longer token (SmolLM2's longest has 162 bytes, that of Llama 3 256). Tokenizing runs at 1 to 3 MB/s and holds up all
# streams, so what cannot fit is not tokenized to say by how much.
TOKEN_CHARACTERS_MAX = 256

# How long a chunk may hold up those that are being decoded, on average. The further into a prompt the longer each token takes (SmolLM2 on
# two cores: 3 ms at the beginning, 14 at 3,000 tokens), so chunks get narrower then. Narrower ones than the narrowest are mostly overhead.
HELD_UP_MAX_S = 0.1
CHUNK_TOKENS_MIN = 8

CONTEXT_HINT = "shorten the conversation, or raise spec.inference.models[].context"
FULL_CONTEXT_HINT = "shorten the conversation, or ask a model that was trained on longer ones: this one reads no more"

S = TypeVar("S")


TokenChances = tuple[float, list[tuple[int, float]]]
"""A token's logarithm of probability, and (token, the same) for the likeliest ones, best first."""


@dataclass(frozen=True, slots=True)
class Piece:
    """Tokens of one sequence for one decode. `output` asks for what comes after its last token."""

    sequence: int
    position: int
    tokens: Sequence[int]
    output: bool


class Decoder(Protocol[S]):
    """The engine as the schedule sees it. `S` is its sampler: one for each stream, with a memory of what it took."""

    def tokenize(self, prompt: str) -> list[int]:
        """A prompt with special tokens in its text, but for those that have a `CUT` in them."""
        ...

    def token_of(self, text: str) -> int | None:
        """The token that is this text, where one is."""
        ...

    def sampler(self, plan: SamplingPlan, *, seed: int, window: int, grammar: str | None, held: bool) -> S:
        """`held`: the grammar holds from the first token on; otherwise from `hold` to `let_go`.

        Raises `InvalidRequest` for biases of tokens that there are not, and for a grammar that cannot be held to."""
        ...

    def release(self, sampler: S) -> None: ...

    def decode(self, pieces: Sequence[Piece]) -> list[int]:
        """For every piece with `output`, in order, the index that `sample` takes."""
        ...

    def sample(self, sampler: S, output: int) -> int: ...

    def hold(self, sampler: S) -> None:
        """From here on by the grammar, from its beginning."""
        ...

    def let_go(self, sampler: S) -> None: ...

    def logprobs(self, output: int, token: int, *, top: int) -> TokenChances:
        """How likely this token and the `top` likeliest ones were in the model's own eyes."""
        ...

    def replay(self, sampler: S, tokens: Sequence[int]) -> None:
        """Brings a new sampler to where one is that took these tokens. Raises `InvalidRequest` where its grammar forbids one, or
        where one is no token."""
        ...

    def piece(self, token: int) -> bytes: ...

    def ends(self, token: int) -> bool:
        """Whether this token ends a turn."""
        ...

    def forget(self, sequence: int) -> None:
        """Frees every cell of a sequence."""
        ...

    def share(self, source: int, target: int, *, start: int, end: int) -> None:
        """Gives `target` the cells of `source` from `start` to `end`, too."""
        ...

    def export(self, sequence: int, *, start: int, end: int) -> bytes:
        """The cells from `start` to `end`, as `restore` takes them."""
        ...

    def restore(self, sequence: int, data: bytes, *, start: int, end: int) -> bool:
        """Puts the cells from `start` to `end` out of an export into a sequence. False where there was no room to unpack it."""
        ...


@dataclass(slots=True)
class Step:
    """What one decode brought: text by stream, and the streams that ended with it."""

    began: list[dict[str, Any]] = field(default_factory=list)  # number, borders, seed
    pieces: list[list[Any]] = field(default_factory=list)  # [number, text, its tokens, their logprobs, part of a tool call or None]
    ended: list[dict[str, Any]] = field(default_factory=list)

    def as_frame(self) -> dict[str, Any]:
        return {"kind": "step", "began": self.began, "pieces": self.pieces, "ended": self.ended}


class Schedule(Generic[S]):
    def __init__(
        self,
        decoder: Decoder[S],
        template: ChatTemplate,
        *,
        context: int,
        cells: int,
        sequences: int,
        clock: Callable[[], float],
        prefixes: PrefixTree | None = None,
        salt: bytes = b"",
        hint: str = CONTEXT_HINT,
    ) -> None:
        """`context` bounds one stream, `cells` all of them together, `sequences` their number. `clock` is monotonic, in seconds.

        `prefixes` keeps what streams leave behind; None: nothing, and nothing is shared, for a model whose state cannot be divided.
        `salt` is for its digests of conversations, `hint` for whoever sends more than the context takes.
        """
        self._decoder = decoder
        self._clock = clock
        self._template = template
        # A mark that is a token of its own may be one that only steers, and those have no text.
        self._opening = decoder.token_of(template.dialect.opening) if template.dialect.opening else None
        self._context = context
        self._hint = hint
        self._free_cells = cells
        self._free_sequences = list(range(sequences - 1, -1, -1))
        self._prefixes = prefixes
        self._salt = salt
        self._waiting: deque[Stream[S]] = deque()  # bounded by the parent: it sends no more requests than there are sequences
        self._running: list[Stream[S]] = []
        self._prompt_came_last = False
        self._token_read_s = 0.0  # what one token of the last chunk took
        self._token_bytes = 0.0  # what one token of the last export took

    @property
    def idle(self) -> bool:
        return not self._running and not self._waiting

    def warmth(self) -> bytes:
        """What others may know of the conversations that are warm here (`warmth.longest`)."""
        return encode(self._prefixes.warm(), salt=self._salt) if self._prefixes is not None else b""

    def export(self, frame: Mapping[str, Any], *, identity: str) -> Iterator[bytes]:
        """What is known of a conversation, for another worker of this model. Raises `InvalidRequest` as `submit` does."""
        tokens = self._tokens_of(self._template.render(transcript_of(frame), tools_of(frame)))
        return session_state.encode(identity, tokens, self._prefixes.match(tokens) if self._prefixes is not None else ())

    def take_in(self, data: bytes, *, identity: str) -> int:
        """Keeps what another worker exported; how many tokens it makes known. Raises `InvalidRequest` for anything else."""
        tokens, parts = session_state.decode(data, identity=identity)
        if self._prefixes is None:
            return 0
        for state, end in parts:
            self._prefixes.insert(tokens[:end], state, marks={})
        return self._prefixes.known(tokens)

    def submit(self, frame: Mapping[str, Any], *, seed: int) -> None:
        """Takes a request in; `seed` is for a caller who gave none.

        Raises `InvalidRequest` where the prompt does not fit or the template refuses it; nothing is kept then.
        """
        transcript, tools, forced = transcript_of(frame), tools_of(frame), frame["forced"]
        if frame["prompt"] is not None:
            prompt, transcript = self._tokens_of(frame["prompt"]), (Message("user", frame["prompt"]),)
        else:
            self._check_size(sum(len(message.content) for message in transcript))
            prefill = self._template.dialect.prefill if forced else ""
            prompt = self._tokens_of(self._template.render(transcript, tools) + prefill)
        plan = sampling_of(frame)
        room = self._context - len(prompt)
        tokens_max = room if plan.max_tokens is None else min(room, plan.max_tokens)
        resume = resume_of(frame)
        if resume is not None:
            check_resume(resume, prompt_tokens=len(prompt), tokens_max=tokens_max)
        answer = list(resume.tokens) if resume is not None else []
        stream: Stream[S] = Stream(
            number=frame["number"],
            transcript=transcript,
            tools=tools,
            tokens=[*prompt, *answer],
            prompt_tokens=len(prompt),
            given=len(prompt) + len(answer),
            plan=plan,
            seed=seed if plan.seed is None else plan.seed,
            tokens_max=tokens_max,
            recorded=resume.borders if resume is not None else (),
            arrived_s=self._clock(),
            assembler=TextAssembler(plan.stop),
        )
        grammar = frame["grammar"]
        if tools:
            callable_now = [tool for tool in tools if not forced or tool.name in forced]
            grammar, stream.forced = calls_grammar(callable_now, self._template.dialect), bool(forced)
            identifier = call_ids(prompt, stream.seed)
            names = {tool.name for tool in callable_now}
            stream.reader = CallReader(self._template.dialect, names, forced=stream.forced, identifier=identifier)
        held = stream.forced or not tools
        stream.sampler = self._decoder.sampler(plan, seed=stream.seed, window=self._context, grammar=grammar, held=held)
        try:
            self._go_on(stream, answer)
        except InvalidRequest:
            self._free_sampler(stream)
            raise
        self._waiting.append(stream)

    def _go_on(self, stream: Stream[S], answer: Sequence[int]) -> None:
        """Brings a stream to where one is that took these tokens. What they set free, whoever goes on with the answer has."""
        assert stream.sampler is not None
        for token in answer:
            self._decoder.replay(stream.sampler, (token,))
            for heard in self._hear(stream, token):
                stream.said.receive(*_piece(heard))
        if answer and (stream.assembler.stopped_by is not None or self._decoder.ends(answer[-1]) or len(answer) >= stream.tokens_max):
            raise InvalidRequest("the answer to go on with has come to its end", param="resume")

    def _hear(self, stream: Stream[S], token: int) -> list[Heard]:
        """What a token sets free; and a call that it began or ended begins or ends the grammar of calls."""
        reader = stream.reader
        marks = reader is not None and token == self._opening
        text = stream.assembler.feed(self._template.dialect.opening.encode() if marks else self._decoder.piece(token))
        if reader is None:
            return [text] if text else []
        heard = reader.feed(text)
        if not stream.forced and stream.sampler is not None:
            if reader.untouched and not stream.held:
                stream.held = True
                self._decoder.hold(stream.sampler)
            elif stream.held and not reader.inside:
                stream.held = False
                self._decoder.let_go(stream.sampler)
        return heard

    def _check_size(self, characters: int) -> None:
        if characters > self._context * TOKEN_CHARACTERS_MAX:
            raise ContextExceeded(
                f"the prompt has {characters} characters, far more than the {self._context} tokens that the context of this model has",
                param="messages",
                hint=self._hint,
            )

    def _tokens_of(self, text: str) -> list[int]:
        self._check_size(len(text))
        prompt = self._decoder.tokenize(text)
        if not prompt:
            raise InvalidRequest("the model's chat template makes an empty prompt of these messages", param="messages")
        if len(prompt) >= self._context:
            raise ContextExceeded(
                f"the prompt has {len(prompt)} tokens and the context of this model has {self._context}, with the answer in it",
                param="messages",
                hint=self._hint,
            )
        return prompt

    def cancel(self, number: int) -> bool:
        """Ends a stream without another word. False where there is none of that number: it has just ended."""
        for stream in self._waiting:
            if stream.number == number:
                self._waiting.remove(stream)
                self._free_sampler(stream)
                return True
        for stream in self._running:
            if stream.number == number:
                self._release(stream)
                return True
        return False

    def step(self) -> Step:
        """One decode: a chunk of a prompt, or one token of every stream that is past its own."""
        self._admit()
        reading = next((stream for stream in self._running if stream.reading), None)
        decoding = [stream for stream in self._running if not stream.reading]
        step = Step()
        if reading is not None and not (decoding and self._prompt_came_last):
            self._prompt_came_last = True
            self._read(reading, step, width=self._width() if decoding else CHUNK_TOKENS)
        elif decoding:
            self._prompt_came_last = False
            pieces = [Piece(s.sequence, s.position, (s.tokens[s.position],), output=True) for s in decoding]
            for stream, output in zip(decoding, self._decoder.decode(pieces), strict=True):
                stream.position += 1
                self._sample(stream, output, step)
        return step

    def _admit(self) -> None:
        while self._waiting and self._free_sequences and self._waiting[0].cells <= self._free_cells:
            stream = self._waiting.popleft()
            self._free_cells -= stream.cells
            stream.sequence = self._free_sequences.pop()
            stream.admitted_s = self._clock()
            self._running.append(stream)

    def _width(self) -> int:
        """Of a chunk beside streams that are being decoded."""
        if not self._token_read_s:
            return CHUNK_TOKENS
        return max(CHUNK_TOKENS_MIN, min(CHUNK_TOKENS, int(HELD_UP_MAX_S / self._token_read_s)))

    def _read(self, stream: Stream[S], step: Step, *, width: int) -> None:
        if self._prefixes is not None:
            self._take_over(stream, self._prefixes)
        end = stream.next_batch(width=width)
        last = end == stream.given
        tokens, began_s = stream.tokens[stream.position : end], self._clock()
        outputs = self._decoder.decode([Piece(stream.sequence, stream.position, tokens, output=last)])
        self._token_read_s = (self._clock() - began_s) / len(tokens)
        stream.read_to(end)
        if last:
            stream.first_token_s = self._clock()
            step.began.append({"number": stream.number, "borders": stream.borders, "seed": stream.seed})
            self._sample(stream, outputs[0], step)
        else:  # the next prompt's turn, so that a short one is not behind a long one
            self._running.remove(stream)
            self._running.append(stream)

    def _take_over(self, stream: Stream[S], prefixes: PrefixTree) -> None:
        """Whatever is known beyond where a stream is: in the context before all, where it is shared and not copied."""
        wanted = stream.tokens[: stream.takeable]
        source, length = stream, stream.position
        for other in self._running:
            shared = min(shared_tokens(other.tokens, wanted), other.position)
            if other is not stream and shared > length:
                source, length = other, shared
        if not stream.position and prefixes.known(wanted) > length:
            self._restore(stream, prefixes, wanted)
        elif source is not stream:
            self._decoder.share(source.sequence, stream.sequence, start=stream.position, end=length)
            stream.take_to(length)

    def _restore(self, stream: Stream[S], prefixes: PrefixTree, wanted: Sequence[int]) -> None:
        for part in prefixes.match(wanted):
            if not self._decoder.restore(stream.sequence, part.state.data, start=part.start, end=part.end):
                return  # no room to unpack it: read instead
            stream.take_to(part.end)

    def _sample(self, stream: Stream[S], output: int, step: Step) -> None:
        assert stream.sampler is not None
        token = self._decoder.sample(stream.sampler, output)
        stream.tokens.append(token)
        stream.untold.append(token)
        reason: FinishReason | None = None
        heard: list[Heard] = []
        if self._decoder.ends(token):
            reason = "stop"
        else:
            if stream.plan.logprobs is not None:
                stream.untold_logprobs.append(self._chances(output, token, stream.plan.logprobs))
            heard = self._hear(stream, token)
            if stream.assembler.stopped_by is not None:
                reason = "stop"
            elif stream.tokens_out >= stream.tokens_max:
                reason = "length"
        if reason is not None:
            rest, reader = stream.assembler.finish(), stream.reader
            if reader is None:
                heard += [rest] if rest else []
            else:
                heard += [*reader.feed(rest), *reader.finish(truncated=reason == "length")]
                reason = "tool_calls" if reader.calls and reason == "stop" else reason
        for one in heard:
            piece = _piece(one, tokens=stream.untold, logprobs=stream.untold_logprobs)
            stream.said.receive(*piece)
            step.pieces.append([stream.number, *piece])
            stream.untold, stream.untold_logprobs = [], []
        if reason is not None:
            step.ended.append(self._account(stream, reason))
            self._release(stream)

    def _chances(self, output: int, token: int, top: int) -> list[Any]:
        logprob, others = self._decoder.logprobs(output, token, top=top)
        return [self._decoder.piece(token), logprob, [[self._decoder.piece(other), chance] for other, chance in others]]

    def _account(self, stream: Stream[S], reason: FinishReason) -> dict[str, Any]:
        now = self._clock()
        timings = {
            "queue_ms": (stream.admitted_s - stream.arrived_s) * 1e3,
            "prefill_ms": (stream.first_token_s - stream.admitted_s) * 1e3,
        }
        decoded = len(stream.tokens) - stream.given - 1  # the first one came out of the prompt's last chunk
        if decoded > 0:
            timings["decode_tok_s"] = decoded / max(now - stream.first_token_s, 1e-9)
        return {
            "number": stream.number,
            "finish_reason": reason,
            "tokens_in": stream.prompt_tokens,
            "tokens_out": stream.tokens_out,
            "cached_tokens": min(stream.cached, stream.prompt_tokens),
            "timings": timings,
        }

    def _release(self, stream: Stream[S]) -> None:
        if self._prefixes is not None:
            self._keep(stream, self._prefixes)
        self._running.remove(stream)
        self._free_cells += stream.cells
        self._free_sequences.append(stream.sequence)
        self._decoder.forget(stream.sequence)
        self._free_sampler(stream)

    def _free_sampler(self, stream: Stream[S]) -> None:
        if stream.sampler is not None:
            self._decoder.release(stream.sampler)

    def _keep(self, stream: Stream[S], prefixes: PrefixTree) -> None:
        """Leaves what a stream read and said for those that go on from there."""
        tokens = stream.tokens[: stream.position]
        known = prefixes.known(tokens)
        new = stream.position - known
        if new < TAIL_TOKENS_MIN or new * self._token_bytes > prefixes.bytes_max:
            return
        state = State(known, stream.position, self._decoder.export(stream.sequence, start=known, end=stream.position))
        self._token_bytes = len(state.data) / new
        prefixes.insert(tokens, state, marks=self._marks(stream))

    def _marks(self, stream: Stream[S]) -> dict[bytes, int]:
        """How far each beginning of the conversation comes, in tokens: by its share of the characters, which is near enough."""
        messages = [*stream.transcript, stream.spoken()]
        sizes = [len(message.content) + 8 for message in stream.transcript]  # 8: the words of a template around each
        whole, so_far = sum(sizes), 0
        marks: dict[bytes, int] = {}
        found = digests(messages, stream.tools, salt=self._salt)
        for digest, size in zip(found, sizes, strict=False):
            so_far += size
            marks[digest] = stream.prompt_tokens * so_far // whole
        marks[found[-1]] = stream.position
        return {digest: position for digest, position in marks.items() if 0 < position <= stream.position}


def _piece(heard: Heard, *, tokens: Sequence[int] = (), logprobs: Sequence[Any] = ()) -> tuple[str, list[int], list[Any], list[Any] | None]:
    """As `Answer.receive` takes it. The tokens of a call have no logprobs to tell: they are no part of the text."""
    if isinstance(heard, str):
        return heard, list(tokens), list(logprobs), None
    return "", list(tokens), [], [heard.index, heard.id, heard.name, heard.arguments]
