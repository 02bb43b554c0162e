"""Who turns texts into vectors: here or on a peer, one candidate after the other until one did.

Unlike a completion this may be asked twice without harm, so a candidate that was lost in the middle is no reason to give up.
"""

from __future__ import annotations

from time import perf_counter
from typing import Protocol, runtime_checkable

from astromesh.dialogue import EmbeddingRequest, Embeddings
from astromesh.errors import AstromeshError, CallersMistake, InvalidRequest, PeerLost
from astromesh.fleet.roster import Roster
from astromesh.runtime.models import Models, Routed
from astromesh.runtime.peers import PeerCalls
from astromesh.telemetry.metrics import Metrics
from maia.view import MemberView


@runtime_checkable
class Embeds(Protocol):
    """A model's provider that may make vectors, too."""

    async def embed(self, request: EmbeddingRequest, *, timeout_s: float) -> Embeddings: ...


class Embedder:
    def __init__(self, *, models: Models, roster: Roster, peers: PeerCalls, metrics: Metrics) -> None:
        self._models = models
        self._roster = roster
        self._peers = peers
        self._metrics = metrics

    async def embed(self, request: EmbeddingRequest, *, timeout_s: float, forwarded: bool = False) -> tuple[Routed, Embeddings]:
        """Who did it, and what came out. `forwarded`: it came over a link, so it is done here or refused, never passed on."""
        ends_at = perf_counter() + timeout_s
        failures: list[AstromeshError] = []
        embeds, members = self._who(request.model, forwarded=forwarded)
        candidates = [self._models.candidate(member) for member in members.values()]
        if embeds is not None:
            candidates.append(self._models.candidate(None))
        for number, candidate in enumerate(self._models.ranked(candidates), start=1):
            outcome = "cancelled"
            left_s = max(0.0, ends_at - perf_counter())
            try:
                with self._models.asking(candidate.node):
                    if candidate.here and embeds is not None:
                        made = await embeds.embed(request, timeout_s=left_s)
                    else:
                        made = await self._peers.embed_on(members[candidate.node], request, timeout_s=left_s)
                outcome = "ok"
                self._metrics.tokens.labels(request.model, "in").inc(made.usage.tokens_in)
                return Routed(self._models.label(candidate), "local" if candidate.here else "peer", number), made
            except AstromeshError as failure:
                outcome = failure.code
                if isinstance(failure, CallersMistake) or not (failure.definite or isinstance(failure, PeerLost)):
                    raise
                failures.append(failure)
            finally:
                self._metrics.model_requests.labels(request.model, "local" if candidate.here else "peer", outcome).inc()
        if not candidates and self._writes_only(request.model, forwarded=forwarded):
            raise InvalidRequest(
                f"model {request.model} writes texts and makes no embeddings",
                hint="GET /v1/models shows under capabilities who does",
                param="model",
            )
        raise self._models.verdict(request.model, failures, forwarded=forwarded)

    def _who(self, model: str, *, forwarded: bool) -> tuple[Embeds | None, dict[str, MemberView]]:
        """This node's own and the members to ask. Who would have to load the model first is asked only where nobody has it loaded."""
        here = self._models.local.get(model)
        provider = here.provider if here is not None and isinstance(here.provider, Embeds) else None
        mine = provider if here is not None and here.ready() else None
        peers = () if forwarded else self._able(self._roster.serving(model), model)
        if mine is None and not peers:
            mine = provider if here is not None and here.wakes() else None
            peers = () if forwarded else self._able(self._roster.waking(model), model)
        return mine, {member.name: member for member in peers}

    def _able(self, members: tuple[MemberView, ...], model: str) -> tuple[MemberView, ...]:
        return tuple(member for member in members if (offered := self._roster.offered(member, model)) and "embed" in offered.capabilities)

    def _writes_only(self, model: str, *, forwarded: bool) -> bool:
        """Somebody who might have been asked has it, and nobody can."""
        here = self._models.local.get(model)
        elsewhere = not forwarded and bool(self._roster.serving(model) or self._roster.waking(model))
        return elsewhere or (here is not None and not isinstance(here.provider, Embeds))
