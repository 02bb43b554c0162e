"""Which models an agent may ask, role by role, out of its document and the node's providers."""

from __future__ import annotations

import re
from dataclasses import replace
from pathlib import Path
from typing import NoReturn, get_args

import pytest

from astromesh.dialogue import Sampling, Usage
from astromesh.errors import AgentUnusable, ModelFailureCode
from astromesh.routing.breaker import BreakerRules
from astromesh.routing.eligible import Requirements
from astromesh.routing.strategy import Merits
from astromesh.runtime.assembly import Assembly, Providers
from astromesh.runtime.choices import choices_of, in_vain
from astromesh.runtime.targets import Choice, Spending, Target
from astromesh.runtime.toolmaking import Toolmaker
from astromesh.specs.agent import Agent, Strategy
from astromesh.specs.findings import Caution
from astromesh.specs.orchestration import Orchestration
from astromesh.specs.parse import parse
from astromesh.specs.provider import Provider, ProviderConfig
from astromesh.specs.roles import PLAYED, SUMMARY
from astromesh.specs.runtime import NodeTools

PROVIDERS = """\
apiVersion: astromesh/v1
kind: ProviderConfig
spec:
  providers:
    box:
      type: vllm
      endpoint: "http://box:8000"
      models:
        - {name: big, cost_per_1k_tokens: 0.5, quality_score: 0.9, capabilities: {tools: true, vision: false}}
        - plain
      circuitBreaker: {failureThreshold: 5}
    cloud: {type: openai, api_key: sk-1, models: [gpt]}
"""
ROUTING = (
    "  routing: {default_strategy: quality_first, fallback_enabled: false, circuit_breaker: {recovery_timeout: 9, failure_threshold: 2}}\n"
)


def providers(routing: str = "") -> Providers:
    parsed = parse(PROVIDERS + routing, source="providers.yaml", environment={})
    assert parsed.mistakes == ()
    [config] = parsed.resources
    assert isinstance(config, ProviderConfig)
    return Providers({provider.name: provider for provider in config.providers}, config.spec.routing)


def document(model: str, name: str = "desk") -> Agent:
    head = f"apiVersion: astromesh/v1\nkind: Agent\nmetadata: {{name: {name}}}\nspec:\n  model:\n"
    parsed = parse(head + model, source="desk.yaml", environment={})
    assert [str(mistake) for mistake in parsed.mistakes] == []
    [agent] = parsed.agents
    return agent


WHOLE = """\
    primary: {provider: box, model: big, timeout: 20, context_window: 8192, parameters: {temperature: 0.1}}
    fallback:
      - {provider: local, model: smollm2, requires: {gpu: true}, timeout: 30}
      - {provider: cloud, model: gpt}
    routing: {strategy: latency_optimized}
    roles:
      planner: {candidates: [{provider: cloud, model: gpt}], strategy: cost_optimized}
      critic: {candidates: [{provider: box, model: plain}]}
"""


def test_the_primary_its_fallbacks_and_the_roles_are_in_the_order_of_the_document() -> None:
    choices = choices_of(document(WHOLE), providers())
    default = choices["default"]
    assert [(target.source, target.model, target.place) for target in default.targets] == [
        ("box", "big", "spec.model.primary"),
        ("local", "smollm2", "spec.model.fallback[0]"),
        ("cloud", "gpt", "spec.model.fallback[1]"),
    ]
    assert {role: (choice.strategy, choice.role) for role, choice in choices.items()} == {
        "default": ("latency_optimized", "default"),
        "planner": ("cost_optimized", "planner"),
        "critic": ("latency_optimized", "critic"),
    }
    assert len({choice.name for choice in choices.values()}) == 3
    big, local, gpt = default.targets
    assert (big.timeout_s, big.context_window, big.sampling.temperature) == (20.0, 8192, 0.1)
    assert big.merits == Merits(0.5, 0.9, skills=("tools",), lacks=("vision",))
    assert gpt.merits == Merits()
    assert (local.provider, local.endpoint, local.timeout_s, local.requires) == (None, None, 30.0, Requirements(gpu=True))
    assert local.merits.cost(1000) == 0.0


def test_candidates_stand_behind_the_primary_and_bring_their_strategy() -> None:
    model = "    primary: {provider: local, model: a}\n    default: {candidates: [{provider: local, model: b}], strategy: round_robin}\n"
    default = choices_of(document(model), providers(ROUTING))["default"]
    assert [target.place for target in default.targets] == ["spec.model.primary", "spec.model.default.candidates[0]"]
    assert default.strategy == "round_robin"


def test_the_configuration_says_how_to_choose_where_the_agent_does_not() -> None:
    plain = choices_of(document("    primary: {provider: local, model: a}\n"), providers())["default"]
    assert (plain.strategy, plain.falls_back) == (None, True)
    told = choices_of(document("    primary: {provider: local, model: a}\n"), providers(ROUTING))["default"]
    assert (told.strategy, told.falls_back) == ("quality_first", False)


def test_a_breaker_is_as_its_provider_says_or_else_as_all_are() -> None:
    def rules(provider: str, of: Providers) -> BreakerRules:
        endpoint = of.endpoint_of(of.configured[provider])
        assert endpoint is not None
        return endpoint.breaker.rules

    assert rules("cloud", providers()) == BreakerRules(3, 60.0)
    assert rules("cloud", providers(ROUTING)) == BreakerRules(2, 9.0)
    assert rules("box", providers(ROUTING)) == BreakerRules(5, 9.0)


def test_two_agents_with_two_keys_know_one_server() -> None:
    known = providers()
    ours, theirs = (
        choices_of(document(f"    primary: {{provider: box, model: big, api_key: {key}}}\n", key), known)["default"].first
        for key in ("a", "b")
    )
    assert ours.provider is not theirs.provider
    assert ours.endpoint is theirs.endpoint


def test_a_login_is_no_part_of_which_server_it_is() -> None:
    known = providers()
    model = "    primary: {provider: openai_compat, model: m, endpoint: 'http://ada:secret@box:8000/v1'}\n"
    other = choices_of(document(model), known)["default"].first.endpoint
    assert other is known.endpoint_of(known.configured["box"])
    assert other is not None
    assert "secret" not in other.url


def test_a_renewed_configuration_keeps_what_was_learned_and_takes_the_new_rules() -> None:
    before = providers()
    box = before.endpoint_of(before.configured["box"])
    cloud = before.endpoint_of(before.configured["cloud"])
    assert box is not None
    assert cloud is not None
    for _ in range(2):
        cloud.enter().ended("failure")
    after = providers(ROUTING)
    renewed = before.renewed(after.configured, after.routing)
    assert renewed.endpoint_of(after.configured["cloud"]) is cloud
    assert (cloud.breaker.failures, cloud.breaker.rules) == (2, BreakerRules())  # it may yet be refused
    renewed.settle()
    assert (cloud.breaker.failures, cloud.breaker.rules) == (2, BreakerRules(2, 9.0))


def test_what_is_not_called_yet_is_left_out_where_something_else_is_left() -> None:
    model = "    primary: {provider: anthropic, model: claude}\n    fallback: {provider: local, model: smollm2}\n"
    agent = document(model)
    default = choices_of(agent, providers())["default"]
    assert [target.model for target in default.targets] == ["smollm2"]
    [said] = in_vain(agent, providers())
    assert said.startswith("desk.yaml:6: this version does not call servers of type 'anthropic', so this model is left out")
    told = replace(agent, warnings=(Caution("desk.yaml", 6, 1, "spec.model.primary.provider", "left out"),))
    assert list(in_vain(told, providers())) == []  # it was said already
    with pytest.raises(AgentUnusable) as raised:
        choices_of(document("    primary: {provider: anthropic, model: claude}\n"), providers())
    assert "does not call servers of type 'anthropic'" in raised.value.message
    with pytest.raises(AgentUnusable) as raised:
        choices_of(document("    primary: {provider: local, model: a}\n    fallback: {provider: bxo, model: b}\n"), providers())
    assert raised.value.message.startswith("desk.yaml:7: no provider 'bxo'")


def test_how_often_servers_are_asked_for_their_health_is_the_most_that_an_agent_wants(tmp_path: Path) -> None:
    known = providers()
    box = known.endpoint_of(known.configured["box"])
    assert box is not None
    assembly = Assembly(providers=known, tools=Toolmaker(NodeTools()), defaults=Orchestration(), conversations=tmp_path / "c")
    agents = []
    for every_s in (60, 20, 40):
        model = f"    primary: {{provider: box, model: big}}\n    routing: {{health_check_interval: {every_s}}}\n"
        agent = document(model)
        agents.append(assembly.agent(agent))
        assert list(in_vain(agent, known)) == []
    assert box.checked_every_s is None  # that they could be built is no reason
    wanted = []
    for there in (agents, agents[::2], []):
        assembly.watch(there)
        wanted.append(box.checked_every_s)
    assert wanted == [20.0, 40.0, None]


def test_what_cannot_be_checked_of_a_server_is_said_with_its_line() -> None:
    model = (
        "    primary: {provider: local, model: a}\n"
        "    fallback: {provider: openai_compat, model: b, endpoint: 'http://h', requires: {gpu: true}}\n"
        "    routing: {health_check_interval: 20}\n"
    )
    said = list(in_vain(document(model), providers()))
    assert said == [
        "desk.yaml:7: is checked for models of this mesh alone, and openai_compat is a model server",
        "desk.yaml:8: is for servers of providers.yaml, and openai_compat is none of them",
    ]


def test_a_limit_of_tokens_is_the_smaller_of_two() -> None:
    choice = choices_of(document("    primary: {provider: local, model: a, parameters: {max_tokens: 50, stop: [x]}}\n"), providers())[
        "default"
    ]
    assert choice.at_most(None) is choice
    assert choice.at_most(20).first.sampling.max_tokens == 20
    assert choice.at_most(80).first.sampling.max_tokens == 50
    assert Choice((Target("b"),)).at_most(80).first.sampling.max_tokens == 80
    aside = choice.aside(200).first.sampling
    assert (aside.max_tokens, aside.stop) == (200, ())


def test_a_decision_may_say_the_same_words_again() -> None:
    penalties = Sampling(temperature=0.3, presence_penalty=1.0, frequency_penalty=1.0, repeat_penalty=1.2)
    assert Choice((Target("b", sampling=penalties),)).aside(200).first.sampling == Sampling(temperature=0.3, max_tokens=200)


def test_what_was_spent_is_told_by_provider_model_and_role() -> None:
    spending = Spending()
    for role, tokens in (("default", 10), ("planner", 20), ("default", 30)):
        spending.add(source="box", model="big", role=role, usage=Usage(tokens, 1), cost=0.1)
    assert spending.by_model() == [
        {"provider": "box", "model": "big", "role": "default", "calls": 2, "tokens_in": 40, "tokens_out": 2, "cost": 0.2},
        {"provider": "box", "model": "big", "role": "planner", "calls": 1, "tokens_in": 20, "tokens_out": 1, "cost": 0.1},
    ]


def test_the_documents_of_the_documentation_work_and_strategies_and_codes_have_their_rows() -> None:
    text = (Path(__file__).parents[3] / "docs" / "routing.md").read_text()
    examples = re.findall(r"```yaml\n(.*?)```", text, flags=re.DOTALL)
    parsed = [parse(example, source="routing.md", environment={}) for example in examples]
    assert [(len(one.resources), one.mistakes, one.warnings) for one in parsed] == [(1, (), ())] * 2
    rows = re.findall(r"(?m)^\| (`.*?) \|", text)
    assert [name for name in (*get_args(Strategy), *get_args(ModelFailureCode)) if not any(f"`{name}`" in row for row in rows)] == []
    roles = {role for roles in PLAYED.values() for role in roles} | {SUMMARY}
    assert [role for role in sorted(roles) if f"`{role}`" not in text] == []


class Bottomless(dict[str, Provider]):
    """Providers that fail in a way that nobody foresaw."""

    def get(self, key: str, default: object = None) -> NoReturn:
        raise RecursionError("the key of a server")


def test_an_agent_that_cannot_be_built_for_an_unforeseen_reason_is_unusable_and_stops_nothing(tmp_path: Path) -> None:
    toolmaker = Toolmaker(NodeTools())
    assembly = Assembly(providers=Providers(Bottomless()), tools=toolmaker, defaults=Orchestration(), conversations=tmp_path / "c")
    text = "apiVersion: astromesh/v1\nkind: Agent\nmetadata: {name: a}\nspec: {model: {primary: {provider: openai, model: m}}}\n"
    [agent] = parse(text, source="a.yaml", environment={}).agents
    with pytest.raises(AgentUnusable, match=r"a\.yaml:4: this cannot be read, .*: RecursionError in test_choices\.py:\d+$"):
        assembly.agent(agent)
