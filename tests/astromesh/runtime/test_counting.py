"""What turns cost: as the model's own tokenizer has it where it is loaded here, as an estimate has it elsewhere."""

from __future__ import annotations

from collections.abc import Sequence

from tests.rig.rooms import an_agent

from astromesh.dialogue import Message
from astromesh.errors import ModelUnavailable
from astromesh.memory.port import Turn
from astromesh.memory.window import TOKENS_A_MESSAGE, Window, estimated_tokens
from astromesh.providers.backends.scripted import Scripted
from astromesh.runtime.counting import TURNS_AT_ONCE, TokenCounts
from astromesh.runtime.models import LocalModel


class WordsAreTokens(Scripted):
    """A model whose tokens are words, and that is asked for them."""

    def __init__(self) -> None:
        super().__init__([])
        self.counted: list[str] = []
        self.loaded = True

    async def count_tokens(self, texts: Sequence[str], *, timeout_s: float) -> tuple[int, ...]:
        if not self.loaded:
            raise ModelUnavailable("not loaded")
        self.counted += texts
        return tuple(len(text.split()) for text in texts)


def turns(count: int) -> list[Turn]:
    return [Turn(f"t{number}", 0.0, (Message("user", "one two"), Message("assistant", "three"))) for number in range(count)]


COST = 3 + 2 * TOKENS_A_MESSAGE
AGENT = an_agent(window=Window(100, tokens_max=COST * 5))


async def test_a_loaded_models_own_tokenizer_counts_and_no_turn_is_counted_twice() -> None:
    model = WordsAreTokens()
    counts = TokenCounts({"m": LocalModel(model, lambda: True)})
    kept = turns(3)
    for _ in range(2):
        cost = await counts.costs(kept, agent=AGENT)
        assert [cost(turn) for turn in kept] == [COST] * 3
    assert len(model.counted) == 6


async def test_only_the_newest_turns_that_a_budget_may_hold_are_counted() -> None:
    model = WordsAreTokens()
    kept = turns(100)
    await TokenCounts({"m": LocalModel(model, lambda: True)}).costs(kept, agent=AGENT)
    assert len(model.counted) == 2 * TURNS_AT_ONCE


async def test_without_a_budget_nothing_is_counted() -> None:
    model = WordsAreTokens()
    await TokenCounts({"m": LocalModel(model, lambda: True)}).costs(turns(3), agent=an_agent(window=Window(100)))
    assert model.counted == []


async def test_elsewhere_and_where_the_model_is_not_loaded_an_estimate_is_used() -> None:
    (turn,) = turns(1)
    model = WordsAreTokens()
    for local, agent in (
        ({}, AGENT),
        ({"m": LocalModel(model, lambda: False)}, AGENT),
        ({"m": LocalModel(Scripted([]), lambda: True)}, AGENT),
        ({"m": LocalModel(model, lambda: True)}, an_agent(provider=Scripted([]), window=AGENT.window)),
    ):
        assert (await TokenCounts(local).costs([turn], agent=agent))(turn) == estimated_tokens(turn.said)
    model.loaded = False
    assert (await TokenCounts({"m": LocalModel(model, lambda: True)}).costs([turn], agent=AGENT))(turn) == estimated_tokens(turn.said)
