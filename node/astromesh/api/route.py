"""What a route is: how it is reached, who opens, and what the documentation says of it."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Sequence
from difflib import get_close_matches
from typing import NamedTuple

from aiohttp import web
from pydantic import BaseModel

from astromesh.errors import InvalidRequest

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


SHOWN_MAX = 64


def check_query(request: web.Request, known: Sequence[str]) -> None:
    """Raises `InvalidRequest` for a parameter that the route does not have: a `scpe` left aside would answer another question."""
    for name in request.query:
        if name not in known:
            close = get_close_matches(name, known, n=1)
            hint = f"did you mean {close[0]}?" if close else f"there are: {', '.join(known)}"
            raise InvalidRequest(f"there is no {name[:SHOWN_MAX]!r} in the query here", hint=hint, param=name[:SHOWN_MAX])


_OPENAI_PATHS = ("/v1/chat/", "/v1/completions", "/v1/embeddings", "/v1/rerank", "/v1/classify", "/v1/responses")


def speaks_openai(method: str, path: str) -> bool:
    """Whether failures there have the shape that OpenAI's clients read. What changes models is ours."""
    if path.rstrip("/") == "/v1/models":
        return True
    return (method == "GET" and path.startswith("/v1/models/")) or path.startswith(_OPENAI_PATHS)
