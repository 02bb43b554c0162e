"""A mesh of ours with a stock agent in it changes its keys, whoever of them asks for it."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from tests.interop.conftest import Agents
from tests.rig.eventually import eventually
from tests.rig.nodes import node_process
from tests.rig.sealed_nodes import FIRST, SealedNodes, new_keyring_file

from maia.config import Address
from maia.keyring import fingerprint_of, parse_keyring, text_of

pytestmark = [pytest.mark.interop, pytest.mark.timeout(300)]

MEET_GOAL_S = 2.0
BROUGHT = b"b" * 16
OLD = fingerprint_of(FIRST)


def fingerprints(file: Path) -> list[str]:
    return [fingerprint_of(key) for key in parse_keyring(file.read_text()).keys]


async def rotate(ours: SealedNodes, its_file: Path) -> str:
    """Through our command line. The new key's fingerprint."""
    new = await ours.new_key("one")
    for words in (("use", new), ("remove", OLD)):
        said = await ours.keys("two", *words)
        assert (said.code, "3 of 3" in said.stdout) == (0, True), said.everything
    await ours.kept(new)
    assert fingerprints(its_file) == [new]
    return new


async def test_a_stock_agent_and_our_nodes_rotate_their_keys_whoever_of_them_asks(agents: Agents, tmp_path: Path) -> None:
    its_file = new_keyring_file(tmp_path, "keys-of-stock")
    arguments = {name: ["--keyring-file", str(new_keyring_file(tmp_path, name)), "--serf", "--profile", "lan"] for name in ("one", "two")}
    async with (
        node_process("one", arguments=arguments["one"]) as one,
        node_process("two", join=[one.gossip], arguments=arguments["two"]) as two,
    ):
        ours = SealedNodes({"one": one, "two": two}, tmp_path)
        host, _, port = one.gossip.rpartition(":")
        stock = await agents.start("stock", join=Address(host, int(port)), config={"keyring_file": str(its_file)})
        await ours.all_alive("one", "two")

        async def met() -> bool:
            assert len(await stock.members()) == 3
            listed = json.loads((await ours.keys("two", "list", "--json")).stdout)
            assert [(key["fingerprint"], sorted(key["primary_of"])) for key in listed["keys"]] == [(OLD, ["one", "stock", "two"])]
            return True

        await eventually(met, 2 * MEET_GOAL_S, what="all three say which keys they hold")

        new = await rotate(ours, its_file)

        for words in (("-install", text_of(BROUGHT)), ("-use", text_of(BROUGHT)), ("-remove", text_of(ours.ring("one").primary))):
            await stock.command("keys", *words)
        brought = fingerprint_of(BROUGHT)
        await ours.kept(brought)
        assert fingerprints(its_file) == [brought] != [new]
        listed = json.loads((await ours.keys("one", "list", "--json")).stdout)
        assert [(key["fingerprint"], sorted(key["held_by"])) for key in listed["keys"]] == [(brought, ["one", "stock", "two"])]
        assert {status for status, _ in (await stock.members()).values()} == {"alive"}
        assert await ours.keys_shown() == []
