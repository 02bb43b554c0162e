"""A small model server that speaks OpenAI's dialect, for tests and benchmarks.

It behaves as real servers do on the wire: one server-sent event per token, tool calls in pieces, usage in a last chunk without choices,
errors in OpenAI's shape. The name of the model picks how it misbehaves (`Mode`), and every request is kept. In a test:

    async with StubOpenAI() as stub:
        ... talk to stub.url, then look at stub.requests, stub.active, stub.cancelled

or as a process: `python -m tests.rig.stub_openai --port 0`, which prints its URL and serves until SIGTERM.
"""

from __future__ import annotations

import argparse
import asyncio
import base64
from array import array
from collections import defaultdict, deque
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from enum import StrEnum
from types import TracebackType
from typing import Any, Self

import orjson
from aiohttp import web
from tests.rig.server_process import told_to_stop
from tests.rig.stub_answers import Say, Spoken, answer, spoken

# A benchmark sends tens of thousands; a test looks at a handful.
REQUESTS_KEPT = 1_000
# The same in every answer, so that two answers to one request differ in their id only.
CREATED = 1_700_000_000
RETRY_AFTER_S = 1
PAUSE_S = 0.05
BODY_BYTES_MAX = 64 * 1024 * 1024


class Mode(StrEnum):
    """How a model behaves. A model with the name of a mode behaves so; `StubOpenAI.modes` changes any other at any time."""

    ANSWERS = "answers"
    REFUSES = "refuses-400"
    FAILS = "fails-500"
    LIMITS = "rate-limits-429"
    HANGS = "hangs"  # takes the request and never says a byte
    HALF = "half-a-stream"  # closes the connection in the middle of its answer
    STALLS = "stalls-mid-stream"  # half an answer, then silence, the connection open
    SLOW = "slow"  # one token per `pause_s`


@dataclass(frozen=True, slots=True, kw_only=True)
class Recorded:
    """One request as it came in. `body` is None where it was not JSON."""

    method: str
    path: str
    headers: Mapping[str, str]
    body: Any

    @property
    def model(self) -> str:
        return str(self.body["model"]) if isinstance(self.body, dict) and "model" in self.body else ""


def error(status: int, message: str, *, kind: str, code: str | None = None, headers: Mapping[str, str] | None = None) -> web.Response:
    """An error in OpenAI's shape."""
    document = {"error": {"message": message, "type": kind, "param": None, "code": code}}
    return web.Response(status=status, body=orjson.dumps(document), content_type="application/json", headers=headers)


class StubOpenAI:
    """The server. `models` are listed and answered; so is every model named like a `Mode`, unlisted; others are 404, as OpenAI's are."""

    def __init__(
        self, *, models: Sequence[str] = ("stub",), host: str = "127.0.0.1", port: int = 0, pause_s: float = PAUSE_S, api_key: str = ""
    ) -> None:
        self.models = list(models)
        self.modes: dict[str, Mode] = {mode.value: mode for mode in Mode}
        self.requests: list[Recorded] = []
        self.served = 0
        self.active = 0
        self.cancelled = 0
        self.decimals = False  # vectors come so whatever is asked for, as from older servers
        self.embeds: int | None = None  # the status that a request for embeddings is refused with
        self.url = ""
        self._queued: defaultdict[str, deque[Say]] = defaultdict(deque)
        self._host = host
        self._port = port
        self._pause_s = pause_s
        self._api_key = api_key
        self._closing = False
        self._runner: web.AppRunner | None = None

    @property
    def endpoint(self) -> str:
        return f"{self.url}/v1"

    def say(self, model: str, *answers: Say | str) -> None:
        """Queue answers for `model`; when they are used up it is its usual self again."""
        self._queued[model].extend(Say(text=each) if isinstance(each, str) else each for each in answers)

    def asked(self, model: str) -> list[Recorded]:
        """The completions asked of `model`, oldest first."""
        return [request for request in self.requests if request.model == model]

    async def __aenter__(self) -> Self:
        app = web.Application(client_max_size=BODY_BYTES_MAX)
        app.router.add_get("/v1/models", self._list_models)
        app.router.add_post("/v1/chat/completions", self._complete)
        app.router.add_post("/v1/embeddings", self._embed)
        app.router.add_get("/stub/state", self._state)
        # A handler learns that its client is gone by being cancelled: this is how a stub that hangs can count who gave up.
        self._runner = web.AppRunner(app, access_log=None, handler_cancellation=True, shutdown_timeout=0.2)
        await self._runner.setup()
        await web.TCPSite(self._runner, self._host, self._port).start()
        host, port = self._runner.addresses[0][:2]
        self.url = f"http://{host}:{port}"
        return self

    async def __aexit__(self, kind: type[BaseException] | None, value: BaseException | None, trace: TracebackType | None) -> None:
        self._closing = True
        if self._runner is not None:
            await self._runner.cleanup()

    async def _state(self, request: web.Request) -> web.Response:
        return web.json_response({"served": self.served, "active": self.active, "cancelled": self.cancelled})

    async def _list_models(self, request: web.Request) -> web.Response:
        self._record(request, None)
        if not self._may(request):
            return error(401, "Incorrect API key provided.", kind="invalid_request_error", code="invalid_api_key")
        data = [{"id": model, "object": "model", "created": CREATED, "owned_by": "stub"} for model in self.models]
        return web.json_response({"object": "list", "data": data})

    async def _embed(self, request: web.Request) -> web.Response:
        """The vector of a text is its length and its place: base64 where that is asked for, unless `decimals`."""
        body = await request.json()
        self._record(request, body)
        if self.embeds is not None:
            return error(self.embeds, "This server does not support embeddings.", kind="not_supported_error")
        if (refusal := self._refusal(request, {"messages": [body["input"]], "model": body["model"]})) is not None:
            return refusal
        rows = [array("f", (len(text), place)) for place, text in enumerate(body["input"])]
        as_text = body.get("encoding_format") == "base64" and not self.decimals
        written = [base64.b64encode(row.tobytes()).decode() if as_text else row.tolist() for row in rows]
        data = [{"object": "embedding", "index": place, "embedding": row} for place, row in enumerate(written)]
        usage = {"prompt_tokens": 2 * len(rows), "total_tokens": 2 * len(rows)}
        return web.json_response({"object": "list", "data": data[::-1], "model": body["model"], "usage": usage})

    async def _complete(self, request: web.Request) -> web.StreamResponse:
        raw = await request.read()
        try:
            body = orjson.loads(raw)
        except orjson.JSONDecodeError:
            body = None
        self._record(request, body)
        self.active += 1
        try:
            return self._refusal(request, body) or await self._answer(request, body)
        except (asyncio.CancelledError, ConnectionError):
            self.cancelled += not self._closing
            raise
        finally:
            self.active -= 1

    def _record(self, request: web.Request, body: object) -> None:
        self.served += 1
        if len(self.requests) == REQUESTS_KEPT:
            del self.requests[0]
        self.requests.append(Recorded(method=request.method, path=request.path, headers=request.headers, body=body))

    def _may(self, request: web.Request) -> bool:
        return not self._api_key or request.headers.get("Authorization") == f"Bearer {self._api_key}"

    def _refusal(self, request: web.Request, body: Any) -> web.Response | None:
        if not self._may(request):
            return error(401, "Incorrect API key provided.", kind="invalid_request_error", code="invalid_api_key")
        if not isinstance(body, dict) or not isinstance(body.get("messages"), list) or not body["messages"]:
            return error(400, "'messages' is required and may not be empty.", kind="invalid_request_error")
        model = body.get("model")
        if model not in self.models and model not in self.modes:
            return error(404, f"The model '{model}' does not exist.", kind="invalid_request_error", code="model_not_found")
        match self.modes.get(model, Mode.ANSWERS):
            case Mode.REFUSES:
                return error(
                    400, "This model's maximum context length is 8 tokens.", kind="invalid_request_error", code="context_length_exceeded"
                )
            case Mode.FAILS:
                return error(500, "The server had an error while processing your request.", kind="server_error")
            case Mode.LIMITS:
                headers = {"Retry-After": str(RETRY_AFTER_S)}
                return error(429, "Rate limit reached.", kind="requests", code="rate_limit_exceeded", headers=headers)
            case _:
                return None

    async def _answer(self, request: web.Request, body: dict[str, Any]) -> web.StreamResponse:
        model: str = body["model"]
        mode = self.modes.get(model, Mode.ANSWERS)
        if mode is Mode.HANGS:
            await asyncio.Event().wait()
        queued = self._queued.get(model)
        words = spoken(queued.popleft() if queued else answer(body), body)
        completion_id = f"chatcmpl-{self.served:08d}"
        if body.get("stream"):
            return await self._stream(request, body, mode, words, completion_id)
        if mode is Mode.SLOW:
            await asyncio.sleep(self._pause_s * len(words.pieces))
        payload = orjson.dumps(whole_answer(words, model, completion_id))
        if mode in {Mode.HALF, Mode.STALLS}:
            response = web.StreamResponse(headers={"Content-Type": "application/json", "Content-Length": str(len(payload))})
            await response.prepare(request)
            await response.write(payload[: len(payload) // 2])
            return await self._break_off(request, response, mode)
        return web.Response(body=payload, content_type="application/json")

    async def _stream(
        self, request: web.Request, body: dict[str, Any], mode: Mode, words: Spoken, completion_id: str
    ) -> web.StreamResponse:
        response = web.StreamResponse(headers={"Content-Type": "text/event-stream; charset=utf-8", "Cache-Control": "no-cache"})
        await response.prepare(request)
        chunks = list(stream_chunks(words, body, completion_id))
        broken_at = len(chunks) // 2 if mode in {Mode.HALF, Mode.STALLS} else len(chunks)
        loop = asyncio.get_running_loop()
        started = loop.time()
        for index, chunk in enumerate(chunks[:broken_at]):
            if mode is Mode.SLOW:
                # By the clock and not by the pause: a model does not wait for its reader, and late timers must not add up over a stream.
                await asyncio.sleep(started + index * self._pause_s - loop.time())
            await response.write(b"data: " + orjson.dumps(chunk) + b"\n\n")
        if broken_at < len(chunks):
            return await self._break_off(request, response, mode)
        await response.write(b"data: [DONE]\n\n")
        await response.write_eof()
        return response

    async def _break_off(self, request: web.Request, response: web.StreamResponse, mode: Mode) -> web.StreamResponse:
        if mode is Mode.STALLS:
            await asyncio.Event().wait()
        if request.transport is not None:
            request.transport.close()
        return response


def call_id(completion_id: str, index: int) -> str:
    return f"call_{completion_id[-8:]}_{index}"


def whole_answer(words: Spoken, model: str, completion_id: str) -> dict[str, Any]:
    """The body of an answer that is not streamed."""
    message: dict[str, Any] = {"role": "assistant", "content": words.text or None, "refusal": None}
    if words.calls:
        message["tool_calls"] = [
            {"id": call_id(completion_id, index), "type": "function", "function": {"name": name, "arguments": arguments}}
            for index, (name, arguments) in enumerate(words.calls)
        ]
    return {
        "id": completion_id,
        "object": "chat.completion",
        "created": CREATED,
        "model": model,
        "choices": [{"index": 0, "message": message, "logprobs": None, "finish_reason": words.finish_reason}],
        "usage": words.usage,
        "system_fingerprint": "fp_stub",
    }


def stream_chunks(words: Spoken, body: Mapping[str, Any], completion_id: str) -> Iterator[dict[str, Any]]:
    """The chunks of a streamed answer, in order, without the closing `[DONE]`."""
    with_usage = bool((body.get("stream_options") or {}).get("include_usage"))

    def chunk(choices: list[dict[str, Any]], usage: dict[str, int] | None = None) -> dict[str, Any]:
        head = {
            "id": completion_id,
            "object": "chat.completion.chunk",
            "created": CREATED,
            "model": body["model"],
            "system_fingerprint": "fp_stub",
        }
        return {**head, "choices": choices, "usage": usage} if with_usage else {**head, "choices": choices}

    def delta(content: dict[str, Any], finish_reason: str | None = None) -> dict[str, Any]:
        return chunk([{"index": 0, "delta": content, "logprobs": None, "finish_reason": finish_reason}])

    yield delta({"role": "assistant", "content": None if words.calls else "", "refusal": None})
    for piece in words.pieces:
        yield delta({"content": piece})
    for index, (name, arguments) in enumerate(words.calls):
        opening = {"index": index, "id": call_id(completion_id, index), "type": "function", "function": {"name": name, "arguments": ""}}
        yield delta({"tool_calls": [opening]})
        # In pieces that end inside words, quotes and escapes: whoever parses them one by one is found out.
        for start in range(0, len(arguments), 7):
            yield delta({"tool_calls": [{"index": index, "function": {"arguments": arguments[start : start + 7]}}]})
    yield delta({}, words.finish_reason)
    if with_usage:
        yield chunk([], words.usage)


async def serve(arguments: argparse.Namespace) -> None:
    stub = StubOpenAI(models=arguments.models.split(","), host=arguments.host, port=arguments.port, pause_s=arguments.pause_ms / 1000)
    async with stub:
        told = told_to_stop()
        print(stub.url, flush=True)
        await told.wait()


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--host", default="127.0.0.1")
    parser.add_argument("--port", type=int, default=0)
    parser.add_argument("--models", default="stub", help="names to list and answer, separated by commas")
    parser.add_argument("--pause-ms", type=float, default=PAUSE_S * 1000, help="between two tokens of the model `slow`")
    asyncio.run(serve(parser.parse_args()))
