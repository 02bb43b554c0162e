"""Any server that speaks OpenAI's chat completions: OpenAI, vLLM, llama.cpp's server, Ollama, TGI, OpenRouter.

A request that nobody watches is asked for in one piece, a watched one as an event stream; either way its end is one `ModelReply`.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
from collections.abc import AsyncGenerator, Callable, Mapping, Sequence
from typing import Any, Literal, NoReturn
from urllib.parse import urljoin, urlsplit

import aiohttp
import orjson

from astromesh.dialogue import (
    FLOAT_BYTES,
    EncodingRequest,
    Encodings,
    FinishReason,
    Message,
    ModelEvent,
    ModelReply,
    ModelRequest,
    TextDelta,
    TokenLogprob,
    ToolCall,
    ToolCallDelta,
    ToolSchema,
    Usage,
    Vectors,
)
from astromesh.errors import DeadlineExceeded, InvalidRequest, ModelFailed, ModelRefused, ModelUnavailable, Overloaded
from astromesh.providers.backends.openai_vectors import TEXTS_AT_ONCE, read_vectors, vectors_body

CONNECT_TIMEOUT_S = 5.0  # a server on a LAN or in a cloud answers a SYN in milliseconds; more is a dead host
SILENCE_TIMEOUT_S = 120.0  # between two pieces of an answer: a long prompt on a slow machine takes this long before its first token
CONNECTIONS_MAX = 256  # to one server; beyond that calls wait for a connection, within their deadline
KEEP_ALIVE_S = 4.0  # uvicorn and Node.js hang up after 5 s of silence: whoever asks in that moment would see his request fail
REPLY_BYTES_MAX = 10 * 2**20
EVENT_BYTES_MAX = 2**20  # one line of an event stream
IDLE_BYTES_MAX = 4 * 2**20  # between two pieces: some servers keep a connection alive with a comment every second
TOOL_CALLS_MAX = 128
LOGPROBS_MAX = 20  # alternatives to one token, as many as may be asked for
ERROR_TEXT_MAX = 500
RETRY_AFTER_MAX_S = 3600  # a server that says more has misread its own clock
# No such door, no such model behind it, or a server that was started without it (llama.cpp's says 501).
_NO_EMBEDDINGS = (404, 405, 501)
LAST_BYTES_S = 0.2  # from [DONE] to the end of the body, which commonly come together

_FINISH: Mapping[str, FinishReason] = {"stop": "stop", "length": "length", "tool_calls": "tool_calls", "content_filter": "content_filter"}


class OpenAICompat:
    # What a server may be asked for. Which of its models can what, it says itself when it is asked.
    capabilities: tuple[Literal["complete", "embed"], ...] = ("complete", "embed")

    def __init__(
        self,
        name: str,
        url: str,
        *,
        api_key: str | None = None,
        api_key_env: str | None = None,
        opened: Callable[[OpenAICompat], None] = lambda _: None,
    ) -> None:
        """`url` is the API's root ("…/v1"); `api_key_env` names a variable that is read at every call. `opened`: it has to be closed."""
        self._name = name
        self._url = url
        self._shown = _without_login(url)
        self._api_key = api_key
        self._api_key_env = api_key_env
        self._opened = opened
        self._session: aiohttp.ClientSession | None = None

    async def complete(self, request: ModelRequest, *, timeout_s: float) -> AsyncGenerator[ModelEvent, None]:
        if request.prompt is not None:
            raise InvalidRequest(
                f"provider {self._name} is asked for chats only, and this is a prompt", hint="POST /v1/chat/completions", param="prompt"
            )
        timeout = aiohttp.ClientTimeout(total=timeout_s, sock_connect=CONNECT_TIMEOUT_S, sock_read=SILENCE_TIMEOUT_S)
        try:
            async with self._open().post(
                f"{self._url}/chat/completions", data=orjson.dumps(_body(request)), headers=self._headers(), timeout=timeout
            ) as response:
                if response.status != 200:
                    await self._refuse(response)
                if not request.stream:
                    yield _whole(orjson.loads(await _bounded(response)), request.model)
                    return
                stream, idle_bytes = _Stream(self._name, request.model), 0
                async for line in response.content:
                    idle_bytes += len(line)
                    if idle_bytes > IDLE_BYTES_MAX:
                        raise ValueError("it sends and says nothing")
                    if not line.startswith(b"data:"):
                        continue
                    data = line[5:].strip()
                    if data == b"[DONE]":
                        break
                    for event in stream.receive(orjson.loads(data)):
                        idle_bytes = 0
                        yield event
                yield stream.end()
                # A body that was read to its end gives its connection back; one that was not costs the next request a new one.
                with contextlib.suppress(TimeoutError):
                    async with asyncio.timeout(LAST_BYTES_S):
                        while await response.content.readany():
                            pass
        except (aiohttp.ClientError, TimeoutError, ValueError) as failure:
            self._explain(failure, timeout_s)

    async def encode(self, request: EncodingRequest, *, timeout_s: float) -> Encodings:
        """Vectors, part by part. Raises what `complete` does, and `InvalidRequest` where the server has none, or not of this model."""
        rows: list[bytes] = []
        tokens = 0
        loop = asyncio.get_running_loop()
        ends_at = loop.time() + timeout_s
        try:
            for start in range(0, len(request.texts), TEXTS_AT_ONCE):
                texts = request.texts[start : start + TEXTS_AT_ONCE]
                answer = await self._vectors(request, texts, timeout_s=max(0.001, ends_at - loop.time()))
                rows += read_vectors(answer, texts=len(texts))
                tokens += (_usage(answer.get("usage")) or Usage()).tokens_in
            return Encodings(Vectors(len(rows[0]) // FLOAT_BYTES, b"".join(rows)), Usage(tokens), request.model)
        except (aiohttp.ClientError, TimeoutError, ValueError) as failure:
            self._explain(failure, timeout_s)

    async def _vectors(self, request: EncodingRequest, texts: Sequence[str], *, timeout_s: float) -> Mapping[str, Any]:
        body = orjson.dumps(vectors_body(request.model, texts, dimensions=request.dimensions))
        timeout = aiohttp.ClientTimeout(total=timeout_s, sock_connect=CONNECT_TIMEOUT_S, sock_read=SILENCE_TIMEOUT_S)
        async with self._open().post(f"{self._url}/embeddings", data=body, headers=self._headers(), timeout=timeout) as response:
            if response.status in _NO_EMBEDDINGS:
                raise InvalidRequest(
                    f"provider {self._name} makes no embeddings with model {request.model}: {self._complaint(await _bounded(response))}",
                    hint="name a model that does",
                    param="model",
                )
            if response.status != 200:
                await self._refuse(response)
            answer = orjson.loads(await _bounded(response))
            return answer if isinstance(answer, dict) else {}

    async def check(self, *, path: str | None, timeout_s: float) -> int:
        """The status that the server answers with, at `path` of its host or where it lists its models; its body is not read.

        Raises `ModelUnavailable` where nobody answers, `DeadlineExceeded` after `timeout_s`.
        """
        url = f"{self._url}/models" if path is None else urljoin(self._url, path)
        headers = {"Authorization": f"Bearer {key}"} if path is None and (key := self._key()) else {}
        try:
            async with self._open().get(
                url, headers=headers, timeout=aiohttp.ClientTimeout(total=timeout_s), allow_redirects=False
            ) as response:
                return response.status
        except TimeoutError as failure:
            raise DeadlineExceeded(f"provider {self._name} did not answer within {timeout_s:g} s", hint="is its machine busy?") from failure
        except (aiohttp.ClientError, ValueError) as failure:
            raise ModelUnavailable(
                f"provider {self._name} does not answer: {type(failure).__name__}", hint=f"is a server running at {self._shown}?"
            ) from failure

    async def close(self) -> None:
        if self._session is not None:
            await self._session.close()

    def _open(self) -> aiohttp.ClientSession:
        if self._session is None:
            connector = aiohttp.TCPConnector(limit=CONNECTIONS_MAX, keepalive_timeout=KEEP_ALIVE_S)
            self._session = aiohttp.ClientSession(
                connector=connector, cookie_jar=aiohttp.DummyCookieJar(), read_bufsize=EVENT_BYTES_MAX, auto_decompress=True
            )
            self._opened(self)
        return self._session

    def _headers(self) -> dict[str, str]:
        headers = {"Content-Type": "application/json"}
        if key := self._key():
            headers["Authorization"] = f"Bearer {key}"
        elif self._api_key is None and self._api_key_env:
            raise ModelFailed(
                f"provider {self._name} needs a key",
                code="model_missing_api_key",
                hint=f"set the environment variable {self._api_key_env} for the node",
                definite=True,
            )
        return headers

    def _key(self) -> str:
        """Without the line break that a file read into a variable leaves behind."""
        key = os.environ.get(self._api_key_env, "") if self._api_key is None and self._api_key_env else self._api_key
        return (key or "").strip()

    async def _refuse(self, response: aiohttp.ClientResponse) -> NoReturn:
        """Turns an answer that is none into the error that says whose fault it is. No token was made, so elsewhere is safe."""
        name, status = self._name, response.status
        said = self._complaint(await _bounded(response))
        match status:
            case 429:
                raise Overloaded(
                    f"provider {name} is busy: {said}",
                    hint=f"the limits of {self._shown}",
                    retry_after_s=_seconds(response.headers.get("Retry-After", "")),
                )
            case 401 | 403:
                raise ModelFailed(
                    f"provider {name} refuses our key: {said}",
                    code="model_missing_api_key",
                    hint="check api_key_env of the provider",
                    definite=True,
                )
            case 404:
                raise ModelFailed(
                    f"provider {name} answered 404: {said}",
                    code="model_no_eligible_provider",
                    hint=f"check the model's name and the endpoint {self._shown}",
                    definite=True,
                )
            case 503:
                raise ModelFailed(
                    f"provider {name} cannot answer now (503): {said}",
                    code="model_provider_unavailable",
                    hint=f"is the server behind {self._shown} still starting?",
                    definite=True,
                    retry_after_s=_seconds(response.headers["Retry-After"]) if "Retry-After" in response.headers else 0,
                )
            case _ if 400 <= status < 500:
                raise ModelRefused(
                    f"provider {name} refuses the request with {status}: {said}", hint="change what it names, or ask another model"
                )
            case _:
                raise ModelFailed(
                    f"provider {name} answered {status}: {said}",
                    code="model_provider_unavailable",
                    hint=f"look at the server behind {self._shown}",
                    definite=True,
                )

    def _complaint(self, body: bytes) -> str:
        said = _complaint(body)
        key = self._key()
        return said.replace(key, "[the key]") if key else said  # some servers repeat what they refuse

    def _explain(self, failure: Exception, timeout_s: float) -> NoReturn:
        name, url = self._name, self._shown
        match failure:
            case aiohttp.ConnectionTimeoutError():
                raise ModelFailed(
                    f"provider {name}: no connection to {url} within {CONNECT_TIMEOUT_S:.0f} s",
                    code="model_timeout",
                    hint="check the endpoint and the network in between",
                    definite=True,
                ) from failure
            case aiohttp.SocketTimeoutError():
                raise ModelFailed(
                    f"provider {name} said nothing for {SILENCE_TIMEOUT_S:.0f} s",
                    code="model_timeout",
                    hint=f"look at the server behind {url}; timeout of the model says when to give up earlier",
                ) from failure
            case TimeoutError():
                raise ModelFailed(
                    f"provider {name} did not finish within {timeout_s:g} s",
                    code="model_timeout",
                    hint="raise timeout of the model, or timeout_seconds of the agent, or pick a faster model",
                ) from failure
            case aiohttp.ClientConnectorDNSError():
                raise ModelFailed(
                    f"provider {name}: the name in {url} cannot be resolved",
                    code="model_dns_resolution_failed",
                    hint="check the endpoint's host name",
                    definite=True,
                ) from failure
            case aiohttp.ClientConnectorError():
                raise ModelFailed(
                    f"provider {name}: nothing answers at {url}: {failure.os_error.strerror or failure.os_error}",
                    code="model_connection_refused",
                    hint="start the server there, or correct the endpoint",
                    definite=True,
                ) from failure
            case _:
                raise ModelFailed(
                    f"provider {name} broke off or answered something else than was asked for: {type(failure).__name__}",
                    code="model_provider_unavailable",
                    hint=f"look at the server behind {url}",
                ) from failure


class _Stream:
    """Puts the pieces of an event stream together while they pass through."""

    def __init__(self, provider: str, model: str) -> None:
        self._provider = provider
        self._model = model
        self._said: list[str] = []
        self._logprobs: list[TokenLogprob] = []
        self._length = 0
        self._calls: list[tuple[str, str, list[str]]] = []
        self._finish: FinishReason | None = None
        self._usage = Usage()

    def receive(self, chunk: Any) -> list[ModelEvent]:
        """Raises `ValueError` for what is no chunk of a completion, `ModelFailed` for a server that gives up in the middle."""
        try:
            if chunk.get("error"):
                raise ModelFailed(
                    f"provider {self._provider} broke off: {_complaint(orjson.dumps(chunk))}",
                    code="model_provider_unavailable",
                    hint="look at the model server's log",
                )
            self._usage = _usage(chunk.get("usage")) or self._usage
            self._model = str(chunk.get("model") or self._model)
            events: list[ModelEvent] = []
            for choice in chunk.get("choices") or ():
                delta = choice.get("delta") or {}
                if text := _text(delta.get("content")):
                    self._grow(text)
                    self._said.append(text)
                    logprobs = _logprobs(choice.get("logprobs"))
                    self._logprobs += logprobs
                    events.append(TextDelta(text, logprobs=logprobs))
                events += [self._call(piece) for piece in delta.get("tool_calls") or ()]
                if reason := choice.get("finish_reason"):
                    self._finish = _FINISH.get(reason, "stop")
            return events
        except (AttributeError, KeyError, TypeError) as mistake:
            raise ValueError("not a chunk") from mistake

    def _call(self, piece: Mapping[str, Any]) -> ToolCallDelta:
        index, function = int(piece.get("index", 0)), piece.get("function") or {}
        if not 0 <= index < TOOL_CALLS_MAX:
            raise ValueError("a tool call's index is out of range")
        while len(self._calls) <= index:
            self._calls.append(("", "", []))
        known_id, known_name, arguments = self._calls[index]
        delta = ToolCallDelta(
            index, id=_text(piece.get("id")), name=_text(function.get("name")), arguments=_text(function.get("arguments"))
        )
        self._grow(delta.arguments)
        arguments.append(delta.arguments)
        self._calls[index] = (known_id or delta.id, known_name or delta.name, arguments)
        return delta

    def _grow(self, text: str) -> None:
        self._length += len(text)
        if self._length > REPLY_BYTES_MAX:
            raise ValueError("the reply is too long")

    def end(self) -> ModelReply:
        """Raises `ModelFailed` where the stream ended without saying why: the rest of the text is missing."""
        if self._finish is None:
            raise ModelFailed(
                f"provider {self._provider} ended its stream in the middle",
                code="model_provider_unavailable",
                hint="look at the model server's log",
            )
        calls = tuple(ToolCall(id, name, "".join(arguments)) for id, name, arguments in self._calls)  # noqa: A001
        return ModelReply("".join(self._said), calls, self._finish, self._usage, self._model, logprobs=tuple(self._logprobs))


def _whole(answer: Mapping[str, Any], model: str) -> ModelReply:
    """A completion that came in one piece. Raises `ValueError` for what is none."""
    try:
        choice = answer["choices"][0]
        message = choice["message"]
        calls = tuple(
            ToolCall(str(call["id"]), str(call["function"]["name"]), str(call["function"].get("arguments") or ""))
            for call in (message.get("tool_calls") or ())[:TOOL_CALLS_MAX]
        )
        return ModelReply(
            text=_text(message.get("content")),
            tool_calls=calls,
            finish_reason=_FINISH.get(choice.get("finish_reason") or "stop", "stop"),
            usage=_usage(answer.get("usage")) or Usage(),
            model=str(answer.get("model") or model),
            logprobs=_logprobs(choice.get("logprobs")),
        )
    except (KeyError, IndexError, TypeError, AttributeError) as mistake:
        raise ValueError("not a completion") from mistake


def _text(said: Any) -> str:
    """Absent text is empty. Raises `ValueError` for what is neither."""
    if said is not None and not isinstance(said, str):
        raise ValueError("not a text")
    return said or ""


def _logprobs(said: Any) -> tuple[TokenLogprob, ...]:
    """In OpenAI's shape; absent ones are none. Raises `TypeError`, `KeyError`, `ValueError` or `AttributeError` for another shape."""
    rows = (said or {}).get("content") or ()
    return tuple(_logprob(row, tuple(_logprob(other) for other in (row.get("top_logprobs") or ())[:LOGPROBS_MAX])) for row in rows)


def _logprob(row: Mapping[str, Any], top: tuple[TokenLogprob, ...] = ()) -> TokenLogprob:
    piece = row.get("bytes")
    return TokenLogprob(str(row["token"]).encode() if piece is None else bytes(piece), float(row["logprob"]), top)


def _without_login(url: str) -> str:
    parts = urlsplit(url)
    return parts._replace(netloc=parts.netloc.rpartition("@")[2]).geturl()


def _seconds(said: str) -> int:
    """A Retry-After; a date, or what is nothing at all, is one second."""
    return min(int(said), RETRY_AFTER_MAX_S) if said.isascii() and said.isdigit() and len(said) < 10 else 1


def _usage(said: Mapping[str, Any] | None) -> Usage | None:
    if not said:
        return None
    cached = (said.get("prompt_tokens_details") or {}).get("cached_tokens") or 0
    return Usage(int(said.get("prompt_tokens") or 0), int(said.get("completion_tokens") or 0), int(cached))


def _body(request: ModelRequest) -> dict[str, Any]:
    body: dict[str, Any] = {
        "model": request.model,
        "messages": [_message(message) for message in request.transcript],
        "stream": request.stream,
    }
    if request.stream:
        body["stream_options"] = {"include_usage": True}
    if request.tools:
        body["tools"] = [_tool(tool) for tool in request.tools]
    sampling = request.sampling
    for key in ("temperature", "top_p", "top_k", "min_p", "seed", "presence_penalty", "frequency_penalty", "repeat_penalty", "max_tokens"):
        value = getattr(sampling, key)
        if value is not None:
            body[key] = value
    if sampling.logit_bias:
        body["logit_bias"] = {str(token): bias for token, bias in sampling.logit_bias}
    if sampling.logprobs is not None:
        body |= {"logprobs": True, "top_logprobs": sampling.logprobs}
    if sampling.stop:
        body["stop"] = list(sampling.stop)
    if request.tool_choice is not None:
        body["tool_choice"] = request.tool_choice
    if request.response_format is not None:
        body["response_format"] = request.response_format
    return body


def _message(message: Message) -> dict[str, Any]:
    said: dict[str, Any] = {"role": message.role, "content": message.content}
    if message.tool_calls:
        said["content"] = message.content or None
        said["tool_calls"] = [
            {"id": call.id, "type": "function", "function": {"name": call.name, "arguments": call.arguments}} for call in message.tool_calls
        ]
    if message.tool_call_id is not None:
        said["tool_call_id"] = message.tool_call_id
    return said


def _tool(tool: ToolSchema) -> dict[str, Any]:
    return {"type": "function", "function": {"name": tool.name, "description": tool.description, "parameters": dict(tool.parameters)}}


async def _bounded(response: aiohttp.ClientResponse) -> bytes:
    """The body, or a `ValueError` where it is larger than any answer should be."""
    if response.content_length is not None and response.content_length <= REPLY_BYTES_MAX:
        return await response.read()
    body = bytearray()
    async for piece in response.content.iter_any():
        body += piece
        if len(body) > REPLY_BYTES_MAX:
            raise ValueError("the reply is too long")
    return bytes(body)


def _complaint(body: bytes) -> str:
    """What a server says is wrong, in the shapes that servers use."""
    try:
        said = orjson.loads(body)
        error = said.get("error", said)
        text = error.get("message") if isinstance(error, dict) else error
        return str(text or "no reason given")[:ERROR_TEXT_MAX]
    except (ValueError, AttributeError):
        return body[:ERROR_TEXT_MAX].decode(errors="replace").strip() or "no reason given"
