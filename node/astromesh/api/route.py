"""What a route is: how it is reached, who opens, and what the documentation says of it."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import NamedTuple

from aiohttp import web
from pydantic import BaseModel

JSON = "application/json"
EVENTS = "text/event-stream"

Handler = Callable[[web.Request], Awaitable[web.StreamResponse]]


class Route(NamedTuple):
    method: str
    path: str
    handler: Handler
    summary: str
    body: type[BaseModel] | None = None
    answer: type[BaseModel] | None = None
    codes: tuple[int, ...] = (200,)
    query: tuple[tuple[str, str], ...] = ()
    headers: tuple[tuple[str, str], ...] = ()  # of the request
    media: tuple[str, ...] = (JSON,)  # of an answer that is fine
    own_shape: tuple[int, ...] = ()  # codes above 400 whose body is the route's own answer, and no problem


_OPENAI_PATHS = ("/v1/chat/", "/v1/completions", "/v1/embeddings", "/v1/rerank", "/v1/classify", "/v1/responses")


def speaks_openai(method: str, path: str) -> bool:
    """Whether failures there have the shape that OpenAI's clients read. What changes models is ours."""
    if path.rstrip("/") == "/v1/models":
        return True
    return (method == "GET" and path.startswith("/v1/models/")) or path.startswith(_OPENAI_PATHS)
