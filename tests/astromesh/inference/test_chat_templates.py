"""A transcript becomes the prompt that the model's makers meant, and a stranger's template can do nothing else."""

from __future__ import annotations

import pytest

from astromesh.dialogue import Message, ToolCall, ToolSchema
from astromesh.errors import InvalidRequest
from astromesh.inference.chat import CHATML, TEMPLATE_CHARACTERS_MAX, ChatTemplate, TemplateUnusable

# As it stands in SmolLM2-135M-Instruct.
SMOLLM2 = """{% for message in messages %}{% if loop.first and messages[0]['role'] != 'system' %}{{ '<|im_start|>system
You are a helpful AI assistant named SmolLM, trained by Hugging Face<|im_end|>
' }}{% endif %}{{'<|im_start|>' + message['role'] + '
' + message['content'] + '<|im_end|>' + '
'}}{% endfor %}{% if add_generation_prompt %}{{ '<|im_start|>assistant
' }}{% endif %}"""

# The shape of Mistral's: the model's own beginning and end, alternation enforced, no system role.
ALTERNATING = (
    "{{ bos_token }}{% for message in messages %}"
    "{% if (message['role'] == 'user') != (loop.index0 % 2 == 0) %}"
    "{{ raise_exception('Conversation roles must alternate user/assistant/user/assistant/...') }}{% endif %}"
    "{% if message['role'] == 'user' %}{{ '[INST] ' + message['content'] + ' [/INST]' }}"
    "{% elif message['role'] == 'assistant' %}{{ message['content'] + eos_token }}"
    "{% else %}{{ raise_exception('Only user and assistant roles are supported!') }}{% endif %}{% endfor %}"
)

# The shape of Qwen's and Hermes': tools printed as JSON, calls and answers inside tags.
WITH_TOOLS = """{%- if tools %}
{{- '<|im_start|>system\\n# Tools\\n' }}
{%- for tool in tools %}
{{- tool | tojson }}
{{- '\\n' }}
{%- endfor %}
{{- '<|im_end|>\\n' }}
{%- endif %}
{%- for message in messages %}
{%- if message.role == 'assistant' and message.tool_calls %}
{{- '<|im_start|>assistant' }}
{%- for call in message.tool_calls %}
{{- '\\n<tool_call>{"name": "' + call.function.name + '", "arguments": ' }}
{{- call.function.arguments | tojson }}
{{- '}</tool_call>' }}
{%- endfor %}
{{- '<|im_end|>\\n' }}
{%- elif message.role == 'tool' %}
{{- '<|im_start|>tool ' + message.name + '\\n' + message.content + '<|im_end|>\\n' }}
{%- else %}
{{- '<|im_start|>' + message.role + '\\n' + message.content + '<|im_end|>\\n' }}
{%- endif %}
{%- endfor %}
{%- if add_generation_prompt %}
{{- '<|im_start|>assistant\\n' }}
{%- endif %}"""

HELLO = (Message("user", "Hello"),)
WEATHER = ToolSchema("weather", "For <any> city & town.", {"type": "object"})


def test_smollm2_gets_its_own_system_prompt_where_none_is_given() -> None:
    assert ChatTemplate(SMOLLM2).render(HELLO) == (
        "<|im_start|>system\nYou are a helpful AI assistant named SmolLM, trained by Hugging Face<|im_end|>\n"
        "<|im_start|>user\nHello<|im_end|>\n<|im_start|>assistant\n"
    )


def test_a_system_prompt_of_ours_replaces_it() -> None:
    assert ChatTemplate(SMOLLM2).render((Message("system", "Be brief."), *HELLO)) == (
        "<|im_start|>system\nBe brief.<|im_end|>\n<|im_start|>user\nHello<|im_end|>\n<|im_start|>assistant\n"
    )


def test_a_file_without_a_template_gets_chatml() -> None:
    talk = (*HELLO, Message("assistant", "Hi!"), Message("user", "Bye"))
    assert ChatTemplate(CHATML).render(talk) == (
        "<|im_start|>user\nHello<|im_end|>\n<|im_start|>assistant\nHi!<|im_end|>\n<|im_start|>user\nBye<|im_end|>\n<|im_start|>assistant\n"
    )


def test_the_models_own_beginning_and_end_are_in_the_prompt() -> None:
    talk = (*HELLO, Message("assistant", "Hi!"), Message("user", "Bye"))
    assert ChatTemplate(ALTERNATING, bos="<s>", eos="</s>").render(talk) == "<s>[INST] Hello [/INST]Hi!</s>[INST] Bye [/INST]"


def test_a_model_without_a_system_role_reads_the_system_prompt_before_the_first_question() -> None:
    prompt = ChatTemplate(ALTERNATING, bos="<s>").render((Message("system", "Be brief."), *HELLO))
    assert prompt == "<s>[INST] Be brief.\n\nHello [/INST]"


def test_what_the_template_refuses_is_the_callers_mistake_in_the_templates_words() -> None:
    with pytest.raises(InvalidRequest, match="roles must alternate") as refused:
        ChatTemplate(ALTERNATING).render((*HELLO, *HELLO))
    assert refused.value.param == "messages"


def test_tools_and_calls_are_printed_as_the_json_that_the_model_was_trained_on() -> None:
    template = ChatTemplate(WITH_TOOLS)
    assert template.dialect.native
    talk = (
        *HELLO,
        Message("assistant", "", (ToolCall("c1", "weather", '{"city": "Köln"}'),)),
        Message("tool", "12 °C", tool_call_id="c1"),
    )
    assert template.render(talk, (WEATHER,)) == (
        "<|im_start|>system\n# Tools\n"
        '{"type": "function", "function": {"name": "weather", "description": "For <any> city & town.", "parameters": {"type": "object"}}}\n'
        "<|im_end|>\n<|im_start|>user\nHello<|im_end|>\n"
        '<|im_start|>assistant\n<tool_call>{"name": "weather", "arguments": {"city": "Köln"}}</tool_call><|im_end|>\n'
        "<|im_start|>tool weather\n12 °C<|im_end|>\n<|im_start|>assistant\n"
    )


def test_without_tools_their_part_of_the_template_is_silent() -> None:
    assert ChatTemplate(WITH_TOOLS).render(HELLO) == "<|im_start|>user\nHello<|im_end|>\n<|im_start|>assistant\n"


@pytest.mark.parametrize("source", ["{% for %}", "{{ x | no_such_filter }}", "x" * (TEMPLATE_CHARACTERS_MAX + 1)])
def test_a_template_that_is_none_is_found_when_the_model_is_loaded(source: str) -> None:
    with pytest.raises(TemplateUnusable):
        ChatTemplate(source)


@pytest.mark.parametrize(
    "source",
    [
        "{{ messages.__class__.__mro__ }}",
        "{{ messages.append(1) }}",
        "{{ raise_exception.__globals__['json'] }}",
        "{{ ''.__class__.__base__.__subclasses__() }}",
        "{% for i in range(1000000000) %}x{% endfor %}",
        "{{ 1 / 0 }}",
        "{{ messages[0].content + 1 }}",
    ],
)
def test_a_template_that_reaches_out_of_its_sandbox_is_refused(source: str) -> None:
    with pytest.raises(InvalidRequest):
        ChatTemplate(source).render(HELLO)


def test_what_a_template_stumbles_over_is_not_told_with_the_messages_text() -> None:
    with pytest.raises(InvalidRequest) as refused:
        ChatTemplate("{{ {}[messages[0].content] + 1 }}{{ messages[0].content | int + messages[0].content }}").render(
            (Message("user", "secret"),)
        )
    assert "secret" not in refused.value.message
