"""An agent's tools: calls go out side by side, and every one of them gets an answer."""

from __future__ import annotations

import asyncio
import logging
import traceback
from collections.abc import Iterable, Mapping
from math import ceil
from time import monotonic
from typing import Any

import orjson

from astromesh.dialogue import Message, ToolCall, ToolSchema
from astromesh.errors import AstromeshError
from astromesh.specs.schemas import Schema
from astromesh.tools.port import BadArguments, Tool, ToolFailed
from astromesh.tools.results import fitted
from astromesh.tools.terms import RESULT_TOKENS_MAX, Terms

log = logging.getLogger(__name__)

CALLS_AT_ONCE_MAX = 16  # a model that wants more in one turn is confused; the rest is refused with a text that says so
ARGUMENTS_CHARACTERS_MAX = 200_000  # longer than any answer of a model; parsing more would hold the interpreter for over 20 ms
LAST_WORD_S = 1.0  # what a tool that is given up gets to put its things away
FRAMES_SHOWN_MAX = 5  # of a failure that nobody declared: the last are the tool's own
GIVEN_UP_MAX = 16  # calls that go on although they were given up: an agent whose tools do that gets no more of them

_USUAL = Terms()


class Toolbox:
    def __init__(self, tools: Iterable[Tool], *, terms: Mapping[str, Terms] | None = None) -> None:
        """`terms`: by a tool's name; the usual ones where there are none."""
        self._tools = {tool.schema.name: tool for tool in tools}
        self._terms = terms or {}
        self._compiled: dict[str, Schema] = {}
        self._given_up: set[asyncio.Task[str]] = set()

    @property
    def tools(self) -> tuple[Tool, ...]:
        """All of them, also those that are refused."""
        return tuple(self._tools.values())

    @property
    def schemas(self) -> tuple[ToolSchema, ...]:
        """Of those that the model is offered."""
        return tuple(tool.schema for name, tool in self._tools.items() if not self.terms(name).refused)

    def terms(self, name: str) -> Terms:
        return self._terms.get(name, _USUAL)

    def holding(self, tools: Iterable[Tool]) -> Toolbox:
        """The same box, on the same terms, with these in the place of their namesakes."""
        other = Toolbox((), terms=self._terms)
        other._tools = self._tools | {tool.schema.name: tool for tool in tools}
        other._compiled, other._given_up = self._compiled, self._given_up
        return other

    async def call(self, calls: tuple[ToolCall, ...]) -> tuple[Message, ...]:
        """One message of role "tool" for each call, in the order of the calls."""
        answers = await asyncio.gather(*(self._one(call) for call in calls[:CALLS_AT_ONCE_MAX]))
        return (
            *answers,
            *(_failed(call, f"not called, at most {CALLS_AT_ONCE_MAX} tools can be called at once") for call in calls[CALLS_AT_ONCE_MAX:]),
        )

    async def execute(self, name: str, arguments: Any) -> str:
        """One call, on the agent's terms. Raises `ToolFailed`, of it `BadArguments`."""
        terms = self.terms(name)
        tool = self._offered(name, terms)
        self._check(tool, arguments)
        if terms.rate is not None and (wait_s := terms.rate.take(monotonic())):
            often = f"at most {terms.rate.calls_max} calls of {name} in {terms.rate.window_s:g} s"
            raise ToolFailed(f"not called, {often}; again in {ceil(wait_s)} s")
        if terms.dry_run:
            return f"dry run: {name} was not called, and nothing happened. The arguments were fine."
        return fitted(await self._bounded(tool, arguments, terms.timeout_s), terms.result_tokens_max)

    async def _one(self, call: ToolCall) -> Message:
        if len(call.arguments) > ARGUMENTS_CHARACTERS_MAX:
            said = f"not called, the arguments have {len(call.arguments)} characters, and {ARGUMENTS_CHARACTERS_MAX} are possible"
            return _failed(call, said)
        try:
            arguments = orjson.loads(call.arguments or "{}")
        except ValueError as mistake:
            return _failed(call, f"the arguments are not JSON: {mistake}")
        try:
            return Message("tool", await self.execute(call.name, arguments), tool_call_id=call.id)
        except ToolFailed as failure:
            return _failed(call, str(failure), tokens_max=self.terms(call.name).result_tokens_max)

    def _offered(self, name: str, terms: Terms) -> Tool:
        tool = self._tools.get(name)
        if tool is None:
            offered = ", ".join(sorted(schema.name for schema in self.schemas)) or "none"
            raise ToolFailed(f"there is no tool {name!r}; there are: {offered}")
        if terms.refused:
            raise ToolFailed(f"not called, this agent is not permitted to use {name}; answer without it, or say so")
        if len(self._given_up) >= GIVEN_UP_MAX:
            raise ToolFailed("not called, earlier calls of tools do not end; answer without them")
        return tool

    def _check(self, tool: Tool, arguments: Any) -> None:
        if not isinstance(arguments, dict):
            raise BadArguments("the arguments must be one JSON object")
        name = tool.schema.name
        if name not in self._compiled:
            self._compiled[name] = Schema(tool.schema.parameters)
        if complaints := self._compiled[name].complaints(arguments):
            raise BadArguments(f"not called, the arguments do not fit: {'; '.join(complaints)}")

    async def _bounded(self, tool: Tool, arguments: Mapping[str, Any], timeout_s: float | None) -> str:
        """Its own task, since a tool may swallow its cancellation: then it is left behind."""
        name = tool.schema.name
        task = asyncio.create_task(_contained(tool, arguments), name=f"tool {name}")
        try:
            await asyncio.wait({task}, timeout=timeout_s)
        finally:
            if not task.done():
                task.cancel()
                self._given_up.add(task)
                task.add_done_callback(self._given_up.discard)
                await asyncio.wait({task}, timeout=LAST_WORD_S)
                if not task.done():
                    log.warning("tool %s goes on although it was given up: it does not let itself be cancelled", name)
        if task.done() and not task.cancelled():
            return task.result()
        if task.done() and not task.cancelling():
            raise ToolFailed(f"{name} failed")  # it cancelled itself
        raise ToolFailed(f"{name} did not answer within {timeout_s:g} s")


def _failed(call: ToolCall, said: str, *, tokens_max: int = RESULT_TOKENS_MAX) -> Message:
    return Message("tool", fitted(f"error: {said}", tokens_max), tool_call_id=call.id, failed=True)


async def _contained(tool: Tool, arguments: Mapping[str, Any]) -> str:
    """Raises `ToolFailed` and nothing else: what a tool does to itself, it does not do to the node."""
    name = tool.schema.name
    try:
        return await tool.call(arguments)
    except ToolFailed:
        raise
    except AstromeshError as failure:
        raise ToolFailed(f"{name}: {failure.message}") from failure
    except (Exception, SystemExit) as failure:  # noqa: BLE001  told without its text
        log.error("tool %s failed in a way that it does not declare: %s", name, _whereabouts(failure))
        raise ToolFailed(f"{name} failed") from None


def _whereabouts(failure: BaseException) -> str:
    """The kind of a failure and the way to it. Not its text: what a tool was given may be in it, and that may be what people said."""
    frames = traceback.extract_tb(failure.__traceback__)[-FRAMES_SHOWN_MAX:]
    way = " > ".join(f"{frame.filename}:{frame.lineno} {frame.name}" for frame in frames)
    return f"{type(failure).__name__} at {way}"
