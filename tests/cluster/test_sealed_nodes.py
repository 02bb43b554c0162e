"""Nodes with a keyring file form a mesh that nobody else hears, and never say what their keys are."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from tests.cluster.conftest import FAST
from tests.rig.eventually import eventually
from tests.rig.nodes import Node, node_process

from maia.keyring import text_of

pytestmark = pytest.mark.processes

KEY, OTHER = text_of(b"k" * 32), text_of(b"o" * 32)
MEET_GOAL_S = 1.5


def keyring(path: Path, *keys: str) -> Path:
    path.write_text(json.dumps(keys))
    path.chmod(0o600)
    return path


async def names(node: Node) -> list[str]:
    return sorted(row["name"] for row in (await node.get("/v1/nodes"))["nodes"])


async def test_nodes_with_one_key_meet_a_stranger_stays_outside_and_no_key_is_ever_shown(tmp_path: Path) -> None:
    ours = ["--keyring-file", str(keyring(tmp_path / "ours", KEY)), *FAST]
    theirs = ["--keyring-file", str(keyring(tmp_path / "theirs", OTHER)), *FAST]
    async with (
        node_process("one", arguments=ours) as one,
        node_process("two", join=[one.gossip], arguments=ours) as two,
        node_process("stranger", join=[one.gossip], arguments=theirs) as stranger,
    ):

        async def met() -> bool:
            assert await names(one) == await names(two) == ["one", "two"]
            return True

        async def refused() -> bool:
            return "undecryptable" in await (await one.http.get("/metrics")).text()

        await eventually(met, MEET_GOAL_S, what="two nodes with one key meet")
        await eventually(refused, MEET_GOAL_S, what="a stranger is refused, and counted")
        assert await names(stranger) == ["stranger"]
        assert await names(one) == ["one", "two"]
        for node in (one, two, stranger):
            shown = [json.dumps(await node.get(path)) for path in ("/v1/mesh/state", "/v1/nodes", "/v1/system/status")]
            arguments = Path(f"/proc/{node.pid}/cmdline").read_text()
            for key in (KEY, OTHER):
                assert key not in "".join((*shown, node.output, arguments))


async def test_nodes_of_different_clusters_stay_apart(tmp_path: Path) -> None:
    async with (
        node_process("one", arguments=["--cluster-id", "home", *FAST]) as one,
        node_process("two", join=[one.gossip], arguments=["--cluster-id", "work", *FAST]) as two,
    ):

        async def refused() -> bool:
            return "other-cluster" in await (await one.http.get("/metrics")).text()

        await eventually(refused, MEET_GOAL_S, what="a node of another cluster is refused, and counted")
        assert (await names(one), await names(two)) == (["one"], ["two"])
