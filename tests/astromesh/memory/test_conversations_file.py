"""The file that keeps conversations: what it survives, and what it says when it cannot be used."""

from __future__ import annotations

import asyncio
import logging
import sqlite3
import stat
from contextlib import closing
from pathlib import Path

import pytest
from tests.rig.disks import on_a_disk

from astromesh.dialogue import Message
from astromesh.errors import MemoryUnavailable
from astromesh.memory.backends import schema
from astromesh.memory.backends import sqlite as backend
from astromesh.memory.backends.sqlite import Sqlite
from astromesh.memory.port import Conversation, Turn

DESK = Conversation("desk", "s1")


def turn(number: int, *, text: str = "") -> Turn:
    return Turn(f"t{number}", float(number), (Message("user", text or f"question {number}"), Message("assistant", f"answer {number}")))


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "data" / "conversations.sqlite3"


async def kept(path: Path, conversation: Conversation = DESK) -> list[str]:
    """What another life of the node finds."""
    memory = Sqlite(path)
    try:
        return [turn.id for turn in (await memory.recall(conversation, now=0.0)).turns]
    finally:
        await memory.close()


async def fill(path: Path, count: int = 3, *, text: str = "") -> None:
    memory = Sqlite(path)
    for number in range(count):
        await memory.remember(DESK, turn(number, text=text))
    await memory.close()


async def refused(path: Path, **how: int) -> str:
    memory = Sqlite(path, **how)
    try:
        with pytest.raises(MemoryUnavailable) as refusal:
            await memory.recall(DESK, now=0.0)
    finally:
        await memory.close()
    assert refusal.value.hint
    assert str(path) in refusal.value.message
    return f"{refusal.value.message}. {refusal.value.hint}"


async def test_turns_outlive_the_memory_that_kept_them(path: Path) -> None:
    await fill(path)
    assert await kept(path) == ["t0", "t1", "t2"]


async def test_closing_writes_what_waits(path: Path) -> None:
    memory = Sqlite(path)
    telling = [asyncio.create_task(memory.remember(DESK, turn(number))) for number in range(100)]
    await asyncio.sleep(0)
    await memory.close()
    async with asyncio.timeout(10):
        await asyncio.gather(*telling)
    assert len(await kept(path)) == 100


async def test_turns_that_wait_together_are_written_together(path: Path) -> None:
    memory = Sqlite(path)
    await memory.open()
    assert memory._connection is not None
    statements: list[str] = []
    await memory._connection.set_trace_callback(statements.append)
    await asyncio.gather(*(memory.remember(DESK, turn(number)) for number in range(backend.GROUP_TURNS_MAX)))
    await memory.close()
    assert sum(statement == "COMMIT" for statement in statements) == 1


async def test_whoever_gave_up_before_his_turn_was_written_is_not_in_the_history(path: Path) -> None:
    memory = Sqlite(path)
    await memory.open()
    async with memory._lock:
        telling = [asyncio.create_task(memory.remember(DESK, turn(number))) for number in range(3)]
        await asyncio.sleep(0)
        telling[1].cancel()
        await asyncio.wait([telling[1]])
    await asyncio.gather(telling[0], telling[2])
    await memory.close()
    assert await kept(path) == ["t0", "t2"]


async def test_the_file_is_for_the_nodes_own_user_only(path: Path) -> None:
    memory = Sqlite(path)
    await memory.remember(DESK, turn(1))
    modes = {file.name: stat.S_IMODE(file.stat().st_mode) for file in path.parent.iterdir()}
    await memory.close()
    assert modes == {path.name: 0o600, f"{path.name}-wal": 0o600}


async def test_what_was_deleted_is_in_none_of_the_files(path: Path) -> None:
    memory = Sqlite(path)
    await memory.remember(DESK, turn(1, text="the vault opens at noon"))
    await memory.forget(DESK)
    files = {file.name: file.read_bytes() for file in path.parent.iterdir()}
    await memory.close()
    assert [name for name, said in files.items() if b"vault" in said] == []


async def test_what_was_said_is_in_no_log(path: Path, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.DEBUG)
    memory = Sqlite(path)
    await memory.remember(DESK, turn(1, text="the vault opens at noon"))
    await memory.recall(DESK, now=0.0)
    await memory.close()
    assert "vault" not in caplog.text


async def test_expired_conversations_leave_the_file(path: Path) -> None:
    memory = Sqlite(path)
    for number in range(5):
        await memory.remember(Conversation("desk", f"old{number}"), turn(0), expires_at=10.0)
    await memory.remember(DESK, turn(100))
    await memory.close()
    with closing(sqlite3.connect(path)) as file:
        assert file.execute("SELECT session FROM conversation").fetchall() == [("s1",)]
        assert file.execute("SELECT count(*) FROM turn").fetchone() == (1,)


# What the file may have become.


@pytest.mark.parametrize("at", [0, 4096, 3 * 4096])
async def test_a_damaged_file_is_set_aside_with_a_message_and_never_deleted(path: Path, at: int, caplog: pytest.LogCaptureFixture) -> None:
    await fill(path, 40, text="x" * 3000)
    broken = bytearray(path.read_bytes())
    broken[at : at + 3000] = b"\xa5" * 3000
    path.write_bytes(broken)
    memory = Sqlite(path)
    (said,) = await memory.open()
    await memory.remember(DESK, turn(1))
    await memory.close()
    (aside,) = path.parent.glob("*.damaged-*")
    assert aside.read_bytes() == bytes(broken)
    assert aside.name in said
    assert str(path) in said
    assert said in caplog.text
    assert await kept(path) == ["t1"]


async def test_a_file_that_is_something_else_is_set_aside_too(path: Path) -> None:
    path.parent.mkdir()
    path.write_text("My dear diary, " * 1000)
    assert await kept(path) == []
    (aside,) = path.parent.glob("*.damaged-*")
    assert aside.read_text().startswith("My dear diary")


async def test_a_file_of_a_later_version_is_refused_and_left_as_it_is(path: Path) -> None:
    await fill(path)
    with closing(sqlite3.connect(path)) as file:
        file.execute("PRAGMA user_version=99")
    said = await refused(path)
    assert "later version" in said
    assert "99" in said
    with closing(sqlite3.connect(path)) as file:
        assert file.execute("SELECT count(*) FROM turn").fetchone() == (3,)


async def test_a_later_schema_takes_the_turns_along_and_a_migration_that_fails_changes_nothing(
    path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    await fill(path)
    broken = "ALTER TABLE conversation ADD COLUMN colour TEXT; INSERT INTO nowhere VALUES (1)"
    monkeypatch.setattr(schema, "MIGRATIONS", (*schema.MIGRATIONS, broken))
    assert "nowhere" in await refused(path)
    monkeypatch.setattr(schema, "MIGRATIONS", (*schema.MIGRATIONS[:-1], "ALTER TABLE conversation ADD COLUMN colour TEXT"))
    assert await kept(path) == ["t0", "t1", "t2"]
    with closing(sqlite3.connect(path)) as file:
        assert file.execute("PRAGMA user_version").fetchone() == (len(schema.MIGRATIONS),)


async def test_a_file_that_another_process_holds_is_refused_until_it_lets_go(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(backend, "LOCKED_S", 0.05)
    holder, second = Sqlite(path), Sqlite(path)
    await holder.remember(DESK, turn(1))
    with pytest.raises(MemoryUnavailable, match="in use by another process") as refusal:
        await second.remember(DESK, turn(2))
    assert "--data" in refusal.value.hint
    await holder.close()
    await second.remember(DESK, turn(2))
    await second.close()
    assert await kept(path) == ["t1", "t2"]


async def test_a_folder_that_cannot_be_is_named_with_what_to_do(tmp_path: Path) -> None:
    (tmp_path / "data").write_text("a file")
    said = await refused(tmp_path / "data" / "conversations.sqlite3")
    assert "--data" in said


def test_a_disk_that_cannot_be_written_is_named_and_used_again_once_it_can(tmp_path: Path) -> None:
    seen = on_a_disk("locked", tmp_path)
    assert "Read-only file system" in seen["refusal"]
    assert "--data" in seen["refusal"]
    assert (seen["again"], seen["kept"]) == ("", ["t0", "t1"])


def test_a_full_disk_refuses_turns_keeps_those_it_accepted_and_goes_on_once_there_is_room(tmp_path: Path) -> None:
    seen = on_a_disk("full", tmp_path)
    accepted = [f"t{number}" for number in range(seen["accepted"])]
    assert len(accepted) > 10
    assert "full" in seen["refusal"]
    assert seen["read"] == accepted
    assert (seen["again"], seen["kept"]) == ("", [*accepted, f"t{len(accepted)}"])


async def test_a_database_at_its_limit_refuses_turns_until_something_is_deleted(path: Path) -> None:
    memory = Sqlite(path, bytes_max=256 * 1024)
    other = Conversation("desk", "other")
    await memory.remember(other, turn(0, text="x" * 100_000))
    accepted: list[int] = []

    async def tell_on() -> None:
        while True:
            await memory.remember(DESK, turn(len(accepted), text="x" * 4000))
            accepted.append(len(accepted))

    with pytest.raises(MemoryUnavailable, match="reached its") as refusal:
        await tell_on()
    assert "ttl" in refusal.value.hint
    number = len(accepted)
    assert path.stat().st_size <= 256 * 1024
    assert len((await memory.recall(DESK, now=0.0)).turns) == number
    await memory.forget(other)
    await memory.remember(DESK, turn(number, text="x" * 4000))
    await memory.close()
    assert len(await kept(path)) == number + 1
