"""What was written is what a node works with, in every spelling."""

from __future__ import annotations

import json
from typing import Any

import pytest

from astromesh.dialogue import Sampling
from astromesh.specs.agent import (
    BUDGET_TOKENS_DEFAULT,
    ITERATIONS_DEFAULT,
    TIMEOUT_DEFAULT_S,
    TURNS_MAX,
    WINDOW_TURNS_DEFAULT,
    Agent,
    Limits,
    Remembering,
)
from astromesh.specs.parse import Parsed, parse, parse_document
from astromesh.specs.provider import ProviderConfig, ProviderResource
from astromesh.specs.resource import Listed
from astromesh.specs.runtime import Runtime

HEAD = "apiVersion: astromesh/v1\nkind: Agent\nmetadata:\n  name: desk\nspec:\n"


def read(text: str, **environment: str) -> Parsed:
    parsed = parse(text, source="f.yaml", environment=environment)
    assert [str(mistake) for mistake in parsed.mistakes] == []
    return parsed


def agent(spec: str, **environment: str) -> Agent:
    [built] = read(HEAD + spec, **environment).agents
    return built


MODEL = "  model: {primary: {provider: local, model: smollm2}}\n"


def test_an_agent_says_what_the_runtime_needs() -> None:
    desk = agent(
        "  model:\n    primary:\n      provider: ollama\n      model: llama3.1:8b\n      endpoint: http://box:11434\n      timeout: 90s\n"
        "      parameters: {temperature: 0.2, top_p: 0.9, max_tokens: 64, stop: END}\n"
        "  prompts: {system: 'Hello {{ name }}', context: 'It is {{ today }}'}\n"
        "  orchestration: {max_iterations: 4, timeout: 2m}\n"
        "  tools: [{type: builtin, name: datetime_now}]\n"
        "  memory: {conversational: {backend: in_memory, window_size: 7}}\n"
    )
    assert (desk.name, desk.namespace, desk.version, desk.place("spec.prompts.system")) == ("desk", "default", "", "f.yaml:13")
    assert (desk.model.served_by, desk.model.model, desk.model.endpoint, desk.model.timeout, desk.model.is_local) == (
        "ollama", "llama3.1:8b", "http://box:11434", 90.0, False,
    )  # fmt: skip
    assert desk.sampling == Sampling(temperature=0.2, top_p=0.9, max_tokens=64, stop=("END",))
    assert (desk.system_prompt, desk.context_prompt) == ("Hello {{ name }}", "It is {{ today }}")
    assert desk.limits() == Limits("react", 4, 120.0)
    assert [(tool.type, tool.called) for tool in desk.spec.tools] == [("builtin", "datetime_now")]
    assert desk.remembering == Remembering("in_memory", "sliding_window", 7, None, None)
    assert desk.warnings == ()


def test_an_agent_that_says_little_gets_the_nodes_defaults_then_the_shipped_ones() -> None:
    desk = agent(MODEL)
    assert desk.remembering is None
    assert desk.limits() == Limits("react", ITERATIONS_DEFAULT, TIMEOUT_DEFAULT_S)
    [runtime] = read(
        "apiVersion: astromesh/v1\nkind: RuntimeConfig\nspec: {defaults: {orchestration: {max_iterations: 3, timeout: 5}}}"
    ).resources
    assert isinstance(runtime, Runtime)
    assert desk.limits(runtime.spec.defaults.orchestration) == Limits("react", 3, 5.0)
    assert agent(MODEL + "  orchestration: {max_iterations: 8}\n").limits(runtime.spec.defaults.orchestration) == Limits("react", 8, 5.0)


@pytest.mark.parametrize(
    ("written", "meant"),
    [
        ("{}", Remembering("sqlite", "sliding_window", WINDOW_TURNS_DEFAULT, None, None)),
        ("{strategy: token_budget}", Remembering("sqlite", "token_budget", TURNS_MAX, BUDGET_TOKENS_DEFAULT, None)),
        ("{strategy: token_budget, max_tokens: 300, ttl: 1h}", Remembering("sqlite", "token_budget", TURNS_MAX, 300, 3600.0)),
        ("{strategy: summary, max_turns: 6}", Remembering("sqlite", "summary", 6, None, None)),
        ("{max_turns: 6, max_tokens: 300}", Remembering("sqlite", "sliding_window", 6, 300, None)),
        ("{backend: redis}", Remembering("sqlite", "sliding_window", WINDOW_TURNS_DEFAULT, None, None)),
    ],
)
def test_a_conversation_outlives_the_node_unless_it_says_otherwise(written: str, meant: Remembering) -> None:
    assert agent(MODEL + f"  memory: {{conversational: {written}}}\n").remembering == meant


def test_camel_case_and_snake_case_say_the_same() -> None:
    snake = agent(
        "  identity: {display_name: Desk}\n"
        "  model: {primary: {provider: openai, model: m, api_key: k, parameters: {max_tokens: 5, top_k: 2}}}\n"
        "  orchestration: {max_iterations: 3, timeout_seconds: 9}\n  memory: {conversational: {max_turns: 4}}\n"
    )
    camel = agent(
        "  identity: {displayName: Desk}\n"
        "  model: {primary: {provider: openai, model: m, apiKey: k, parameters: {maxTokens: 5, topK: 2}}}\n"
        "  orchestration: {maxIterations: 3, timeoutSeconds: 9}\n  memory: {conversational: {windowSize: 4}}\n"
    )
    assert camel.spec == snake.spec
    assert camel.as_document() == snake.as_document()


def test_the_candidates_of_a_default_role_are_a_model_too() -> None:
    desk = agent('  model: {default: {candidates: [{source: ollama, model: "llama3.1:8b"}, {source: openai, model: gpt-4o}]}}\n')
    assert (desk.model.served_by, desk.model.model) == ("ollama", "llama3.1:8b")
    assert agent("  model: {primary: {providerRef: {name: box}, model: m}}\n").model.served_by == "box"


@pytest.mark.parametrize(
    ("written", "read_as"),
    [("1.10", "1.10"), ("1", "1"), ('"1.0"', "1.0"), ("2024-01-02", "2024-01-02"), ("no", "no"), ("1:30", "1:30"), ("007", "007")],
)
def test_plain_text_that_looks_like_something_else_stays_as_it_is_written(written: str, read_as: str) -> None:
    [desk] = read((HEAD + MODEL).replace("  name: desk\n", f"  name: desk\n  version: {written}\n")).agents
    assert desk.version == read_as


def test_variables_come_from_the_environment_or_from_their_default() -> None:
    desk = agent(
        "  model: {primary: {provider: openai, model: '${MODEL:-gpt-4o-mini}', api_key: '${KEY}', parameters: {temperature: '${HEAT}'}}}\n"
        "  prompts: {system: '${GREETING:-} $${HOME} ${EMPTY:-full}'}\n",
        KEY="12345678901234567890123",
        HEAT="0.5",
        EMPTY="",
    )
    assert desk.model.model == "gpt-4o-mini"
    assert desk.model.api_key is not None
    assert desk.model.api_key.get_secret_value() == "12345678901234567890123"
    assert desk.sampling.temperature == 0.5
    assert desk.system_prompt == " ${HOME} full"


def test_references_do_not_nest() -> None:
    desk = agent(MODEL + "  prompts: {system: '${A:-${B}} ${C:-a $5 note}'}\n", B="b")
    assert desk.system_prompt == "${A:-${B}} a $5 note"
    assert ["names no variable" in caution.message for caution in desk.warnings] == [True]


def test_a_variable_cannot_bring_structure_in() -> None:
    desk = agent(MODEL + "  prompts:\n    system: ${TEXT}\n", TEXT="a\ntools: [x]\n---\n${OTHER}")
    assert desk.system_prompt == "a\ntools: [x]\n---\n${OTHER}"


def test_a_document_is_shown_without_its_secrets() -> None:
    desk = agent(
        "  model: {primary: {provider: openai, model: m, endpoint: 'https://me:pw-1@host/v1', api_key: sk-2}}\n"
        "  memory: {conversational: {connection: 'redis://:pw-3@h'}}\n"
        "  tools: [{type: webhook, name: w, url: http://h, headers: {X-Key: pw-4}, env: {A: pw-5}}]\n"
        "  observability: {sink: {password: pw-6, max_tokens: 3, client_secret: '${S}'}}\n",
        S="pw-7",
    )
    shown = json.dumps(desk.as_document())
    assert "pw-" not in shown
    assert "sk-" not in shown
    assert "pw-" not in repr(desk)
    assert desk.as_document()["spec"]["model"]["primary"]["endpoint"] == "https://***@host/v1"
    assert desk.as_document()["spec"]["observability"] == {"sink": {"password": "***", "max_tokens": 3, "client_secret": "${S}"}}


def test_a_document_that_is_shown_can_be_read_again() -> None:
    desk = agent(MODEL + "  prompts: {system: Hi}\n  orchestration: {timeout: 30s}\n  tools: [{type: builtin, name: datetime_now}]\n")
    [again] = parse_document(desk.as_document(), source="body", environment={}).agents
    assert (again.spec, again.metadata.name) == (desk.spec, "desk")


def test_a_document_of_json_values_has_mistakes_without_lines() -> None:
    body: Any = {"apiVersion": "astromesh/v1", "kind": "Agent", "metadata": {"name": "a"}, "spec": {"model": {"primary": {"modle": "x"}}}}
    parsed = parse_document(body, source="the body", environment={})
    assert [str(mistake)[:43] for mistake in parsed.mistakes] == [
        "the body: spec.model.primary.model: is miss",
        "the body: spec.model.primary.modle: unknown",
    ]
    assert [broken.name for broken in parsed.broken] == ["a"]
    assert "JSON" not in str(parse_document(["x"], source="the body", environment={}).mistakes[0])


def test_several_documents_and_anchors_of_one_file_are_all_read() -> None:
    parsed = read(
        "# first\n" + HEAD + "  model: &m {primary: &p {provider: local, model: a}}\n  prompts: {system: x}\n---\n"
        "apiVersion: astromesh.io/v1alpha1\nkind: Provider\nmetadata: {name: box}\nspec: {type: vllm, endpoint: http://box:8000}\n...\n---\n"
        "apiVersion: astromesh/v1\nkind: Agent\nmetadata: {name: till}\nspec:\n"
        "  model:\n    primary: &q {provider: local, model: b}\n    fallback: [*q, {<<: *q, model: c}]\n"
    )
    desk, box, till = parsed.resources
    assert isinstance(box, ProviderResource)
    assert [provider.place for provider in box.providers] == ["f.yaml:10"]
    assert isinstance(desk, Agent)
    assert isinstance(till, Agent)
    assert [target.model for target in till.spec.model.fallback] == ["b", "c"]  # type: ignore[union-attr]
    assert (desk.line, till.line) == (2, 16)


@pytest.mark.parametrize("kind", ["Channel", "RAGPipeline", "Workflow", "AgentTemplate", "Integration", "Eval"])
def test_kinds_that_do_not_run_yet_are_listed_with_a_warning(kind: str) -> None:
    parsed = read(f"apiVersion: astromesh/v1\nkind: {kind}\nmetadata: {{name: x}}\nspec: {{anything: '${{UNSET}}'}}\n")
    assert parsed.resources == (Listed(kind, "x", "f.yaml", 1),)
    assert [caution.message for caution in parsed.warnings] == [f"documents of kind {kind} are listed and not run yet"]


def test_channels_need_no_envelope() -> None:
    parsed = read("channels:\n  whatsapp:\n    verify_token: ${WHATSAPP_VERIFY_TOKEN}\n    default_agent: desk\n")
    assert parsed.resources == (Listed("Channel", "whatsapp", "f.yaml", 2),)


def test_a_misspelt_version_that_was_shipped_elsewhere_is_read_with_a_warning() -> None:
    [caution] = read((HEAD + MODEL).replace("astromesh/v1", "astromech/v1")).warnings
    assert (caution.line, caution.remedy) == (1, "Write 'apiVersion: astromesh/v1'.")


def test_providers_may_be_empty_and_metadata_left_out() -> None:
    for text in ("providers: {}", "providers:"):
        [config] = read(f"apiVersion: astromesh/v1\nkind: ProviderConfig\nspec:\n  {text}\n").resources
        assert isinstance(config, ProviderConfig)
        assert config.providers == ()


def test_windows_line_ends_and_a_byte_order_mark_change_nothing() -> None:
    assert read("\ufeff" + (HEAD + MODEL).replace("\n", "\r\n")).agents[0].lines == agent(MODEL).lines


def test_json_values_are_bounded_like_a_file() -> None:
    deep: Any = []
    for _ in range(2000):
        deep = [deep]
    values: tuple[Any, ...] = (deep, {"kind": ["x"] * 5000}, {"a": {str(number): {} for number in range(5000)}})
    for value in values:
        [mistake] = parse_document(value, source="the body", environment={}).mistakes
        assert str(mistake) == "the body: more than 5,000 values or 32 levels. No resource needs that."
