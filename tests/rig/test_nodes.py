"""The rig for node processes, tried on a pretended node: what it starts, what it reports, and that nothing is ever left behind."""

from __future__ import annotations

import functools
import signal
import socket
import sys
from pathlib import Path

import psutil
import pytest
import yaml
from tests.rig.documents import agent, provider
from tests.rig.eventually import eventually
from tests.rig.nodes import Node, NodeFailed, group_members, node_process
from tests.rig.ports import free_node_ports, free_port

pretend_node = functools.partial(node_process, program=(sys.executable, str(Path(__file__).with_name("pretend_node.py"))))


def child_of(node: Node) -> int:
    return next(int(line.split()[1]) for line in node.output.splitlines() if line.startswith("child "))


def runs(pid: int) -> bool:
    return psutil.pid_exists(pid) and psutil.Process(pid).status() != psutil.STATUS_ZOMBIE


async def test_a_node_is_started_on_the_command_line_of_the_contract(tmp_path: Path) -> None:
    async with pretend_node("a", join=["10.0.0.1:7946", "10.0.0.2:7946"], data=tmp_path / "data", arguments=["--profile", "lan"]) as node:
        argv = (await node.get("/v1/ready"))["argv"]
    api = node.api.removeprefix("http://")
    assert argv[0] == "up"
    assert argv[3:-2] == [
        *("--name", "a", "--api", api, "--gossip", node.gossip, "--link", node.link, "--data", str(tmp_path / "data")),
        *("--join", "10.0.0.1:7946", "--join", "10.0.0.2:7946"),
    ]
    assert argv[-2:] == ["--profile", "lan"]
    assert len({api, node.gossip, node.link}) == 3


async def test_the_documents_of_a_node_are_files_below_its_configuration() -> None:
    async with pretend_node("a", config={**provider("http://127.0.0.1:1"), **agent("desk"), "note.txt": "hello"}) as node:
        config = Path(node.command[node.command.index("--config") + 1])
        assert yaml.safe_load((config / "agents/desk.agent.yaml").read_text())["metadata"]["name"] == "desk"
        assert yaml.safe_load((config / "providers-stub.yaml").read_text())["spec"]["providers"]["stub"]["endpoint"] == "http://127.0.0.1:1"
        assert (config / "note.txt").read_text() == "hello"


async def test_a_node_that_ends_before_it_is_ready_fails_at_once_with_its_output() -> None:
    with pytest.raises(NodeFailed, match=r"(?s)exit code 78 before it was ready.*pretending dies"):
        async with pretend_node("a", env={"PRETEND": "dies"}):
            pass


async def test_a_node_that_is_never_ready_fails_with_its_answer_and_leaves_no_process() -> None:
    with pytest.raises(NodeFailed, match=r"(?s)not ready within 1 s.*503.*child \d+") as caught:
        async with pretend_node("a", env={"PRETEND": "never-ready has-a-child"}, ready_s=1):
            pass
    child = int(str(caught.value).split("\nchild ")[1].split()[0])
    assert not runs(child)


async def test_a_test_that_fails_is_told_what_the_node_printed() -> None:
    with pytest.raises(ValueError, match="the test's own") as caught:
        async with pretend_node("a", env={"PRETEND": "well"}):
            raise ValueError("the test's own")
    assert "pretending well" in caught.value.__notes__[0]


async def test_stop_waits_for_the_exit_code_and_kill_takes_the_children_along() -> None:
    async with pretend_node("a") as polite:
        assert await polite.stop() == 0
        assert "goodbye" in polite.output
    async with pretend_node("b", env={"PRETEND": "has-a-child"}) as node:
        child = child_of(node)
        assert runs(child)
        await node.kill()
        assert node.exit_code == -signal.SIGKILL
        assert not runs(child)
        assert group_members(node.pid) == []


async def test_a_node_that_does_not_stop_or_leaves_a_child_behind_fails_and_is_killed() -> None:
    with pytest.raises(NodeFailed, match=r"did not stop within 0\.2 s of SIGTERM"):
        async with pretend_node("a", env={"PRETEND": "deaf"}) as deaf:
            await deaf.stop(limit_s=0.2)
    assert not runs(deaf.pid)
    with pytest.raises(NodeFailed, match="left running"):
        async with pretend_node("b", env={"PRETEND": "has-a-child"}) as careless:
            await careless.stop(limit_s=0.5)
    assert group_members(careless.pid) == []


async def test_a_killed_node_starts_again_on_the_same_ports_with_the_same_data() -> None:
    async with pretend_node("a") as node:
        before = await node.get("/v1/ready")
        await node.kill()
        await node.start()
        assert await node.get("/v1/ready") == before
        assert node.output.count("pretending") == 2


async def test_a_paused_node_keeps_its_doors_open_and_says_nothing_until_it_is_resumed() -> None:
    async with pretend_node("a") as node:
        node.pause()

        async def stands_still() -> bool:
            return psutil.Process(node.pid).status() == psutil.STATUS_STOPPED

        await eventually(stands_still, 1.0, what="the node stands still")  # the kernel stops it when its turn on a core ends
        with socket.create_connection(("127.0.0.1", int(node.api.rsplit(":", 1)[1])), timeout=5):
            node.resume()
            assert (await node.get("/v1/ready"))["ready"]


async def test_an_unexpected_status_fails_with_the_body() -> None:
    async with pretend_node("a") as node:
        with pytest.raises(NodeFailed, match=r"(?s)GET /elsewhere with 200 instead of 404.*\"path\": \"/elsewhere\""):
            await node.get("/elsewhere", status=404)


async def test_variables_of_this_machine_do_not_reach_a_node(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("ASTROMESH_CONFIG_DIR", "/etc/of-this-machine")
    monkeypatch.setenv("PRETEND", "inherited")
    async with pretend_node("a", env={"ASTROMESH_API": "x"}) as node:
        environment = psutil.Process(node.pid).environ()
    assert "ASTROMESH_CONFIG_DIR" not in environment
    assert (environment["PRETEND"], environment["ASTROMESH_API"]) == ("inherited", "x")


def test_no_port_is_handed_out_twice_and_a_taken_one_is_passed_over() -> None:
    seen = [port for ports in (free_node_ports() for _ in range(20)) for port in (ports.api, ports.gossip, ports.link)]
    assert len(set(seen)) == len(seen)
    following = free_port() + 1
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as taken:
        taken.bind(("127.0.0.1", following))
        assert free_port(datagrams_too=True) > following
