"""An agent's tools: calls go out side by side, and every one of them gets an answer."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Iterable
from typing import Any

import orjson

from astromesh.dialogue import Message, ToolCall, ToolSchema
from astromesh.tools.port import Tool, ToolFailed

log = logging.getLogger(__name__)

CALLS_AT_ONCE_MAX = 16  # a model that wants more in one turn is confused; the rest is refused with a text that says so
RESULT_CHARACTERS_MAX = 32_000  # about 8,000 tokens, the contract's default for max_tool_result_tokens
CALL_TIMEOUT_S = 30.0


class Toolbox:
    def __init__(self, tools: Iterable[Tool]) -> None:
        self._tools = {tool.schema.name: tool for tool in tools}

    @property
    def schemas(self) -> tuple[ToolSchema, ...]:
        return tuple(tool.schema for tool in self._tools.values())

    async def call(self, calls: tuple[ToolCall, ...]) -> tuple[Message, ...]:
        """One message of role "tool" for each call, in the order of the calls."""
        answers = await asyncio.gather(*(self._one(call) for call in calls[:CALLS_AT_ONCE_MAX]))
        refused = [f"error: not called, at most {CALLS_AT_ONCE_MAX} tools can be called at once" for _ in calls[CALLS_AT_ONCE_MAX:]]
        return tuple(Message("tool", text, tool_call_id=call.id) for call, text in zip(calls, [*answers, *refused], strict=True))

    async def _one(self, call: ToolCall) -> str:
        tool = self._tools.get(call.name)
        if tool is None:
            return f"error: there is no tool {call.name!r}; there are: {', '.join(sorted(self._tools)) or 'none'}"
        try:
            arguments: Any = orjson.loads(call.arguments or "{}")
        except ValueError as mistake:
            return f"error: the arguments are not JSON: {mistake}"
        if not isinstance(arguments, dict):
            return "error: the arguments must be one JSON object"
        try:
            async with asyncio.timeout(CALL_TIMEOUT_S):
                result = await tool.call(arguments)
        except ToolFailed as failure:
            return f"error: {failure}"
        except TimeoutError:
            return f"error: {call.name} did not answer within {CALL_TIMEOUT_S:.0f} s"
        except Exception:
            log.exception("tool %s failed in a way that it does not declare", call.name)
            return f"error: {call.name} failed"
        return result if len(result) <= RESULT_CHARACTERS_MAX else result[:RESULT_CHARACTERS_MAX] + "\n[cut]"
