"""Agents over the API: drafts, deployed, paused, removed."""

from __future__ import annotations

from typing import Any

from tests.contracts.witness import Witness
from tests.rig.documents import agent, provider
from tests.rig.stub_openai import StubOpenAI


def document(name: str = "desk", **how: Any) -> dict[str, Any]:
    (whole,) = agent(name, **how).values()
    assert not isinstance(whole, str)
    return dict(whole)


async def test_an_agent_is_a_draft_then_deployed_then_paused_then_removed(witness: Witness, stub: StubOpenAI) -> None:
    async with witness.node(provider(stub.endpoint)) as node:
        made = await node.ask("POST", "/v1/agents?namespace=default", document())
        assert (made.status, made.body["name"], made.body["status"]) == (201, "desk", "registered")
        refused = await node.run()
        assert (refused.status, refused.body["code"]) == (404, "agent_not_deployed")
        assert "deploy" in refused.body["hint"]
        said = await node.ask("POST", "/v1/agents/desk/deploy?namespace=default")
        assert (said.status, said.body["agent"], said.body["status"]) == (200, "desk", "deployed")
        assert (await node.run()).status == 200

        said = await node.ask("PUT", "/v1/agents/desk?namespace=default", document(system="Another."))
        assert (said.status, said.body["agent"], said.body["status"]) == (200, "desk", "updated")
        await node.run()
        assert stub.requests[-1].body["messages"][0]["content"] == "You are a test."

        said = await node.ask("POST", "/v1/agents/desk/pause?namespace=default")
        assert (said.status, said.body["agent"], said.body["status"]) == (200, "desk", "paused")
        refused = await node.run(namespace="default")
        assert (refused.status, refused.body["code"]) == (503, "agent_paused")
        said = await node.ask("DELETE", "/v1/agents/desk?namespace=default")
        assert (said.status, said.body["name"], said.body["status"]) == (200, "desk", "removed")
        assert (await node.run()).status == 404


async def test_a_document_is_shown_with_its_secrets_masked(witness: Witness, stub: StubOpenAI) -> None:
    webhook = {"type": "webhook", "name": "t", "url": "http://h", "headers": {"Authorization": "Bearer hidden"}}
    async with witness.node(provider(stub.endpoint)) as node:
        await node.ask("POST", "/v1/agents", document(tools=[webhook]))
        shown = await node.get("/v1/agents/desk?namespace=default&state=draft")
        assert (shown["kind"], shown["metadata"]["name"]) == ("Agent", "desk")
        assert "hidden" not in str(shown)
        assert (await node.ask("GET", "/v1/agents/nobody")).status == 404


async def test_what_cannot_be_stored_or_run_is_refused_and_changes_nothing(witness: Witness, stub: StubOpenAI) -> None:
    async with witness.node(provider(stub.endpoint)) as node:
        for unsafe in ("../desk", "", None):
            answer = await node.ask("POST", "/v1/agents", document() | {"metadata": {"name": unsafe}})
            assert (answer.status, answer.body["code"]) == (409, "unsafe_agent_name")
        wrong = document()
        wrong["spec"]["orchestration"] = {"patern": "react", "max_iterations": 0}
        answer = await node.ask("POST", "/v1/agents", wrong)
        assert (answer.status, answer.body["code"]) == (422, "invalid_document")
        assert len(answer.body["detail"]["mistakes"]) == 2
        assert (await node.get("/v1/agents"))["agents"] == []
        assert (await node.ask("POST", "/v1/agents", document(provider_name="nowhere"))).status == 201
        answer = await node.ask("POST", "/v1/agents/desk/deploy")
        assert (answer.status, answer.body["code"]) == (400, "agent_undeployable")
        assert (await node.ask("POST", "/v1/agents/desk/pause")).status == 400
        assert (await node.run()).status == 404


async def test_what_nobody_has_is_404_on_every_route(witness: Witness) -> None:
    async with witness.node({}) as node:
        for method, path, body in (
            ("GET", "", None), ("PUT", "", document()), ("DELETE", "", None), ("POST", "/deploy", None), ("POST", "/pause", None),
        ):  # fmt: skip
            answer = await node.ask(method, f"/v1/agents/desk{path}", body)
            assert (answer.status, answer.body["code"]) == (404, "agent_not_found"), method
            assert answer.body["hint"]


async def test_agents_of_two_namespaces_share_a_name_and_nothing_else(witness: Witness, stub: StubOpenAI) -> None:
    async with witness.node(provider(stub.endpoint)) as node:
        for namespace in ("sales", "support"):
            await node.ask("POST", f"/v1/agents?namespace={namespace}", document(system=f"Of {namespace}."))
            assert (await node.ask("POST", f"/v1/agents/desk/deploy?namespace={namespace}")).status == 200
        await node.run(namespace="sales")
        assert stub.requests[-1].body["messages"][0]["content"] == "Of sales."
        assert (await node.run()).status == 404
        assert [row["namespace"] for row in (await node.get("/v1/agents?namespace=sales"))["agents"]] == ["sales"]
