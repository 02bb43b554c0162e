"""Plan and execute as a conversation: the plan and its mistakes, the waves, what is planned anew, and what is told to the user."""

from __future__ import annotations

from typing import Any

import pytest
from tests.rig.conversation import Conversation
from tests.rig.parts import again, assistant, bounded, part, result, step, system, user, wrote

from astromesh.dialogue import Answer, ModelReply
from astromesh.effects import AskModel, Together, Work
from astromesh.errors import ModelFailed, UnusableReply, WorkFailed
from astromesh.orchestration.decision import Misfit
from astromesh.orchestration.patterns.plan_and_execute import PLANS_MAX, STEPS_MAX, plan_and_execute, read_plan

OPENING = (system(), user("Who is taller?"))

PLAN = """Who is taller?

---
You do not answer yet. Make a plan: at most 4 steps that together bring what the answer needs. Write JSON: "steps" is a list, each \
with "id" (a short name), "task" (what to do, complete in itself), and "after" (the ids of the steps whose results it needs, often none). \
For example: {"steps": [{"id": "facts", "task": "Write down what is known about it.", "after": []}, {"id": "check", "task": "Look for \
mistakes in the facts.", "after": ["facts"]}]}"""
STEP = {
    "type": "object",
    "properties": {"id": bounded(40), "task": bounded(400), "after": {"type": "array", "items": bounded(40), "maxItems": 4}},
    "required": ["id", "task", "after"],
    "additionalProperties": False,
}
SHAPE = {
    "type": "object",
    "properties": {"steps": {"type": "array", "items": STEP, "minItems": 1, "maxItems": 4}},
    "required": ["steps"],
    "additionalProperties": False,
}
FAILURE = ModelFailed("no connection", code="model_connection_refused", hint="start the server")


def talk_of(**keys: Any) -> Conversation[Answer]:
    return Conversation(plan_and_execute(part(pattern="plan_and_execute", **keys), OPENING))


def steps(*said: tuple[str, list[str]]) -> dict[str, Any]:
    return {"steps": [{"id": id_, "task": f"Do {id_}.", "after": after} for id_, after in said]}


def work(id_: str, known: str = "") -> Work:
    text = f"Do {id_}.\n\nIt is a part of the work on this question: Who is taller?"
    if known:
        text += f"\n\nWhat is known already:\n\n{known}"
    return Work((system(), user(text)), role="worker", label=id_)


def done(text: str) -> Answer:
    return Answer(text, by="desk")


def past_notes(talk: Conversation[Answer], number: int) -> None:
    for _ in range(number):
        talk >> None


def test_steps_run_in_waves_and_each_sees_what_it_asked_for_and_no_more() -> None:
    talk = talk_of()
    plan = steps(("ada", []), ("bob", []), ("sum", ["ada", "bob"]), ("note", ["ada"]))
    talk << AskModel((system(), user(PLAN)), role="planner", shape=SHAPE, aside=True, max_tokens=2048)
    talk >> wrote(plan) << step(action="plan", given=plan) >> None
    talk << Together((work("ada"), work("bob"))) >> (done("1.70 m"), done("1.80 m"))
    talk << step(action="step ada", given={"task": "Do ada.", "after": []}, seen="1.70 m") >> None
    talk << step(action="step bob", given={"task": "Do bob.", "after": []}, seen="1.80 m") >> None
    ada, bob = "ada (Do ada.):\n1.70 m", "bob (Do bob.):\n1.80 m"
    talk << Together((work("sum", f"{ada}\n\n{bob}"), work("note", ada))) >> (done("Bob."), done("Noted."))
    past_notes(talk, 2)
    everything = f"{ada}\n\n{bob}\n\nsum (Do sum.):\nBob.\n\nnote (Do note.):\nNoted."
    request = f"Who is taller?\n\n---\nThis was worked out for you:\n\n{everything}\n\nWrite the answer for the user."
    talk << AskModel((system(), user(request)), role="synthesizer") >> ModelReply("Bob is.") << result("Bob is.") >> None
    assert talk.outcome == Answer("Bob is.", by="desk")


@pytest.mark.parametrize(
    ("written", "mistake"),
    [
        ("First I would look at Ada.", "it is not JSON"),
        ('{"steps": []}', 'there are no "steps"'),
        ('{"plan": [1]}', 'there are no "steps"'),
        ('{"steps": ["look"]}', "it is not a JSON object"),
        ('{"steps": [{"id": "", "task": "x"}]}', 'step 1 has no "id" of at most 40 characters'),
        ('{"steps": [{"id": true, "task": "x"}]}', 'step 1 has no "id" of at most 40 characters'),
        ('{"steps": [{"id": "a", "task": ""}]}', 'step 1 has no "task"'),
        ('{"steps": [{"id": "a", "task": "x", "after": "b"}]}', '"after" of step 1 is not a list of ids'),
        ('{"steps": [{"id": "a", "task": "x"}, {"id": "a", "task": "y"}]}', "step 2 has the id of another one"),
        ('{"steps": [{"id": "a", "task": "x", "after": ["zeus"]}]}', 'step 1 has an id in "after" that no step has'),
        ('{"steps": [{"id": "a", "task": "x", "after": ["a"]}]}', "steps 1 wait for each other"),
        (
            '{"steps": [{"id": "c", "task": "z"}, {"id": "a", "task": "x", "after": ["b"]}, {"id": "b", "task": "y", "after": ["a"]}]}',
            "steps 2, 3 wait for each other",
        ),
    ],
)
def test_a_plan_that_is_none_is_asked_for_again_and_then_is_an_error(written: str, mistake: str) -> None:
    talk = talk_of()
    talk >> ModelReply(written)
    talk << AskModel(
        (system(), user(PLAN), assistant(written), again(mistake, SHAPE)), role="planner", shape=SHAPE, aside=True, max_tokens=2048
    )
    with pytest.raises(UnusableReply, match="asked twice for a plan") as raised:
        talk >> ModelReply(written)
    assert raised.value.message.endswith(mistake)


def test_a_thousand_steps_are_too_many_and_do_not_come_back_to_the_model_whole() -> None:
    talk = talk_of()
    talk >> wrote(steps(*((f"s{number}", []) for number in range(1000))))
    assert isinstance(talk.effect, AskModel)
    assert "there are 1000 steps, and 4 are possible" in talk.effect.transcript[-1].content
    assert len(talk.effect.transcript[-2].content) == 4000
    talk >> wrote(steps(("a", []))) >> None << Together((work("a"),))


def test_a_plan_that_was_cut_off_is_called_so() -> None:
    talk = talk_of()
    talk >> ModelReply('{"steps": [{"id": "a", "ta', finish_reason="length")
    assert isinstance(talk.effect, AskModel)
    assert "it was cut off before its end" in talk.effect.transcript[-1].content


def test_numbers_are_ids_too() -> None:
    plan = read_plan({"steps": [{"id": 1, "task": "x"}, {"id": 2, "task": "y", "after": [1]}]}, steps_max=4)
    assert [(step.id, step.after) for step in plan] == [("1", ()), ("2", ("1",))]


def test_a_plan_never_has_more_steps_than_an_agent_of_many_turns_can_do() -> None:
    many = steps(*((f"s{number}", []) for number in range(STEPS_MAX + 1)))
    talk = talk_of(turns=1000)
    talk >> wrote(many)
    assert isinstance(talk.effect, AskModel)
    assert f"{STEPS_MAX} are possible" in talk.effect.transcript[-1].content
    with pytest.raises(Misfit):
        read_plan(many, steps_max=STEPS_MAX)


def test_more_steps_than_go_side_by_side_go_after_each_other() -> None:
    talk = talk_of(turns=10)
    talk >> wrote(steps(*((f"s{number}", []) for number in range(10)))) >> None
    assert isinstance(talk.effect, Together)
    assert len(talk.effect.acts) == 8
    talk >> tuple(done("x") for _ in range(8))
    past_notes(talk, 8)
    talk << Together((work("s8"), work("s9")))


def test_what_is_left_after_a_failure_is_planned_anew_from_what_is_known() -> None:
    talk = talk_of()
    talk >> wrote(steps(("ada", []), ("bob", []), ("sum", ["ada", "bob"]))) >> None
    talk << Together((work("ada"), work("bob"))) >> (done("1.70 m"), FAILURE)
    past_notes(talk, 2)
    assert isinstance(talk.effect, AskModel)
    request = talk.effect.transcript[-1].content
    assert "ada (Do ada.):\n1.70 m\n\nbob (Do bob.):\n(failed: no connection)" in request
    assert "in at most 2 new steps" in request
    anew = steps(("bob", ["ada"]))
    talk >> wrote(anew) << step(action="plan anew", given=anew) >> None
    talk << Together((work("bob", "ada (Do ada.):\n1.70 m"),)) >> (done("1.80 m"),) >> None
    assert isinstance(talk.effect, AskModel)
    assert talk.effect.role == "synthesizer"
    assert "bob (Do bob.):\n1.80 m" in talk.effect.transcript[-1].content


def test_a_step_that_failed_needs_no_second_plan_once_another_took_its_place() -> None:
    talk = talk_of()
    talk >> wrote(steps(("bob", []))) >> None >> (FAILURE,) >> None
    talk >> wrote(steps(("robert", []))) >> None >> (done("1.80 m"),) >> None
    assert isinstance(talk.effect, AskModel)
    assert talk.effect.role == "synthesizer"


def test_what_succeeded_is_not_planned_again() -> None:
    with pytest.raises(Misfit, match="step 1 has the id of another one"):
        read_plan(steps(("ada", [])), steps_max=4, settled=("ada",))
    assert read_plan(steps(("bob", ["ada"])), steps_max=4, settled=("ada",))[0].after == ("ada",)


def test_replanning_ends_and_what_can_still_be_done_is() -> None:
    talk = talk_of(turns=20)
    for number in range(1, PLANS_MAX + 1):
        assert isinstance(talk.effect, AskModel)
        assert talk.effect.role == "planner"
        talk >> wrote(steps((f"a{number}", []), (f"b{number}", []), (f"c{number}", [f"a{number}"]), (f"d{number}", [f"b{number}"]))) >> None
        talk >> (FAILURE, done(f"B{number}"))
        past_notes(talk, 2)
    # The last plan: what needs no failed step is done, what does is not.
    assert isinstance(talk.effect, Together)
    assert [act.label for act in talk.effect.acts if isinstance(act, Work)] == ["d3"]
    talk >> (done("D3"),) >> None
    assert isinstance(talk.effect, AskModel)
    assert talk.effect.role == "synthesizer"
    assert "a3 (Do a3.):\n(failed: no connection)" in talk.effect.transcript[-1].content


def test_a_run_of_which_nothing_succeeded_is_an_error_that_says_how_each_step_failed() -> None:
    talk = talk_of(turns=1)
    talk >> wrote(steps(("ada", []))) >> None
    talk >> (FAILURE,)
    with pytest.raises(WorkFailed, match=r"all parts of the work of agent desk failed: ada: no connection") as raised:
        talk >> None
    assert raised.value.hint == "start the server"
