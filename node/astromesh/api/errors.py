"""The only mapping of errors to HTTP: RFC 9457 problem details on native routes, OpenAI's shape on OpenAI's routes."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import orjson
from aiohttp import web

from astromesh.errors import (
    AgentConflict,
    AgentPaused,
    AgentsUnwritable,
    AgentUnavailable,
    AgentUndeployable,
    AgentUnusable,
    AstromeshError,
    BodyTooLarge,
    ConfigurationError,
    DeadlineExceeded,
    DelegationRefused,
    Draining,
    EventsGone,
    ForeignPage,
    InvalidDocument,
    InvalidRequest,
    JoinRefused,
    KeysRefused,
    MalformedBody,
    MemoryUnavailable,
    MeshOff,
    MissingExtra,
    ModelBusy,
    ModelFailed,
    ModelRefused,
    ModelUnavailable,
    NothingRemembered,
    Overloaded,
    PeerLost,
    PromptUnrenderable,
    ReloadRefused,
    RunCancelled,
    RunUnderWay,
    SessionHomeUnreachable,
    StoreError,
    StoreRefused,
    TooManyValues,
    TurnsExhausted,
    TurnTooLarge,
    UnknownAgent,
    UnknownKey,
    UnknownMember,
    UnknownModel,
    UnknownRun,
    UnknownTool,
    UnknownTrace,
    UnusableReply,
    WorkFailed,
    WrongMediaType,
)

# The first class that fits, most special first.
_STATUS: tuple[tuple[type[AstromeshError], int], ...] = (
    (MalformedBody, 400),
    (BodyTooLarge, 413),
    (TooManyValues, 413),
    (TurnTooLarge, 413),
    (WrongMediaType, 415),
    (ForeignPage, 403),
    (UnknownAgent, 404),
    (UnknownKey, 404),
    (UnknownMember, 404),
    (UnknownTool, 404),
    (UnknownModel, 404),
    (UnknownTrace, 404),
    (UnknownRun, 404),
    (EventsGone, 410),
    (RunUnderWay, 409),
    (NothingRemembered, 404),
    (AgentUnusable, 404),
    (ModelRefused, 400),
    (AgentUndeployable, 400),
    (AgentConflict, 409),
    (KeysRefused, 409),
    (ModelBusy, 409),
    (InvalidDocument, 422),
    (InvalidRequest, 422),
    (PromptUnrenderable, 422),
    (StoreRefused, 422),
    (ConfigurationError, 422),
    (Overloaded, 429),
    (DeadlineExceeded, 504),
    (ModelUnavailable, 503),
    (AgentUnavailable, 503),
    (AgentPaused, 503),
    (SessionHomeUnreachable, 503),
    (AgentsUnwritable, 503),
    (Draining, 503),
    (RunCancelled, 503),
    (MeshOff, 503),
    (MemoryUnavailable, 503),
    (MissingExtra, 503),
    (JoinRefused, 502),
    (StoreError, 502),
    (ModelFailed, 502),
    (PeerLost, 502),
    (TurnsExhausted, 502),
    (DelegationRefused, 502),
    (UnusableReply, 502),
    (WorkFailed, 502),
)

# On OpenAI's door an agent is a model, too; what nobody ever offered has one name there.
_NEVER_OFFERED = ("model_no_providers", UnknownAgent.code)

_TITLES = {
    400: "Bad request",
    403: "Forbidden",
    404: "Not found",
    405: "Method not allowed",
    409: "Conflict",
    410: "Gone",
    413: "Content too large",
    415: "Unsupported media type",
    422: "Unprocessable content",
    426: "Upgrade required",
    429: "Too many requests",
    500: "Internal error",
    502: "Bad gateway",
    503: "Service unavailable",
    504: "Gateway timeout",
}


def status(error: AstromeshError) -> int:
    return next((code for kind, code in _STATUS if isinstance(error, kind)), 500)


def problem(error: AstromeshError) -> web.Response:
    """The answer of a native route. `detail` is a string, or an object where the contract gives it keys."""
    code = status(error)
    detail: Any = error.message
    if isinstance(error, DeadlineExceeded) and error.details is not None:
        detail = dict(error.details)
    elif isinstance(error, InvalidDocument | ReloadRefused) and error.details is not None:
        detail = {"error": error.code, "message": error.message, **error.details}
    elif code in (502, 503):
        detail = {"error": error.code, "message": error.message, "hint": error.hint}
    body: dict[str, Any] = {
        "type": "about:blank",
        "title": _TITLES.get(code, "Error"),
        "status": code,
        "detail": detail,
        "code": error.code,
        "hint": error.hint,
    }
    if isinstance(error, InvalidRequest) and error.param is not None:
        body["param"] = error.param
    return web.Response(body=orjson.dumps(body), status=code, content_type="application/problem+json", headers=_retry(error))


def http_problem(error: web.HTTPException, *, hint: str) -> web.Response:
    """The same shape for what the HTTP layer itself refuses (no such route, wrong method)."""
    body = {
        "type": "about:blank",
        "title": _TITLES.get(error.status, error.reason),
        "status": error.status,
        "detail": error.reason,
        "code": _snake(error),
        "hint": hint,
    }
    return web.Response(body=orjson.dumps(body), status=error.status, content_type="application/problem+json", headers=_allow(error))


def openai_error(error: AstromeshError) -> tuple[int, dict[str, Any]]:
    """Status and body as OpenAI's clients expect them."""
    code, name = status(error), error.code
    if name in _NEVER_OFFERED:
        code, name = 404, UnknownModel.code
    elif isinstance(error, InvalidRequest):
        code = 400
    message = f"{error.message}. {error.hint}" if error.hint else error.message
    return code, _openai_body(code, message, name, getattr(error, "param", None))


def openai_response(error: AstromeshError) -> web.Response:
    code, body = openai_error(error)
    return web.Response(body=orjson.dumps(body), status=code, content_type="application/json", headers=_retry(error))


def openai_http_problem(error: web.HTTPException, *, hint: str) -> web.Response:
    """What the HTTP layer itself refuses, as OpenAI's clients expect it."""
    body = _openai_body(error.status, f"{error.reason}. {hint}", _snake(error), None)
    return web.Response(body=orjson.dumps(body), status=error.status, content_type="application/json", headers=_allow(error))


def event(error: AstromeshError) -> dict[str, Any]:
    """The data of an `error` event in a stream that had begun."""
    body: dict[str, Any] = {"code": error.code, "message": error.message, "hint": error.hint}
    if isinstance(error, DeadlineExceeded) and error.details is not None:
        body["detail"] = dict(error.details)
    return body


def _openai_body(code: int, message: str, name: str, param: str | None) -> dict[str, Any]:
    kind = "rate_limit_error" if code == 429 else "invalid_request_error" if 400 <= code < 500 else "api_error"
    return {"error": {"message": message, "type": kind, "param": param, "code": name}}


def _snake(error: web.HTTPException) -> str:
    return _TITLES.get(error.status, error.reason).lower().replace(" ", "_")


def _allow(error: web.HTTPException) -> Mapping[str, str] | None:
    return {"Allow": error.headers["Allow"]} if "Allow" in error.headers else None


def _retry(error: AstromeshError) -> Mapping[str, str] | None:
    seconds = getattr(error, "retry_after_s", None)
    return {"Retry-After": str(seconds)} if seconds is not None else None
