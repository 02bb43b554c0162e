"""Two nodes over real links on loopback: what one has, the other's callers get, word by word, or learn why not."""

from __future__ import annotations

import asyncio
import inspect
import math
from collections.abc import AsyncIterator, Mapping
from contextlib import AsyncExitStack, aclosing, asynccontextmanager
from dataclasses import replace
from typing import Any

import pytest
from tests.rig.held_model import AMPLE_S, HeldModel
from tests.rig.mesh_view import member
from tests.rig.ports import free_port
from tests.rig.rooms import MODEL, Rooms, all_events, an_agent, drained

from astromesh import errors
from astromesh.dialogue import Message, ModelReply, ModelRequest, Sampling, TextDelta, ToolCall, ToolCallDelta, ToolSchema, Usage
from astromesh.errors import (
    AgentUnavailable,
    AstromeshError,
    DeadlineExceeded,
    MalformedBody,
    ModelFailed,
    ModelRefused,
    ModelUnavailable,
    Overloaded,
    PeerLost,
)
from astromesh.providers.backends.scripted import Scripted
from astromesh.runtime.models import Routed
from astromesh.runtime.peers import COMPLETE
from maia.config import Address
from maia.drivers.link import IncomingCall
from maia.drivers.switchboard import Switchboard
from maia.links.greeting import Greeting

REQUEST = ModelRequest(MODEL, (Message("user", "Hello"),))


class Pair:
    """`a` is asked, `b` has what is asked for."""

    def __init__(self) -> None:
        self.a = Rooms("a", linked=True)
        self.b = Rooms("b", linked=True)
        self.closing_b = AsyncExitStack()

    def offers(self, *models: str, agents: tuple[str, ...] = ()) -> None:
        self.a.sees(member("b-000000", models=models, agents=agents, link=self.b_at))

    b_at: Address


@asynccontextmanager
async def pair() -> AsyncIterator[Pair]:
    two = Pair()
    async with two.closing_b, two.a.open_door():
        two.b_at = await two.closing_b.enter_async_context(two.b.open_door())
        two.offers(MODEL, agents=("desk",))
        yield two


async def until_idle(two: Pair) -> None:
    """Until no call is under way between the two."""
    assert two.b.peers.board is not None
    async with asyncio.timeout(AMPLE_S):
        while two.b.peers.board.stats().in_flight_in:
            await asyncio.sleep(0.001)


# Models.


async def test_words_come_through_as_the_other_nodes_model_makes_them() -> None:
    async with pair() as two:
        model = HeldModel("One ", "two ", "three")
        two.b.has(model)
        async with asyncio.timeout(AMPLE_S), aclosing(two.a.models.complete(REQUEST, timeout_s=AMPLE_S)) as stream:
            model.let()
            assert await anext(stream) == Routed("b", "peer", 1)
            assert await anext(stream) == TextDelta("One ")
            assert model.said == 1  # the first is here, and the second has not been made
            model.let()
            assert await anext(stream) == TextDelta("two ")
            assert model.said == 2
            model.let(2)
            assert [event async for event in stream] == [
                TextDelta("three"),
                ModelReply("One two three", usage=Usage(1, 3), model=MODEL),
            ]
        await until_idle(two)
        assert (model.open, model.finished) == (0, 1)


async def test_the_whole_request_and_the_whole_reply_cross_the_link() -> None:
    request = ModelRequest(
        MODEL,
        (Message("system", "Be brief."), Message("assistant", "", (ToolCall("c0", "f", "{}"),)), Message("tool", "7", tool_call_id="c0")),
        (ToolSchema("f", "Does it.", {"type": "object"}),),
        tool_choice={"type": "function", "function": {"name": "f"}},
        sampling=Sampling(temperature=0.5, stop=("END",)),
        response_format={"type": "json_object"},
        stream=False,
    )
    reply = ModelReply("Done. ", (ToolCall("c1", "f", '{"n": 1}'),), "tool_calls", Usage(5, 2, 1), "smollm2", {"decode_tok_s": 41.5})
    async with pair() as two:
        model = Scripted([reply])
        two.b.has(model)
        events = [event async for event in two.a.models.complete(request, timeout_s=AMPLE_S)]
        assert model.asked == [request]
        assert events[1:] == [TextDelta("Done. "), ToolCallDelta(0, "c1", "f", '{"n": 1}'), reply]


async def test_leaving_at_one_node_closes_the_models_stream_on_the_other() -> None:
    async with pair() as two:
        model = HeldModel("One ", "two")
        two.b.has(model)
        model.let()
        async with aclosing(two.a.models.complete(REQUEST, timeout_s=AMPLE_S)) as stream:
            assert await anext(stream) == Routed("b", "peer", 1)
            assert model.open == 1
        await model.was_released()
        assert model.finished == 0


async def test_a_caller_that_is_cancelled_before_the_first_word_closes_it_too() -> None:
    async with pair() as two:
        model = HeldModel("never")
        two.b.has(model)
        asking = asyncio.create_task(drained(two.a.models.complete(REQUEST, timeout_s=AMPLE_S)))
        await model.was_begun()
        asking.cancel()
        with pytest.raises(asyncio.CancelledError):
            await asking
        await model.was_released()


def every_error() -> list[AstromeshError]:
    known: dict[str, Any] = {"code": "model_timeout", "definite": True, "retry_after_s": 7, "param": "tools", "details": {"steps": []}}
    kinds = [kind for kind in vars(errors).values() if inspect.isclass(kind) and issubclass(kind, AstromeshError)]
    kinds.remove(MalformedBody)  # of what one node wrote to another: that stays between the two
    made = []
    for kind in kinds:
        wanted = inspect.signature(kind.__init__).parameters
        made.append(kind(f"why {kind.__name__}", hint="what next", **{key: value for key, value in known.items() if key in wanted}))
    return [*made, ModelFailed("no", code="model_connection_refused", hint="start it", definite=False)]


async def test_every_error_of_the_other_node_arrives_as_what_it_was() -> None:
    async with pair() as two:
        for error in every_error():
            two.b.has(Scripted([error]))
            _, arrived = await drained(two.a.models.complete(REQUEST, timeout_s=AMPLE_S))
            assert arrived is not None
            assert (type(arrived), arrived.code, arrived.message, arrived.hint) == (type(error), error.code, error.message, error.hint)
            assert (arrived.definite, getattr(arrived, "retry_after_s", None)) == (error.definite, getattr(error, "retry_after_s", None))


async def test_a_failure_in_mid_stream_arrives_after_the_words_before_it() -> None:
    async with pair() as two:
        model = HeldModel("Half ", failure=ModelFailed("the worker died", code="model_provider_unavailable"))
        model.let_all()
        two.b.has(model)
        seen, failure = await drained(two.a.models.complete(REQUEST, timeout_s=AMPLE_S))
        assert seen == [Routed("b", "peer", 1), TextDelta("Half ")]
        assert isinstance(failure, ModelFailed)
        assert failure.message == "the worker died"


async def test_a_node_that_is_gone_makes_the_model_unavailable() -> None:
    async with pair() as two:
        two.b.has(Scripted([]))
        await two.closing_b.aclose()
        _, failure = await drained(two.a.models.complete(REQUEST, timeout_s=AMPLE_S))
        assert isinstance(failure, ModelUnavailable)
        assert failure.definite
        assert "b cannot be reached" in failure.message
        assert failure.hint


async def test_a_node_that_goes_away_in_mid_stream_is_lost_and_nobody_else_is_asked() -> None:
    async with pair() as two:
        model = HeldModel("One ", "two")
        two.b.has(model)
        model.let()
        async with aclosing(two.a.models.complete(REQUEST, timeout_s=AMPLE_S)) as stream:
            assert await anext(stream) == Routed("b", "peer", 1)
            assert await anext(stream) == TextDelta("One ")
            await two.closing_b.aclose()
            with pytest.raises(PeerLost, match="b went away in the middle"):
                await anext(stream)
        assert model.open == 0


async def test_a_model_that_was_just_unloaded_there_is_refused_and_does_not_come_back_here() -> None:
    async with pair() as two:
        two.b.sees(member("a-000000", models=[MODEL]))  # b knows somebody else who has it, and does not ask them
        _, failure = await drained(two.a.models.complete(REQUEST, timeout_s=AMPLE_S))
        assert isinstance(failure, ModelUnavailable)
        assert "not on b any more" in failure.message


async def test_a_peer_that_refuses_leads_to_the_next_one() -> None:
    async with pair() as two, AsyncExitStack() as stack:
        c = Rooms("c", linked=True)
        c_at = await stack.enter_async_context(c.open_door())
        two.b.has(Scripted([Overloaded("busy")]))
        c.has(Scripted(["From c."]))
        two.a.sees(
            member("b-000000", models=[MODEL], link=two.b_at),
            member("c-000000", models=[MODEL], link=c_at),
            member("aa-00000", models=[MODEL], link=Address("127.0.0.1", free_port())),
        )
        seen, failure = await drained(two.a.models.complete(REQUEST, timeout_s=AMPLE_S))
        assert failure is None
        assert seen[0] == Routed("c", "peer", 3)


async def test_a_peer_that_could_not_be_called_is_asked_last_until_the_mesh_hears_from_it() -> None:
    async with pair() as two:
        two.b.has(Scripted(["Yes.", "Still.", "Again."]))
        b, gone = (
            member(name, models=[MODEL], link=at) for name, at in (("b-000000", two.b_at), ("aa-00000", Address("127.0.0.1", free_port())))
        )
        attempts = []
        for heard_s in (0.0, 0.0, math.inf):
            two.a.sees(b, replace(gone, heard_s=heard_s))
            (routed, *_), failure = await drained(two.a.models.complete(REQUEST, timeout_s=AMPLE_S))
            assert failure is None
            attempts.append(routed)
        assert attempts == [Routed("b", "peer", 2), Routed("b", "peer", 1), Routed("b", "peer", 2)]


async def test_a_peer_that_broke_its_link_in_mid_stream_is_asked_last() -> None:
    async with pair() as two, AsyncExitStack() as stack:
        c = Rooms("c", linked=True)
        c.has(Scripted(["From c."]))
        c_at = await stack.enter_async_context(c.open_door())
        two.a.sees(member("b-000000", models=[MODEL], link=two.b_at), member("c-000000", models=[MODEL], link=c_at))
        model = HeldModel("One ", "two")
        two.b.has(model)
        model.let()
        async with aclosing(two.a.models.complete(REQUEST, timeout_s=AMPLE_S)) as stream:
            assert await anext(stream) == Routed("b", "peer", 1)
            await two.closing_b.aclose()
            _, lost = await drained(stream)
            assert isinstance(lost, PeerLost)
        seen, failure = await drained(two.a.models.complete(REQUEST, timeout_s=AMPLE_S))
        assert (seen[0], failure) == (Routed("c", "peer", 1), None)


async def test_a_call_past_its_time_ends_here_and_there() -> None:
    async with pair() as two:
        model = HeldModel("never")
        two.b.has(model)
        _, failure = await drained(two.a.models.complete(REQUEST, timeout_s=0.1))
        assert isinstance(failure, DeadlineExceeded)
        assert "timeout_seconds" in failure.hint
        await model.was_released()


async def test_a_callers_mistake_stays_one_and_is_not_tried_elsewhere() -> None:
    async with pair() as two:
        two.b.has(Scripted([ModelRefused("8 tokens are the limit", hint="say less")]))
        _, failure = await drained(two.a.models.complete(REQUEST, timeout_s=AMPLE_S))
        assert isinstance(failure, ModelRefused)


async def test_a_mistake_of_the_other_nodes_own_stays_in_its_log(caplog: pytest.LogCaptureFixture) -> None:
    class Broken(Scripted):
        async def complete(self, request, *, timeout_s):  # type: ignore[no-untyped-def]
            raise ZeroDivisionError("/home/secret")
            yield

    async with pair() as two:
        two.b.has(Broken([]))
        _, failure = await drained(two.a.models.complete(REQUEST, timeout_s=AMPLE_S))
    assert type(failure) is AstromeshError
    assert not failure.definite
    assert "secret" not in failure.message + failure.hint
    assert "ZeroDivisionError" in caplog.text


@pytest.mark.parametrize("said", [{"t": 7}, {}, {"reply": {"text": "half"}}, {"call": [1]}])
async def test_a_peer_that_speaks_nonsense_is_itself_to_blame(said: Mapping[str, Any]) -> None:
    async def nonsense(_: IncomingCall) -> AsyncIterator[Mapping[str, Any]]:
        yield said

    a = Rooms("a", linked=True)
    async with a.open_door(), Switchboard(me=Greeting("b-000000", "id-b"), handlers={COMPLETE: nonsense}) as board:
        a.sees(member("b-000000", models=[MODEL], link=Address("127.0.0.1", await board.serve("127.0.0.1", 0))))
        _, failure = await drained(a.models.complete(REQUEST, timeout_s=AMPLE_S))
    assert isinstance(failure, PeerLost)
    assert "b cannot be understood" in failure.message
    assert "same version" in failure.hint


async def test_a_peer_that_cannot_read_our_request_certainly_did_nothing() -> None:
    async with pair() as two:
        two.b.has(Scripted([MalformedBody("not a model request", hint="do both nodes run the same version?"), "From b."]))
        _, failure = await drained(two.a.models.complete(REQUEST, timeout_s=AMPLE_S))
        assert isinstance(failure, ModelUnavailable)
        assert failure.definite
        assert "same version" in failure.hint


async def test_a_peer_without_a_link_and_a_node_without_a_mesh_reach_nobody() -> None:
    async with pair() as two:
        two.a.sees(member("b-000000", models=[MODEL]))
        _, failure = await drained(two.a.models.complete(REQUEST, timeout_s=AMPLE_S))
        assert isinstance(failure, ModelUnavailable)
        two.offers(MODEL)
        two.a.peers.board = None
        _, failure = await drained(two.a.models.complete(REQUEST, timeout_s=AMPLE_S))
        assert isinstance(failure, ModelUnavailable)


async def test_a_request_too_large_for_a_link_is_refused_and_not_a_mistake_of_the_nodes() -> None:
    async with pair() as two:
        two.b.has(Scripted(["No."]))
        huge = ModelRequest(MODEL, (Message("user", "x" * 40_000_000),))
        _, failure = await drained(two.a.models.complete(huge, timeout_s=AMPLE_S))
        assert failure is not None
        assert failure.definite


async def test_calls_that_were_served_are_counted_by_how_they_ended() -> None:
    async with pair() as two:
        two.b.has(Scripted(["Yes.", Overloaded("busy")]))
        await drained(two.a.models.complete(REQUEST, timeout_s=AMPLE_S))
        await drained(two.a.models.complete(REQUEST, timeout_s=AMPLE_S))
        await until_idle(two)

        def counted(outcome: str) -> float | None:
            labels = {"kind": "model.complete", "outcome": outcome}
            return two.b.metrics.registry.get_sample_value("astromesh_peer_calls_served_total", labels)

        assert (counted("ok"), counted("overloaded")) == (1, 1)


# Runs.


async def test_a_run_of_an_agent_that_another_node_hosts_is_conducted_there_and_told_here() -> None:
    async with pair() as two:
        model = HeldModel("Good ", "day.")
        two.b.hosts(an_agent(provider=model))
        run = two.a.start("Hello", session_id="s1")
        model.let()
        seen = []
        async with asyncio.timeout(AMPLE_S):
            async for event in run.events:
                seen.append((event.position, event.kind))
                if event.kind == "token" and model.said == 1:
                    assert not model.finished
                    model.let(2)
                if event.kind == "done":
                    assert (event.data["answer"], event.data["session_id"]) == ("Good day.", "s1")
                    assert (event.data["node"], event.data["home"]) == ("b", "b")
        await run.close()
        assert seen == [(0, "route"), (1, "token"), (2, "token"), (3, "usage"), (4, "step"), (5, "done")]


async def test_a_run_there_may_ask_the_model_here_and_that_is_the_last_hop() -> None:
    async with pair() as two:
        assert two.a.peers.board is not None
        a_at = Address("127.0.0.1", await two.a.peers.board.serve("127.0.0.1", 0))
        two.b.sees(member("a-000000", title="a", models=[MODEL], link=a_at))
        two.a.has(Scripted(["Made by a."]))
        two.b.hosts(an_agent(provider=None))
        done = await two.a.ask("Hello")
        assert (done["answer"], done["node"], done["home"], done["route"]) == ("Made by a.", "a", "b", "peer")


async def test_closing_a_run_here_cancels_it_there() -> None:
    async with pair() as two:
        model = HeldModel("never")
        two.b.hosts(an_agent(provider=model))
        run = two.a.start()
        await model.was_begun()
        await run.close()
        await model.was_released()
        async with asyncio.timeout(AMPLE_S):
            while two.b.runtime.active_runs:
                await asyncio.sleep(0.001)


async def test_a_run_that_fails_there_fails_here_with_the_same_error_and_what_was_done() -> None:
    async with pair() as two:
        two.b.hosts(an_agent(provider=HeldModel("never"), timeout_s=0.05))
        run = two.a.start()
        _, failure = await drained(run.events)
        await run.close()
        assert isinstance(failure, DeadlineExceeded)
        assert failure.details is not None
        assert failure.details["agent"] == "desk"


async def test_a_host_that_cannot_be_reached_leads_to_the_next_host() -> None:
    async with pair() as two:
        two.b.hosts(an_agent(provider=Scripted(["From b."])))
        nobody = Address("127.0.0.1", free_port())
        two.a.sees(member("aa-00000", agents=["desk"], link=nobody), member("b-000000", agents=["desk"], link=two.b_at))
        assert (await two.a.ask("Hello"))["answer"] == "From b."


async def test_a_host_that_could_not_be_called_is_asked_last_until_the_mesh_hears_from_it() -> None:
    async with pair() as two, AsyncExitStack() as stack:
        two.b.hosts(an_agent(provider=Scripted(["From b.", "From b again."])))
        b, back = (
            member("b-000000", agents=["desk"], link=two.b_at),
            member("aa-000000", agents=["desk"], link=Address("127.0.0.1", free_port())),
        )
        two.a.sees(back, b)
        assert (await two.a.ask("Hello"))["answer"] == "From b."
        aa = Rooms("aa", linked=True)
        aa.hosts(an_agent(provider=Scripted(["From aa."])))
        assert await stack.enter_async_context(aa.open_door(back.link.port if back.link else 0)) == back.link
        assert (await two.a.ask("Hello"))["answer"] == "From b again."
        two.a.sees(replace(back, heard_s=math.inf), b)
        assert (await two.a.ask("Hello"))["answer"] == "From aa."


@pytest.mark.parametrize(
    ("words", "failure"),
    [
        pytest.param((), ModelFailed("it broke off", code="model_provider_unavailable", definite=False), id="may have happened"),
        pytest.param(("Half ",), ModelFailed("no room", code="model_provider_unavailable", definite=True), id="has begun"),
    ],
)
async def test_a_run_that_may_have_happened_or_has_begun_is_not_begun_again_elsewhere(words: tuple[str, ...], failure: ModelFailed) -> None:
    async with pair() as two, AsyncExitStack() as stack:
        c = Rooms("c", linked=True)
        c_at = await stack.enter_async_context(c.open_door())
        second, first = Scripted(["No."]), HeldModel(*words, failure=failure)
        first.let_all()
        two.b.hosts(an_agent(provider=first))
        c.hosts(an_agent(provider=second))
        two.a.sees(member("b-000000", agents=["desk"], link=two.b_at), member("c-000000", agents=["desk"], link=c_at))
        run = two.a.start()
        _, arrived = await drained(run.events)
        await run.close()
        assert arrived is not None
        assert arrived.message == failure.message
        assert second.asked == []


async def test_when_no_host_can_be_reached_the_agent_is_unavailable() -> None:
    async with pair() as two:
        await two.closing_b.aclose()
        run = two.a.start()
        _, failure = await drained(run.events)
        await run.close()
        assert isinstance(failure, AgentUnavailable)


async def test_a_host_that_drains_refuses_for_certain_and_one_that_goes_away_is_lost() -> None:
    async with pair() as two:
        model = HeldModel("never")
        two.b.hosts(an_agent(provider=model))
        under_way = two.a.start()
        await model.was_begun()
        closing = asyncio.create_task(two.b.runtime.drain(grace_s=0))
        _, failure = await drained(under_way.events)
        await closing
        assert failure is not None
        assert failure.code == "run_cancelled"
        refused = two.a.start(request_id="r2")
        _, failure = await drained(refused.events)
        assert failure is not None
        assert (failure.code, failure.definite) == ("draining", True)


async def test_a_session_goes_on_at_its_host_whoever_is_asked() -> None:
    async with pair() as two:
        model = Scripted(["Hello, Ada.", "You are Ada."])
        two.b.hosts(an_agent(provider=model, memory=two.b.memory))
        first = await two.a.ask("I am Ada.")
        await two.b.ask("Who am I?", session_id=first["session_id"])
        assert len(model.asked[1].transcript) == 3


async def test_a_peers_event_that_is_none_is_the_peers_fault() -> None:
    async def nonsense(_: IncomingCall) -> AsyncIterator[Mapping[str, Any]]:
        yield {"position": 0, "kind": 7, "data": {}}

    a = Rooms("a", linked=True)
    async with a.open_door(), Switchboard(me=Greeting("b-000000", "id-b"), handlers={"agent.run": nonsense}) as board:
        a.sees(member("b-000000", agents=["desk"], link=Address("127.0.0.1", await board.serve("127.0.0.1", 0))))
        run = a.start()
        _, failure = await drained(run.events)
        await run.close()
    assert isinstance(failure, PeerLost)


async def test_a_run_that_a_peer_ends_without_a_result_is_the_peers_fault() -> None:
    async def silence(_: IncomingCall) -> AsyncIterator[Mapping[str, Any]]:
        yield {"position": 0, "kind": "token", "data": {"content": "Half", "index": 0}}

    a = Rooms("a", linked=True)
    async with a.open_door(), Switchboard(me=Greeting("b-000000", "id-b"), handlers={"agent.run": silence}) as board:
        a.sees(member("b-000000", agents=["desk"], link=Address("127.0.0.1", await board.serve("127.0.0.1", 0))))
        run = a.start()
        _, failure = await drained(run.events)
        await run.close()
    assert isinstance(failure, PeerLost)
    assert "b ended the run" in failure.message


async def test_a_run_elsewhere_has_the_id_that_it_was_asked_for_under_and_its_trace_there() -> None:
    async with pair() as two:
        two.b.hosts(an_agent(provider=Scripted(["Yes."])))
        done = (await all_events(two.a.start(request_id="r7")))[-1].data
        assert done["trace"]["trace_id"] == "r7"
        assert two.b.traces.get("r7") is not None
        # Who reads it again, or ends it, does so at the node that was asked: that one knows who waits for it.
        assert (two.a.runtime.recent.knows("r7"), two.b.runtime.recent.knows("r7")) == (True, False)


async def test_all_events_of_a_run_elsewhere_are_numbered_by_the_node_that_is_asked() -> None:
    async with pair() as two:
        two.b.hosts(an_agent(provider=Scripted(["One two three."])))
        positions = [event.position for event in await all_events(two.a.start())]
        assert positions == list(range(len(positions)))
