"""One stream, many, cached or resumed: the greedy text of the real engine is the same, and what is known is not read again."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from dataclasses import replace
from random import Random

import pytest

from astromesh.dialogue import AnswerBegan, Message, ModelReply, ModelRequest, Resume, Sampling, TextDelta
from astromesh.errors import InvalidRequest
from astromesh.inference.backends.llama_cpp.engine import LlamaCppEngine
from astromesh.inference.port import ModelSpecification
from astromesh.inference.warmth import longest

pytestmark = pytest.mark.engine

BOOK = Message(
    "system", "You keep the lighthouse of a small harbour. " + "Every night you write the ships that pass into a thick blue book. " * 44
)
QUESTIONS = tuple(f"What did the ship of captain number {number} carry, and where did it go?" for number in range(8))
SEAMS = 50


class Answer:
    """One answer as it streamed: its text and tokens by piece, and how it began."""

    def __init__(self) -> None:
        self.pieces: list[TextDelta] = []
        self.began: AnswerBegan | None = None
        self.reply: ModelReply | None = None

    @property
    def text(self) -> str:
        return "".join(piece.text for piece in self.pieces)


async def answer(
    engine: LlamaCppEngine, *messages: Message, tokens_max: int = 32, resume: Resume | None = None, sampling: Sampling | None = None
) -> Answer:
    sampling = replace(sampling or Sampling(temperature=0), max_tokens=tokens_max)
    request = ModelRequest("smollm2", messages, sampling=sampling, resume=resume)
    found = Answer()
    async for event in engine.complete(request, timeout_s=200):
        match event:
            case AnswerBegan():
                found.began = event
            case TextDelta():
                found.pieces.append(event)
            case ModelReply():
                found.reply = event
    return found


async def test_eight_streams_in_one_batch_say_what_each_says_alone_beyond_500_cells_too(engine: LlamaCppEngine) -> None:
    alone = [(await answer(engine, BOOK, Message("user", question))).text for question in QUESTIONS[:4]]
    together = await asyncio.gather(*(answer(engine, BOOK, Message("user", question)) for question in QUESTIONS[:4]))
    assert [one.text for one in together] == alone
    assert all(one.reply is not None and one.reply.usage.tokens_in > 600 for one in together)


@pytest.mark.timeout(300)
async def test_a_resume_at_any_seam_says_what_the_undisturbed_answer_says(engine: LlamaCppEngine) -> None:
    whole = await answer(engine, BOOK, Message("user", QUESTIONS[0]), tokens_max=32)
    assert whole.began is not None
    assert whole.began.kernel
    assert whole.began.identity == engine.identity
    random = Random(7)
    for _ in range(SEAMS):
        seam = random.randrange(1, len(whole.pieces))
        before, after = whole.pieces[:seam], whole.pieces[seam:]
        resume = Resume(engine.identity, tuple(token for piece in before for token in piece.tokens), whole.began.borders)
        resumed = await answer(engine, BOOK, Message("user", QUESTIONS[0]), tokens_max=32, resume=resume)
        assert resumed.text == "".join(piece.text for piece in after), f"seam {seam}"


async def test_a_resume_behind_a_token_that_was_not_taken_says_something_else(engine: LlamaCppEngine) -> None:
    whole = await answer(engine, BOOK, Message("user", QUESTIONS[0]), tokens_max=32)
    assert whole.began is not None
    tokens = [token for piece in whole.pieces[:8] for token in piece.tokens]
    tokens[-1] = whole.pieces[0].tokens[0]
    resumed = await answer(
        engine, BOOK, Message("user", QUESTIONS[0]), tokens_max=32, resume=Resume(engine.identity, tuple(tokens), whole.began.borders)
    )
    assert resumed.text != "".join(piece.text for piece in whole.pieces[8:])


@pytest.mark.parametrize(("token", "other"), [(10**6, False), (-5, False), (1, True)], ids=["no token", "a negative one", "another file"])
async def test_a_resume_that_cannot_be_is_refused_and_disturbs_nobody(engine: LlamaCppEngine, *, token: int, other: bool) -> None:
    beside = asyncio.create_task(answer(engine, Message("user", QUESTIONS[1])))
    undisturbed = await answer(engine, Message("user", QUESTIONS[0]), tokens_max=4)
    assert undisturbed.began is not None
    resume = Resume("another file" if other else engine.identity, (token,), undisturbed.began.borders)
    with pytest.raises(InvalidRequest) as refused:
        await answer(engine, Message("user", QUESTIONS[0]), resume=resume)
    assert refused.value.param == "resume"
    assert (await beside).text


async def test_a_resume_of_chance_draws_on_with_the_same_seed(engine: LlamaCppEngine) -> None:
    sampling = Sampling(temperature=1.2, seed=11)
    whole = await answer(engine, Message("user", QUESTIONS[1]), sampling=sampling)
    assert whole.began is not None
    assert whole.began.seed == 11
    resume = Resume(engine.identity, tuple(token for piece in whole.pieces[:9] for token in piece.tokens), whole.began.borders)
    resumed = await answer(engine, Message("user", QUESTIONS[1]), sampling=sampling, resume=resume)
    assert resumed.text == "".join(piece.text for piece in whole.pieces[9:])


async def test_a_conversation_reads_only_its_last_message_and_is_told_as_warm(engine: LlamaCppEngine) -> None:
    conversation = [BOOK, Message("user", QUESTIONS[2])]
    first = await answer(engine, *conversation)
    assert first.reply is not None
    conversation += [first.reply.as_message(), Message("user", "And who was its captain?")]
    second = await answer(engine, *conversation)
    other = await answer(engine, BOOK, Message("user", "Which ship came first?"))
    assert second.reply is not None
    assert other.reply is not None
    known = first.reply.usage.tokens_in + first.reply.usage.tokens_out
    assert second.reply.usage.cached_tokens >= known - 2  # the end of a turn is a token that is never decoded
    assert other.reply.usage.cached_tokens >= 600
    print("first tokens after", *(round(one.reply.timings["prefill_ms"]) for one in (first, second, other) if one.reply), "ms")
    assert longest(engine.warmth, conversation, ()) >= 512
    assert longest(engine.warmth, [Message("user", QUESTIONS[2])], ()) == 0


async def test_what_is_cached_changes_no_answer(engine: LlamaCppEngine) -> None:
    cold = [(await answer(engine, BOOK, Message("user", question))).text for question in QUESTIONS[4:]]
    warm = [(await answer(engine, BOOK, Message("user", question))) for question in QUESTIONS[4:]]
    assert [one.text for one in warm] == cold
    for one in warm:
        assert one.reply is not None
        assert one.reply.usage.cached_tokens == one.reply.usage.tokens_in - 1


async def test_a_session_taken_to_another_worker_is_not_read_again_there_and_goes_on_alike(
    engine: LlamaCppEngine, specification: ModelSpecification
) -> None:
    conversation = (BOOK, Message("user", QUESTIONS[3]))
    first = await answer(engine, *conversation)
    asked = ModelRequest("smollm2", conversation)
    pieces = [piece async for piece in engine.export_session(asked, timeout_s=60)]
    other = LlamaCppEngine(specification)
    stranger = LlamaCppEngine(replace(specification, identity="0" * 64))
    await asyncio.gather(other.start(), stranger.start())
    try:
        known = await other.import_session(in_turn(pieces), timeout_s=60)
        again = await answer(other, *conversation)
        assert again.reply is not None
        assert again.text == first.text
        assert again.reply.usage.cached_tokens == again.reply.usage.tokens_in - 1 == known - 1
        with pytest.raises(InvalidRequest, match="sha256"):
            await stranger.import_session(in_turn(pieces), timeout_s=60)
        with pytest.raises(InvalidRequest, match="changed or cut"):
            await other.import_session(in_turn(pieces[:-1]), timeout_s=60)
        assert (await answer(other, Message("user", QUESTIONS[1]), tokens_max=4)).text
    finally:
        await asyncio.gather(other.close(), stranger.close())


async def in_turn(pieces: list[bytes]) -> AsyncIterator[bytes]:
    for piece in pieces:
        yield piece
