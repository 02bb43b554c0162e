"""Where a session goes on: at the node that keeps it, whoever is asked; and what is said when that node is gone."""

from __future__ import annotations

from collections.abc import Callable

import pytest
from tests.rig.guarded import guarded
from tests.rig.held_model import AMPLE_S, HeldModel
from tests.rig.mesh_view import member
from tests.rig.ports import free_port
from tests.rig.rooms import Rooms, an_agent, drained
from tests.rig.three import Three, three

from astromesh.dialogue import Message, ToolCall
from astromesh.errors import AgentPaused, AgentUnavailable, AstromeshError, NothingRemembered, SessionHomeUnreachable, UnknownAgent
from astromesh.fleet.offers import OfferedAgent
from astromesh.memory.port import Conversation, History, Summary, Turn
from astromesh.providers.backends.scripted import Scripted
from astromesh.runtime.agent import Agent
from astromesh.runtime.engine import Run
from astromesh.runtime.histories import HISTORY
from maia.config import Address


def remembering(rooms: Rooms, model: Scripted | HeldModel) -> Agent:
    return an_agent(provider=model, memory=rooms.memory)


def everywhere(nodes: Three, make: Callable[[Rooms, Scripted], Agent], *, on: str = "abc") -> dict[str, Scripted]:
    """The agent `desk` on these nodes, each with a model of its own that says who it is."""
    models = {name: Scripted([f"From {name}."] * 99) for name in on}
    for name, model in models.items():
        nodes.nodes[name].hosts(make(nodes.nodes[name], model))
    nodes.meet()
    return models


async def failure_of(run: Run) -> AstromeshError:
    _, failure = await drained(run.events)
    await run.close()
    assert failure is not None, "the run went well"
    return failure


async def test_a_fresh_session_goes_on_at_the_node_that_began_it_whoever_is_asked() -> None:
    async with three() as nodes:
        models = everywhere(nodes, remembering)
        first = await nodes.b.ask("I am Ada.")
        assert (first["home"], first["session_id"].endswith("-b-000000")) == ("b", True)
        for rooms in (nodes.a, nodes.c, nodes.b):
            again = await rooms.ask("Who am I?", session_id=first["session_id"])
            assert (again["home"], again["session_id"]) == ("b", first["session_id"])
        assert [len(asked.transcript) for asked in models["b"].asked] == [1, 3, 5, 7]
        assert models["a"].asked == models["c"].asked == []


async def test_a_session_that_a_node_without_the_agent_was_asked_for_first_names_its_host() -> None:
    async with three() as nodes:
        everywhere(nodes, remembering, on="bc")
        first = await nodes.a.ask("I am Ada.")
        assert first["session_id"].endswith(f"-{first['home']}-000000")
        assert (await nodes.a.ask("Who am I?", session_id=first["session_id"]))["home"] == first["home"]


async def test_an_id_of_the_callers_own_goes_to_the_same_node_whoever_is_asked_and_different_ones_spread() -> None:
    async with three() as nodes:
        everywhere(nodes, remembering)
        homes = {}
        for session in (f"customer {number}" for number in range(8)):
            answered = {(await rooms.ask(session_id=session))["home"] for rooms in (nodes.a, nodes.b, nodes.c)}
            assert len(answered) == 1
            homes[session] = answered.pop()
        assert len(set(homes.values())) > 1, homes


async def test_an_id_of_the_callers_own_is_conducted_by_a_host_also_where_a_node_without_the_agent_is_asked() -> None:
    async with three() as nodes:
        everywhere(nodes, remembering, on="bc")
        for session in ("one", "two", "three", "four"):
            homes = {(await rooms.ask(session_id=session))["home"] for rooms in (nodes.a, nodes.b, nodes.c)}
            assert len(homes) == 1
            assert homes <= {"b", "c"}


@pytest.mark.parametrize("session", ["customer 7", "0" * 32 + "-b-000000", "0" * 32 + "-gone-123456"])
async def test_an_agent_that_keeps_nothing_answers_where_it_is_asked_whatever_the_session(session: str) -> None:
    async with three() as nodes:
        everywhere(nodes, lambda rooms, model: an_agent(provider=model))
        for name, rooms in nodes.nodes.items():
            assert (await rooms.ask(session_id=session))["home"] == name


async def test_an_agent_with_a_limit_for_sessions_keeps_them_too() -> None:
    async with three() as nodes:
        limit = [{"type": "cost_limit", "max_tokens_per_session": 1, "message": "Enough."}]
        everywhere(nodes, lambda rooms, model: guarded(an_agent(provider=model), output=limit))
        first = await nodes.b.ask()
        again = await nodes.a.ask(session_id=first["session_id"])
        assert (again["home"], again["answer"], again["blocked"]) == ("b", "Enough.", True)


async def test_a_history_of_the_callers_own_is_nobodys() -> None:
    async with three() as nodes:
        everywhere(nodes, remembering)
        assert (await nodes.a.ask(session_id="0" * 32 + "-b-000000", history=()))["home"] == "a"


@pytest.mark.parametrize("hosts", ["abc", "bc", "b"])
async def test_a_session_whose_home_is_dead_is_refused_by_everybody_and_says_who_keeps_it(hosts: str) -> None:
    async with three() as nodes:
        everywhere(nodes, remembering, on=hosts)
        session = (await nodes.b.ask("I am Ada."))["session_id"]
        nodes.meet(dead="b")
        for rooms in (nodes.a, nodes.c):
            with pytest.raises(SessionHomeUnreachable, match="kept by b: it is dead") as raised:
                rooms.start(session_id=session)
            assert "leaving session_id out" in raised.value.hint


async def test_a_session_whose_home_is_unknown_is_refused() -> None:
    async with three() as nodes:
        everywhere(nodes, remembering)
        with pytest.raises(SessionHomeUnreachable, match="kept by gone-123456: this node knows nobody of that name"):
            nodes.a.start(session_id="0" * 32 + "-gone-123456")


async def test_a_session_whose_home_does_not_answer_is_refused_and_not_begun_elsewhere() -> None:
    async with three() as nodes:
        models = everywhere(nodes, remembering, on="ac")
        nodes.a.sees(
            member("b-000000", agents=[OfferedAgent("desk", keeps=True)], link=Address("127.0.0.1", free_port())),
            member("c-000000", agents=[OfferedAgent("desk", keeps=True)], link=nodes.at["c"]),
        )
        failure = await failure_of(nodes.a.start(session_id="0" * 32 + "-b-000000"))
        assert isinstance(failure, SessionHomeUnreachable)
        assert "kept by b: b cannot be reached" in failure.message
        assert models["a"].asked == models["c"].asked == []


async def test_a_home_that_lost_the_agent_says_so() -> None:
    async with three() as nodes:
        everywhere(nodes, remembering)
        session = (await nodes.b.ask("I am Ada."))["session_id"]
        del nodes.b.runtime.agents["desk"]
        nodes.meet()
        with pytest.raises(SessionHomeUnreachable, match="agent desk is not on it any more"):
            nodes.b.start(session_id=session)
        failure = await failure_of(nodes.a.start(session_id=session))
        assert isinstance(failure, SessionHomeUnreachable)
        assert "agent desk is not on it any more" in failure.message


async def test_a_home_where_the_agent_rests_says_that_and_not_that_the_mesh_will_know_more() -> None:
    async with three() as nodes:
        everywhere(nodes, remembering)
        session = (await nodes.b.ask("I am Ada."))["session_id"]
        nodes.b.runtime.paused["desk"] = nodes.b.runtime.agents.pop("desk")
        failure = await failure_of(nodes.a.start(session_id=session))
        assert isinstance(failure, AgentPaused)
        assert "paused on b" in failure.message


async def test_when_a_host_dies_the_other_sessions_of_callers_stay_where_they_are() -> None:
    async with three() as nodes:
        everywhere(nodes, remembering)
        sessions = [f"customer {number}" for number in range(12)]
        before = {session: (await nodes.a.ask(session_id=session))["home"] for session in sessions}
        nodes.meet(dead="c")
        after = {session: (await nodes.a.ask(session_id=session))["home"] for session in sessions}
        assert "c" not in after.values()
        assert all(after[session] == home for session, home in before.items() if home != "c")


async def test_a_node_alone_goes_on_with_every_session() -> None:
    rooms = Rooms("a")
    model = Scripted(["Hello, Ada.", "You are Ada.", "Who knows."])
    rooms.hosts(remembering(rooms, model))
    first = await rooms.ask("I am Ada.")
    await rooms.ask("Who am I?", session_id=first["session_id"])
    await rooms.ask("Who am I?", session_id="0" * 32 + "-b-000000")
    assert [len(asked.transcript) for asked in model.asked] == [1, 3, 1]


# Histories.


async def test_a_history_is_shown_and_forgotten_by_its_home_whoever_is_asked() -> None:
    async with three() as nodes:
        everywhere(nodes, remembering)
        session = (await nodes.b.ask("I am Ada."))["session_id"]
        await nodes.a.ask("Who am I?", session_id=session)
        for rooms in (nodes.a, nodes.b, nodes.c):
            shown = await rooms.runtime.histories.recall("desk", session)
            assert [[message.content for message in turn.said] for turn in shown.turns] == [
                ["I am Ada.", "From b."],
                ["Who am I?", "From b."],
            ]
            assert len((await rooms.runtime.histories.recall("desk", session, turns_max=1)).turns) == 1
        assert await nodes.c.runtime.histories.forget("desk", session) == 2
        assert (await nodes.b.runtime.histories.recall("desk", session)).turns == ()


async def test_a_history_is_asked_for_where_the_agent_is_also_where_it_is_paused_or_remembers_nothing() -> None:
    async with three() as nodes:
        everywhere(nodes, remembering, on="b")
        nodes.b.hosts(an_agent("mute"))
        nodes.meet()
        await nodes.a.ask("I am Ada.", session_id="customer 7")
        with pytest.raises(NothingRemembered):
            await nodes.a.runtime.histories.recall("mute", "customer 7")
        nodes.b.runtime.paused = {"desk": nodes.b.runtime.agents.pop("desk")}
        at_b = member("b-000000", agents=[OfferedAgent("desk", status="paused", keeps=True)], link=nodes.at["b"])
        nodes.a.sees(at_b)
        (turn,) = (await nodes.a.runtime.histories.recall("desk", "customer 7")).turns
        assert turn.said[0].content == "I am Ada."
        assert await nodes.a.runtime.histories.forget("desk", "customer 7") == 1


async def test_a_history_with_its_summary_and_its_calls_of_tools_crosses_whole() -> None:
    async with three() as nodes:
        everywhere(nodes, remembering)
        session = "0" * 32 + "-b-000000"
        conversation = Conversation("desk", session)
        calls = (ToolCall("c1", "look", '{"at": "it"}'),)
        said = (
            Message("user", "Look."),
            Message("assistant", "", calls),
            Message("tool", "red", tool_call_id="c1"),
            Message("assistant", "Red."),
        )
        await nodes.b.memory.remember(conversation, Turn("t1", 12.5, said))
        await nodes.b.memory.summarise(conversation, Summary("It is red.", through="t1"))
        assert await nodes.a.runtime.histories.recall("desk", session) == History((Turn("t1", 12.5, said),), Summary("It is red.", "t1"))


async def test_a_history_whose_home_is_gone_is_refused_and_one_of_an_agent_without_memory_says_so() -> None:
    async with three() as nodes:
        everywhere(nodes, remembering)
        nodes.meet(dead="b")
        with pytest.raises(SessionHomeUnreachable, match="kept by b"):
            await nodes.a.runtime.histories.recall("desk", "0" * 32 + "-b-000000")
        nodes.meet()
        await nodes.closing["b"].aclose()
        with pytest.raises(SessionHomeUnreachable, match="b cannot be reached"):
            await nodes.a.runtime.histories.forget("desk", "0" * 32 + "-b-000000")
        nodes.a.hosts(an_agent("mute"))
        with pytest.raises(NothingRemembered):
            await nodes.a.runtime.histories.recall("mute", "0" * 32 + "-b-000000")
        with pytest.raises(UnknownAgent):
            await nodes.a.runtime.histories.recall("nobody", "s")


@pytest.mark.parametrize(
    "body", [{}, {"agent": "desk"}, {"agent": 7, "session_id": "s"}, {"agent": "desk", "session_id": "s", "turns_max": "x"}]
)
async def test_a_question_about_a_history_that_is_none_is_answered(body: dict[str, object]) -> None:
    async with three() as nodes:
        everywhere(nodes, remembering)
        (peer,) = (one for one in nodes.a.roster.hosting("desk") if one.name == "b-000000")
        with pytest.raises(AgentUnavailable, match="b does not understand"):
            await nodes.a.peers.ask_once(peer, HISTORY, body, dict, timeout_s=AMPLE_S)
