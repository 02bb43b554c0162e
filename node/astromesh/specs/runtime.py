"""The RuntimeConfig document: the node itself. Pure."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated, Literal, Self

from pydantic import AfterValidator, Field, model_validator
from pydantic_core import PydanticCustomError

from astromesh.specs.addresses import BadAddress, listed_address
from astromesh.specs.orchestration import Orchestration
from astromesh.specs.resource import Resource
from astromesh.specs.section import FileMetadata, Idle, Json, Name, Port, Seconds, Section, Texts


class Tls(Section):
    cert: str = Field(min_length=1)
    key: str = Field(min_length=1)


class Api(Section):
    host: str | None = Field(default=None, min_length=1, examples=["127.0.0.1"])
    port: Port | None = Field(default=None, examples=[8000])
    tls: Tls | bool | Literal["on", "off"] | None = None
    cors: Texts = ()


class Services(Section):
    api: bool | None = None
    agents: bool | None = None
    inference: bool | None = None
    memory: bool | None = None
    tools: bool | None = None
    channels: bool | None = None
    rag: bool | None = None
    observability: bool | None = None


class MeshSection(Section):
    enabled: bool | None = Field(default=None, examples=["true"])
    cluster_id: str | None = None
    serf: bool | None = None
    node_name: Name | None = Field(default=None, examples=["kitchen"])
    bind: str | None = Field(default=None, min_length=1, examples=["127.0.0.1:7946"])
    advertise: str | None = Field(default=None, min_length=1, examples=["192.168.1.20"])
    seeds: Texts | None = Field(default=None, examples=['["192.168.1.20:7946"]'])
    profile: Literal["lan-fast", "lan", "wan"] | None = None
    keyring_file: str | None = None
    mdns: bool | None = None
    heartbeat_interval: Seconds | None = None
    gossip_interval: Seconds | None = None
    gossip_fanout: int | None = Field(default=None, ge=1)
    failure_timeout: Seconds | None = None
    dead_timeout: Seconds | None = None


class ServedModel(Section):
    """A model that this node loads: installed under its name, from a file, or pulled first."""

    name: str = Field(min_length=1, examples=["smollm2"])
    path: str | None = Field(default=None, min_length=1, examples=["models/smollm2.gguf"])
    pull: str | None = Field(default=None, min_length=1, examples=["smollm2"])
    context: int | None = Field(default=None, ge=1, examples=[4096])
    # auto, which is also what it is unsaid: as many as the cards have room for; -1: all of them, whatever the cards say
    gpu_layers: Annotated[int, Field(ge=-1)] | Literal["auto"] | None = Field(default=None, examples=["auto"])
    parallel: int | None = Field(default=None, ge=1, le=60, examples=[2])  # as many as one decode takes
    prefix_cache_mb: int | None = Field(default=None, ge=0, examples=[512])  # 0: every prompt is read anew

    @model_validator(mode="after")
    def _from_one_place(self) -> Self:
        if self.path is not None and self.pull is not None:
            remedy = "Keep 'path' for a file of your own, or 'pull' for a model to fetch."
            raise PydanticCustomError("two_places", "{expected}", {"expected": "'path' and 'pull' exclude each other", "remedy": remedy})
        return self


IDLE_UNLOAD_DEFAULT_S = 3600.0  # long enough for a day's work, short enough for the memory of a machine that others use at night


class Inference(Section):
    models_dir: str | None = Field(default=None, min_length=1)
    memory_budget_mb: int | None = Field(default=None, ge=1, le=100_000_000, examples=[8192])  # of all models together
    idle_unload_seconds: Idle | None = Field(default=None, examples=[3600])  # 0: never
    engine: Literal["auto", "llama_cpp", "xllamacpp"] | None = Field(default=None, examples=["auto"])  # auto: the compiled one, if there
    models: tuple[ServedModel, ...] = ()


def _listed(value: str) -> str:
    try:
        listed_address(value)
    except BadAddress as mistake:
        remedy = "Write 10.0.0.0/8, 10.0.0.5:8080, or tickets.internal:8080."
        raise PydanticCustomError("address", "{expected}", {"expected": str(mistake), "remedy": remedy}) from None
    return value


Reachable = Annotated[str, AfterValidator(_listed)]


class HttpAccess(Section):
    allow: tuple[Reachable, ...] = Field(default=(), examples=['["10.0.0.0/8"]'])  # beyond public addresses


class NodeTools(Section):
    modules: Texts = Field(default=(), examples=["[shop.tools]"])  # the only ones that functions of agents come from
    http: HttpAccess = HttpAccess()


class Defaults(Section):
    orchestration: Orchestration = Orchestration()


class RuntimeSpec(Section):
    api: Api = Api()
    services: Services | None = None
    peers: tuple[Json, ...] = ()
    mesh: MeshSection = MeshSection()
    inference: Inference = Inference()
    tools: NodeTools = NodeTools()
    observability: Json = None
    auth: Json = None
    defaults: Defaults = Defaults()


class RuntimeDocument(Section):
    api_version: str
    kind: Literal["RuntimeConfig"]
    metadata: FileMetadata = FileMetadata()
    spec: RuntimeSpec = RuntimeSpec()
    status: Json = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Runtime(Resource[RuntimeSpec]):
    @property
    def kind(self) -> str:
        return "RuntimeConfig"

    @property
    def models(self) -> tuple[ServedModel, ...]:
        return self.spec.inference.models

    @staticmethod
    def unwritten() -> Runtime:
        """The node of someone who wrote no file: defaults, which work."""
        return Runtime(metadata=FileMetadata(), spec=RuntimeSpec(), source="default", line=0, written={}, lines={})
