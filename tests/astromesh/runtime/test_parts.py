"""From a document to the part that its scripts see."""

from __future__ import annotations

import pytest

from astromesh.dialogue import ToolSchema
from astromesh.errors import PromptUnrenderable
from astromesh.orchestration.plan import Member, Part
from astromesh.runtime.parts import part_of
from astromesh.specs.orchestration import Orchestration
from astromesh.specs.parse import parse

HEAD = "apiVersion: astromesh/v1\nkind: Agent\nmetadata: {name: desk}\nspec:\n"
MODEL = "  model: {primary: {provider: local, model: m}}\n"
CLOCK = ToolSchema("clock", "What time it is.", {})
FACTS = ToolSchema("facts", "Asks facts.", {})


def part(
    spec: str, *, head: str = HEAD, model: str = MODEL, defaults: Orchestration | None = None, tools: tuple[ToolSchema, ...] = ()
) -> Part:
    parsed = parse(head + model + spec, source="f.yaml", environment={})
    assert [str(mistake) for mistake in parsed.mistakes] == []
    [document] = parsed.agents
    return part_of(document, document.limits(defaults), tools=tools, screened=False)


def shown(member: Member, **variables: object) -> tuple[str | None, str | None, str]:
    return member.agent, member.prompt.render(variables) if member.prompt is not None else None, member.role


def test_an_agent_that_says_little_reacts_and_decides_as_its_model_can() -> None:
    plain = part("")
    assert (plain.agent, plain.pattern, plain.turns, plain.merge, plain.hand_offs_max, plain.decides) == (
        "desk",
        "react",
        10,
        "model",
        5,
        "shape",
    )
    assert (plain.output, plain.remembers, plain.workers, plain.peers, plain.stages) == (None, False, (), (), ())
    assert part("", model="  model: {primary: {provider: openai, model: m}}\n").decides == "tools"


def test_what_the_node_says_counts_where_the_document_says_nothing() -> None:
    defaults = Orchestration(pattern="parallel_fan_out", merge="vote", max_handoffs=2, max_iterations=3)
    usual = part("", defaults=defaults)
    assert (usual.pattern, usual.merge, usual.hand_offs_max, usual.turns) == ("parallel_fan_out", "vote", 2, 3)
    own = part("  orchestration: {pattern: react, max_handoffs: 0}\n", defaults=defaults)
    assert (own.pattern, own.hand_offs_max) == ("react", 0)


@pytest.mark.parametrize(
    "spec",
    [
        "  orchestration: {pattern: supervisor, workers: [tech, default/tech2, house/billing]}\n",
        "  orchestration: {pattern: swarm, peers: [tech, default/tech2, house/billing]}\n",
        "  orchestration:\n    pattern: pipeline\n    stages:\n"
        + "".join(f"      - {{name: {agent[-5:]}, agent: {agent}}}\n" for agent in ("tech", "default/tech2", "house/billing")),
        "  orchestration: {pattern: swarm}\n  tools:\n"
        + "".join(f"    - {{type: agent, agent: {agent}}}\n" for agent in ("tech", "default/tech2", "house/billing")),
    ],
)
def test_a_plain_name_is_an_agent_of_the_own_namespace_and_others_are_named_with_theirs(spec: str) -> None:
    shop = part(spec, head=HEAD.replace("{name: desk}", "{name: desk, namespace: shop}"))
    assert [member.agent for member in (*shop.workers, *shop.peers, *shop.stages)] == ["shop/tech", "tech2", "house/billing"]
    assert shop.key == "shop/desk"


def test_workers_play_the_role_of_their_name_unless_they_say_another() -> None:
    team = part(
        "  orchestration:\n    pattern: team\n    workers:\n"
        "      - {name: coder, prompt: 'You code {{ language }}.', max_tokens: 9, description: code}\n"
        "      - {name: writer, prompt: You write., role: poet}\n      - researcher\n"
    )
    assert [shown(worker, language="C") for worker in team.workers] == [
        (None, "You code C.", "coder"),
        (None, "You write.", "poet"),
        ("researcher", None, "researcher"),
    ]
    assert (team.workers[0].max_tokens, team.workers[0].description) == (9, "code")


def test_a_stage_takes_the_template_of_its_name_where_it_has_no_prompt() -> None:
    pipeline = part(
        "  prompts: {templates: {draft: 'Draft {{ input }}', stage_check: Check., greeting: Hi.}}\n"
        "  orchestration:\n    pattern: pipeline\n"
        "    stages: [draft, check, {name: edit, prompt: '{% include \"greeting\" %}'}, plain, {name: x, agent: y}]\n"
    )
    assert [shown(stage, input="tea") for stage in pipeline.stages] == [
        (None, "Draft tea", "stage:draft"),
        (None, "Check.", "stage:check"),
        (None, "Hi.", "stage:edit"),
        (None, None, "stage:plain"),
        ("y", None, "stage:x"),
    ]


@pytest.mark.parametrize("pattern", ["supervisor", "swarm"])
def test_an_agent_that_is_a_worker_or_a_peer_is_no_tool(pattern: str) -> None:
    made = part(
        f"  orchestration: {{pattern: {pattern}}}\n  tools: [{{type: agent, name: facts, agent: researcher}}]\n", tools=(CLOCK, FACTS)
    )
    assert made.tools == (CLOCK,)
    assert [(one.name, one.agent) for one in (*made.workers, *made.peers)] == [("facts", "researcher")]


def test_an_output_schema_may_be_written_in_short() -> None:
    output = part("  output_schema: {score: {type: integer}}\n").output
    assert output is not None
    assert output.complaints({"score": 1}) == ()
    assert output.complaints({"score": "high"}) != ()


def test_the_system_prompt_may_include_templates_and_one_that_fails_says_where() -> None:
    made = part("  prompts: {system: '{% include \"who\" %} Be brief.', templates: {who: 'You are {{ agent }}.'}}\n")
    assert made.system.render({"agent": "desk"}) == "You are desk. Be brief."
    with pytest.raises(PromptUnrenderable, match=r"f\.yaml:6: spec\.prompts\.system: cannot be rendered"):
        part("  prompts: {system: '{{ 1 / 0 }}'}\n").system.render({})
