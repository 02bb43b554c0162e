"""Answers a script's effects, one after the other, until it ends. One span an effect.

A failure of an effect is raised inside the script, which may recover. A cancellation is not: it goes straight through and closes the
script.
"""

from __future__ import annotations

from collections.abc import Mapping
from contextlib import aclosing
from dataclasses import dataclass, field, replace
from time import perf_counter, time
from typing import Any, TypeVar
from uuid import uuid4

from astromesh.dialogue import FinishReason, Message, ModelReply, ModelRequest, TextDelta, Transcript, Usage
from astromesh.effects import AskModel, CallTools, Effect, Note, Recall, Remember, Screen, Screened, Script
from astromesh.errors import AstromeshError, DeadlineExceeded
from astromesh.guardrails.release import Release
from astromesh.memory.port import Conversation, Turn
from astromesh.memory.window import in_prompt
from astromesh.runtime.agent import Agent
from astromesh.runtime.counting import TokenCounts
from astromesh.runtime.events import RunEvents
from astromesh.runtime.guarding import Guarding, fed
from astromesh.runtime.models import Models, Routed
from astromesh.runtime.session_costs import SessionCosts
from astromesh.runtime.targets import Spending
from astromesh.telemetry.traces import Span, Trace

T = TypeVar("T")

LAST_WORD_S = 1.0  # what a model call gets beyond its run's deadline, so that the run's own limit ends it and names itself


@dataclass(slots=True)
class Tally:
    """What a run has done and used so far."""

    steps: list[dict[str, Any]] = field(default_factory=list)
    calls: int = 0
    usage: Usage = field(default_factory=Usage)
    spending: Spending = field(default_factory=Spending)
    asked: str = ""  # the last model, by the name in its document
    model: str = ""  # and by its own
    node: str = ""  # who made the last model's tokens
    route: str = "local"
    attempts: int = 0  # the most that one of its completions took
    finish_reason: FinishReason = "stop"  # of the last one


class Stage:
    """Where one run is performed."""

    def __init__(
        self,
        agent: Agent,
        conversation: Conversation,
        *,
        models: Models,
        counts: TokenCounts,
        events: RunEvents,
        trace: Trace,
        began_at: float,
        deadline: float,
        costs: SessionCosts | None = None,
    ) -> None:
        """`began_at` and `deadline` on the clock of `perf_counter`, seconds."""
        self._agent = agent
        self._conversation = conversation
        self._models = models
        self._counts = counts
        self._events = events
        self._trace = trace
        self._began_at = began_at
        self._deadline = deadline
        self._turn_id = uuid4().hex  # not the request's id, which a client may say twice
        self._tokens = 0
        self._costs = costs or SessionCosts()
        self.tally = Tally()
        self.guarding = Guarding(agent.rails)

    async def perform(self, script: Script[T]) -> T:
        reply: Any = None
        failure: AstromeshError | None = None
        try:
            while True:
                try:
                    effect = script.throw(failure) if failure is not None else script.send(reply)
                except StopIteration as end:
                    outcome: T = end.value
                    return outcome
                try:
                    reply, failure = await self._answer(effect), None
                except AstromeshError as error:
                    reply, failure = None, error
        finally:
            script.close()

    async def _answer(self, effect: Effect[Any]) -> Any:
        """Notes are for the watcher and cost nothing; everything else is a span."""
        if type(effect) is Note:
            return await self._note(effect)
        started, name = perf_counter(), type(effect).__name__
        attributes: dict[str, Any] = {}
        try:
            match effect:
                case Screen():
                    name = "guardrails"
                    return await self._screen(effect, attributes)
                case AskModel():
                    name = "llm.complete"
                    return await self._ask(effect, attributes)
                case CallTools():
                    name = "tool.call"
                    return await self._call_tools(effect, attributes)
                case Recall():
                    name = "memory_build"
                    return await self._recall()
                case Remember():
                    name = "memory_persist"
                    return await self._remember(effect)
                case _:
                    raise TypeError(f"no stage performs {type(effect).__name__}")
        except AstromeshError as error:
            attributes["error"] = error.code
            raise
        finally:
            self._trace.add(Span(name, (started - self._began_at) * 1e3, (perf_counter() - started) * 1e3, attributes))

    async def _ask(self, effect: AskModel, attributes: dict[str, Any]) -> ModelReply:
        agent, tally = self._agent, self.tally
        remaining_s = self._deadline - perf_counter()
        if remaining_s <= 0:
            raise DeadlineExceeded(f"agent {agent.name} ran out of time", hint="raise spec.orchestration.timeout_seconds")
        turn_tokens, session_tokens = tally.usage.tokens_in + tally.usage.tokens_out, self._costs.spent(self._conversation)
        if (spent := self.guarding.spent(turn_tokens=turn_tokens, session_tokens=session_tokens, attributes=attributes)) is not None:
            return await self._instead(spent.message)
        left = self.guarding.tokens_left(turn_tokens=turn_tokens, session_tokens=session_tokens)
        choice = agent.choice(effect.role).at_most(left)
        target = choice.first
        request = ModelRequest(target.model, effect.transcript, effect.tools, stream=self._events.watched)
        reply: ModelReply | None = None
        release, shown, fed_characters = Release(agent.rails.output), [], 0
        async with aclosing(self._models.complete(request, timeout_s=remaining_s + LAST_WORD_S, choice=choice)) as stream:
            async for event in stream:
                match event:
                    case TextDelta(text):
                        fed_characters += len(text)
                        shown.append(await self._show(await fed(release, text)))
                    case Routed(node, kind, attempt, target):
                        tally.node, tally.route, tally.asked = node, kind, target.model
                        tally.attempts = max(tally.attempts, attempt)
                        attributes.update(node=node, route=kind, model=target.model)
                        await self._tell_route()
                    case ModelReply():
                        reply = event
        assert reply is not None, "a completion ends with its reply"
        tally.calls += 1
        tally.usage += reply.usage
        tally.model = reply.model or target.model
        cost = target.merits.cost(reply.usage.tokens_in + reply.usage.tokens_out)
        tally.spending.add(source=target.source, model=tally.model, role=choice.role, usage=reply.usage, cost=cost)
        tally.finish_reason = reply.finish_reason
        attributes.update(tokens_in=reply.usage.tokens_in, tokens_out=reply.usage.tokens_out)
        if not agent.rails.output:
            return reply
        # A server that was not asked to stream may say it all in its reply.
        rest = await fed(release, reply.text[fed_characters:]) + release.finish(remark=bool(reply.tool_calls))
        self.guarding.account(release, direction="output", attributes=attributes)
        if release.block is not None:
            return await self._instead(release.block.message)
        shown.append(await self._show(rest))
        return replace(reply, text="".join(shown), logprobs=())

    async def _screen(self, effect: Screen, attributes: dict[str, Any]) -> Screened:
        spent = self.guarding.spent(turn_tokens=0, session_tokens=self._costs.spent(self._conversation), attributes=attributes)
        screened = Screened(refusal=spent.message) if spent is not None else await self.guarding.screened(effect, attributes)
        if screened.refusal is not None:
            await self._instead(screened.refusal)
        return screened

    async def _instead(self, message: str) -> ModelReply:
        """What is said in the place of an answer that a rule blocks, told as one would be."""
        if not self.tally.node:
            self.tally.node, self.tally.asked = self._trace.node, self._agent.choice().first.model
            await self._tell_route()
        await self._show(message)
        self.tally.finish_reason = "content_filter"
        return ModelReply(message, finish_reason="content_filter")

    async def _show(self, text: str) -> str:
        if text:
            await self._events.tell("token", {"content": text, "index": self._tokens})
            self._tokens += 1
        return text

    async def _tell_route(self) -> None:
        tally = self.tally
        data = {"node": tally.node, "route": tally.route, "model": tally.asked, "attempts": tally.attempts, "home": self._trace.node}
        await self._events.tell("route", data)

    async def _call_tools(self, effect: CallTools, attributes: dict[str, Any]) -> tuple[Message, ...]:
        attributes["tools"] = [call.name for call in effect.calls]
        for call in effect.calls:
            arguments = await self.guarding.shown_json(call.arguments)
            await self._events.tell("tool_call", {"id": call.id, "name": call.name, "arguments": arguments})
        results = await self._agent.toolbox.call(effect.calls)
        for result in results:
            await self._events.tell("tool_result", {"id": result.tool_call_id, "ok": not result.content.startswith("error:")})
        return results

    async def _recall(self) -> Transcript:
        memory, window = self._agent.memory, self._agent.window
        if memory is None:
            return ()
        history = await memory.recall(self._conversation, now=time(), turns_max=window.turns_read_max)
        return in_prompt(history, window, await self._counts.costs(history.turns, agent=self._agent))

    async def _remember(self, effect: Remember) -> None:
        memory, after_s = self._agent.memory, self._agent.forgets_after_s
        if memory is not None:
            now = time()
            turn = Turn(self._turn_id, now, await self.guarding.kept(effect.turn))
            await memory.remember(self._conversation, turn, expires_at=None if after_s is None else now + after_s)

    async def _note(self, note: Note) -> None:
        data: Mapping[str, Any] = await self.guarding.noted(note.data)
        if note.kind == "step":
            self.tally.steps.append(dict(data))
        await self._events.tell(note.kind, data)
