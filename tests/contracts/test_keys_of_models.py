"""What documents say of models: where they are asked, with what, in which order; and of the servers behind."""

from __future__ import annotations

from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest
from tests.astromesh.inference.gguf_files import a_gguf
from tests.contracts.witness import Running, Witness
from tests.rig.documents import Documents, agent, provider, runtime
from tests.rig.eventually import eventually
from tests.rig.sleepy_engine import SleepyEngine
from tests.rig.stub_openai import StubOpenAI

from astromesh.runtime import local_models
from astromesh.service.models import InstalledModels

HEALTH_GOAL_S = 2.0
KEY = "a-key-of-the-test"
# It fails at once, where a server that is not there is looked for twice more.
ABSENT = {"provider": "openai_compat", "endpoint": "http://127.0.0.1:9", "model": "stub", "api_key_env": "A_KEY_THAT_NOBODY_HAS"}
SAMPLING = {
    "temperature": 0.5, "top_p": 0.9, "top_k": 40, "min_p": 0.1, "max_tokens": 3, "stop": ["END"], "seed": 7, "presence_penalty": 0.25,
    "frequency_penalty": 0.75, "repeat_penalty": 1.5,
}  # fmt: skip
PLACES = ("primary", "fallback", "fallbacks", "candidates", "role")


def placed(place: str, target: Mapping[str, Any]) -> dict[str, Any]:
    """A `spec.model` in which that target is the one that answers."""
    match place:
        case "primary":
            return {"primary": target}
        case "fallback":
            return {"primary": ABSENT, "fallback": target}
        case "fallbacks":
            return {"primary": ABSENT, "fallback": [target]}
        case "candidates":
            return {"default": {"candidates": [target]}}
        case _:
            return {"primary": ABSENT, "roles": {"reasoner": {"candidates": [target]}}}


def asking(model: Mapping[str, Any], *, name: str = "desk", **how: Any) -> Documents:
    return agent(name, **{"model": "stub", **how}) | {f"agents/{name}.agent.yaml": _document(name, model, **how)}


def _document(name: str, model: Mapping[str, Any], **how: Any) -> dict[str, Any]:
    (whole,) = agent(name, **how).values()
    assert not isinstance(whole, str)
    return {**whole, "spec": {**whole["spec"], "model": dict(model)}}


@pytest.mark.parametrize("place", PLACES)
async def test_a_model_is_asked_where_and_as_its_document_says(witness: Witness, place: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("KEY_OF_THE_TEST", KEY)
    async with StubOpenAI(models=["stub"], api_key=KEY) as stub:
        whole = {"provider": "openai_compat", "model": "stub", "endpoint": stub.url, "api_key": KEY, "timeout": 5, "parameters": SAMPLING,
            "context_window": 1000}  # fmt: skip
        named = {"source": "box", "model": "stub", "api_key_env": "KEY_OF_THE_TEST", "endpoint": stub.endpoint,
            "parameters": {"max_completion_tokens": 4, "repetition_penalty": 1.25}}  # fmt: skip
        referred = {"provider_ref": "box", "model": "stub"}
        servers = provider(stub.url, name="box", api_key=KEY)
        agents = {
            **asking(placed(place, whole)),
            **asking(placed(place, named), name="named"),
            **asking(placed(place, referred), name="referred"),
        }
        async with witness.node({**servers, **agents}) as node:
            assert (await node.answer(query="one two three"))["answer"] == "You said: one"
            asked = stub.requests[-1]
            assert asked.headers["Authorization"] == f"Bearer {KEY}"
            assert {key: asked.body[key] for key in SAMPLING} == SAMPLING
            assert (await node.answer("named", "one two three"))["answer"] == "You said: one two"
            assert stub.requests[-1].body["repeat_penalty"] == 1.25
            assert (await node.answer("referred", "one two three"))["answer"] == "You said: one two three"


@pytest.mark.parametrize("place", PLACES)
async def test_what_a_model_cannot_do_in_time_or_hold_is_not_waited_for(witness: Witness, stub: StubOpenAI, place: str) -> None:
    mute = {"provider": "stub", "model": "hangs", "timeout": 0.2}
    narrow = {"provider": "stub", "model": "stub", "context_window": 3}
    files = {**asking(placed(place, mute), name="mute"), **asking(placed(place, narrow), name="narrow")}
    async with witness.node({**provider(stub.endpoint, models=["stub", "hangs"]), **files}) as node:
        for name, said in (("mute", "0.2 s"), ("narrow", "holds 3")):
            refused = await node.run(name, "one two three four")
            assert refused.status == 502
            assert said in refused.body["detail"]["message"]


@asynccontextmanager
async def with_a_model(witness: Witness, files: Documents, monkeypatch: pytest.MonkeyPatch, **inference: Any) -> AsyncIterator[Running]:
    """A node with one model of its own, whose engine is the twin in memory: 50 tokens a second and no card."""
    monkeypatch.setattr(local_models, "TIDY_S", 0.05)
    monkeypatch.setattr(InstalledModels, "_engine", lambda self, found: SleepyEngine(found.specification, on_change=self.local.changed))
    file = witness.folder / "tiny.gguf"
    file.write_bytes(a_gguf(context=2048))
    models = inference.pop("models", [{"name": "tiny", "path": str(file)}])
    written = runtime(mesh={"enabled": True}, inference={"models": models, **inference})
    async with witness.node({**files, **written}) as node:
        yield node


@pytest.mark.parametrize("place", PLACES)
async def test_a_model_of_the_mesh_answers_where_its_node_has_what_is_required(
    witness: Witness, place: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    wishes: dict[str, dict[str, Any]] = {
        "any": {},
        "slow": {"min_tok_s": 10},
        "fast": {"min_tok_s": 1000},
        "card": {"gpu": True},
        "large": {"vram_gb": 8},
    }
    files = {
        path: document
        for name, requires in wishes.items()
        for path, document in asking(placed(place, {"provider": "local", "model": "tiny", "requires": requires}), name=name).items()
    }
    async with with_a_model(witness, files, monkeypatch) as node:

        async def answers() -> bool:
            return (await node.run("any")).status == 200

        await eventually(answers, HEALTH_GOAL_S)
        assert (await node.answer("slow"))["answer"] == "Yes"
        for name, said in (("fast", "50 tokens/s"), ("card", "GPU"), ("large", "GPU")):
            refused = await node.run(name)
            assert (refused.status, said in str(refused.body["detail"])) == (502, True), refused.body


async def test_a_name_may_pin_the_file_of_a_model(witness: Witness, monkeypatch: pytest.MonkeyPatch) -> None:
    async with with_a_model(witness, {}, monkeypatch) as node:

        async def loaded() -> bool:
            return (await node.ask("GET", "/v1/ready?model=tiny")).status == 200

        await eventually(loaded, HEALTH_GOAL_S)
        [row] = (await node.get("/v1/models"))["data"]
        for digest, status in ((row["identity"], 200), ("0" * 64, 404)):
            asked = {"model": f"tiny@sha256:{digest}", "messages": [{"role": "user", "content": "Hi"}]}
            assert (await node.ask("POST", "/v1/chat/completions", asked)).status == status


async def test_models_of_a_node_are_loaded_as_its_file_says(witness: Witness, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    (tmp_path / "small.gguf").write_bytes(a_gguf(salt=b"small"))
    models = [
        {"name": "tiny", "path": str(tmp_path / "tiny.gguf"), "context": 1000, "parallel": 3, "gpu_layers": 0, "prefix_cache_mb": 5},
        {"name": "small", "pull": str(tmp_path / "small.gguf"), "gpu_layers": "auto"},
    ]
    how = {"models_dir": str(tmp_path / "models"), "memory_budget_mb": 4000, "idle_unload_seconds": "100ms", "engine": "auto"}
    async with with_a_model(witness, {}, monkeypatch, models=models, **how) as node:

        async def stored() -> bool:
            return (await node.ask("POST", "/v1/models/tiny/load", {"dry_run": True})).status == 200

        await eventually(stored, HEALTH_GOAL_S)
        plan = await node.ask("POST", "/v1/models/tiny/load", {"dry_run": True})
        assert (plan.body["context"], plan.body["budget_bytes"]) == (1000, 4_000_000_000)
        assert (plan.body["parallel"], plan.body["prefix_cache_bytes"]) == (3, 5 << 20)
        assert plan.body["placement"]["gpu_layers"] == 0

        async def loaded() -> bool:
            rows = {row["id"]: row["nodes"][0]["state"] for row in (await node.get("/v1/models"))["data"]}
            return "loaded" in rows.values()

        async def idle() -> bool:
            rows = {row["id"]: row["nodes"][0]["state"] for row in (await node.get("/v1/models"))["data"]}
            return rows == {"tiny": "on_disk", "small": "on_disk"}

        await eventually(loaded, HEALTH_GOAL_S)
        await eventually(idle, HEALTH_GOAL_S)
        assert list((tmp_path / "models").iterdir())


@pytest.mark.parametrize(
    ("strategy", "order"),
    [
        ("cost_optimized", ["cheap", "cheap"]),
        ("quality_first", ["good", "good"]),
        ("round_robin", ["dear", "cheap"]),
        ("capability_match", ["good", "good"]),
        ("latency_optimized", ["fast", "fast"]),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
async def test_a_strategy_says_who_is_asked_first(witness: Witness, strategy: str, order: list[str]) -> None:
    models: list[Any] = [
        {"name": "dear", "cost_per_1k_tokens": 3, "quality_score": 0.5, "capabilities": {"tools": False}},
        {"name": "cheap", "cost_per_1k_tokens": 1, "quality_score": 0.2, "capabilities": {"tools": False}},
        {"name": "good", "cost_per_1k_tokens": 2, "quality_score": 0.9, "capabilities": {"tools": True}},
    ]
    tools = [{"type": "builtin", "name": "datetime_now"}]
    async with StubOpenAI(models=["dear", "cheap", "good", "fast"], pause_s=0.005) as stub:
        targets = [{"provider": "box", "model": name} for name in ("dear", "cheap", "good")]
        if strategy == "latency_optimized":
            models = ["slow", "fast"]
            targets = [{"provider": "box", "model": name} for name in models]
        document = {"primary": targets[0], "fallback": targets[1:], "routing": {"strategy": strategy}}
        candidates = {"default": {"strategy": strategy, "candidates": targets}}
        role = {"primary": ABSENT, "roles": {"reasoner": {"strategy": strategy, "candidates": targets}}}
        unsaid = {"primary": targets[0], "fallback": targets[1:]}
        files = {
            **asking(document, name="document", tools=tools), **asking(candidates, name="candidates", tools=tools),
            **asking(role, name="role", tools=tools), **asking(unsaid, name="unsaid", tools=tools),
        }  # fmt: skip
        servers = provider(stub.endpoint, name="box", models=models)
        servers["providers-box.yaml"]["spec"]["routing"] = {"default_strategy": strategy, "fallback_enabled": True}  # type: ignore[index]
        async with witness.node({**servers, **files}) as node:
            for name in ("document", "candidates", "role", "unsaid"):
                if strategy == "latency_optimized":  # every sixteenth request measures who was never measured
                    for _ in range(16):
                        await node.answer(name, "one")
                assert [(await node.answer(name, "one two"))["usage"]["model"] for _ in order] == order, name


async def test_without_fallbacks_only_the_first_is_asked(witness: Witness, stub: StubOpenAI) -> None:
    servers = provider(stub.endpoint)
    servers["providers-stub.yaml"]["spec"]["routing"] = {"fallback_enabled": False}  # type: ignore[index]
    async with witness.node({**servers, **asking({"primary": ABSENT, "fallback": {"provider": "stub", "model": "stub"}})}) as node:
        assert (await node.run()).status == 502
        assert stub.asked("stub") == []


@pytest.mark.parametrize("key", ["recovery_timeout", "cooldownSeconds"])
@pytest.mark.parametrize("where", ["routing", "provider", "resource"])
async def test_a_breaker_opens_and_tries_again_as_the_file_says(witness: Witness, where: str, key: str) -> None:
    async with StubOpenAI(models=["fails-500"]) as stub:
        breaking = {"circuit_breaker": {"failure_threshold": 1, key: 0.2}}
        if key == "cooldownSeconds":
            breaking = {"circuitBreaker": {"failureThreshold": 1, key: 0.2}}
        servers = dict(provider(stub.endpoint, name="box", models=["fails-500"], **(breaking if where == "provider" else {})))
        if where == "routing":
            servers["providers-box.yaml"]["spec"]["routing"] = breaking  # type: ignore[index]
        if where == "resource":
            servers = {"providers-box.yaml": resource(stub.endpoint, models=["fails-500"], **breaking)}
        async with witness.node({**servers, **asking({"primary": {"provider": "box", "model": "fails-500"}})}) as node:

            async def breaker() -> str:
                [row] = (await node.get("/v1/providers"))["providers"]
                return str(row["breaker"])

            assert (await node.run()).status == 502
            assert await breaker() == "open"

            async def tries_again() -> bool:
                await node.run()
                return len(stub.asked("fails-500")) > 1

            await eventually(tries_again, HEALTH_GOAL_S)


def resource(endpoint: str, *, name: str = "box", **spec: Any) -> dict[str, Any]:
    """A document of kind Provider."""
    metadata = {"name": name, "version": "1", "namespace": "default", "labels": {"a": "b"}, "annotations": {"a": "b"}}
    spec = {"type": "openai_compat", "endpoint": endpoint, "models": ["stub"], **spec}
    return {"apiVersion": "astromesh.io/v1alpha1", "kind": "Provider", "metadata": metadata, "spec": spec}


TYPES = ("openai", "openai_compat", "openai-compat", "vllm", "llamacpp", "llama_cpp", "hf_tgi", "ollama", "openrouter")


async def test_servers_of_every_type_answer_with_and_without_v1_and_with_keys(witness: Witness, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("KEY_OF_THE_TEST", KEY)
    async with StubOpenAI(models=["stub"], api_key=KEY) as stub:
        files: dict[str, Any] = {}
        for number, kind in enumerate(TYPES):
            name = f"box-{number}"
            key = {"api_key": KEY} if number % 2 else {"api_key_env": "KEY_OF_THE_TEST"}
            files |= provider(stub.url if number % 2 else stub.endpoint, name=name, type=kind, **key)
            files |= asking({"primary": {"provider": name, "model": "stub"}}, name=name)
            files[f"providers-own-{number}.yaml"] = resource(stub.url, name=f"own-{number}", type=kind, **key)
            files |= asking({"primary": {"provider": f"own-{number}", "model": "stub"}}, name=f"own-{number}")
        async with witness.node(files) as node:
            for number in range(len(TYPES)):
                for name in (f"box-{number}", f"own-{number}"):
                    assert (await node.answer(name))["answer"] == "You said: Hello"


@pytest.mark.parametrize("key", ["api_key", "api_key_env"])
async def test_a_server_may_be_a_resource_of_its_own(witness: Witness, key: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("KEY_OF_THE_TEST", KEY)
    async with StubOpenAI(models=["stub"], api_key=KEY) as stub:
        given = {key: KEY if key == "api_key" else "KEY_OF_THE_TEST"}
        merits = [{"name": "stub", "cost_per_1k_tokens": 2, "quality_score": 0.5, "capabilities": {"tools": True}}]
        served = resource(stub.endpoint, share="none", models=merits, health_check_interval=1, **given)
        async with witness.node({"providers-box.yaml": served, **asking({"primary": {"provider": "box", "model": "stub"}})}) as node:
            assert (await node.answer())["usage"]["by_model"][0]["cost"] > 0
            [row] = (await node.get("/v1/providers"))["providers"]
            assert (row["type"], row["shared"], row["cost_per_1k_tokens"]) == ("openai_compat", False, {"stub": 2.0})


@pytest.mark.parametrize("kind", ["ProviderConfig", "Provider"])
async def test_a_server_is_asked_for_its_health_as_often_and_where_its_document_says(witness: Witness, stub: StubOpenAI, kind: str) -> None:
    how: dict[str, Any] = {"healthCheck": {"interval": "50ms", "timeout": "2s", "path": "/stub/state"}, "share": "none"}
    other: dict[str, Any] = {"health_check_interval": 0.05, "share": "mesh"}
    if kind == "Provider":
        files = {
            "providers-a.yaml": resource(stub.url, **how),
            "providers-b.yaml": {**resource(stub.url, **other), "metadata": {"name": "other"}},
        }
    else:
        files = {**provider(stub.url, name="box", **how), **provider(stub.url, name="other", **other)}
    async with witness.node(files) as node:

        async def asked_again() -> bool:
            rows = {row["name"]: row for row in (await node.get("/v1/providers"))["providers"]}
            assert {name: row["shared"] for name, row in rows.items()} == {"box": False, "other": True}
            return all(row["health"] == "healthy" for row in rows.values()) and len(stub.requests) > 2

        await eventually(asked_again, HEALTH_GOAL_S)


async def test_an_agent_says_how_often_its_servers_are_asked_for_their_health(witness: Witness, stub: StubOpenAI) -> None:
    model = {"primary": {"provider": "stub", "model": "stub"}, "routing": {"health_check_interval": 0.05}}
    async with witness.node({**provider(stub.endpoint, share="none"), **asking(model)}) as node:

        async def healthy() -> bool:
            [row] = (await node.get("/v1/providers"))["providers"]
            return bool(row["health"] == "healthy")

        await eventually(healthy, HEALTH_GOAL_S)


async def test_what_is_shared_is_offered_to_the_mesh_unless_it_has_a_key_or_a_price(witness: Witness, stub: StubOpenAI) -> None:
    priced: Any = [{"name": "priced", "cost_per_1k_tokens": 1}]
    files = {
        **provider(stub.endpoint, name="free", models=["free"]),
        **provider(stub.endpoint, name="priced", models=priced),
        **provider(stub.endpoint, name="keyed", models=["keyed"], api_key=KEY),
        **provider(stub.endpoint, name="told", models=["told"], api_key=KEY, share="mesh"),
    }
    async with witness.node(files) as node:
        assert {row["id"] for row in (await node.get("/v1/models"))["data"]} == {"free", "told"}
