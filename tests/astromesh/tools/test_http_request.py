"""A model calls the web, and reaches nothing that it should not: over real sockets."""

from __future__ import annotations

import socket
from collections.abc import AsyncIterator
from typing import Any

import orjson
import pytest
from tests.rig.web_double import PNG, WebDouble, web_double

from astromesh.specs.addresses import listed_address
from astromesh.tools.backends import http_calls
from astromesh.tools.backends.http_calls import ANSWER_BYTES_MAX, REDIRECTS_MAX
from astromesh.tools.backends.http_request import HttpRequest
from astromesh.tools.port import ToolFailed
from astromesh.tools.reach import Reach


@pytest.fixture
async def web() -> AsyncIterator[WebDouble]:
    async with web_double() as double:
        yield double


def tool(*listed: str, hosts: tuple[str, ...] | None = None) -> HttpRequest:
    return HttpRequest(Reach(tuple(map(listed_address, listed)), hosts))


async def refused(asking: HttpRequest, url: str, **arguments: Any) -> str:
    with pytest.raises(ToolFailed) as failure:
        await asking.call({"method": "GET", "url": url, **arguments})
    return str(failure.value)


async def test_an_answer_is_told_with_its_status_its_kind_and_its_text(web: WebDouble) -> None:
    said = await tool(web.place).call({"method": "GET", "url": f"{web.url}/a?b=c"})
    head, _, body = said.partition("\n\n")
    assert head == "HTTP 200 OK, application/json"
    assert orjson.loads(body) == {"method": "GET", "path": "/a", "query": {"b": "c"}, "body": ""}


@pytest.mark.parametrize(
    ("body", "kind", "sent"),
    [({"a": [1]}, "application/json", b'{"a":[1]}'), ("plain", "text/plain; charset=utf-8", b"plain"), (0, "application/json", b"0")],
)
async def test_a_body_is_sent_as_json_and_text_as_it_is(web: WebDouble, body: Any, kind: str, sent: bytes) -> None:
    await tool(web.place).call({"method": "POST", "url": web.url, "headers": {"X-A": "b"}, "body": body})
    [asked] = web.asked
    assert (asked.method, asked.headers["Content-Type"], asked.headers["X-A"], asked.body) == ("POST", kind, "b", sent)


async def test_a_status_of_failure_is_an_answer_too(web: WebDouble) -> None:
    assert (await tool(web.place).call({"method": "GET", "url": f"{web.url}/status/404?say=gone"})).startswith("HTTP 404 Not Found")


@pytest.mark.parametrize(
    "host",
    [
        *("127.0.0.1", "localhost", "127.1", "2130706433", "0x7f.0.0.1", "0177.0.0.1", "0.0.0.0", "[::1]", "[::ffff:127.0.0.1]"),
        *("10.0.0.1", "192.168.0.1", "172.16.3.4", "169.254.169.254", "[fe80::1]", "[fd00::1]", "127.0.0.1.", "LOCALHOST"),
    ],
)
async def test_an_address_that_is_not_public_is_not_called_however_it_is_written(web: WebDouble, host: str) -> None:
    said = await refused(tool(), f"http://{host}:{web.port}/")
    assert "is not a public address" in said or "there is no host" in said
    assert web.asked == []


async def test_a_name_that_resolves_to_loopback_is_not_called(web: WebDouble, monkeypatch: pytest.MonkeyPatch) -> None:
    def lookup(host: str, port: int, *_: Any, **__: Any) -> list[Any]:
        return [(socket.AF_INET, socket.SOCK_STREAM, 6, "", ("127.0.0.1", port))]

    monkeypatch.setattr(socket, "getaddrinfo", lookup)
    said = await refused(tool(), f"http://harmless.example:{web.port}/")
    assert said.startswith("not called, harmless.example is not a public address")
    assert f"harmless.example:{web.port} under spec.tools.http.allow" in said
    assert web.asked == []


async def test_a_name_is_looked_up_once_and_called_where_it_was_found(monkeypatch: pytest.MonkeyPatch) -> None:
    """A name that changes between the look and the call."""
    found = []

    def lookup(host: str, port: int, *_: Any, **__: Any) -> list[Any]:
        address = "127.0.0.2" if not found else "127.0.0.1"
        found.append(host)
        return [(socket.AF_INET, socket.SOCK_STREAM, 6, "", (address, int(port)))]

    async with web_double("127.0.0.2") as listed, web_double("127.0.0.1", listed.port) as other:
        monkeypatch.setattr(socket, "getaddrinfo", lookup)
        await tool("127.0.0.2").call({"method": "GET", "url": f"http://changing.example:{listed.port}/"})
        assert [asked.headers["Host"] for asked in listed.asked] == [f"changing.example:{listed.port}"]
        assert (found, other.asked) == (["changing.example"], [])


async def test_of_several_addresses_only_those_that_may_be_called_are(monkeypatch: pytest.MonkeyPatch) -> None:
    def lookup(host: str, port: int, *_: Any, **__: Any) -> list[Any]:
        return [(socket.AF_INET, socket.SOCK_STREAM, 6, "", (address, int(port))) for address in ("127.0.0.1", "127.0.0.2")]

    async with web_double("127.0.0.2") as listed, web_double("127.0.0.1", listed.port) as other:
        monkeypatch.setattr(socket, "getaddrinfo", lookup)
        await tool("127.0.0.2").call({"method": "GET", "url": f"http://both.example:{listed.port}/"})
        assert (len(listed.asked), other.asked) == (1, [])


async def test_a_redirect_to_what_may_not_be_called_is_refused(web: WebDouble) -> None:
    said = await refused(tool(web.place), f"{web.url}/redirect/302?to=http://169.254.169.254/latest/meta-data/")
    assert said.startswith("not called, 169.254.169.254 is not a public address")
    assert len(web.asked) == 1


@pytest.mark.parametrize("to", ["file:///etc/passwd", "ftp://127.0.0.1/", "http://[::1"])
async def test_a_redirect_to_what_is_no_web_address_is_refused(web: WebDouble, to: str) -> None:
    await refused(tool(web.place), f"{web.url}/redirect/302?to={to}")
    assert len(web.asked) == 1


async def test_a_redirect_is_followed_and_secrets_stay_with_the_first_origin(web: WebDouble) -> None:
    headers = {"Authorization": "Bearer key", "Cookie": "session=1", "X-Kept": "yes"}
    async with web_double() as other:
        asking = tool(web.place, other.place)
        said = await asking.call({"method": "GET", "url": f"{web.url}/redirect/307?to={other.url}/there", "headers": headers})
        assert said.startswith("HTTP 200")
        [asked] = other.asked
        assert not {"Authorization", "Cookie"} & {*asked.headers}
        assert asked.headers["X-Kept"] == "yes"
    await tool(web.place).call({"method": "GET", "url": f"{web.url}/redirect/307?to=/here", "headers": headers})
    assert web.asked[-1].headers["Authorization"] == "Bearer key"


@pytest.mark.parametrize(("status", "method", "body"), [(302, "GET", b""), (303, "GET", b""), (307, "POST", b'"x"'), (308, "POST", b'"x"')])
async def test_a_redirect_keeps_the_method_where_it_says_so(web: WebDouble, status: int, method: str, body: bytes) -> None:
    sent = {"method": "POST", "headers": {"Content-Type": "application/json"}, "body": '"x"'}
    await tool(web.place).call({"url": f"{web.url}/redirect/{status}?to=/there", **sent})
    assert (web.asked[-1].method, web.asked[-1].body) == (method, body)


async def test_redirects_without_end_are_given_up(web: WebDouble) -> None:
    assert await refused(tool(web.place), f"{web.url}/loop") == f"127.0.0.1 redirects more than {REDIRECTS_MAX} times"
    assert len(web.asked) == REDIRECTS_MAX + 1


@pytest.mark.parametrize("path", [f"big/{ANSWER_BYTES_MAX + 1}", f"zipped/{50 * ANSWER_BYTES_MAX}"])
async def test_of_a_huge_answer_the_beginning_is_read(web: WebDouble, path: str) -> None:
    said = await tool(web.place).call({"method": "GET", "url": f"{web.url}/{path}"})
    head, _, body = said.partition("\n\n")
    assert head == "HTTP 200 OK, text/plain, only the beginning"
    assert len(body) == ANSWER_BYTES_MAX


async def test_what_is_not_text_is_counted_and_other_charsets_are_read(web: WebDouble) -> None:
    asking = tool(web.place)
    assert (await asking.call({"method": "GET", "url": f"{web.url}/png"})).endswith(f"\n\n[{len(PNG)} bytes of image/png, not text]")
    assert (await asking.call({"method": "GET", "url": f"{web.url}/latin"})).endswith("\n\nZürich")


async def test_an_answer_that_does_not_end_is_given_up(web: WebDouble, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(http_calls, "EXCHANGE_TIMEOUT_S", 0.2)
    assert await refused(tool(web.place), f"{web.url}/hangs") == "127.0.0.1 did not finish its answer within 0.2 s"


async def test_a_server_that_is_not_there_or_breaks_off_is_named_without_the_address_that_holds_a_password(web: WebDouble) -> None:
    assert await refused(tool(web.place), f"http://me:hunter2@{web.place}/breaks?key=hunter2") == f"{web.place} broke off its answer"
    with socket.socket() as bound:
        bound.bind(("127.0.0.1", 0))
        place = f"127.0.0.1:{bound.getsockname()[1]}"
        assert await refused(tool(place), f"http://me:hunter2@{place}/?key=hunter2") == f"nothing answers at {place}"


@pytest.mark.parametrize("name", ["Host", "content-length", "Transfer-Encoding", "Proxy-Authorization", "Connection"])
async def test_headers_of_the_connection_are_not_the_models_to_set(web: WebDouble, name: str) -> None:
    assert name in await refused(tool(web.place), web.url, headers={name: "x"})
    assert web.asked == []


@pytest.mark.parametrize("headers", [{"X-A": "b\r\nHost: evil"}, {"X A": "b"}, {"X-A\r\nHost": "b"}])
async def test_a_header_that_would_be_two_is_not_sent(web: WebDouble, headers: dict[str, str]) -> None:
    assert "header" in await refused(tool(web.place), web.url, headers=headers)
    assert web.asked == []


@pytest.mark.parametrize(
    "url", ["", "not a url", "ftp://example.org", "file:///etc/passwd", "http://", "http://[", "https://x" + "y" * 9000]
)
async def test_what_is_no_web_address_is_refused(url: str) -> None:
    assert "write https://HOST/PATH" in await refused(tool(), url)


async def test_a_host_that_the_agent_may_not_name_is_not_called(web: WebDouble) -> None:
    assert "not permitted to call 127.0.0.1" in await refused(tool(web.place, hosts=("*.example.org",)), web.url)
    assert web.asked == []
    assert (await tool(web.place, hosts=(web.place,)).call({"method": "GET", "url": web.url})).startswith("HTTP 200")


async def test_nothing_of_a_call_is_logged(web: WebDouble, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level("DEBUG")
    headers = {"Authorization": "Bearer hunter2"}
    await tool(web.place).call({"method": "POST", "url": f"{web.url}/?key=hunter2", "headers": headers, "body": "hunter2"})
    await refused(tool(), f"{web.url}/?key=hunter2", headers=headers)
    assert "hunter2" not in caplog.text
