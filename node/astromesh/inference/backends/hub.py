"""Files of a model hub and of any web server: resumed after a cut, verified, and never for ever.

The hub's address and token come from the environment, as its own tools have it: HF_ENDPOINT and HF_TOKEN. The token goes to that address
and nowhere else, not along a redirect to another host and not unencrypted over a network, and stands in no message.

A download is one coroutine on a loop of its own in the calling thread, so that whoever listens to its progress is asked several times a
second whether it should go on, also while nothing comes.
"""

from __future__ import annotations

import asyncio
import hashlib
import json
import os
import re
from collections.abc import Awaitable, Callable, Mapping
from contextlib import suppress
from dataclasses import asdict, dataclass, field, replace
from email.utils import parsedate_to_datetime
from functools import partial
from pathlib import Path
from time import time
from typing import Any, TypeVar
from urllib.parse import quote, urljoin, urlsplit

import aiohttp

from astromesh.errors import StoreError
from astromesh.inference.packaged import hash_file
from astromesh.inference.port import Fetched, Progress
from astromesh.inference.sources import SHA256, HubFile, Remote, WebFile, shown

HUB = "https://huggingface.co"
ENDPOINT_VARIABLE = "HF_ENDPOINT"
TOKEN_VARIABLE = "HF_TOKEN"  # noqa: S105  its name, not its value

REDIRECTS_MAX = 10
READ_BYTES = 1 << 18
STATE_BYTES_MAX = 64 * 1024
HEADER_CHARACTERS_MAX = 1000
FILE_BYTES_MAX = 1 << 40  # the largest open weights have 0.7 TB
ROOM_BYTES = 1 << 28  # of a file whose size nobody tells, room for so much is asked at a time
_MAGIC = b"GGUF"
PROGRESS_BYTES = 1 << 20  # a connection that brought so much was worth it: the count of failures begins anew
_REDIRECTS = (301, 302, 303, 307, 308)
_COMMIT = re.compile(r"[0-9a-f]{7,64}")
_CONTENT_RANGE = re.compile(r"bytes (?:(?P<begin>\d{1,15})-\d{1,15}|\*)/(?P<size>\d{1,15})")

T = TypeVar("T")
Server = tuple[str, str | None, int]  # scheme, host, port


@dataclass(frozen=True, slots=True)
class DownloadLimits:
    """Each with its reason; tests shorten them."""

    # A server that is asked for a large file may fetch it from a cold store first.
    connect_s: float = 20.0
    silence_s: float = 60.0
    # Below this for a whole minute, a small model takes a day: something is wrong that a new connection may mend.
    rate_bytes_s_min: float = 1000.0
    rate_window_s: float = 60.0
    # Of one pull. What came is kept: the next pull goes on.
    attempts: int = 5
    pause_s: float = 1.0
    # A server that says when to come back is believed as far as a person would wait for it.
    retry_after_s_max: float = 60.0
    tick_s: float = 0.2


class Cut(Exception):
    """It broke off, and may go on where it did. The message says how; `pause_s` where the server said how long to wait."""

    def __init__(self, message: str, *, pause_s: float | None = None) -> None:
        super().__init__(message)
        self.pause_s = pause_s


@dataclass(frozen=True, slots=True)
class State:
    """What the bytes in `incoming` are the beginning of. Another source, or another version of it, starts anew."""

    source: str  # a digest of what was asked for: an address may carry a secret
    validator: str  # a strong ETag, else a time of change, of the server that sent the bytes; empty: it cannot be gone on with
    linked: str  # the digest that the hub tells
    size_bytes: int | None


@dataclass(slots=True)
class Download:
    """One file on its way, over several connections if need be."""

    source: Remote
    folder: Path
    wanted: str
    need_room: Callable[[int], None]
    progress: Progress
    url: str
    token: str
    hub: Server | None  # where the token may go
    linked: str = ""  # the digest and the commit that the hub tells on the way
    commit: str = ""
    total: int | None = None
    done: int = 0  # bytes in the part, all of them in the digest
    digest: Any = field(default_factory=hashlib.sha256)

    @property
    def part(self) -> Path:
        return self.folder / "model.part"

    def tell(self, what: str = "") -> None:
        self.progress(self.done, self.total or 0, what or f"downloading {self.source}")

    def asked(self) -> str:
        return hashlib.sha256(self.url.encode()).hexdigest()

    def state(self) -> State | None:
        """That of an earlier attempt, if it can be gone on with."""
        try:
            with (self.folder / "state.json").open("rb") as stream:
                state = State(**json.loads(stream.read(STATE_BYTES_MAX)))
        except (OSError, ValueError, TypeError):
            return None
        safe = state.validator or state.linked or self.wanted
        return state if state.source == self.asked() and safe else None

    def begin(self, state: State) -> None:
        """From the first byte."""
        self.part.write_bytes(b"")
        (self.folder / "state.json").write_text(json.dumps(asdict(state)))
        self.done, self.digest = 0, hashlib.sha256()

    def worthless(self) -> None:
        self.part.unlink(missing_ok=True)
        self.done, self.digest = 0, hashlib.sha256()

    def recall(self, size_bytes: int) -> None:
        """Reads what an earlier pull left, so that the digest goes on from there."""
        if size_bytes != self.done:
            self.digest = hashlib.sha256()
            with self.part.open("rb") as stream:
                hash_file(stream, self.digest.update, size_bytes=size_bytes, progress=self.progress)
            self.done = size_bytes


class WebFiles:
    """A `RemoteSource` over HTTP."""

    def __init__(self, *, environment: Mapping[str, str] | None = None, limits: DownloadLimits | None = None) -> None:
        self._environment = os.environ if environment is None else environment
        self._limits = limits or DownloadLimits()

    def fetch(self, source: Remote, *, folder: Path, sha256: str, need_room: Callable[[int], None], progress: Progress) -> Fetched:
        url, token, hub = source.url if isinstance(source, WebFile) else "", "", None
        if isinstance(source, HubFile):
            endpoint = self._endpoint()
            url = f"{endpoint}/{source.repo}/resolve/{quote(source.revision, safe='')}/{quote(source.file)}"
            hub = _server(endpoint)
            token = self._environment.get(TOKEN_VARIABLE, "").strip() if _keeps_secrets(endpoint) else ""
        return asyncio.run(self._fetch(Download(source, folder, sha256, need_room, progress, url, token, hub)))

    def _endpoint(self) -> str:
        endpoint = self._environment.get(ENDPOINT_VARIABLE, "").strip().rstrip("/") or HUB
        if not endpoint.startswith(("http://", "https://")) or not urlsplit(endpoint).hostname:
            raise StoreError(f"{ENDPOINT_VARIABLE} is no address", hint=f"set it to https://HOST, or unset it for {HUB}")
        return endpoint

    async def _fetch(self, download: Download) -> Fetched:
        limits = self._limits
        timeout = aiohttp.ClientTimeout(total=None, sock_connect=limits.connect_s)
        furthest, failures, pause_s, why = 0, 0, 0.0, ""
        # Proxies of the environment are the user's. A compressed answer would have another length than the file.
        async with aiohttp.ClientSession(timeout=timeout, trust_env=True, auto_decompress=False) as session:
            while failures < limits.attempts:
                if failures:
                    await self._watched(asyncio.sleep(pause_s), partial(download.tell, f"waiting to go on: {why}"), patience_s=None)
                pause_s = limits.pause_s * 2**failures
                try:
                    await self._go_on(session, download)
                    return _checked(download)
                except Cut as cut:
                    why = str(cut)
                    pause_s = pause_s if cut.pause_s is None else cut.pause_s
                except aiohttp.ClientSSLError as error:
                    raise StoreError(
                        f"{download.source}: the server cannot prove who it is", hint="is the clock right, and the address?"
                    ) from error
                except (aiohttp.ClientError, TimeoutError) as error:
                    why = _in_words(error)
                failures = 1 if download.done >= furthest + PROGRESS_BYTES else failures + 1
                furthest = max(furthest, download.done)
        kept = f"; {download.done / 1e6:.1f} MB of it are kept" if download.done else ""
        raise StoreError(f"{download.source} could not be downloaded: {why}{kept}", hint="pull it again: it goes on where it was cut")

    async def _go_on(self, session: aiohttp.ClientSession, download: Download) -> None:
        """One connection's worth of the file. Raises `Cut`, `StoreError`, `ClientError`."""
        before = download.state()
        there = download.part.stat().st_size if before is not None and download.part.exists() else 0
        async with await self._open(session, download, before, there) as response:
            match response.status:
                case 200:
                    size = _number(response.headers.get("Content-Length", ""))
                    self._begin(download, response, size)
                case 206:
                    begin, size = _range(response.headers.get("Content-Range", ""))
                    if begin != there or before is None or (before.size_bytes or size) != size:
                        download.worthless()
                        raise Cut("the server sends another part than was asked for", pause_s=0.0)
                    download.recall(there)
                case _:
                    _, size = _range(response.headers.get("Content-Range", ""))
                    if there and size == there:  # 416: it is all here, only the last pull did not get to say so
                        download.recall(there)
                        return
                    download.worthless()
                    raise Cut("what was here is not the beginning of what is there now", pause_s=0.0)
            download.total = size
            if size is not None:
                download.need_room(size - download.done)
            await self._read(download, response)

    def _begin(self, download: Download, response: aiohttp.ClientResponse, size: int | None) -> None:
        if size is not None and size > FILE_BYTES_MAX:
            raise StoreError(f"{download.source} has {size / 1e9:,.0f} GB", hint="is that a model?")
        if response.headers.get("Content-Encoding", "identity") != "identity":
            raise StoreError(
                f"{download.source} comes compressed although that was not asked for", hint="name an address of the file itself"
            )
        validator = response.headers.get("ETag", "")[:HEADER_CHARACTERS_MAX]
        if not validator or validator.startswith("W/"):
            validator = response.headers.get("Last-Modified", "")[:HEADER_CHARACTERS_MAX]
        download.begin(State(download.asked(), validator, download.linked, size))

    async def _read(self, download: Download, response: aiohttp.ClientResponse) -> None:
        limits = self._limits
        clock = asyncio.get_running_loop().time
        since_s, since_bytes, roomy = clock(), download.done, download.done
        with download.part.open("ab") as out:
            while block := await self._watched(response.content.read(READ_BYTES), download.tell, patience_s=limits.silence_s):
                if download.total is None and download.done + len(block) > roomy:
                    download.need_room(ROOM_BYTES)
                    roomy = download.done + ROOM_BYTES
                if download.done + len(block) > FILE_BYTES_MAX:
                    raise StoreError(f"{download.source} does not end", hint="is that a model?")
                out.write(block)
                download.digest.update(block)
                download.done += len(block)
                if download.done == len(block):
                    _check_beginning(download, block)
                download.tell()
                if clock() - since_s >= limits.rate_window_s:
                    if (download.done - since_bytes) / (clock() - since_s) < limits.rate_bytes_s_min:
                        raise Cut("almost nothing comes")
                    since_s, since_bytes = clock(), download.done
            out.flush()
            os.fsync(out.fileno())
        if download.total is not None and download.done != download.total:
            raise Cut("it ended too early")
        download.total = download.done

    async def _open(self, session: aiohttp.ClientSession, download: Download, before: State | None, there: int) -> aiohttp.ClientResponse:
        """An answer with (a part of) the file, after the redirects; 416 among them."""
        url = download.url
        for _ in range(REDIRECTS_MAX + 1):
            headers = {"Accept-Encoding": "identity", "User-Agent": "astromesh-node"}
            if download.token and _server(url) == download.hub:
                headers["Authorization"] = f"Bearer {download.token}"
            same = before is not None and (not download.linked or before.linked == download.linked)
            if there and same and before is not None:
                headers["Range"] = f"bytes={there}-"
                if before.validator:
                    headers["If-Range"] = before.validator
            try:
                asked = session.get(url, headers=headers, allow_redirects=False)
            except (aiohttp.InvalidURL, ValueError) as mistake:
                raise StoreError(f"{download.source} leads to something that is no address", hint="is the address right?") from mistake
            response = await self._watched(asked, download.tell, patience_s=self._limits.silence_s)
            try:
                self._learn(download, response)
                if response.status not in _REDIRECTS:
                    self._refuse(download, response)
                    return response
                url = _next(download.source, url, response)
            except BaseException:
                response.close()
                raise
            response.release()
        raise StoreError(f"{download.source} leads from one address to the next, {REDIRECTS_MAX} times", hint="is the address right?")

    def _learn(self, download: Download, response: aiohttp.ClientResponse) -> None:
        if download.hub is None or _server(str(response.url)) != download.hub:
            return
        linked = response.headers.get("X-Linked-Etag", "").removeprefix("W/").strip('"').lower()
        if SHA256.fullmatch(linked) is not None:
            download.linked = linked
            if download.wanted and download.wanted != linked:
                raise StoreError(
                    f"{download.source} has sha256 {linked} on the hub, not {download.wanted}", hint="is it the file that you meant?"
                )
        commit = response.headers.get("X-Repo-Commit", "")
        if _COMMIT.fullmatch(commit) is not None:
            download.commit = commit

    def _refuse(self, download: Download, response: aiohttp.ClientResponse) -> None:
        """Raises what an answer without the file means."""
        code, source = response.status, download.source
        match code:
            case 200 | 206 | 416:
                return
            case 401 | 403:
                hint = "is the address right, and may it be read without signing in?"
                if isinstance(source, HubFile):
                    hint = f"set {TOKEN_VARIABLE} to a token that may read it"
                    if download.token:
                        hint = f"does the token in {TOKEN_VARIABLE} belong to somebody who accepted the model's conditions?"
                raise StoreError(f"{source}: the server refuses it ({code})", hint=hint)
            case 404 | 410:
                hint = "is the address right?"
                if isinstance(source, HubFile):
                    hint = f"are owner, repository, revision and file spelled as there? Private ones need {TOKEN_VARIABLE}"
                raise StoreError(f"{source}: there is no such file ({code})", hint=hint)
            case 408 | 429 | 500 | 502 | 503 | 504:
                pause_s = _pause_s(response.headers.get("Retry-After", ""), now=time())
                if pause_s is not None and pause_s > self._limits.retry_after_s_max:
                    raise StoreError(f"{source}: the server wants to be left alone for {pause_s:.0f} s ({code})", hint="pull it again then")
                raise Cut(f"the server answers {code}", pause_s=pause_s)
            case _:
                raise StoreError(f"{source}: the server answers {code}", hint="is the address right?")

    async def _watched(self, work: Awaitable[T], tell: Callable[[], None], *, patience_s: float | None) -> T:
        """Awaits it, telling that nothing new has come; `patience_s` at most."""
        task = asyncio.ensure_future(work)
        clock = asyncio.get_running_loop().time
        ends_s = None if patience_s is None else clock() + patience_s
        try:
            while not (await asyncio.wait([task], timeout=self._limits.tick_s))[0]:
                tell()
                if ends_s is not None and clock() >= ends_s:
                    raise Cut(f"nothing came for {patience_s:g} s")
            return task.result()
        finally:
            if not task.done():
                task.cancel()
                with suppress(asyncio.CancelledError, aiohttp.ClientError):
                    await task


def _checked(download: Download) -> Fetched:
    """The whole file, if it is what it has to be."""
    digest = download.digest.hexdigest()
    known = download.wanted or download.linked
    if known and digest != known:
        download.worthless()
        raise StoreError(
            f"what came from {download.source} has sha256 {digest}, not {known}: not installed",
            hint="something on the way changed it, or it was changed there; pull it again",
        )
    source = download.source
    if isinstance(source, HubFile) and download.commit:
        source = replace(source, revision=download.commit)
    return Fetched(download.part, digest, download.done, str(source))


def _check_beginning(download: Download, block: bytes) -> None:
    """A page that asks to sign in is known by its first bytes, before a disk is filled with something else."""
    if not _MAGIC.startswith(block[: len(_MAGIC)]) and not block.startswith(_MAGIC):
        download.worthless()
        raise StoreError(f"what comes from {download.source} is no GGUF model: it begins with {block[:16]!r}", hint="is the address right?")


def _next(source: Remote, url: str, response: aiohttp.ClientResponse) -> str:
    where = urljoin(url, response.headers.get("Location", ""))
    if not where.startswith(("https://", "http://")) or (url.startswith("https://") and not where.startswith("https://")):
        raise StoreError(f"{source} leads to {shown(where)[:200]}, which is not encrypted or no address", hint="is the address right?")
    return where


def _server(url: str) -> Server:
    parts = urlsplit(url)
    return parts.scheme, parts.hostname, parts.port or (443 if parts.scheme == "https" else 80)


def _keeps_secrets(endpoint: str) -> bool:
    return endpoint.startswith("https://") or urlsplit(endpoint).hostname in ("127.0.0.1", "::1", "localhost")


def _range(text: str) -> tuple[int | None, int | None]:
    """Where a part begins and how long the whole is, of `bytes 5-9/10` or `bytes */10`."""
    found = _CONTENT_RANGE.fullmatch(text.strip())
    return (_number(found["begin"] or ""), _number(found["size"])) if found is not None else (None, None)


def _number(text: str) -> int | None:
    return int(text) if text.isascii() and text.isdigit() and len(text) <= len(str(FILE_BYTES_MAX)) + 3 else None


def _pause_s(text: str, *, now: float) -> float | None:
    """What a Retry-After asks for, in seconds or as a date."""
    if (seconds := _number(text.strip())) is not None:
        return float(seconds)
    try:
        return max(0.0, parsedate_to_datetime(text).timestamp() - now)
    except (TypeError, ValueError):
        return None


def _in_words(error: Exception) -> str:
    """Never the library's own words: an address with its secrets may be in them."""
    match error:
        case aiohttp.ClientConnectorDNSError():
            return f"the name {error.host} is not known"
        case aiohttp.ClientConnectorError():
            reason = os.strerror(error.os_error.errno) if error.os_error.errno else "no connection"
            return f"nobody answers at {error.host}:{error.port} ({reason})"
        case aiohttp.ClientPayloadError() | aiohttp.ServerDisconnectedError() | aiohttp.ClientOSError():
            return "the connection broke"
        case TimeoutError():
            return "nobody answers"
        case _:
            return f"the server cannot be understood ({type(error).__name__})"
