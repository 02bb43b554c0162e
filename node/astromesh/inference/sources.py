"""What people write after `models pull`: a registered name, a file of a model hub, an address, or a path. Pure.

smollm2                                  a registered model
hf:OWNER/REPO:FILE.gguf                  a file of the hub, of its main branch
hf:OWNER/REPO@REVISION:FILE.gguf         … as it was in a revision
https://HOST/FILE.gguf#sha256=HEX        an address, and what has to come from there
~/models/FILE.gguf                       a file of one's own; a folder of `model.onnx` and `tokenizer.json`
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from urllib.parse import unquote, urlsplit, urlunsplit

from astromesh.errors import StoreRefused

HUB_PREFIX = "hf:"
SHA256 = re.compile(r"[0-9a-f]{64}")
_NAME = r"[A-Za-z0-9][A-Za-z0-9._-]{0,95}"
_REPO = re.compile(rf"{_NAME}/{_NAME}")
_REVISION = re.compile(r"[A-Za-z0-9][A-Za-z0-9._/-]{0,99}")
_FILE = re.compile(r"[A-Za-z0-9][A-Za-z0-9._ -]*(?:/[A-Za-z0-9][A-Za-z0-9._ -]*)*")
_TEXT_CHARACTERS_MAX = 4096  # a signed address has some 1,500


@dataclass(frozen=True, slots=True)
class HubFile:
    """One file of a repository on a model hub."""

    repo: str
    file: str
    revision: str = "main"

    def __str__(self) -> str:
        revision = "" if self.revision == "main" else f"@{self.revision}"
        return f"{HUB_PREFIX}{self.repo}{revision}:{self.file}"


@dataclass(frozen=True, slots=True)
class WebFile:
    """One address. What stands before its host or after its path may be a secret, so as text it has neither."""

    url: str

    def __str__(self) -> str:
        return shown(self.url)

    def __repr__(self) -> str:
        return f"WebFile({self})"


Remote = HubFile | WebFile


def shown(url: str) -> str:
    """An address as it may be told: without user, password and query."""
    parts = urlsplit(url)
    return urlunsplit((parts.scheme, parts.netloc.rpartition("@")[2], parts.path, "", ""))


def remote(text: str) -> tuple[Remote, str] | None:
    """What is meant and the digest that was written beside it, or an empty one; None for what is no address. Raises `StoreRefused`."""
    if len(text) > _TEXT_CHARACTERS_MAX:
        raise StoreRefused(f"an address of {len(text)} characters", hint="write a name, a path, hf:OWNER/REPO:FILE or an address")
    if text.lower().startswith(("http://", "https://")):
        return _web_file(text)
    if text.startswith(HUB_PREFIX):
        return _hub_file(text), ""
    return None


def stem(source: Remote) -> str:
    """What a model from there is called where nobody says."""
    path = source.file if isinstance(source, HubFile) else unquote(urlsplit(source.url).path)
    name = path.rstrip("/").rpartition("/")[2]
    return name[: -len(".gguf")] if name.lower().endswith(".gguf") else name


def checked_digest(text: str) -> str:
    """A digest as it is compared. Raises `StoreRefused`."""
    digest = text.strip().lower().removeprefix("sha256:")
    if SHA256.fullmatch(digest) is None:
        raise StoreRefused(f"{text[:80]!r} is no sha256", hint="it has 64 digits of 0-9 and a-f; leave it out where you do not know it")
    return digest


def _hub_file(text: str) -> HubFile:
    where, colon, file = text.removeprefix(HUB_PREFIX).partition(":")
    repo, at, revision = where.partition("@")
    revision = revision if at else "main"
    well = _REPO.fullmatch(repo) and _REVISION.fullmatch(revision) and _FILE.fullmatch(file)
    if not colon or not well or ".." in f"{revision}/{file}".split("/"):
        raise StoreRefused(
            f"{text[:200]!r} names no file of a hub", hint="write hf:OWNER/REPO:FILE.gguf, or hf:OWNER/REPO@REVISION:FILE.gguf"
        )
    return HubFile(repo, file, revision)


def _web_file(text: str) -> tuple[WebFile, str]:
    try:
        parts = urlsplit(text)
        usable = bool(parts.hostname) and parts.port != 0
    except ValueError:
        usable = False
    if not usable:
        raise StoreRefused(f"{text[:200]!r} is no address", hint="write https://HOST/FILE.gguf")
    key, _, digest = parts.fragment.partition("=")
    if parts.fragment and key != "sha256":
        raise StoreRefused(f"{shown(text)}: what follows '#' is no digest", hint="write https://HOST/FILE.gguf#sha256=HEX")
    return WebFile(urlunsplit(parts._replace(fragment=""))), checked_digest(digest) if parts.fragment else ""
