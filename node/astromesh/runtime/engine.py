"""Conducts runs: who runs where, one after the other in a session, within their deadline, and gone when nobody waits for them any more."""

from __future__ import annotations

import asyncio
import logging
import os
from collections import Counter
from collections.abc import AsyncIterator, Callable, Coroutine, Iterator, Mapping
from contextlib import aclosing, contextmanager, nullcontext
from random import Random
from time import perf_counter, time
from typing import Any
from uuid import uuid4

from astromesh.dialogue import Answer
from astromesh.errors import (
    AgentNotDeployed,
    AgentPaused,
    AgentUnavailable,
    AgentUnusable,
    AstromeshError,
    DeadlineExceeded,
    Draining,
    Overloaded,
    PeerLost,
    RunCancelled,
    SessionHomeUnreachable,
    UnknownAgent,
)
from astromesh.fleet.roster import Roster
from astromesh.memory.port import Conversation
from astromesh.orchestration.run import whole_run
from astromesh.routing.rank import Candidate, Shuffler, rank
from astromesh.runtime.absences import absences
from astromesh.runtime.act_bodies import to_act_request
from astromesh.runtime.agent import Agent, Draft
from astromesh.runtime.bodies import from_run_request, to_run_id, to_run_request
from astromesh.runtime.conductor import Conductor
from astromesh.runtime.counting import TokenCounts
from astromesh.runtime.course import Course
from astromesh.runtime.events import RunEvent, RunEvents, RunRequest
from astromesh.runtime.folding import Folding
from astromesh.runtime.guarding import Guarding
from astromesh.runtime.histories import Histories
from astromesh.runtime.models import Models
from astromesh.runtime.peers import RETRY_AFTER_S, PeerCalls, Unreachable
from astromesh.runtime.recent_runs import RecentRuns
from astromesh.runtime.run_calls import RunsElsewhere
from astromesh.runtime.served_acts import ServedActs
from astromesh.runtime.session_homes import SessionHomes
from astromesh.runtime.stage import Place, Services, Stage
from astromesh.telemetry.metrics import Metrics
from astromesh.telemetry.traces import Ring, Trace
from maia.view import MemberView

log = logging.getLogger(__name__)

RUNS_MAX = 512  # conducted at once by one node; each costs a task, a queue and its transcript
SESSIONS_WAITING_MAX = 32  # runs that wait for their turn in one session: a person does not ask that fast
FORWARDED_TIMEOUT_S = 86_400.0  # the longest that a document may allow a run; its agent's own limit ends it there


class Run:
    """A run under way. Read `events` to its end, or `close` it: what nobody waits for is cancelled, on every node."""

    def __init__(self, run_id: str, told: RunEvents, task: asyncio.Task[None]) -> None:
        self.id = run_id
        self.told = told
        self.events: AsyncIterator[RunEvent] = aiter(told)
        self._task = task
        self._ending = False

    def cancel(self) -> None:
        """Begins to end it; whoever reads its events is told. Once: a second time would break off what the first one cleans up."""
        if not self._ending:
            self._ending = True
            self._task.cancel()

    async def close(self) -> None:
        self.cancel()
        await asyncio.wait([self._task])


class AgentRuntime:
    def __init__(
        self,
        *,
        node: str,
        models: Models,
        peers: PeerCalls,
        roster: Roster,
        metrics: Metrics,
        traces: Ring,
        random: Shuffler | None = None,
    ) -> None:
        self._node = node
        self._models = models
        self._peers = peers
        self._roster = roster
        self._metrics = metrics
        self.traces = traces
        self._counts = TokenCounts(models.local)
        self.folding = Folding(models=models, counts=self._counts)
        # By the key of their resources. A run holds the agent that it began with, whatever becomes of these.
        self.agents: dict[str, Agent] = {}
        self.paused: dict[str, Agent] = {}
        self.drafts: dict[str, Draft] = {}  # also of agents that answer as they were before
        self.broken: dict[str, str] = {}  # agents whose document has mistakes, and the first of these
        self._random = random or Random()  # noqa: S311  it spreads calls over nodes; whoever guesses it gains nothing
        self._in_flight: Counter[str] = Counter()  # runs that a peer conducts for us, by its wire name
        self._runs: set[asyncio.Task[None]] = set()
        self._sessions: dict[Conversation, _Turns] = {}
        self._homes = SessionHomes(roster)
        self._services = Services(models, self._counts)
        self.conductor = Conductor(
            here=self._here,
            hosts=self._hosts,
            nobody=self._nobody,
            asking=self._asking,
            label=roster.label,
            peers=peers,
            services=self._services,
        )
        self.histories = Histories(
            node=node,
            here=lambda key: self.agents.get(key) or self.paused.get(key),
            homes=self._homes,
            roster=roster,
            peers=peers,
            metrics=metrics,
        )
        self.served = ServedActs(node=node, services=self._services)
        self.recent = RecentRuns()
        self.elsewhere = RunsElsewhere(peers=peers, roster=roster)
        self._draining = False

    @property
    def active_runs(self) -> int:
        return len(self._runs)

    def start(self, request: RunRequest, *, request_id: str) -> Run:
        """Begins a run here, or on a peer that hosts the agent. Raises at once what is known at once."""
        agent = self._here(request.agent)
        if request.session_id is not None and request.history is None:
            keeps = None if agent is None else agent.keeps_sessions
            home = self._homes.elsewhere(request.agent, request.session_id, keeps=keeps)
            if home is not None:
                return self._begin(
                    request_id,
                    RunEvents(watched=request.watched),
                    lambda events: self._conduct_at_home(home, request, events, run_id=request_id),
                )
        if agent is not None:
            return self._launch(agent, request, run_id=request_id, timeout_s=agent.timeout_s)
        hosts = self._hosts(request.agent)
        if not hosts:
            raise self._nobody(request.agent)
        return self._begin(
            request_id,
            RunEvents(watched=request.watched),
            lambda events: self._conduct_elsewhere(hosts, request, events, run_id=request_id),
        )

    async def serve(self, body: Mapping[str, Any], remaining_s: float) -> Run:
        """A run that another node asks for: conducted here or refused, never passed on."""
        request = to_run_request(body)
        agent = self._here(request.agent)
        if agent is None:
            if request.session_id is not None:
                self._homes.kept_here(request.agent, request.session_id)
            raise self._not_any_more(request.agent)
        # It can be followed where it was asked for: that node knows who waits for it.
        run_id, timeout_s = to_run_id(body) or uuid4().hex, min(agent.timeout_s, remaining_s)
        return self._launch(agent, request, run_id=run_id, timeout_s=timeout_s, followed=False)

    async def act(self, body: Mapping[str, Any], remaining_s: float, caller: str) -> Run:
        """An act of an agent of this node, for a run that another node conducts. It starts no other agent here."""
        request = to_act_request(body)
        agent = self._here(request.act.agent)
        if agent is None:
            raise self._not_any_more(request.act.agent)
        return self._begin(
            request.run_id,
            RunEvents(watched=request.watched),
            lambda events: self.served.perform(agent, request, events, caller=caller, timeout_s=remaining_s),
            followed=False,
        )

    def take_reply(self, body: Mapping[str, Any], caller: str) -> None:
        """What an act that runs here for that node asked it for."""
        self.served.take_reply(body, caller)

    def must_exist(self, name: str) -> None:
        """Raises `UnknownAgent` for an agent that nobody of this mesh has, in whatever state it may be."""
        if name in self.agents or name in self.paused or self._roster.hosting(name):
            return
        nobody = self._nobody(name)
        if isinstance(nobody, UnknownAgent):
            raise nobody

    def absences(self, agent: Agent) -> tuple[str, ...]:
        """What this agent of this node names and nobody in the mesh has at the moment, a sentence each."""
        here = (self.agents, self.paused, self.drafts, self.broken)
        return absences(
            agent,
            has_agent=lambda key: any(key in known for known in here) or bool(self._roster.holding(key)),
            has_model=self._models.somewhere,
        )

    def can_serve(self, name: str) -> bool:
        """Could a run of this agent begin now, here or on a peer, as far as its model goes?"""
        agent = self.agents.get(name)
        if agent is not None:
            return any(target.provider is not None or self._models.ready(target.model) for target in agent.choice().targets)
        return name not in self.paused and bool(self._roster.hosting(name))

    async def drain(self, grace_s: float) -> None:
        """Takes nothing new, gives the runs under way `grace_s` to end, then cancels them."""
        self._draining = True
        await self.folding.close()
        if self._runs:
            await asyncio.wait(self._runs, timeout=grace_s)
        for task in list(self._runs):
            task.cancel()
        if self._runs:
            await asyncio.wait(self._runs)
        await self.folding.close()

    def _launch(self, agent: Agent, request: RunRequest, *, run_id: str, timeout_s: float, followed: bool = True) -> Run:
        return self._begin(
            run_id,
            RunEvents(watched=request.watched),
            lambda events: self._conduct(agent, request, events, run_id=run_id, timeout_s=timeout_s),
            followed=followed,
        )

    def _begin(
        self, run_id: str, events: RunEvents, conduct: Callable[[RunEvents], Coroutine[Any, Any, None]], *, followed: bool = True
    ) -> Run:
        """`followed`: its events can be read again under its id."""
        if self._draining:
            raise Draining(f"{self._node} is shutting down", hint="ask another node of the mesh")
        if len(self._runs) >= RUNS_MAX:
            raise Overloaded(f"{self._node} conducts {RUNS_MAX} runs already", hint="ask again soon, or ask another node")

        async def conducted() -> None:
            failure: AstromeshError | None = None
            try:
                await conduct(events)
            except AstromeshError as error:
                failure = error
            except asyncio.CancelledError:
                # Its reader may still be there: the node that shuts down cancels a run, too.
                failure = self._cancelled()
                raise
            except Exception:
                log.exception("run %s failed in a way that nobody foresaw", run_id)
                failure = AstromeshError("the node made a mistake of its own", hint=f"its log has the details under {run_id}")
            finally:
                events.end(failure)

        task = asyncio.create_task(conducted(), name=f"run {run_id}")
        self._runs.add(task)
        run = Run(run_id, events, task)
        # One that is cancelled before its first step never comes to say so itself.
        task.add_done_callback(lambda _: None if events.over else events.end(self._cancelled()))
        task.add_done_callback(self._runs.discard)
        if followed:
            self.recent.add(run)
            task.add_done_callback(lambda _: self.recent.ended(run))
        return run

    async def _conduct(self, agent: Agent, request: RunRequest, events: RunEvents, *, run_id: str, timeout_s: float) -> None:
        session_id = request.session_id or self._homes.fresh()
        conversation = Conversation(agent.name, session_id, agent.namespace)
        began_at = perf_counter()
        trace = Trace(run_id, agent.key, time(), self._node)
        self.traces.add(trace)
        course = Course(events, trace, home=self._node, session_id=session_id, began_at=began_at, deadline=began_at + timeout_s)
        root = trace.begin("agent.run", 0.0, attributes={"agent": request.agent, "pid": os.getpid()})
        stage = Stage(agent, Place(course, (request.agent,), root), services=self._services, company=self.conductor)
        outcome = "cancelled"
        ordered = agent.memory is not None and request.history is None
        try:
            in_turn = ordered or agent.rails.limits_sessions
            queued = in_turn and conversation in self._sessions
            if queued:
                await events.tell("status", {"state": "queued"})
            async with asyncio.timeout(timeout_s) as course.limit, self._turn(conversation) if in_turn else nullcontext():
                if queued:
                    await events.tell("status", {"state": "running"})
                answer = await stage.perform(whole_run(agent.part, request.query, context=request.context, history=request.history))
            outcome = "blocked" if stage.guarding.block is not None else "ok"
        except TimeoutError:
            outcome = DeadlineExceeded.code
            raise self._too_late(agent, course, timeout_s) from None
        except DeadlineExceeded as late:
            outcome = late.code
            if late.details is None or "agent" not in late.details:
                raise self._too_late(agent, course, timeout_s) from late
            # The limit of another agent's part; what was done until then is told whole.
            late.details = {**late.details, "steps": course.tally.steps}
            raise
        except AstromeshError as failure:
            outcome = failure.code
            raise
        finally:
            trace.status = outcome
            trace.duration_ms = root.duration_ms = (perf_counter() - began_at) * 1e3
            self.traces.ended(trace)
            self._metrics.runs.labels(agent.key, outcome).inc()
            stage.account()
        if ordered:
            self.folding.begin(agent, conversation)
        await events.tell("done", self._result(course, stage.guarding, answer))

    def _result(self, course: Course, guarding: Guarding, answer: Answer) -> dict[str, Any]:
        tally = course.tally
        return {
            "answer": answer.text,
            **({"blocked": True, "guardrail": guarding.block} if guarding.block is not None else {}),
            **({"warnings": guarding.warnings} if guarding.warnings else {}),
            "finish_reason": tally.finish_reason,
            "steps": tally.steps,
            "usage": {
                "tokens_in": tally.usage.tokens_in,
                "tokens_out": tally.usage.tokens_out,
                "model": tally.model,
                "by_model": tally.spending.by_model(),
            },
            "trace": course.trace.as_json(),
            "data": answer.data,
            "session_id": course.session_id,
            "node": tally.node or self._node,
            "home": self._node,
            "route": tally.route,
            "attempts": tally.attempts,
            "handoffs": tally.handoffs,
        }

    async def _conduct_at_home(self, home: MemberView, request: RunRequest, events: RunEvents, *, run_id: str) -> None:
        """By the node that keeps the session, and no other."""
        try:
            await self._conduct_elsewhere((home,), request, events, run_id=run_id, unreachable=SessionHomeUnreachable)
        except SessionHomeUnreachable as gone:
            raise self._homes.unreachable(home.name, gone.message) from gone

    async def _conduct_elsewhere(
        self,
        hosts: tuple[MemberView, ...],
        request: RunRequest,
        events: RunEvents,
        *,
        run_id: str,
        unreachable: type[Unreachable] = AgentUnavailable,
    ) -> None:
        """The first host that begins conducts the run; its events pass through as they are."""
        failure: AstromeshError | None = None
        for host in hosts:
            began, last = False, ""
            try:
                with self._asking(host):
                    body = from_run_request(request, run_id=run_id)
                    told = self._peers.run_on(host, body, timeout_s=FORWARDED_TIMEOUT_S, unreachable=unreachable)
                    async with aclosing(told) as stream:
                        async for event in stream:
                            began, last = True, event.kind
                            await events.tell(event.kind, event.data)
                if last != "done":
                    raise PeerLost(f"{self._roster.label(host.name)} ended the run without a word of what came of it", hint="ask again")
                return
            except AstromeshError as error:
                if began or not error.definite:
                    raise
                failure = error
        assert failure is not None, "there was at least one host"
        raise failure

    @contextmanager
    def _asking(self, host: MemberView) -> Iterator[None]:
        """It does something for us until this ends."""
        self._in_flight[host.name] += 1
        try:
            yield
        finally:
            self._in_flight[host.name] -= 1
            if not self._in_flight[host.name]:
                del self._in_flight[host.name]

    def _here(self, name: str) -> Agent | None:
        """An agent of this node. Raises where it is here and does not answer."""
        if name in self.paused:
            raise _paused(name, self._node)
        return self.agents.get(name)

    def _hosts(self, name: str) -> tuple[MemberView, ...]:
        members = {member.name: member for member in self._roster.hosting(name)}
        order = rank(
            (
                Candidate(
                    name,
                    here=False,
                    suspected=member.status == "suspect" or self._peers.doubts(member),
                    in_flight=self._in_flight[name],
                    load=self._peers.busy(member),
                )
                for name, member in members.items()
            ),
            self._random,
        )
        return tuple(members[candidate.node] for candidate in order)

    def _nobody(self, name: str) -> AstromeshError:
        if name in self.broken:
            return AgentUnusable(f"agent {name} cannot run: {self.broken[name]}", hint="astromesh-node config validate shows every mistake")
        if name in self.drafts:
            return _draft(name, self._node)
        if resting := self._roster.holding(name):
            member, offered = min(resting, key=lambda each: (each[1].status != "paused", each[0].name))
            return (_paused if offered.status == "paused" else _draft)(name, self._roster.label(member.name))
        if missed := self._roster.missed_for_agent(name):
            there = " and ".join(
                f"{self._roster.label(member.name)}, which is {'on its way out' if member.usable else member.status}" for member in missed
            )
            return AgentUnavailable(f"agent {name} was hosted by {there}", hint="start that node again", retry_after_s=RETRY_AFTER_S)
        return UnknownAgent(f"no node of this mesh has an agent named {name!r}", hint="astromesh-node agents list shows what there is")

    def _cancelled(self) -> RunCancelled:
        return RunCancelled(f"the run was cancelled on {self._node}", hint="ask again; another node of the mesh may answer")

    def _not_any_more(self, name: str) -> AgentUnavailable:
        return AgentUnavailable(
            f"agent {name} is not on {self._node} any more", hint="ask again: the mesh has news by then", retry_after_s=1
        )

    def _too_late(self, agent: Agent, course: Course, timeout_s: float) -> DeadlineExceeded:
        return DeadlineExceeded(
            f"agent {agent.name} did not finish within {timeout_s:g} s",
            hint="raise spec.orchestration.timeout_seconds, or give it a faster model",
            details={"error": "timeout", "agent": agent.name, "timeout_seconds": timeout_s, "steps": course.tally.steps},
        )

    def _turn(self, conversation: Conversation) -> _Turns:
        """A session's runs are sequential: each waits for the ones before it."""
        turns = self._sessions.get(conversation)
        if turns is None:
            turns = self._sessions[conversation] = _Turns(lambda: self._sessions.pop(conversation, None))
        return turns


def _paused(name: str, node: str) -> AgentPaused:
    return AgentPaused(f"agent {name} is paused on {node}", hint=f"astromesh-node agents deploy {name} lets it answer again")


def _draft(name: str, node: str) -> AgentNotDeployed:
    return AgentNotDeployed(f"agent {name} is only a draft on {node}", hint=f"astromesh-node agents deploy {name} lets it answer")


class _Turns:
    """The runs of one session, in the order in which they came. Forgets itself when nobody is left."""

    def __init__(self, forget: Callable[[], object]) -> None:
        self._lock = asyncio.Lock()
        self._here = 0
        self._forget = forget

    async def __aenter__(self) -> None:
        if self._here > SESSIONS_WAITING_MAX:
            raise Overloaded("too many runs wait for their turn in this session", hint="wait for an answer before the next question")
        self._here += 1
        try:
            await self._lock.acquire()
        except BaseException:
            self._leave()
            raise

    async def __aexit__(self, *_: object) -> None:
        self._lock.release()
        self._leave()

    def _leave(self) -> None:
        self._here -= 1
        if not self._here:
            self._forget()
