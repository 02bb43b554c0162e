"""What users, files and other programs may rely on, as data: every route with its codes and keys, headers, events, codes of failures.

An item is a line of text. Those of the doors are written here, once; those of the files come from the sections that read them (`keys`), so
that no key can be forgotten. `shown` says which test shows which item; an item that no test shows is in `MISSING`, or the program warns of
it where it is written.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Promise:
    """A route. `asks`: keys of its body; `tells`: of its answer, `[]` for any position in a list."""

    route: str
    codes: tuple[int, ...]
    tells: str = ""
    asks: str = ""
    query: str = ""

    @property
    def items(self) -> Iterator[str]:
        yield from (f"{self.route} {code}" for code in self.codes)
        yield from (f"{self.route} ?{name}" for name in self.query.split())
        yield from (f"{self.route} asked {{{key}}}" for key in self.asks.split())
        yield from (f"{self.route} {{{key}}}" for key in self.tells.split())


RUN = "POST /v1/agents/{name}/run"
CHAT = "POST /v1/chat/completions"
COMPLETIONS = "POST /v1/completions"
EMBEDDINGS = "POST /v1/embeddings"
SOCKET = "GET /v1/ws/agent/{name}"
_STATE = (
    "nodes[].node_id nodes[].name nodes[].url nodes[].services nodes[].agents nodes[].models nodes[].load.cpu_percent "
    "nodes[].load.memory_percent nodes[].load.active_requests nodes[].leader nodes[].joined_at nodes[].last_heartbeat nodes[].status "
    "leader_id version"
)
_STATUS = (
    "version uptime_seconds mode agents_loaded pid services peers[].name peers[].url peers[].services mesh.enabled mesh.node_id "
    "mesh.node_name mesh.leader mesh.cluster_size mesh.status"
)
RESULT = (
    "answer steps[].thought steps[].action steps[].action_input steps[].observation steps[].result usage.tokens_in usage.tokens_out "
    "usage.model usage.by_model[].provider usage.by_model[].model usage.by_model[].role usage.by_model[].calls usage.by_model[].tokens_in "
    "usage.by_model[].tokens_out usage.by_model[].cost trace data session_id node home handoffs[].from handoffs[].to handoffs[].node "
    "blocked guardrail.direction guardrail.rule guardrail.reason"
)
_ROWS = "agents[].name agents[].version agents[].namespace agents[].status agents[].nodes agents[].warnings agents[].error"
_NODES = (
    "nodes[].node_id nodes[].name nodes[].status nodes[].role nodes[].devices nodes[].models nodes[].agents nodes[].load "
    "nodes[].link.state nodes[].link.rtt_ms"
)
_TOOLS = "tools[].name tools[].description tools[].type tools[].parameters count"
_HISTORY = "agent session_id history[].role history[].content history[].ts limit"
_MODELS = "object data[].id data[].object data[].created data[].owned_by data[].identity data[].nodes[].name data[].nodes[].state"
_CHUNKS = "id object model choices[].message.content choices[].message.tool_calls choices[].finish_reason usage.prompt_tokens"
_FOUND = "query results[].doc_id results[].content results[].metadata results[].score top_k"

ROUTES: tuple[Promise, ...] = (
    Promise("GET /v1/health", (200,), "status version"),
    Promise("GET /v1/ready", (200, 503), "ready reasons", query="agent model"),
    Promise("GET /v1/system/status", (200,), _STATUS),
    Promise("GET /v1/system/doctor", (200,), "healthy checks"),
    Promise("POST /v1/system/reload", (200, 422), "status agents providers restart_needed mistakes warnings"),
    Promise("GET /v1/agents", (200,), _ROWS, query="scope namespace"),
    Promise("GET /v1/agents/{name}", (200, 404), "apiVersion kind metadata spec", query="namespace"),
    Promise("POST /v1/agents", (201, 409, 422), "name status", "apiVersion kind metadata spec", query="namespace"),
    Promise("PUT /v1/agents/{name}", (200, 404), "agent status", "apiVersion kind metadata spec", query="namespace"),
    Promise("DELETE /v1/agents/{name}", (200, 404), "name status", query="namespace"),
    Promise("POST /v1/agents/{name}/deploy", (200, 400, 404), "agent status", query="namespace"),
    Promise("POST /v1/agents/{name}/pause", (200, 400, 404), "agent status", query="namespace"),
    Promise(RUN, (200, 404, 422, 429, 502, 503, 504), RESULT, "query session_id context stream", query="namespace"),
    Promise("GET /v1/runs/{id}/events", (200, 404, 410)),
    Promise("DELETE /v1/runs/{id}", (202, 404)),
    Promise(SOCKET, (101,), query="session_id"),
    Promise("GET /v1/memory/{agent}/history/{session}", (200, 404), _HISTORY, query="namespace"),
    Promise("DELETE /v1/memory/{agent}/history/{session}", (200, 404), "agent session_id status", query="namespace"),
    Promise("GET /v1/memory/{agent}/semantic", (200, 404), "agent query results top_k", query="query top_k"),
    Promise("GET /v1/tools", (200,), _TOOLS),
    Promise("GET /v1/tools/builtin", (200,), _TOOLS),
    Promise("POST /v1/tools/execute", (200, 404, 422), "tool result status", "tool_name arguments"),
    Promise("POST /v1/rag/ingest", (200,), "pipeline chunks", "pipeline document metadata doc_id_prefix"),
    Promise("POST /v1/rag/query", (200,), _FOUND, "pipeline query top_k"),
    Promise("GET /v1/rag/pipelines", (200,)),
    Promise("POST /v1/rag/pipelines", (201,)),
    Promise("GET /v1/rag/pipelines/{name}", (200,)),
    Promise("PUT /v1/rag/pipelines/{name}", (200,)),
    Promise("DELETE /v1/rag/pipelines/{name}", (200,)),
    Promise("GET /v1/traces", (200, 422), "traces", query="agent limit"),
    Promise("GET /v1/traces/{id}", (200, 404), "trace_id spans"),
    Promise("GET /v1/metrics", (200,), "counters gauges histograms"),
    Promise("GET /metrics", (200,)),
    Promise("GET /v1/models", (200,), _MODELS),
    Promise("GET /v1/nodes", (200,), _NODES),
    Promise("GET /v1/providers", (200,), "providers[].health providers[].breaker providers[].latency_ms providers[].cost_per_1k_tokens "
        "providers[].shared"),
    Promise("GET /v1/mesh/state", (200, 503), _STATE),
    Promise("POST /v1/mesh/join", (200, 503), "", "address"),
    Promise("POST /v1/mesh/leave", (200, 503)),
    Promise("GET /v1/routes/{request_id}", (200, 404), "candidates winner attempts"),
    Promise(CHAT, (200, 400, 404, 429, 502, 503, 504), _CHUNKS, "model messages stream tools"),
    Promise(COMPLETIONS, (200, 400, 404), "id object model choices[].text choices[].finish_reason usage.prompt_tokens", "model prompt"),
    Promise(EMBEDDINGS, (200, 400, 404), "object data[].embedding data[].index model usage.prompt_tokens", "model input"),
    Promise("POST /v1/responses", (200,)),
    Promise("POST /v1/messages", (200,)),
    Promise("GET /api/tags", (200,)),
    Promise("POST /mcp", (200,)),
    Promise("GET /openapi.json", (200,), "openapi paths components"),
    Promise("GET /docs", (200,)),
)  # fmt: skip

HEADERS = (
    "X-Request-Id", "X-Astromesh-Node", "X-Astromesh-Home", "X-Astromesh-Route", "X-Astromesh-Attempts", "X-Astromesh-Ignored",
    "Retry-After",
)  # fmt: skip
ASKED_HEADERS = ("Accept", "Last-Event-ID", "X-Astromesh-Session", "X-Request-Id")
WAYS = ("local", "peer", "warm-prefix", "failover")

EVENTS: Mapping[str, str] = {
    "status": "state", "route": "node route attempts home", "token": "content index", "tool_call": "id name arguments",
    "tool_result": "id ok", "step": "thought action action_input observation result", "handoff": "from to node",
    "failover": "from to exact", "usage": "tokens_in tokens_out model", "done": "answer session_id usage node attempts route",
    "error": "code message hint",
}  # fmt: skip
TRANSPORTS = ("stream", "socket")

PROBLEM_KEYS = ("type", "title", "status", "detail", "code", "hint")
DETAILS: Mapping[int, str] = {502: "error message hint", 504: "error agent timeout_seconds steps"}
MODEL_FAILURES = (
    "model_no_providers", "model_no_eligible_provider", "model_all_providers_failed", "model_dns_resolution_failed",
    "model_connection_refused", "model_timeout", "model_missing_api_key", "model_provider_unavailable",
)  # fmt: skip
OTHER_FAILURES = (
    "400 malformed_body", "403 foreign_origin", "404 agent_not_deployed", "404 agent_not_found", "404 model_not_found",
    "413 body_too_large", "413 too_many_values", "415 unsupported_media_type", "422 invalid_request", "422 invalid_document",
    "503 model_unavailable", "503 agent_paused", "503 mesh_off", "503 session_home_unreachable",
)  # fmt: skip
SPANS = (
    "agent.run", "memory_build", "prompt_render", "orchestration", "llm.complete", "tool.call", "memory_persist", "handoff", "peer.call",
)  # fmt: skip

BEHAVIOUR = (
    "every route answers with and without a trailing slash",
    "the OpenAI client asks a model", "the OpenAI client streams a model", "the OpenAI client hands tools to a model",
    "the OpenAI client asks an agent", "the OpenAI client streams an agent", "the OpenAI client raises its own errors",
    "clients without a session_id share nothing",
    "agents given the same session_id share nothing",
    "an agent without memory remembers nothing",
    "a later turn sees the earlier ones under sliding_window",
    "a later turn sees the earlier ones under token_budget",
    "a later turn sees the earlier ones under summary",
    "personal data is redacted as [REDACTED_EMAIL], [REDACTED_PHONE], [REDACTED_SSN], [REDACTED_CC]",
    "a breaker opens after three failures of an endpoint, and not for mistakes of the caller's",
    "a client that goes away cancels its run",
    "tools never reach loopback or private addresses that the node does not list",
    "a page of another origin drives nothing",
    "one bad file never stops the node",
    "any node answers for any agent and any model of the mesh",
    "token events are tokens as the model makes them, through every hop",
    "an unknown key is answered with those that there are",
    "${VAR} and ${VAR:-default} come from the environment, and both apiVersions are accepted",
    "a model's name may pin its file",
    "keys may be written in camelCase",
    "a secret is shown masked",
    "an endpoint is accepted with and without /v1",
)  # fmt: skip

# What does not work yet, and why; `page` asks a node for what its user is told. Of a route: everything of it.
MISSING_ROUTES = (
    "GET /v1/system/doctor", "GET /v1/memory/{agent}/semantic", "POST /v1/rag/ingest", "POST /v1/rag/query", "GET /v1/rag/pipelines",
    "POST /v1/rag/pipelines", "GET /v1/rag/pipelines/{name}", "PUT /v1/rag/pipelines/{name}", "DELETE /v1/rag/pipelines/{name}",
    "GET /v1/routes/{request_id}", "POST /v1/responses", "POST /v1/messages", "GET /api/tags", "POST /mcp",
)  # fmt: skip
# Of what has no answer to be asked for: what happens instead.
MISSING: Mapping[str, str] = {
    "event failover": "a stream that breaks off because a node died ends with an `error` event; nobody goes on with it",
    "route warm-prefix": "nobody looks yet at who has read a conversation before; the header says `local` or `peer`",
    "route failover": "before its first token a run is tried elsewhere, and `X-Astromesh-Attempts` counts it",
    "span prompt_render": "a trace has no span of this name: prompts are made between two acts",
    "span orchestration": "a trace has no span of this name: `agent.run` is the whole of an agent's part",
}


def doors() -> Iterator[str]:
    """Every item of the doors."""
    for promise in ROUTES:
        yield from promise.items
    yield from (f"header {name}" for name in HEADERS)
    yield from (f"asked header {name}" for name in ASKED_HEADERS)
    yield from (f"route {way}" for way in WAYS)
    for kind, keys in EVENTS.items():
        for transport in TRANSPORTS:
            yield from (f"{transport} event {kind} {{{key}}}" for key in keys.split())
    yield from (f"problem {{{key}}}" for key in PROBLEM_KEYS)
    for code, keys in DETAILS.items():
        yield from (f"problem {code} {{detail.{key}}}" for key in keys.split())
    yield from (f"failure 502 {code}" for code in MODEL_FAILURES)
    yield from (f"failure {failure}" for failure in OTHER_FAILURES)
    yield from (f"span {name}" for name in SPANS)
    yield from (f"behaviour: {said}" for said in BEHAVIOUR)


def missing(item: str) -> bool:
    """Whether an item of the doors does not work yet."""
    if item.partition(" event ")[2].startswith("failover "):
        return True
    return item in MISSING or any(item == route or item.startswith(f"{route} ") for route in MISSING_ROUTES)
