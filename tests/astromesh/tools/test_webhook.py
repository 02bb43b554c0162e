"""An endpoint as a tool: what it is sent, and what the model is told."""

from __future__ import annotations

from collections.abc import AsyncIterator, Mapping

import orjson
import pytest
from pydantic import SecretStr
from tests.rig.web_double import WebDouble, web_double

from astromesh.dialogue import ToolSchema
from astromesh.specs.addresses import listed_address
from astromesh.tools.backends.webhook import Webhook
from astromesh.tools.port import ToolFailed
from astromesh.tools.reach import Reach

SCHEMA = ToolSchema("create_ticket", "Opens a ticket.", {"type": "object"})


@pytest.fixture
async def web() -> AsyncIterator[WebDouble]:
    async with web_double() as double:
        yield double


def webhook(url: str, *listed: str, method: str = "POST", headers: Mapping[str, str] | None = None) -> Webhook:
    secrets = {name: SecretStr(value) for name, value in (headers or {}).items()}
    return Webhook(SCHEMA, url, method=method, headers=secrets, reach=Reach(tuple(map(listed_address, listed))))


async def refused(tool: Webhook) -> str:
    with pytest.raises(ToolFailed) as failure:
        await tool.call({"title": "broken"})
    return str(failure.value)


async def test_arguments_are_posted_as_json_with_the_documents_headers(web: WebDouble) -> None:
    said = await webhook(f"{web.url}/tickets", web.place, headers={"X-Key": "hunter2\n"}).call({"title": "broken", "urgent": True})
    [asked] = web.asked
    assert (asked.method, asked.path, asked.headers["X-Key"]) == ("POST", "/tickets", "hunter2")
    assert asked.headers["Content-Type"] == "application/json"
    assert orjson.loads(asked.body) == {"title": "broken", "urgent": True}
    assert orjson.loads(said)["path"] == "/tickets"


@pytest.mark.parametrize("method", ["GET", "delete"])
async def test_methods_without_a_body_put_arguments_into_the_query(web: WebDouble, method: str) -> None:
    tool = webhook(f"{web.url}/tickets?team=a", web.place, method=method)
    await tool.call({"title": "a b&c", "urgent": True, "tags": ["x"], "none": None})
    [asked] = web.asked
    assert (asked.method, asked.body) == (method.upper(), b"")
    assert asked.query == {"team": "a", "title": "a b&c", "urgent": "true", "tags": '["x"]'}


@pytest.mark.parametrize(
    ("path", "said"),
    [
        ("status/404?say=no+such+team", "create_ticket answered 404 Not Found: no such team"),
        ("status/500", "create_ticket answered 500 Internal Server Error"),
        ("repeats", "create_ticket answered 403 Forbidden: not with ***"),
    ],
)
async def test_a_refusal_is_text_that_the_model_can_use_and_holds_no_secret(web: WebDouble, path: str, said: str) -> None:
    assert await refused(webhook(f"{web.url}/{path}", web.place, headers={"X-Key": "hunter2"})) == said


@pytest.mark.parametrize("value", ["Bearer sesame-17", "sesame-17\n"])
async def test_an_answer_that_repeats_what_it_was_sent_holds_no_secret_either(web: WebDouble, value: str) -> None:
    headers = {"Authorization": value, "X-Short": "tick", "Accept": "application/json"}
    said = await webhook(f"{web.url}/status/200?say=tick+sesame-17+application/json", web.place, headers=headers).call({})
    assert said == "tick *** application/json"


async def test_an_answer_without_text_is_done(web: WebDouble) -> None:
    assert await webhook(f"{web.url}/status/204", web.place).call({}) == "done"


async def test_an_address_that_the_node_does_not_list_is_not_called(web: WebDouble) -> None:
    said = await refused(webhook(web.url))
    assert f"can list 127.0.0.1:{web.port} under spec.tools.http.allow" in said
    assert web.asked == []


async def test_a_redirect_takes_no_secret_header_to_another_origin(web: WebDouble) -> None:
    async with web_double() as other:
        await webhook(f"{web.url}/redirect/307?to={other.url}/there", web.place, other.place, headers={"X-Key": "hunter2"}).call({})
        assert web.asked[0].headers["X-Key"] == "hunter2"
        assert "X-Key" not in other.asked[0].headers


async def test_what_a_webhook_knows_is_not_in_its_repr() -> None:
    assert "hunter2" not in repr(vars(webhook("http://example.org", headers={"X-Key": "hunter2"})))
