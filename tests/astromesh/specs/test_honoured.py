"""Nothing is silently ignored: every key of the format works, or says that it does not."""

from __future__ import annotations

import re

import pytest

from astromesh.specs.agent import AgentDocument
from astromesh.specs.honoured import CHOICES, HONOURED, NOT_YET
from astromesh.specs.keys import field_paths
from astromesh.specs.parse import Parsed, parse
from astromesh.specs.provider import ProviderConfigDocument, ProviderDocument
from astromesh.specs.runtime import RuntimeDocument
from astromesh.specs.section import Section

DOCUMENTS: dict[str, type[Section]] = {
    "Agent": AgentDocument,
    "ProviderConfig": ProviderConfigDocument,
    "Provider": ProviderDocument,
    "RuntimeConfig": RuntimeDocument,
}

AGENT = """\
apiVersion: astromesh/v1
kind: Agent
metadata: {name: desk, version: 1.0.0, namespace: sales, labels: {tier: 1}, annotations: {astromesh.io/owner: me}}
spec:
  identity: {display_name: Desk, description: At the desk, avatar: desk.png}
  model:
    primary:
      provider: local
      model: smollm2
      endpoint: http://127.0.0.1:11434
      api_key: sk-1
      api_key_env: KEY
      timeout: 60
      parameters: {temperature: 0.2, top_p: 0.9, top_k: 40, min_p: 0.05, max_tokens: 10, stop: ["\\n"], seed: 1,
        presence_penalty: 0.1, frequency_penalty: 0.1, repeat_penalty: 1.1}
      provider_ref: box
      requires: {gpu: true, vram_gb: 8, min_tok_s: 20}
      context_window: 4096
    fallback: {provider: ollama, model: "llama3.1:8b"}
    routing: {strategy: cost_optimized, health_check_interval: 30}
    default:
      strategy: quality_first
      candidates:
        - provider: local
          model: smollm2
          endpoint: http://127.0.0.1:11434
          api_key: sk-2
          api_key_env: KEY
          timeout: 60
          parameters: {temperature: 0.2, top_p: 0.9, top_k: 40, min_p: 0.05, max_tokens: 10, stop: stop, seed: 1,
            presence_penalty: 0.1, frequency_penalty: 0.1, repeat_penalty: 1.1}
          provider_ref: box
          requires: {gpu: true, vram_gb: 8, min_tok_s: 20}
          context_window: 4096
    roles:
      planner: {candidates: [{provider: openai, model: gpt-4o, context_window: 128000}], strategy: quality_first}
  prompts: {system: Hello., templates: {a: b}, context: "{{ today }}"}
  orchestration: {pattern: parallel_fan_out, max_iterations: 5, timeout_seconds: 60, merge: vote, max_handoffs: 3,
    workers: [a, {name: b, agent: c, description: d, prompt: e, role: planner, max_tokens: 9}],
    peers: [a, {name: b, agent: c, description: d}],
    stages: [a, {name: b, prompt: c, agent: d, role: planner, max_tokens: 9}], max_tool_result_tokens: 8000}
  tools:
    - {type: builtin, name: datetime_now, description: now, max_result_tokens: 10, rate_limit: {window_seconds: 60, max_calls: 5},
      permissions: [read], pipeline: kb, top_k: 3, command: npx, args: [-y], env: {TOKEN: x}, transport: stdio}
    - {type: webhook, name: ticket, url: http://a, method: POST, headers: {Authorization: Bearer x}, parameters: {a: {type: string}}}
    - {type: agent, agent: till}
    - {type: internal, function: "m:f"}
  memory:
    conversational: {backend: in_memory, strategy: sliding_window, max_turns: 20, max_tokens: 100, ttl: 3600, connection: redis://:p@h}
    semantic: {backend: hnswlib, collection: c, similarity_threshold: 0.75, max_results: 10, connection: postgres://u:p@h}
    episodic: {backend: sqlite, connection: sqlite://x}
  guardrails:
    input:
      - {type: pii_detection, action: redact, message: Hush.}
      - {type: topic_filter, blocked_topics: [a], allowed_topics: [b], action: block}
      - {type: max_length, max_chars: 5000, action: block}
    output:
      - {type: content_filter, blocked_patterns: [x], forbidden_keywords: [y], action: warn}
      - {type: cost_limit, max_tokens_per_turn: 100, max_tokens_per_session: 1000}
  permissions: {allowed_actions: ["*"], denied_actions: [z*], filesystem: {read: [/tmp], write: false}, network: {allowed: true},
    execution: {dry_run: true}}
  output_schema: {score: {type: integer}}
  knowledge: {pipeline: kb, top_k: 5}
  placement: {nodes: [kitchen], labels: {gpu: "yes"}, requires: {gpu: true, vram_gb: 8, model: m}, replicas: 2}
  channels: [whatsapp]
  observability: {tracing: true}
  skills: [a]
  prefetch: [{tool: x}]
  judge: {model: x}
  chain: {mode: sequential}
status: {phase: Running}
"""

PROVIDERS = """\
apiVersion: astromesh/v1
kind: ProviderConfig
metadata: {name: mine, version: "1", namespace: default, labels: {a: b}, annotations: {a: b}}
spec:
  providers:
    box:
      type: vllm
      endpoint: http://box:8000
      api_key: sk-1
      api_key_env: KEY
      models: [plain, {name: m, capabilities: {tools: true, vision: true}, quality_score: 0.8, cost_per_1k_tokens: 0.01}]
      share: {labels: {team: a}}
      health_check_interval: 30
      healthCheck: {interval: 30s, timeout: 5s, path: /health}
      circuitBreaker: {failureThreshold: 3, cooldownSeconds: 60}
  routing:
    default_strategy: cost_optimized
    fallback_enabled: true
    circuit_breaker: {failure_threshold: 3, recovery_timeout: 60}
status: {phase: Ready}
"""

PROVIDER = """\
apiVersion: astromesh.io/v1alpha1
kind: Provider
metadata: {name: box, version: "1", namespace: inference, labels: {a: b}, annotations: {a: b}}
spec:
  type: ollama
  endpoint: "http://ollama.inference.svc:11434"
  apiKey: sk-1
  apiKeyEnv: KEY
  models: [{name: "llama3.1:8b", capabilities: {tools: true, vision: true}, quality_score: 0.85, cost_per_1k_tokens: 0.0}]
  share: {labels: {team: a}}
  health_check_interval: 30
  healthCheck: {interval: 30s, timeout: 5s, path: /api/tags}
  circuitBreaker: {failureThreshold: 3, cooldownSeconds: 60}
status: {phase: Ready}
"""

RUNTIME = """\
apiVersion: astromesh/v1
kind: RuntimeConfig
metadata: {name: mine, version: "1", namespace: default, labels: {a: b}, annotations: {a: b}}
spec:
  api: {host: 127.0.0.1, port: 8000, tls: {cert: a.pem, key: b.pem}, cors: [https://example.org]}
  services: {api: true, agents: true, inference: true, memory: true, tools: true, channels: true, rag: true, observability: true}
  peers: [{url: http://other:8000}]
  mesh: {enabled: true, cluster_id: home, serf: true, node_name: kitchen, bind: "127.0.0.1:7946", advertise: 192.168.1.20,
    seeds: [http://gateway:8000, gateway, "gateway:7946"], profile: lan, keyring_file: /etc/astromesh/keys, mdns: true,
    heartbeat_interval: 5, gossip_interval: 2, gossip_fanout: 3, failure_timeout: 15, dead_timeout: 30}
  inference:
    models_dir: models
    memory_budget_mb: 8192
    idle_unload_seconds: 1h
    engine: auto
    models:
    - {name: a, path: a.gguf, context: 4096, gpu_layers: -1, parallel: 2, prefix_cache_mb: 512}
    - {name: b, pull: b, gpu_layers: auto}
  tools: {modules: [my.tools], http: {allow: [10.0.0.0/8, "tickets.internal:8080"]}}
  observability: {otlp: http://collector:4317}
  auth: {keys: []}
  defaults:
    orchestration:
      pattern: react
      max_iterations: 10
      timeout_seconds: 60
      workers: [{name: a, agent: b, description: c, prompt: d, role: e, max_tokens: 9}]
      peers: [{name: a, agent: b, description: c}]
      stages: [{name: a, prompt: b, agent: c, role: d, max_tokens: 9}]
      merge: concat
      max_handoffs: 1
      max_tool_result_tokens: 100
status: {phase: Running}
"""

EVERYTHING = {"Agent": AGENT, "ProviderConfig": PROVIDERS, "Provider": PROVIDER, "RuntimeConfig": RUNTIME}


def read(text: str) -> Parsed:
    return parse(text, source="all.yaml", environment={})


def known_paths(kind: str) -> list[str]:
    paths = list(field_paths(DOCUMENTS[kind]))
    return [*paths, *(f"{path}[]" for path in paths)]


def generic(path: str) -> str:
    """A written path as the tables have it."""
    path = re.sub(r"\[\d+\]", "[]", path)
    return re.sub(r"(spec\.providers|spec\.model\.roles|labels|annotations)\.[^.\[]+(/[^.\[]+)?", r"\1.*", path)


@pytest.mark.parametrize("kind", DOCUMENTS)
def test_every_key_is_either_honoured_or_not_yet(kind: str) -> None:
    honoured, not_yet = HONOURED[kind], NOT_YET[kind]
    undecided, decided_twice = [], []
    for path in field_paths(DOCUMENTS[kind]):
        works = path in honoured
        in_vain = any(path == known or path.startswith((f"{known}.", f"{known}[]")) for known in not_yet)
        holds_others = any(other.startswith((f"{path}.", f"{path}[]")) for other in (*honoured, *not_yet))
        if works and in_vain:
            decided_twice.append(path)
        if not (works or in_vain or holds_others):
            undecided.append(path)
    assert undecided == []
    assert decided_twice == []


@pytest.mark.parametrize("kind", DOCUMENTS)
def test_the_tables_name_no_key_that_does_not_exist(kind: str) -> None:
    known = known_paths(kind)
    assert [path for path in (*HONOURED[kind], *NOT_YET[kind]) if path not in known] == []
    assert [path for path in CHOICES.get(kind, {}) if path not in HONOURED[kind]] == []


@pytest.mark.parametrize("kind", DOCUMENTS)
def test_every_key_of_the_format_is_accepted(kind: str) -> None:
    parsed = read(EVERYTHING[kind])
    assert [str(mistake) for mistake in parsed.mistakes] == []
    [resource] = parsed.resources
    written = {generic(path) for path in resource.lines}  # type: ignore[union-attr]
    below_roles = "spec.model.roles.*.candidates[]"  # the same section as the primary
    below_fallback = "spec.model.fallback"
    unwritten = [
        path for path in field_paths(DOCUMENTS[kind]) if path not in written and not path.startswith((below_roles, below_fallback))
    ]
    rules = ("spec.guardrails.input[].", "spec.guardrails.output[].")  # one section, its keys spread over both lists
    inputs = {path.replace(".output[]", ".input[]") for path in written}
    assert [path for path in unwritten if not path.startswith(rules) or path.replace(".output[]", ".input[]") not in inputs] == []


@pytest.mark.parametrize("kind", DOCUMENTS)
def test_every_key_that_is_not_honoured_yet_is_warned_about_at_its_own_line(kind: str) -> None:
    text = EVERYTHING[kind]
    parsed = read(text)
    [resource] = parsed.resources
    canonical = {"healthCheck": "health_check", "circuitBreaker": "circuit_breaker"}
    warned = [re.sub("|".join(canonical), lambda found: canonical[found.group()], generic(caution.path)) for caution in parsed.warnings]
    assert [path for path in NOT_YET[kind] if path not in warned] == []
    lines = text.splitlines()
    for caution in parsed.warnings:
        last = re.sub(r"\[\d+\]$", "", caution.path.rpartition(".")[2])
        assert caution.path.endswith("]") or f"{last}:" in lines[caution.line - 1], str(caution)
    assert resource.warnings == parsed.warnings  # type: ignore[union-attr]


def agent(spec: str, *, model: str = "{provider: local, model: m}") -> Parsed:
    return read(f"apiVersion: astromesh/v1\nkind: Agent\nmetadata: {{name: a}}\nspec:\n  model: {{primary: {model}}}\n{spec}")


@pytest.mark.parametrize(
    ("spec", "line", "said"),
    [
        ("  memory: {conversational: {backend: redis}}\n", 6, "'redis': conversations are kept in SQLite"),
        ("  memory:\n    conversational:\n      connection: redis://h\n", 8, "conversations are kept in the node's data directory"),
        ("  tools:\n    - {type: mcp, name: x, url: http://x}\n", 7, "not offered to the model: tools of type mcp"),
        ("  tools:\n    - {type: builtin, name: web_search}\n", 7, "no built-in tool of this name, only datetime_now, http_request"),
        ("  permissions: {filesystem: {read: [/tmp]}}\n", 6, "IS NOT ENFORCED"),
        ("  prompts: {system: 'echo ${not-a-variable}'}\n", 6, "names no variable"),
    ],
)
def test_what_does_not_happen_is_said(spec: str, line: int, said: str) -> None:
    parsed = agent(spec)
    [caution] = parsed.warnings
    assert said in caution.message
    assert caution.line == line
    assert len(parsed.agents) == 1


def test_a_parameter_that_no_server_is_known_to_take_is_named() -> None:
    [caution] = agent("", model="{provider: local, model: m, parameters: {num_ctx: 5, top_k: 3}}").warnings
    assert (caution.line, caution.path) == (5, "spec.model.primary.parameters.num_ctx")


def test_what_asks_for_nothing_is_not_mentioned() -> None:
    parsed = agent("  guardrails: {input: [], output: []}\n  permissions: {}\n  memory: {semantic: null}\n  tools: []\n  skills: []\n")
    assert parsed.warnings == ()
    quiet = read(RUNTIME.partition("spec:")[0] + "spec:\n  api: {tls: off}\n  mesh: {serf: false, mdns: no}\n")
    assert (quiet.mistakes, quiet.warnings) == ((), ())
