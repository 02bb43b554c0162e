"""OpenAPI 3.1 of all routes, made from the models that check their bodies, and a page for people."""

from __future__ import annotations

from collections.abc import Iterable
from html import escape
from http import HTTPStatus
from typing import Any

from aiohttp import web
from pydantic import BaseModel
from pydantic.json_schema import models_json_schema

from astromesh.api.house import HOUSE, House
from astromesh.api.replies import reply
from astromesh.api.route import JSON, Route, speaks_openai

_PROBLEM = {
    "type": "object",
    "description": "RFC 9457 problem details.",
    "required": ["type", "title", "status", "detail", "code", "hint"],
    "properties": {
        "type": {"type": "string"},
        "title": {"type": "string"},
        "status": {"type": "integer"},
        "detail": {"description": "What is wrong: a sentence, or an object with keys of its own."},
        "code": {"type": "string", "description": "Stable; fit for a program."},
        "hint": {"type": "string", "description": "What to do about it."},
    },
}


# OpenAI's shape of an error, or none.
_OTHER_PROBLEMS = ("/v1/chat/", "/v1/completions", "/v1/embeddings", "/v1/rerank", "/v1/classify", "/v1/models", "/v1/ready")

_OPENAI_ERROR = {
    "type": "object",
    "description": "A failure in OpenAI's shape.",
    "required": ["error"],
    "properties": {
        "error": {
            "type": "object",
            "required": ["message", "type", "param", "code"],
            "properties": {
                "message": {"type": "string", "description": "What is wrong, and what to do about it."},
                "type": {"type": "string"},
                "param": {"type": ["string", "null"], "description": "The key that is at fault."},
                "code": {"type": "string", "description": "Stable; fit for a program."},
            },
        }
    },
}
_ANSWERS_WITHOUT_CONTENT = (101, 204)
_EVERYWHERE = (403,)  # a page of another origin
_WITH_A_BODY = (400, 413, 415)  # no JSON, too much of it, declared as something else


def routes(documented: Iterable[Route]) -> tuple[Route, ...]:
    table = tuple(documented)
    document: dict[str, dict[str, Any]] = {}

    async def openapi(request: web.Request) -> web.Response:
        version = request.app[HOUSE].version
        if version not in document:
            document[version] = describe(table, version)
        return reply(document[version])

    async def page(request: web.Request) -> web.Response:
        house = request.app[HOUSE]
        return web.Response(text=_page(table, house, at=request.host), content_type="text/html")

    return (
        Route("GET", "/openapi.json", openapi, "This description."),
        Route("GET", "/docs", page, "The same for people.", media=("text/html",)),
    )


def describe(table: Iterable[Route], version: str) -> dict[str, Any]:
    """The whole document. Every model that a route names lies under components once."""
    table = tuple(table)
    models: list[type[BaseModel]] = [model for route in table for model in (route.body, route.answer) if model is not None]
    references, definitions = models_json_schema([(model, "validation") for model in models], ref_template="#/components/schemas/{model}")
    paths: dict[str, dict[str, Any]] = {}
    for route in table:
        paths.setdefault(route.path, {})[route.method.lower()] = _operation(route, references)
    return {
        "openapi": "3.1.0",
        "info": {"title": "Astromesh node", "version": version, "description": "Any node answers for any agent and any model of the mesh."},
        "paths": paths,
        "components": {"schemas": {**definitions.get("$defs", {}), "Problem": _PROBLEM, "OpenAIError": _OPENAI_ERROR}},
    }


def _operation(route: Route, references: dict[Any, Any]) -> dict[str, Any]:
    operation: dict[str, Any] = {
        "summary": route.summary,
        "operationId": f"{route.handler.__module__.rpartition('.')[2]}_{route.handler.__name__}",
        "responses": {str(code): _answer(route, code, references) for code in _codes(route)},
    }
    in_path = [part[1:-1] for part in route.path.split("/") if part.startswith("{")]
    parameters = [{"name": name, "in": "path", "required": True, "schema": {"type": "string"}} for name in in_path]
    parameters += [{"name": name, "in": "query", "description": text, "schema": {"type": "string"}} for name, text in route.query]
    parameters += [{"name": name, "in": "header", "description": text, "schema": {"type": "string"}} for name, text in route.headers]
    if parameters:
        operation["parameters"] = parameters
    if route.body is not None:
        operation["requestBody"] = {"required": True, "content": {JSON: {"schema": references[(route.body, "validation")]}}}
    return operation


def _codes(route: Route) -> list[int]:
    """Those of the route, and those of what every request passes through. Whatever cannot be meant is 400 to OpenAI's clients."""
    unmeant = () if speaks_openai(route.method, route.path) else (422,)
    return sorted({*route.codes, *_EVERYWHERE, *((*_WITH_A_BODY, *unmeant) if route.body is not None else ())})


def _answer(route: Route, code: int, references: dict[Any, Any]) -> dict[str, Any]:
    described: dict[str, Any] = {"description": HTTPStatus(code).phrase}
    if code in _ANSWERS_WITHOUT_CONTENT:
        return described
    if code >= 400 and code in route.own_shape:
        described["content"] = {JSON: {}}
    elif code >= 400 and speaks_openai(route.method, route.path):
        described["content"] = {JSON: {"schema": {"$ref": "#/components/schemas/OpenAIError"}}}
    elif code >= 400:
        described["content"] = {"application/problem+json": {"schema": {"$ref": "#/components/schemas/Problem"}}}
    else:
        schema = {"schema": references[(route.answer, "validation")]} if route.answer is not None else {}
        described["content"] = {media: schema if media == JSON else {} for media in route.media}
    return described


def _page(table: Iterable[Route], house: House, *, at: str) -> str:
    rows = "\n".join(
        f"<tr><td class=m>{route.method}</td><td><code>{escape(route.path)}</code></td><td>{escape(route.summary)}{_keys(route)}</td>"
        f"<td>{' '.join(str(code) for code in route.codes)}</td></tr>"
        for route in table
    )
    return f"""<!doctype html>
<html lang="en"><head><meta charset="utf-8"><meta name="viewport" content="width=device-width, initial-scale=1">
<title>{escape(house.node)}: Astromesh node</title>
<style>
:root {{ color-scheme: light dark; }}
body {{ font: 16px/1.5 system-ui, sans-serif; max-width: 68rem; margin: 2rem auto; padding: 0 1rem; }}
table {{ border-collapse: collapse; width: 100%; }}
th, td {{ text-align: left; vertical-align: top; padding: .5rem .75rem .5rem 0; border-bottom: 1px solid #8884; }}
.m {{ font-weight: 600; }} code, pre {{ font: 14px/1.4 ui-monospace, monospace; }} small {{ opacity: .75; }}
pre {{ padding: .75rem; background: #8881; overflow-x: auto; }}
</style></head><body>
<h1>{escape(house.node)}</h1>
<p>Astromesh node {escape(house.version)}. Any node answers for any agent and any model of the mesh.
Machine-readable: <a href="/openapi.json">/openapi.json</a>.</p>
<pre>curl -s {escape(at)}/v1/agents/hello/run -H 'Content-Type: application/json' -d '{{"query": "What is a mesh?"}}'</pre>
<table><thead><tr><th>Method</th><th>Path</th><th>What</th><th>Codes</th></tr></thead><tbody>
{rows}
</tbody></table></body></html>
"""


def _keys(route: Route) -> str:
    if route.body is None:
        return ""
    keys = ", ".join(f"{name}*" if field.is_required() else name for name, field in route.body.model_fields.items())
    return f"<br><small>body: {escape(keys)}</small>"
