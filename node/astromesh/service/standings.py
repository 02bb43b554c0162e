"""What a node has of one agent, built from what was written of it: in a file of the configuration, or over the API."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any

from astromesh.errors import AgentUnusable, AstromeshError, InvalidDocument
from astromesh.runtime.agent import Agent, Draft
from astromesh.runtime.assembly import Assembly
from astromesh.service.agent_files import KeptAgent, KeptStatus
from astromesh.specs.agent import Agent as AgentResource
from astromesh.specs.findings import Mistake
from astromesh.specs.masking import shown
from astromesh.specs.parse import parse_document
from astromesh.specs.resource import qualified
from astromesh.specs.submitted import SOURCE, mistakes_of_origin


@dataclass(frozen=True, slots=True)
class Standing:
    """`agent` is None where there is only a draft, and where it cannot run, which `broken` says."""

    name: str
    namespace: str
    status: KeptStatus
    agent: Agent | None = None
    draft: Draft | None = None
    broken: str = ""
    file: AgentResource | None = None  # what a file of the configuration says it is

    @property
    def key(self) -> str:
        return qualified(self.name, self.namespace)

    @property
    def version(self) -> str:
        known = self.agent or self.draft
        return known.version if known is not None else ""


def of_file(resource: AgentResource, kept: KeptAgent | None, assembly: Assembly, *, beside: str) -> Standing:
    """`kept`: what the API added to it: a pause, or a document of the same name, that the file wins over. `beside` is where that lies."""
    paused = kept is not None and kept.status == "paused" and kept.deployed is None
    standing = Standing(resource.name, resource.namespace, "paused" if paused else "deployed", file=resource)
    try:
        agent = assembly.agent(resource)
    except AgentUnusable as mistake:
        return replace(standing, broken=_said(mistake))
    if kept is not None and (kept.deployed is not None or kept.draft is not None):
        caution = f"{beside} holds an agent of this name that came over the API: it is not used while {resource.source} says what it is"
        agent = replace(agent, warnings=(*agent.warnings, caution))
    return replace(standing, agent=agent)


def of_kept(kept: KeptAgent, assembly: Assembly, *, environment: Mapping[str, str]) -> Standing:
    """Whatever is in it becomes a standing: what can be used, or why not."""
    standing = Standing(kept.name, kept.namespace, kept.status, draft=None if kept.draft is None else _draft(kept, kept.draft, environment))
    if kept.deployed is None:
        return standing
    try:
        return replace(standing, agent=built(kept.deployed, assembly, environment=environment))
    except (InvalidDocument, AgentUnusable) as mistake:
        return replace(standing, broken=_said(mistake))


def built(document: Mapping[str, Any], assembly: Assembly, *, environment: Mapping[str, str]) -> Agent:
    """Raises `InvalidDocument`, or `AgentUnusable` where the document is fine and this node cannot run it."""
    return replace(assembly.agent(read_agent(document, environment=environment)), document=shown(document))


def read_agent(document: Mapping[str, Any], *, environment: Mapping[str, str]) -> AgentResource:
    """A document that came over the API. Raises `InvalidDocument` with all that is wrong in it."""
    parsed = parse_document(document, source=SOURCE, environment=environment)
    mistakes = (*parsed.mistakes, *mistakes_of_origin(document))
    if mistakes:
        more = f" (and {len(mistakes) - 1} more)" if len(mistakes) > 1 else ""
        raise InvalidDocument(f"{mistakes[0]}{more}", hint="mend the document and send it again", details={"mistakes": findings(mistakes)})
    if len(parsed.agents) != 1:
        raise InvalidDocument("the document describes no agent", hint="write 'kind: Agent'")
    return parsed.agents[0]


def findings(mistakes: tuple[Mistake, ...]) -> list[dict[str, Any]]:
    """For programs, and for people under `text`."""
    return [
        {
            "source": mistake.source,
            "line": mistake.line,
            "column": mistake.column,
            "path": mistake.path,
            "message": mistake.message,
            "remedy": mistake.remedy,
            "text": str(mistake),
        }
        for mistake in mistakes
    ]


def _draft(kept: KeptAgent, document: Mapping[str, Any], environment: Mapping[str, str]) -> Draft:
    try:
        resource = read_agent(document, environment=environment)
    except InvalidDocument as mistake:
        return Draft(kept.name, kept.namespace, "", shown(document), (mistake.message,))
    warnings = tuple(str(warning) for warning in resource.warnings)
    return Draft(kept.name, kept.namespace, resource.version, shown(document), warnings)


def _said(mistake: AstromeshError) -> str:
    return f"{mistake.message}. {mistake.hint}" if mistake.hint and mistake.hint not in mistake.message else mistake.message
