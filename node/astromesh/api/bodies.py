"""Reads JSON bodies within limits.

What costs is the number of values, not of bytes: parsing holds the interpreter, and with it the gossip's timers, for as long as it makes
objects. So a large body is counted before it is parsed.
"""

from __future__ import annotations

import asyncio
import sys
from pathlib import Path
from typing import Any, TypeVar

import orjson
from aiohttp import web
from pydantic import BaseModel, ValidationError

from astromesh.errors import BodyTooLarge, InvalidRequest, MalformedBody, Overloaded, TooManyValues

BODY_BYTES_MAX = 10 * 2**20
VALUES_MAX = 20_000
COUNTED_FROM_BYTES = 2 * VALUES_MAX  # a shorter text has no room for more; one MiB of nested lists takes 85 ms to parse
COUNTING_TIMEOUT_S = 5.0
COUNTING_AT_ONCE_MAX = 2  # counters are processes; large bodies full of punctuation are rare

_COUNTER = Path(__file__).with_name("count_values.py")
_counting = asyncio.Semaphore(COUNTING_AT_ONCE_MAX)

M = TypeVar("M", bound=BaseModel)


async def read(request: web.Request, model: type[M]) -> M:
    """The body as `model`.

    Raises `BodyTooLarge`, `TooManyValues`, `MalformedBody`, or `InvalidRequest` that names the first key at fault.
    """
    try:
        raw = await request.read()
    except web.HTTPRequestEntityTooLarge:
        raise BodyTooLarge(f"the body is larger than {BODY_BYTES_MAX // 2**20} MiB", hint="send less, or in parts") from None
    return await parsed(raw, model)


async def parsed(raw: bytes, model: type[M]) -> M:
    """A text of at most `BODY_BYTES_MAX` as `model`. Raises as `read` does."""
    value = await _value(raw)
    if not isinstance(value, dict):
        raise MalformedBody("the body must be one JSON object", hint="see /docs for what this route takes")
    try:
        return model.model_validate(value)
    except ValidationError as mistakes:
        raise invalid(mistakes, model) from None


def invalid(mistakes: ValidationError, model: type[BaseModel]) -> InvalidRequest:
    first = mistakes.errors(include_url=False, include_context=False, include_input=False)[0]
    where = ".".join(str(part) for part in first["loc"]) or "body"
    match first["type"]:
        case "missing":
            return InvalidRequest(f"{where} is missing", hint=f"this route needs {where}; see /docs", param=where)
        case "extra_forbidden":
            return InvalidRequest(f"{where} is no key of this route", hint=f"it takes: {', '.join(model.model_fields)}", param=where)
        case _:
            return InvalidRequest(f"{where}: {first['msg']}", hint="see /docs for what this route takes", param=where)


async def _value(raw: bytes) -> Any:
    if len(raw) > COUNTED_FROM_BYTES and _at_most(raw) > VALUES_MAX and await _count(raw) > VALUES_MAX:
        raise TooManyValues(f"the body has more than {VALUES_MAX} JSON values", hint="send fewer, or in parts")
    try:
        return orjson.loads(raw)
    except orjson.JSONDecodeError as mistake:
        raise MalformedBody(f"the body is not JSON: {mistake}", hint="check quotes, commas and braces at that position") from None


def _at_most(raw: bytes) -> int:
    """An upper bound of the number of values, in milliseconds: every value but the first follows one of these characters."""
    return raw.count(b",") + raw.count(b"[") + raw.count(b"{") + raw.count(b":") + 1


async def _count(raw: bytes) -> int:
    """The number of values, counted by another process: text may be full of commas."""
    if _counting.locked():
        raise Overloaded("several large bodies are being looked at already", hint="send it again soon, or in parts")
    async with _counting:
        process = await asyncio.create_subprocess_exec(
            sys.executable, "-I", "-S", str(_COUNTER), stdin=asyncio.subprocess.PIPE, stdout=asyncio.subprocess.PIPE
        )
        try:
            async with asyncio.timeout(COUNTING_TIMEOUT_S):
                out, _ = await process.communicate(raw)
            return int(out)
        except (TimeoutError, ValueError):
            return sys.maxsize
        finally:
            if process.returncode is None:
                process.kill()
                await process.wait()
