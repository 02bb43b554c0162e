"""Agents that came over the API, on disk: one JSON file for each, with all that there is of it.

Each change of an agent is one file replaced by a whole new one, so after a crash there is the state before it or the state after it. The
documents in them stay as they were written: `${NAME}` is looked up when an agent is built, and no secret that it stands for is written
here. What a document holds of secrets itself is for the node's user alone (0600).
"""

from __future__ import annotations

import contextlib
import os
import time
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, get_args

import orjson

from astromesh.errors import AgentsUnwritable
from astromesh.specs.resource import qualified
from astromesh.specs.section import is_name

FORMAT = 1
FILE_BYTES_MAX = 16 * 2**20  # two documents, each of which came as a body of at most 10 MiB and holds at most 5,000 values
AGENTS_KEPT_MAX = 1000  # as many as a folder of the configuration may hold

KeptStatus = Literal["draft", "deployed", "paused"]


@dataclass(frozen=True, slots=True)
class KeptAgent:
    """Without any document it says of an agent in a file of the configuration that it is paused."""

    name: str
    namespace: str
    status: KeptStatus
    deployed: Mapping[str, Any] | None
    draft: Mapping[str, Any] | None

    @property
    def key(self) -> str:
        return qualified(self.name, self.namespace)


class AgentFiles:
    """Its methods block; one at a time."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder

    def path(self, name: str, namespace: str) -> Path:
        """Neither holds a dot or a slash, so no two agents share a file and none lies elsewhere."""
        assert is_name(name), "who asks has looked"
        assert is_name(namespace), "who asks has looked"
        return self._folder / f"{namespace}.{name}.json"

    def read(self) -> tuple[dict[str, KeptAgent], list[str]]:
        """What is kept, by key, and what somebody should know. A damaged file is set aside; none keeps the node from starting."""
        kept: dict[str, KeptAgent] = {}
        said: list[str] = []
        try:
            names = sorted(entry.name for entry in os.scandir(self._folder))
        except FileNotFoundError:
            return {}, []
        except OSError as failure:
            return {}, [f"{self._folder} cannot be read ({failure.strerror}): agents that came over the API are not here"]
        for name in names:
            if name.endswith(".json"):
                self._take(self._folder / name, kept, said)
        return kept, said

    def _take(self, path: Path, kept: dict[str, KeptAgent], said: list[str]) -> None:
        try:
            with path.open("rb") as file:
                raw = file.read(FILE_BYTES_MAX + 1)
        except OSError as failure:
            said.append(f"{path} cannot be read ({failure.strerror}): this agent is not here. Let the node's user read it")
            return
        try:
            one = _kept(raw)
            if self.path(one.name, one.namespace) != path:
                raise ValueError(f"it holds the agent {one.key}")
        except _Later as later:
            said.append(f"{path} was written by a later version of the node ({later}) and is left as it is: this agent is not here")
        except (ValueError, KeyError, TypeError) as mistake:
            said.append(_set_aside(path, str(mistake) or type(mistake).__name__))
        else:
            kept[one.key] = one

    def write(self, one: KeptAgent) -> None:
        """When it returns, the state is kept. Raises `AgentsUnwritable`; then it is that of before, or this one where only the last sync
        failed."""
        path = self.path(one.name, one.namespace)
        part = path.with_name(f"{path.name}.part")
        said = {
            "format": FORMAT, "name": one.name, "namespace": one.namespace, "status": one.status,
            "deployed": one.deployed, "draft": one.draft,
        }  # fmt: skip
        try:
            # What agents are told may be secret: the folder is for nobody else, too.
            self._folder.mkdir(mode=0o700, parents=True, exist_ok=True)
            part.unlink(missing_ok=True)
            with open(os.open(part, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC | os.O_NOFOLLOW, 0o600), "wb") as file:
                file.write(orjson.dumps(said, option=orjson.OPT_INDENT_2))
                file.flush()
                os.fsync(file.fileno())
            os.replace(part, path)
            self._sync_folder()
        except OSError as failure:
            with contextlib.suppress(OSError):
                part.unlink(missing_ok=True)
            raise self._unwritable(path, failure) from failure

    def remove(self, name: str, namespace: str) -> None:
        """Raises `AgentsUnwritable`."""
        path = self.path(name, namespace)
        try:
            path.with_name(f"{path.name}.part").unlink(missing_ok=True)  # of a write that was cut short
            path.unlink(missing_ok=True)
            if self._folder.is_dir():
                self._sync_folder()
        except OSError as failure:
            raise self._unwritable(path, failure) from failure

    def _sync_folder(self) -> None:
        folder = os.open(self._folder, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
        try:
            os.fsync(folder)
        finally:
            os.close(folder)

    def _unwritable(self, path: Path, failure: OSError) -> AgentsUnwritable:
        return AgentsUnwritable(
            f"{path} cannot be written: {failure.strerror}", hint="let the node write there, free some space, or choose another --data"
        )


class _Later(Exception):
    """Of a format that this version does not know."""


def _kept(raw: bytes) -> KeptAgent:
    """Raises `_Later`, and `ValueError`, `KeyError` or `TypeError` for what is no such file."""
    if len(raw) > FILE_BYTES_MAX:
        raise ValueError(f"over {FILE_BYTES_MAX:,} bytes")
    said = orjson.loads(raw)
    if not isinstance(said, dict):
        raise TypeError("no JSON object")
    if type(said["format"]) is not int or said["format"] < 1:
        raise ValueError("its format is no number")
    if said["format"] > FORMAT:
        raise _Later(f"format {said['format']}")
    name, namespace, status = said["name"], said["namespace"], said["status"]
    if not (is_name(name) and is_name(namespace) and status in get_args(KeptStatus)):
        raise ValueError("its name, namespace or status is none")
    documents = said["deployed"], said["draft"]
    if not all(document is None or isinstance(document, dict) for document in documents):
        raise ValueError("a document in it is none")
    return KeptAgent(name, namespace, status, *documents)


def _set_aside(path: Path, why: str) -> str:
    """Never deleted: somebody may still get the agent out of it."""
    aside = path.with_name(f"{path.name}.damaged-{time.time_ns()}")
    try:
        path.rename(aside)
    except OSError as failure:
        return f"{path} is damaged ({why}) and cannot be set aside ({failure.strerror}): this agent is not here"
    return f"{path} is damaged ({why}). It was moved to {aside.name}: this agent is not here until somebody posts it again"
