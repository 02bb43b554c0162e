"""Real node processes for tests, each on ports and directories of its own, none left behind.

    async with node_process("a", config={**provider(stub.endpoint), **agent("desk")}) as a:
        async with node_process("b", join=[a.gossip]) as b:
            async with b.http.get("/v1/nodes") as response: ...

Each node leads a process group of its own; at the end the whole group is killed and looked for. When a test fails inside the block, the end
of the node's output is added to the failure.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import AsyncIterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import aiohttp
import psutil
from tests.rig.documents import Documents, write_documents
from tests.rig.loopback import Host
from tests.rig.ports import LOOPBACK, NodePorts, free_node_ports

ROOT = Path(__file__).resolve().parents[2]
# What runs is the code beside this file, whatever is installed: a private copy of the tree tests itself.
SOURCES = (ROOT / "mesh", ROOT / "node")
PROGRAM = (sys.executable, "-m", "astromesh.cli")
# Five times the goal of one second for an API that is up, and as much again for bytecode that is compiled first while other nodes start.
READY_S = 10.0
# Runs under way get 20 s of grace, connections two more.
STOP_S = 25.0
KILL_S = 5.0
POLL_S = 0.02
REQUEST_S = 60.0
OUTPUT_BYTES_MAX = 64 * 1024


class NodeFailed(AssertionError):
    """A node did not do what the rig asked of it. The message ends with what it printed last."""


class Node:
    """One node: where it listens, and what can be done to its process."""

    def __init__(
        self, name: str, command: Sequence[str], *, ports: NodePorts, directory: Path, env: Mapping[str, str], host: Host | None = None
    ) -> None:
        self.name = name
        self.command = tuple(command)
        self.directory = directory
        address = host.address if host is not None else LOOPBACK
        self.api = f"http://{address}:{ports.api}"
        self.gossip = f"{address}:{ports.gossip}"
        self.link = f"{address}:{ports.link}"
        connector = host.connector() if host is not None else None
        self.http = aiohttp.ClientSession(base_url=self.api, connector=connector, timeout=aiohttp.ClientTimeout(total=REQUEST_S))
        self._host = host
        self._env = dict(env)
        self._log = directory / "output.log"
        self._process: subprocess.Popen[bytes] | None = None

    @property
    def host(self) -> Host:
        """The host of its own that it runs on."""
        if self._host is None:
            raise NodeFailed(f"node {self.name} runs on this machine's loopback, where there are no hosts to cut off")
        return self._host

    @property
    def pid(self) -> int:
        if self._process is None:
            raise NodeFailed(f"node {self.name} was never started")
        return self._process.pid

    @property
    def exit_code(self) -> int | None:
        return self._process.poll() if self._process is not None else None

    @property
    def output(self) -> str:
        """The end of what the node printed so far, on both streams, over all its starts."""
        if not self._log.exists():
            return ""
        with self._log.open("rb") as log:
            log.seek(max(0, self._log.stat().st_size - OUTPUT_BYTES_MAX))
            return log.read().decode(errors="replace")

    async def start(self, *, ready_s: float = READY_S) -> float:
        """Starts the process, or starts it again after `kill` or `stop`, with the same ports and data. Seconds until it was ready."""
        if self._process is not None and self._process.poll() is None:
            raise NodeFailed(f"node {self.name} runs already, as process {self.pid}")
        started = time.monotonic()
        with self._log.open("ab") as log:
            popen = self._host.popen if self._host is not None else subprocess.Popen
            self._process = popen(
                self.command, cwd=self.directory, env=self._env, stdin=subprocess.DEVNULL, stdout=log, stderr=log, start_new_session=True
            )
        said = "nobody listens"
        try:
            async with asyncio.timeout(ready_s):
                while True:
                    if (code := self._process.poll()) is not None:
                        raise self.failure(f"ended with exit code {code} before it was ready")
                    with contextlib.suppress(aiohttp.ClientConnectionError):
                        async with self.http.get("/v1/ready") as response:
                            if response.status == 200:
                                break
                            said = f"{response.status} {(await response.text())[:500]}"
                    await asyncio.sleep(POLL_S)
        except TimeoutError:
            raise self.failure(f"was not ready within {ready_s:g} s; GET {self.api}/v1/ready: {said}") from None
        took_s = time.monotonic() - started
        print(f"node {self.name} ready: {took_s:.3f} s (process {self.pid}, {self.api})")
        return took_s

    async def kill(self) -> None:
        """SIGKILL to the node and everything it started, as a machine that loses power. Returns when none is left."""
        with contextlib.suppress(ProcessLookupError):
            os.killpg(self.pid, signal.SIGKILL)
        ends = time.monotonic() + KILL_S
        await self._exit(ends)
        await self._until_group_is_gone(ends)

    async def stop(self, *, limit_s: float = STOP_S) -> int:
        """SIGTERM, as a service manager sends it to the node alone. The exit code; fails if anything of the node outlives `limit_s`."""
        os.kill(self.pid, signal.SIGTERM)
        ends = time.monotonic() + limit_s
        code = await self._exit(ends)
        if code is None:
            raise self.failure(f"did not stop within {limit_s:g} s of SIGTERM")
        await self._until_group_is_gone(ends)
        return code

    def pause(self) -> None:
        """SIGSTOP: the node hangs silently, its sockets open."""
        os.killpg(self.pid, signal.SIGSTOP)

    def resume(self) -> None:
        os.killpg(self.pid, signal.SIGCONT)

    async def get(self, path: str, *, status: int = 200) -> Any:
        """GET, the JSON that came back. Fails, with body and output, when the status is another."""
        async with self.http.get(path) as response:
            return await self._json(response, status)

    async def post(self, path: str, body: object, *, status: int = 200) -> Any:
        """POST of JSON, the JSON that came back. Fails, with body and output, when the status is another."""
        async with self.http.post(path, json=body) as response:
            return await self._json(response, status)

    async def _json(self, response: aiohttp.ClientResponse, status: int) -> Any:
        text = await response.text()
        if response.status != status:
            raise self.failure(f"answered {response.method} {response.url.path} with {response.status} instead of {status}: {text[:2000]}")
        return await response.json(content_type=None) if text else None

    def failure(self, what: str) -> NodeFailed:
        return NodeFailed(f"node {self.name} {what}\n{self.report()}")

    def report(self) -> str:
        command = " ".join(self.command)
        return f"--- node {self.name}, exit code {self.exit_code}, {command}\n{self.output or '(no output)'}\n--- end of node {self.name}"

    async def close(self) -> None:
        """Whatever became of the node: nothing of it runs afterwards."""
        await self.http.close()
        if self._process is not None:
            await self.kill()

    async def _exit(self, ends: float) -> int | None:
        assert self._process is not None
        while (code := self._process.poll()) is None and time.monotonic() < ends:
            await asyncio.sleep(POLL_S)
        return code

    async def _until_group_is_gone(self, ends: float) -> None:
        while left := group_members(self.pid):
            if time.monotonic() > ends:
                names = ", ".join(f"{process.pid} {' '.join(process.cmdline())[:120]}" for process in left)
                raise self.failure(f"is gone, but left running: {names}")
            await asyncio.sleep(POLL_S)


def group_members(group: int) -> list[psutil.Process]:
    """The processes of a process group that still run; a zombie whose parent has not asked for it yet does not."""
    members = []
    for process in psutil.process_iter():
        with contextlib.suppress(ProcessLookupError, psutil.NoSuchProcess):
            if os.getpgid(process.pid) == group and process.status() != psutil.STATUS_ZOMBIE:
                members.append(process)
    return members


@contextlib.asynccontextmanager
async def node_process(
    name: str,
    *,
    config: Documents | Path | None = None,
    join: Sequence[str] = (),
    data: Path | None = None,
    ports: NodePorts | None = None,
    host: Host | None = None,
    env: Mapping[str, str] | None = None,
    arguments: Sequence[str] = (),
    program: Sequence[str] = PROGRAM,
    ready_s: float = READY_S,
) -> AsyncIterator[Node]:
    """A node that is ready, from here to the end of the block.

    `config` is a directory, or the documents to write into one; without it the node has an empty directory, so that no configuration of
    this machine is found. `arguments` follow `up`. A `host` is one that can be cut off from others; without it the node is on this
    machine's loopback. The environment is this process's without its `ASTROMESH_*`, then `env`.
    """
    with tempfile.TemporaryDirectory(prefix=f"node-{name}-") as scratch:
        directory = Path(scratch)
        if isinstance(config, Path):
            config_directory = config
        else:
            config_directory = directory / "config"
            config_directory.mkdir()
            write_documents(config_directory, config or {})
        data = data or directory / "data"
        data.mkdir(parents=True, exist_ok=True)
        ports = ports or (host.ports if host is not None else free_node_ports())
        address = host.address if host is not None else LOOPBACK
        doors = [flag for door in ("api", "gossip", "link") for flag in (f"--{door}", f"{address}:{getattr(ports, door)}")]
        seeds = [flag for address in join for flag in ("--join", address)]
        command = [*program, "up", "--config", str(config_directory), "--name", name, *doors, "--data", str(data), *seeds, *arguments]
        inherited = {key: value for key, value in os.environ.items() if not key.startswith("ASTROMESH_")}
        path = os.pathsep.join(str(source) for source in SOURCES)
        environment = {**inherited, "PYTHONPATH": path, "PYTHONUNBUFFERED": "1", **(env or {})}
        node = Node(name, command, ports=ports, directory=directory, env=environment, host=host)
        try:
            await node.start(ready_s=ready_s)
            yield node
            if "Traceback (most recent call last)" in node.output:
                raise node.failure("made a mistake of its own, says its log")
        except NodeFailed:
            raise
        except BaseException as error:
            error.add_note(node.report())
            raise
        finally:
            await node.close()
