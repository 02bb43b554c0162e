"""From a transcript to the prompt text that a model was trained on, by the template inside its file. Pure.

Templates are programs written by strangers, so they run in Jinja's immutable sandbox. What they may use is what `transformers` gives
them: `messages`, `tools`, `add_generation_prompt`, the special tokens, `raise_exception` and a `tojson` that does not escape for HTML.
`strftime_now` is left undefined: the templates that know it fall back to a constant date, and a prompt that changes with the clock could
be neither repeated nor cached.
"""

from __future__ import annotations

import contextlib
import json
from collections.abc import Mapping, Sequence
from typing import Any, NoReturn

from jinja2 import TemplateError, nodes
from jinja2.sandbox import ImmutableSandboxedEnvironment

from astromesh.dialogue import Message, ToolSchema, Transcript
from astromesh.errors import InvalidRequest

# For a file without a template, which is most often a base model. llama.cpp takes the same one.
CHATML = (
    "{% for message in messages %}{{ '<|im_start|>' + message['role'] + '\\n' + message['content'] + '<|im_end|>' + '\\n' }}{% endfor %}"
    "{% if add_generation_prompt %}{{ '<|im_start|>assistant\\n' }}{% endif %}"
)

TEMPLATE_CHARACTERS_MAX = 256 * 1024  # the longest known one has some 20,000


class TemplateUnusable(Exception):
    """The template inside the file is no template. The model cannot be loaded."""


class _Refused(TemplateError):
    """The template itself said no, by `raise_exception`."""


def _raise_exception(message: object) -> NoReturn:
    raise _Refused(str(message))


def _to_json(value: Any, indent: int | None = None, **_ignored: Any) -> str:
    return json.dumps(value, ensure_ascii=False, indent=indent)


class ChatTemplate:
    def __init__(self, source: str, *, bos: str = "", eos: str = "") -> None:
        """Compiles it. Raises `TemplateUnusable`."""
        if len(source) > TEMPLATE_CHARACTERS_MAX:
            raise TemplateUnusable(f"the chat template has {len(source)} characters; at most {TEMPLATE_CHARACTERS_MAX} are read")
        environment = ImmutableSandboxedEnvironment(trim_blocks=True, lstrip_blocks=True, extensions=["jinja2.ext.loopcontrols"])
        environment.filters["tojson"] = _to_json
        environment.globals.update(raise_exception=_raise_exception, bos_token=bos, eos_token=eos)
        try:
            names = {node.name for node in environment.parse(source).find_all(nodes.Name)}
            self._template = environment.from_string(source)
        except TemplateError as error:
            raise TemplateUnusable(f"the chat template does not compile: {error}") from error
        self.takes_tools = "tools" in names

    def render(self, transcript: Transcript, tools: Sequence[ToolSchema] = ()) -> str:
        """The prompt, open for the assistant's turn. Raises `InvalidRequest` where the template refuses the transcript."""
        if tools and not self.takes_tools:
            raise InvalidRequest(
                "the model's chat template has no place for tools", param="tools", hint="ask a model that was trained on tools"
            )
        try:
            return self._render(transcript, tools)
        except _Refused as refused:
            if transcript and transcript[0].role == "system":
                # Some models (Gemma) know no system role. Their makers' advice is to put its text in front of the first user message.
                with contextlib.suppress(_Refused):  # what is told is the refusal of the caller's own transcript
                    return self._render(_system_folded(transcript), tools)
            raise InvalidRequest(f"the model's chat template refuses these messages: {refused}", param="messages") from refused
        except (TemplateError, TypeError, ValueError, ArithmeticError, LookupError, AttributeError, RecursionError) as error:
            # The template stumbles over our values. What it says then may quote a message, so only its kind is told.
            raise InvalidRequest(f"the model's chat template fails on these messages ({type(error).__name__})", param="messages") from None

    def _render(self, transcript: Transcript, tools: Sequence[ToolSchema]) -> str:
        return self._template.render(
            messages=_as_mappings(transcript), tools=[_tool(tool) for tool in tools] or None, add_generation_prompt=True
        )


def _system_folded(transcript: Transcript) -> Transcript:
    system, *rest = transcript
    for position, message in enumerate(rest):
        if message.role == "user":
            rest[position] = Message("user", f"{system.content}\n\n{message.content}")
            return tuple(rest)
    return (Message("user", system.content), *rest)


def _tool(tool: ToolSchema) -> dict[str, Any]:
    function = {"name": tool.name, "description": tool.description, "parameters": dict(tool.parameters)}
    return {"type": "function", "function": function}


def _arguments(text: str) -> Any:
    """Templates print arguments with `tojson`, so they want the mapping; what the model wrote may be no JSON, and then it is its text."""
    try:
        parsed = json.loads(text)
    except ValueError:
        return text
    return parsed if isinstance(parsed, Mapping) else text


def _as_mappings(transcript: Transcript) -> list[dict[str, Any]]:
    """The shape that templates are written for. A tool's answer also carries the tool's name, which some templates print."""
    names = {call.id: call.name for message in transcript for call in message.tool_calls}
    mappings: list[dict[str, Any]] = []
    for message in transcript:
        mapping: dict[str, Any] = {"role": message.role, "content": message.content}
        if message.tool_calls:
            mapping["tool_calls"] = [
                {"id": call.id, "type": "function", "function": {"name": call.name, "arguments": _arguments(call.arguments)}}
                for call in message.tool_calls
            ]
        if message.role == "tool" and message.tool_call_id is not None:
            mapping |= {"tool_call_id": message.tool_call_id, "name": names.get(message.tool_call_id, "")}
        mappings.append(mapping)
    return mappings
