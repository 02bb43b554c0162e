"""Old turns become a summary after an answer, kept and not made again; where the model fails, the turns stay."""

from __future__ import annotations

from time import time

import pytest
from tests.rig.held_model import HeldModel
from tests.rig.rooms import Rooms, an_agent

from astromesh.dialogue import ModelRequest
from astromesh.errors import AstromeshError, ModelFailed
from astromesh.memory.port import Conversation, History
from astromesh.memory.summary import INSTRUCTION
from astromesh.memory.window import SUMMARY_PREFACE, Window
from astromesh.providers.backends.scripted import Scripted

DOWN = ModelFailed("Ada's secret is out", code="model_provider_unavailable", definite=True)


class Desk:
    """An agent whose window is two turns, and what its model was asked."""

    def __init__(self, *replies: str | AstromeshError) -> None:
        self.rooms = Rooms()
        self.model = Scripted(replies)
        self.rooms.hosts(an_agent(provider=self.model, memory=self.rooms.memory, window=Window(2, folds=True)))

    async def says(self, query: str) -> str:
        """The answer, once what it began beside it is done."""
        done = await self.rooms.ask(query, session_id="s")
        await self.rooms.runtime.folding.settled()
        return str(done["answer"])

    async def history(self) -> History:
        return await self.rooms.memory.recall(Conversation("desk", "s"), now=time())

    @property
    def foldings(self) -> list[ModelRequest]:
        return [asked for asked in self.model.asked if asked.transcript[0].content == INSTRUCTION]


async def test_what_leaves_the_window_goes_on_in_a_summary_that_is_made_once() -> None:
    desk = Desk("A1", "A2", "A3", "They counted to two.", "A4", "A5")
    for number in range(1, 4):
        await desk.says(f"Q{number}")
    (folding,) = desk.foldings
    assert "user: Q1\nassistant: A1\nuser: Q2\nassistant: A2" in folding.transcript[1].content
    assert "Q3" not in folding.transcript[1].content
    await desk.says("Q4")
    assert [message.content for message in desk.model.asked[-1].transcript] == [
        f"{SUMMARY_PREFACE}\n\nThey counted to two.",
        "I remember that.",
        "Q3",
        "A3",
        "Q4",
    ]
    assert len(desk.foldings) == 1
    assert len((await desk.history()).turns) == 4, "the turns themselves are kept for the export"


async def test_the_next_summary_grows_out_of_the_last_one() -> None:
    desk = Desk("A1", "A2", "A3", "First notes.", "A4", "A5", "Second notes.")
    for number in range(1, 6):
        await desk.says(f"Q{number}")
    question = desk.foldings[1].transcript[1].content
    assert "First notes." in question
    assert "Q3" in question
    assert "Q2" not in question
    summary = (await desk.history()).summary
    assert summary is not None
    assert summary.text == "Second notes."


@pytest.mark.parametrize("failing", [DOWN, "  "])
async def test_where_the_model_fails_the_turns_stay_and_are_folded_after_a_later_answer(
    failing: str | AstromeshError, caplog: pytest.LogCaptureFixture
) -> None:
    desk = Desk("A1", "A2", "A3", failing, "A4", "Notes of three.")
    for number in range(1, 4):
        await desk.says(f"Q{number}")
    assert (await desk.history()).summary is None
    assert "desk" in caplog.text
    assert "secret" not in caplog.text
    assert await desk.says("Q4") == "A4"
    asked = next(request for request in desk.model.asked if request.transcript[-1].content == "Q4")
    assert [message.content for message in asked.transcript] == ["Q1", "A1", "Q2", "A2", "Q3", "A3", "Q4"]
    summary = (await desk.history()).summary
    assert summary is not None
    assert (summary.text, len((await desk.history()).unfolded)) == ("Notes of three.", 1)


async def test_an_agent_that_does_not_fold_is_never_asked_to() -> None:
    desk = Desk("A1", "A2", "A3")
    desk.rooms.hosts(an_agent(provider=desk.model, memory=desk.rooms.memory, window=Window(1)))
    for number in range(1, 4):
        await desk.says(f"Q{number}")
    assert desk.foldings == []


async def test_nobody_waits_for_a_summary_and_a_node_that_stops_gives_it_up() -> None:
    rooms, model = Rooms(), HeldModel("word")
    rooms.has(model)
    rooms.hosts(an_agent(memory=rooms.memory, window=Window(1, folds=True)))
    model.let(4)
    await rooms.ask("Q1", session_id="s")
    await rooms.ask("Q2", session_id="s")
    await model.was_begun()
    assert model.asked[-1].transcript[0].content == INSTRUCTION
    await rooms.runtime.drain(0.0)
    await model.was_released()
    kept = await rooms.memory.recall(Conversation("desk", "s"), now=time())
    assert (len(kept.turns), kept.summary) == (2, None)
