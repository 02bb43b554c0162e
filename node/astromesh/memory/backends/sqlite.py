"""Turns in one SQLite file of the node's data directory: what `remember` returned from outlives the process and the machine's power.

One connection, so one writer. Turns that come while another group is being written are written together: one transaction, and one fsync of
the write-ahead log before any of them counts as kept (`synchronous=FULL`). The file is locked for this process as long as it is open:
sessions are ordered by the node that holds it, and a second node on the same file could not know.
"""

from __future__ import annotations

import asyncio
import logging
import os
import sqlite3
import time
from collections import deque
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import aiosqlite

from astromesh.errors import MemoryUnavailable, Overloaded
from astromesh.memory.backends import schema
from astromesh.memory.port import TURN_BYTES_MAX, TURNS_KEPT_MAX, Conversation, History, Summary, Turn
from astromesh.memory.stored import pack, unpack

log = logging.getLogger(__name__)
# At its lowest level the library logs every statement with its values: what people said.
logging.getLogger("aiosqlite").setLevel(logging.INFO)

DATABASE_BYTES_MAX = 1024**3  # half a million turns of 2 KB. Checked whole when it is opened: 0.44 s for 208 MB on a busy core
PAGE_BYTES = 4096
LOCKED_S = 1.0  # a node that is just ending gets to let go of the file
TURNS_WAITING_MAX = 1024  # twice the runs that a node conducts
GROUP_TURNS_MAX = 64
LOG_BYTES_KEPT = 8 * 1024**2  # of the write-ahead log, once its pages are in the file
EXPIRED_AT_ONCE_MAX = 256  # conversations deleted beside one group: nobody waits long for the expiry of others
SWEEP_S = 60.0


@dataclass(frozen=True, slots=True, eq=False)
class _Waiting:
    row: tuple[Any, ...]
    at: float
    kept: asyncio.Future[None]


class Sqlite:
    def __init__(self, path: Path, *, bytes_max: int = DATABASE_BYTES_MAX) -> None:
        self._path = path
        self._bytes_max = bytes_max
        self._connection: aiosqlite.Connection | None = None
        self._lock = asyncio.Lock()  # one transaction at a time: what is read was committed
        self._waiting: deque[_Waiting] = deque()
        self._writing: asyncio.Task[None] | None = None
        self._swept_at = 0.0

    async def open(self) -> tuple[str, ...]:
        """Opens the file now instead of at its first use; what somebody should know of that. Raises `MemoryUnavailable`."""
        async with self._lock:
            return await self._open()

    async def recall(self, conversation: Conversation, *, now: float, turns_max: int = TURNS_KEPT_MAX) -> History:
        async with self._opened() as connection:
            rows = list(await connection.execute_fetchall(schema.RECALL, (*_key(conversation), now, turns_max)))
        try:
            turns = tuple(Turn(turn_id, at, unpack(said)) for turn_id, at, said, _, _ in reversed(rows))
        except (ValueError, KeyError, TypeError) as failure:
            raise MemoryUnavailable(
                f"{self._path}: a turn of this conversation cannot be read: {type(failure).__name__}", hint="delete this session's history"
            ) from failure
        return History(turns, Summary(rows[0][3], rows[0][4]) if rows and rows[0][3] is not None else None)

    async def remember(self, conversation: Conversation, turn: Turn, *, expires_at: float | None = None) -> None:
        row = (*_key(conversation), expires_at, turn.id, turn.at, pack(turn.said))
        if len(self._waiting) >= TURNS_WAITING_MAX:
            raise Overloaded(f"{TURNS_WAITING_MAX} turns wait to be written to {self._path}", hint="is its disk slow?")
        waiting = _Waiting(row, turn.at, asyncio.get_running_loop().create_future())
        self._waiting.append(waiting)
        if self._writing is None or self._writing.done():
            self._writing = asyncio.create_task(self._write(), name="writes conversations")
        await waiting.kept

    async def summarise(self, conversation: Conversation, summary: Summary) -> None:
        async with self._opened() as connection:
            await connection.execute(schema.SUMMARISE, (summary.text, summary.through, *_key(conversation), summary.through))
            await connection.commit()

    async def forget(self, conversation: Conversation) -> int:
        async with self._opened() as connection:
            ((turns,),) = await connection.execute_fetchall(schema.COUNT, _key(conversation))
            await connection.execute(schema.FORGET, _key(conversation))
            await connection.commit()
            # What was deleted is overwritten in the file (secure_delete), and the log that still has it is emptied.
            await connection.execute_fetchall("PRAGMA wal_checkpoint(TRUNCATE)")
        return int(turns)

    async def close(self) -> None:
        if self._writing is not None:
            await asyncio.wait([self._writing])
        async with self._lock:
            await self._shut()

    async def _write(self) -> None:
        """Group after group until nobody waits. Whoever gave up while waiting is left out; whoever gives up later may be in."""
        while self._waiting:
            group: list[_Waiting] = []
            async with self._lock:
                while self._waiting and len(group) < GROUP_TURNS_MAX:
                    if not (waiting := self._waiting.popleft()).kept.done():
                        group.append(waiting)
                failure = await self._commit(group) if group else None
            for waiting in group:
                if waiting.kept.done():
                    continue
                if failure is None:
                    waiting.kept.set_result(None)
                else:
                    waiting.kept.set_exception(failure)

    async def _commit(self, group: list[_Waiting]) -> MemoryUnavailable | None:
        """All of the group, or none of it and why."""
        try:
            await self._open()
            assert self._connection is not None, "it was opened"
            now = max(waiting.at for waiting in group)
            if abs(now - self._swept_at) >= SWEEP_S:
                swept = await self._connection.execute(schema.EXPIRE, (now, EXPIRED_AT_ONCE_MAX))
                if swept.rowcount < EXPIRED_AT_ONCE_MAX:
                    self._swept_at = now
            await self._connection.executemany(schema.KEEP, [waiting.row for waiting in group])
            await self._connection.commit()
        except sqlite3.Error as failure:
            return await self._trouble(failure)
        except MemoryUnavailable as failure:
            return failure
        except Exception:
            # Whoever waits here would wait for ever.
            log.exception("%s could not be written, for a reason that nobody foresaw", self._path)
            await self._shut()
            return MemoryUnavailable(f"conversations cannot be kept in {self._path}", hint="the node's log says more")
        return None

    @asynccontextmanager
    async def _opened(self) -> AsyncIterator[aiosqlite.Connection]:
        async with self._lock:
            await self._open()
            assert self._connection is not None, "it was opened"
            try:
                yield self._connection
            except sqlite3.Error as failure:
                raise await self._trouble(failure) from failure

    async def _open(self) -> tuple[str, ...]:
        if self._connection is not None:
            return ()
        try:
            return await self._connect()
        except sqlite3.Error as failure:
            if not _damaged(failure):
                raise await self._trouble(failure) from failure
            await self._shut()
            said = self._set_aside(str(failure))
        try:
            await self._connect()
        except sqlite3.Error as failure:
            raise await self._trouble(failure) from failure
        log.warning("%s", said)
        return (said,)

    async def _connect(self) -> tuple[str, ...]:
        try:
            self._path.parent.mkdir(parents=True, exist_ok=True)
            # What people said is for nobody else on this machine; the log beside the file gets the same mode.
            os.close(os.open(self._path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600))
        except OSError as failure:
            raise MemoryUnavailable(
                f"conversations cannot be kept in {self._path}: {failure.strerror}",
                hint="let the node write there, or choose another data directory with --data",
            ) from failure
        connection = self._connection = await aiosqlite.connect(self._path, timeout=LOCKED_S, isolation_level="IMMEDIATE")
        await connection.executescript(
            f"PRAGMA locking_mode=EXCLUSIVE; PRAGMA temp_store=MEMORY; PRAGMA page_size={PAGE_BYTES}; PRAGMA secure_delete=ON;"
            f"PRAGMA journal_size_limit={LOG_BYTES_KEPT}; PRAGMA foreign_keys=ON;"
        )
        ((mode,),) = await connection.execute_fetchall("PRAGMA journal_mode=WAL")
        if mode != "wal":
            raise sqlite3.OperationalError(f"SQLite would keep no write-ahead log here, but {mode}")
        await connection.executescript(f"PRAGMA synchronous=FULL; PRAGMA max_page_count={self._bytes_max // PAGE_BYTES};")
        found = [said for (said,) in await connection.execute_fetchall("PRAGMA quick_check(1)")]
        if found != ["ok"]:
            raise sqlite3.DatabaseError("; ".join(found))
        await self._migrate(connection)
        await connection.executescript(schema.KEEPING)
        return ()

    async def _migrate(self, connection: aiosqlite.Connection) -> None:
        ((seen,),) = await connection.execute_fetchall("PRAGMA user_version")
        if seen > len(schema.MIGRATIONS):
            await self._shut()
            raise MemoryUnavailable(
                f"{self._path} was written by a later version of the node (schema {seen}, this one knows {len(schema.MIGRATIONS)})",
                hint="run that version again, or move the file away",
            )
        for number in range(seen, len(schema.MIGRATIONS)):
            await connection.executescript(f"BEGIN IMMEDIATE; {schema.MIGRATIONS[number]}; PRAGMA user_version={number + 1}; COMMIT;")

    def _set_aside(self, why: str) -> str:
        """Never deleted: somebody may still get what was said out of it."""
        aside = self._path.with_name(f"{self._path.name}.damaged-{time.time_ns()}")
        for suffix in ("", "-wal", "-shm"):
            with suppress(FileNotFoundError):
                Path(f"{self._path}{suffix}").rename(f"{aside}{suffix}")
        return f"{self._path} is damaged ({why}). It was moved to {aside.name}, and conversations begin anew"

    async def _trouble(self, failure: sqlite3.Error) -> MemoryUnavailable:
        """What it means and what to do. The transaction is undone; a file whose state is in doubt is closed, and opened at the next use."""
        name = getattr(failure, "sqlite_errorname", None) or ""
        connection = self._connection
        message, hint = f"conversations cannot be kept in {self._path}: {failure}", "the disk's own log may say more"
        full = False
        if connection is not None and name == "SQLITE_FULL":
            with suppress(sqlite3.Error):
                ((pages,),) = await connection.execute_fetchall("PRAGMA page_count")
                full = pages * PAGE_BYTES + TURN_BYTES_MAX > self._bytes_max  # what found no room is at most about a turn
        if full:
            message = f"{self._path} has reached its {self._bytes_max // 1024**2} MiB: no more turns are kept"
            hint = "delete sessions (DELETE /v1/memory/AGENT/history/SESSION), or give agents a spec.memory.conversational.ttl"
        elif name == "SQLITE_FULL":
            message, hint = f"the disk of {self._path} is full: no more turns are kept", "free some space: nothing has to be restarted"
        elif name.startswith(("SQLITE_BUSY", "SQLITE_LOCKED")):
            message = f"{self._path} is in use by another process"
            hint = "stop the other node on this data directory, ask it instead (--url), or choose another one with --data"
        elif name.startswith(("SQLITE_READONLY", "SQLITE_CANTOPEN", "SQLITE_PERM")):
            hint = "let the node write there, or choose another data directory with --data"
        elif _damaged(failure):
            message, hint = f"{self._path} is damaged ({failure})", "it is looked at when it is used next, and set aside, not deleted"
        if connection is not None:
            with suppress(sqlite3.Error):
                await connection.rollback()
        if name != "SQLITE_FULL":
            await self._shut()
        log.warning("%s. %s", message, hint)
        return MemoryUnavailable(message, hint=hint)

    async def _shut(self) -> None:
        connection, self._connection = self._connection, None
        if connection is not None:
            with suppress(sqlite3.Error):
                await connection.close()


def _key(conversation: Conversation) -> tuple[str, str, str]:
    return conversation.namespace, conversation.agent, conversation.session_id


def _damaged(failure: sqlite3.Error) -> bool:
    name = getattr(failure, "sqlite_errorname", None)
    return type(failure) is sqlite3.DatabaseError if name is None else name.startswith(("SQLITE_CORRUPT", "SQLITE_NOTADB"))
