"""A request reaches its worker whole, or is refused by name before it takes a place in the queue."""

from __future__ import annotations

from typing import Any

import pytest

from astromesh.dialogue import Message, ModelRequest, Sampling, ToolCall, ToolSchema
from astromesh.errors import InvalidRequest
from astromesh.inference.frames import FrameDecoder, pack
from astromesh.inference.request import as_frame, sampling_of, tools_of, transcript_of
from astromesh.inference.sampling import plan

TALK = (
    Message("system", "Be brief."),
    Message("user", "Weather in Paris?"),
    Message("assistant", "", (ToolCall("c1", "weather", '{"city":"Paris"}'),)),
    Message("tool", "12 °C", tool_call_id="c1"),
)
WEATHER = ToolSchema("weather", "The weather of a city.", {"type": "object", "properties": {"city": {"type": "string"}}})


def test_what_the_worker_reads_is_what_the_caller_asked() -> None:
    request = ModelRequest("smollm2", TALK, (WEATHER,), "auto", Sampling(temperature=0, stop=("END",), max_tokens=5))
    (frame,) = FrameDecoder().feed(pack(as_frame(request, number=3)))
    assert frame["number"] == 3
    assert transcript_of(frame) == TALK
    assert tools_of(frame) == (WEATHER,)
    assert sampling_of(frame) == plan(request.sampling)


def test_tool_choice_none_hides_the_tools_from_the_model() -> None:
    assert tools_of(as_frame(ModelRequest("m", TALK, (WEATHER,), "none"), number=0)) == ()


@pytest.mark.parametrize(
    ("changes", "param"),
    [
        ({"transcript": ()}, "messages"),
        ({"response_format": {"type": "json_schema", "json_schema": {}}}, "response_format"),
        ({"response_format": {"type": "json_schema", "json_schema": {"strict": True, "schema": {"pattern": "a"}}}}, "response_format"),
        ({"response_format": {"type": "grammar"}}, "response_format"),
        ({"response_format": {"type": "json_object"}, "tools": (WEATHER,)}, "response_format"),
        ({"tool_choice": "required"}, "tool_choice"),
        ({"tool_choice": "sometimes", "tools": (WEATHER,)}, "tool_choice"),
        ({"tool_choice": {"type": "function", "function": {"name": "clock"}}, "tools": (WEATHER,)}, "tool_choice"),
        ({"tool_choice": {"type": "function"}, "tools": (WEATHER,)}, "tool_choice"),
        ({"sampling": Sampling(max_tokens=-1)}, "max_tokens"),
    ],
)
def test_what_cannot_be_honoured_is_refused_by_its_name(changes: dict[str, Any], param: str) -> None:
    with pytest.raises(InvalidRequest) as refused:
        as_frame(ModelRequest(**({"model": "m", "transcript": TALK} | changes)), number=0)
    assert refused.value.param == param


def test_a_choice_of_tools_says_which_may_be_called() -> None:
    other = ToolSchema("clock", "", {})

    def forced(choice: Any) -> Any:
        return as_frame(ModelRequest("m", TALK, (WEATHER, other), choice), number=0)["forced"]

    assert [forced(None), forced("auto"), forced("none")] == [[], [], []]
    assert forced("required") == ["weather", "clock"]
    assert forced({"type": "function", "function": {"name": "clock"}}) == ["clock"]


def test_response_format_text_is_no_wish_at_all() -> None:
    assert as_frame(ModelRequest("m", TALK, response_format={"type": "text"}), number=0)["kind"] == "complete"
