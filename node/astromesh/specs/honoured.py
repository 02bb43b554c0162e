"""What of the format a node of this version does, and what happens to the rest. Pure.

The one place that knows. Every key of every resource is in `HONOURED` or in `NOT_YET`, and a test walks the sections to hold it to that; a
key that begins to work moves from one table to the other. Paths are canonical: `[]` is any position of a list, `*` any name.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from astromesh.specs.findings import Caution, Mistake, Path
from astromesh.specs.keys import Places

BUILTIN_TOOLS = ("datetime_now", "http_request", "json_transform")
TOOL_TYPES = ("builtin", "internal", "webhook", "agent")
RUN_KINDS = ("Agent", "ProviderConfig", "Provider", "RuntimeConfig")
LISTED_KINDS = ("Channel", "RAGPipeline", "Workflow", "AgentTemplate", "Integration", "Eval")

_TARGET = (
    "provider", "model", "endpoint", "api_key", "api_key_env", "timeout", "provider_ref",
    "parameters.temperature", "parameters.top_p", "parameters.top_k", "parameters.min_p", "parameters.max_tokens", "parameters.stop",
    "requires.gpu", "requires.vram_gb", "requires.min_tok_s",
    "parameters.seed", "parameters.presence_penalty", "parameters.frequency_penalty", "parameters.repeat_penalty", "context_window",
)  # fmt: skip
_RULE = (
    "type", "action", "message", "blocked_topics", "allowed_topics", "max_chars", "max_tokens_per_turn", "max_tokens_per_session",
    "blocked_patterns", "forbidden_keywords",
)  # fmt: skip
_METADATA = ("metadata.name", "metadata.version", "metadata.namespace", "metadata.labels", "metadata.annotations")
_HEALTH = ("health_check_interval", "health_check.interval", "health_check.timeout", "health_check.path")
_MERITS = ("models[].name", "models[].cost_per_1k_tokens", "models[].quality_score", "models[].capabilities.tools")
_BREAKER = ("circuit_breaker.failure_threshold", "circuit_breaker.recovery_timeout")
_ENVELOPE = ("api_version", "kind", *_METADATA)

HONOURED: Mapping[str, tuple[str, ...]] = {
    "Agent": (
        *_ENVELOPE,
        "spec.identity.display_name", "spec.identity.description", "spec.identity.avatar",
        *(f"spec.model.primary.{key}" for key in _TARGET),
        *(f"spec.model.default.candidates[].{key}" for key in _TARGET),
        *(f"spec.model.fallback.{key}" for key in _TARGET),
        *(f"spec.model.fallback[].{key}" for key in _TARGET),
        *(f"spec.model.roles.*.candidates[].{key}" for key in _TARGET),
        "spec.model.routing.strategy", "spec.model.routing.health_check_interval", "spec.model.default.strategy",
        "spec.model.roles.*.strategy",
        "spec.prompts.system", "spec.prompts.context",
        "spec.orchestration.pattern", "spec.orchestration.max_iterations", "spec.orchestration.timeout_seconds",
        "spec.orchestration.max_tool_result_tokens", "spec.orchestration.max_handoffs", "spec.orchestration.merge",
        *(f"spec.orchestration.workers[].{key}" for key in ("name", "agent", "description", "prompt", "role", "max_tokens")),
        *(f"spec.orchestration.peers[].{key}" for key in ("name", "agent", "description")),
        *(f"spec.orchestration.stages[].{key}" for key in ("name", "prompt", "agent", "role", "max_tokens")),
        "spec.prompts.templates", "spec.output_schema",
        *(f"spec.tools[].{key}" for key in (
            "type", "name", "description", "max_result_tokens", "rate_limit.window_seconds", "rate_limit.max_calls", "permissions",
            "parameters", "endpoint", "method", "headers", "agent", "function")),
        "spec.permissions.allowed_actions", "spec.permissions.denied_actions", "spec.permissions.network.allowed",
        "spec.permissions.execution.dry_run",
        "spec.memory.conversational.backend", "spec.memory.conversational.strategy", "spec.memory.conversational.max_turns",
        "spec.memory.conversational.max_tokens", "spec.memory.conversational.ttl",
        *(f"spec.guardrails.{direction}[].{key}" for direction in ("input", "output") for key in _RULE),
    ),
    "ProviderConfig": (
        *_ENVELOPE,
        *(f"spec.providers.*.{key}" for key in ("type", "endpoint", "api_key", "api_key_env", "models", "share")),
        *(f"spec.providers.*.{key}" for key in (*_HEALTH, *_MERITS, *_BREAKER)),
        "spec.routing.default_strategy", "spec.routing.fallback_enabled", *(f"spec.routing.{key}" for key in _BREAKER),
    ),
    "Provider": (
        *_ENVELOPE,
        "spec.type", "spec.endpoint", "spec.api_key", "spec.api_key_env", "spec.models", "spec.share",
        *(f"spec.{key}" for key in (*_HEALTH, *_MERITS, *_BREAKER)),
    ),
    "RuntimeConfig": (
        *_ENVELOPE,
        "spec.api.host", "spec.api.port",
        *(f"spec.mesh.{key}" for key in ("enabled", "node_name", "bind", "seeds", "profile", "cluster_id", "keyring_file", "serf")),
        "spec.inference.models_dir", "spec.inference.memory_budget_mb", "spec.inference.idle_unload_seconds", "spec.inference.engine",
        *(f"spec.inference.models[].{key}" for key in ("name", "path", "pull", "context", "gpu_layers", "parallel", "prefix_cache_mb")),
        "spec.defaults.orchestration.pattern", "spec.defaults.orchestration.max_iterations",
        "spec.defaults.orchestration.timeout_seconds", "spec.defaults.orchestration.max_tool_result_tokens",
        "spec.defaults.orchestration.max_handoffs", "spec.defaults.orchestration.merge",
        "spec.tools.modules", "spec.tools.http.allow",
    ),
}  # fmt: skip

_STATUS = {"status": "is a controller's report and is not read"}
_MEMBERS = "is not read here: it belongs into the document of an agent"
_SERVER = {
    "models[].capabilities.vision": "is not used to choose a model: no request carries pictures yet",
    "share.labels": "labels are not compared: this server is not shared. Write 'share: mesh' or 'share: none'",
}  # fmt: skip
_MESH_TIMING = "is not read: the timing of the mesh comes from its profile. Write 'profile: lan' or 'profile: wan'"

NOT_YET: Mapping[str, Mapping[str, str]] = {
    "Agent": {
        **_STATUS,
        **{f"spec.tools[].{key}": "is for tools of a type that does not exist yet" for key in (
            "pipeline", "top_k", "command", "args", "env", "transport")},
        "spec.memory.conversational.connection": "is not used: conversations are kept in the node's data directory",
        "spec.memory.semantic": "does not exist yet: nothing is stored or found by meaning",
        "spec.memory.episodic": "does not exist yet: no events are stored",
        "spec.permissions.filesystem": "IS NOT ENFORCED: no tool of this version is given files, and a Python function may do what the "
            "node may",
        "spec.knowledge": "does not exist yet: nothing is looked up",
        "spec.placement": "has no effect: the agent runs on the nodes that hold its file",
        "spec.channels": "channels do not exist yet: the agent answers over the API only",
        "spec.observability": "has no effect: every run is measured the same way",
        "spec.skills": "has no effect",
        "spec.prefetch": "does not exist yet: nothing is fetched before the run",
        "spec.judge": "does not exist yet: no answer is judged",
        "spec.chain": "does not exist yet: no other agent is started by an answer",
    },
    "ProviderConfig": {
        **_STATUS,
        **{f"spec.providers.*.{key}": said for key, said in _SERVER.items()},
    },
    "Provider": {**_STATUS, **{f"spec.{key}": said for key, said in _SERVER.items()}},
    "RuntimeConfig": {
        **_STATUS,
        "spec.api.tls": "is not served: this API speaks plain HTTP. Keep it on loopback",
        "spec.api.cors": "is not used: pages of other origins are refused",
        "spec.services": "has no effect: every node runs all it can",
        "spec.peers": "is not read: the mesh finds its members itself. Write mesh.seeds",
        "spec.mesh.advertise": "is not used: others are told the address that the node is bound to",
        "spec.mesh.mdns": "nodes are not found by mDNS yet. Write mesh.seeds",
        **{f"spec.mesh.{key}": _MESH_TIMING for key in (
            "heartbeat_interval", "gossip_interval", "gossip_fanout", "failure_timeout", "dead_timeout")},
        "spec.observability": "has no effect: figures are at /metrics",
        "spec.auth": "IS NOT ENFORCED: keys do not exist yet, so the API stays on loopback",
        **{f"spec.defaults.orchestration.{key}": _MEMBERS for key in ("workers", "peers", "stages")},
    },
}  # fmt: skip


@dataclass(frozen=True, slots=True)
class Choice:
    """A key of which only some values are honoured. `refuse`: another value is a mistake, since going on would be something else."""

    values: tuple[str, ...]
    instead: str
    remedy: str
    refuse: bool = False


_PATTERN = Choice(
    ("react", "plan_and_execute", "parallel_fan_out"),
    "an agent that says nothing of its pattern has nobody to work with",
    "Write 'pattern: react' here, and this pattern into the agent's document.",
    refuse=True,
)
_CALLED = Choice(
    ("openai", "openai_compat", "openai-compat", "vllm", "llamacpp", "llama_cpp", "hf_tgi", "ollama", "openrouter"),
    "this version does not call servers of this type",
    "Use one that speaks OpenAI's API: type openai_compat.",
)
CHOICES: Mapping[str, Mapping[str, Choice]] = {
    "ProviderConfig": {"spec.providers.*.type": _CALLED},
    "Provider": {"spec.type": _CALLED},
    "Agent": {
        "spec.memory.conversational.backend": Choice(
            ("sqlite", "in_memory"), "conversations are kept in SQLite in the node's data directory", "Write 'backend: sqlite'."
        ),
    },
    "RuntimeConfig": {"spec.defaults.orchestration.pattern": _PATTERN},
}


def unhonoured(kind: str, document: Any, places: Places) -> tuple[tuple[Caution, ...], tuple[Mistake, ...]]:
    """What a canonical document asks for in vain. What asks for nothing (null, false, "none", "off", empty) is not mentioned."""
    cautions: list[Caution] = []
    mistakes: list[Mistake] = []
    for path, pattern, value in _walk(document, (), "", NOT_YET[kind]):
        if (said := NOT_YET[kind].get(pattern)) is not None:
            message, _, remedy = said.partition(". ")
            cautions.append(places.caution(path, message, f"{remedy}." if remedy else ""))
        elif (choice := CHOICES.get(kind, {}).get(pattern)) is not None and value not in choice.values:
            found = places.mistake if choice.refuse else places.caution
            finding = found(path, f"'{value}': {choice.instead}", choice.remedy)
            (mistakes if isinstance(finding, Mistake) else cautions).append(finding)  # type: ignore[arg-type]
        elif pattern == "spec.tools[]" and (why := _not_offered(value)):
            cautions.append(places.caution(path, f"this tool is not offered to the model: {why}"))
    return tuple(cautions), tuple(mistakes)


def _walk(value: Any, path: Path, pattern: str, table: Mapping[str, str]) -> Iterator[tuple[Path, str, Any]]:
    """Everything that was written, from the top; nothing below a tool that is not offered at all."""
    if path and not asks(value):
        return
    yield path, pattern, value
    if pattern == "spec.tools[]" and _not_offered(value):
        return
    if isinstance(value, dict):
        for key, inner in value.items():
            yield from _walk(inner, (*path, key), _step(pattern, key, table), table)
    elif isinstance(value, list):
        for number, inner in enumerate(value):
            yield from _walk(inner, (*path, number), f"{pattern}[]", table)


def _step(pattern: str, key: str, table: Mapping[str, str]) -> str:
    free = f"{pattern}.*"
    if any(known == free or known.startswith(f"{free}.") for known in table):
        return free
    return f"{pattern}.{key}" if pattern else key


def asks(value: Any) -> bool:
    """Whether a value asks for something."""
    return value not in (None, False, [], {}) and str(value).lower() not in ("", "none", "off", "no", "false")


def _not_offered(tool: Any) -> str:
    if not isinstance(tool, dict):
        return ""
    if tool.get("type") not in TOOL_TYPES:
        return f"tools of type {tool.get('type')} do not exist yet"
    if tool["type"] != "builtin":
        return ""
    return "" if tool.get("name") in BUILTIN_TOOLS else f"this version has no built-in tool of this name, only {', '.join(BUILTIN_TOOLS)}"
