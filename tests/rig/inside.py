"""A whole node in the process of the test, with its files and its doors, to be opened again on the same folder.

async with node_inside(tmp_path, {**provider(stub.endpoint), **agent("desk")}) as node:
    assert (await node.send("POST", "/v1/agents/desk/pause"))[0] == 200
"""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import aiohttp
from tests.rig.documents import Documents, write_documents
from tests.rig.ports import LOOPBACK, free_node_ports

from astromesh.cli import surroundings
from astromesh.service.node import Node, open_node

REQUEST_S = 60.0


@dataclass
class Inside:
    node: Node
    http: aiohttp.ClientSession
    folder: Path

    async def send(self, method: str, path: str, body: object = None) -> tuple[int, Any]:
        async with self.http.request(method, path, **({} if body is None else {"json": body})) as response:
            return response.status, await response.json(content_type=None)

    async def get(self, path: str) -> Any:
        status, answer = await self.send("GET", path)
        assert status == 200, answer
        return answer

    async def ask(self, agent: str, query: str = "Hello", **more: Any) -> tuple[int, Any]:
        return await self.send("POST", f"/v1/agents/{agent}/run", {"query": query, **more})

    async def rows(self) -> dict[str, Any]:
        return {row["name"]: row for row in (await self.get("/v1/agents"))["agents"]}

    @property
    def kept(self) -> Path:
        """Where agents lie that came over the API."""
        return self.folder / "data" / "agents"


@asynccontextmanager
async def node_inside(folder: Path, documents: Documents | None = None, *, mesh: bool = False) -> AsyncIterator[Inside]:
    """`documents`: to be written before; what is there stays."""
    (folder / "config").mkdir(parents=True, exist_ok=True)
    write_documents(folder / "config", documents or {})
    written = surroundings.configuration(str(folder / "config"))
    ports = free_node_ports()
    addresses = {"api": ports.api, "gossip": ports.gossip, "link": ports.link}
    flags = {name: f"{LOOPBACK}:{port}" for name, port in addresses.items()}
    settings = surroundings.settled(written, {**flags, "name": "solo", "mesh": mesh, "data": str(folder / "data")}).values
    async with (
        open_node(settings, written, doors=True) as node,
        aiohttp.ClientSession(base_url=f"http://{LOOPBACK}:{ports.api}", timeout=aiohttp.ClientTimeout(total=REQUEST_S)) as http,
    ):
        yield Inside(node, http, folder)
