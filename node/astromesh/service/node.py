"""A node: opens all its parts in order and closes them in reverse.

It offers only what already works, and stops offering before it stops serving.
"""

from __future__ import annotations

import asyncio
import logging
import socket
import time
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from importlib.metadata import version

from aiohttp import web

from astromesh.api.app import build
from astromesh.api.house import House
from astromesh.errors import AgentUnusable
from astromesh.fleet.offers import Offer, OfferedAgent
from astromesh.fleet.roster import Roster
from astromesh.runtime.assembly import Assembly, Providers, assemble
from astromesh.runtime.encodings import Encoder
from astromesh.runtime.engine import AgentRuntime
from astromesh.runtime.health import ProviderHealth
from astromesh.runtime.local_models import LocalModels
from astromesh.runtime.models import Models
from astromesh.runtime.peers import ACT, COMPLETE, ENCODE, REPLY, RUN, PeerCalls, PeerServing
from astromesh.runtime.toolmaking import Toolmaker
from astromesh.service.config_dir import Configuration
from astromesh.service.devices import DeviceWatch
from astromesh.service.engine_status import EngineStatus
from astromesh.service.mesh import MeshMembership, check_seeds
from astromesh.service.meter import Meter
from astromesh.service.models import InstalledModels
from astromesh.service.ports import check_loopback, taken
from astromesh.service.record import RecordFile
from astromesh.service.settings import NodeSettings
from astromesh.service.shelf import Shelf
from astromesh.specs.runtime import Runtime
from astromesh.telemetry.metrics import Metrics
from astromesh.telemetry.trace_file import TraceFile
from astromesh.telemetry.traces import Ring
from maia.drivers.switchboard import Switchboard

log = logging.getLogger(__name__)

CONVERSATIONS_FILE = "conversations.sqlite3"  # in the data directory
GRACE_S = 20.0  # what is under way gets to end when the node is told to stop
LINGERING_S = 2.0  # what connections get to close after the last answer


class Node:
    """An open node. `house` is what its doors open to."""

    def __init__(self, settings: NodeSettings, configuration: Configuration) -> None:
        self.settings = settings
        self.configuration = configuration
        self.membership: MeshMembership | None = None
        metrics = Metrics()
        self.roster = Roster(lambda: self.membership.view if self.membership else None)
        self.peers = PeerCalls(self.roster)
        self.models = Models(node=settings.name, models_dir=str(settings.models_dir), roster=self.roster, peers=self.peers, metrics=metrics)
        self.encoder = Encoder(models=self.models, roster=self.roster, peers=self.peers, metrics=metrics)
        self.runtime = AgentRuntime(
            node=settings.name, models=self.models, peers=self.peers, roster=self.roster, metrics=metrics, traces=Ring()
        )
        self.local = LocalModels(self._publish)
        self.devices = DeviceWatch(changed=self._publish)
        self.installed = InstalledModels(settings, local=self.local, models=self.models, survey=self.devices.looker.survey)
        self.shelf = Shelf(self.installed)
        self.models.devices = lambda: self.devices.devices
        self.health = ProviderHealth(configuration.providers.values(), changed=self._publish)
        self.meter = Meter(
            active=lambda: max(self.runtime.active_runs, self.models.completing), queued=lambda: self.local.queued, changed=self._tell_load
        )
        self.house = House(
            node=settings.name,
            version=version("astromesh-node"),
            started_at=time.time(),
            runtime=self.runtime,
            models=self.models,
            encoder=self.encoder,
            roster=self.roster,
            metrics=metrics,
            mesh=None,
            model_rows=self.local.rows,
            shelf=self.shelf,
            load=lambda: self.meter.load,
            devices=lambda: self.devices.devices,
            engine=EngineStatus(self.devices),
            health=self.health,
            hosts_allowed=frozenset({settings.name, socket.gethostname()}),
            not_ready=["the node is starting"],
        )

    async def open_parts(self, stack: AsyncExitStack) -> None:
        """What a node is without any door: its providers, its agents, its models."""
        configuration = self.configuration
        runtime = configuration.runtime or Runtime.unwritten()
        providers = Providers(configuration.providers, configuration.routing)
        stack.push_async_callback(providers.close)
        self.house.metrics.watch(providers.endpoints.figures)
        self.health.meet(providers.endpoint_of)
        problems = [str(warning) for warning in configuration.warnings]
        problems += self.installed.open(runtime, providers=providers, health=self.health)
        problems += [str(mistake) for mistake in configuration.mistakes]
        for broken in configuration.broken:
            if broken.kind == "Agent" and broken.name:
                self.runtime.broken[broken.name] = str(broken.mistakes[0])
        conversations = self.settings.data / CONVERSATIONS_FILE
        toolmaker = Toolmaker(runtime.spec.tools)
        self.house.tools = toolmaker.builtin()
        assembly = Assembly(
            providers=providers,
            tools=toolmaker,
            defaults=runtime.spec.defaults.orchestration,
            conversations=conversations,
        )

        def report(name: str, mistake: AgentUnusable) -> None:
            self.runtime.broken[name] = mistake.message
            problems.append(f"{mistake.message}. {mistake.hint}")

        self.runtime.agents.update(assemble(configuration.agents, assembly, report=report))
        stack.push_async_callback(assembly.close_memories)
        problems += await assembly.open_memories()
        self.house.warnings = tuple(problems)
        for problem in problems:
            log.warning("%s", problem)
        self.house.metrics.watch(self.local.figures)
        stack.push_async_callback(self.shelf.close)
        stack.push_async_callback(self.local.close)
        self.local.open()
        stack.push_async_callback(self.health.close)
        self.health.watch(providers.asker)

    async def open_mesh(self, stack: AsyncExitStack, file: RecordFile) -> None:
        """Links first, so that whoever hears of this node can call it."""
        membership = MeshMembership(self.settings, file, offer=self._offer)
        serving = PeerServing(
            models=self.models,
            encoder=self.encoder,
            start_run=self.runtime.serve,
            start_act=self.runtime.act,
            take_reply=self.runtime.take_reply,
            metrics=self.house.metrics,
        )
        handlers = {COMPLETE: serving.complete, ENCODE: serving.encode, RUN: serving.run, ACT: serving.act, REPLY: serving.reply}
        switchboard = Switchboard(me=membership.greeting, handlers=handlers, load=self.meter.encoded, heard=membership.heard)
        board = await stack.enter_async_context(switchboard)
        try:
            await board.serve(*self.settings.link)
        except OSError as failure:
            raise taken("link", self.settings.link, failure) from failure
        self.peers.board = board
        self.membership = self.house.mesh = membership
        stack.push_async_callback(membership.stop)
        await membership.start(board)
        self.house.metrics.watch(membership.figures)
        stack.push_async_callback(self.meter.close)
        self.meter.open()

    async def open_doors(self, stack: AsyncExitStack) -> None:
        # Whoever leaves in the middle has his handler cancelled, and with it what it does elsewhere.
        runner = web.AppRunner(build(self.house), handler_cancellation=True, access_log=None, shutdown_timeout=LINGERING_S)
        await runner.setup()
        stack.push_async_callback(runner.cleanup)
        try:
            await web.TCPSite(runner, *self.settings.api).start()
        except OSError as failure:
            raise taken("api", self.settings.api, failure) from failure

    async def drain(self) -> None:
        """Takes nothing new and lets what is under way end, while doors, links and gossip stay open: nothing is cut that could have ended.

        What has not ended within `GRACE_S` is cancelled aloud by `AgentRuntime.drain`, or cut when its door closes.
        """
        self.house.not_ready.append("the node is shutting down")
        self.house.draining = True
        if self.membership is not None:
            self.membership.retire()
        links = self.peers.board.drain(GRACE_S) if self.peers.board is not None else asyncio.sleep(0)
        await asyncio.gather(self.runtime.drain(GRACE_S), links, self.models.drain(GRACE_S))

    def _offer(self) -> Offer:
        agents = tuple(OfferedAgent(agent.name, agent.namespace, agent.version) for agent in self.runtime.agents.values())
        return Offer(self.local.offered(), tuple(sorted(agents, key=lambda agent: agent.name)), self.health.offered(), self.devices.devices)

    def _tell_load(self) -> None:
        if self.membership is not None:
            self.membership.report_load(self.meter.encoded())
            self.membership.publish()

    def _publish(self) -> None:
        if self.membership is not None:
            self.membership.publish()


@asynccontextmanager
async def open_node(settings: NodeSettings, configuration: Configuration, *, doors: bool) -> AsyncIterator[Node]:
    """A whole node, or with `doors=False` one that nobody else can reach: no API, no mesh.

    Raises `ConfigurationError` for whatever must be mended before it can run.
    """
    node = Node(settings, configuration)
    async with AsyncExitStack() as stack:
        if doors:
            check_loopback("--api", settings.api)
            check_loopback("--gossip", settings.gossip)
            check_loopback("--link", settings.link)
            check_seeds(settings.join)
            file = RecordFile(settings.data)
            stack.enter_context(file.held())
            traces = node.runtime.traces.file = TraceFile(settings.data)
            stack.push_async_callback(traces.close)
            traces.open()
        await node.open_parts(stack)
        if doors and settings.mesh:
            await node.open_mesh(stack, file)
        stack.push_async_callback(node.devices.close)
        if doors:
            node.devices.open()
            await node.open_doors(stack)
        node.house.not_ready.clear()
        try:
            yield node
        finally:
            await node.drain()
