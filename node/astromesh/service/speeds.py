"""How fast each model was seen to make tokens on this node, kept over its lives: `speeds.json` in the data directory.

A node that comes back would otherwise know nothing of itself until it was asked, and nobody who requires a speed could count on it. What is
lost of it is measured again, so a damaged file is as good as none, and a power cut may take the last figure.
"""

from __future__ import annotations

import asyncio
import json
import logging
import os
import threading
from pathlib import Path
from typing import Any

log = logging.getLogger(__name__)

KEPT_MAX = 256  # models that were measured last; a line each
FILE_BYTES_MAX = 256 * 1024
TOK_S_MAX = 1e6  # no machine is that fast: it is a mistake of whoever wrote it


class SpeedFile:
    """Figures by the model's digest and the engine that ran it, in tokens a second for one stream."""

    def __init__(self, folder: Path) -> None:
        self.path = folder / "speeds.json"
        self._known = self._read()
        self._writing = threading.Lock()

    def of(self, identity: str, *, engine: str) -> float | None:
        return self._known.get(_key(identity, engine))

    def note(self, identity: str, tok_s: float, *, engine: str) -> None:
        """Kept at once, and written beside everything else."""
        key = _key(identity, engine)
        self._known.pop(key, None)  # the newest stands last
        self._known[key] = round(tok_s, 2)
        while len(self._known) > KEPT_MAX:
            del self._known[next(iter(self._known))]
        asyncio.get_running_loop().run_in_executor(None, self._write)

    def _read(self) -> dict[str, float]:
        try:
            with self.path.open("rb") as file:
                said = json.loads(file.read(FILE_BYTES_MAX))
        except FileNotFoundError:
            return {}
        except (OSError, ValueError) as failure:
            log.warning("%s cannot be read, so speeds are measured again: %s", self.path, failure)
            return {}
        rows = said.items() if isinstance(said, dict) else ()
        return dict([(key, float(tok_s)) for key, tok_s in rows if _fits(tok_s)][-KEPT_MAX:])

    def _write(self) -> None:
        """Replaces the file; after a crash it is the old one or the new one. Whoever writes last writes what is known by then."""
        part = self.path.with_suffix(f".{os.getpid()}.part")  # a node and one that answers a single question may share the folder
        with self._writing:
            try:
                self.path.parent.mkdir(parents=True, exist_ok=True)
                part.write_text(json.dumps(dict(self._known), indent=1))
                part.replace(self.path)
            except OSError as failure:
                log.warning("%s cannot be written, so the next start measures speeds again: %s", self.path, failure.strerror)


def _key(identity: str, engine: str) -> str:
    return f"{identity} {engine}"


def _fits(tok_s: Any) -> bool:
    return type(tok_s) in (int, float) and 0 < tok_s < TOK_S_MAX
