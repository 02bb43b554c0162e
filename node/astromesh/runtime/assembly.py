"""Builds what runs out of what was written: agents and providers from their documents."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING
from weakref import WeakKeyDictionary, WeakValueDictionary

from astromesh.errors import AgentUnusable, MemoryUnavailable
from astromesh.guardrails.rails import rails_of
from astromesh.memory.port import ConversationMemory, Openable
from astromesh.memory.window import Window
from astromesh.providers.port import Checkable
from astromesh.routing.breaker import BreakerRules
from astromesh.runtime.agent import Agent
from astromesh.runtime.builtins import lookup
from astromesh.runtime.choices import choices_of, in_vain
from astromesh.runtime.endpoints import Endpoint, Endpoints
from astromesh.runtime.parts import part_of
from astromesh.specs.agent import ModelTarget
from astromesh.specs.findings import unforeseen
from astromesh.specs.provider import ProviderRouting, Server, server_of

if TYPE_CHECKING:
    from astromesh.providers.port import ModelProvider
    from astromesh.runtime.toolmaking import Toolmaker
    from astromesh.specs.agent import Agent as AgentResource
    from astromesh.specs.agent import Remembering
    from astromesh.specs.orchestration import Orchestration
    from astromesh.specs.provider import Provider


class Providers:
    """The model servers that this node calls: one client for each server and key, shared by all who name it.

    Clients and what is remembered of servers last as long as somebody holds them, an agent, a run or the configuration: so an agent that
    is only tried out leaves nothing. What was called once has connections, and is kept to be closed.
    """

    def __init__(self, configured: Mapping[str, Provider], routing: ProviderRouting | None = None) -> None:
        self.configured = configured
        self.routing = routing or ProviderRouting()
        self.endpoints = Endpoints()
        self._rules: WeakKeyDictionary[Endpoint, BreakerRules] = WeakKeyDictionary()
        self._known: WeakValueDictionary[tuple[str, str | None, str | None], ModelProvider] = WeakValueDictionary()
        self._opened: set[ModelProvider] = set()

    def renewed(self, configured: Mapping[str, Provider], routing: ProviderRouting | None = None) -> Providers:
        """Of another configuration, with the same clients: runs that began go on with theirs, and a server that stayed keeps its own.

        What nobody calls any more holds no connection for longer than the keep-alive; all are closed at the end.
        """
        renewed = Providers(configured, routing)
        renewed._known, renewed._opened, renewed.endpoints = self._known, self._opened, self.endpoints
        return renewed

    def client(self, server: Server) -> ModelProvider:
        key = server.api_key.get_secret_value() if server.api_key is not None else None
        identity = (server.url, key, server.api_key_env)
        client = self._known.get(identity)
        if client is None:
            made = lookup("provider", "openai_compat")
            client = made(server.name, server.url, api_key=key, api_key_env=server.api_key_env, opened=self._opened.add)
            self._known[identity] = client
        return client

    def endpoint(self, server: Server) -> Endpoint:
        """What is remembered of that server, with the breaker that its provider asks for, or the configuration for all."""
        provider = self.configured.get(server.name)
        layers = [provider.spec.circuit_breaker if provider is not None else None, self.routing.circuit_breaker]
        said = [layer for layer in layers if layer is not None]
        usual = BreakerRules()
        rules = BreakerRules(
            next((one.failure_threshold for one in said if one.failure_threshold is not None), usual.failure_threshold),
            next((one.recovery_timeout for one in said if one.recovery_timeout is not None), usual.recovery_timeout_s),
        )
        endpoint = self.endpoints.of(server.name, server.url, rules=rules)
        self._rules[endpoint] = rules
        return endpoint

    def settle(self) -> None:
        """This is the configuration that counts from now on, also for servers that were known before."""
        for endpoint, rules in list(self._rules.items()):
            endpoint.breaker = replace(endpoint.breaker, rules=rules)

    def endpoint_of(self, provider: Provider) -> Endpoint | None:
        """That of a configured provider; None where this version does not call it, or nothing says where it is."""
        server = self._server(provider)
        return self.endpoint(server) if server is not None else None

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
        server = self._server(provider)
        client = self.client(server) if server is not None else None
        return client if isinstance(client, Checkable) else None

    def _server(self, provider: Provider) -> Server | None:
        if not provider.called:
            return None
        target = ModelTarget.model_validate({"provider": provider.name, "model": next(iter(provider.models), "any")})
        server = server_of(target, self.configured)
        return server if isinstance(server, Server) else None

    async def close(self) -> None:
        for provider in tuple(self._opened):
            await provider.close()


class Assembly:
    """Agents of one node: they share its memories, its providers, and what tools have in common."""

    def __init__(self, *, providers: Providers, tools: Toolmaker, defaults: Orchestration, conversations: Path) -> None:
        """`conversations`: the file for what agents remember, if any does; nothing is opened before `open_memories`."""
        self._providers = providers
        self._tools = tools
        self._defaults = defaults
        self._conversations = conversations
        self._memories: dict[str, ConversationMemory] = {}

    def renewed(self, *, providers: Providers, tools: Toolmaker, defaults: Orchestration) -> Assembly:
        """Of another configuration, with the same memories: conversations go on."""
        renewed = Assembly(providers=providers, tools=tools, defaults=defaults, conversations=self._conversations)
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

    def watch(self, agents: Iterable[Agent]) -> None:
        """These want their servers to be asked for their health, and no others do: as often as the one who wants it most often."""
        wanted: dict[Endpoint, float] = {}
        for target in (target for agent in agents for choice in agent.choices.values() for target in choice.targets):
            if target.endpoint is not None and target.checked_every_s is not None:
                wanted[target.endpoint] = min(target.checked_every_s, wanted.get(target.endpoint, target.checked_every_s))
        for endpoint in self._providers.endpoints:
            endpoint.checked_every_s = wanted.get(endpoint)

    def agent(self, document: AgentResource) -> Agent:
        """Raises `AgentUnusable` with the place of what cannot be, and nothing else: one document never keeps the node from the others."""
        try:
            return self._agent(document)
        except AgentUnusable:
            raise
        except Exception as failure:  # noqa: BLE001  told without its text
            message, remedy = unforeseen(failure)
            raise AgentUnusable(f"{document.place('spec')}: {message}", hint=remedy) from None

    def _agent(self, document: AgentResource) -> Agent:
        limits = document.limits(self._defaults)
        toolbox = self._tools.toolbox(document, self._defaults)
        remembering = document.remembering
        rails = rails_of(document.spec.guardrails)
        return Agent(
            name=document.name,
            namespace=document.namespace,
            version=document.version,
            part=part_of(document, limits, tools=toolbox.schemas, screened=rails.screens),
            choices=choices_of(document, self._providers),
            timeout_s=limits.timeout_s,
            toolbox=toolbox,
            memory=None if remembering is None else self._memory(remembering.backend),
            window=_window(remembering),
            forgets_after_s=None if remembering is None else remembering.ttl_s,
            document=document.as_document(),
            warnings=(*(str(warning) for warning in document.warnings), *in_vain(document, self._providers)),
            rails=rails,
        )

    def _memory(self, backend: str) -> ConversationMemory:
        if backend not in self._memories:
            kind = lookup("memory", backend)
            self._memories[backend] = kind(self._conversations) if backend == "sqlite" else kind()
        return self._memories[backend]


def _window(remembering: Remembering | None) -> Window:
    if remembering is None:
        return Window(turns_max=0)
    return Window(remembering.turns_max, remembering.tokens_max, folds=remembering.strategy == "summary")
