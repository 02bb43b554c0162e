"""The rooms of one node, joined and without doors: what a test of the runtime or of the API stands in."""

from __future__ import annotations

from collections.abc import AsyncIterable, AsyncIterator, Iterable, Mapping
from contextlib import AsyncExitStack, asynccontextmanager
from typing import Any, TypeVar

from tests.rig.mesh_view import member, mesh_view

from astromesh.dialogue import Transcript
from astromesh.errors import AstromeshError
from astromesh.fleet.devices import Devices
from astromesh.fleet.loads import Load
from astromesh.fleet.roster import Roster
from astromesh.inference.devices import Inventory, Processor
from astromesh.inference.engines import EngineFacts, status_document
from astromesh.memory.backends.in_memory import InMemory
from astromesh.memory.port import ConversationMemory
from astromesh.memory.window import Window
from astromesh.orchestration.plan import Part
from astromesh.orchestration.prompt import Template
from astromesh.providers.port import ModelProvider
from astromesh.runtime.agent import Agent
from astromesh.runtime.encodings import Encoder
from astromesh.runtime.engine import AgentRuntime, Run
from astromesh.runtime.events import RunEvent, RunRequest
from astromesh.runtime.health import ProviderHealth
from astromesh.runtime.histories import HISTORY
from astromesh.runtime.models import LocalModel, Models
from astromesh.runtime.peers import ACT, COMPLETE, ENCODE, REPLY, RUN, PeerCalls, PeerServing
from astromesh.runtime.run_calls import CANCEL, FIND, FOLLOW, RunCallServing
from astromesh.runtime.targets import Choice, Target
from astromesh.telemetry.metrics import Metrics
from astromesh.telemetry.traces import Ring
from astromesh.tools.port import Tool
from astromesh.tools.toolbox import Toolbox
from maia.config import Address
from maia.drivers.switchboard import Switchboard
from maia.links.greeting import Greeting
from maia.view import MemberView, MeshView

T = TypeVar("T")

MODEL = "m"
TWENTY_TURNS = Window(turns_max=20)


def an_agent(
    name: str = "desk",
    *,
    provider: ModelProvider | None = None,
    model: str = MODEL,
    choices: Mapping[str, Choice] | None = None,
    system: str = "",
    context: str = "",
    turns: int = 4,
    tools: Iterable[Tool] = (),
    memory: ConversationMemory | None = None,
    window: Window = TWENTY_TURNS,
    forgets_after_s: float | None = None,
    timeout_s: float = 60.0,
    warnings: tuple[str, ...] = (),
) -> Agent:
    """Without a `provider` it asks for `model` wherever the mesh has it. `choices`: by role, instead of that."""
    toolbox = Toolbox(tools)
    system_prompt, preface = Template(system, where="prompts.system"), Template(context, where="prompts.context")
    return Agent(
        name=name,
        namespace="default",
        version="1.0.0",
        part=Part(name, system_prompt, preface, turns, tools=toolbox.schemas, remembers=memory is not None),
        choices={"default": Choice((Target(model, provider=provider),), name=name)} | dict(choices or {}),
        timeout_s=timeout_s,
        toolbox=toolbox,
        memory=memory,
        window=window,
        forgets_after_s=forgets_after_s,
        document={"kind": "Agent", "metadata": {"name": name}},
        warnings=warnings,
    )


class Neighbours(PeerCalls):
    """Other nodes without links: by wire name, who completes there."""

    def __init__(self, roster: Roster) -> None:
        super().__init__(roster)
        self.models: dict[str, ModelProvider] = {}

    def model_on(self, member: MemberView) -> Any:
        return self.models[member.name].complete


class Unshuffled:
    """What decides between two equals in the rooms of a test: their names."""

    def shuffle(self, items: list[Any], /) -> None: ...

    def uniform(self, a: float, b: float, /) -> float:
        return a


class Rooms:
    """One node. Its view of the mesh, its models and its agents are the test's to change at any time."""

    def __init__(self, node: str = "here", *, linked: bool = False) -> None:
        """`linked`: its peers are called over real links, for which `open_door` is needed; otherwise they are `neighbours`."""
        self.node = node
        self.view: MeshView | None = None
        self.metrics = Metrics()
        self.traces = Ring()
        self.memory = InMemory()
        self.load = Load(12.5, 50.0, 3, 1)
        self.devices = Devices()
        self.health = ProviderHealth((), changed=lambda: None)
        self.roster = Roster(lambda: self.view)
        self.neighbours = Neighbours(self.roster)
        self.peers = PeerCalls(self.roster) if linked else self.neighbours
        self.models = Models(node=node, roster=self.roster, peers=self.peers, metrics=self.metrics, random=Unshuffled())
        self.encoder = Encoder(models=self.models, roster=self.roster, peers=self.peers, metrics=self.metrics)
        self.runtime = AgentRuntime(
            node=node,
            models=self.models,
            peers=self.peers,
            roster=self.roster,
            metrics=self.metrics,
            traces=self.traces,
            random=Unshuffled(),
        )

    async def engine(self) -> Mapping[str, Any]:
        """What it says of its engine: one for the processor alone."""
        facts = EngineFacts((("llama-cpp-python", "1"),), ("CPU",), ("AVX2",))
        return status_document(facts, Inventory(), Processor("A processor", 2, 4, ("avx2",)), cached={}, platform="linux")

    def sees(self, *others: MemberView) -> None:
        me = member(f"{self.node}-000000")
        self.view = mesh_view(*others, me=me, version=self.view.version + 1 if self.view else 1)

    def has(self, model: ModelProvider, *, name: str = MODEL, ready: bool = True) -> None:
        self.models.local[name] = LocalModel(model, lambda: ready)

    def hosts(self, *agents: Agent) -> None:
        self.runtime.agents.update({agent.name: agent for agent in agents})

    def start(
        self,
        query: str = "Hello",
        *,
        agent: str = "desk",
        session_id: str | None = None,
        context: Mapping[str, Any] | None = None,
        watched: bool = True,
        history: Transcript | None = None,
        request_id: str = "r1",
    ) -> Run:
        asked = RunRequest(agent, query, session_id=session_id, context=context or {}, watched=watched, history=history)
        return self.runtime.start(asked, request_id=request_id)

    async def ask(self, query: str = "Hello", **how: Any) -> Mapping[str, Any]:
        """A whole run: the data of its `done`."""
        return (await all_events(self.start(query, **how)))[-1].data

    @asynccontextmanager
    async def open_door(self, port: int = 0) -> AsyncIterator[Address]:
        """Serves calls of other nodes on loopback, under its own name, and lets this one call others."""
        serving = PeerServing(
            models=self.models,
            encoder=self.encoder,
            start_run=self.runtime.serve,
            start_act=self.runtime.act,
            take_reply=self.runtime.take_reply,
            metrics=self.metrics,
        )
        async with AsyncExitStack() as stack:
            me = Greeting(f"{self.node}-000000", f"id-{self.node}")
            handlers = {COMPLETE: serving.complete, ENCODE: serving.encode, RUN: serving.run, ACT: serving.act, REPLY: serving.reply}
            about_runs = RunCallServing(self.runtime.recent, self.metrics)
            handlers |= {FIND: about_runs.find, FOLLOW: about_runs.follow, CANCEL: about_runs.cancel}
            handlers |= {HISTORY: self.runtime.histories.serve}
            board = await stack.enter_async_context(Switchboard(me=me, handlers=handlers, finishing=(REPLY,)))
            port = await board.serve("127.0.0.1", port)
            self.peers.board = board
            yield Address("127.0.0.1", port)


async def drained(stream: AsyncIterable[T]) -> tuple[list[T], AstromeshError | None]:
    """All that came, and the failure that ended it."""
    seen: list[T] = []
    try:
        async for item in stream:
            seen.append(item)  # noqa: PERF401  what came before a failure is kept
    except AstromeshError as failure:
        return seen, failure
    return seen, None


async def all_events(run: Run) -> list[RunEvent]:
    try:
        return [event async for event in run.events]
    finally:
        await run.close()
