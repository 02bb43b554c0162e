"""The three processes of the demo: their files, their ports, and that none is left behind."""

from __future__ import annotations

import os
import shutil
import signal
import socket
import subprocess
import sys
from collections.abc import Collection, Iterator, Mapping
from contextlib import contextmanager, suppress
from pathlib import Path
from time import monotonic
from typing import Any

import yaml

from astromesh.cli.client import NodeClient
from astromesh.cli.failures import NodeRefused, NodeUnreachable
from astromesh.errors import ConfigurationError

NAMES = ("a", "b", "c")
HOST = "127.0.0.1"
# From the usual ports upwards, below those that the kernel gives to outgoing connections, so that none is taken in between.
API_FROM, GOSSIP_FROM, PORTS_TRIED = 8000, 7946, 500
STOP_S = 10.0  # all three together, to say goodbye
LAST_WORDS_BYTES = 2000


class DemoNode:
    """One process, and what it says about itself."""

    def __init__(self, name: str, folder: Path, *, api: int, gossip: int, link: int, seed: int | None) -> None:
        self.name = name
        self.folder = folder
        self.url = f"http://{HOST}:{api}"
        self.client = NodeClient(self.url)
        self._log = folder / "log"
        self._command = [
            *(sys.executable, "-m", "astromesh.cli", "up", "--ends-with", str(os.getpid()), "--name", name, "--profile", "lan-fast"),
            *("--config", str(folder / "config"), "--data", str(folder / "data")),
            *("--api", f"{HOST}:{api}", "--gossip", f"{HOST}:{gossip}", "--link", f"{HOST}:{link}"),
            *(("--join", f"{HOST}:{seed}") if seed is not None else ()),
        ]
        self._process: subprocess.Popen[bytes] | None = None

    def start(self) -> None:
        environment = {name: value for name, value in os.environ.items() if not name.startswith("ASTROMESH_")}
        with self._log.open("wb") as log:
            # A process group of its own, in the same session: Ctrl-C reaches the show alone, which ends the nodes in order.
            self._process = subprocess.Popen(
                self._command, stdin=subprocess.DEVNULL, stdout=log, stderr=log, env=environment, cwd=self.folder, process_group=0
            )

    @property
    def pid(self) -> int:
        assert self._process is not None, "the node was started"
        return self._process.pid

    @property
    def exit_code(self) -> int | None:
        return self._process.poll() if self._process is not None else None

    def ending(self) -> str:
        code = self.exit_code
        return f"exit code {code}" if code is None or code >= 0 else f"killed by {signal.Signals(-code).name}"

    def last_words(self) -> str:
        return self._log.read_bytes()[-LAST_WORDS_BYTES:].decode(errors="replace").strip() or "(nothing)"

    def answers(self) -> bool:
        return bool(self.client.get("/v1/ready").body["ready"])

    def alive(self) -> int:
        """How many members this node sees alive, itself included."""
        return sum(row["status"] == "alive" for row in self.client.get("/v1/mesh/state").body["nodes"])

    def sees_agents(self, names: Collection[str]) -> bool:
        """Here, or on a node that it can ask."""
        return set(names) <= {row["name"] for row in self.client.get("/v1/agents").body["agents"]}

    def sees_loaded(self, model: str, holder: str) -> bool:
        return any(row["name"] == holder and row["state"] == "loaded" for row in self._holders(model))

    def loaded(self, model: str) -> float:
        """How much of a model of its own is loaded, from 0 to 1."""
        row = next((row for row in self._holders(model) if row["name"] == self.name), {})
        return 1.0 if row.get("state") == "loaded" else float(row.get("progress", 0.0))

    def _holders(self, model: str) -> list[dict[str, Any]]:
        try:
            return list(self.client.get(f"/v1/models/{model}").body["nodes"])
        except (NodeRefused, NodeUnreachable):
            return []

    def tell_to_stop(self) -> None:
        if self.exit_code is None:
            # Woken, too: one that somebody paused could not stop.
            self._signal(signal.SIGTERM)
            self._signal(signal.SIGCONT)

    def stop(self, deadline: float) -> None:
        """Waits for its end until `deadline`, then kills it and whatever it started."""
        if self._process is not None:
            with suppress(subprocess.TimeoutExpired):
                self._process.wait(max(0.0, deadline - monotonic()))
            self._signal(signal.SIGKILL)
            self._process.wait()

    def _signal(self, number: signal.Signals) -> None:
        with suppress(ProcessLookupError, PermissionError):
            os.killpg(self.pid, number)


@contextmanager
def demo_nodes(
    folder: Path, *, model: str, models_dir: Path, agents: Mapping[str, tuple[dict[str, Any], ...]]
) -> Iterator[tuple[DemoNode, ...]]:
    """Three running processes below `folder`; only the last one has the model. All of them are gone afterwards.

    `agents`: documents by the name of the node that has them, beside the shipped `hello`, which all of them have.
    """
    apis, gossips = _free_ports(API_FROM, len(NAMES)), _free_ports(GOSSIP_FROM, 2 * len(NAMES))
    nodes: list[DemoNode] = []
    for index, name in enumerate(NAMES):
        gossip, link = gossips[2 * index], gossips[2 * index + 1]
        inference: dict[str, Any] = {"models_dir": str(models_dir), "models": [{"name": model}]} if name == NAMES[-1] else {}
        _write_files(folder / name, inference, agents[name])
        nodes.append(DemoNode(name, folder / name, api=apis[index], gossip=gossip, link=link, seed=gossips[0] if index else None))
    try:
        for node in nodes:
            node.start()
        yield tuple(nodes)
    finally:
        for node in nodes:
            node.tell_to_stop()
        deadline = monotonic() + STOP_S
        for node in nodes:
            node.stop(deadline)


def _write_files(folder: Path, inference: dict[str, Any], agents: tuple[dict[str, Any], ...]) -> None:
    from astromesh.service.config_dir import shipped_folder

    (folder / "config" / "agents").mkdir(parents=True)
    document = {
        "apiVersion": "astromesh/v1",
        "kind": "RuntimeConfig",
        "metadata": {"name": "demo"},
        "spec": {"inference": inference, "mesh": {"enabled": True}},
    }
    (folder / "config" / "runtime.yaml").write_text(yaml.safe_dump(document, sort_keys=False))
    for one in agents:
        (folder / "config" / "agents" / f"{one['metadata']['name']}.agent.yaml").write_text(yaml.safe_dump(one, sort_keys=False))
    agent = shipped_folder() / "agents" / "hello.agent.yaml"
    if not agent.is_file():
        raise ConfigurationError(f"{agent}, which comes with the program, is missing", hint="install the program again")
    shutil.copy(agent, folder / "config" / "agents")


def _free_ports(first: int, count: int) -> list[int]:
    found: list[int] = []
    for port in range(first, first + PORTS_TRIED):
        if _is_free(port, socket.SOCK_STREAM) and _is_free(port, socket.SOCK_DGRAM):
            found.append(port)
            if len(found) == count:
                return found
    raise ConfigurationError(f"there are no {count} free ports from {first} to {first + PORTS_TRIED} on {HOST}", hint="see 'ss -lntup'")


def _is_free(port: int, kind: socket.SocketKind) -> bool:
    with socket.socket(socket.AF_INET, kind) as trial:
        if kind is socket.SOCK_STREAM:
            trial.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)  # as servers do: what lingers in TIME_WAIT is free
        try:
            trial.bind((HOST, port))
        except OSError:
            return False
    return True
