"""The command line as people type it, without a process: against a real node in this process, whose model is the stub's."""

from __future__ import annotations

import asyncio
import os
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import Future
from dataclasses import dataclass
from pathlib import Path

import pytest
from click.testing import CliRunner, Result
from tests.rig.documents import agent, provider, write_documents
from tests.rig.ports import LOOPBACK, free_node_ports, free_port
from tests.rig.stub_openai import StubOpenAI

from astromesh.cli import options, surroundings
from astromesh.cli.program import program
from astromesh.service.node import open_node

START_S = 30.0
REMEMBERS = {"memory": {"conversational": {"backend": "in_memory"}}}

Cli = Callable[..., Result]


@dataclass(frozen=True)
class RunningNode:
    url: str
    gossip: str
    stub: StubOpenAI
    folder: Path


@pytest.fixture
def cli(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Cli:
    """Types a command: `cli("run", "desk", "hi")`. Nothing of this machine is seen, and nobody listens at the default address."""
    for variable in [name for name in os.environ if name.startswith(("ASTROMESH_", "XDG_"))]:
        monkeypatch.delenv(variable)
    home = tmp_path / "home"
    home.mkdir()
    monkeypatch.setenv("HOME", str(home))
    monkeypatch.chdir(home)
    monkeypatch.setattr(options, "DEFAULT_URL", f"http://{LOOPBACK}:{free_port()}")

    def type_in(*words: str, stdin: str | None = None) -> Result:
        return CliRunner().invoke(program, list(words), input=stdin, prog_name="astromesh-node", catch_exceptions=False)

    return type_in


@pytest.fixture(scope="module")
def node(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RunningNode]:
    """A node `solo` with doors and a mesh of one, on a thread of its own."""
    folder, opened = tmp_path_factory.mktemp("solo"), Future[RunningNode]()
    ports, over = free_node_ports(), threading.Event()

    async def live() -> None:
        async with StubOpenAI(models=["stub", "slow"], pause_s=0.2) as stub:
            write_documents(
                folder / "config",
                {
                    **provider(stub.endpoint, models=["stub", "slow"], api_key="sk-secret", share="mesh"),
                    **agent("desk", **REMEMBERS),
                    **agent("forgetful"),
                    **agent("slow", model="slow"),
                    **agent("lead", orchestration={"pattern": "supervisor", "workers": ["forgetful"]}),
                    "agents/broken.agent.yaml": "apiVersion: astromesh/v1\nkind: Agent\nmetadata: {name: broken}\nspec: {}\n",
                },
            )
            written = surroundings.configuration(str(folder / "config"))
            addresses = {"api": ports.api, "gossip": ports.gossip, "link": ports.link}
            flags = {name: f"{LOOPBACK}:{port}" for name, port in addresses.items()}
            settings = surroundings.settled(written, {**flags, "name": "solo", "data": str(folder / "data")}).values
            async with open_node(settings, written, doors=True):
                opened.set_result(RunningNode(f"http://{LOOPBACK}:{ports.api}", f"{LOOPBACK}:{ports.gossip}", stub, folder))
                await asyncio.to_thread(over.wait)

    def whole_life() -> None:
        try:
            asyncio.run(live())
        except BaseException as failure:
            if opened.done():
                raise
            opened.set_exception(failure)

    thread = threading.Thread(target=whole_life)
    thread.start()
    try:
        yield opened.result(START_S)
    finally:
        over.set()
        thread.join(START_S)
