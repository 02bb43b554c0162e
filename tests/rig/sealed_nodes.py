"""Nodes with a keyring file each, the command line against them, and everything that was said, so that no key can hide in it."""

from __future__ import annotations

import asyncio
import json
import os
from dataclasses import dataclass
from pathlib import Path

from tests.rig.eventually import eventually
from tests.rig.key_members import shown
from tests.rig.nodes import PROGRAM, SOURCES, Node

from maia.keyring import Keyring, fingerprint_of, keyring_text, parse_keyring

FIRST = b"f" * 32  # with which everybody starts
MEET_GOAL_S = 1.5
KEY_GOAL_S = 2.0
COMMAND_S = 60.0


def new_keyring_file(folder: Path, name: str) -> Path:
    """Of a node that was never started."""
    file = folder / f"{name}.json"
    file.write_text(keyring_text(Keyring((FIRST,))))
    file.chmod(0o600)
    return file


@dataclass(frozen=True, slots=True)
class Said:
    code: int
    stdout: str
    stderr: str

    @property
    def everything(self) -> str:
        return self.stdout + self.stderr


class SealedNodes:
    """`nodes` by name; each has its keyring file in `folder`."""

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
            found = {name: [fingerprint_of(key) for key in self.ring(name).keys] for name in self.nodes}
            assert found == {name: list(fingerprints) for name in self.nodes}
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
