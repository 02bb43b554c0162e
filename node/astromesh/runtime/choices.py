"""Builds the models that an agent may ask, role by role, out of what its document and the node's providers say."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import TYPE_CHECKING

from astromesh.errors import AgentUnusable
from astromesh.routing.eligible import Requirements
from astromesh.routing.strategy import Merits, Skill
from astromesh.runtime.targets import FREE, LOCAL, Choice, Target
from astromesh.specs.provider import OfferedModel, Unresolved, server_of

if TYPE_CHECKING:
    from astromesh.runtime.assembly import Providers
    from astromesh.specs.agent import Agent as AgentResource
    from astromesh.specs.agent import ModelTarget, PlacedTarget
    from astromesh.specs.provider import Provider

_SKILLS: tuple[Skill, ...] = ("tools", "vision")


def choices_of(document: AgentResource, providers: Providers) -> Mapping[str, Choice]:
    """Raises `AgentUnusable` with the place of what cannot be."""
    routing, model = providers.routing, document.spec.model
    choices: dict[str, Choice] = {}
    for role in model.by_role:
        targets = tuple(target for placed in role.targets if (target := _target(document, placed, providers)) is not None)
        if not targets:
            placed = role.targets[0]
            found = server_of(placed.target, providers.configured)
            message, remedy = (found.message, found.remedy) if isinstance(found, Unresolved) else ("no model is left", "")
            raise AgentUnusable(f"{document.place(placed.path)}: {message}", hint=remedy)
        strategy = role.strategy or routing.default_strategy
        name = f"{document.namespace}/{document.name}/{role.role}"
        choices[role.role] = Choice(targets, strategy, name, role.role, falls_back=routing.fallback_enabled is not False)
    return choices


def in_vain(document: AgentResource, providers: Providers) -> Iterator[str]:
    """What a node cannot do with what the document says of its models."""
    checked = document.spec.model.routing is not None and document.spec.model.routing.health_check_interval is not None
    unwatched: dict[str, None] = {}
    for placed in (placed for role in document.spec.model.by_role for placed in role.targets):
        target = placed.target
        if target.is_local:
            continue
        if target.requires is not None:
            where = document.place(f"{placed.path}.requires")
            yield f"{where}: is checked for models of this mesh alone, and {target.served_by} is a model server"
        found = server_of(target, providers.configured)
        if isinstance(found, Unresolved):
            # Of a file this was said when the folder was read; a document that came over the API was not in it.
            if not any(warning.path.startswith(f"{placed.path}.provider") for warning in document.warnings):
                yield f"{document.place(placed.path)}: {found.message}, so this model is left out. {found.remedy}"
        elif checked and found.name not in providers.configured:
            unwatched[found.name] = None
    if unwatched:
        where = document.place("spec.model.routing.health_check_interval")
        yield f"{where}: is for servers of providers.yaml, and {', '.join(unwatched)} is none of them"


def _target(document: AgentResource, placed: PlacedTarget, providers: Providers) -> Target | None:
    """None for one that this version does not call."""
    said, where = placed.target, placed.path
    model = document.spec.model
    if said.is_local:
        return Target(
            said.model,
            LOCAL,
            sampling=said.parameters.sampling,
            timeout_s=said.timeout,
            requires=_requirements(said),
            context_window=said.context_window,
            merits=FREE,
            place=where,
        )
    server = server_of(said, providers.configured)
    if isinstance(server, Unresolved):
        if server.not_called:
            return None
        raise AgentUnusable(f"{document.place(where)}: {server.message}", hint=server.remedy)
    return Target(
        said.model,
        said.served_by,
        provider=providers.client(server),
        endpoint=providers.endpoint(server),
        sampling=said.parameters.sampling,
        timeout_s=said.timeout,
        context_window=said.context_window,
        merits=merits(providers.configured.get(server.name), said.model),
        checked_every_s=model.routing.health_check_interval if model.routing is not None else None,
        place=where,
    )


def merits(provider: Provider | None, model: str) -> Merits:
    """What the configuration says of a provider's model."""
    offered = provider.spec.models if provider is not None else ()
    said = next((one for one in offered if isinstance(one, OfferedModel) and one.name == model), None)
    if said is None:
        return Merits()
    told = said.capabilities
    able = {skill: getattr(told, skill) if told is not None else None for skill in _SKILLS}
    return Merits(
        said.cost_per_1k_tokens,
        said.quality_score,
        skills=tuple(skill for skill in _SKILLS if able[skill] is True),
        lacks=tuple(skill for skill in _SKILLS if able[skill] is False),
    )


def _requirements(target: ModelTarget) -> Requirements:
    asked = target.requires
    return Requirements() if asked is None else Requirements(bool(asked.gpu), asked.vram_gb or 0.0, asked.min_tok_s or 0.0)
