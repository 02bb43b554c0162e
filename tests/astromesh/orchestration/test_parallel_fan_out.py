"""Fan-out as a conversation: who is asked side by side, and what becomes of what they bring."""

from __future__ import annotations

from typing import Any

import pytest
from tests.rig.conversation import Conversation
from tests.rig.parts import assistant, bounded, other, own, part, result, step, system, user, wrote

from astromesh.dialogue import Answer, ModelReply
from astromesh.effects import AskModel, Delegate, Say, Together, Work
from astromesh.errors import AgentUnavailable, ModelFailed, UnusableReply, WorkFailed
from astromesh.orchestration.patterns.parallel_fan_out import elected, parallel_fan_out
from astromesh.orchestration.plan import Member

OPENING = (system(), user("Hi."), assistant("Yes?"), user("Capital of Peru?"))
VARIABLES = {"query": "Capital of Peru?", "agent": "desk"}
THREE = (own("small"), own("large", "You know maps."), other("atlas"))
FAILURE = ModelFailed("no connection", code="model_connection_refused", hint="start the server")


def talk_of(*workers: Member, **keys: Any) -> Conversation[Answer]:
    return Conversation(parallel_fan_out(part(pattern="parallel_fan_out", workers=workers, **keys), OPENING, VARIABLES))


def said(text: str, by: str = "desk") -> Answer:
    return Answer(text, by=by)


def past_notes(talk: Conversation[Answer], number: int = 3) -> Conversation[Answer]:
    for _ in range(number):
        talk >> None
    return talk


def test_models_prompts_and_agents_are_asked_the_same_side_by_side_and_one_answer_is_made_of_theirs() -> None:
    talk = talk_of(*THREE)
    talk << Together(
        (
            Work(OPENING, role="small", label="small"),
            Work((system("You know maps."), *OPENING[1:]), role="large", label="large"),
            Delegate("atlas", "Capital of Peru?"),
        )
    )
    talk >> (said("Lima."), said("Lima, of course."), AgentUnavailable("atlas was on b"))
    given = {"task": "Capital of Peru?"}
    talk << step(action="small", given=given, seen="Lima.") >> None
    talk << step(action="large", given=given, seen="Lima, of course.") >> None
    talk << step(action="atlas", given=given, seen="(failed: atlas was on b)") >> None
    findings = "small:\nLima.\n\nlarge:\nLima, of course.\n\natlas:\n(failed: atlas was on b)"
    request = f"Capital of Peru?\n\n---\nThis was found out for you:\n\n{findings}\n\nMake one answer for the user out of it."
    talk << AskModel((*OPENING[:-1], user(request)), role="synthesizer") >> ModelReply("Lima.") << result("Lima.") >> None
    assert talk.outcome == Answer("Lima.", by="desk")


def test_a_vote_is_said_as_its_first_voter_did_and_no_model_is_asked() -> None:
    talk = talk_of(*THREE, merge="vote")
    past_notes(talk >> (said("Quito"), said("**Lima**."), said("lima", by="atlas")))
    talk << Say("**Lima**.") >> "**Lima**." << result("**Lima**.") >> None
    assert talk.outcome == Answer("**Lima**.", by="desk")


def test_who_failed_has_no_vote() -> None:
    talk = talk_of(*THREE, merge="vote")
    past_notes(talk >> (FAILURE, FAILURE, said("Lima"))) << Say("Lima")


@pytest.mark.parametrize(
    ("texts", "winner"),
    [
        (["A", "B", "b"], "B"),
        (["A", "B"], "A"),
        (["B", "A", "a ", "b."], "B"),
        (["It  is\nLima.", "it is lima", "Quito"], "It  is\nLima."),
        (["STRASSE", "straße", "Weg"], "STRASSE"),
    ],
)
def test_most_votes_win_and_of_equally_many_the_first(texts: list[str], winner: str) -> None:
    assert elected(texts) == winner


def test_concat_is_all_of_it_under_names_in_the_order_of_the_document() -> None:
    talk = talk_of(*THREE, merge="concat")
    past_notes(talk >> (said("Lima."), FAILURE, said("Lima!")))
    talk << Say("small:\nLima.\n\nlarge:\n(failed: no connection)\n\natlas:\nLima!")


@pytest.mark.parametrize("merge", ["model", "vote", "concat"])
def test_a_fan_out_of_which_every_branch_failed_says_how_each_did(merge: str) -> None:
    talk = talk_of(*THREE, merge=merge)
    talk >> (FAILURE, FAILURE, AgentUnavailable("atlas was on b"))
    past_notes(talk, 2)
    with pytest.raises(WorkFailed) as raised:
        talk >> None
    assert raised.value.message == (
        "all parts of the work of agent desk failed: small: no connection; large: no connection; atlas: atlas was on b"
    )
    assert raised.value.hint == "start the server"


def test_without_workers_the_model_splits_the_question() -> None:
    talk = talk_of()
    assert isinstance(talk.effect, AskModel)
    assert (talk.effect.role, talk.effect.aside, talk.effect.max_tokens) == ("planner", True, 2048)
    assert talk.effect.shape == {
        "type": "object",
        "properties": {"tasks": {"type": "array", "items": bounded(400), "minItems": 1, "maxItems": 8}},
        "required": ["tasks"],
        "additionalProperties": False,
    }
    assert talk.effect.transcript[:3] == OPENING[:3]
    assert talk.effect.transcript[-1].content.startswith("Capital of Peru?\n\n---\nYou do not answer yet. Split this into 2 to 8 tasks")
    talk >> wrote({"tasks": ["Look.", "Think. "]}) << step(action="split", given={"tasks": ["Look.", "Think."]}) >> None
    talk << Together(
        (
            Work((system(), user("Look.")), role="worker", label="task 1"),
            Work((system(), user("Think.")), role="worker", label="task 2"),
        )
    )


@pytest.mark.parametrize(
    ("written", "mistake"),
    [
        ("Look, then think.", "it is not JSON"),
        ('{"tasks": []}', '"tasks" is not a list of texts'),
        ('{"tasks": ["a", 1]}', '"tasks" is not a list of texts'),
        ('{"tasks": ["a", " "]}', '"tasks" is not a list of texts'),
        (wrote({"tasks": ["x"] * 9}).text, "there are 9 tasks, and 8 are possible"),
    ],
)
def test_a_split_that_is_none_is_asked_for_again_and_then_is_an_error(written: str, mistake: str) -> None:
    talk = talk_of()
    talk >> ModelReply(written)
    with pytest.raises(UnusableReply) as raised:
        talk >> ModelReply(written)
    assert raised.value.message.endswith(mistake)


def test_more_branches_than_go_side_by_side_go_after_each_other() -> None:
    talk = talk_of(*(own(f"w{number}") for number in range(10)), merge="vote")
    talk >> tuple(said("a") for _ in range(8))
    assert isinstance(talk.effect, Together)
    assert len(talk.effect.acts) == 2
