"""A memory on a disk that is full or cannot be written, in a mount namespace of its own: `python -m tests.rig.disks full|locked FOLDER`.

Prints what happened as one JSON object.
"""

from __future__ import annotations

import asyncio
import json
import subprocess
import sys
from pathlib import Path
from typing import Any

from tests.rig.nodes import ROOT

from astromesh.dialogue import Message
from astromesh.errors import MemoryUnavailable
from astromesh.memory.backends.sqlite import Sqlite
from astromesh.memory.port import Conversation, Turn

TURN_CHARACTERS = 8000
TURNS_MAX = 1000
BALLAST_BYTES = 256 * 1024
DESK = Conversation("desk", "s1")


def on_a_disk(kind: str, folder: Path) -> Any:
    """What a child with a small disk of its own at `folder` said."""
    command = ["unshare", "--user", "--map-root-user", "--mount", sys.executable, "-m", "tests.rig.disks", kind, str(folder)]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=60)
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout)


def turn(number: int) -> Turn:
    return Turn(f"t{number}", float(number), (Message("user", "x" * TURN_CHARACTERS),))


async def tell(memory: Sqlite, number: int) -> str:
    """Empty where the turn is kept, else why it is not."""
    try:
        await memory.remember(DESK, turn(number))
    except MemoryUnavailable as refusal:
        return f"{refusal.message}. {refusal.hint}"
    return ""


async def kept(folder: Path) -> list[str]:
    memory = Sqlite(folder / "conversations.sqlite3")
    try:
        return [each.id for each in (await memory.recall(DESK, now=0.0)).turns]
    finally:
        await memory.close()


async def full(folder: Path) -> dict[str, Any]:
    ballast = folder / "ballast"
    ballast.write_bytes(bytes(BALLAST_BYTES))
    memory = Sqlite(folder / "conversations.sqlite3")
    number, refusal = 0, ""
    while not (refusal := await tell(memory, number)):
        number += 1
        assert number < TURNS_MAX, "the disk never filled up"
    read = [each.id for each in (await memory.recall(DESK, now=0.0)).turns]
    ballast.unlink()
    again = await tell(memory, number)
    await memory.close()
    return {"accepted": number, "refusal": refusal, "read": read, "again": again, "kept": await kept(folder)}


async def locked(folder: Path) -> dict[str, Any]:
    memory = Sqlite(folder / "conversations.sqlite3")
    await tell(memory, 0)
    await memory.close()
    mount("-o", "remount,ro", str(folder))
    memory = Sqlite(folder / "conversations.sqlite3")
    refusal = await tell(memory, 1)
    mount("-o", "remount,rw", str(folder))
    again = await tell(memory, 1)
    await memory.close()
    return {"refusal": refusal, "again": again, "kept": await kept(folder)}


def mount(*arguments: str) -> None:
    subprocess.run(["mount", *arguments], check=True)


def main() -> None:
    kind, folder = sys.argv[1], Path(sys.argv[2])
    mount("-t", "tmpfs", "-o", "size=2m", "none", str(folder))
    print(json.dumps(asyncio.run({"full": full, "locked": locked}[kind](folder))))


if __name__ == "__main__":
    main()
