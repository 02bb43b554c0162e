"""Who completes a transcript, who is tried next, and what is said when nobody does it."""

from __future__ import annotations

from collections.abc import AsyncGenerator
from contextlib import aclosing
from dataclasses import replace

import pytest
from tests.rig.held_model import HeldModel
from tests.rig.mesh_view import member
from tests.rig.rooms import MODEL, Rooms, drained

from astromesh.dialogue import Message, ModelEvent, ModelReply, ModelRequest, TextDelta, Usage
from astromesh.errors import AstromeshError, ModelFailed, ModelRefused, ModelUnavailable, Overloaded, PeerLost
from astromesh.fleet.devices import Devices, Gpu
from astromesh.fleet.offers import OfferedProvider
from astromesh.providers.backends.scripted import Scripted
from astromesh.providers.port import ModelProvider
from astromesh.routing.eligible import Requirements
from astromesh.runtime.models import LocalModel, Routed
from astromesh.runtime.targets import Choice, Target

REQUEST = ModelRequest(MODEL, (Message("user", "Hello"),))
B, C = member("b-000002", models=[MODEL]), member("c-000003", models=[MODEL])

DEFINITE = ModelFailed("no connection", code="model_connection_refused", definite=True)
INDEFINITE = ModelFailed("it broke off", code="model_provider_unavailable", definite=False)


class Silent:
    """A stream that ends without a word."""

    async def complete(self, request: ModelRequest, *, timeout_s: float) -> AsyncGenerator[ModelEvent, None]:
        for event in ():
            yield event

    async def close(self) -> None:
        """Nothing is open."""


async def completed(rooms: Rooms, *, provider: ModelProvider | None = None, forwarded: bool = False) -> list[Routed | ModelEvent]:
    choice = None if provider is None else Choice((Target(MODEL, provider=provider),))
    return [event async for event in rooms.models.complete(REQUEST, timeout_s=60, choice=choice, forwarded=forwarded)]


async def verdict(rooms: Rooms, *, forwarded: bool = False) -> AstromeshError:
    with pytest.raises(AstromeshError) as raised:
        await completed(rooms, forwarded=forwarded)
    return raised.value


def mesh(**models: ModelProvider) -> Rooms:
    """`here` answers itself, `b` and `c` are living peers that offer the model."""
    rooms = Rooms()
    if (mine := models.pop("here", None)) is not None:
        rooms.has(mine)
    members = {"b": B, "c": C}
    rooms.sees(*(members[name] for name in models))
    rooms.neighbours.models = {members[name].name: model for name, model in models.items()}
    return rooms


async def test_what_is_here_is_done_here_and_the_first_word_is_who_does_it() -> None:
    peer = Scripted(["From b."])
    events = await completed(mesh(here=Scripted(["From here."]), b=peer))
    assert events == [
        Routed("here", "local", 1),
        TextDelta("From "),
        TextDelta("here."),
        ModelReply("From here.", usage=Usage(1, 2), model=MODEL),
    ]
    assert peer.asked == []


async def test_what_only_a_peer_has_is_done_by_the_peer_under_the_name_that_people_know() -> None:
    assert (await completed(mesh(b=Scripted(["Yes."]))))[0] == Routed("b", "peer", 1)


async def test_an_endpoint_of_its_own_is_asked_and_no_other() -> None:
    rooms = mesh(here=Scripted(["No."]), b=Scripted(["No."]))
    own = Scripted(["Mine.", DEFINITE])
    assert (await completed(rooms, provider=own))[-1] == ModelReply("Mine.", usage=Usage(1, 1), model=MODEL)
    with pytest.raises(ModelFailed) as raised:
        await completed(rooms, provider=own)
    assert raised.value is DEFINITE


@pytest.mark.parametrize("failure", [DEFINITE, Overloaded("busy"), ModelUnavailable("loading")], ids=lambda failure: failure.code)
async def test_a_definite_failure_before_the_first_piece_leads_to_the_next_candidate(failure: AstromeshError) -> None:
    events = await completed(mesh(here=Scripted([failure]), b=Scripted([failure]), c=Scripted(["Third."])))
    assert events[0] == Routed("c", "peer", 3)
    assert events[-1] == ModelReply("Third.", usage=Usage(1, 1), model=MODEL)


async def test_after_the_first_piece_there_is_no_second_try() -> None:
    second = Scripted(["No."])
    first = HeldModel("Half ", failure=DEFINITE)
    first.let_all()
    rooms = mesh(here=first, b=second)
    seen, failure = await drained(rooms.models.complete(REQUEST, timeout_s=60))
    assert failure is DEFINITE
    assert seen == [Routed("here", "local", 1), TextDelta("Half ")]
    assert second.asked == []


@pytest.mark.parametrize("failure", [INDEFINITE, PeerLost("gone in the middle")], ids=lambda failure: failure.code)
async def test_what_may_have_happened_and_was_not_seen_is_asked_of_the_next_one_since_completions_change_nothing(
    failure: AstromeshError,
) -> None:
    assert (await completed(mesh(here=Scripted([failure]), b=Scripted(["Yes."]))))[0] == Routed("b", "peer", 2)


async def test_what_the_caller_got_wrong_is_not_tried_again() -> None:
    second = Scripted(["No."])
    wrong = ModelRefused("8 tokens are the limit")
    assert await verdict(mesh(here=Scripted([wrong]), b=second)) is wrong
    assert second.asked == []


async def test_a_stream_that_ends_without_a_reply_is_a_failure_and_the_next_one_is_asked() -> None:
    assert (await completed(mesh(here=Silent(), b=Scripted(["Yes."]))))[0] == Routed("b", "peer", 2)
    error = await verdict(mesh(here=Silent()))
    assert (type(error), error.code) == (ModelFailed, "model_provider_unavailable")


async def test_a_stream_that_says_something_and_ends_without_a_reply_is_a_failure() -> None:
    class Breathless(Silent):
        async def complete(self, request: ModelRequest, *, timeout_s: float) -> AsyncGenerator[ModelEvent, None]:
            yield TextDelta("Half ")

    second = Scripted(["No."])
    error = await verdict(mesh(here=Breathless(), b=second))
    assert (error.code, error.definite) == ("model_provider_unavailable", False)
    assert second.asked == []


async def test_what_came_over_a_link_never_goes_to_a_peer() -> None:
    peer = Scripted(["No."])
    error = await verdict(mesh(b=peer), forwarded=True)
    assert (type(error), error.definite) == (ModelUnavailable, True)
    assert "not on here any more" in error.message
    assert peer.asked == []


async def test_what_came_over_a_link_and_fails_here_is_not_passed_on_either() -> None:
    peer = Scripted(["No."])
    assert await verdict(mesh(here=Scripted([DEFINITE]), b=peer), forwarded=True) is DEFINITE
    assert peer.asked == []


# What is said when nobody does it.


async def test_what_nobody_ever_offered_says_so_and_how_to_get_what_can_be_had() -> None:
    error = await verdict(mesh())
    assert isinstance(error, ModelFailed)
    assert (error.code, error.definite) == ("model_no_providers", True)
    assert error.hint == "astromesh-node models list shows what there is"
    rooms = mesh()
    rooms.models.url = "http://127.0.0.1:8001"
    with pytest.raises(ModelFailed) as registered:
        async with aclosing(rooms.models.complete(replace(REQUEST, model="smollm2"), timeout_s=60)) as stream:
            await anext(stream)
    assert "; or install it on here: astromesh-node --url http://127.0.0.1:8001 models pull smollm2" in registered.value.hint


@pytest.mark.parametrize(("status", "said"), [("dead", "was offered by b, which is dead"), ("left", "was offered by b, which is left")])
async def test_what_was_offered_and_is_gone_names_who_had_it(status: str, said: str) -> None:
    rooms = Rooms()
    rooms.sees(member("b-000002", models=[MODEL], status=status))  # type: ignore[arg-type]
    error = await verdict(rooms)
    assert isinstance(error, ModelUnavailable)
    assert said in error.message
    assert error.retry_after_s > 0
    assert error.hint


async def test_what_nobody_has_loaded_is_asked_of_whoever_would_load_it() -> None:
    rooms = Rooms()
    rooms.sees(member("b-000002", models=[(MODEL, "loading")]), member("c-000003", models=[(MODEL, "on_disk")]))
    rooms.neighbours.models = {
        "b-000002": Scripted([ModelUnavailable("still loading", retry_after_s=40), ModelUnavailable("still loading", retry_after_s=40)]),
        "c-000003": Scripted(["Woken.", ModelUnavailable("loading now", retry_after_s=7)]),
    }
    assert (await completed(rooms))[0] == Routed("c", "peer", 2)
    error = await verdict(rooms)
    assert isinstance(error, ModelUnavailable)
    assert error.retry_after_s == 7
    assert "still loading; loading now" in error.message


async def test_nobody_is_woken_while_somebody_is_awake() -> None:
    sleeper = Scripted(["No."])
    rooms = mesh(b=Scripted(["Yes."]))
    rooms.models.local[MODEL] = LocalModel(sleeper, lambda: False, wakes=lambda: True)
    assert (await completed(rooms))[0] == Routed("b", "peer", 1)
    assert sleeper.asked == []


async def test_what_came_over_a_link_wakes_the_model_here() -> None:
    rooms = Rooms()
    rooms.models.local[MODEL] = LocalModel(Scripted(["Woken."]), lambda: False, wakes=lambda: True)
    assert (await completed(rooms, forwarded=True))[0] == Routed("here", "local", 1)


async def test_a_server_behind_a_peer_that_is_down_is_told_with_who_is_gone() -> None:
    rooms = Rooms()
    down = OfferedProvider("lab", "ollama", (MODEL,), "down", shared=True)
    rooms.sees(member("b-000002", models=[(MODEL, "remote")], providers=[down]), member("c-000003", models=[MODEL], status="dead"))
    error = await verdict(rooms)
    assert isinstance(error, ModelUnavailable)
    assert error.message == f"model {MODEL} cannot be answered by b now and was offered by c, which is dead"


async def test_what_is_still_loading_here_says_so() -> None:
    rooms = Rooms()
    rooms.has(Scripted([]), ready=False)
    error = await verdict(rooms)
    assert isinstance(error, ModelUnavailable)
    assert "not ready on here" in error.message


async def test_what_is_loading_here_is_asked_of_a_peer_meanwhile() -> None:
    rooms = mesh(b=Scripted(["Yes."]))
    rooms.has(Scripted([]), ready=False)
    assert (await completed(rooms))[0] == Routed("b", "peer", 1)


async def test_when_all_failed_every_reason_is_told() -> None:
    error = await verdict(mesh(here=Scripted([DEFINITE]), b=Scripted([Overloaded("busy")])))
    assert isinstance(error, ModelFailed)
    assert (error.code, error.definite) == ("model_all_providers_failed", True)
    assert "no connection" in error.message
    assert "busy" in error.message


async def test_when_nobody_can_be_reached_it_is_worth_another_try() -> None:
    error = await verdict(mesh(b=Scripted([ModelUnavailable("b is gone")]), c=Scripted([ModelUnavailable("c is gone")])))
    assert isinstance(error, ModelUnavailable)
    assert "b is gone; c is gone" in error.message


async def test_when_all_that_could_be_asked_are_full_it_is_worth_another_try_as_soon_as_the_first_of_them_says() -> None:
    error = await verdict(
        mesh(b=Scripted([Overloaded("b is full", retry_after_s=9)]), c=Scripted([Overloaded("c is full", retry_after_s=4)]))
    )
    assert isinstance(error, Overloaded)
    assert (error.retry_after_s, "b is full; c is full" in error.message) == (4, True)


async def test_when_some_are_full_and_others_away_it_is_worth_another_try() -> None:
    gone, full = ModelUnavailable("b is gone", retry_after_s=9), Overloaded("c is full", retry_after_s=4)
    error = await verdict(mesh(b=Scripted([gone]), c=Scripted([full])))
    assert isinstance(error, ModelUnavailable)
    assert (error.retry_after_s, "b is gone; c is full" in error.message) == (4, True)


async def test_when_the_servers_of_several_models_are_full_it_is_worth_another_try() -> None:
    full = [Scripted([Overloaded(f"{name} is full", retry_after_s=seconds)]) for name, seconds in (("one", 8), ("two", 3))]
    choice = Choice(tuple(Target(f"m{number}", provider=provider) for number, provider in enumerate(full)))
    with pytest.raises(Overloaded, match="one is full; two is full") as raised:
        [event async for event in Rooms().models.complete(REQUEST, timeout_s=60, choice=choice)]
    assert raised.value.retry_after_s == 3


# By other names.


async def test_a_pinned_name_is_answered_by_who_has_that_very_file_and_told_to_the_peer_with_its_digest() -> None:
    rooms = Rooms()
    rooms.sees(member("b-000002", models=["smollm2"], identity="ab" * 32), member("c-000003", models=["smollm2"], identity="cd" * 32))
    other, asked = Scripted(["Other."]), Scripted(["Yes."])
    rooms.neighbours.models = {"b-000002": other, "c-000003": asked}
    request = replace(REQUEST, model="smollm2:135m@sha256:CDCD")
    events, _ = await drained(rooms.models.complete(request, timeout_s=60))
    assert (events[0], [one.model for one in asked.asked], other.asked) == (Routed("c", "peer", 1), ["smollm2@sha256:cdcd"], [])
    _, failure = await drained(rooms.models.complete(replace(request, model="smollm2@sha256:ef"), timeout_s=60))
    assert isinstance(failure, ModelFailed)
    assert (failure.code, failure.definite) == ("model_no_providers", True)
    assert f"{'ab' * 32} on b, {'cd' * 32} on c" in failure.message
    assert [rooms.models.ready(name) for name in ("smollm2:135m", "smollm2@sha256:ab", "smollm2@sha256:ef")] == [True, True, False]


async def test_an_alias_that_somebody_offers_as_it_stands_is_no_alias() -> None:
    rooms = Rooms()
    rooms.sees(member("b-000002", models=["smollm2"]), member("c-000003", models=[("smollm2:135m", "remote")]))
    rooms.neighbours.models = {"b-000002": Scripted(["Mesh."]), "c-000003": Scripted(["Server."])}
    events, _ = await drained(rooms.models.complete(replace(REQUEST, model="smollm2:135m"), timeout_s=60))
    assert events[0] == Routed("c", "peer", 1)


# Who is asked first, and what is counted.


async def test_the_peer_that_has_fewer_of_our_calls_under_way_is_asked_first() -> None:
    first, second = HeldModel("One."), HeldModel("Two.")
    rooms = mesh(b=first, c=second)
    first.let()
    second.let()
    async with aclosing(rooms.models.complete(REQUEST, timeout_s=60)) as one:
        assert await anext(one) == Routed("b", "peer", 1)
        async with aclosing(rooms.models.complete(REQUEST, timeout_s=60)) as two:
            assert await anext(two) == Routed("c", "peer", 1)
    first.let()
    async with aclosing(rooms.models.complete(REQUEST, timeout_s=60)) as three:
        assert await anext(three) == Routed("b", "peer", 1)  # both are free again, and names decide


async def test_a_suspect_is_asked_last_and_still_asked() -> None:
    rooms = Rooms()
    rooms.sees(member("b-000002", models=[MODEL], status="suspect"), C)
    rooms.neighbours.models = {"b-000002": Scripted(["Suspect."]), "c-000003": Scripted([DEFINITE])}
    assert (await completed(rooms))[0] == Routed("b", "peer", 2)


async def test_leaving_the_stream_closes_the_one_behind_it() -> None:
    model = HeldModel("One ", "two")
    rooms = mesh(here=model)
    model.let()
    async with aclosing(rooms.models.complete(REQUEST, timeout_s=60)) as stream:
        await anext(stream)
        assert model.open == 1
    assert (model.open, model.finished) == (0, 0)


async def test_each_try_is_counted_with_the_way_it_went_and_how_it_ended() -> None:
    rooms = mesh(here=Scripted([DEFINITE]), b=Scripted(["One two."]))
    await completed(rooms)

    def counted(name: str, **labels: str) -> float | None:
        return rooms.metrics.registry.get_sample_value(name, labels)

    assert counted("astromesh_model_requests_total", model=MODEL, route="local", outcome="model_connection_refused") == 1
    assert counted("astromesh_model_requests_total", model=MODEL, route="peer", outcome="ok") == 1
    assert counted("astromesh_model_tokens_total", model=MODEL, direction="in") == 1
    assert counted("astromesh_model_tokens_total", model=MODEL, direction="out") == 2
    assert counted("astromesh_model_first_token_seconds_count", model=MODEL) == 1


def test_a_model_is_ready_here_or_on_a_peer_and_known_wherever_it_ever_was() -> None:
    rooms = Rooms()
    rooms.has(Scripted([]), ready=False)
    assert not rooms.models.ready(MODEL)
    rooms.sees(B, member("d-000004", models=["old"], status="dead"))
    assert rooms.models.ready(MODEL)
    assert not rooms.models.ready("old")


# What an agent requires of the node.


def card(gigabytes: int) -> Devices:
    return Devices(gpus=(Gpu("a card", "id", gigabytes * 1_000_000_000),))


async def required(rooms: Rooms, requires: Requirements) -> Routed | ModelEvent:
    async with aclosing(rooms.models.complete(REQUEST, timeout_s=60, choice=Choice((Target(MODEL, requires=requires),)))) as stream:
        return await anext(stream)


async def test_a_node_without_what_is_required_is_not_asked() -> None:
    rooms = Rooms()
    rooms.models.local[MODEL] = LocalModel(Scripted(["No."]), lambda: True, tok_s=lambda: 5.0)
    rooms.models.devices = lambda: Devices(gpus=())
    rooms.sees(member("b-000002", models=[MODEL], devices=card(8)), member("c-000003", models=[MODEL], devices=card(24)))
    rooms.neighbours.models = {name: Scripted(["Yes."] * 3) for name in ("b-000002", "c-000003")}
    assert await required(rooms, Requirements(gpu=True)) == Routed("b", "peer", 1)
    assert await required(rooms, Requirements(vram_gb=16)) == Routed("c", "peer", 1)
    assert await required(rooms, Requirements(min_tok_s=20)) == Routed("b", "peer", 1)  # nobody has measured it there
    assert await required(rooms, Requirements(min_tok_s=4)) == Routed("here", "local", 1)


async def test_a_node_that_would_have_to_load_it_is_asked_if_only_it_has_what_is_required() -> None:
    rooms = Rooms()
    rooms.sees(
        member("b-000002", models=[MODEL], devices=Devices(gpus=())), member("c-000003", models=[(MODEL, "on_disk")], devices=card(8))
    )
    rooms.neighbours.models = {"c-000003": Scripted(["Yes."])}
    assert await required(rooms, Requirements(gpu=True)) == Routed("c", "peer", 1)


async def test_when_nobody_has_what_is_required_it_says_what_there_is() -> None:
    rooms = Rooms()
    rooms.has(Scripted(["No."]))
    rooms.sees(member("b-000002", models=[MODEL], devices=card(8)), C)
    with pytest.raises(ModelFailed) as raised:
        await required(rooms, Requirements(vram_gb=40))
    assert (raised.value.code, raised.value.definite) == ("model_no_eligible_provider", True)
    assert raised.value.message == (
        f"no node that has model {MODEL} has a GPU with 40 GB: here: whether it has a GPU is not known; "
        "b: its largest GPU has 8.0 GB; c: whether it has a GPU is not known"
    )
    assert "spec.model.primary.requires" in raised.value.hint


async def test_where_nobody_has_the_model_that_is_what_is_said() -> None:
    with pytest.raises(ModelFailed) as raised:
        await required(Rooms(), Requirements(gpu=True))
    assert raised.value.code == "model_no_providers"
