"""What a verb can fail with, as words on stderr and as an exit code. Pure."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from typing import Any

from astromesh.errors import AstromeshError, ConfigurationError

FINE = 0
FAILED = 1
USAGE = 2
UNREACHABLE = 3
BAD_CONFIGURATION = 78  # EX_CONFIG of sysexits.h: a service manager is told not to start it again
INTERRUPTED = 130  # as shells have it: 128 + SIGINT


class NodeUnreachable(AstromeshError):
    """Nobody listens there, or whoever listens is no node."""

    code = "node_unreachable"
    definite = True


class NodeRefused(AstromeshError):
    """A node answered with an error; `code` is its own."""

    def __init__(self, message: str, *, code: str, hint: str, mistakes: Sequence[Mapping[str, Any]] = ()) -> None:
        """`mistakes`: of a document, as the node found them."""
        super().__init__(message, hint=hint)
        self.code = code
        self.mistakes = mistakes


def exit_code(error: AstromeshError) -> int:
    match error:
        case NodeUnreachable():
            return UNREACHABLE
        case ConfigurationError():
            return BAD_CONFIGURATION
        case NodeRefused(code=ConfigurationError.code):
            return BAD_CONFIGURATION
        case _:
            return FAILED


def in_words(message: str, hint: str) -> str:
    """`What. Hint.`, whatever the first ends in. A hint that is a command keeps its small letter."""
    if not hint:
        return message
    told = hint if hint.startswith("astromesh") else hint[0].upper() + hint[1:]
    return f"{message} {told}" if message.endswith((".", "?", "!")) else f"{message}. {told}"


def as_json(code: str, message: str, hint: str) -> str:
    return json.dumps({"code": code, "message": message, "hint": hint}, ensure_ascii=False)


def refusal(status: int, body: Any) -> NodeRefused:
    """What a node's error answer says: problem details of native routes, or the shape of OpenAI's routes."""
    if not isinstance(body, Mapping):
        return NodeRefused(f"the node answered with status {status} and no reason", code="internal_error", hint="its log may know more")
    error = body.get("error")
    if isinstance(error, Mapping):
        return NodeRefused(str(error.get("message", "")), code=str(error.get("code", "internal_error")), hint="")
    detail, code, hint = body.get("detail"), str(body.get("code", "internal_error")), str(body.get("hint", ""))
    found: list[Mapping[str, Any]] = []
    match detail:
        case {"message": message, "mistakes": [_, *_] as mistakes}:
            found = [mistake for mistake in mistakes if isinstance(mistake, Mapping)]
            lines = [str(mistake.get("text")) for mistake in found]
            said = "\n".join((str(message), *(line for line in lines if line not in str(message))))
        case {"message": message}:
            said = str(message)
        case {"agent": agent, "timeout_seconds": seconds, **rest}:
            steps = rest.get("steps")
            said = f"agent {agent} did not finish within {seconds:g} s, after {len(steps) if isinstance(steps, list) else 0} steps"
        case str():
            said = detail
        case _:
            said = str(body.get("title") or f"status {status}")
    return NodeRefused(said, code=code, hint=hint, mistakes=found)
