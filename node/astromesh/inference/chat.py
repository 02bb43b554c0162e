"""From a transcript to the prompt text that a model was trained on, by the template inside its file. Pure.

Templates are programs written by strangers, so they run in Jinja's immutable sandbox. What they may use is what `transformers` gives
them: `messages`, `tools`, `add_generation_prompt`, the special tokens, `raise_exception` and a `tojson` that does not escape for HTML.
`strftime_now` is left undefined: the templates that know it fall back to a constant date, and a prompt that changes with the clock could
be neither repeated nor cached.

Whoever writes `<|im_end|>` into a message must not end it with that. So in everything that a caller wrote, each text of a special token is
cut behind its first character, with a character that stands for nothing; the prompt is tokenized from cut to cut. A prompt without such
texts has no cuts.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import re
from collections.abc import Collection, Mapping, Sequence
from typing import Any, NoReturn

from jinja2 import TemplateError, nodes
from jinja2.sandbox import ImmutableSandboxedEnvironment

from astromesh.dialogue import Message, ToolSchema, Transcript
from astromesh.errors import InvalidRequest
from astromesh.inference.dialects import dialect_of, in_words

# For a file without a template, which is most often a base model. llama.cpp takes the same one.
CHATML = (
    "{% for message in messages %}{{ '<|im_start|>' + message['role'] + '\\n' + message['content'] + '<|im_end|>' + '\\n' }}{% endfor %}"
    "{% if add_generation_prompt %}{{ '<|im_start|>assistant\\n' }}{% endif %}"
)

TEMPLATE_CHARACTERS_MAX = 256 * 1024  # the longest known one has some 20,000


# Unicode keeps it for use inside of programs; it is in no text.
CUT = "\ufdd0"


class TemplateUnusable(Exception):
    """The template inside the file is no template. The model cannot be loaded."""


class _Refused(TemplateError):
    """The template itself said no, by `raise_exception`."""


def _raise_exception(message: object) -> NoReturn:
    raise _Refused(str(message))


def _to_json(value: Any, indent: int | None = None, **_ignored: Any) -> str:
    return json.dumps(value, ensure_ascii=False, indent=indent)


class Specials:
    """The texts of special tokens, to be cut in what callers wrote."""

    def __init__(self, texts: Collection[str]) -> None:
        self._texts = frozenset(text for text in texts if len(text) > 1)
        by_beginning: dict[str, set[int]] = {}
        for text in self._texts:
            by_beginning.setdefault(text[:2], set()).add(len(text))
        self._lengths = {beginning: sorted(lengths) for beginning, lengths in by_beginning.items()}
        beginnings = "|".join(re.escape(beginning) for beginning in sorted(by_beginning))
        self._beginnings = re.compile(f"(?=({beginnings}))") if by_beginning else None

    def cut(self, text: str) -> str:
        """Every occurrence is cut, those that overlap too; so none is left whole."""
        if self._beginnings is None:
            return text
        parts, start = [], 0
        for found in self._beginnings.finditer(text):
            at = found.start()
            if any(text[at : at + length] in self._texts for length in self._lengths[found.group(1)]):
                parts.append(text[start : at + 1])
                start = at + 1
        return CUT.join((*parts, text[start:])) if parts else text

    def cut_all(self, value: Any) -> Any:
        """The same in every text of a value of JSON."""
        match value:
            case str():
                return self.cut(value)
            case Mapping():
                return {self.cut(key): self.cut_all(inner) for key, inner in value.items()}
            case list():
                return [self.cut_all(inner) for inner in value]
            case _:
                return value


class ChatTemplate:
    def __init__(self, source: str, *, bos: str = "", eos: str = "", specials: Collection[str] = ()) -> None:
        """Compiles it. `specials` are the texts of the model's special tokens. Raises `TemplateUnusable`."""
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
        self._specials = Specials(specials)
        self.dialect = dialect_of(source, takes_tools="tools" in names)

    def render(self, transcript: Transcript, tools: Sequence[ToolSchema] = ()) -> str:
        """The prompt, open for the assistant's turn, with a `CUT` in each special token's text that a caller wrote.

        Raises `InvalidRequest` where the template refuses the transcript.
        """
        if not self.dialect.native:
            transcript, tools = in_words(transcript, tools), ()
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
            messages=self._specials.cut_all(_as_mappings(transcript)),
            tools=self._specials.cut_all([_tool(tool) for tool in tools]) or None,
            add_generation_prompt=True,
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


def _id(identifier: str) -> str:
    """Mistral's templates refuse ids of any other form, and those of other models' calls have one."""
    if len(identifier) == 9 and identifier.isalnum():
        return identifier
    return hashlib.blake2b(identifier.encode(errors="replace")).hexdigest()[:9]


def _as_mappings(transcript: Transcript) -> list[dict[str, Any]]:
    """The shape that templates are written for. A tool's answer also carries the tool's name, which some templates print."""
    names = {call.id: call.name for message in transcript for call in message.tool_calls}
    mappings: list[dict[str, Any]] = []
    for message in transcript:
        mapping: dict[str, Any] = {"role": message.role, "content": message.content}
        if message.tool_calls:
            mapping["tool_calls"] = [
                {"id": _id(call.id), "type": "function", "function": {"name": call.name, "arguments": _arguments(call.arguments)}}
                for call in message.tool_calls
            ]
        if message.role == "tool" and message.tool_call_id is not None:
            mapping |= {"tool_call_id": _id(message.tool_call_id), "name": names.get(message.tool_call_id, "")}
        mappings.append(mapping)
    return mappings
