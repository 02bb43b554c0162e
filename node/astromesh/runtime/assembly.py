"""Builds what runs out of what was written: agents and providers from their documents."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING

from astromesh.errors import AgentUnusable, MemoryUnavailable
from astromesh.guardrails.rails import rails_of
from astromesh.memory.port import ConversationMemory, Openable
from astromesh.memory.window import Window
from astromesh.orchestration.plan import Part
from astromesh.orchestration.prompt import Template
from astromesh.providers.port import Checkable
from astromesh.routing.eligible import Requirements
from astromesh.runtime.agent import Agent
from astromesh.runtime.builtins import lookup
from astromesh.specs.agent import ModelTarget
from astromesh.specs.provider import Server, Unresolved, server_of
from astromesh.tools.toolbox import Toolbox

if TYPE_CHECKING:
    from astromesh.providers.port import ModelProvider
    from astromesh.specs.agent import Agent as AgentResource
    from astromesh.specs.agent import Orchestration, Remembering
    from astromesh.specs.provider import Provider


class Providers:
    """The model servers that this node calls: one client for each server and key, shared by all who name it."""

    def __init__(self, configured: Mapping[str, Provider]) -> None:
        self.configured = configured
        self._open: dict[tuple[str, str | None, str | None, float | None], ModelProvider] = {}

    def renewed(self, configured: Mapping[str, Provider]) -> Providers:
        """Of another configuration, with the same clients: runs that began go on with theirs, and a server that stayed keeps its own.

        What nobody calls any more holds no connection for longer than the keep-alive; all are closed at the end.
        """
        renewed = Providers(configured)
        renewed._open = self._open
        return renewed

    def client(self, server: Server, *, timeout_s: float | None = None) -> ModelProvider:
        key = server.api_key.get_secret_value() if server.api_key is not None else None
        identity = (server.url, key, server.api_key_env, timeout_s)
        if identity not in self._open:
            self._open[identity] = lookup("provider", "openai_compat")(
                server.name, server.url, api_key=key, api_key_env=server.api_key_env, timeout_s=timeout_s
            )
        return self._open[identity]

    def shared(self) -> Iterator[tuple[Provider, str, ModelProvider]]:
        """What other nodes may use through this one: each provider's models and the client that calls them."""
        for provider in self.configured.values():
            if provider.shared and provider.called:
                for model in provider.models:
                    target = ModelTarget.model_validate({"provider": provider.name, "model": model})
                    server = server_of(target, self.configured)
                    if isinstance(server, Server):
                        yield provider, model, self.client(server)

    def asker(self, provider: Provider) -> Checkable | None:
        """What can ask that server whether it is there; None where this version does not call it, or nothing says where it is."""
        if not provider.called:
            return None
        target = ModelTarget.model_validate({"provider": provider.name, "model": next(iter(provider.models), "any")})
        server = server_of(target, self.configured)
        client = self.client(server) if isinstance(server, Server) else None
        return client if isinstance(client, Checkable) else None

    async def close(self) -> None:
        for provider in self._open.values():
            await provider.close()


class Assembly:
    """Agents of one node: they share its memories and its providers."""

    def __init__(self, *, providers: Providers, defaults: Orchestration, conversations: Path) -> None:
        """`conversations`: the file for what agents remember, if any does; nothing is opened before `open_memories`."""
        self._providers = providers
        self._defaults = defaults
        self._conversations = conversations
        self._memories: dict[str, ConversationMemory] = {}

    def renewed(self, *, providers: Providers, defaults: Orchestration) -> Assembly:
        """Of another configuration, with the same memories: conversations go on."""
        renewed = Assembly(providers=providers, defaults=defaults, conversations=self._conversations)
        renewed._memories = self._memories
        return renewed

    async def open_memories(self) -> tuple[str, ...]:
        """What somebody should know of them. One that cannot be opened is tried again whenever an agent needs it."""
        said: list[str] = []
        for memory in self._memories.values():
            if isinstance(memory, Openable):
                try:
                    said += await memory.open()
                except MemoryUnavailable as failure:
                    said.append(f"{failure.message}. {failure.hint}")
        return tuple(said)

    async def close_memories(self) -> None:
        for memory in self._memories.values():
            await memory.close()

    def agent(self, document: AgentResource) -> Agent:
        """Raises `AgentUnusable` with the place of what cannot be."""
        limits = document.limits(self._defaults)
        toolbox = Toolbox(lookup("tool", name)() for name in document.tools)
        remembering = document.remembering
        rails = rails_of(document.spec.guardrails)
        return Agent(
            name=document.name,
            namespace=document.namespace,
            version=document.version,
            part=Part(
                agent=document.name,
                system=Template(document.system_prompt, where=document.place("spec.prompts.system")),
                context=Template(document.context_prompt, where=document.place("spec.prompts.context")),
                turns=limits.iterations,
                tools=toolbox.schemas,
                remembers=remembering is not None,
                screened=rails.screens,
            ),
            model=document.model.model,
            model_source="local" if document.model.is_local else document.model.served_by,
            provider=self._provider(document),
            sampling=document.sampling,
            timeout_s=limits.timeout_s,
            toolbox=toolbox,
            memory=None if remembering is None else self._memory(remembering.backend),
            window=_window(remembering),
            forgets_after_s=None if remembering is None else remembering.ttl_s,
            document=document.as_document(),
            warnings=(*(str(warning) for warning in document.warnings), *_in_vain(document)),
            rails=rails,
            requires=_requirements(document),
        )

    def _provider(self, document: AgentResource) -> ModelProvider | None:
        target = document.model
        if target.is_local:
            return None
        server = server_of(target, self._providers.configured)
        if isinstance(server, Unresolved):
            raise AgentUnusable(f"{document.place('spec.model.primary')}: {server.message}", hint=server.remedy)
        return self._providers.client(server, timeout_s=target.timeout)

    def _memory(self, backend: str) -> ConversationMemory:
        if backend not in self._memories:
            kind = lookup("memory", backend)
            self._memories[backend] = kind(self._conversations) if backend == "sqlite" else kind()
        return self._memories[backend]


def _window(remembering: Remembering | None) -> Window:
    if remembering is None:
        return Window(turns_max=0)
    return Window(remembering.turns_max, remembering.tokens_max, folds=remembering.strategy == "summary")


def _requirements(document: AgentResource) -> Requirements:
    asked = document.model.requires
    if asked is None or not document.model.is_local:
        return Requirements()
    return Requirements(bool(asked.gpu), asked.vram_gb or 0.0, asked.min_tok_s or 0.0)


def _in_vain(document: AgentResource) -> tuple[str, ...]:
    """What a node cannot know of a model server."""
    target = document.model
    if target.requires is None or target.is_local:
        return ()
    where = document.place("spec.model.primary.requires")
    return (f"{where}: is checked for models of this mesh alone, and {target.served_by} is a model server",)


def assemble(
    documents: Iterable[AgentResource], assembly: Assembly, *, report: Callable[[str, AgentUnusable], None]
) -> Mapping[str, Agent]:
    """All that can be built, by name; what cannot is reported and stops nothing."""
    agents: dict[str, Agent] = {}
    for document in documents:
        try:
            agents[document.name] = assembly.agent(document)
        except AgentUnusable as mistake:
            report(document.name, mistake)
    return agents
