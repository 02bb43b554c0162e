"""Model servers: the ProviderConfig and Provider documents, and which server a model's target means. Pure."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from difflib import get_close_matches
from typing import ClassVar, Literal
from urllib.parse import urlsplit

from pydantic import Field, SecretStr

from astromesh.specs.agent import ModelTarget, Strategy
from astromesh.specs.resource import Resource
from astromesh.specs.section import FileMetadata, Json, Metadata, Seconds, Secret, Section, Url

ProviderType = Literal[
    "openai", "openai_compat", "openai-compat", "vllm", "llamacpp", "llama_cpp", "hf_tgi", "ollama", "openrouter", "onnx", "anthropic"
]
# Servers that speak OpenAI's chat completions, by canonical type: where they are when nobody says, and whose key they take.
_DEFAULT_ENDPOINT: Mapping[str, str] = {
    "ollama": "http://127.0.0.1:11434",
    "openai": "https://api.openai.com",
    "openrouter": "https://openrouter.ai/api",
}
_DEFAULT_KEY_VARIABLE: Mapping[str, str] = {"openai": "OPENAI_API_KEY", "openrouter": "OPENROUTER_API_KEY"}
_CANONICAL: Mapping[str, str] = {
    "openai": "openai", "openai_compat": "openai_compat", "openai-compat": "openai_compat", "vllm": "vllm", "llamacpp": "llama_cpp",
    "llama_cpp": "llama_cpp", "hf_tgi": "hf_tgi", "ollama": "ollama", "openrouter": "openrouter",
}  # fmt: skip
NOT_CALLED_YET = ("onnx", "anthropic")
_VERSIONED = re.compile(r"v[0-9]+[a-z0-9]*")


class Capabilities(Section):
    tools: bool | None = None
    vision: bool | None = None


class OfferedModel(Section):
    name: str = Field(min_length=1, examples=["llama3.1:8b"])
    capabilities: Capabilities | None = None
    quality_score: float | None = Field(default=None, ge=0)
    cost_per_1k_tokens: float | None = Field(default=None, ge=0)


class ShareLabels(Section):
    labels: Mapping[str, str]


class HealthCheck(Section):
    interval: Seconds | None = None
    timeout: Seconds | None = None
    path: str | None = None


class CircuitBreaker(Section):
    ALSO: ClassVar[Mapping[str, str]] = {"cooldown_seconds": "recovery_timeout"}

    failure_threshold: int | None = Field(default=None, ge=1)
    recovery_timeout: Seconds | None = None


class ProviderRouting(Section):
    default_strategy: Strategy | None = None
    fallback_enabled: bool | None = None
    circuit_breaker: CircuitBreaker | None = None


class ProviderSpec(Section):
    type: ProviderType = Field(examples=["openai_compat"])
    endpoint: Url | None = Field(default=None, examples=["http://127.0.0.1:8080"])
    api_key: Secret | None = Field(default=None, examples=["${OPENAI_API_KEY}"])
    api_key_env: str | None = Field(default=None, examples=["OPENAI_API_KEY"])
    models: tuple[str | OfferedModel, ...] = ()
    share: Literal["none", "mesh"] | ShareLabels | None = None
    health_check_interval: Seconds | None = None
    health_check: HealthCheck | None = None
    circuit_breaker: CircuitBreaker | None = None


class ProviderConfigSpec(Section):
    providers: Mapping[str, ProviderSpec] | None = None
    routing: ProviderRouting | None = None


class ProviderConfigDocument(Section):
    api_version: str
    kind: Literal["ProviderConfig"]
    metadata: FileMetadata = FileMetadata()
    spec: ProviderConfigSpec = ProviderConfigSpec()
    status: Json = None


class ProviderDocument(Section):
    api_version: str
    kind: Literal["Provider"]
    metadata: Metadata
    spec: ProviderSpec
    status: Json = None


@dataclass(frozen=True, slots=True)
class Provider:
    """One model server of the configuration. `place` is its `file:line`."""

    name: str
    spec: ProviderSpec
    source: str
    line: int

    @property
    def place(self) -> str:
        return f"{self.source}:{self.line}" if self.line else self.source

    @property
    def models(self) -> tuple[str, ...]:
        return tuple(model if isinstance(model, str) else model.name for model in self.spec.models)

    @property
    def called(self) -> bool:
        """Whether this node speaks its language."""
        return self.spec.type in _CANONICAL

    @property
    def shared(self) -> bool:
        """Whether other nodes may use it through this one: as told, else unless it has a key or a price."""
        if self.spec.share is not None:
            return self.spec.share == "mesh"
        priced = any(isinstance(model, OfferedModel) and (model.cost_per_1k_tokens or 0) > 0 for model in self.spec.models)
        keyed = self.spec.api_key is not None or self.spec.api_key_env is not None or self.spec.type in _DEFAULT_KEY_VARIABLE
        return not priced and not keyed


@dataclass(frozen=True, slots=True, kw_only=True)
class ProviderConfig(Resource[ProviderConfigSpec]):
    @property
    def kind(self) -> str:
        return "ProviderConfig"

    @property
    def providers(self) -> tuple[Provider, ...]:
        written = self.spec.providers or {}
        return tuple(
            Provider(name, spec, self.source, self.lines.get(f"spec.providers.{name}", self.line)) for name, spec in written.items()
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class ProviderResource(Resource[ProviderSpec]):
    """A document of kind Provider: one server."""

    @property
    def kind(self) -> str:
        return "Provider"

    @property
    def providers(self) -> tuple[Provider, ...]:
        return (Provider(self.name, self.spec, self.source, self.line),)


@dataclass(frozen=True, slots=True)
class Server:
    """Where to send a completion. `url` ends in the API's root (`…/v1`); `api_key_env` names a variable to be read when it is called."""

    name: str
    url: str
    api_key: SecretStr | None = None
    api_key_env: str | None = None


@dataclass(frozen=True, slots=True)
class Unresolved:
    """Why no server could be told from a target, and what to write. `not_called`: it is a server, of a type that is not called yet."""

    message: str
    remedy: str
    not_called: bool = False


def api_root(endpoint: str) -> str:
    """An endpoint as people write it, with or without `/v1` or the whole path of completions, as the API's root."""
    parts = urlsplit(endpoint)
    steps = [step for step in parts.path.split("/") if step]
    if steps[-2:] == ["chat", "completions"]:
        steps = steps[:-2]
    if not any(_VERSIONED.fullmatch(step) for step in steps):
        steps.append("v1")
    return parts._replace(path="/" + "/".join(steps), query="", fragment="").geturl()


def server_of(target: ModelTarget, providers: Mapping[str, Provider]) -> Server | Unresolved:
    """The server that a target means: a provider by its name, else one of its type, else the type's usual place.

    A provider's key goes only to the provider's own endpoint. Not for `target.is_local`, which no server of the configuration serves.
    """
    wanted = target.served_by
    kind = _CANONICAL.get(wanted) if target.provider_ref is None else None
    own_key = target.api_key is not None or target.api_key_env is not None
    found = providers.get(wanted) or (None if target.endpoint or kind is None else _of_kind(kind, target.model, providers))
    if found is not None:
        if not found.called:
            return _not_called(found.spec.type)
        endpoint = target.endpoint or found.spec.endpoint or _DEFAULT_ENDPOINT.get(_CANONICAL[found.spec.type])
        if endpoint is None:
            return Unresolved(f"provider '{found.name}' has no endpoint", f"Add 'endpoint: http://HOST:PORT' in {found.place}.")
        moved = (
            target.endpoint is not None and found.spec.endpoint is not None and api_root(target.endpoint) != api_root(found.spec.endpoint)
        )
        if own_key or moved:
            return Server(found.name, api_root(endpoint), target.api_key, target.api_key_env)
        variable = found.spec.api_key_env
        if found.spec.api_key is None and variable is None and found.spec.endpoint is None:
            variable = _DEFAULT_KEY_VARIABLE.get(found.spec.type)
        return Server(found.name, api_root(endpoint), found.spec.api_key, variable)
    if kind is None:
        return _not_called(wanted) if wanted in NOT_CALLED_YET else _unknown(wanted, providers)
    endpoint = target.endpoint or _DEFAULT_ENDPOINT.get(kind)
    if endpoint is None:
        remedy = f"Add 'endpoint: http://HOST:PORT' beside it, or a provider of type {wanted} to providers.yaml."
        return Unresolved(f"nothing says where the {wanted} server is", remedy)
    variable = _DEFAULT_KEY_VARIABLE.get(kind) if not own_key and target.endpoint is None else target.api_key_env
    return Server(wanted, api_root(endpoint), target.api_key, variable)


def _of_kind(kind: str, model: str, providers: Mapping[str, Provider]) -> Provider | None:
    same = [provider for _, provider in sorted(providers.items()) if _CANONICAL.get(provider.spec.type) == kind]
    return next((provider for provider in same if model in provider.models), same[0] if same else None)


def _not_called(kind: str) -> Unresolved:
    remedy = "Use one that speaks OpenAI's API: type openai_compat."
    return Unresolved(f"this version does not call servers of type '{kind}'", remedy, not_called=True)


def _unknown(wanted: str, providers: Mapping[str, Provider]) -> Unresolved:
    known = [*sorted(providers), "local", *_CANONICAL]
    close = get_close_matches(wanted, known, n=1)
    guess = f"Did you mean '{close[0]}'? " if close else ""
    return Unresolved(f"no provider '{wanted[:40]}'", f"{guess}Known here: {', '.join(dict.fromkeys(known))}.")
