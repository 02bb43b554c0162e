"""How models write down calls of tools: each family has its own way, and the template inside a file shows which. Pure.

A model whose template has no place for tools, or one for a way that is not known here, is told in words to write them as most families do.
That holds wherever a grammar forces the call; left to itself, a small model that was never trained on tools calls them badly or not at all.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass, replace

from astromesh.dialogue import Message, ToolSchema, Transcript
from astromesh.inference.grammar import Grammar


@dataclass(frozen=True, slots=True)
class Dialect:
    """A call is a JSON object with `name` and the arguments under `arguments_key`."""

    name: str
    opening: str  # before a call; empty: only an answer that begins with one is a call
    closing: str = ""  # behind it
    arguments_key: str = "arguments"
    listed: bool = False  # the calls stand in a list
    native: bool = True  # the template prints tools, calls and results itself

    @property
    def prefill(self) -> str:
        """What an answer that must be a call begins with. It stands in the prompt, so that it is tokenized as the model knows it."""
        return f"{self.opening}\n" if self.closing else self.opening


HERMES = Dialect("hermes", "<tool_call>", "</tool_call>")
LLAMA = Dialect("llama", "", arguments_key="parameters")
MISTRAL = Dialect("mistral", "[TOOL_CALLS]", listed=True)
GENERIC = replace(HERMES, name="generic", native=False)


def dialect_of(template: str, *, takes_tools: bool) -> Dialect:
    """The dialect of a template's source."""
    if not takes_tools or "<function=" in template or "[ARGS]" in template:  # tools that are written as XML, or by name and then arguments
        return GENERIC
    if "[TOOL_CALLS]" in template:
        return MISTRAL
    if "<tool_call>" in template:
        return HERMES
    return LLAMA if "<|python_tag|>" in template or '"parameters": dictionary' in template else GENERIC


def calls_grammar(tools: Sequence[ToolSchema], dialect: Dialect) -> str:
    """The grammar of calls of these tools, from behind the opening on. Raises `InvalidRequest` that names `tools`."""
    grammar = Grammar(param="tools", strict=False)
    space = grammar.primitive("space")
    calls = []
    for tool in tools:
        parameters = dict(tool.parameters)
        arguments = grammar.value(
            parameters if {"type", "$ref", "anyOf", "oneOf", "allOf"} & set(parameters) else {**parameters, "type": "object"}
        )
        parts = [("name", grammar.literal(json.dumps(tool.name, ensure_ascii=False))), (dialect.arguments_key, arguments)]
        pairs = f' {space} "," {space} '.join(f'{grammar.literal(json.dumps(key))} {space} ":" {space} {value}' for key, value in parts)
        calls.append(grammar.rule(f'"{{" {space} {pairs} {space} "}}"'))
    call = grammar.union(calls)
    if dialect.listed:
        call = grammar.rule(f'"[" {space} {call} ({space} "," {space} {call})* {space} "]"')
    return grammar.text(grammar.rule(f"[ \\n]{{0,2}} {call}"))


def in_words(transcript: Transcript, tools: Sequence[ToolSchema]) -> Transcript:
    """For a template without a place for tools: the same in words. Tools are described to the system, calls and results stand as text."""
    told: list[Message] = []
    answered = False  # the last one told is a tool's
    for message in transcript:
        after_answer, answered = answered, message.role == "tool"
        if answered:
            message = Message("user", f"<tool_response>\n{message.content}\n</tool_response>")
        elif message.tool_calls:
            calls = "\n".join(f"{GENERIC.opening}\n{_call(call.name, call.arguments)}\n{GENERIC.closing}" for call in message.tool_calls)
            message = Message("assistant", f"{message.content}\n{calls}".lstrip("\n"))
        if after_answer and message.role == "user":  # many templates want user and assistant to take turns
            told[-1] = Message("user", f"{told[-1].content}\n{message.content}")
        else:
            told.append(message)
    if not tools:
        return tuple(told)
    if told and told[0].role == "system":
        return (Message("system", f"{told[0].content}\n\n{_instruction(tools)}"), *told[1:])
    return (Message("system", _instruction(tools)), *told)


def _instruction(tools: Sequence[ToolSchema]) -> str:
    described = "\n".join(
        json.dumps({"name": tool.name, "description": tool.description, "parameters": dict(tool.parameters)}, ensure_ascii=False)
        for tool in tools
    )
    return (
        f"You can call these tools:\n{described}\n\nTo call one, write nothing but this, with its name and your arguments:\n"
        f'{GENERIC.opening}\n{{"name": "...", "arguments": {{...}}}}\n{GENERIC.closing}\n'
        "Its answer comes back between <tool_response> and </tool_response>. Where no tool is needed, answer in words."
    )


def _call(name: str, arguments: str) -> str:
    try:
        said = json.loads(arguments)
    except ValueError:
        said = arguments
    return json.dumps({"name": name, "arguments": said}, ensure_ascii=False)
