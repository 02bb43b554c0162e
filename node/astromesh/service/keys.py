"""This node's part in the keys of its cluster: asks all members about them, keeps its own in the keyring file, says which it lacks.

The mesh holds the keys that count. Whoever changed them, this node, another or a stock agent, the file follows.
"""

from __future__ import annotations

import asyncio
import logging
import secrets
import time
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Protocol

from astromesh.errors import DeadlineExceeded, KeysRefused, Overloaded
from astromesh.fleet.keyrings import HOW_TO_GET_KEYS, GivenKey, KeyCensus, KeyChange, KeyChoice, Label, NamedKey, NewKey, census, change
from astromesh.service.keyring_file import KeyringFile
from maia.errors import MisuseError
from maia.keyring import Keyring, fingerprint_of
from maia.view import KeyMissing, KeyOperation, KeyQueryEnded, KeyringChanged

log = logging.getLogger(__name__)

NEW_KEY_BYTES = 32  # AES-256
# The mesh itself waits for whoever is silent as Serf does, 3 s up to nine nodes, 32 s at a thousand in the WAN profile; this is for a mesh
# that says nothing at all. When everybody answers, it is a moment.
ASK_S = 40.0
WAITING_MAX = 1  # people ask, one at a time; two questions each, and the command line waits for no more than one before it
WRITE_AGAIN_S = 60.0  # a disk that was full or read-only may be mended by then
MISSING_LOGGED_EVERY_S = 60.0
MISSING_SHOWN_S = 180.0  # after it was last heard of; as long as there is something to hear, it is heard of again
MISSING_MAX = 16  # different ones at once; a cluster seals with one, or with two in the middle of a change

IN_THE_CLEAR = "the mesh of this node gossips in the clear: it was started without keys"


class KeyDriver(Protocol):
    """What of a `MeshDriver` has to do with keys."""

    @property
    def keyring(self) -> Keyring | None: ...

    async def ask_keys(self, operation: KeyOperation, key: bytes | None, *, timeout_s: float) -> KeyQueryEnded:
        """Raises `MisuseError`, `TimeoutError`; cancelled where the mesh ends."""
        ...


class MissingKeys:
    """Which keys this node was found to lack, and when that is worth a line in the log."""

    def __init__(self) -> None:
        self._heard_at: dict[str, float] = {}  # by fingerprint, empty for one that nobody could tell
        self._logged_at: float | None = None

    def heard(self, fingerprint: str, *, now: float) -> bool:
        """Whether to log it."""
        if fingerprint not in self._heard_at and len(self._heard_at) >= MISSING_MAX:
            del self._heard_at[min(self._heard_at, key=lambda known: (self._heard_at[known], known))]
        self._heard_at[fingerprint] = now
        due = self._logged_at is None or now - self._logged_at >= MISSING_LOGGED_EVERY_S
        if due:
            self._logged_at = now
        return due

    def have(self, keyring: Keyring) -> None:
        """These are there now. What nobody could tell is forgotten, too: it will be heard of again if it is still missing."""
        for fingerprint in ("", *(fingerprint_of(key) for key in keyring.keys)):
            self._heard_at.pop(fingerprint, None)

    def now_missing(self, *, now: float) -> tuple[str, ...]:
        return tuple(sorted(fingerprint for fingerprint, at in self._heard_at.items() if now - at < MISSING_SHOWN_S))


class ClusterKeys:
    """The keys of one node's cluster, over all lives of the node in its mesh."""

    def __init__(self, path: Path | None, *, driver: Callable[[], KeyDriver], label: Label, members: Callable[[], str]) -> None:
        """`members` names some who may have a key that this node lacks. Raises `ConfigurationError` as `read_keyring` does."""
        self._file = KeyringFile(path) if path is not None else None
        self.ring = self._file.kept if self._file is not None else None  # None: in the clear
        self._driver = driver
        self._label = label
        self._members = members
        self._missing = MissingKeys()
        self._unwritten = ""  # why the file is behind the mesh
        self._turn = asyncio.Lock()
        self._waiting = 0
        self._writing = asyncio.Lock()
        self._again: asyncio.TimerHandle | None = None
        self._tasks: set[asyncio.Task[None]] = set()

    async def list(self) -> KeyCensus | None:
        """Asks every living member; None where the mesh is in the clear. Raises `Overloaded`."""
        if self.ring is None:
            return None
        async with self._alone():
            return await self._census()

    async def install(self, choice: KeyChoice) -> KeyChange:
        """Gives everybody a key that opens. Harmless, and may be repeated.

        Raises `KeysRefused` in the clear, `UnknownKey`, `InvalidRequest`, `Overloaded`; so do `use` and `remove`.
        """
        async with self._sealed():
            match choice:
                case NewKey():
                    key = secrets.token_bytes(NEW_KEY_BYTES)
                case GivenKey(key):
                    pass
                case NamedKey():
                    key = (await self._census()).find(choice)
            return await self._ask("install", key)

    async def use(self, choice: NamedKey | GivenKey, *, force: bool) -> KeyChange:
        """Makes everybody seal with it. Raises `KeysRefused` unless all hold it, or `force` says to cut off those that do not."""
        async with self._sealed():
            held = await self._census()
            key = _chosen(choice, held)
            if not force:
                held.check_use(key)
            return await self._ask("use", key)

    async def remove(self, choice: NamedKey | GivenKey, *, force: bool) -> KeyChange:
        """Takes it from everybody. Raises `KeysRefused` while it seals anywhere, unless `force` says to cut those off."""
        async with self._sealed():
            held = await self._census()
            key = _chosen(choice, held)
            if not force:
                held.check_remove(key)
            return await self._ask("remove", key)

    def hear(self, event: KeyringChanged | KeyMissing) -> None:
        """What the mesh says of keys, on the node's own loop."""
        match event:
            case KeyringChanged():
                self.follow()
                self._begin_write()
            case KeyMissing(fingerprint):
                if self._missing.heard(fingerprint, now=time.monotonic()):
                    log.warning("%s", self._lack(fingerprint))

    def follow(self) -> None:
        """Takes the keys from the mesh as they are now. A mesh in the clear never gets any."""
        if self.ring is not None and (ring := self._driver().keyring) is not None:
            self.ring = ring
            self._missing.have(ring)

    def warnings(self) -> tuple[str, ...]:
        """What somebody should do, in sentences."""
        missing = self._missing.now_missing(now=time.monotonic())
        return (*([self._unwritten] if self._unwritten else []), *(self._lack(fingerprint) for fingerprint in missing))

    def doubt(self) -> str:
        """What a node that nobody answers should know of its keys: who has others hears nothing, and so says nothing."""
        if self.ring is None:
            return ""
        name = fingerprint_of(self.ring.primary)
        return (
            f". It seals with the key {name}: a mesh that changed its keys while this node was away cannot open that. "
            f"'astromesh-node keys list' on a member shows its keys; 'keys install --key-file FILE' and 'keys use' bring one here"
        )

    async def close(self) -> None:
        """Writes what is not written yet."""
        await asyncio.gather(*self._tasks)
        await self._write()
        if self._again is not None:
            self._again.cancel()

    async def _census(self) -> KeyCensus:
        return census(await self._put("list", None), label=self._label)

    async def _ask(self, operation: KeyOperation, key: bytes) -> KeyChange:
        ended = await self._put(operation, key)
        self.follow()
        # Whoever is told that it is done may pull the plug; who left before that has not stopped it.
        await asyncio.shield(self._begin_write())
        return change(ended, key, label=self._label)

    async def _put(self, operation: KeyOperation, key: bytes | None) -> KeyQueryEnded:
        try:
            return await self._driver().ask_keys(operation, key, timeout_s=ASK_S)
        except MisuseError as mistake:
            raise KeysRefused(f"the mesh does not do that with its keys: {mistake}", hint="astromesh-node keys list shows them") from None
        except TimeoutError:
            raise _unfinished(f"the mesh did not come to an end with it within {ASK_S:g} s") from None
        except asyncio.CancelledError:
            task = asyncio.current_task()
            if task is not None and task.cancelling():
                raise
            raise _unfinished("this node left the mesh in the middle of it") from None

    def _begin_write(self) -> asyncio.Task[None]:
        task = asyncio.create_task(self._write(), name="writing the keyring file")
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)
        return task

    async def _write(self) -> None:
        async with self._writing:
            file, ring = self._file, self.ring
            if self._again is not None:
                self._again.cancel()
                self._again = None
            if file is None or ring is None or ring == file.kept:
                self._unwritten = ""
                return
            try:
                notes = await asyncio.to_thread(file.write, ring)
            except OSError as failure:
                self._unwritten = (
                    f"the keys of the mesh changed and the keyring file {file.path} cannot be written ({failure.strerror}): this node goes "
                    "on with the new ones, but would start with the old ones. Make the file and its folder writable for this node; it "
                    "tries again every minute"
                )
                log.error("%s", self._unwritten)
                self._again = asyncio.get_running_loop().call_later(WRITE_AGAIN_S, self._begin_write)
            else:
                self._unwritten = ""
                for note in notes:
                    log.warning("%s", note)
                others = ", ".join(fingerprint_of(key) for key in ring.keys[1:])
                opens = f", {others} open{'' if ',' in others else 's'}" if others else ""
                log.info("the keys of the mesh changed: %s seals%s; written to %s", fingerprint_of(ring.primary), opens, file.path)

    def _lack(self, fingerprint: str) -> str:
        if self.ring is None:
            return f"others seal their gossip and this node has no keys, so it cannot hear them: {HOW_TO_GET_KEYS}"
        which = f"the key {fingerprint}" if fingerprint else "a key, nobody could tell which,"
        entry = "that key" if fingerprint else "the first key"
        return (
            f"this node lacks {which} with which its cluster seals, and cannot hear what is told to it: copy {entry} from the keyring file "
            f"of {self._members()} into a file here (mode 0600), then 'astromesh-node keys install --key-file FILE' and "
            f"'astromesh-node keys use {fingerprint or 'FINGERPRINT'}' on this node"
        )

    @asynccontextmanager
    async def _sealed(self) -> AsyncIterator[None]:
        if self.ring is None:
            raise KeysRefused(IN_THE_CLEAR, hint=HOW_TO_GET_KEYS)
        async with self._alone():
            yield

    @asynccontextmanager
    async def _alone(self) -> AsyncIterator[None]:
        """One question at a time: what is checked is still so when it is acted upon, as far as this node is concerned."""
        if self._turn.locked() and self._waiting >= WAITING_MAX:
            raise Overloaded("this node is asking about keys already", hint="try again in a few seconds", retry_after_s=5)
        self._waiting += 1
        try:
            await self._turn.acquire()
        finally:
            self._waiting -= 1
        try:
            yield
        finally:
            self._turn.release()


def _unfinished(why: str) -> DeadlineExceeded:
    return DeadlineExceeded(f"{why}; some members may have done what was asked", hint="astromesh-node keys list shows how far it has come")


def _chosen(choice: NamedKey | GivenKey, held: KeyCensus) -> bytes:
    match choice:
        case GivenKey(key):
            return key
        case NamedKey():
            return held.find(choice)
