"""HTTP to addresses that a tool may call, and to no others.

A name is looked up once; the connection goes to an address that was looked at, so a name that changes in between changes nothing. A
redirect is a call like the first one. Nothing here is logged: addresses, headers and bodies may hold secrets.
"""

from __future__ import annotations

import asyncio
import re
import socket
from collections.abc import Mapping
from dataclasses import dataclass, replace
from ipaddress import ip_address
from typing import Any, NoReturn

import aiohttp
import orjson
from aiohttp.abc import AbstractResolver, ResolveResult
from yarl import URL

from astromesh.specs.addresses import IpAddress
from astromesh.tools.port import ToolFailed
from astromesh.tools.reach import Reach
from astromesh.tools.results import shown_bytes

CONNECT_TIMEOUT_S = 5.0
EXCHANGE_TIMEOUT_S = 25.0  # redirects included; below what any call of a tool gets, so that what is said names the host
REDIRECTS_MAX = 5
ANSWER_BYTES_MAX = 2**20  # read; what a model gets to see of it is cut by its own limit
URL_CHARACTERS_MAX = 8192
ADDRESSES_MAX = 8  # of one name, tried in turn

Place = tuple[IpAddress, socket.AddressFamily]

_REDIRECTS = (301, 302, 303, 307, 308)
_HEADER_NAME = re.compile(r"[!#$%&'*+.^_`|~0-9A-Za-z-]+")  # a token of RFC 9110
# Of one connection or of one host: they do not go along to another.
_OF_THE_HOST = ("authorization", "cookie", "proxy-authorization")


@dataclass(frozen=True, slots=True)
class HttpCall:
    """`secret`: headers that are never sent to another origin than the first, however they are called."""

    method: str
    url: URL
    headers: Mapping[str, str]
    secret: frozenset[str] = frozenset()
    body: bytes | None = None


@dataclass(frozen=True, slots=True)
class HttpAnswer:
    status: int
    reason: str
    kind: str  # of media; empty where nothing is said
    text: str
    cut: bool  # there was more


def url_of(text: str) -> URL:
    """Raises `ToolFailed`."""
    try:
        url = URL(text) if len(text) <= URL_CHARACTERS_MAX else None
    except (ValueError, UnicodeError):
        url = None
    if url is None or url.scheme not in ("http", "https") or not url.raw_host or not url.port:
        raise ToolFailed("this is no address that can be called; write https://HOST/PATH")
    return url


async def exchange(call: HttpCall, reach: Reach) -> HttpAnswer:
    """One call and its answer, whatever its status. Raises `ToolFailed`."""
    if not all(_HEADER_NAME.fullmatch(name) and value.isprintable() for name, value in call.headers.items()):
        raise ToolFailed("a header of the request cannot be sent: names are words, and values are one line")
    try:
        async with asyncio.timeout(EXCHANGE_TIMEOUT_S):
            for _ in range(REDIRECTS_MAX + 1):
                answer = await _one(call, reach)
                if isinstance(answer, HttpAnswer):
                    return answer
                call = answer
    except TimeoutError:
        raise ToolFailed(f"{call.url.raw_host} did not finish its answer within {EXCHANGE_TIMEOUT_S:g} s") from None
    raise ToolFailed(f"{call.url.raw_host} redirects more than {REDIRECTS_MAX} times")


async def _one(call: HttpCall, reach: Reach) -> HttpAnswer | HttpCall:
    """The answer, or where it redirects to."""
    resolver = _Pinned(await _addresses(call.url, reach))
    timeout = aiohttp.ClientTimeout(total=None, sock_connect=CONNECT_TIMEOUT_S)
    connector = aiohttp.TCPConnector(resolver=resolver, use_dns_cache=False, force_close=True, limit=1)
    session = aiohttp.ClientSession(connector=connector, cookie_jar=aiohttp.DummyCookieJar(), timeout=timeout)
    headers = {"User-Agent": "astromesh-node", **call.headers}
    try:
        async with (
            session,
            session.request(call.method, call.url, headers=headers, data=call.body, allow_redirects=False) as response,
        ):
            if response.status in _REDIRECTS and (location := response.headers.get("Location")):
                return _redirected(call, response.status, location)
            body, cut = await _read(response)
            kind = response.content_type if "Content-Type" in response.headers else ""
            text = shown_bytes(body, charset=response.charset or "utf-8", kind=kind)
            return HttpAnswer(response.status, response.reason or "", kind, text, cut)
    except (aiohttp.ClientError, OSError) as failure:
        _explain(failure, call.url)


async def _addresses(url: URL, reach: Reach) -> list[Place]:
    """Those of a host that may be called. Raises `ToolFailed` where there are none."""
    host, port = url.raw_host or "", url.port or 0
    if not reach.names(host, port):
        raise ToolFailed(f"not called, this agent is not permitted to call {host}")
    try:
        found = await asyncio.get_running_loop().getaddrinfo(host, port, type=socket.SOCK_STREAM)
    except (OSError, UnicodeError):
        raise ToolFailed(f"there is no host {host}") from None
    addresses = [(ip_address(place[0]), family) for family, _, _, _, place in found]
    permitted: list[Place] = [(address, family) for address, family in addresses if reach.permits(host, address, port)]
    if not permitted:
        raise ToolFailed(
            f"not called, {host} is not a public address; the node's operator can list {host}:{port} under spec.tools.http.allow"
        )
    if _is_number(host) and host not in {str(address) for address, _ in permitted}:
        raise ToolFailed(f"{host} is no address as one writes it; write four numbers, 203.0.113.7")
    return permitted[:ADDRESSES_MAX]


def _is_number(host: str) -> bool:
    """What the client would not ask the resolver for, but connect to as it is."""
    return host.replace(".", "").isdigit()


class _Pinned(AbstractResolver):
    """Knows one host: where it was found to be."""

    def __init__(self, addresses: list[Place]) -> None:
        self._addresses = addresses

    async def resolve(self, host: str, port: int = 0, family: socket.AddressFamily = socket.AF_UNSPEC) -> list[ResolveResult]:
        return [
            ResolveResult(hostname=host, host=str(address), port=port, family=kind, proto=0, flags=int(socket.AI_NUMERICHOST))
            for address, kind in self._addresses
            if family in (socket.AF_UNSPEC, kind)
        ]

    async def close(self) -> None: ...


def _redirected(call: HttpCall, status: int, location: str) -> HttpCall:
    try:
        url = url_of(str(call.url.join(URL(location))))
    except ValueError:
        raise ToolFailed(f"{call.url.raw_host} redirects to something that is no address") from None
    headers, method, body = dict(call.headers), call.method, call.body
    if url.origin() != call.url.origin():
        kept = {name: value for name, value in headers.items() if name.lower() not in _OF_THE_HOST and name not in call.secret}
        headers = kept
    if status == 303 or (status in (301, 302) and method == "POST"):
        method, body = ("HEAD" if method == "HEAD" else "GET"), None
        headers = {name: value for name, value in headers.items() if name.lower() != "content-type"}
    return replace(call, method=method, url=url, headers=headers, body=body)


async def _read(response: aiohttp.ClientResponse) -> tuple[bytes, bool]:
    body = bytearray()
    async for chunk in response.content.iter_any():
        body += chunk
        if len(body) > ANSWER_BYTES_MAX:
            return bytes(body[:ANSWER_BYTES_MAX]), True
    return bytes(body), False


def _explain(failure: Exception, url: URL) -> NoReturn:
    """By kind: the text of a failure may hold the address, and that a password."""
    where = f"{url.raw_host}:{url.port}"
    match failure:
        case aiohttp.ConnectionTimeoutError():
            raise ToolFailed(f"{where} does not answer") from None
        case aiohttp.ClientConnectorCertificateError() | aiohttp.ClientSSLError():
            raise ToolFailed(f"{where} has no certificate that can be trusted") from None
        case aiohttp.ClientConnectorError():
            raise ToolFailed(f"nothing answers at {where}") from None
        case _:
            raise ToolFailed(f"{where} broke off its answer") from None


def as_json(value: Any) -> bytes:
    """Raises `ToolFailed`."""
    try:
        return orjson.dumps(value)
    except TypeError:
        raise ToolFailed("this cannot be sent as JSON") from None
