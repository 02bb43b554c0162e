"""The Agent document. Pure.

The sections accept all that the format has; what a node makes of it so far is in `honoured`.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Annotated, Any, ClassVar, Literal, Self

from pydantic import BeforeValidator, ConfigDict, Field, model_validator
from pydantic_core import PydanticCustomError

from astromesh.dialogue import Sampling
from astromesh.specs.orchestration import HAND_OFFS_DEFAULT, Merge, Orchestration, Pattern
from astromesh.specs.resource import Resource
from astromesh.specs.section import Json, Metadata, Retention, Seconds, Secret, Section, Texts, Url

ITERATIONS_DEFAULT = 10
TIMEOUT_DEFAULT_S = 300.0  # of one run: ten answers of a small model on a laptop without a GPU take minutes
WINDOW_TURNS_DEFAULT = 20
TURNS_MAX = 1000
BUDGET_TOKENS_DEFAULT = 2048  # half of the context that a local model gets by default

Strategy = Literal["cost_optimized", "latency_optimized", "quality_first", "round_robin", "capability_match"]
ToolType = Literal[
    "internal", "builtin", "mcp", "mcp_stdio", "mcp_sse", "mcp_http", "webhook", "rag", "agent", "client", "api", "a2a", "integration"
]
GuardrailType = Literal["pii_detection", "topic_filter", "max_length", "cost_limit", "content_filter"]
GuardrailAction = Literal["redact", "block", "warn"]


class Identity(Section):
    display_name: str | None = None
    description: str | None = None
    avatar: str | None = None


class Parameters(Section):
    """How tokens are picked. Other keys are for other servers: taken, and named in a warning."""

    model_config = ConfigDict(extra="allow")
    ALSO: ClassVar[Mapping[str, str]] = {"max_completion_tokens": "max_tokens", "repetition_penalty": "repeat_penalty"}

    temperature: float | None = Field(default=None, ge=0, examples=[0.7])
    top_p: float | None = Field(default=None, ge=0, le=1, examples=[0.9])
    top_k: int | None = Field(default=None, ge=0, examples=[40])
    min_p: float | None = Field(default=None, ge=0, le=1, examples=[0.05])
    max_tokens: int | None = Field(default=None, ge=1, examples=[512])
    stop: str | Texts | None = Field(default=None, examples=['["END"]'])
    seed: int | None = None
    presence_penalty: float | None = Field(default=None, ge=-2, le=2, examples=[0.5])
    frequency_penalty: float | None = Field(default=None, ge=-2, le=2, examples=[0.5])
    repeat_penalty: float | None = Field(default=None, gt=0, examples=[1.1])

    @property
    def sampling(self) -> Sampling:
        stop = (self.stop,) if isinstance(self.stop, str) else self.stop or ()
        return Sampling(
            temperature=self.temperature, top_p=self.top_p, top_k=self.top_k, min_p=self.min_p, seed=self.seed,
            presence_penalty=self.presence_penalty, frequency_penalty=self.frequency_penalty, repeat_penalty=self.repeat_penalty,
            max_tokens=self.max_tokens, stop=stop,
        )  # fmt: skip


class ModelRequires(Section):
    gpu: bool | None = None
    vram_gb: float | None = Field(default=None, ge=0)
    min_tok_s: float | None = Field(default=None, ge=0)


def _reference(value: Any) -> Any:
    return value["name"] if isinstance(value, dict) and set(value) == {"name"} else value


class ModelTarget(Section):
    """A model and who serves it: a provider's name or type, or `local`, the models of this mesh."""

    ALSO: ClassVar[Mapping[str, str]] = {"source": "provider"}

    provider: str | None = Field(default=None, min_length=1, examples=["local"])
    model: str = Field(min_length=1, examples=["smollm2"])
    endpoint: Url | None = Field(default=None, examples=["http://127.0.0.1:11434"])
    api_key: Secret | None = Field(default=None, examples=["${OPENAI_API_KEY}"])
    api_key_env: str | None = Field(default=None, examples=["OPENAI_API_KEY"])
    timeout: Seconds | None = Field(default=None, examples=[60])
    parameters: Parameters = Parameters()
    provider_ref: Annotated[str, BeforeValidator(_reference)] | None = None
    requires: ModelRequires | None = None
    context_window: int | None = Field(default=None, ge=1, examples=[8192])

    @model_validator(mode="after")
    def _served_by_someone(self) -> Self:
        if self.provider is None and self.provider_ref is None:
            remedy = "Add 'provider: local' for a model of this mesh, or the name or type of a provider."
            raise PydanticCustomError("no_provider", "{expected}", {"expected": "no provider is named", "remedy": remedy})
        return self

    @property
    def served_by(self) -> str:
        return self.provider_ref or self.provider or ""

    @property
    def is_local(self) -> bool:
        return self.provider_ref is None and self.provider == "local"


class Candidates(Section):
    candidates: tuple[ModelTarget, ...] = Field(min_length=1)
    strategy: Strategy | None = None


class ModelRouting(Section):
    strategy: Strategy | None = None
    health_check_interval: Seconds | None = None


@dataclass(frozen=True, slots=True)
class PlacedTarget:
    """`path`: where the document says it."""

    path: str
    target: ModelTarget


@dataclass(frozen=True, slots=True)
class RoleModels:
    """The models that may answer in one role, in the order of the document."""

    role: str
    targets: tuple[PlacedTarget, ...]
    strategy: Strategy | None


def _placed(path: str, candidates: Candidates) -> list[PlacedTarget]:
    return [PlacedTarget(f"{path}.candidates[{number}]", target) for number, target in enumerate(candidates.candidates)]


class ModelChoice(Section):
    primary: ModelTarget | None = None
    fallback: ModelTarget | tuple[ModelTarget, ...] | None = None
    routing: ModelRouting | None = None
    default: Candidates | None = None
    roles: Mapping[str, Candidates] = {}

    @model_validator(mode="after")
    def _someone_answers(self) -> Self:
        if self.primary is None and self.default is None:
            remedy = "Add 'primary: {provider: local, model: smollm2}'."
            raise PydanticCustomError("no_model", "{expected}", {"expected": "no model is named", "remedy": remedy})
        if "default" in self.roles:
            remedy = "Write these candidates at spec.model.default."
            said = "roles.default: the default is no role of its own"
            raise PydanticCustomError("default_role", "{expected}", {"expected": said, "remedy": remedy})
        return self

    @property
    def first(self) -> ModelTarget:
        return self.by_role[0].targets[0].target

    @property
    def by_role(self) -> tuple[RoleModels, ...]:
        """Who answers in each role: the default first, with the primary, its fallbacks and its candidates in this order."""
        strategy = self.routing.strategy if self.routing is not None else None
        fallback = self.fallback if isinstance(self.fallback, tuple) else (self.fallback,) if self.fallback is not None else ()
        several = isinstance(self.fallback, tuple)
        default = [
            *((PlacedTarget("spec.model.primary", self.primary),) if self.primary is not None else ()),
            *(PlacedTarget(f"spec.model.fallback{f'[{n}]' * several}", target) for n, target in enumerate(fallback)),
            *(_placed("spec.model.default", self.default) if self.default is not None else ()),
        ]
        own = self.default.strategy if self.default is not None else None
        return (
            RoleModels("default", tuple(default), own or strategy),
            *(
                RoleModels(role, tuple(_placed(f"spec.model.roles.{role}", candidates)), candidates.strategy or strategy)
                for role, candidates in self.roles.items()
            ),
        )


class Prompts(Section):
    system: str = ""
    templates: Mapping[str, str] = {}
    context: str = ""


class RateLimit(Section):
    window_seconds: Seconds = 60.0
    max_calls: int | None = Field(default=None, ge=1, le=10_000, examples=[10])  # each is remembered for as long as the window is


class Tool(Section):
    """Keys of all types of tool in one place; which of them a type uses is for `tools` to say."""

    ALSO: ClassVar[Mapping[str, str]] = {"url": "endpoint"}

    type: ToolType = Field(examples=["builtin"])
    name: str | None = Field(default=None, min_length=1, examples=["datetime_now"])
    description: str | None = None
    max_result_tokens: int | None = Field(default=None, ge=1)
    parameters: Mapping[str, Json] = {}
    rate_limit: RateLimit | None = None
    permissions: Texts | None = None  # what it does, besides its name, for allowed_actions and denied_actions
    endpoint: Url | None = Field(default=None, examples=["https://tickets.example.org/api"])
    method: str | None = None
    headers: Mapping[str, Secret] = {}
    pipeline: str | None = None
    top_k: int | None = Field(default=None, ge=1)
    agent: str | None = None
    function: str | None = None
    command: str | None = None
    args: Texts = ()
    env: Mapping[str, Secret] = {}
    transport: str | None = None

    @model_validator(mode="after")
    def _named(self) -> Self:
        if not self.called and self.type in ("builtin", "internal", "webhook"):
            remedy = f"Add 'name: {'datetime_now' if self.type == 'builtin' else 'create_ticket'}'."
            raise PydanticCustomError("no_tool", "{expected}", {"expected": "the tool has no name", "remedy": remedy})
        return self

    @property
    def called(self) -> str:
        """Its name for the model: unsaid, that of the function or of the agent."""
        function = (self.function or "").rpartition(":")[2] if self.type == "internal" else ""
        agent = (self.agent or "").rpartition("/")[2] if self.type == "agent" else ""
        return self.name or function or agent


class ConversationalMemory(Section):
    ALSO: ClassVar[Mapping[str, str]] = {"window_size": "max_turns"}

    backend: Literal["sqlite", "redis", "postgres", "in_memory"] | None = None
    strategy: Literal["sliding_window", "summary", "token_budget"] | None = None
    max_turns: int | None = Field(default=None, ge=1, le=TURNS_MAX, examples=[20])
    max_tokens: int | None = Field(default=None, ge=1)
    ttl: Retention | None = Field(default=None, examples=["30d"])
    connection: Secret | None = None


class SemanticMemory(Section):
    backend: Literal["hnswlib", "faiss", "pgvector", "chromadb", "qdrant", "in_memory"] | None = None
    collection: str | None = None
    similarity_threshold: float = Field(default=0.75, ge=0, le=1)
    max_results: int = Field(default=10, ge=1)
    connection: Secret | None = None


class EpisodicMemory(Section):
    backend: Literal["sqlite", "postgres"] | None = None
    connection: Secret | None = None


class Memory(Section):
    conversational: ConversationalMemory | None = None
    semantic: SemanticMemory | None = None
    episodic: EpisodicMemory | None = None


class Guardrail(Section):
    ALSO: ClassVar[Mapping[str, str]] = {"forbidden_topics": "blocked_topics", "max_characters": "max_chars"}

    type: GuardrailType = Field(examples=["pii_detection"])
    action: GuardrailAction | None = None
    message: str | None = None
    blocked_topics: Texts = ()
    allowed_topics: Texts = ()
    max_chars: int | None = Field(default=None, ge=1)
    max_tokens_per_turn: int | None = Field(default=None, ge=1)
    max_tokens_per_session: int | None = Field(default=None, ge=1)
    blocked_patterns: Texts = ()
    forbidden_keywords: Texts = ()

    @property
    def does(self) -> GuardrailAction:
        """Its action, or what is usual for its type: personal data is redacted, everything else blocks."""
        return self.action or ("redact" if self.type == "pii_detection" else "block")


class Guardrails(Section):
    input: tuple[Guardrail, ...] = ()
    output: tuple[Guardrail, ...] = ()


class Filesystem(Section):
    read: bool | Texts | None = None
    write: bool | Texts | None = None


class Network(Section):
    allowed: bool | Texts | None = None


class Execution(Section):
    dry_run: bool = False


class Permissions(Section):
    allowed_actions: Texts | None = None
    denied_actions: Texts | None = None
    filesystem: Filesystem | None = None
    network: Network | None = None
    execution: Execution | None = None


class Knowledge(Section):
    pipeline: str
    top_k: int | None = Field(default=None, ge=1)


class PlacementRequires(Section):
    gpu: bool | None = None
    vram_gb: float | None = Field(default=None, ge=0)
    model: str | None = None


class Placement(Section):
    nodes: Texts = ()
    labels: Mapping[str, str] = {}
    requires: PlacementRequires | None = None
    replicas: int | None = Field(default=None, ge=1)


class AgentSpec(Section):
    identity: Identity = Identity()
    model: ModelChoice
    prompts: Prompts = Prompts()
    orchestration: Orchestration = Orchestration()
    tools: tuple[Tool, ...] = ()
    memory: Memory = Memory()
    guardrails: Guardrails = Guardrails()
    permissions: Permissions | None = None
    output_schema: Mapping[str, Json] | None = None
    knowledge: Knowledge | None = None
    placement: Placement | None = None
    channels: tuple[Json, ...] = ()
    observability: Json = None
    skills: tuple[Json, ...] = ()
    prefetch: tuple[Json, ...] = ()
    judge: Json = None
    chain: Json = None


class AgentDocument(Section):
    api_version: str
    kind: Literal["Agent"]
    metadata: Metadata
    spec: AgentSpec
    status: Json = None


@dataclass(frozen=True, slots=True)
class Limits:
    """What one run may take: `iterations` answers of the model, `timeout_s` in all."""

    pattern: Pattern
    iterations: int
    timeout_s: float
    hand_offs_max: int = HAND_OFFS_DEFAULT
    merge: Merge = "model"


@dataclass(frozen=True, slots=True)
class Remembering:
    """What an agent keeps of a conversation. `turns_max` and `tokens_max` are of its prompts: what is kept is bounded by the memory."""

    backend: Literal["in_memory", "sqlite"]
    strategy: Literal["sliding_window", "summary", "token_budget"]
    turns_max: int
    tokens_max: int | None
    ttl_s: float | None  # since the last turn


@dataclass(frozen=True, slots=True, kw_only=True)
class Agent(Resource[AgentSpec]):
    @property
    def kind(self) -> str:
        return "Agent"

    @property
    def version(self) -> str:
        return self.metadata.version or ""

    @property
    def model(self) -> ModelTarget:
        return self.spec.model.first

    @property
    def sampling(self) -> Sampling:
        return self.model.parameters.sampling

    @property
    def system_prompt(self) -> str:
        return self.spec.prompts.system

    @property
    def context_prompt(self) -> str:
        return self.spec.prompts.context

    @property
    def remembering(self) -> Remembering | None:
        """What it remembers of a conversation, and where; None: nothing."""
        said = self.spec.memory.conversational
        if said is None:
            return None
        # Backends that do not exist yet are warned about; a conversation that was to outlive the node does so in the one that does.
        backend: Literal["in_memory", "sqlite"] = "in_memory" if said.backend == "in_memory" else "sqlite"
        strategy = said.strategy or "sliding_window"
        budget = strategy == "token_budget"
        return Remembering(
            backend,
            strategy,
            turns_max=said.max_turns or (TURNS_MAX if budget else WINDOW_TURNS_DEFAULT),
            tokens_max=said.max_tokens or (BUDGET_TOKENS_DEFAULT if budget else None),
            ttl_s=said.ttl,
        )

    def limits(self, defaults: Orchestration | None = None) -> Limits:
        """Its own, else `spec.defaults.orchestration` of the node, else the shipped ones."""
        layers = [self.spec.orchestration, defaults or Orchestration()]
        return Limits(
            pattern=next((layer.pattern for layer in layers if layer.pattern is not None), "react"),
            iterations=next((layer.max_iterations for layer in layers if layer.max_iterations is not None), ITERATIONS_DEFAULT),
            timeout_s=next((layer.timeout_seconds for layer in layers if layer.timeout_seconds is not None), TIMEOUT_DEFAULT_S),
            hand_offs_max=next((layer.max_handoffs for layer in layers if layer.max_handoffs is not None), HAND_OFFS_DEFAULT),
            merge=next((layer.merge for layer in layers if layer.merge is not None), "model"),
        )
