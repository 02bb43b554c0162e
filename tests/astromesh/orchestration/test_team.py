"""A team as a conversation: the orchestrator picks, specialists see each other in short, the writer gets everything."""

from __future__ import annotations

from typing import Any

import pytest
from tests.rig.conversation import Conversation
from tests.rig.parts import again, assistant, bounded, other, own, part, result, step, system, user, wrote

from astromesh.dialogue import Answer, ModelReply
from astromesh.effects import AskModel, Delegate, Say, Together, Work
from astromesh.errors import AgentUnavailable, ModelFailed, UnusableReply, WorkFailed
from astromesh.orchestration.patterns.team import team
from astromesh.orchestration.plan import Member

OPENING = (system(), user("Explain tea."))
VARIABLES = {"query": "Explain tea.", "agent": "desk"}
RESEARCHER = Member("researcher", description="facts", prompt=own("x", "You know facts.").prompt, role="researcher", max_tokens=4096)
CODER = own("coder", "You write code.")
WRITER = own("writer", "You write well.", max_tokens=8192)
FAILURE = ModelFailed("no connection", code="model_connection_refused", hint="start the server")

PICK = """Explain tea.

---
You do not answer yet. You lead a team; after it, a writer puts everything together. The specialists:
- researcher: facts
- coder
Pick those who are needed, in the order in which they work; each sees in short what those before it found. Write JSON: "plan" is a list of \
at most 2 tasks, each with "member" and "task". It may be empty. For example: {"plan": [{"member": "researcher", "task": "Find out what \
the answer needs."}]}"""
TASK = {
    "type": "object",
    "properties": {"member": {"type": "string", "enum": ["researcher", "coder"]}, "task": bounded(400)},
    "required": ["member", "task"],
    "additionalProperties": False,
}
SHAPE = {
    "type": "object",
    "properties": {"plan": {"type": "array", "items": TASK, "maxItems": 2}},
    "required": ["plan"],
    "additionalProperties": False,
}


def talk_of(*workers: Member, **keys: Any) -> Conversation[Answer]:
    return Conversation(team(part(pattern="team", workers=workers or (RESEARCHER, CODER, WRITER), **keys), OPENING, VARIABLES))


def plan(*tasks: tuple[str, str]) -> dict[str, Any]:
    return {"plan": [{"member": member, "task": task} for member, task in tasks]}


def said(text: str, by: str = "desk") -> Answer:
    return Answer(text, by=by)


def test_specialists_see_600_characters_of_each_other_and_the_writer_sees_everything() -> None:
    talk = talk_of()
    picked = plan(("researcher", "Find facts."), ("coder", "Write code."))
    talk << AskModel((system(), user(PICK)), role="orchestrator", shape=SHAPE, aside=True, max_tokens=2048)
    talk >> wrote(picked) << step(action="plan", given=picked) >> None
    about = "It is a part of the work on this question: Explain tea."
    first = Work((system("You know facts."), user(f"Find facts.\n\n{about}")), role="researcher", label="researcher", max_tokens=4096)
    long = "Tea " * 500
    talk << Together((first,)) >> (said(long),) << step(action="researcher", given={"task": "Find facts."}, seen=long) >> None
    short = f"{long[:599].rstrip()}…"
    assert len(short) <= 600
    text = f"Write code.\n\n{about}\n\nWhat the others found so far, in short:\n\nresearcher:\n{short}"
    talk << Together((Work((system("You write code."), user(text)), role="coder", label="coder"),)) >> (said("print()"),) >> None
    findings = f"researcher:\n{long}\n\ncoder:\nprint()"
    request = f"Explain tea.\n\n---\nYour team worked on this. What it found:\n\n{findings}\n\nWrite the final answer for the user."
    talk << AskModel((system("You write well."), user(request)), role="writer", max_tokens=8192)
    talk >> ModelReply("Tea is hot.") << result("Tea is hot.") >> None
    assert talk.outcome == Answer("Tea is hot.", by="desk")


def test_exactly_600_characters_are_passed_on_whole() -> None:
    talk = talk_of()
    talk >> wrote(plan(("researcher", "a"), ("coder", "b"))) >> None >> (said("x" * 600),) >> None
    assert isinstance(talk.effect, Together)
    [act] = talk.effect.acts
    assert isinstance(act, Work)
    assert act.opening[-1].content.endswith(":\n" + "x" * 600)


def test_one_character_more_is_not() -> None:
    talk = talk_of()
    talk >> wrote(plan(("researcher", "a"), ("coder", "b"))) >> None >> (said("x" * 601),) >> None
    assert isinstance(talk.effect, Together)
    [act] = talk.effect.acts
    assert isinstance(act, Work)
    assert act.opening[-1].content.endswith(":\n" + "x" * 599 + "…")


def test_the_writer_writes_even_where_nobody_else_is_needed() -> None:
    talk = talk_of()
    talk >> wrote(plan()) >> None
    talk << AskModel((system("You write well."), user("Explain tea.")), role="writer", max_tokens=8192)


def test_a_team_without_a_writer_is_written_for_by_the_agent_itself() -> None:
    talk = talk_of(RESEARCHER)
    talk >> wrote(plan(("researcher", "a"))) >> None >> (said("Hot."),) >> None
    assert isinstance(talk.effect, AskModel)
    assert (talk.effect.role, talk.effect.transcript[0]) == ("writer", system())


def test_members_may_be_other_agents_the_writer_too() -> None:
    talk = talk_of(other("facts"), Member("writer", agent="scribe"))
    talk >> wrote(plan(("facts", "a"))) >> None
    (
        talk
        << Together((Delegate("facts", "a\n\nIt is a part of the work on this question: Explain tea."),))
        >> (said("Hot.", by="facts"),)
        >> None
    )
    request = "Explain tea.\n\n---\nYour team worked on this. What it found:\n\nfacts:\nHot.\n\nWrite the final answer for the user."
    talk << Together((Delegate("scribe", request),)) >> (said("Tea.", by="scribe"),)
    talk << Say("Tea.") >> "Tea." << result("Tea.") >> None
    assert talk.outcome == Answer("Tea.", by="desk")


def test_a_writer_that_is_gone_ends_the_run_with_its_own_error() -> None:
    talk = talk_of(RESEARCHER, Member("writer", agent="scribe"))
    talk >> wrote(plan()) >> None
    with pytest.raises(AgentUnavailable):
        talk >> (AgentUnavailable("scribe was on b"),)


def test_a_specialist_that_fails_is_told_to_those_after_it() -> None:
    talk = talk_of()
    talk >> wrote(plan(("researcher", "a"), ("coder", "b"))) >> None >> (FAILURE,) >> None
    assert isinstance(talk.effect, Together)
    [act] = talk.effect.acts
    assert isinstance(act, Work)
    assert act.opening[-1].content.endswith("researcher:\n(failed: no connection)")


def test_a_team_of_which_every_specialist_failed_says_how_each_did() -> None:
    talk = talk_of()
    talk >> wrote(plan(("researcher", "a"), ("coder", "b"))) >> None >> (FAILURE,) >> None >> (FAILURE,)
    with pytest.raises(WorkFailed, match="researcher: no connection; coder: no connection"):
        talk >> None


@pytest.mark.parametrize(
    ("written", "mistake"),
    [
        ("researcher, then coder", "it is not JSON"),
        ('{"plan": "researcher"}', '"plan" is not a list'),
        ('{"plan": [{"member": "writer", "task": "x"}]}', "task 1 names no specialist; there are: researcher, coder"),
        ('{"plan": [{"member": "coder", "task": ""}]}', "task 1 is empty"),
        (wrote(plan(*[("coder", "x")] * 9)).text, "there are 9 tasks, and 2 are possible"),
    ],
)
def test_a_plan_that_is_none_is_asked_for_again_and_then_is_an_error(written: str, mistake: str) -> None:
    talk = talk_of()
    talk >> ModelReply(written)
    talk << AskModel(
        (system(), user(PICK), assistant(written), again(mistake, SHAPE)), role="orchestrator", shape=SHAPE, aside=True, max_tokens=2048
    )
    with pytest.raises(UnusableReply) as raised:
        talk >> ModelReply(written)
    assert raised.value.message.endswith(mistake)
