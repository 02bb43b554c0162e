"""Whom a node without keys lets in: programs of this machine, and no web page.

Pure. A page that a browser shows can send requests to loopback; what gives it away is its Origin, a Host that is a name of its own (DNS
rebinding), or a body of a kind that needs no permission from the server.
"""

from __future__ import annotations

from ipaddress import ip_address
from urllib.parse import SplitResult, urlsplit

from astromesh.errors import ForeignPage, WrongMediaType


def is_loopback(host: str) -> bool:
    if host == "localhost" or host.endswith(".localhost"):
        return True
    try:
        return ip_address(host).is_loopback
    except ValueError:
        return False


def check_host(host_header: str | None, *, own_names: frozenset[str]) -> None:
    """Raises `ForeignPage` unless the request was addressed to loopback or to a name of this node."""
    name = _split(f"//{host_header or ''}").hostname or ""
    if not is_loopback(name) and name not in {own.lower() for own in own_names}:
        raise ForeignPage(
            f"this node has no API keys yet, so it answers only to loopback and its own name, not to Host {name!r}",
            hint="address it as 127.0.0.1, or through its own name",
        )


def check_origin(origin: str | None, host_header: str | None) -> None:
    """Raises `ForeignPage` for a page of another origin. Programs send no Origin."""
    own = (host_header or "").lower()
    if origin is not None and (not own or _split(origin).netloc.lower() != own):
        raise ForeignPage(
            f"this node has no API keys yet, so pages of other origins may not call it: {origin}", hint="call it from a program"
        )


def _split(url: str) -> SplitResult:
    """Raises `ForeignPage` for what no client of good faith sends."""
    try:
        return urlsplit(url)
    except ValueError:
        raise ForeignPage(f"{url.removeprefix('//')!r} is no address", hint="address the node as 127.0.0.1, or by its own name") from None


def check_media_type(content_type: str) -> None:
    """Raises `WrongMediaType` for a body that is not declared as JSON: a page may send any other without asking."""
    if content_type.partition(";")[0].strip().lower() != "application/json":
        raise WrongMediaType(f"the body is {content_type or 'of no declared type'}, not JSON", hint="send Content-Type: application/json")
