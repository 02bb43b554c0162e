"""Who completes a transcript: here, at a configured server, or on a peer; one candidate after the other until one begins.

A failure before the first piece means that the next candidate is asked, also where the work may have been begun: a completion changes
nothing in the world, so the worst that a second one does is to cost its tokens twice. Once a piece was passed on, a failure ends the
stream: the text so far cannot be taken back. What the caller got wrong is tried nowhere else.
"""

from __future__ import annotations

import asyncio
import os
from collections import Counter
from collections.abc import AsyncGenerator, Callable, Iterator, Sequence
from contextlib import aclosing, contextmanager, suppress
from dataclasses import dataclass, field, replace
from random import Random
from time import perf_counter
from typing import Literal, Protocol

from astromesh.dialogue import ModelEvent, ModelReply, ModelRequest
from astromesh.errors import AstromeshError, CallersMistake, DeadlineExceeded, ModelFailed, ModelUnavailable, Overloaded
from astromesh.fleet.devices import Devices
from astromesh.fleet.roster import Roster
from astromesh.inference import registry
from astromesh.inference.engines import HOW_TO_GET_ONE
from astromesh.providers.port import ModelProvider
from astromesh.routing.breaker import ending_of
from astromesh.routing.eligible import Means, lack
from astromesh.routing.rank import Candidate, Shuffler, rank
from astromesh.routing.retry import Chance, retry_after_s
from astromesh.runtime import engines
from astromesh.runtime.endpoints import Call, Endpoint
from astromesh.runtime.peers import RETRY_AFTER_S, PeerCalls
from astromesh.runtime.preferences import Preferences
from astromesh.runtime.targets import Choice, Target, pinned_name, plain
from astromesh.telemetry.metrics import Metrics
from maia.view import MemberView

DRAIN_LOOK_S = 0.02

# Of the time that is left, what a model may take to its first word while another model could be asked and the document gives it no
# `timeout`: who falls silent must leave the next one time enough to answer. Another node with the same model would take as long.
SILENT_SHARE = 0.5

RouteKind = Literal["local", "peer"]
Others = Literal["models", "nodes"] | None  # who else could be asked: another model of the choice, or another node that has the same
Holder = MemberView | None  # of a model; None is this node
OpenStream = Callable[..., AsyncGenerator[ModelEvent, None]]


class Dice(Shuffler, Chance, Protocol):
    """What routing needs of `random.Random`."""


@dataclass(frozen=True, slots=True)
class Routed:
    """The first thing that a completion streams: who does it. `node` is what people call the node.

    `attempt` counts from 1 everybody who was asked for this completion. `target`: the model of the agent that it is. `pid`: the process of
    that node, where it is known.
    """

    node: str
    kind: RouteKind
    attempt: int
    target: Target = field(default=Target(""), compare=False)
    pid: int | None = field(default=None, compare=False)


@dataclass(frozen=True, slots=True)
class LocalModel:
    """A model that this node answers for. `ready`: asked now, it would begin. `wakes`: asked now, it would be loaded first.

    `doubt` is told when asking it failed.
    """

    provider: ModelProvider
    ready: Callable[[], bool]
    doubt: Callable[[], None] = lambda: None
    wakes: Callable[[], bool] = lambda: False
    tok_s: Callable[[], float | None] | None = None  # as it was measured; None: a server behind this node makes the tokens
    endpoint: Endpoint | None = None  # that server
    identity: Callable[[], str] = lambda: ""  # the digest of its file, where it is known
    problem: Callable[[], str] = lambda: ""  # why it is not ready, where something is wrong with it


@dataclass(frozen=True, slots=True)
class _Asked:
    """One who may be asked for one model."""

    candidate: Candidate
    open: OpenStream
    endpoint: Endpoint | None = None

    @property
    def kind(self) -> RouteKind:
        return "local" if self.candidate.here else "peer"


class Models:
    def __init__(self, *, node: str, roster: Roster, peers: PeerCalls, metrics: Metrics, random: Dice | None = None) -> None:
        """`node` is this node's own label."""
        self._node = node
        self._roster = roster
        self._peers = peers
        self._metrics = metrics
        self._random = random or Random()  # noqa: S311  it spreads calls over nodes; whoever guesses it gains nothing
        self._in_flight: Counter[str] = Counter()
        self._preferences = Preferences(self._tokenizer)
        self.local: dict[str, LocalModel] = {}
        self.url = ""  # of this node's API, for hints; empty: it has none
        self.devices: Callable[[], Devices | None] = lambda: None  # what this node computes with

    async def complete(
        self, request: ModelRequest, *, timeout_s: float, choice: Choice | None = None, forwarded: bool = False
    ) -> AsyncGenerator[Routed | ModelEvent, None]:
        """`Routed`, then what the model streams, then its `ModelReply`. Closing the generator cancels the work, wherever it is.

        `choice`: the models to choose from; what it says of model and sampling stands in the place of the request's own. Without it, the
        model that the request names, wherever the mesh has it. `forwarded`: the request came over a link, so it is served here or refused,
        never passed on: no request ever takes a second hop.
        """
        choice = self._by_name(choice or plain(request))
        ends_at = perf_counter() + timeout_s
        order, refusals = await self._preferences.order(choice, request)
        attempt = 0
        for place, target in enumerate(order, start=1):
            asked = replace(request, model=target.model, sampling=target.sampling)
            failures: list[AstromeshError] = []
            try:
                candidates = self._candidates(target, forwarded=forwarded)
            except ModelFailed as unfit:
                refusals.append(unfit)
                continue
            for number, one in enumerate(candidates, start=1):
                began = False
                others: Others = "models" if place < len(order) else "nodes" if number < len(candidates) else None
                try:
                    call = one.endpoint.enter() if one.endpoint is not None else None
                    attempt += 1
                    async with aclosing(self._tried(one, call, asked, target=target, ends_at=ends_at, others=others)) as stream:
                        async for event in stream:
                            if not began:
                                began = True
                                yield Routed(self.label(one.candidate), one.kind, attempt, target, self._pid(one.candidate))
                            yield event
                    return
                except AstromeshError as failure:
                    if began or isinstance(failure, CallersMistake) or perf_counter() >= ends_at:
                        raise
                    failures.append(failure)
                    if one.candidate.here and one.endpoint is None and target.provider is None:
                        self.local[target.model].doubt()
            refusals.append(self.verdict(target.model, failures, forwarded=forwarded))
        raise _overall(refusals)

    async def _tried(
        self, one: _Asked, call: Call | None, request: ModelRequest, *, target: Target, ends_at: float, others: Others
    ) -> AsyncGenerator[ModelEvent, None]:
        """What one candidate streams. A server that may be there in a moment is asked again; its breaker learns how it went in the end."""
        retries, began = 0, False
        try:
            with self.asking(one.candidate.node):
                while True:
                    try:
                        async with aclosing(self._once(one, request, target=target, ends_at=ends_at, others=others)) as stream:
                            async for event in stream:
                                if not began and call is not None:
                                    call.began()
                                began = True
                                if call is not None and type(event) is ModelReply:
                                    call.ended("success")  # here, since who has the reply may not read on
                                yield event
                        return
                    except AstromeshError as failure:
                        if call is None or one.endpoint is None:
                            raise
                        left_s = ends_at - perf_counter()
                        wait_s = retry_after_s(failure, retries=retries, left_s=left_s, others=others is not None, random=self._random)
                        # Nor is a trial repeated, nor a call while others have opened the breaker.
                        if began or wait_s is None or one.endpoint.state != "closed":
                            call.ended(ending_of(failure))
                            raise call.explained(failure) from failure.__cause__
                    retries += 1
                    one.endpoint.retries += 1
                    await asyncio.sleep(wait_s)
        finally:
            if call is not None:
                call.ended("neither")

    async def _once(
        self, one: _Asked, request: ModelRequest, *, target: Target, ends_at: float, others: Others
    ) -> AsyncGenerator[ModelEvent, None]:
        """One call, measured and counted."""
        asked_at = perf_counter()
        left_s = max(0.0, ends_at - asked_at)
        timeout_s = left_s if target.timeout_s is None else min(left_s, target.timeout_s)
        patience_s = left_s * SILENT_SHARE if others == "models" and target.timeout_s is None else None
        outcome, first_token_s, began = "cancelled", None, False
        try:
            told = request if one.candidate.here else replace(request, model=target.pinned_name)
            async with aclosing(one.open(told, timeout_s=timeout_s)) as stream:
                event = await _first(stream, patience_s, who=self.label(one.candidate), target=target)
                while event is not None:
                    if not began:
                        began, first_token_s = True, perf_counter() - asked_at
                        self._metrics.first_token.labels(request.model).observe(first_token_s)
                    if type(event) is ModelReply:
                        outcome = "ok"
                        self._metrics.tokens.labels(request.model, "in").inc(event.usage.tokens_in)
                        self._metrics.tokens.labels(request.model, "out").inc(event.usage.tokens_out)
                        first_s, total_s = first_token_s if request.stream else None, perf_counter() - asked_at
                        self._preferences.measured(target, one.endpoint, first_token_s=first_s, total_s=total_s)
                    yield event
                    event = await anext(stream, None)
            if outcome != "ok":
                raise ModelFailed(
                    f"{self.label(one.candidate)} ended its answer for model {request.model} in the middle",
                    code="model_provider_unavailable",
                    hint="its log says more",
                    definite=not began,
                )
        except DeadlineExceeded as late:
            outcome = late.code
            if target.timeout_s is None or perf_counter() >= ends_at:
                raise
            raise ModelFailed(late.message, code="model_timeout", hint=f"raise {target.place}.timeout, or pick a faster model") from late
        except AstromeshError as failure:
            outcome = failure.code
            raise
        finally:
            self._metrics.model_requests.labels(request.model, one.kind, outcome).inc()

    def _tokenizer(self, target: Target) -> object:
        """What may be able to count for that model: the model itself, where it is loaded on this node."""
        here = self.local.get(target.model) if target.provider is None else None
        return here.provider if here is not None and here.ready() else None

    async def drain(self, grace_s: float) -> None:
        """Waits until no completion is under way, asked for here or by a peer, for `grace_s` at most."""
        with suppress(TimeoutError):
            async with asyncio.timeout(grace_s):
                while self._in_flight:  # noqa: ASYNC110  once in a node's life; an event would cost every completion
                    await asyncio.sleep(DRAIN_LOOK_S)

    @property
    def completing(self) -> int:
        """Completions that are made here now."""
        return self._in_flight[self._node]

    @contextmanager
    def asking(self, node: str) -> Iterator[None]:
        """One more request is that node's until this ends: others are drawn to it less, and a drain waits."""
        self._in_flight[node] += 1
        try:
            yield
        finally:
            self._in_flight[node] -= 1
            if not self._in_flight[node]:
                del self._in_flight[node]

    def ranked(self, candidates: Sequence[Candidate]) -> Sequence[Candidate]:
        return rank(candidates, self._random)

    def candidate(self, member: MemberView | None) -> Candidate:
        """That member as one who may be asked; None is this node."""
        if member is None:
            return Candidate(self._node, here=True, suspected=False, in_flight=self._in_flight[self._node])
        suspected = member.status == "suspect" or self._peers.doubts(member)
        in_flight = self._in_flight[member.name]
        return Candidate(member.name, here=False, suspected=suspected, in_flight=in_flight, load=self._peers.busy(member))

    def ready(self, model: str) -> bool:
        """Could it be asked now, here or on a peer?"""
        name, pinned = self.named(model)
        here = self.local.get(name)
        able: list[Holder] = [None] if here is not None and here.ready() else []
        return any(self._identity(name, member).startswith(pinned) for member in (*able, *self._roster.serving(name)))

    def somewhere(self, model: str) -> bool:
        """Has this node or a living one that model, able to answer now or not?"""
        name, _ = self.named(model)
        there = (*self._roster.serving(name), *self._roster.waking(name), *self._roster.missed_for_model(name))
        return name in self.local or any(member.usable for member in there)

    def named(self, model: str) -> tuple[str, str]:
        """The name by which the mesh has a model that was asked for by an alias, and the beginning of the digest that it was pinned to.

        A name that somebody has as it stands is no alias: that of a server's model, say.
        """
        if model in self.local or self._roster.serving(model) or self._roster.waking(model) or self._roster.missed_for_model(model):
            return model, ""
        return registry.parsed(model)

    def with_file(self, *groups: Sequence[Holder], model: str, pinned: str) -> list[list[Holder]]:
        """Of each group those who have that very file; None is this node. Raises `ModelFailed` where only others are there."""
        found = [[member for member in group if self._identity(model, member).startswith(pinned)] for group in groups]
        others = [member for group in groups for member in group]
        if others and not any(found):
            files = {self.label(self.candidate(member)): self._identity(model, member) or "not known" for member in others}
            raise ModelFailed(
                f"no node has {pinned_name(model, pinned)}; its file is " + ", ".join(f"{file} on {node}" for node, file in files.items()),
                code="model_no_providers",
                hint="leave the digest out to ask for any file of that name",
                definite=True,
            )
        return found

    def _identity(self, model: str, member: Holder) -> str:
        """The digest of that member's file (None: this node's), empty where it is not known: of a model behind a server, say."""
        if member is None:
            return self.local[model].identity()
        offered = self._roster.offered(member, model)
        return offered.identity if offered is not None else ""

    def _by_name(self, choice: Choice) -> Choice:
        targets = []
        for target in choice.targets:
            name, pinned = (target.model, "") if target.provider is not None else self.named(target.model)
            targets.append(target if name == target.model and not pinned else replace(target, model=name, pinned=pinned))
        return choice if targets == list(choice.targets) else replace(choice, targets=tuple(targets))

    def loads_first(self, target: Target) -> bool:
        """Whether it would have to be loaded before it answers: nobody has it ready, and somebody has it on disk."""
        here = self.local.get(target.model)
        asleep = (here is not None and here.wakes()) or bool(self._roster.waking(target.model))
        return target.provider is None and asleep and not self.ready(target.model)

    def _candidates(self, target: Target, *, forwarded: bool) -> list[_Asked]:
        """Who has that model, in the order in which to try them: the target's own server, or nodes of the mesh, this one first.

        Who would have to load the model first is asked only where nobody has it loaded. Raises `ModelFailed` where somebody has it, and
        nobody has what is required.
        """
        if target.provider is not None:
            return [_Asked(self.candidate(None), target.provider.complete, target.endpoint)]
        model = target.model
        here = self.local.get(model)
        awake: list[Holder] = [None] if here is not None and here.ready() else []
        asleep: list[Holder] = [None] if here is not None and here.wakes() else []
        if not forwarded:
            awake += self._roster.serving(model)
            asleep += self._roster.waking(model)
        if target.pinned:
            awake, asleep = self.with_file(awake, asleep, model=model, pinned=target.pinned)
        unfit: dict[str, str] = {}

        def fits(member: MemberView | None) -> bool:
            if missing := lack(target.requires, self._means(model, member)):
                unfit[self._node if member is None else self._roster.label(member.name)] = missing
            return not missing

        chosen = [member for member in awake if fits(member)] or [member for member in asleep if fits(member)]
        if unfit and not chosen:
            raise ModelFailed(
                f"no node that has model {model} has {target.requires}: "
                + "; ".join(f"{node}: {missing}" for node, missing in unfit.items()),
                code="model_no_eligible_provider",
                hint=f"ask for less in {target.place}.requires, or install {model} on a node that has it",
                definite=True,
            )
        asked: dict[str, _Asked] = {}
        for member in chosen:
            candidate = self.candidate(member)
            if member is not None:
                asked[candidate.node] = _Asked(candidate, self._peers.model_on(member))
            elif here is not None:
                asked[candidate.node] = _Asked(candidate, here.provider.complete, here.endpoint)
        return [asked[candidate.node] for candidate in self.ranked([one.candidate for one in asked.values()])]

    def _means(self, model: str, member: MemberView | None) -> Means:
        """What that member (None: this node) is known to have for the model. Of a server behind it nothing is known."""
        if member is None:
            here = self.local.get(model)
            return _means(self.devices(), here.tok_s()) if here is not None and here.tok_s is not None else Means()
        offered, index = self._roster.offered(member, model), self._roster.index()
        if offered is None or index is None or offered.state == "remote":
            return Means()
        return _means(index.offers[member.name].devices, offered.tok_s)

    def _pid(self, candidate: Candidate) -> int | None:
        return os.getpid() if candidate.here else self._peers.pid(candidate.node)

    def label(self, candidate: Candidate) -> str:
        return self._node if candidate.here else self._roster.label(candidate.node)

    def verdict(self, model: str, failures: list[AstromeshError], *, forwarded: bool) -> AstromeshError:
        """Why nobody did it, for the one who asked."""
        if len(failures) == 1:
            return failures[0]
        if failures:
            reasons = "; ".join(failure.message for failure in failures)
            if passing := _passing(f"model {model}: nobody who offers it can answer now: {reasons}", failures, hint=failures[0].hint):
                return passing
            return ModelFailed(
                f"model {model}: all {len(failures)} that offer it failed: {reasons}",
                code="model_all_providers_failed",
                hint="astromesh-node members shows who is there, /v1/models who offers what",
                definite=all(failure.definite for failure in failures),
            )
        if (here := self.local.get(model)) is not None:
            problem = f": {here.problem()}" if here.problem() else ""
            return ModelUnavailable(
                f"model {model} is not ready on {self._node}{problem}",
                hint=f"astromesh-node models list shows its state{self._or_an_engine()}",
                retry_after_s=RETRY_AFTER_S,
            )
        if forwarded:
            return ModelUnavailable(
                f"model {model} is not on {self._node} any more", hint="ask again: the mesh has news by then", retry_after_s=1
            )
        if missed := self._roster.missed_for_model(model):
            return ModelUnavailable(
                f"model {model} {self._whereabouts(missed)}",
                hint=f"start that node again{self._or_install(model)}",
                retry_after_s=RETRY_AFTER_S,
            )
        return ModelFailed(
            f"no node of this mesh offers a model named {model!r}",
            code="model_no_providers",
            hint=f"astromesh-node models list shows what there is{self._or_install(model)}",
            definite=True,
        )

    def _or_install(self, model: str) -> str:
        """The rest of a hint, where the model is one that can be installed by its name."""
        if registry.find(model) is None:
            return ""
        there = f"--url {self.url} " if self.url else ""
        return f"; or install it on {self._node}: astromesh-node {there}models pull {model}" + self._or_an_engine()

    def _or_an_engine(self) -> str:
        return "" if engines.installed() else f"; this node has no inference engine: {HOW_TO_GET_ONE}"

    def _whereabouts(self, missed: tuple[MemberView, ...]) -> str:
        parts = [
            f"cannot be answered by {self._roster.label(member.name)} now"
            if member.usable
            else f"was offered by {self._roster.label(member.name)}, which is {member.status}"
            for member in missed
        ]
        return " and ".join(parts)


def _means(devices: Devices | None, tok_s: float | None) -> Means:
    gpus = devices.gpus if devices is not None else None
    return Means(None if gpus is None else tuple(gpu.total_bytes for gpu in gpus if gpu.usable is not False), tok_s)


async def _first(stream: AsyncGenerator[ModelEvent, None], patience_s: float | None, *, who: str, target: Target) -> ModelEvent | None:
    try:
        async with asyncio.timeout(patience_s):
            return await anext(stream, None)
    except TimeoutError:
        raise ModelFailed(
            f"model {target.model} of {target.source} on {who} said nothing for {patience_s:.1f} s",
            code="model_timeout",
            hint=f"{target.place}.timeout says how long it may take; without it, half of the run's time while another model can be asked",
        ) from None


def _passing(message: str, failures: list[AstromeshError], *, hint: str) -> AstromeshError | None:
    """Where all of them are full or away, which passes: what all of them say together. None where trying again later would not help."""
    waits = [failure.retry_after_s for failure in failures if isinstance(failure, Overloaded | ModelUnavailable)]
    if len(waits) < len(failures):
        return None
    kind = Overloaded if all(isinstance(failure, Overloaded) for failure in failures) else ModelUnavailable
    return kind(message, hint=hint, retry_after_s=min(waits))


def _overall(refusals: list[AstromeshError]) -> AstromeshError:
    """Why none of several models did it."""
    if len(refusals) == 1:
        return refusals[0]
    reasons = "; ".join(refusal.message for refusal in refusals)
    hint = "; ".join(dict.fromkeys(refusal.hint for refusal in refusals if refusal.hint))
    waits = [wait for refusal in refusals if (wait := getattr(refusal, "retry_after_s", None)) is not None]
    if passing := _passing(f"none of {len(refusals)} models can answer now: {reasons}", refusals, hint=hint):
        return passing
    nobody_fits = all(refusal.code == "model_no_eligible_provider" for refusal in refusals)
    return ModelFailed(
        f"all {len(refusals)} models failed: {reasons}",
        code="model_no_eligible_provider" if nobody_fits else "model_all_providers_failed",
        hint=hint,
        definite=all(refusal.definite for refusal in refusals),
        retry_after_s=min(waits, default=None),
    )
