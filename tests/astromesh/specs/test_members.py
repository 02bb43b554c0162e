"""Who works for an agent: every spelling, and every mistake with its line."""

from __future__ import annotations

import pytest

from astromesh.specs.members import peers_of, tools_that_are_members, workers_of
from astromesh.specs.orchestration import Peer, Worker
from astromesh.specs.parse import Parsed, parse

MODEL = "  model: {primary: {provider: local, model: m}}\n"
HEAD = f"apiVersion: astromesh/v1\nkind: Agent\nmetadata: {{name: desk}}\nspec:\n{MODEL}  orchestration:\n"


def read(text: str, *, rest: str = "") -> Parsed:
    lines = "".join(f"    {line}\n" for line in text.strip().splitlines())
    return parse(HEAD + lines + rest, source="f.yaml", environment={})


def findings(text: str, *, rest: str = "") -> list[str]:
    parsed = read(text, rest=rest)
    return [str(finding) for finding in (*parsed.mistakes, *parsed.warnings)]


def test_a_worker_may_be_a_name_alone_a_name_for_an_agent_or_a_prompt() -> None:
    [desk] = read(
        "pattern: supervisor\nworkers:\n  - billing\n  - {name: tech}\n  - {name: facts, agent: researcher, description: finds facts}\n"
        "  - {name: sums, prompt: You add.}\n  - {role: planner}",
        rest="",
    ).agents
    assert [(worker.called, worker.agent_named, worker.description) for worker in workers_of(desk.spec)] == [
        ("billing", "billing", None),
        ("tech", "tech", None),
        ("facts", "researcher", "finds facts"),
        ("sums", None, None),
        ("planner", None, None),
    ]


def test_peers_and_stages_may_be_names_alone() -> None:
    [swarm] = read("pattern: swarm\npeers: [billing, {name: it, agent: tech, description: computers}]").agents
    assert [(peer.called, peer.agent_named) for peer in peers_of(swarm.spec)] == [("billing", "billing"), ("it", "tech")]
    [pipeline] = read(
        "pattern: pipeline\nstages: [draft, {name: edit, prompt: Shorten., maxTokens: 5}, {name: check, agent: checker}]"
    ).agents
    assert [(stage.name, stage.prompt, stage.agent) for stage in pipeline.spec.orchestration.stages] == [
        ("draft", None, None),
        ("edit", "Shorten.", None),
        ("check", None, "checker"),
    ]


@pytest.mark.parametrize("pattern", ["supervisor", "swarm"])
def test_tools_that_are_agents_are_members_of_a_supervisor_and_of_a_swarm(pattern: str) -> None:
    facts = "{type: agent, name: facts, agent: researcher, description: finds facts}"
    tools = f"  tools:\n    - {facts}\n    - {{type: builtin, name: datetime_now}}\n"
    parsed = read(f"pattern: {pattern}", rest=tools)
    assert parsed.mistakes == ()
    [desk] = parsed.agents
    expected = {"name": "facts", "agent": "researcher", "description": "finds facts"}
    assert workers_of(desk.spec) == ((Worker(**expected),) if pattern == "supervisor" else ())
    assert peers_of(desk.spec) == ((Peer(**expected),) if pattern == "swarm" else ())
    assert tools_that_are_members(desk.spec) == ("facts",)


@pytest.mark.parametrize("pattern", ["supervisor", "swarm"])
@pytest.mark.parametrize("permissions", ["{denied_actions: [fa*]}", "{allowed_actions: [clock, tech]}"])
def test_a_tool_that_may_not_be_used_is_no_member_either(pattern: str, permissions: str) -> None:
    tools = "  tools: [{type: agent, name: facts, agent: researcher}, {type: agent, agent: tech}]\n"
    parsed = read(f"pattern: {pattern}", rest=f"  permissions: {permissions}\n{tools}")
    [desk] = parsed.agents
    assert [member.called for member in (*workers_of(desk.spec), *peers_of(desk.spec))] == ["tech"]
    assert any("not offered to the model" in caution.message for caution in parsed.warnings)


@pytest.mark.parametrize(
    "text",
    [
        "pattern: supervisor\nworkers: [tech, billing]",
        "pattern: team\nworkers: [tech, {name: billing, agent: money}]",
        "pattern: parallel_fan_out\nworkers: [tech, billing]",
        "pattern: swarm\npeers: [tech, billing]",
        "pattern: pipeline\nstages: [{name: tech, prompt: x}, {name: billing, agent: money}]",
    ],
)
@pytest.mark.parametrize("permissions", ["{denied_actions: [bill*]}", "{allowed_actions: [tech]}"])
def test_a_member_that_may_not_be_asked_is_a_mistake_with_its_line(text: str, permissions: str) -> None:
    [said] = findings(text, rest=f"  permissions: {permissions}\n")
    assert said.startswith("f.yaml:8: spec.orchestration.")
    assert "[1]: this agent may not ask billing: spec.permissions." in said


def test_an_agents_own_model_under_a_prompt_needs_no_permission() -> None:
    assert findings("pattern: team\nworkers: [{name: coder, prompt: x}]", rest="  permissions: {allowed_actions: []}\n") == []


def test_members_of_other_namespaces_are_called_by_their_names() -> None:
    [desk] = read("pattern: supervisor\nworkers: [shop/billing, {name: it, agent: house/tech}]").agents
    assert [(worker.called, worker.agent_named) for worker in workers_of(desk.spec)] == [("billing", "shop/billing"), ("it", "house/tech")]


def test_tools_that_are_agents_are_tools_everywhere_else() -> None:
    [desk] = read("pattern: react", rest="  tools: [{type: agent, name: facts, agent: researcher}]\n").agents
    assert (workers_of(desk.spec), peers_of(desk.spec), tools_that_are_members(desk.spec)) == ((), (), ())


@pytest.mark.parametrize(
    ("text", "said"),
    [
        (
            "pattern: supervisor",
            "f.yaml:7: spec.orchestration.pattern: a supervisor needs workers, and there are none. Add 'workers: [NAME OF",
        ),
        (
            "pattern: swarm",
            "f.yaml:7: spec.orchestration.pattern: a swarm needs peers, and there are none. Add 'peers: [NAME OF AN AGENT, …]'.",
        ),
        (
            "pattern: pipeline",
            "f.yaml:7: spec.orchestration.pattern: a pipeline needs stages, and there are none. Add 'stages: [{name: draft",
        ),
        (
            "pattern: team",
            "f.yaml:7: spec.orchestration.pattern: a team needs workers, and there are none. Add 'workers: [{name: researcher",
        ),
        (
            "pattern: team\nworkers: [{name: writer, prompt: x}]",
            "f.yaml:8: spec.orchestration.workers: the writer comes last, and nobody works",
        ),
        (
            "pattern: swarm\npeers: [a, b, a]",
            "f.yaml:8: spec.orchestration.peers[2]: 'a' is here twice, and they are called by their names.",
        ),
        ("pattern: team\nworkers:\n  - {name: a, prompt: x}\n  - a", "f.yaml:10: spec.orchestration.workers[1]: 'a' is here twice"),
        ("pattern: pipeline\nstages: [a, a]", "f.yaml:8: spec.orchestration.stages[1]: 'a' is here twice"),
        ("pattern: swarm\npeers: [desk]", "f.yaml:8: spec.orchestration.peers[0]: this is the agent itself. Name another one."),
        (
            "pattern: swarm\npeers: [{name: desk, agent: other}]",
            "f.yaml:8: spec.orchestration.peers[0].name: this is the name of the agent",
        ),
        ("pattern: supervisor\nworkers: [{name: x, agent: desk}]", "f.yaml:8: spec.orchestration.workers[0]: this is the agent itself"),
        ("pattern: pipeline\nstages: [{name: x, agent: desk}]", "f.yaml:8: spec.orchestration.stages[0]: this is the agent itself"),
        (
            "pattern: supervisor\nworkers: [{name: Fact Finder}]",
            "f.yaml:8: spec.orchestration.workers[0]: there is neither 'prompt' nor 'role'",
        ),
        (
            "pattern: supervisor\nworkers: [{description: x}]",
            "f.yaml:8: spec.orchestration.workers[0]: this is nobody. Add 'agent: NAME', or",
        ),
        ("pattern: swarm\npeers: [{description: x}]", "f.yaml:8: spec.orchestration.peers[0]: this is nobody. Add 'agent: NAME'."),
        (
            "pattern: swarm\npeers: ['no name']",
            "f.yaml:8: spec.orchestration.peers[0]: this cannot be the name of an agent. Write NAME, or",
        ),
        ("pattern: swarm\npeers: [a/b/c]", "f.yaml:8: spec.orchestration.peers[0]: this cannot be the name of an agent. Write NAME, or"),
        ("pattern: swarm\npeers: [default/desk]", "f.yaml:8: spec.orchestration.peers[0]: this is the agent itself"),
        ("pattern: swarm\npeers: [shop/desk]", "f.yaml:8: spec.orchestration.peers[0].name: this is the name of the agent"),
        ("pattern: pipeline\nstages: [{prompt: x}]", "f.yaml:8: spec.orchestration.stages[0].name: is missing. Add 'name: draft'."),
        ("pattern: parallel_fan_out\nmerge: best", "f.yaml:8: spec.orchestration.merge: expected one of model, vote, concat, found 'best'"),
        (
            "pattern: pipeline\nstages:\n  - name: a\n    prompt: '{% if %}'",
            "f.yaml:10: spec.orchestration.stages[0].prompt: the template cannot",
        ),
        (
            "pattern: team\nworkers: [{name: a, prompt: '{{ x | shuot }}'}]",
            "f.yaml:8: spec.orchestration.workers[0].prompt: the template cannot",
        ),
    ],
)
def test_who_cannot_work_is_a_mistake_with_its_line(text: str, said: str) -> None:
    [finding] = findings(text)
    assert finding.startswith(said)
    assert read(text).agents == ()


@pytest.mark.parametrize(
    ("text", "said"),
    [
        (
            "pattern: react\nworkers: [a]",
            "f.yaml:8: spec.orchestration.workers: is not used by react. Write 'pattern: parallel_fan_out', or",
        ),
        ("stages: [a]", "f.yaml:7: spec.orchestration.stages: is not used by react. Write 'pattern: pipeline', or remove it."),
        (
            "pattern: swarm\npeers: [a]\nmerge: vote",
            "f.yaml:9: spec.orchestration.merge: is not used by swarm. Write 'pattern: parallel_fan",
        ),
        ("pattern: react\nmax_handoffs: 3", "f.yaml:8: spec.orchestration.max_handoffs: is not used by react. Write 'pattern: swarm', or"),
        (
            "pattern: supervisor\nworkers: [{agent: a, max_tokens: 3}]",
            "f.yaml:8: spec.orchestration.workers[0].max_tokens: is not used: agent a has its own. Remove it.",
        ),
        (
            "pattern: pipeline\nstages: [{name: a, role: poet}]",
            "f.yaml:8: spec.orchestration.stages[0].role: spec.model.roles has no such role: the agent's default model is asked.",
        ),
    ],
)
def test_what_a_pattern_does_not_use_is_said(text: str, said: str) -> None:
    [finding] = findings(text)
    assert finding.startswith(said)
    assert len(read(text).agents) == 1


def test_a_role_that_the_document_has_is_fine() -> None:
    model = "  model: {primary: {provider: local, model: m}, roles: {poet: {candidates: [{provider: local, model: n}]}}}\n"
    text = HEAD.replace(MODEL, model) + "    pattern: team\n    workers: [{name: a, role: poet}]\n"
    parsed = parse(text, source="f.yaml", environment={})
    assert (parsed.mistakes, parsed.warnings) == ((), ())


@pytest.mark.parametrize("key", ["workers: [a]", "peers: [a]", "stages: [a]"])
def test_members_for_all_agents_of_a_node_are_not_read_and_said_so(key: str) -> None:
    text = f"apiVersion: astromesh/v1\nkind: RuntimeConfig\nspec:\n  defaults:\n    orchestration:\n      {key}\n"
    [caution] = parse(text, source="f.yaml", environment={}).warnings
    assert str(caution).endswith("is not read here: it belongs into the document of an agent")


def test_a_pattern_that_needs_others_cannot_be_the_default_of_a_node() -> None:
    text = "apiVersion: astromesh/v1\nkind: RuntimeConfig\nspec: {defaults: {orchestration: {pattern: swarm}}}\n"
    [mistake] = parse(text, source="f.yaml", environment={}).mistakes
    assert "has nobody to work with" in mistake.message
    assert parse(text.replace("swarm", "plan_and_execute"), source="f.yaml", environment={}).mistakes == ()


@pytest.mark.parametrize(
    ("rest", "said"),
    [
        (
            "  output_schema: {type: object, properties: {a: {type: txt}}}\n",
            "f.yaml:8: spec.output_schema: no answer could be checked against",
        ),
        ("  output_schema: {score: txt}\n", "f.yaml:8: spec.output_schema: no answer could be checked against this"),
        (
            "  prompts: {system: '{% include \"x\" %}'}\n",
            "f.yaml:8: spec.prompts.system: includes the template 'x', which does not exist. There",
        ),
        (
            "  prompts:\n    templates:\n      a: '{% include \"b\" %}'\n      b: '{% include \"a\" %}'\n      c: '{% include \"a\" %}'\n",
            "f.yaml:10: spec.prompts.templates.a: includes itself, directly or by way of others",
        ),
        (
            "  prompts:\n    templates:\n      a: |\n        x\n        {% if %}\n",
            "f.yaml:12: spec.prompts.templates.a: the template cannot be read",
        ),
    ],
)
def test_schemas_and_templates_that_cannot_be_used_are_mistakes(rest: str, said: str) -> None:
    first, *_ = findings("pattern: react", rest=rest)
    assert first.startswith(said)


def test_templates_that_include_others_are_fine() -> None:
    rest = "  prompts:\n    system: '{% include \"a\" %} {% include which %}'\n    templates: {a: '{% include \"b\" %}', b: x}\n"
    assert findings("pattern: react", rest=rest) == []


def test_a_swarms_schema_is_for_its_own_answers() -> None:
    [caution] = findings("pattern: swarm\npeers: [a]", rest="  output_schema: {score: integer}\n")
    assert "holds for this agent's own answers" in caution
