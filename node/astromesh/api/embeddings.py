"""OpenAI's door for embeddings, such that their own clients work unchanged."""

from __future__ import annotations

import asyncio
import base64
from collections.abc import AsyncIterator
from typing import Literal

import orjson
from aiohttp import web
from pydantic import Field

from astromesh.api.bodies import read
from astromesh.api.house import HOUSE
from astromesh.api.openai_answers import route_headers
from astromesh.api.openai_bodies import Open, in_a_header, unknown
from astromesh.dialogue import EmbeddingRequest, Embeddings
from astromesh.errors import Draining, InvalidRequest
from astromesh.inference.encoding import TEXTS_MAX

EMBEDDING_TIMEOUT_S = 600.0  # as long as OpenAI's own clients wait by default
ROWS_AT_ONCE = 64  # 64 rows of 1,024 numbers are written in 5 ms; then the gossip's timers get their turn
CUT_NAMED_MAX = 16


class EmbeddingsBody(Open):
    """OpenAI's request for embeddings."""

    model: str = Field(min_length=1, description="A model of the mesh that makes embeddings.")
    input: str | list[str] | list[int] | list[list[int]] = Field(description="A text, or a list of texts. Lists of token ids are refused.")
    encoding_format: Literal["float", "base64"] = "float"
    dimensions: int | None = Field(None, ge=1, description="The model's own number, or none.")


async def embeddings(request: web.Request) -> web.Response:
    house = request.app[HOUSE]
    if house.draining:
        raise Draining(f"{house.node} is shutting down", hint="ask another node of the mesh")
    body = await read(request, EmbeddingsBody)
    asked = EmbeddingRequest(body.model, _texts(body), body.dimensions)
    routed, made = await house.embedder.embed(asked, timeout_s=EMBEDDING_TIMEOUT_S)
    whole = b"".join([part async for part in _written(body, made)])
    headers = {**in_a_header(unknown(body)), **route_headers(routed, house)}
    return web.Response(body=whole, headers=headers, content_type="application/json")


def _texts(body: EmbeddingsBody) -> tuple[str, ...]:
    """Raises `InvalidRequest` for what is no text to embed."""
    given = [body.input] if isinstance(body.input, str) else body.input
    texts = tuple(text for text in given if isinstance(text, str))
    if len(texts) < len(given):
        raise InvalidRequest("input holds token ids, which mean nothing without their tokenizer", hint="send the texts", param="input")
    if not texts or not all(texts):
        raise InvalidRequest("input is empty, or holds an empty text", hint="leave empty texts out", param="input")
    if len(texts) > TEXTS_MAX:
        raise InvalidRequest(
            f"input has {len(texts)} texts, and {TEXTS_MAX} are possible", hint="send them in several requests", param="input"
        )
    return texts


async def _written(body: EmbeddingsBody, made: Embeddings) -> AsyncIterator[bytes]:
    """The answer in pieces: a million numbers in one go would hold the interpreter for a tenth of a second."""
    rows = (base64.b64encode(row).decode() for row in made.vectors.rows()) if body.encoding_format == "base64" else made.vectors.numbers()
    yield b'{"object":"list","data":['
    for index, row in enumerate(rows):
        if index and index % ROWS_AT_ONCE == 0:
            await asyncio.sleep(0)
        yield (b"," if index else b"") + orjson.dumps({"object": "embedding", "index": index, "embedding": row})
    usage = {"prompt_tokens": made.usage.tokens_in, "total_tokens": made.usage.tokens_in}
    rest = {"model": body.model, "usage": usage, **({"warnings": [_warning(made)]} if made.truncated else {})}
    yield b"]," + orjson.dumps(rest)[1:]


def _warning(made: Embeddings) -> str:
    named = ", ".join(map(str, made.truncated[:CUT_NAMED_MAX])) + (", …" if len(made.truncated) > CUT_NAMED_MAX else "")
    return f"longer than model {made.model} reads, and cut: the texts at {named} of input"
