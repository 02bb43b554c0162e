"""A block at every door: an outcome, in the door's own shape."""

from __future__ import annotations

from typing import Any

import pytest
from tests.rig.doors import open_doors, sent_events
from tests.rig.guarded import guarded
from tests.rig.rooms import Rooms, an_agent

from astromesh.providers.backends.scripted import Scripted

MAIL = "john@example.com"
SHOWN = "Ask [REDACTED_EMAIL]."
RULES: Any = {
    "input": [{"type": "content_filter", "forbidden_keywords": ["bomb"], "message": "Not that."}],
    "output": [{"type": "pii_detection"}, {"type": "content_filter", "forbidden_keywords": ["secret"], "message": "No."}],
}


def rooms_saying(*answers: str, rules: Any = RULES) -> Rooms:
    rooms = Rooms()
    rooms.hosts(guarded(an_agent(provider=Scripted(answers)), **rules))
    return rooms


async def test_as_json_a_block_is_200_with_its_message_as_answer() -> None:
    async with open_doors(rooms_saying("The secret.", f"Ask {MAIL}.")) as doors:
        status, body, headers = await doors.run({"query": "A bomb"})
        assert (status, body["answer"], body["blocked"]) == (200, "Not that.", True)
        assert body["guardrail"] == {"direction": "input", "rule": "content_filter", "reason": "a forbidden keyword"}
        assert headers["X-Astromesh-Node"] == "here"
        _, body, _ = await doors.run({"query": "Hello"})
        assert (body["answer"], body["guardrail"]["direction"]) == ("No.", "output")
        _, body, _ = await doors.run({"query": "Hello"})
        assert (body["answer"], "blocked" in body) == (SHOWN, False)


@pytest.mark.parametrize(
    ("query", "answers", "shown"), [("A bomb", [], "Not that."), ("Hi", ["The secret."], "No."), ("Hi", [f"Ask {MAIL}."], SHOWN)]
)
async def test_as_an_event_stream_the_tokens_are_the_answer(query: str, answers: list[str], shown: str) -> None:
    asked = {"query": query, "stream": True}
    async with open_doors(rooms_saying(*answers)) as doors, doors.http.post("/v1/agents/desk/run", json=asked) as response:
        events = [event async for event in sent_events(response)]
    assert "".join(event.data["content"] for event in events if event.event == "token") == shown
    assert (events[-1].event, events[-1].data["answer"]) == ("done", shown)


@pytest.mark.parametrize(
    ("query", "answers", "shown", "reason"),
    [
        ("A bomb", [], "Not that.", "content_filter"),
        ("Hi", ["The secret."], "No.", "content_filter"),
        ("Hi", [f"Ask {MAIL}."], SHOWN, "stop"),
    ],
)
async def test_at_the_door_of_openai_a_block_is_a_content_filter(query: str, answers: list[str], shown: str, reason: str) -> None:
    messages: Any = [{"role": "user", "content": query}]
    async with open_doors(rooms_saying(*answers, *answers)) as doors, doors.openai() as client:
        whole = await client.chat.completions.create(model="agent:desk", messages=messages)
        assert (whole.choices[0].message.content, whole.choices[0].finish_reason) == (shown, reason)
        stream = await client.chat.completions.create(model="agent:desk", messages=messages, stream=True)
        choices = [chunk.choices[0] async for chunk in stream]
    assert "".join(choice.delta.content or "" for choice in choices) == shown
    assert choices[-1].finish_reason == reason
