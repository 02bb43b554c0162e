"""The doors for texts into numbers: embeddings as OpenAI has them, ranks as Cohere and Jina have them, labels as vLLM has them."""

from __future__ import annotations

import asyncio
import base64
from collections.abc import AsyncIterator, Callable, Iterator, Mapping, Sequence
from typing import Any, Literal

import orjson
from aiohttp import web
from pydantic import BaseModel, Field

from astromesh.api.bodies import read
from astromesh.api.house import HOUSE
from astromesh.api.openai_answers import route_headers
from astromesh.api.openai_bodies import Open, in_a_header, unknown
from astromesh.dialogue import EncodingRequest, Encodings
from astromesh.errors import Draining, InvalidRequest
from astromesh.inference.encoding import TEXTS_MAX

ENCODING_TIMEOUT_S = 600.0  # as long as OpenAI's own clients wait by default
ROWS_AT_ONCE = 64  # 64 rows of 1,024 numbers are written in 5 ms; then the gossip's timers get their turn
CUT_NAMED_MAX = 16


class EmbeddingsBody(Open):
    """OpenAI's request for embeddings."""

    model: str = Field(min_length=1, description="A model of the mesh that makes embeddings.")
    input: str | list[str] | list[int] | list[list[int]] = Field(description="A text, or a list of texts. Lists of token ids are refused.")
    encoding_format: Literal["float", "base64"] = "float"
    dimensions: int | None = Field(None, ge=1, description="The model's own number, or none.")


class DocumentBody(BaseModel):
    text: str


class RerankBody(Open):
    """A question and the texts of which some may answer it."""

    model: str = Field(min_length=1, description="A cross-encoder of the mesh.")
    query: str = Field(min_length=1)
    documents: list[str | DocumentBody] = Field(description="From 1 to 2,048 texts.")
    top_n: int | None = Field(None, ge=1, description="How many of the best to name; all where it is left out.")
    return_documents: bool = Field(False, description="Whether each result repeats its text.")


class ClassifyBody(Open):
    """Texts to be labelled."""

    model: str = Field(min_length=1, description="A classifier of the mesh.")
    input: str | list[str] = Field(description="A text, or a list of texts.")


async def embeddings(request: web.Request) -> web.Response:
    body = await read(request, EmbeddingsBody)
    given = [body.input] if isinstance(body.input, str) else body.input
    texts = tuple(text for text in given if isinstance(text, str))
    if len(texts) < len(given):
        raise InvalidRequest("input holds token ids, which mean nothing without their tokenizer", hint="send the texts", param="input")

    def rows(made: Encodings) -> Iterator[dict[str, Any]]:
        as_text = body.encoding_format == "base64"
        found = (base64.b64encode(row).decode() for row in made.vectors.rows()) if as_text else made.vectors.numbers()
        return ({"object": "embedding", "index": index, "embedding": row} for index, row in enumerate(found))

    asked = EncodingRequest(body.model, _checked(texts, "input"), body.dimensions)
    return await _answer(request, body, asked, rows)


async def classify(request: web.Request) -> web.Response:
    body = await read(request, ClassifyBody)
    texts = _checked((body.input,) if isinstance(body.input, str) else tuple(body.input), "input")

    def rows(made: Encodings) -> Iterator[dict[str, Any]]:
        for index, scores in enumerate(made.vectors.numbers()):
            best = max(range(len(scores)), key=lambda place: (scores[place], -place))
            yield {"index": index, "label": made.labels[best], "probs": scores, "num_classes": len(scores)}

    asked = EncodingRequest(body.model, texts, task="classify")
    return await _answer(request, body, asked, rows)


async def rerank(request: web.Request) -> web.Response:
    body = await read(request, RerankBody)
    texts = _checked(tuple(one if isinstance(one, str) else one.text for one in body.documents), "documents")

    def rows(made: Encodings) -> Iterator[dict[str, Any]]:
        scores = [score for (score,) in made.vectors.numbers()]
        for index in sorted(range(len(scores)), key=lambda place: (-scores[place], place))[: body.top_n]:
            document = {"document": {"text": texts[index]}} if body.return_documents else {}
            yield {"index": index, "relevance_score": scores[index], **document}

    asked = EncodingRequest(body.model, texts, task="rerank", query=body.query)
    return await _answer(request, body, asked, rows, under="results")


async def _answer(
    request: web.Request,
    body: Open,
    asked: EncodingRequest,
    rows: Callable[[Encodings], Iterator[Mapping[str, Any]]],
    *,
    under: str = "data",
) -> web.Response:
    house = request.app[HOUSE]
    if house.draining:
        raise Draining(f"{house.node} is shutting down", hint="ask another node of the mesh")
    routed, made = await house.encoder.encode(asked, timeout_s=ENCODING_TIMEOUT_S)
    usage = {"prompt_tokens": made.usage.tokens_in, "total_tokens": made.usage.tokens_in}
    rest: dict[str, Any] = {"model": asked.model, "usage": usage}
    if made.labels:
        rest["labels"] = made.labels
    if made.truncated:
        rest["warnings"] = [_warning(made, "documents" if asked.task == "rerank" else "input")]
    whole = b"".join([part async for part in _written(under, rows(made), rest)])
    headers = {**in_a_header(unknown(body)), **route_headers(routed, house)}
    return web.Response(body=whole, headers=headers, content_type="application/json")


def _checked(texts: Sequence[str], param: str) -> tuple[str, ...]:
    """Raises `InvalidRequest` for what cannot be read."""
    if not texts or not all(texts):
        raise InvalidRequest(f"{param} is empty, or holds an empty text", hint="leave empty texts out", param=param)
    if len(texts) > TEXTS_MAX:
        raise InvalidRequest(
            f"{param} has {len(texts)} texts, and {TEXTS_MAX} are possible", hint="send them in several requests", param=param
        )
    return tuple(texts)


async def _written(under: str, rows: Iterator[Mapping[str, Any]], rest: Mapping[str, Any]) -> AsyncIterator[bytes]:
    """The answer in pieces: a million numbers in one go would hold the interpreter for a tenth of a second."""
    yield b'{"object":"list","' + under.encode() + b'":['
    for index, row in enumerate(rows):
        if index and index % ROWS_AT_ONCE == 0:
            await asyncio.sleep(0)
        yield (b"," if index else b"") + orjson.dumps(row)
    yield b"]," + orjson.dumps(rest)[1:]


def _warning(made: Encodings, param: str) -> str:
    named = ", ".join(map(str, made.truncated[:CUT_NAMED_MAX])) + (", …" if len(made.truncated) > CUT_NAMED_MAX else "")
    return f"longer than model {made.model} reads, and cut: the texts at {named} of {param}"
