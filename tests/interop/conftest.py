"""Real `serf agent` processes beside nodes of ours, on addresses of 127/8 that nobody else uses, none left behind."""

from __future__ import annotations

import asyncio
import base64
import json
import os
import shutil
import subprocess
import time
from collections.abc import Awaitable, Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path

import pytest
from tests.rig.eventually import eventually
from tests.rig.ports import free_port

from maia.config import Address

SERF = "serf"
# Of a cluster at rest: a sample in every run, a minute for the proof.
QUIET_S = float(os.environ.get("INTEROP_SECONDS", "6"))
POLL_S = 0.25
START_GOAL_S = 2.0


def free_address(number: int) -> Address:
    """An address of its own for each member, since a name that changes its address is a conflict to stock agents."""
    return Address(f"127.0.{os.getpid() % 200 + 20}.{number}", free_port(datagrams_too=True))


@dataclass
class Agent:
    """One stock agent. `log` grows while it lives."""

    name: str
    address: Address
    rpc: str
    process: subprocess.Popen[bytes]
    path: Path

    @property
    def log(self) -> str:
        return self.path.read_text(errors="replace")

    def complaints(self) -> list[str]:
        """What it logged as a warning or worse."""
        return [line for line in self.log.splitlines() if "[WARN]" in line or "[ERR]" in line]

    def doubts(self) -> list[str]:
        """Suspicions of others, and of itself."""
        words = ("Suspect ", "Refuting", "Marking ", "EventMemberFailed")
        return [line for line in self.log.splitlines() if any(word in line for word in words)]

    async def command(self, *words: str) -> str:
        """A command of `serf` about this agent. Raises `AssertionError` with what it said where it fails."""
        process = await asyncio.create_subprocess_exec(
            SERF, words[0], f"-rpc-addr={self.rpc}", *words[1:], stdout=subprocess.PIPE, stderr=subprocess.STDOUT
        )
        said, _ = await process.communicate()
        assert process.returncode == 0, f"serf {' '.join(words)}: {said.decode(errors='replace')}"
        return said.decode()

    async def members(self) -> dict[str, tuple[str, dict[str, str]]]:
        """Status and tags by name, as this agent sees them."""
        listed = json.loads(await self.command("members", "-format=json"))["members"]
        return {member["name"]: (member["status"], member["tags"]) for member in listed}

    def sees(self, **statuses: str) -> Callable[[], Awaitable[bool]]:
        """Whether it sees exactly these, by name with "_" for "-"."""
        wanted = {name.replace("_", "-"): status for name, status in statuses.items()}

        async def predicate() -> bool:
            seen = {name: status for name, (status, _) in (await self.members()).items()}
            assert seen == wanted, f"{self.name} sees {seen}"
            return True

        return predicate

    def kill(self) -> None:
        """As `kill -9` does."""
        self.process.kill()
        self.process.wait()


@dataclass
class Agents:
    """Starts stock agents, and ends them."""

    folder: Path
    running: list[Agent] = field(default_factory=list)

    async def start(
        self, name: str, *, key: bytes = b"", compressed: bool = True, join: Address | None = None, config: dict[str, object] | None = None
    ) -> Agent:
        address = free_address(100 + len(self.running))
        rpc = f"{address.host}:{free_port()}"
        path, written = self.folder / f"{name}.log", self.folder / f"{name}.json"
        settings: dict[str, object] = {
            "node_name": name,
            "bind": str(address),
            "rpc_addr": rpc,
            "log_level": "debug",
            "tags": {"site": "lab"},
        }
        settings |= {"encrypt_key": base64.b64encode(key).decode()} if key else {}
        settings |= {"start_join": [str(join)]} if join is not None else {}
        written.write_text(json.dumps({**settings, **(config or {})}))
        with path.open("wb") as log:
            # Only a flag can switch it off: the file knows no such key.
            flags = [] if compressed else ["-disable-compression"]
            process = subprocess.Popen([SERF, "agent", f"-config-file={written}", *flags], stdout=log, stderr=subprocess.STDOUT)
        agent = Agent(name, address, rpc, process, path)
        self.running.append(agent)

        async def ready() -> bool:
            assert process.poll() is None, f"serf agent ended: {agent.log}"
            return name in await agent.members()

        await eventually(ready, START_GOAL_S, what=f"the stock agent {name} is up")
        return agent


@pytest.fixture
def agents(tmp_path: Path) -> Iterator[Agents]:
    """The stock agents of one test."""
    if shutil.which(SERF) is None:
        pytest.fail("there is no serf on this machine: apt-get install serf")
    started = Agents(tmp_path)
    try:
        yield started
    finally:
        for agent in started.running:
            agent.kill()


async def stays(still: Callable[[], Awaitable[object]], seconds: float = QUIET_S) -> None:
    """`still`, which asserts, is asked again and again for so long."""
    end_s = time.monotonic() + seconds
    while time.monotonic() < end_s:
        await still()
        await asyncio.sleep(POLL_S)


@pytest.fixture
def quiet() -> Callable[[Callable[[], Awaitable[object]]], Awaitable[None]]:
    return stays
