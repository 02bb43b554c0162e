"""Real nodes change their keys through the command line, lose nobody on the way, and one that was away comes back."""

from __future__ import annotations

import asyncio
import json
import os
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack
from dataclasses import dataclass
from pathlib import Path

import pytest
from tests.cluster.conftest import FAST, sees
from tests.rig.eventually import eventually
from tests.rig.key_members import shown
from tests.rig.nodes import PROGRAM, SOURCES, Node, node_process

from maia.keyring import Keyring, fingerprint_of, keyring_text, parse_keyring, text_of

pytestmark = pytest.mark.processes

FIRST = b"f" * 32
MEET_GOAL_S = 1.5
DEATH_GOAL_S = 3.0
KEY_GOAL_S = 2.0
COMMAND_S = 60.0
NAMES = ("one", "two", "three")


@dataclass(frozen=True, slots=True)
class Said:
    code: int
    stdout: str
    stderr: str

    @property
    def everything(self) -> str:
        return self.stdout + self.stderr


class SealedNodes:
    """Three nodes, each with a keyring file of its own, and everything that was said about keys."""

    def __init__(self, nodes: dict[str, Node], folder: Path) -> None:
        self.nodes = nodes
        self._folder = folder
        self._said: list[str] = []
        self._keys: dict[bytes, None] = {FIRST: None}

    def file(self, name: str) -> Path:
        return self._folder / f"{name}.json"

    def ring(self, name: str) -> Keyring:
        """What is in the file of a node."""
        ring = parse_keyring(self.file(name).read_text())
        self._keys |= dict.fromkeys(ring.keys)
        return ring

    async def keys(self, name: str, *words: str, stdin: str = "") -> Said:
        """`astromesh-node keys …` against a node, in a process of its own."""
        environment = {key: value for key, value in os.environ.items() if not key.startswith("ASTROMESH_")}
        environment["PYTHONPATH"] = os.pathsep.join(str(source) for source in SOURCES)
        pipe = asyncio.subprocess.PIPE
        process = await asyncio.create_subprocess_exec(
            *PROGRAM, "--url", self.nodes[name].api, "keys", *words, stdin=pipe, stdout=pipe, stderr=pipe, env=environment
        )
        async with asyncio.timeout(COMMAND_S):
            out, err = await process.communicate(stdin.encode())
        said = Said(process.returncode or 0, out.decode(), err.decode())
        self._said.append(said.everything)
        return said

    async def kept(self, *fingerprints: str) -> None:
        """Every node has these keys in its file, in this order: one that is asked confirms first and writes then."""

        async def written() -> bool:
            found = {name: [fingerprint_of(key) for key in self.ring(name).keys] for name in NAMES}
            assert found == {name: list(fingerprints) for name in NAMES}
            return True

        await eventually(written, KEY_GOAL_S, what=f"every file holds {', '.join(fingerprints)}")

    async def new_key(self, name: str) -> str:
        said = await self.keys(name, "install", "--generate")
        assert said.code == 0, said.everything
        return said.stdout.strip()

    async def all_alive(self, *names: str) -> None:
        for name in names:
            alive = dict.fromkeys(names, "alive")

            async def met(name: str = name, alive: dict[str, str] = alive) -> bool:
                state = await self.nodes[name].get("/v1/mesh/state")
                found = {row["name"]: row["status"] for row in state["nodes"] if row["name"] in alive}
                assert found == alive, f"{name} sees {found}"
                return True

            await eventually(met, MEET_GOAL_S, what=f"{name} sees {', '.join(names)} alive")

    async def keys_shown(self) -> list[str]:
        """The keys that can be read in anything but the keyring files: logs, answers, command lines, what the commands printed."""
        texts = list(self._said)
        for name, node in self.nodes.items():
            self.ring(name)
            texts.append(node.output)
            if node.exit_code is None:
                texts.append(Path(f"/proc/{node.pid}/cmdline").read_text())
                paths = ("/v1/mesh/keys", "/v1/mesh/state", "/v1/nodes", "/v1/system/status", "/openapi.json")
                texts += [json.dumps(await node.get(path)) for path in paths]
        return shown(self._keys, "\n".join(texts))


@pytest.fixture
async def sealed(tmp_path: Path) -> AsyncIterator[SealedNodes]:
    async with AsyncExitStack() as stack:
        nodes: dict[str, Node] = {}
        for name in NAMES:
            file = tmp_path / f"{name}.json"
            file.write_text(keyring_text(Keyring((FIRST,))))
            file.chmod(0o600)
            join = [nodes["one"].gossip] if nodes else []
            arguments = ["--keyring-file", str(file), *FAST]
            nodes[name] = await stack.enter_async_context(node_process(name, join=join, arguments=arguments))
        opened = SealedNodes(nodes, tmp_path)
        await opened.all_alive(*NAMES)
        yield opened


async def test_three_nodes_rotate_their_key_and_start_again_with_the_new_one(sealed: SealedNodes) -> None:
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
    await sealed.all_alive(*NAMES)
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


async def test_a_node_that_was_away_is_back_once_somebody_brought_it_the_key(sealed: SealedNodes) -> None:
    three = sealed.nodes["three"]
    await three.kill()
    await eventually(
        lambda: sees(sealed.nodes["one"], {"one": "alive", "two": "alive", "three": "dead"}), DEATH_GOAL_S, what="three is given up"
    )
    new = await sealed.new_key("one")
    for words in (("use", new), ("remove", fingerprint_of(FIRST))):
        said = await sealed.keys("one", *words)
        assert said.code == 0, said.everything

    await three.start()
    listed = json.loads((await sealed.keys("three", "list", "--json")).stdout)
    assert [(key["fingerprint"], key["held_by"]) for key in listed["keys"]] == [(fingerprint_of(FIRST), ["three"])]

    entry = text_of(sealed.ring("one").primary)
    assert (await sealed.keys("three", "install", "--key-file", "-", stdin=entry)).code == 0
    assert (await sealed.keys("three", "use", new)).code == 0
    await sealed.all_alive(*NAMES)
    assert (await three.get("/v1/system/status"))["warnings"] == []
    assert [fingerprint_of(key) for key in sealed.ring("three").keys] == [new, fingerprint_of(FIRST)]
    assert await sealed.keys_shown() == []
