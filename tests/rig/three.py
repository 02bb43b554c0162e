"""Three nodes in one process that call each other over real links on loopback."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager

from tests.rig.held_model import AMPLE_S
from tests.rig.mesh_view import member
from tests.rig.rooms import Rooms

from astromesh.fleet.offers import OfferedAgent
from maia.config import Address


class Three:
    """What one node sees of the others' offers is what they had when they `meet`, and the test's to change."""

    def __init__(self) -> None:
        self.nodes = {name: Rooms(name, linked=True) for name in "abc"}
        self.at: dict[str, Address] = {}
        self.closing = {name: AsyncExitStack() for name in "abc"}

    @property
    def a(self) -> Rooms:
        return self.nodes["a"]

    @property
    def b(self) -> Rooms:
        return self.nodes["b"]

    @property
    def c(self) -> Rooms:
        return self.nodes["c"]

    def meet(self, *, dead: str = "") -> None:
        """Everybody knows what everybody has now. `dead`: the names of those that everybody takes for dead."""
        members = {
            name: member(
                f"{name}-000000",
                models=rooms.models.local,
                agents=[OfferedAgent(key, keeps=agent.keeps_sessions) for key, agent in rooms.runtime.agents.items()],
                link=self.at[name],
                status="dead" if name in dead else "alive",
            )
            for name, rooms in self.nodes.items()
        }
        for name, rooms in self.nodes.items():
            rooms.sees(*(other for other_name, other in members.items() if other_name != name))


@asynccontextmanager
async def three() -> AsyncIterator[Three]:
    nodes = Three()
    async with AsyncExitStack() as stack:
        for name, rooms in nodes.nodes.items():
            await stack.enter_async_context(nodes.closing[name])
            nodes.at[name] = await nodes.closing[name].enter_async_context(rooms.open_door())
        yield nodes


async def until_idle(*nodes: Rooms) -> None:
    """Until nothing runs there, and nothing there waits for another node."""
    async with asyncio.timeout(AMPLE_S):
        while any(rooms.runtime.active_runs or rooms.runtime.served.awaited for rooms in nodes):
            await asyncio.sleep(0.001)
