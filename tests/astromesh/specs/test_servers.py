"""Which model server an agent's target means."""

from __future__ import annotations

import pytest

from astromesh.specs.agent import ModelTarget
from astromesh.specs.parse import parse
from astromesh.specs.provider import Provider, ProviderConfig, Server, Unresolved, api_root, server_of


def providers(text: str) -> dict[str, Provider]:
    parsed = parse(f"apiVersion: astromesh/v1\nkind: ProviderConfig\nspec:\n  providers:\n{text}", source="providers.yaml", environment={})
    assert parsed.mistakes == ()
    [config] = parsed.resources
    assert isinstance(config, ProviderConfig)
    return {provider.name: provider for provider in config.providers}


CONFIGURED = """\
    box: {type: vllm, endpoint: "http://box:8000", models: [big], api_key: sk-box}
    attic: {type: vllm, endpoint: "http://attic:8000/v1", models: [small]}
    cloud: {type: openai, api_key_env: MY_KEY}
    vague: {type: llamacpp}
    old: {type: onnx}
"""


def resolve(**target: object) -> Server | Unresolved:
    return server_of(ModelTarget.model_validate({"model": "m"} | target), providers(CONFIGURED))


@pytest.mark.parametrize(
    ("written", "root"),
    [
        ("http://h:1", "http://h:1/v1"),
        ("http://h:1/", "http://h:1/v1"),
        ("http://h:1/v1", "http://h:1/v1"),
        ("http://h:1/v1/", "http://h:1/v1"),
        ("https://openrouter.ai/api", "https://openrouter.ai/api/v1"),
        ("https://h/v1/chat/completions", "https://h/v1"),
        ("https://h/v1beta/openai", "https://h/v1beta/openai"),
    ],
)
def test_an_endpoint_is_taken_with_and_without_its_version(written: str, root: str) -> None:
    assert api_root(written) == root


def test_a_provider_is_found_by_its_name_with_its_key() -> None:
    server = resolve(provider="box")
    assert isinstance(server, Server)
    assert (server.name, server.url) == ("box", "http://box:8000/v1")
    assert server.api_key is not None
    assert server.api_key.get_secret_value() == "sk-box"
    assert resolve(provider_ref="cloud") == Server("cloud", "https://api.openai.com/v1", None, "MY_KEY")


def test_a_provider_is_found_by_its_type_and_the_model_it_has() -> None:
    assert resolve(provider="vllm", model="small") == Server("attic", "http://attic:8000/v1")
    found = resolve(provider="vllm", model="nobody has it")
    assert isinstance(found, Server)
    assert found.name == "attic"  # the first by name


def test_a_type_has_its_usual_place() -> None:
    assert resolve(provider="ollama") == Server("ollama", "http://127.0.0.1:11434/v1")
    assert server_of(ModelTarget(provider="openai", model="m"), {}) == Server("openai", "https://api.openai.com/v1", None, "OPENAI_API_KEY")


def test_an_endpoint_of_its_own_is_used_and_gets_no_ones_key() -> None:
    assert resolve(provider="openai_compat", endpoint="http://elsewhere:1") == Server("openai_compat", "http://elsewhere:1/v1")
    assert resolve(provider="box", endpoint="http://elsewhere:1") == Server("box", "http://elsewhere:1/v1")
    assert resolve(provider="openai", endpoint="http://elsewhere:1") == Server("openai", "http://elsewhere:1/v1")
    assert resolve(provider="box", endpoint="http://elsewhere:1", api_key_env="MINE") == Server(
        "box", "http://elsewhere:1/v1", None, "MINE"
    )


@pytest.mark.parametrize(
    ("provider", "message", "remedy"),
    [
        ("bxo", "no provider 'bxo'", "Did you mean 'box'?"),
        ("vague", "has no endpoint", "providers.yaml:8"),
        ("old", "does not call servers of type 'onnx'", "openai_compat"),
        ("anthropic", "does not call servers of type 'anthropic'", "openai_compat"),
        ("hf_tgi", "nothing says where the hf_tgi server is", "endpoint: http://HOST:PORT"),
    ],
)
def test_a_target_that_means_no_server_says_what_to_write(provider: str, message: str, remedy: str) -> None:
    found = resolve(provider=provider)
    assert isinstance(found, Unresolved)
    assert message in found.message
    assert remedy in found.remedy


def test_a_mistake_inside_a_model_is_one_mistake_though_a_name_would_do_too() -> None:
    head = "apiVersion: astromesh/v1\nkind: Provider\nmetadata: {name: x}\nspec:\n  type: ollama\n"
    text = head + "  models:\n    - {name: m, quality_score: high}\n    - []\n"
    assert [str(mistake) for mistake in parse(text, source="p.yaml", environment={}).mistakes] == [
        "p.yaml:7: spec.models[0].quality_score: expected a number, found 'high'. Write for example quality_score: 0.5.",
        'p.yaml:8: spec.models[1]: expected text or a mapping (key: value), found a list. Write for example models: "some text".',
    ]


@pytest.mark.parametrize(
    ("spec", "shared"),
    [
        ("{type: ollama}", True),
        ("{type: ollama, share: none}", False),
        ("{type: vllm, endpoint: http://b, api_key_env: K}", False),
        ("{type: vllm, endpoint: http://b, api_key_env: K, share: mesh}", True),
        ("{type: openai}", False),
        ("{type: vllm, endpoint: http://b, models: [{name: m, cost_per_1k_tokens: 0.1}]}", False),
        ("{type: vllm, endpoint: http://b, models: [{name: m, cost_per_1k_tokens: 0.0}]}", True),
        ("{type: ollama, share: {labels: {a: b}}}", False),
    ],
)
def test_a_server_is_shared_unless_it_has_a_key_or_a_price(spec: str, shared: bool) -> None:
    assert providers(f"    x: {spec}\n")["x"].shared is shared
