"""The tools of a document: what is a mistake there, what is not used, and what an agent may not do."""

from __future__ import annotations

from pathlib import Path

import pytest

from astromesh.specs.agent import Agent, Permissions
from astromesh.specs.parse import Parsed, parse
from astromesh.specs.tools import refusal

HEAD = "apiVersion: astromesh/v1\nkind: Agent\nmetadata: {name: desk}\nspec:\n  model: {primary: {provider: local, model: m}}\n"


def read(spec: str) -> Parsed:
    return parse(HEAD + spec, source="f.yaml", environment={"KEY": "hunter2"})


def tools(*written: str) -> Parsed:
    return read("  tools:\n" + "".join(f"    - {{{one}}}\n" for one in written))


def agent(parsed: Parsed) -> Agent:
    assert [str(mistake) for mistake in parsed.mistakes] == []
    return parsed.agents[0]


def test_a_tool_is_called_by_its_name_or_by_what_it_stands_for() -> None:
    desk = agent(
        tools(
            "type: builtin, name: http_request",
            'type: internal, function: "shop.stock:count"',
            "type: agent, agent: billing",
            "type: webhook, name: ticket, url: https://example.org",
        )
    )
    assert [tool.called for tool in desk.spec.tools] == ["http_request", "count", "billing", "ticket"]
    assert desk.warnings == ()


def test_the_examples_of_the_manual_are_right() -> None:
    """Every document in it, without a warning."""
    text = (Path(__file__).resolve().parents[3] / "docs" / "tools.md").read_text()
    documents = [block.partition("```")[0] for block in text.split("```yaml\n")[1:]]
    assert len(documents) == 2
    for document in documents:
        parsed = parse(document, source="docs/tools.md", environment={})
        assert [str(finding) for finding in (*parsed.mistakes, *parsed.warnings)] == []


def test_headers_are_secrets_and_come_from_the_environment() -> None:
    desk = agent(tools('type: webhook, name: ticket, url: "https://me:pass@example.org/", headers: {X-Key: "${KEY}"}'))
    assert desk.spec.tools[0].headers["X-Key"].get_secret_value() == "hunter2"
    shown = str(desk.as_document())
    assert "hunter2" not in shown
    assert "pass" not in shown


@pytest.mark.parametrize(
    ("written", "path", "said"),
    [
        ("type: webhook, url: https://a", "spec.tools[0]", "the tool has no name"),
        ("type: internal", "spec.tools[0]", "the tool has no name"),
        ("type: webhook, name: t", "spec.tools[0]", "there is no address to call. Add 'url: https://HOST/PATH'"),
        ("type: webhook, name: t, url: nothing", "spec.tools[0].url", "this is no address of a server"),
        ("type: webhook, name: t, url: http://a, endpoint: http://b", "spec.tools[0].endpoint", "means the same as 'url'"),
        ("type: webhook, name: t, url: http://a, method: FETCH", "spec.tools[0].method", "Write one of GET, POST"),
        ("type: webhook, name: t, url: http://a, parameters: {a: {type: txt}}", "spec.tools[0].parameters", "properties.a.type: a type is"),
        ("type: webhook, name: t, url: http://a, parameters: {a: 3}", "spec.tools[0].parameters", "a: expected a type or a schema"),
        ('type: webhook, name: "a b", url: http://a', "spec.tools[0].name", "cannot be the name of a tool"),
        ("type: agent, name: t", "spec.tools[0]", "no agent is named"),
        ("type: agent, name: t, agent: ''", "spec.tools[0]", "no agent is named"),
        ("type: internal, name: t, function: shop.count", "spec.tools[0].function", "Write 'function: package.module:function'"),
        ("type: internal, name: t, function: '../x:y'", "spec.tools[0].function", "this names no function"),
        ("type: builtin, name: datetime_now, rate_limit: {window_seconds: 5}", "spec.tools[0].rate_limit", "Add 'max_calls: 10'"),
        ("type: builtin, name: datetime_now, permissions: {read: true}", "spec.tools[0].permissions", "expected a list"),
    ],
)
def test_a_mistake_is_named_with_its_place_and_what_to_write(written: str, path: str, said: str) -> None:
    [mistake] = tools(written).mistakes
    assert (mistake.line, mistake.path) == (7, path)
    assert said in str(mistake)


def test_two_tools_of_one_name_are_a_mistake_at_the_second() -> None:
    [mistake] = tools("type: builtin, name: datetime_now", "type: agent, name: datetime_now, agent: clock").mistakes
    assert (mistake.line, mistake.path) == (8, "spec.tools[1].name")
    assert "spec.tools[0]" in mistake.message


@pytest.mark.parametrize(
    ("written", "key"),
    [
        ("type: builtin, name: datetime_now, url: http://a", "url"),
        ("type: builtin, name: datetime_now, parameters: {a: string}", "parameters"),
        ("type: webhook, name: t, url: http://a, function: 'm:f'", "function"),
        ("type: agent, agent: billing, headers: {a: b}", "headers"),
        ('type: internal, function: "m:f", method: GET', "method"),
    ],
)
def test_a_key_of_another_type_of_tool_is_said_to_be_unused(written: str, key: str) -> None:
    [caution] = agent(tools(written)).warnings
    assert caution.path == f"spec.tools[0].{key}"
    assert "is not used by a tool of type" in caution.message


def test_a_tool_that_the_agents_own_permissions_deny_is_said_not_to_be_offered() -> None:
    parsed = read("  permissions: {denied_actions: ['http_*']}\n  tools: [{type: builtin, name: http_request}]\n")
    [caution] = agent(parsed).warnings
    assert caution.message == "this tool is not offered to the model: spec.permissions.denied_actions has http_request"


@pytest.mark.parametrize("tool", ["type: builtin, name: http_request", "type: webhook, name: t, url: https://example.org"])
def test_without_network_a_tool_that_calls_the_web_is_said_not_to_be_offered(tool: str) -> None:
    [caution] = agent(
        read(f"  permissions: {{network: {{allowed: false}}}}\n  tools: [{{{tool}}}, {{type: agent, agent: till}}]\n")
    ).warnings
    assert (caution.path, caution.message.partition(": ")[2]) == ("spec.tools[0]", "spec.permissions.network.allowed is false")


@pytest.mark.parametrize(
    ("permissions", "actions", "why"),
    [
        ({}, ("pay",), ""),
        ({"allowed_actions": []}, ("pay",), "allowed_actions has no pay"),
        ({"allowed_actions": ["pay"]}, ("pay",), ""),
        ({"allowed_actions": ["pa?"]}, ("pay",), ""),
        ({"allowed_actions": ["look"]}, ("pay",), "allowed_actions has no pay"),
        ({"allowed_actions": ["money.*"]}, ("pay", "money.send", "money.read"), ""),
        ({"allowed_actions": ["money.read"]}, ("pay", "money.send", "money.read"), "allowed_actions has no pay"),
        ({"denied_actions": ["pay"]}, ("pay",), "denied_actions has pay"),
        ({"denied_actions": ["money.*"]}, ("pay", "money.send"), "denied_actions has money.send"),
        ({"denied_actions": ["*"], "allowed_actions": ["pay"]}, ("pay",), "denied_actions has pay"),
        ({"denied_actions": ["PAY"]}, ("pay",), ""),
    ],
)
def test_an_agent_does_what_is_allowed_and_not_denied(permissions: dict[str, list[str]], actions: tuple[str, ...], why: str) -> None:
    found = refusal(Permissions.model_validate(permissions), actions)
    assert found == (f"spec.permissions.{why}" if why else "")
    assert refusal(None, actions) == ""


@pytest.mark.parametrize("entry", ["10.0.0.0/8", "10.0.0.5:8080", "tickets.internal:8080", "'[fd00::1]:80'"])
def test_a_node_lists_networks_hosts_and_ports(entry: str) -> None:
    parsed = parse(
        f"apiVersion: astromesh/v1\nkind: RuntimeConfig\nspec: {{tools: {{http: {{allow: [{entry}]}}}}}}\n", source="r", environment={}
    )
    assert (parsed.mistakes, parsed.warnings) == ((), ())


def test_what_is_no_address_is_a_mistake_of_the_node_with_an_example() -> None:
    parsed = parse(
        "apiVersion: astromesh/v1\nkind: RuntimeConfig\nspec: {tools: {http: {allow: ['http://host/']}}}\n", source="r", environment={}
    )
    [mistake] = parsed.mistakes
    assert mistake.path == "spec.tools.http.allow[0]"
    assert "Write 10.0.0.0/8" in mistake.remedy
