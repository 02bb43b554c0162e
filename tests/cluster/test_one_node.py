"""One real process and what is done to it: bad files, bad addresses, bad bytes."""

from __future__ import annotations

import os
import random
import signal
import socket
import subprocess
import sys
from pathlib import Path

import psutil
import pytest
from tests.cluster.conftest import FAST, gauge
from tests.rig.documents import agent, provider
from tests.rig.eventually import eventually
from tests.rig.nodes import SOURCES, node_process
from tests.rig.ports import free_node_ports

pytestmark = [pytest.mark.processes, pytest.mark.timeout(60)]


def up(*arguments: str, data: Path) -> subprocess.CompletedProcess[str]:
    """`up` that is expected to refuse."""
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(map(str, SOURCES))}
    command = [sys.executable, "-m", "astromesh.cli", "up", "--data", str(data), *arguments]
    return subprocess.run(command, capture_output=True, text=True, timeout=30, env=environment, cwd=data)


async def test_bad_files_are_named_with_their_line_and_the_node_runs() -> None:
    files = {
        **provider("http://127.0.0.1:9/v1", models=["lamp"]),
        **agent("fine", model="lamp"),
        "agents/tab.agent.yaml": "apiVersion: astromesh/v1\nkind: Agent\nmetadata:\n\tname: tab\n",
        "agents/unknown.agent.yaml": (
            "apiVersion: astromesh/v1\nkind: Agent\nmetadata: {name: unknown}\nspec:\n  model: {primary: {provider: local, model: lamp}}\n"
            "  orchestration:\n    patern: react\n"
        ),
        "agents/wrong.agent.yaml": (
            "apiVersion: astromesh/v1\nkind: Agent\nmetadata: {name: wrong}\nspec:\n  model: {primary: {provider: local, model: lamp}}\n"
            "  orchestration:\n    max_iterations: many\n"
        ),
    }
    async with node_process("one", config=files, arguments=FAST) as node:
        listed = {row["name"]: row for row in (await node.get("/v1/agents"))["agents"]}
        assert listed["fine"]["status"] == "deployed"
        assert "unknown.agent.yaml:7" in listed["unknown"]["error"]
        assert "pattern" in listed["unknown"]["error"]
        assert "wrong.agent.yaml:7" in listed["wrong"]["error"]
        warnings = " ".join((await node.get("/v1/system/status"))["warnings"])
        assert "tab.agent.yaml:4" in warnings
        assert "tab.agent.yaml:4" in node.output
        refused = await node.post("/v1/agents/wrong/run", {"query": "Hello"}, status=404)
        assert refused["code"] == "agent_unusable"


async def test_random_datagrams_are_counted_and_nothing_else() -> None:
    async with node_process("one", arguments=FAST) as node:
        host, port = node.gossip.split(":")
        noise = random.Random(7)
        lengths = [0, 1, 2, 3, 1400, 9000, *(noise.randrange(1500) for _ in range(200))]
        before = await gauge(node, "maia_datagrams_received_total")
        with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as sender:
            for length in lengths:
                sender.sendto(noise.randbytes(length), (host, int(port)))

        async def all_arrived() -> bool:
            return await gauge(node, "maia_datagrams_received_total") >= before + len(lengths)

        await eventually(all_arrived, 2.0, what="all datagrams are counted")
        state = await node.get("/v1/mesh/state")
        assert [member["name"] for member in state["nodes"]] == ["one"]
        assert (await node.get("/v1/health"))["status"] == "ok"
        assert "Traceback" not in node.output


def test_an_address_that_other_machines_reach_is_refused_and_names_no_command_that_does_not_exist(tmp_path: Path) -> None:
    refused = up("--api", "0.0.0.0:8000", data=tmp_path)
    assert refused.returncode == 78, refused
    assert "certificate" in refused.stderr
    assert "key" in refused.stderr
    for absent in ("token create", "apikey", "join TOKEN"):
        assert absent not in refused.stderr


async def test_a_port_in_use_names_its_holder(tmp_path: Path) -> None:
    async with node_process("one", arguments=FAST) as node:
        ports = free_node_ports()
        elsewhere = {"api": f"127.0.0.1:{ports.api}", "gossip": f"127.0.0.1:{ports.gossip}", "link": f"127.0.0.1:{ports.link}"}
        for door in ("api", "gossip", "link"):
            taken = getattr(node, door).removeprefix("http://")
            flags = [text for name, address in {**elsewhere, door: taken}.items() for text in (f"--{name}", address)]
            refused = up(*flags, data=tmp_path)
            assert refused.returncode == 78, refused
            assert f"process {node.pid}" in refused.stderr, refused.stderr
            assert f"--{door}" in refused.stderr


async def test_two_nodes_on_one_data_directory_are_one_too_many(tmp_path: Path) -> None:
    async with node_process("one", data=tmp_path, arguments=FAST) as node:
        ports = free_node_ports()
        refused = up(
            "--api", f"127.0.0.1:{ports.api}", "--gossip", f"127.0.0.1:{ports.gossip}", "--link", f"127.0.0.1:{ports.link}", data=tmp_path
        )
        assert refused.returncode == 78, refused
        assert f"process {node.pid}" in refused.stderr


async def test_a_stopped_node_leaves_nothing_behind() -> None:
    async with node_process("one", arguments=FAST) as node:
        assert await node.stop() == 0


@pytest.mark.engine
async def test_a_worker_ends_when_its_node_is_killed_alone() -> None:
    models = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "astromesh" / "models"
    async with node_process("one", env={"ASTROMESH_MODELS_DIR": str(models)}, arguments=FAST) as node:

        async def loaded() -> bool:
            return (await node.get("/v1/ready?model=smollm2"))["ready"]

        await eventually(loaded, 5.0, what="the model is loaded")
        workers = psutil.Process(node.pid).children(recursive=True)
        assert workers
        os.kill(node.pid, signal.SIGKILL)

        async def gone() -> bool:
            return not any(worker.is_running() and worker.status() != psutil.STATUS_ZOMBIE for worker in workers)

        await eventually(gone, 1.0, what="the worker has ended")
