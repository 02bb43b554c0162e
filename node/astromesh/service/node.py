"""A node: opens all its parts in order and closes them in reverse.

It offers only what already works, and stops offering before it stops serving.
"""

from __future__ import annotations

import asyncio
import logging
import os
import socket
import time
from collections.abc import AsyncIterator, Mapping
from contextlib import AsyncExitStack, asynccontextmanager
from importlib.metadata import version
from typing import Any

from aiohttp import web

from astromesh.api.app import build
from astromesh.api.house import House
from astromesh.fleet.offers import Offer
from astromesh.fleet.roster import Roster
from astromesh.runtime.agent_calls import CHANGE, SHOW, AgentCallServing
from astromesh.runtime.assembly import Assembly, Providers
from astromesh.runtime.encodings import Encoder
from astromesh.runtime.engine import AgentRuntime
from astromesh.runtime.health import ProviderHealth
from astromesh.runtime.histories import HISTORY
from astromesh.runtime.local_models import LocalModels
from astromesh.runtime.models import Models
from astromesh.runtime.peers import ACT, COMPLETE, ENCODE, REPLY, RUN, PeerCalls, PeerServing
from astromesh.runtime.run_calls import CANCEL, FIND, FOLLOW, RunCallServing
from astromesh.runtime.toolmaking import Toolmaker
from astromesh.service.agent_files import AgentFiles
from astromesh.service.config_dir import Configuration, Found, load
from astromesh.service.devices import DeviceWatch
from astromesh.service.engine_status import EngineStatus
from astromesh.service.lifecycle import AgentLifecycle
from astromesh.service.mesh import MeshMembership, check_seeds
from astromesh.service.meter import Meter
from astromesh.service.models import InstalledModels
from astromesh.service.ports import check_loopback, taken
from astromesh.service.record import RecordFile
from astromesh.service.reload import (
    difference,
    in_a_line,
    new_mistakes,
    newly_broken,
    refusal,
    restart_needed,
    same_surroundings,
    written_agents,
    written_providers,
)
from astromesh.service.settings import NodeSettings, set_aside
from astromesh.service.shelf import Shelf
from astromesh.specs.runtime import Runtime
from astromesh.telemetry.metrics import Metrics
from astromesh.telemetry.trace_file import TraceFile
from astromesh.telemetry.traces import Ring
from maia.drivers.switchboard import Switchboard

log = logging.getLogger(__name__)

AGENTS_FOLDER = "agents"  # in the data directory: what came over the API
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
        self.models = Models(node=settings.name, roster=self.roster, peers=self.peers, metrics=metrics)
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
        self.lifecycle = AgentLifecycle(
            node=settings.name,
            runtime=self.runtime,
            roster=self.roster,
            peers=self.peers,
            files=AgentFiles(settings.data / AGENTS_FOLDER),
            environment=os.environ,
            changed=self._publish,
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
            lifecycle=self.lifecycle,
            reload=self.reload,
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
        runtime = self._running = configuration.runtime or Runtime.unwritten()
        self.providers = Providers(configuration.providers, configuration.routing)
        stack.push_async_callback(self.providers.close)
        self.house.metrics.watch(self.providers.endpoints.figures)
        self.health.meet(self.providers.endpoint_of)
        opened = self.installed.open(runtime, providers=self.providers, health=self.health)
        problems = self.installed.share(self.providers, self.health)
        lasting = [problem for problem in opened if problem not in problems]
        self.tools = Toolmaker(runtime.spec.tools)
        self.house.tools = self.tools.builtin()
        self.assembly = Assembly(
            providers=self.providers,
            tools=self.tools,
            defaults=runtime.spec.defaults.orchestration,
            conversations=self.settings.data / CONVERSATIONS_FILE,
        )
        lasting += self.lifecycle.open(configuration, self.assembly)
        problems += self.lifecycle.troubles()
        stack.push_async_callback(self.assembly.close_memories)
        stack.push_async_callback(self.lifecycle.close)
        lasting += await self.assembly.open_memories()
        if configuration.runtime is None:
            lasting.insert(0, set_aside(configuration.folder, self.settings))
        self._lasting = tuple(lasting)
        self.house.warnings = (*map(str, configuration.warnings), *lasting, *problems, *map(str, configuration.mistakes))
        for problem in self.house.warnings:
            log.warning("%s", problem)
        self.house.metrics.watch(self.local.figures)
        stack.push_async_callback(self.shelf.close)
        stack.push_async_callback(self.local.close)
        self.local.open()
        stack.push_async_callback(self.health.close)
        self.health.watch(self.providers.asker)

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
        about_agents = AgentCallServing(self.lifecycle, self.house.metrics)
        handlers |= {CHANGE: about_agents.change, SHOW: about_agents.show, HISTORY: self.runtime.histories.serve}
        about_runs = RunCallServing(self.runtime.recent, self.house.metrics)
        handlers |= {FIND: about_runs.find, FOLLOW: about_runs.follow, CANCEL: about_runs.cancel}
        switchboard = Switchboard(
            me=membership.greeting, handlers=handlers, load=self.meter.encoded, heard=membership.heard, finishing=(REPLY,)
        )
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
        self.models.url = f"http://{self.settings.api}"
        if not self.settings.join:  # else the others have yet to be met
            for agent in self.runtime.agents.values():
                for absence in self.runtime.absences(agent):
                    log.warning("agent %s: %s", agent.key, absence)

    async def reload(self) -> Mapping[str, Any]:
        """Reads the files again and takes over what changed, all of it or nothing. Raises `ReloadRefused`.

        Runs that began go on with what they began with.
        """
        async with self.lifecycle.alone():
            before = self.configuration
            after = await asyncio.to_thread(load, Found(before.folder, before.origin), environment=os.environ)
            written = after.runtime or self._running
            providers = self.providers.renewed(after.providers, after.routing)
            tools = self.tools.renewed(written.spec.tools)
            assembly = self.assembly.renewed(providers=providers, tools=tools, defaults=written.spec.defaults.orchestration)
            same = same_surroundings(before, after, running=self._running)
            agents = self.lifecycle.agents
            built = await asyncio.to_thread(self.lifecycle.standings, after, assembly, unchanged=lambda _: same)
            mistakes = new_mistakes(before, after)
            broken = newly_broken(agents, built, said=after.mistakes)
            if mistakes or broken:
                refused = refusal(mistakes, broken)
                for line in refused.message.splitlines():
                    log.error("%s", line)
                raise refused
            # From here to the end of this block nothing waits and nothing fails: nobody sees half of it.
            self.configuration, self.providers, self.tools, self.assembly = after, providers, tools, assembly
            self.house.tools = tools.builtin()
            self.health.follow(after.providers.values())
            self.health.meet(providers.endpoint_of)
            providers.settle()
            self.health.watch(providers.asker)
            problems = self.installed.share(providers, self.health)
            self.lifecycle.adopt(after, assembly, built)
            problems += self.lifecycle.troubles()
            waiting = restart_needed(self._running, written)
            self.house.warnings = (*map(str, after.warnings), *self._lasting, *problems, *waiting, *map(str, after.mistakes))
        problems += await assembly.open_memories()
        answer = {
            "status": "reloaded",
            "agents": difference(written_agents(before), written_agents(after)),
            "providers": difference(written_providers(before), written_providers(after)),
            "restart_needed": waiting,
            "mistakes": [str(mistake) for mistake in after.mistakes],
            "warnings": [*map(str, after.warnings), *problems],
        }
        log.info("files read again: %s", in_a_line(answer))
        return answer

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
        return Offer(self.local.offered(), self.lifecycle.offered, self.health.offered(), self.devices.devices)

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
