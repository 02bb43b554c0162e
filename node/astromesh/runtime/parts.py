"""An agent's part for the scripts, out of its document."""

from __future__ import annotations

from typing import TYPE_CHECKING

from astromesh.orchestration.plan import Member, Part
from astromesh.orchestration.prompt import Template
from astromesh.specs.members import peers_of, tools_that_are_members, workers_of
from astromesh.specs.resource import key_of
from astromesh.specs.schemas import Schema, object_schema

if TYPE_CHECKING:
    from astromesh.dialogue import ToolSchema
    from astromesh.specs.agent import Agent, Limits

_STAGE_TEMPLATE = "stage_{name}"  # also read as the prompt of the stage of that name, as files of the public project have it


def part_of(document: Agent, limits: Limits, *, tools: tuple[ToolSchema, ...], screened: bool) -> Part:
    """Raises `AgentUnusable` with the place of a template that cannot be read."""
    spec, named = document.spec, document.spec.prompts.templates
    members = tools_that_are_members(spec)

    def template(text: str, path: str) -> Template:
        return Template(text, where=f"{document.place(path)}: {path}", named=named)

    def prompt(text: str | None, path: str) -> Template | None:
        return None if text is None else template(text, path)

    def key(agent: str | None) -> str | None:
        return None if agent is None else key_of(agent, within=document.namespace)

    permissions = spec.permissions
    return Part(
        agent=document.name,
        namespace=document.namespace,
        system=template(spec.prompts.system, "spec.prompts.system"),
        context=template(spec.prompts.context, "spec.prompts.context"),
        turns=limits.iterations,
        tools=tuple(tool for tool in tools if tool.name not in members),
        description=spec.identity.description or "",
        remembers=document.remembering is not None,
        screened=screened,
        pattern=limits.pattern,
        workers=tuple(
            Member(
                name=worker.called,
                agent=key(worker.agent_named),
                description=worker.description or "",
                prompt=prompt(worker.prompt, f"spec.orchestration.workers[{number}].prompt"),
                role=worker.role or worker.called,
                max_tokens=worker.max_tokens,
            )
            for number, worker in enumerate(workers_of(spec))
        ),
        peers=tuple(Member(name=peer.called, agent=key(peer.agent_named), description=peer.description or "") for peer in peers_of(spec)),
        stages=tuple(
            Member(
                name=stage.name,
                agent=key(stage.agent),
                prompt=prompt(
                    stage.prompt or named.get(stage.name) or named.get(_STAGE_TEMPLATE.format(name=stage.name)),
                    f"spec.orchestration.stages[{number}].prompt",
                ),
                role=stage.role or f"stage:{stage.name}",
                max_tokens=stage.max_tokens,
            )
            for number, stage in enumerate(spec.orchestration.stages)
        ),
        merge=limits.merge,
        hand_offs_max=limits.hand_offs_max,
        # A grammar makes a small model decide; what a server makes of a schema nobody knows, while most call tools reliably.
        decides="shape" if document.model.is_local else "tools",
        dry_run=permissions is not None and permissions.execution is not None and permissions.execution.dry_run,
        output=Schema(object_schema(spec.output_schema)) if spec.output_schema else None,
    )
