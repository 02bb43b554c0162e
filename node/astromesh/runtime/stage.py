"""Where one agent's part of a run is performed: answers a script's effects, one after the other, until it ends. One span an effect.

A failure of an effect is raised inside the script, which may recover. A cancellation is not: it goes straight through and closes the
script.
"""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from contextlib import aclosing
from dataclasses import dataclass, field, replace
from time import time
from typing import Any, Protocol, TypeVar
from uuid import uuid4

from astromesh.dialogue import Answer, Message, ModelReply, ModelRequest, Outcome, TextDelta, Transcript
from astromesh.effects import (
    Act,
    AskModel,
    CallTools,
    Delegate,
    Effect,
    Note,
    Recall,
    Remember,
    Say,
    Screen,
    Screened,
    Script,
    TakeOver,
    Together,
    Work,
)
from astromesh.errors import AstromeshError, DeadlineExceeded
from astromesh.guardrails.rails import Rails
from astromesh.guardrails.release import Release
from astromesh.memory.port import Conversation, Turn
from astromesh.memory.window import in_prompt
from astromesh.orchestration.run import work
from astromesh.runtime.agent import Agent
from astromesh.runtime.agent_tools import AgentTool, in_run
from astromesh.runtime.allowance import Allowance
from astromesh.runtime.counting import TokenCounts
from astromesh.runtime.course import Course, Used
from astromesh.runtime.guarding import Guarding, fed
from astromesh.runtime.models import Models, Routed
from astromesh.runtime.session_costs import SessionCosts
from astromesh.runtime.targets import Choice
from astromesh.telemetry.traces import Span

T = TypeVar("T")

LAST_WORD_S = 1.0  # what a model call gets beyond its run's deadline, so that the run's own limit ends it and names itself
TOGETHER_AT_ONCE_MAX = 8  # acts of one `Together`: more would only wait for each other at the models of a LAN

SPANS: Mapping[type[Effect[Any]], str] = {
    Screen: "guardrails",
    Say: "guardrails",
    AskModel: "llm.complete",
    CallTools: "tool.call",
    Recall: "memory_build",
    Remember: "memory_persist",
    Work: "work",
    Together: "together",
    Delegate: "delegate",
    TakeOver: "handoff",
}


@dataclass(frozen=True, slots=True)
class Services:
    """What the stages of a node have in common."""

    models: Models
    counts: TokenCounts
    costs: SessionCosts = field(default_factory=SessionCosts)


@dataclass(frozen=True, slots=True)
class Place:
    """Where in its run something is performed. `path`: who waits for whom, the one who acts last; `within`: whose limits bind it."""

    course: Course
    path: tuple[str, ...]
    span: Span | None = None
    within: Allowance | None = None
    callers: tuple[Rails, ...] = ()  # those for whom something is done there, nearest first: their output rules bind what is told of it


class Company(Protocol):
    """Who performs the acts of other agents."""

    async def delegate(self, effect: Delegate, place: Place, guarding: Guarding) -> Answer:
        """Of what guards of the other agent find, warnings go into `guarding`, too."""
        ...

    async def take_over(self, effect: TakeOver, place: Place, guarding: Guarding) -> Outcome:
        """What guards of the other agent find goes into `guarding`, too: it speaks for this one."""
        ...


class Stage:
    def __init__(
        self, agent: Agent, place: Place, *, services: Services, company: Company, speaks: bool = True, who: Mapping[str, str] | None = None
    ) -> None:
        """`speaks`: what the agent says is shown to the reader of the run. `who`: said with every event, where it is not the run's own."""
        self.guarding = Guarding(agent.rails, place.callers)
        # Who speaks to the reader of a run speaks for those who handed over, too. What a caller's model gets is like a tool's result.
        self._rules = self.guarding.output if speaks else agent.rails.output
        self._agent = agent
        self._place = place
        self._course = place.course
        self._services = services
        self._company = company
        self._speaks = speaks
        self._who = who or {}
        self._conversation = Conversation(agent.name, place.course.session_id, agent.namespace)
        self._allowance = Allowance(self.guarding, session_tokens=lambda: services.costs.spent(self._conversation), within=place.within)

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
                    reply, failure = await self._answer(effect, under=self._place.span), None
                except AstromeshError as error:
                    reply, failure = None, error
        finally:
            script.close()

    def account(self) -> None:
        """After the last act: what it used counts for the session."""
        if self._agent.rails.limits_sessions:
            self._services.costs.add(self._conversation, self._allowance.tokens)

    async def _answer(self, effect: Effect[Any], *, under: Span | None) -> Any:
        """Notes are for the watcher and cost nothing; everything else is a span."""
        match effect:
            case Note():
                return await self._note(effect)
            case Say() if not self._rules:
                return await self._show(effect.text) if self._speaks else effect.text
        with self._course.span(SPANS.get(type(effect), type(effect).__name__), under=under) as span:
            match effect:
                case Screen():
                    return await self._screen(effect, span.attributes)
                case AskModel():
                    return await self._ask(effect, span.attributes)
                case Say():
                    return await self._say(effect, span.attributes)
                case CallTools():
                    return await self._call_tools(effect, span)
                case Recall():
                    return await self._recall()
                case Remember():
                    return await self._remember(effect)
                case Work():
                    return await self._work(effect, span)
                case Together():
                    return await self._together(effect, span)
                case Delegate() if self._agent.part.dry_run:
                    said = f"dry run: agent {effect.agent} was not asked, and nothing happened."
                    return Answer(said, by=self._agent.name)
                case Delegate():
                    return await self._company.delegate(effect, self._for_others(span), self.guarding)
                case TakeOver():
                    return await self._company.take_over(effect, self._for_others(span), self.guarding)
                case _:
                    raise TypeError(f"no stage performs {type(effect).__name__}")

    async def _ask(self, effect: AskModel, attributes: dict[str, Any]) -> ModelReply:
        agent, course = self._agent, self._course
        shown, rules = self._speaks and not effect.aside, () if effect.aside else self._rules
        if self._who:
            attributes.update(self._who)
        if course.remaining_s <= 0:
            raise DeadlineExceeded(f"agent {agent.name} ran out of time", hint="raise spec.orchestration.timeout_seconds")
        if (spent := self._allowance.spent(attributes)) is not None:
            return await self._instead(spent.message, shown=shown)
        choice = _of_length(agent.choice(effect.role), effect).at_most(self._allowance.left())
        target = choice.first
        watched = course.events.watched and shown
        request = ModelRequest(target.model, effect.transcript, effect.tools, response_format=_format(effect), stream=watched)
        reply: ModelReply | None = None
        release, told, fed_characters = Release(rules), [], 0
        if self._services.models.loads_first(target):
            await course.events.tell("status", {"state": "loading", "model": target.model})
        completion = self._services.models.complete(request, timeout_s=course.remaining_s + LAST_WORD_S, choice=choice)
        async with aclosing(completion) as stream:
            async for event in stream:
                match event:
                    case TextDelta(text):
                        fed_characters += len(text)
                        told.append(await self._told(await fed(release, text), shown=shown))
                    case Routed(node, kind, attempt, target, pid):
                        attributes.update(node=node, pid=pid, route=kind, model=target.model)
                        await self._tell_route(node, kind, attempt, model=target.model, seen=shown)
                    case ModelReply():
                        reply = event
        assert reply is not None, "a completion ends with its reply"
        tokens = reply.usage.tokens_in + reply.usage.tokens_out
        self._allowance.use(tokens)
        await course.used(Used(target.source, reply.model or target.model, choice.role, reply.usage, target.merits.cost(tokens)))
        if shown:
            course.tally.finish_reason = reply.finish_reason
        attributes.update(tokens_in=reply.usage.tokens_in, tokens_out=reply.usage.tokens_out)
        if not rules:
            return reply
        # A server that was not asked to stream may say it all in its reply.
        rest = await fed(release, reply.text[fed_characters:]) + release.finish(remark=bool(reply.tool_calls))
        self.guarding.account(release, direction="output", attributes=attributes)
        if release.block is not None:
            return await self._instead(release.block.message, shown=shown)
        told.append(await self._told(rest, shown=shown))
        return replace(reply, text="".join(told), logprobs=())

    async def _say(self, effect: Say, attributes: dict[str, Any]) -> str:
        release = Release(self._rules)
        text = await fed(release, effect.text) + release.finish()
        self.guarding.account(release, direction="output", attributes=attributes)
        if release.block is not None:
            return (await self._instead(release.block.message, shown=self._speaks)).text
        return await self._show(text) if self._speaks else text

    async def _screen(self, effect: Screen, attributes: dict[str, Any]) -> Screened:
        spent = self._allowance.spent(attributes)
        screened = Screened(refusal=spent.message) if spent is not None else await self.guarding.screened(effect, attributes)
        if screened.refusal is not None:
            await self._instead(screened.refusal, shown=self._speaks)
        return screened

    async def _instead(self, message: str, *, shown: bool) -> ModelReply:
        """What is said in the place of an answer that a rule blocks, told as one would be."""
        if shown:
            await self._show(message)
        if self._speaks:
            self._course.tally.finish_reason = "content_filter"  # said aside, it ends the run, which then says it
        return ModelReply(message, finish_reason="content_filter")

    async def _show(self, text: str) -> str:
        """What no model said: this node did."""
        if not self._course.tally.node:
            model = self._agent.choice().first.model
            await self._tell_route(self._course.node, "local", 0, model=model, seen=True)
        return await self._course.show(text)

    async def _told(self, text: str, *, shown: bool) -> str:
        return await self._course.show(text) if shown else text

    async def _tell_route(self, node: str, route: str, attempts: int, *, model: str, seen: bool) -> None:
        course = self._course
        data = {"node": node, "route": route, "model": model, "attempts": attempts, "home": course.home, **self._who}
        course.tally.routed(data, seen=seen)
        await course.events.tell("route", {**data, "attempts": course.tally.attempts})

    async def _call_tools(self, effect: CallTools, span: Span) -> tuple[Message, ...]:
        span.attributes.update(tools=[call.name for call in effect.calls], **self._who)
        for call in effect.calls:
            arguments = await self.guarding.shown_json(call.arguments)
            await self._course.events.tell("tool_call", {"id": call.id, "name": call.name, "arguments": arguments, **self._who})
        agents = {tool.schema.name for tool in self._agent.toolbox.tools if isinstance(tool, AgentTool)}
        with self._allowance.shared(sum(call.name in agents for call in effect.calls)) as one_less:

            async def ask(task: Delegate) -> Answer:
                try:
                    answer: Answer = await self._answer(task, under=span)
                finally:
                    one_less()
                return answer

            results = await in_run(self._agent.toolbox, ask).call(effect.calls)
        for result in results:
            await self._course.events.tell("tool_result", {"id": result.tool_call_id, "ok": not result.failed, **self._who})
        return results

    async def _recall(self) -> Transcript:
        memory, window = self._agent.memory, self._agent.window
        if memory is None:
            return ()
        history = await memory.recall(self._conversation, now=time(), turns_max=window.turns_read_max)
        return in_prompt(history, window, await self._services.counts.costs(history.turns, agent=self._agent))

    async def _remember(self, effect: Remember) -> None:
        memory, after_s = self._agent.memory, self._agent.forgets_after_s
        if memory is not None:
            now = time()
            # A fresh id: that of the request may be said twice.
            turn = Turn(uuid4().hex, now, await self.guarding.kept(effect.turn))
            self._course.keep()
            await memory.remember(self._conversation, turn, expires_at=None if after_s is None else now + after_s)

    async def _work(self, effect: Work, span: Span) -> Answer:
        agent = self._agent
        who = {"agent": agent.key, **({"label": effect.label} if effect.label else {})}
        span.attributes.update(who, role=effect.role)
        stage = Stage(agent, self._at(span), services=self._services, company=self._company, speaks=False, who=who)
        return await stage.perform(work(agent.part, effect))

    async def _together(self, effect: Together, span: Span) -> tuple[ModelReply | Answer | AstromeshError, ...]:
        """None of them is shown: two texts at once would be none."""
        span.attributes["acts"] = len(effect.acts)
        room = asyncio.Semaphore(TOGETHER_AT_ONCE_MAX)

        async def one(act: Act) -> ModelReply | Answer | AstromeshError:
            async with room:
                try:
                    reply: ModelReply | Answer = await self._answer(
                        replace(act, aside=True) if isinstance(act, AskModel) else act, under=span
                    )
                except AstromeshError as failure:
                    return failure
                finally:
                    one_less()
                return reply

        with self._allowance.shared(len(effect.acts)) as one_less:
            async with asyncio.TaskGroup() as group:
                acts = [group.create_task(one(act)) for act in effect.acts]
        return tuple(act.result() for act in acts)

    async def _note(self, note: Note) -> None:
        data = {**await self.guarding.noted(note.data), **self._who}
        if note.kind == "step":
            self._course.tally.steps.append(data)
        await self._course.events.tell(note.kind, data)

    def _at(self, span: Span) -> Place:
        return replace(self._place, span=span, within=self._allowance)

    def _for_others(self, span: Span) -> Place:
        return replace(self._at(span), callers=(self._agent.rails, *self._place.callers))


def _of_length(choice: Choice, effect: AskModel) -> Choice:
    """What ends answers, a word or a length, would end a decision in the middle of its JSON."""
    if effect.max_tokens is None:
        return choice
    return choice.aside(effect.max_tokens) if effect.shape is not None else choice.of_length(effect.max_tokens)


def _format(effect: AskModel) -> Mapping[str, Any] | None:
    """A schema as models are asked for it, in OpenAI's words. Not strictly: servers refuse strict schemas for a keyword that they lack."""
    if effect.shape is None:
        return None
    return {"type": "json_schema", "json_schema": {"name": "reply", "schema": dict(effect.shape)}}
