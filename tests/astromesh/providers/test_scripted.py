"""The in-memory twin behaves as a model server does."""

from __future__ import annotations

from contextlib import aclosing

import pytest

from astromesh.dialogue import Message, ModelReply, ModelRequest, TextDelta, ToolCall, ToolCallDelta, Usage
from astromesh.errors import ModelFailed, Overloaded
from astromesh.providers.backends.scripted import Scripted

REQUEST = ModelRequest("m", (Message("user", "Good morning"),))


async def test_it_says_its_replies_in_their_order_word_by_word() -> None:
    model = Scripted(["Good  day.", ModelReply("", (ToolCall("c1", "clock", "{}"),), "tool_calls")])
    assert [event async for event in model.complete(REQUEST, timeout_s=1)] == [
        TextDelta("Good  "),
        TextDelta("day."),
        ModelReply("Good  day.", usage=Usage(2, 2), model="m"),
    ]
    first, _ = [event async for event in model.complete(REQUEST, timeout_s=1)]
    assert first == ToolCallDelta(0, "c1", "clock", "{}")
    assert model.asked == [REQUEST, REQUEST]
    assert model.cancelled == 0


async def test_an_error_is_raised_when_its_turn_comes_and_a_script_at_its_end_fails() -> None:
    model = Scripted([Overloaded("busy")])
    with pytest.raises(Overloaded):
        await anext(model.complete(REQUEST, timeout_s=1))
    with pytest.raises(ModelFailed, match="no more replies"):
        await anext(model.complete(REQUEST, timeout_s=1))


async def test_it_counts_who_left_in_the_middle() -> None:
    model = Scripted(["one two"])
    async with aclosing(model.complete(REQUEST, timeout_s=1)) as stream:
        await anext(stream)
    assert model.cancelled == 1
