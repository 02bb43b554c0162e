"""What an agent names and nobody in the mesh has is said of it, as long as that is so."""

from __future__ import annotations

from dataclasses import replace

from tests.rig.held_model import HeldModel
from tests.rig.mesh_view import member
from tests.rig.rooms import MODEL, Rooms, an_agent

from astromesh.dialogue import ToolSchema
from astromesh.orchestration.plan import Member
from astromesh.providers.backends.scripted import Scripted
from astromesh.runtime.agent import Agent
from astromesh.runtime.agent_tools import TASK, AgentTool

GONE = "nobody in the mesh has it at the moment"


def leading(*workers: str) -> Agent:
    lead = an_agent("lead", tools=[AgentTool(ToolSchema("ask", "", TASK), "asked")])
    return replace(lead, part=replace(lead.part, workers=tuple(Member(name, name) for name in workers)))


def test_members_tools_and_models_that_are_nowhere_are_named_and_those_that_are_somewhere_not() -> None:
    rooms = Rooms()
    rooms.hosts(an_agent("here", provider=Scripted([])))
    rooms.sees(member("b-000000", agents=["there"]))
    assert rooms.runtime.absences(leading("here", "there", "gone")) == (
        f"agent gone: {GONE}",
        f"agent asked: {GONE}",
        f"model {MODEL}: {GONE}",
    )


def test_what_comes_is_missed_no_more_and_what_dies_is_missed_again() -> None:
    rooms = Rooms()
    rooms.sees(member("b-000000", agents=["asked"], models=[MODEL]))
    assert rooms.runtime.absences(leading()) == ()
    rooms.sees(member("b-000000", agents=["asked"], models=[MODEL], status="dead"))
    assert rooms.runtime.absences(leading()) == (f"agent asked: {GONE}", f"model {MODEL}: {GONE}")


def test_a_model_that_is_here_and_cannot_answer_now_and_one_of_a_server_are_not_missed() -> None:
    rooms = Rooms()
    rooms.has(HeldModel(), ready=False)
    assert rooms.runtime.absences(an_agent()) == ()
    assert Rooms().runtime.absences(an_agent(provider=Scripted([]))) == ()
