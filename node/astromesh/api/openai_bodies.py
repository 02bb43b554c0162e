"""What OpenAI's clients may ask for: the bodies of their requests, and what becomes of each key.

A known key is honoured or refused by its name; an unknown one is accepted and named in the answer's head. Silence would be a lie.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field

from astromesh.api.choices import CHOICES_MAX
from astromesh.dialogue import Sampling
from astromesh.errors import InvalidRequest

STOPS_MAX = 16
LOGIT_BIASES_MAX = 1024
LOGPROBS_MAX = 20
COMPLETION_TOKENS = 16  # OpenAI's own measure for a completion where nobody says
KEYS_NAMED_MAX = 16  # in X-Astromesh-Ignored: clients commonly read headers of some thousand bytes
KEY_CHARACTERS_NAMED = 40

# Keys of OpenAI's that change what the answer must be, and that this node cannot honour: silence would be a lie.
_NOT_HONOURED = ("audio", "best_of", "function_call", "functions", "modalities", "prediction", "suffix", "web_search_options")
# How an agent's model samples stands in the agent's document.
_IDLE_FOR_AGENTS = (
    *("temperature", "top_p", "top_k", "min_p", "seed", "presence_penalty", "frequency_penalty", "repeat_penalty"),
    *("max_tokens", "max_completion_tokens", "stop"),
)
_EMPTY: tuple[object, ...] = (None, [], {}, "")


class Open(BaseModel):
    """Takes keys that it does not know, so that they can be named."""

    model_config = ConfigDict(extra="allow")


class FunctionBody(Open):
    name: str
    arguments: str = "{}"


class ToolCallBody(Open):
    id: str
    type: Literal["function"] = "function"
    function: FunctionBody


class TextPart(Open):
    type: str
    text: str | None = None


class MessageBody(Open):
    role: Literal["system", "developer", "user", "assistant", "tool"]
    content: str | list[TextPart] | None = None
    tool_calls: list[ToolCallBody] | None = None
    tool_call_id: str | None = None


class FunctionSchema(Open):
    name: str
    description: str = ""
    parameters: dict[str, Any] = Field(default_factory=lambda: {"type": "object", "properties": {}})


class ToolBody(Open):
    type: Literal["function"]
    function: FunctionSchema


class StreamOptions(Open):
    include_usage: bool = False


class SampledBody(Open):
    """What both kinds of completion take."""

    model: str = Field(min_length=1, description="A model of the mesh, or agent:NAME.")
    stream: bool = False
    stream_options: StreamOptions | None = None
    temperature: float | None = Field(None, ge=0, le=2)
    top_p: float | None = Field(None, gt=0, le=1)
    top_k: int | None = Field(None, ge=-1)  # -1 and 0: all tokens; clients differ in how they say that
    min_p: float | None = Field(None, ge=0, le=1)
    seed: int | None = None
    presence_penalty: float | None = Field(None, ge=-2, le=2)
    frequency_penalty: float | None = Field(None, ge=-2, le=2)
    repeat_penalty: float | None = Field(None, gt=0, le=10)
    logit_bias: dict[int, Annotated[float, Field(ge=-100, le=100)]] | None = Field(None, max_length=LOGIT_BIASES_MAX)
    max_tokens: int | None = Field(None, ge=1)
    stop: str | list[str] | None = None
    n: int | None = Field(None, ge=1, le=CHOICES_MAX, description="How many answers. With a seed, each has the one after the other's.")


class ChatBody(SampledBody):
    """OpenAI's chat completion request."""

    messages: list[MessageBody] = Field(min_length=1, max_length=4096)
    max_completion_tokens: int | None = Field(None, ge=1)
    tools: list[ToolBody] | None = Field(None, max_length=128)
    tool_choice: str | dict[str, Any] | None = None
    parallel_tool_calls: bool | None = Field(None, description="false: one call of a tool at most, the first that the model makes.")
    response_format: dict[str, Any] | None = None
    logprobs: bool | None = None
    top_logprobs: int | None = Field(None, ge=0, le=LOGPROBS_MAX)

    def sampling(self) -> Sampling:
        if self.top_logprobs is not None and not self.logprobs:
            raise InvalidRequest("top_logprobs means nothing without logprobs", hint="send logprobs: true, too", param="top_logprobs")
        tokens_max = self.max_tokens if self.max_completion_tokens is None else self.max_completion_tokens
        return _sampling(self, tokens_max=tokens_max, logprobs=(self.top_logprobs or 0) if self.logprobs else None)


class CompletionBody(SampledBody):
    """OpenAI's older request: text to go on with, without roles or template."""

    prompt: str | list[str]
    echo: bool = False
    logprobs: int | None = Field(None, ge=0, le=LOGPROBS_MAX)

    def sampling(self) -> Sampling:
        return _sampling(self, tokens_max=COMPLETION_TOKENS if self.max_tokens is None else self.max_tokens, logprobs=self.logprobs)


def _sampling(body: SampledBody, *, tokens_max: int | None, logprobs: int | None) -> Sampling:
    stop = (body.stop,) if isinstance(body.stop, str) else tuple(body.stop or ())
    if len(stop) > STOPS_MAX:
        raise InvalidRequest(f"more than {STOPS_MAX} stop strings", hint="send fewer", param="stop")
    return Sampling(
        temperature=body.temperature,
        top_p=body.top_p,
        top_k=body.top_k,
        min_p=body.min_p,
        seed=body.seed,
        presence_penalty=body.presence_penalty,
        frequency_penalty=body.frequency_penalty,
        repeat_penalty=body.repeat_penalty,
        max_tokens=tokens_max,
        stop=stop,
        logit_bias=tuple(sorted((body.logit_bias or {}).items())),
        logprobs=logprobs,
    )


def idle_for_agents(body: SampledBody) -> list[str]:
    """The keys that a model would honour, and that do nothing where an agent is asked."""
    return [key for key in _IDLE_FOR_AGENTS if getattr(body, key, None) is not None]


def ignored(body: SampledBody) -> list[str]:
    """The keys that were accepted and do nothing. Raises `InvalidRequest` for those whose silence would be a lie."""
    extra = body.model_extra or {}
    for key in _NOT_HONOURED:
        if extra.get(key) is not None and not (key == "best_of" and extra[key] == (body.n or 1)):
            raise InvalidRequest(f"{key} cannot be honoured by this node", hint=f"leave {key} out", param=key)
    parts: list[tuple[str, Open]] = [("", body)]
    parts += [("stream_options.", body.stream_options)] if body.stream_options is not None else []
    if isinstance(body, ChatBody):
        for message in body.messages:
            parts.append(("messages.", message))
            if isinstance(message.content, list):
                parts += [("messages.content.", part) for part in message.content]
            for call in message.tool_calls or ():
                parts += [("messages.tool_calls.", call), ("messages.tool_calls.function.", call.function)]
        for tool in body.tools or ():
            parts += [("tools.", tool), ("tools.function.", tool.function)]
    return sorted({f"{where}{key}" for where, part in parts for key in _said(part)})


def unknown(body: Open) -> list[str]:
    """The keys of a flat body that were accepted and do nothing."""
    return sorted(_said(body))


def _said(part: Open) -> Iterable[str]:
    # What is empty says nothing, and clients send it along with their own model's earlier answers.
    return (key for key, value in (part.model_extra or {}).items() if value not in _EMPTY)


def in_a_header(keys: list[str]) -> dict[str, str]:
    """The keys are the client's own words: they are made fit for a header, and are as many as one may hold."""
    if not keys:
        return {}
    named = ", ".join(ascii(key)[1:-1][:KEY_CHARACTERS_NAMED] for key in keys[:KEYS_NAMED_MAX])
    return {"X-Astromesh-Ignored": named if len(keys) <= KEYS_NAMED_MAX else f"{named} and {len(keys) - KEYS_NAMED_MAX} more"}
