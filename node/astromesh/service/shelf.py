"""What people do with the models of this node, and of no other: pull, show, plan, load, unload, remove.

A pull that two people ask for is one, and goes on as long as one of them listens.
"""

from __future__ import annotations

import asyncio
import threading
from collections.abc import AsyncGenerator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field, replace
from time import monotonic
from typing import Any

from astromesh.api.house import PullProgress
from astromesh.errors import ModelBusy, Overloaded, StoreError, UnknownModel
from astromesh.inference import manifest, registry
from astromesh.inference.manifest import StoredModel
from astromesh.inference.placement import Placement
from astromesh.inference.residence import LOAD_BYTES_S, START_S
from astromesh.runtime.engines import missing_for
from astromesh.runtime.own_model import FoundModel
from astromesh.runtime.targets import pinned_name
from astromesh.service.models import InstalledModels

PULLS_AT_ONCE_MAX = 4  # each has a thread; more would only share the line
TOLD_EVERY_S = 0.25


@dataclass(slots=True, eq=False)
class _Pull:
    """One under way. `enough`: nobody listens any more, so its thread ends at its next word."""

    task: asyncio.Task[StoredModel] | None = None
    listeners: int = 0
    enough: threading.Event = field(default_factory=threading.Event)
    told: PullProgress = field(default_factory=lambda: PullProgress(0, 0, "starting", None, None))
    what_began_s: float = 0.0
    what_began_bytes: int = 0

    def tell(self, done: int, total: int, what: str) -> None:
        """Called by its thread."""
        if self.enough.is_set():
            raise StoreError(f"nobody waits any more while {what}")
        now = monotonic()
        if what != self.told.what:
            self.what_began_s, self.what_began_bytes = now, done
        passed_s, came = now - self.what_began_s, done - self.what_began_bytes
        rate = came / passed_s if passed_s > 0 and came > 0 else None
        eta_s = (total - done) / rate if rate and total else None
        self.told = PullProgress(done, total, what, rate, eta_s)


class Shelf:
    """A `ModelControl`."""

    def __init__(self, installed: InstalledModels) -> None:
        self._installed = installed
        self._local = installed.local
        self._store = installed.store
        self._pulls: dict[tuple[str, str | None, str], _Pull] = {}
        # Not the loop's own threads: a download takes long, and others write to disk with those.
        self._threads = ThreadPoolExecutor(PULLS_AT_ONCE_MAX, thread_name_prefix="pull")

    async def close(self) -> None:
        pulls = tuple(self._pulls.values())
        for pull in pulls:
            pull.enough.set()
        await asyncio.gather(*(pull.task for pull in pulls if pull.task is not None), return_exceptions=True)
        self._threads.shutdown(wait=False)

    async def pull(self, source: str, *, name: str | None, sha256: str) -> AsyncGenerator[PullProgress | dict[str, Any], None]:
        key = (source, name, sha256)
        while (pull := self._pulls.get(key)) is not None and pull.enough.is_set():
            assert pull.task is not None
            await asyncio.wait([pull.task])  # everybody had left it, so it ends at its next word; what came is gone on with
        if pull is None:
            if len(self._pulls) >= PULLS_AT_ONCE_MAX:
                raise Overloaded(f"{len(self._pulls)} models are being pulled already", hint="wait for one of them", retry_after_s=30)
            pull = self._pulls[key] = _Pull()
            pull.task = asyncio.create_task(self._pull(key, pull), name=f"pulling {len(self._pulls)}")
        assert pull.task is not None
        pull.listeners += 1
        last = None
        try:
            while not (await asyncio.wait([pull.task], timeout=TOLD_EVERY_S))[0]:
                if (told := pull.told) is not last:
                    last = told
                    yield told
            stored = pull.task.result()
            yield manifest.described(stored) | _problem(stored)
        finally:
            pull.listeners -= 1
            if not pull.listeners:
                pull.enough.set()
                await asyncio.wait([pull.task])
                _ = pull.task.cancelled() or pull.task.exception()  # whoever left does not want to know

    async def _pull(self, key: tuple[str, str | None, str], pull: _Pull) -> StoredModel:
        source, name, sha256 = key
        loop = asyncio.get_running_loop()
        try:
            stored = await loop.run_in_executor(
                self._threads,
                lambda: self._store.pull(self._installed.source_of(source), name=name, sha256=sha256, progress=pull.tell),
            )
            if not self._local.has(stored.name) and not self._local.has(source):
                self._installed.add(stored)
                self._local.changed()
            return stored
        finally:
            del self._pulls[key]

    async def show(self, name: str) -> dict[str, Any] | None:
        if not self._local.has(self._named(name)) and not await self._is_stored(name):
            return None
        try:
            stored = await self._resolved(name)
            return manifest.described(stored) | {"plan": await self.plan(name)}
        except StoreError as problem:
            return {"problem": problem.message}

    async def plan(self, name: str, *, context: int | None = None) -> dict[str, Any]:
        if not await self._is_stored(name):
            raise self._unknown(name)
        stored = await self._resolved(name)
        found, placement = await asyncio.to_thread(self._installed.found, stored, context=context)
        leaving = self._local.leaving_for(stored.name, found.needed_bytes)
        there = next((row for row in self._local.rows() if row["name"] == stored.name), {})
        model = found.specification
        return {
            "model": stored.name,
            "state": there.get("state", "on_disk"),
            "fits": self._fits(stored.name, found, placement),
            "needed_bytes": found.needed_bytes,
            "budget_bytes": self._local.rules.budget_bytes,
            "unloads": list(leaving or ()),
            "prefix_cache_bytes": model.prefix_cache_bytes,
            "context": model.context,
            "parallel": model.parallel,
            "placement": None if placement is None else placement.as_json(),
            "load_s": round(START_S + stored.size_bytes / LOAD_BYTES_S, 1),
            "tok_s": there.get("tok_s"),
            "tok_s_estimate": None if placement is None else self._estimated_tok_s(stored),
        } | _problem(stored)

    def _fits(self, name: str, found: FoundModel, placement: Placement | None) -> bool | None:
        """None where the machine does not tell. With all that it takes of the memory, and not its weights alone."""
        residents = {one.name: one.needed_bytes for one in self._local.residents()}
        if name in residents:
            return True
        leaving = self._local.leaving_for(name, found.needed_bytes)
        if leaving is None or (placement is not None and placement.fits is False):
            return False
        if placement is None or placement.fits is None:
            return None
        freed = sum(residents[one] for one in leaving)
        return placement.host_free_bytes is None or found.needed_bytes <= placement.host_free_bytes + freed

    def load(self, name: str) -> dict[str, Any]:
        own = self._local.own(self._named(name))
        own.load()
        return own.row()

    async def unload(self, name: str, *, force: bool) -> dict[str, Any]:
        own = self._local.own(self._named(name))
        await own.unload(force=force)
        return own.row()

    async def remove(self, name: str, *, force: bool) -> None:
        if not await self._is_stored(name):
            if self._local.has(name):
                self._local.own(name)  # behind a server it is not this node's to remove
            raise self._unknown(name)
        stored = self._installed.stored_as(self._named(name))
        using = [own for own in self._local.names() if self._installed.stored_as(own) == stored]
        for one in using:
            if (state := self._local.own(one).state) in ("loaded", "loading") and not force:
                raise ModelBusy(
                    f"model {one} is {state} on this node", hint=f"astromesh-node models unload {one} first, or rm it with --force"
                )
        await asyncio.to_thread(self._store.remove, pinned_name(stored, registry.parsed(name)[1]))
        for one in using:
            del self._installed.models.local[one]
            await self._local.forget(one)

    def _named(self, name: str) -> str:
        """By which name this node answers for it, by an alias, say. Raises `UnknownModel` where its file is not the pinned one."""
        if self._local.has(name):
            return name
        plain, pinned = registry.parsed(name)
        if pinned and plain in self._local.names() and not (identity := self._local.own(plain).identity).startswith(pinned):
            raise UnknownModel(
                f"model {plain} of this node has sha256 {identity or 'not known yet'}, not {pinned}", hint="leave the digest out"
            )
        return plain

    def _unknown(self, name: str) -> UnknownModel:
        return UnknownModel(f"there is no model {name!r} in {self._store.root}", hint="astromesh-node models list")

    async def _is_stored(self, name: str) -> bool:
        """Usable or not."""
        return await asyncio.to_thread(self._store.has, self._installed.stored_as(self._named(name)))

    async def _resolved(self, name: str) -> StoredModel:
        """Under the name by which this node answers for it. Raises `StoreError`, `UnknownModel`."""
        known = self._named(name)
        stored = await asyncio.to_thread(self._store.resolve, self._installed.stored_as(known))
        if not stored.sha256.startswith(registry.parsed(name)[1]):
            raise UnknownModel(f"model {known} of this node has sha256 {stored.sha256}", hint="leave the digest out")
        return replace(stored, name=known)

    def _estimated_tok_s(self, stored: StoredModel) -> float | None:
        """From a model that was measured here: making a token reads all weights once, so speed goes with their size."""
        known = [row for row in self._local.rows() if row.get("tok_s") and row.get("size_bytes") and row["name"] != stored.name]
        if not known:
            return None
        nearest = min(known, key=lambda row: (abs(row["size_bytes"] - stored.size_bytes), row["name"]))
        return float(f"{nearest['tok_s'] * nearest['size_bytes'] / stored.size_bytes:.2g}")


def _problem(stored: StoredModel) -> dict[str, str]:
    """What keeps this node from running it, however much room there is."""
    return {"problem": missing} if (missing := missing_for(stored.kind)) else {}
