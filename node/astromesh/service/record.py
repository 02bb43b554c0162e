"""What a node must not forget between two lives: how often it was started, and whom it joined. Who it is, its key says (`identity`).

One small JSON file in the data directory, replaced as a whole, and a lock beside it: two processes with one identity would accuse each
other of being dead.
"""

from __future__ import annotations

import fcntl
import json
import os
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass, replace
from pathlib import Path

from astromesh.errors import ConfigurationError
from astromesh.service.identity import read_key
from maia.config import INCARNATION_MAX
from maia.identity import KeyPair

SEEDS_KEPT = 16  # addresses that were joined by command; any one of them that answers is enough


@dataclass(frozen=True, slots=True)
class Record:
    """`incarnation` is the highest that was used; a life starts above those of all before it. `joined` are addresses given to `join`."""

    generation: int
    incarnation: int = 0
    joined: tuple[str, ...] = ()
    left: bool = False  # told to leave: seeds of the configuration are not asked until it is told to join

    def with_seed(self, address: str) -> Record:
        """Newest last, each once."""
        return replace(self, joined=(*(seed for seed in self.joined if seed != address), address)[-SEEDS_KEPT:], left=False)

    def next_life(self, *, now: float) -> Record:
        """A generation is the start time or more, so that a node whose file was lost comes after its earlier lives too.

        `now` in seconds since the epoch. The incarnation is used from here on: whoever still counts the last life among the living would
        take the same one for no news, and never hear what changed. One that forgers drove to the end of the scale starts below it: a node
        that did not start would be what they wanted, and the first exchange says where it was.
        """
        return replace(self, generation=max(self.generation + 1, int(now)), incarnation=min(self.incarnation + 1, INCARNATION_MAX - 1))

    def alone(self) -> Record:
        return replace(self, joined=(), left=True)

    def raised(self, *, incarnation: int = 0, generation: int = 0) -> Record:
        return replace(self, incarnation=max(self.incarnation, incarnation), generation=max(self.generation, generation))


class RecordFile:
    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self.path = folder / "node.json"

    @contextmanager
    def held(self) -> Iterator[None]:
        """Raises `ConfigurationError` where the folder cannot be written or another process runs on it."""
        try:
            self._folder.mkdir(parents=True, exist_ok=True)
            lock = os.open(self._folder / "node.lock", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        except OSError as failure:
            raise ConfigurationError(
                f"the data directory {self._folder} cannot be used: {failure.strerror}", hint="choose another one with --data"
            ) from failure
        try:
            try:
                fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except OSError:
                holder = os.pread(lock, 32, 0).decode(errors="replace").strip()
                raise ConfigurationError(
                    f"another node runs on the data directory {self._folder}" + (f" (process {holder})" if holder else ""),
                    hint="stop it, or give this one a directory of its own with --data",
                ) from None
            os.ftruncate(lock, 0)
            os.pwrite(lock, str(os.getpid()).encode(), 0)
            yield
        finally:
            os.close(lock)

    def key(self) -> KeyPair:
        """Who this node is. Raises `ConfigurationError` as `read_key` does."""
        return read_key(self._folder)

    def read(self) -> Record:
        """What is kept; nothing of a node that never ran. Raises `ConfigurationError` for a file that is damaged."""
        try:
            said = json.loads(self.path.read_text())
            return Record(
                generation=int(said["generation"]),
                incarnation=int(said["incarnation"]),
                joined=tuple(str(seed) for seed in said["joined"]),
                left=bool(said["left"]),
            )
        except FileNotFoundError:
            return Record(generation=0)
        except (OSError, ValueError, KeyError, TypeError) as failure:
            raise ConfigurationError(
                f"{self.path} cannot be read: {failure}",
                hint="restore it, or move it away: the node is the same one by its key, and only has to be told again whom to join",
            ) from failure

    def write(self, record: Record) -> None:
        """Replaces the file; after a crash it is the old one or the new one."""
        part = self.path.with_suffix(".part")
        with part.open("w") as file:
            json.dump(asdict(record), file, indent=2)
            file.flush()
            os.fsync(file.fileno())
        part.replace(self.path)
