"""Each family of models is told of tools, calls and results in its own way; one that knows none, in words."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from tests.astromesh.inference.gbnf import matches

from astromesh.dialogue import Message, ToolCall, ToolSchema
from astromesh.errors import InvalidRequest
from astromesh.inference.chat import ChatTemplate
from astromesh.inference.dialects import GENERIC, HERMES, LLAMA, MISTRAL, calls_grammar

TEMPLATES = Path(__file__).with_name("templates")
WEATHER = ToolSchema(
    "weather",
    "Of a city.",
    {"type": "object", "properties": {"city": {"type": "string"}}, "required": ["city"], "additionalProperties": False},
)
CLOCK = ToolSchema("clock", "The time.", {})
ASKED = (Message("system", "Be brief."), Message("user", "Weather?"))
CALL = ToolCall("call_of_another_model", "weather", '{"city": "Köln"}')
CALLED = (*ASKED, Message("assistant", "", (CALL,)), Message("tool", "12 °C", tool_call_id=CALL.id))
TOLD = '{"type": "function", "function": {"name": "weather", "description": "Of a city.", "parameters": {"type": "object"'


def template(family: str) -> ChatTemplate:
    return ChatTemplate((TEMPLATES / f"{family}.jinja").read_text(), bos="<s>", eos="</s>")


@pytest.mark.parametrize(
    ("family", "dialect"),
    [("hermes", HERMES), ("llama", LLAMA), ("mistral", MISTRAL), ("gemma", GENERIC)],
    ids=lambda value: str(value)[:8],
)
def test_a_family_is_known_by_its_template(family: str, dialect: object) -> None:
    assert template(family).dialect == dialect


@pytest.mark.parametrize(
    "source", ["{{ tools }}", "{{ tools }}<tool_call><function=name>", "{{ tools }}[TOOL_CALLS]name[ARGS]", "<tool_call>"]
)
def test_a_template_whose_way_is_not_known_gets_words(source: str) -> None:
    assert ChatTemplate(source).dialect == GENERIC


def test_hermes_reads_tools_in_its_system_turn_calls_in_marks_and_results_from_the_user() -> None:
    prompt = template("hermes").render(CALLED, (WEATHER,))
    assert TOLD in prompt
    assert '<|im_start|>assistant\n\n<tool_call>\n{"name": "weather", "arguments": {"city": "Köln"}}\n</tool_call><|im_end|>\n' in prompt
    assert prompt.endswith("<|im_start|>user\n<tool_response>\n12 °C\n</tool_response><|im_end|>\n<|im_start|>assistant\n")


def test_llama_reads_parameters_and_hears_results_from_ipython() -> None:
    prompt = template("llama").render(CALLED, (WEATHER,))
    assert '"name": "weather"' in prompt
    assert '{"name": "weather", "parameters": {"city": "Köln"}}<|eot_id|>' in prompt
    assert "<|start_header_id|>ipython<|end_header_id|>\n\n12 °C<|eot_id|>" in prompt


def test_mistral_gets_ids_of_nine_letters_whoever_made_the_call() -> None:
    prompt = template("mistral").render(CALLED, (WEATHER,))
    assert TOLD in prompt
    identifier = prompt.partition('"id": "')[2][:9]
    assert f'[TOOL_CALLS] [{{"name": "weather", "arguments": {{"city": "Köln"}}, "id": "{identifier}"}}]</s>' in prompt
    assert f'[TOOL_RESULTS] {{"content": "12 °C", "call_id": "{identifier}"}}[/TOOL_RESULTS]' in prompt
    own = ToolCall("abc123xyz", "weather", "{}")
    assert '"id": "abc123xyz"' in template("mistral").render((ASKED[1], Message("assistant", "", (own,))))


def test_gemma_which_knows_neither_tools_nor_a_system_reads_all_of_it_from_the_user() -> None:
    prompt = template("gemma").render(CALLED, (WEATHER,))
    first, second, third, rest = prompt.split("<end_of_turn>\n")
    assert first.startswith("<s><start_of_turn>user\nBe brief.\n\nYou can call these tools:\n{")
    assert first.endswith("\n\nWeather?")
    assert second == '<start_of_turn>model\n<tool_call>\n{"name": "weather", "arguments": {"city": "Köln"}}\n</tool_call>'
    assert third == "<start_of_turn>user\n<tool_response>\n12 °C\n</tool_response>"
    assert rest == "<start_of_turn>model\n"


def test_results_and_the_next_question_are_one_turn_of_the_user() -> None:
    other = ToolCall("c2", "clock", "{}")
    talk = (
        ASKED[1],
        Message("assistant", "I look.", (CALL, other)),
        Message("tool", "12 °C", tool_call_id=CALL.id),
        Message("tool", "noon", tool_call_id="c2"),
        Message("user", "And now?"),
    )
    prompt = template("gemma").render(talk)
    assert "You can call" not in prompt
    assert 'I look.\n<tool_call>\n{"name": "weather"' in prompt
    assert "12 °C\n</tool_response>\n<tool_response>\nnoon\n</tool_response>\nAnd now?<end_of_turn>" in prompt


def test_what_a_template_refuses_is_told_in_its_words() -> None:
    two = Message("assistant", "", (CALL, CALL))
    with pytest.raises(InvalidRequest, match="one call at a time"):
        template("llama").render((ASKED[1], two), (WEATHER,))


def test_the_calls_of_tools_are_a_grammar_in_each_dialect() -> None:
    plain = json.dumps({"name": "weather", "arguments": {"city": "Rome"}})
    assert matches(calls_grammar((WEATHER, CLOCK), HERMES), plain)
    assert matches(calls_grammar((WEATHER, CLOCK), HERMES), '\n{"name": "clock", "arguments": {"any": ["thing"]}}')
    assert matches(calls_grammar((WEATHER,), LLAMA), plain.replace("arguments", "parameters"))
    assert matches(calls_grammar((WEATHER, CLOCK), MISTRAL), f" [{plain}, {plain}]")
    for rules, text in (
        (calls_grammar((WEATHER,), HERMES), '{"name": "clock", "arguments": {}}'),
        (calls_grammar((WEATHER, CLOCK), HERMES), '{"name": "weather", "arguments": {"town": "Rome"}}'),
        (calls_grammar((WEATHER,), MISTRAL), plain),
        (calls_grammar((CLOCK,), HERMES), '{"name": "clock", "arguments": "none"}'),
    ):
        assert not matches(rules, text), text


def test_tools_whose_schemas_cannot_be_read_are_refused_by_name() -> None:
    with pytest.raises(InvalidRequest) as refused:
        calls_grammar((ToolSchema("x", "", {"type": "object", "properties": {"a": {"$ref": "#/none"}}}),), HERMES)
    assert refused.value.param == "tools"
    patterned = {"type": "object", "properties": {"a": {"type": "string", "pattern": "^a$"}}}
    assert calls_grammar((ToolSchema("x", "", patterned),), HERMES), "what a grammar cannot hold to is for the tool room to check"
