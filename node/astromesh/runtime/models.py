"""Who completes a transcript: here, at a configured server, or on a peer; one candidate after the other until one begins.

A definite failure before the first piece means that the next candidate is asked. Once a piece was passed on, a failure ends the stream: the
text so far cannot be taken back.
"""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import AsyncGenerator, Callable, Iterator, Sequence
from contextlib import aclosing, contextmanager, suppress
from dataclasses import dataclass
from random import Random
from time import perf_counter
from typing import Literal

from astromesh.dialogue import ModelEvent, ModelReply, ModelRequest
from astromesh.errors import AstromeshError, CallersMistake, ModelFailed, ModelUnavailable
from astromesh.fleet.devices import Devices
from astromesh.fleet.roster import Roster
from astromesh.inference import registry
from astromesh.inference.engines import HOW_TO_GET_ONE
from astromesh.providers.port import ModelProvider
from astromesh.routing.eligible import Means, Requirements, lack
from astromesh.routing.rank import Candidate, Shuffler, rank
from astromesh.runtime import engines
from astromesh.runtime.peers import PeerCalls
from astromesh.telemetry.metrics import Metrics
from maia.view import MemberView

RETRY_AFTER_S = 5  # a node that comes back is usable again about this long after its process starts

DRAIN_LOOK_S = 0.02

RouteKind = Literal["local", "peer"]
OpenStream = Callable[..., AsyncGenerator[ModelEvent, None]]
ANY = Requirements()


@dataclass(frozen=True, slots=True)
class Routed:
    """The first thing that a completion streams: who does it. `node` is what people call the node, `attempt` counts from 1."""

    node: str
    kind: RouteKind
    attempt: int


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


class Models:
    def __init__(
        self, *, node: str, models_dir: str, roster: Roster, peers: PeerCalls, metrics: Metrics, random: Shuffler | None = None
    ) -> None:
        """`node` is this node's own label, `models_dir` where its models are installed (for hints)."""
        self._node = node
        self._models_dir = models_dir
        self._roster = roster
        self._peers = peers
        self._metrics = metrics
        self._random = random or Random()  # noqa: S311  it spreads calls over nodes; whoever guesses it gains nothing
        self._in_flight: Counter[str] = Counter()
        self.local: dict[str, LocalModel] = {}
        self.devices: Callable[[], Devices | None] = lambda: None  # what this node computes with

    async def complete(
        self,
        request: ModelRequest,
        *,
        timeout_s: float,
        provider: ModelProvider | None = None,
        requires: Requirements = ANY,
        forwarded: bool = False,
    ) -> AsyncGenerator[Routed | ModelEvent, None]:
        """`Routed`, then what the model streams, then its `ModelReply`. Closing the generator cancels the work, wherever it is.

        `provider`: ask this one and no other (an agent's own endpoint). `requires`: ask only nodes that have it.
        `forwarded`: the request came over a link, so it is served here or refused, never passed on: no request ever takes a second hop.
        """
        if provider is not None:
            attempts = [(Candidate(self._node, here=True, suspected=False, in_flight=0), provider.complete)]
        else:
            attempts = self._attempts(request.model, requires=requires, forwarded=forwarded)
        ends_at = perf_counter() + timeout_s
        failures: list[AstromeshError] = []
        for number, (candidate, open_stream) in enumerate(attempts, start=1):
            kind: RouteKind = "local" if candidate.here else "peer"
            began = False
            asked_at = perf_counter()
            self._in_flight[candidate.node] += 1
            outcome = "cancelled"
            try:
                async with aclosing(open_stream(request, timeout_s=max(0.0, ends_at - asked_at))) as stream:
                    async for event in stream:
                        if not began:
                            began = True
                            self._metrics.first_token.labels(request.model).observe(perf_counter() - asked_at)
                            yield Routed(self.label(candidate), kind, number)
                        if type(event) is ModelReply:
                            outcome = "ok"
                            self._metrics.tokens.labels(request.model, "in").inc(event.usage.tokens_in)
                            self._metrics.tokens.labels(request.model, "out").inc(event.usage.tokens_out)
                        yield event
                if outcome == "ok":
                    return
                raise ModelFailed(
                    f"{self.label(candidate)} ended its answer for model {request.model} in the middle",
                    code="model_provider_unavailable",
                    hint="its log says more",
                    definite=not began,
                )
            except AstromeshError as failure:
                outcome = failure.code
                if began or not failure.definite or isinstance(failure, CallersMistake):
                    raise
                failures.append(failure)
                if candidate.here and request.model in self.local:
                    self.local[request.model].doubt()
            finally:
                self._in_flight[candidate.node] -= 1
                if not self._in_flight[candidate.node]:
                    del self._in_flight[candidate.node]
                self._metrics.model_requests.labels(request.model, kind, outcome).inc()
        raise self.verdict(request.model, failures, forwarded=forwarded)

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
        here = self.local.get(model)
        return (here is not None and here.ready()) or bool(self._roster.serving(model))

    def _attempts(self, model: str, *, requires: Requirements, forwarded: bool) -> list[tuple[Candidate, OpenStream]]:
        """Candidates in the order in which to try them, each with what opens its stream.

        Who would have to load the model first is asked only where nobody has it loaded. Raises `ModelFailed` where somebody has it, and
        nobody has what is required.
        """
        here = self.local.get(model)
        awake: list[MemberView | None] = [None] if here is not None and here.ready() else []
        asleep: list[MemberView | None] = [None] if here is not None and here.wakes() else []
        if not forwarded:
            awake += self._roster.serving(model)
            asleep += self._roster.waking(model)
        unfit: dict[str, str] = {}

        def fits(member: MemberView | None) -> bool:
            if missing := lack(requires, self._means(model, member)):
                unfit[self._node if member is None else self._roster.label(member.name)] = missing
            return not missing

        chosen = [member for member in awake if fits(member)] or [member for member in asleep if fits(member)]
        if unfit and not chosen:
            raise ModelFailed(
                f"no node that has model {model} has {requires}: {'; '.join(f'{node}: {missing}' for node, missing in unfit.items())}",
                code="model_no_eligible_provider",
                hint=f"ask for less in spec.model.primary.requires, or install {model} on a node that has it",
                definite=True,
            )
        opens: dict[str, OpenStream] = {}
        for member in chosen:
            if member is not None:
                opens[member.name] = self._peers.model_on(member)
            elif here is not None:
                opens[self._node] = here.provider.complete
        return [(candidate, opens[candidate.node]) for candidate in self.ranked([self.candidate(member) for member in chosen])]

    def _means(self, model: str, member: MemberView | None) -> Means:
        """What that member (None: this node) is known to have for the model. Of a server behind it nothing is known."""
        if member is None:
            here = self.local.get(model)
            return _means(self.devices(), here.tok_s()) if here is not None and here.tok_s is not None else Means()
        offered, index = self._roster.offered(member, model), self._roster.index()
        if offered is None or index is None or offered.state == "remote":
            return Means()
        return _means(index.offers[member.name].devices, offered.tok_s)

    def label(self, candidate: Candidate) -> str:
        return self._node if candidate.here else self._roster.label(candidate.node)

    def verdict(self, model: str, failures: list[AstromeshError], *, forwarded: bool) -> AstromeshError:
        """Why nobody did it, for the one who asked."""
        if len(failures) == 1:
            return failures[0]
        if failures:
            reasons = "; ".join(failure.message for failure in failures)
            gone = [failure for failure in failures if isinstance(failure, ModelUnavailable)]
            if len(gone) == len(failures):
                return ModelUnavailable(
                    f"model {model}: nobody who offers it can answer now: {reasons}",
                    hint=gone[0].hint,
                    retry_after_s=min(failure.retry_after_s for failure in gone),
                )
            return ModelFailed(
                f"model {model}: all {len(failures)} that offer it failed: {reasons}",
                code="model_all_providers_failed",
                hint="astromesh-node members shows who is there, /v1/models who offers what",
                definite=True,
            )
        if model in self.local:
            return ModelUnavailable(
                f"model {model} is not ready on {self._node}",
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
        pull = f"; or install it here and start this node again: astromesh-node models pull {model} --models {self._models_dir}"
        return pull + self._or_an_engine()

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
