"""A node whose agents name several models, seen from outside: who answers, what it cost, and what is said when nobody does."""

from __future__ import annotations

from typing import Any

import pytest
from tests.cluster.conftest import FAST, gauge
from tests.rig.documents import Documents, agent
from tests.rig.nodes import Node, node_process
from tests.rig.ports import free_port
from tests.rig.stub_openai import StubOpenAI

pytestmark = [pytest.mark.processes, pytest.mark.timeout(120)]

NOBODY_AT = "http://127.0.0.1:9"


def choosing(name: str, *, primary: dict[str, Any], fallback: Any = None, **more: Any) -> Documents:
    """An agent of these models."""
    [(path, document)] = agent(name).items()
    assert not isinstance(document, str)
    model = {"primary": primary, **({"fallback": fallback} if fallback is not None else {}), **more}
    return {path: {**document, "spec": {**document["spec"], "model": model}}}


def servers(stub: StubOpenAI, **spec: Any) -> Documents:
    """`well` and `ill` are one kind of server on two ports; `keyed` wants a key that nobody has set."""
    priced = [{"name": "stub", "cost_per_1k_tokens": 0.5}]
    providers = {
        "well": {"type": "openai_compat", "endpoint": stub.endpoint, "models": priced},
        "absent": {"type": "openai_compat", "endpoint": f"http://127.0.0.1:{free_port()}", "models": ["stub"]},
        "nowhere": {"type": "openai_compat", "endpoint": "http://no-such-host.invalid", "models": ["stub"]},
        "keyed": {"type": "openai_compat", "endpoint": NOBODY_AT, "api_key_env": "A_KEY_THAT_NOBODY_HAS", "models": ["stub"]},
    }
    return {"providers.yaml": {"apiVersion": "astromesh/v1", "kind": "ProviderConfig", "spec": {"providers": providers, **spec}}}


def at(provider: str, model: str = "stub", **more: Any) -> dict[str, Any]:
    return {"provider": provider, "model": model, **more}


async def provider_row(node: Node, name: str) -> dict[str, Any]:
    rows: list[dict[str, Any]] = (await node.get("/v1/providers"))["providers"]
    return next(row for row in rows if row["name"] == name)


async def test_the_fallback_answers_and_its_price_is_told_and_the_breaker_can_be_watched() -> None:
    async with StubOpenAI() as stub, StubOpenAI() as other:
        config = {
            **servers(stub),
            "providers-ill.yaml": {
                "apiVersion": "astromesh/v1",
                "kind": "ProviderConfig",
                "spec": {"providers": {"ill": {"type": "vllm", "endpoint": other.endpoint, "models": ["fails-500"], "share": "none"}}},
            },
            **choosing("desk", primary=at("ill", "fails-500"), fallback=at("well")),
        }
        async with node_process("one", config=config, arguments=FAST) as node:
            assert (await provider_row(node, "ill"))["breaker"] == "closed"
            for number in range(1, 5):
                async with node.http.post("/v1/agents/desk/run", json={"query": "one two", "stream": number == 1}) as response:
                    assert response.status == 200, await response.text()
                    assert response.headers["X-Astromesh-Attempts"] == ("2" if number <= 3 else "1")
                    done = await response.json(content_type=None) if number > 1 else None
            assert done is not None
            assert done["attempts"] == 1
            [spent] = done["usage"]["by_model"]
            tokens = spent["tokens_in"] + spent["tokens_out"]
            assert (spent["provider"], spent["role"], spent["calls"]) == ("well", "default", 1)
            assert spent["cost"] == pytest.approx(tokens * 0.5 / 1000)
            assert len(other.asked("fails-500")) == 3
            row = await provider_row(node, "ill")
            assert (row["breaker"], row["shared"], row["first_token_ms"]) == ("open", False, {})
            row = await provider_row(node, "well")
            assert (row["breaker"], row["cost_per_1k_tokens"]) == ("closed", {"stub": 0.5})
            assert row["first_token_ms"]["stub"] > 0
            endpoint = other.endpoint
            assert await gauge(node, "astromesh_provider_breaker", provider="ill", endpoint=endpoint, state="open") == 1
            assert await gauge(node, "astromesh_provider_breaker", provider="ill", endpoint=endpoint, state="closed") == 0
            assert await gauge(node, "astromesh_provider_breaker_openings_total", provider="ill") == 1


REFUSALS: dict[str, tuple[dict[str, Any], str, str]] = {
    "absent": ({"primary": at("absent")}, "model_connection_refused", "correct the endpoint"),
    "nowhere": ({"primary": at("nowhere")}, "model_dns_resolution_failed", "endpoint"),
    "keyed": ({"primary": at("keyed")}, "model_missing_api_key", "A_KEY_THAT_NOBODY_HAS"),
    "ill": ({"primary": at("well", "fails-500")}, "model_provider_unavailable", "look at the server behind"),
    "mute": ({"primary": at("well", "hangs", timeout=0.3)}, "model_timeout", "timeout of the model"),
    "unheard": ({"primary": at("well", "unheard-of")}, "model_no_eligible_provider", "check the model's name"),
    "tight": ({"primary": at("well", context_window=3)}, "model_no_eligible_provider", "spec.model.primary.context_window"),
    "nobody": ({"primary": at("local", "unheard-of")}, "model_no_providers", "models list"),
    "all": ({"primary": at("absent"), "fallback": [at("well", "fails-500")]}, "model_all_providers_failed", "correct the endpoint"),
}


async def test_every_way_in_which_nobody_answers_has_its_code_and_a_hint_that_names_the_knob() -> None:
    async with StubOpenAI() as stub:
        config = {
            **servers(stub, routing={"circuit_breaker": {"failure_threshold": 100}}),
            **{path: document for name, (model, _, _) in REFUSALS.items() for path, document in choosing(name, **model).items()},
        }
        async with node_process("one", config=config, arguments=FAST) as node:
            for name, (_, code, knob) in REFUSALS.items():
                body = await node.post(f"/v1/agents/{name}/run", {"query": "one two three"}, status=502)
                detail = body["detail"]
                assert (body["code"], detail["error"]) == (code, code), name
                assert detail["message"], name
                assert knob in detail["hint"], (name, detail["hint"])


async def test_a_model_of_a_type_that_is_not_called_yet_is_warned_about_and_its_agent_answers() -> None:
    async with StubOpenAI() as stub:
        config = {**servers(stub), **choosing("desk", primary=at("anthropic", "claude"), fallback=at("well"))}
        async with node_process("one", config=config, arguments=FAST) as node:
            assert (await node.post("/v1/agents/desk/run", {"query": "Hello"}))["answer"] == "You said: Hello"
            [row] = (await node.get("/v1/agents"))["agents"]
            assert any("desk.agent.yaml" in warning and "anthropic" in warning for warning in row["warnings"]), row["warnings"]
