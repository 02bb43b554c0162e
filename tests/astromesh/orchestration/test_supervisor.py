"""A supervisor as a conversation: it decides, delegates side by side, judges, and writes the answer itself."""

from __future__ import annotations

from typing import Any

import pytest
from tests.rig.conversation import Conversation
from tests.rig.parts import again, assistant, bounded, other, own, part, result, step, system, user, wrote

from astromesh.dialogue import Answer, ModelReply, Transcript
from astromesh.effects import AskModel, Delegate, Together, Work
from astromesh.errors import AgentUnavailable, UnusableReply
from astromesh.orchestration.patterns.supervisor import supervisor
from astromesh.orchestration.plan import Part

OPENING = (system(), user("Who is taller?"))
VARIABLES = {"query": "Who is taller?", "agent": "desk"}

REQUEST = """Who is taller?

---
You do not answer yet. You give tasks to workers, read what they bring, and conclude when it is enough:
- facts: finds facts
- sums
Write JSON: "delegations" is a list of up to 4 tasks that do not need each other, each with "worker" and "task"; none concludes. A \
worker knows nothing but its task, so say in it all that matters. For example: \
{"delegations":[{"worker":"facts","task":"Who is taller?"},{"worker":"sums","task":"Who is taller?"}]}"""
AGAIN = """
---
Decide again. Write JSON: "judgement", what the work so far is worth, in one sentence, and "delegations", more tasks, or none to \
conclude."""
DELEGATION = {
    "type": "object",
    "properties": {"worker": {"type": "string", "enum": ["facts", "sums"]}, "task": bounded(400)},
    "required": ["worker", "task"],
    "additionalProperties": False,
}
DELEGATIONS = {"type": "array", "items": DELEGATION, "maxItems": 4}
FIRST_SHAPE = {"type": "object", "properties": {"delegations": DELEGATIONS}, "required": ["delegations"], "additionalProperties": False}
SHAPE = {
    "type": "object",
    "properties": {"judgement": bounded(200), "delegations": DELEGATIONS},
    "required": ["judgement", "delegations"],
    "additionalProperties": False,
}
WORK = "---\nYour workers brought this:\n\n{work}\n\nWrite the answer for the user."
CONCLUDE = wrote({"judgement": "Enough.", "delegations": []})


def desk(**keys: Any) -> Part:
    return part(pattern="supervisor", workers=(other("facts", "finds facts"), own("sums", "You add. {{ task }}", max_tokens=99)), **keys)


def talk_of(**keys: Any) -> Conversation[Answer]:
    return Conversation(supervisor(desk(**keys), OPENING, VARIABLES))


def deciding(transcript: Transcript, shape: dict[str, Any] = FIRST_SHAPE) -> AskModel:
    return AskModel(transcript, role="supervisor", shape=shape, aside=True, max_tokens=2048)


def delegate(*orders: tuple[str, str], judgement: str = "Nothing yet.") -> ModelReply:
    delegations = [{"worker": worker, "task": task} for worker, task in orders]
    return wrote({"judgement": judgement, "delegations": delegations})


def test_independent_tasks_go_out_side_by_side_and_their_answers_come_back_for_judgement() -> None:
    talk = talk_of()
    both = delegate(("facts", "How tall is Ada?"), ("sums", "1 + 1"))
    talk << deciding((system(), user(REQUEST))) >> both
    talk << Together(
        (
            Delegate("facts", "How tall is Ada?"),
            Work((system("You add. 1 + 1"), user("1 + 1")), role="sums", label="sums", max_tokens=99),
        )
    )
    talk >> (Answer("1.70 m", by="facts"), Answer("2", by="desk"))
    talk << step("Nothing yet.", action="delegate", given={"worker": "facts", "task": "How tall is Ada?"}, seen="1.70 m") >> None
    talk << step("Nothing yet.", action="delegate", given={"worker": "sums", "task": "1 + 1"}, seen="2") >> None
    brought = "facts, asked: How tall is Ada?\n1.70 m\n\nsums, asked: 1 + 1\n2"
    talk << deciding((system(), user(REQUEST), assistant(both.text), user(f"{brought}{AGAIN}")), SHAPE)
    talk >> CONCLUDE << step("Enough.", action="conclude") >> None
    final = (system(), user(f"Who is taller?\n\n{WORK.format(work=brought)}"))
    talk << AskModel(final, role="supervisor") >> ModelReply("Ada.") << result("Ada.") >> None
    assert talk.outcome == Answer("Ada.", by="desk")


def test_a_supervisor_that_never_concludes_is_made_to_with_what_it_has() -> None:
    talk = talk_of(turns=2)
    for more in ("", "!"):
        assert isinstance(talk.effect, AskModel)
        assert talk.effect.aside
        talk >> delegate(("facts", f"Again{more}")) >> (Answer("1.70 m", by="facts"),) >> None
    talk << step("2 decisions are as many as it has: it concludes", action="conclude") >> None
    assert isinstance(talk.effect, AskModel)
    assert not talk.effect.aside
    work = "facts, asked: Again\n1.70 m\n\nfacts, asked: Again!\n1.70 m"
    assert talk.effect.transcript[-1] == user(f"Who is taller?\n\n{WORK.format(work=work)}")
    talk >> ModelReply("Ada.") >> None
    assert talk.outcome.text == "Ada."


def test_what_was_brought_is_not_asked_for_again_and_who_asks_for_nothing_else_concludes() -> None:
    talk = talk_of()
    talk >> delegate(("facts", "How tall?"), ("facts", "How tall?"))
    talk << Together((Delegate("facts", "How tall?"),)) >> (Answer("1.70 m", by="facts"),) >> None
    talk >> delegate(("facts", "How tall?"), ("facts", "How heavy?"))
    talk << Together((Delegate("facts", "How heavy?"),)) >> (AgentUnavailable("facts was on b, which is dead"),) >> None
    talk >> delegate(("facts", "How heavy?"))  # it failed, so it may be tried again
    talk << Together((Delegate("facts", "How heavy?"),)) >> (Answer("70 kg", by="facts"),) >> None
    talk >> delegate(("facts", "How heavy?"), ("facts", "How tall?"))
    talk << step("it asks for what it was brought already: it concludes", action="conclude") >> None
    assert isinstance(talk.effect, AskModel)
    assert not talk.effect.aside


def test_a_worker_that_fails_is_told_to_the_supervisor_who_goes_on() -> None:
    talk = talk_of()
    talk >> delegate(("facts", "How tall?")) >> (AgentUnavailable("facts was on b, which is dead"),)
    talk << step(
        "Nothing yet.", action="delegate", given={"worker": "facts", "task": "How tall?"}, seen="(failed: facts was on b, which is dead)"
    )
    talk >> None
    assert isinstance(talk.effect, AskModel)
    assert "(failed: facts was on b, which is dead)" in talk.effect.transcript[-1].content


@pytest.mark.parametrize(
    ("written", "mistake"),
    [
        ("I think facts should look.", "it is not JSON"),
        ("[]", "it is not a JSON object"),
        ('{"judgement": "Enough."}', '"delegations" is not a list'),
        ('{"delegations": "facts"}', '"delegations" is not a list'),
        ('{"delegations": ["facts"]}', "it is not a JSON object"),
        ('{"delegations": [{"worker": "ada", "task": "x"}]}', "delegation 1 names no worker; there are: facts, sums"),
        ('{"delegations": [{"worker": "facts", "task": " "}]}', "delegation 1 has no task"),
        (delegate(*[("facts", "x")] * 9).text, "it delegates 9 tasks at once, and 4 are possible"),
    ],
)
def test_a_decision_that_is_none_is_asked_for_again_and_then_is_an_error(written: str, mistake: str) -> None:
    talk = talk_of()
    talk >> ModelReply(written)
    talk << deciding((system(), user(REQUEST), assistant(written), again(mistake, FIRST_SHAPE)))
    with pytest.raises(UnusableReply) as raised:
        talk >> ModelReply(written)
    assert raised.value.message.endswith(mistake)
    assert "spec.model.roles.supervisor" in raised.value.hint


def test_what_was_misunderstood_once_is_no_part_of_the_work() -> None:
    talk = talk_of()
    talk >> ModelReply("no") >> CONCLUDE << step("Enough.", action="conclude") >> None
    assert isinstance(talk.effect, AskModel)
    assert (talk.effect.transcript, talk.effect.aside) == (OPENING, False)


def test_a_fence_around_the_json_is_read_over() -> None:
    talk = talk_of()
    talk >> ModelReply(f"Sure!\n```json\n{CONCLUDE.text}\n```") << step("Enough.", action="conclude")
