"""Real nodes change their keys through the command line, lose nobody on the way, and one that was away says which key it lacks."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack
from pathlib import Path

import pytest
from tests.cluster.conftest import FAST, sees
from tests.rig.eventually import eventually
from tests.rig.nodes import Node, node_process
from tests.rig.sealed_nodes import FIRST, SealedNodes, new_keyring_file

from maia.keyring import fingerprint_of, text_of

pytestmark = pytest.mark.processes

DEATH_GOAL_S = 3.0
LACK_GOAL_S = 3.0
# Nobody can tell it: it finds out by what is said to it, a ping a second from everybody who lost it. Eight of them are no accident.
SILENT_LACK_GOAL_S = 9.0
UNANSWERED_GOAL_S = 12.0  # seeds get ten seconds
NAMES = ("one", "two", "three")


@pytest.fixture
async def sealed(tmp_path: Path) -> AsyncIterator[SealedNodes]:
    async with AsyncExitStack() as stack:
        nodes: dict[str, Node] = {}
        for name in NAMES:
            join = [nodes["one"].gossip] if nodes else []
            arguments = ["--keyring-file", str(new_keyring_file(tmp_path, name)), *FAST]
            nodes[name] = await stack.enter_async_context(node_process(name, join=join, arguments=arguments))
        opened = SealedNodes(nodes, tmp_path)
        await opened.all_alive(*NAMES)
        yield opened


async def test_three_nodes_rotate_their_key_and_begin_their_next_lives_with_the_new_one(sealed: SealedNodes) -> None:
    new = await sealed.new_key("one")
    await sealed.kept(fingerprint_of(FIRST), new)
    early = await sealed.keys("two", "remove", fingerprint_of(FIRST))
    assert early.code == 1
    assert "one, three and two seal with it" in early.stderr
    for words in (("use", new), ("remove", fingerprint_of(FIRST))):
        said = await sealed.keys("two", *words)
        assert (said.code, "3 of 3" in said.stdout) == (0, True), said.everything
    listed = json.loads((await sealed.keys("three", "list", "--json")).stdout)
    assert listed["keys"] == [{"fingerprint": new, "held_by": sorted(NAMES), "lacked_by": [], "primary_of": sorted(NAMES)}]
    await sealed.kept(new)
    assert {sealed.file(name).stat().st_mode & 0o777 for name in NAMES} == {0o600}
    await sealed.nodes["two"].post("/v1/mesh/leave", {})
    await sealed.nodes["two"].post("/v1/mesh/join", {"address": sealed.nodes["one"].gossip})
    await sealed.nodes["three"].kill()
    await sealed.nodes["three"].start()
    await sealed.all_alive(*NAMES)
    assert await sealed.keys_shown() == []


async def test_a_key_is_not_used_while_a_living_node_cannot_say_that_it_holds_it(sealed: SealedNodes) -> None:
    new = await sealed.new_key("one")
    sealed.nodes["three"].pause()
    said = await sealed.keys("one", "use", new)
    sealed.nodes["three"].resume()
    assert said.code == 1
    assert "three did not say what it holds" in said.stderr
    assert sealed.ring("one").primary == FIRST
    await sealed.all_alive(*NAMES)


@pytest.mark.parametrize("removed", [False, True], ids=["old-key-still-opens", "old-key-removed"])
async def test_a_node_that_was_away_says_that_it_lacks_the_key_and_is_back_once_somebody_brought_it(
    sealed: SealedNodes, removed: bool
) -> None:
    three = sealed.nodes["three"]
    await three.kill()
    await eventually(
        lambda: sees(sealed.nodes["one"], {"one": "alive", "two": "alive", "three": "dead"}), DEATH_GOAL_S, what="three is given up"
    )
    new = await sealed.new_key("one")
    for words in (("use", new), ("remove", fingerprint_of(FIRST)))[: 1 + removed]:
        said = await sealed.keys("one", *words)
        assert said.code == 0, said.everything

    await three.start()
    # Those whose keys open nothing of its own any more cannot tell it which key it lacks.
    lack = "lacks a key, nobody could tell which" if removed else f"lacks the key {new}"

    async def says_what_it_lacks() -> bool:
        warnings = " ".join((await three.get("/v1/system/status"))["warnings"])
        assert lack in warnings, warnings or "no warning"
        return True

    goal_s = SILENT_LACK_GOAL_S if removed else LACK_GOAL_S
    await eventually(says_what_it_lacks, goal_s, what="a node that was away says that it lacks a key")
    assert lack in three.output
    listed = json.loads((await sealed.keys("three", "list", "--json")).stdout)
    assert [(key["fingerprint"], key["held_by"]) for key in listed["keys"]] == [(fingerprint_of(FIRST), ["three"])]

    entry = text_of(sealed.ring("one").primary)
    assert (await sealed.keys("three", "install", "--key-file", "-", stdin=entry)).code == 0
    assert (await sealed.keys("three", "use", new)).code == 0
    await sealed.all_alive(*NAMES)
    assert (await three.get("/v1/system/status"))["warnings"] == []
    assert [fingerprint_of(key) for key in sealed.ring("three").keys] == [new, fingerprint_of(FIRST)]
    assert await sealed.keys_shown() == []


async def test_a_node_that_said_goodbye_before_the_rotation_says_with_which_key_it_asks_in_vain(sealed: SealedNodes) -> None:
    three = sealed.nodes["three"]
    await three.stop()
    new = await sealed.new_key("one")
    for words in (("use", new), ("remove", fingerprint_of(FIRST))):
        said = await sealed.keys("one", *words)
        assert said.code == 0, said.everything
    await three.start()

    async def says_how_it_asks() -> bool:
        warnings = " ".join((await three.get("/v1/system/status"))["warnings"])
        assert f"seals with the key {fingerprint_of(FIRST)}" in warnings, warnings or "no warning"
        return True

    await eventually(says_how_it_asks, UNANSWERED_GOAL_S, what="a node that nobody answers says with which key it seals")
    assert await sealed.keys_shown() == []
