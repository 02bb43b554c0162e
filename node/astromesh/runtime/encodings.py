"""Who turns texts into numbers: here or on a peer, one candidate after the other until one did.

Unlike a completion this may be asked twice without harm, so a candidate that was lost in the middle is no reason to give up.
"""

from __future__ import annotations

from dataclasses import replace
from time import perf_counter
from typing import Protocol, runtime_checkable

from astromesh.dialogue import EncodingRequest, Encodings, EncodingTask
from astromesh.errors import AstromeshError, CallersMistake, InvalidRequest, PeerLost
from astromesh.fleet.offers import Capability, OfferedModel
from astromesh.fleet.roster import Roster
from astromesh.routing.breaker import ending_of
from astromesh.runtime.models import Holder, LocalModel, Models, Routed
from astromesh.runtime.peers import PeerCalls
from astromesh.runtime.targets import pinned_name
from astromesh.telemetry.metrics import Metrics
from maia.view import MemberView

# What a model server may be asked for: which of its models can what, it says itself then.
SERVERS_CAN: tuple[Capability, ...] = ("complete", "embed")


@runtime_checkable
class Encodes(Protocol):
    """A model's provider that may do more than complete."""

    @property
    def capabilities(self) -> tuple[Capability, ...]:
        """Empty where that is not known yet."""
        ...

    async def encode(self, request: EncodingRequest, *, timeout_s: float) -> Encodings: ...


class Encoder:
    def __init__(self, *, models: Models, roster: Roster, peers: PeerCalls, metrics: Metrics) -> None:
        self._models = models
        self._roster = roster
        self._peers = peers
        self._metrics = metrics

    async def encode(self, request: EncodingRequest, *, timeout_s: float, forwarded: bool = False) -> tuple[Routed, Encodings]:
        """Who did it, and what came out. `forwarded`: it came over a link, so it is done here or refused, never passed on."""
        ends_at = perf_counter() + timeout_s
        failures: list[AstromeshError] = []
        name, pinned = self._models.named(request.model)
        request, told = replace(request, model=name), replace(request, model=pinned_name(name, pinned))
        encodes, members = self._who(request, pinned=pinned, forwarded=forwarded)
        candidates = [self._models.candidate(member) for member in members.values()]
        if encodes is not None:
            candidates.append(self._models.candidate(None))
        for number, candidate in enumerate(self._models.ranked(candidates), start=1):
            outcome = "cancelled"
            left_s = max(0.0, ends_at - perf_counter())
            try:
                with self._models.asking(candidate.node):
                    if candidate.here and encodes is not None:
                        made = await self._here(encodes, request, timeout_s=left_s)
                    else:
                        made = await self._peers.encode_on(members[candidate.node], told, timeout_s=left_s)
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
        if not candidates and (can := self._abilities(request.model, forwarded=forwarded)):
            raise InvalidRequest(
                f"model {request.model} can {' and '.join(can)} and not {request.task}",
                hint="GET /v1/models shows under capabilities who can",
                param="model",
            )
        raise self._models.verdict(request.model, failures, forwarded=forwarded)

    async def _here(self, encodes: Encodes, request: EncodingRequest, *, timeout_s: float) -> Encodings:
        """By this node's own model, or by a server behind it, whose breaker learns how that went."""
        here = self._models.local[request.model]
        call = here.endpoint.enter() if here.endpoint is not None else None
        try:
            made = await encodes.encode(request, timeout_s=timeout_s)
            if call is not None:
                call.ended("success")
            return made
        except AstromeshError as failure:
            if call is None:
                here.doubt()
                raise
            call.ended(ending_of(failure))
            raise call.explained(failure) from failure.__cause__
        finally:
            if call is not None:
                call.ended("neither")

    def _who(self, request: EncodingRequest, *, pinned: str, forwarded: bool) -> tuple[Encodes | None, dict[str, MemberView]]:
        """This node's own and the members to ask. Who would have to load the model first is asked only where nobody has it loaded.

        Raises `ModelFailed` where they have another file than the pinned one.
        """
        here = self._models.local.get(request.model)
        provider = _provider(here, request.task)
        mine = provider if here is not None and here.ready() else None
        peers = () if forwarded else self._able(self._roster.serving(request.model), request)
        if mine is None and not peers:
            mine = provider if here is not None and here.wakes() else None
            peers = () if forwarded else self._able(self._roster.waking(request.model), request)
        holders: list[Holder] = [*peers, *([None] if mine is not None else [])]
        if pinned:
            (holders,) = self._models.with_file(holders, model=request.model, pinned=pinned)
        return mine if None in holders else None, {member.name: member for member in holders if member is not None}

    def _able(self, members: tuple[MemberView, ...], request: EncodingRequest) -> tuple[MemberView, ...]:
        offers = ((member, self._roster.offered(member, request.model)) for member in members)
        return tuple(member for member, offered in offers if offered is not None and _can(offered, request.task))

    def _abilities(self, model: str, *, forwarded: bool) -> tuple[str, ...]:
        """What those can who might have been asked for something else; none where nobody has it now."""
        here = self._models.local.get(model)
        found: set[str] = set()
        if here is not None and (here.ready() or here.wakes()):
            found.update(here.provider.capabilities if isinstance(here.provider, Encodes) else ("complete",))
        for member in () if forwarded else (*self._roster.serving(model), *self._roster.waking(model)):
            if (offered := self._roster.offered(member, model)) is not None:
                found.update(SERVERS_CAN if offered.state == "remote" else offered.capabilities)
        return tuple(sorted(found))


def _provider(here: LocalModel | None, task: EncodingTask) -> Encodes | None:
    if here is None or not isinstance(here.provider, Encodes):
        return None
    can = here.provider.capabilities
    return here.provider if task in can or not can else None


def _can(offered: OfferedModel, task: EncodingTask) -> bool:
    """Whether it may be asked. A model whose file is still looked for does not know what it can, and of a server's models no node knows."""
    if offered.state == "remote":
        return task in SERVERS_CAN
    return task in offered.capabilities or (not offered.identity and offered.state != "loaded")
