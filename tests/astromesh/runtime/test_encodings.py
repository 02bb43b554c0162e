"""Vectors from here or from another node, over real links, and what is tried when one fails."""

from __future__ import annotations

from array import array
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import replace
from typing import Any

import pytest
from tests.rig.mesh_view import member
from tests.rig.rooms import MODEL, Rooms

from astromesh.dialogue import EncodingRequest, Encodings, Usage, Vectors
from astromesh.errors import AstromeshError, InvalidRequest, MalformedBody, ModelFailed, ModelUnavailable, PeerLost
from astromesh.fleet.offers import Capability
from astromesh.providers.backends.scripted import Scripted
from astromesh.routing.breaker import BreakerRules
from astromesh.runtime.bodies import ROWS_BYTES, from_encoding_request, from_encodings, to_encoding_request, to_encodings
from astromesh.runtime.endpoints import Endpoint
from astromesh.runtime.models import LocalModel
from maia.config import Address

REQUEST = EncodingRequest(MODEL, ("east", "north"))
ABLE: tuple[Capability, ...] = ("embed",)


class Counts(Scripted):
    """A model whose vectors are the numbers from 0 on."""

    def __init__(self, *, dimensions: int = 3, fails: AstromeshError | None = None, can: tuple[Capability, ...] = ABLE) -> None:
        super().__init__(())
        self.capabilities = can
        self.asked = 0
        self.requests: list[EncodingRequest] = []
        self._dimensions = dimensions
        self._fails = fails

    async def encode(self, request: EncodingRequest, *, timeout_s: float) -> Encodings:
        self.asked += 1
        self.requests.append(request)
        if self._fails is not None:
            raise self._fails
        return vectors(len(request.texts), dimensions=self._dimensions)


def vectors(rows: int, *, dimensions: int = 3) -> Encodings:
    numbers = array("f", range(rows * dimensions))
    return Encodings(Vectors(dimensions, numbers.tobytes()), Usage(2 * rows), MODEL, truncated=(rows - 1,))


class Pair:
    def __init__(self, b_at: Address, a: Rooms, b: Rooms) -> None:
        self.a, self.b, self.b_at = a, b, b_at


@asynccontextmanager
async def pair() -> AsyncIterator[Pair]:
    """`a` is asked, `b` has what is asked for."""
    a, b = Rooms("a", linked=True), Rooms("b", linked=True)
    async with AsyncExitStack() as stack:
        b_at = await stack.enter_async_context(b.open_door())
        await stack.enter_async_context(a.open_door())
        a.sees(member("b-000000", models=[MODEL], capabilities=ABLE, link=b_at))
        yield Pair(b_at, a, b)


async def test_vectors_come_over_a_link_as_they_were_made() -> None:
    async with pair() as two:
        two.b.has(Counts())
        routed, made = await two.a.encoder.encode(REQUEST, timeout_s=20)
    assert made == vectors(2)
    assert (routed.node, routed.kind, routed.attempt) == ("b", "peer", 1)


async def test_an_answer_larger_than_one_body_of_a_link_comes_whole() -> None:
    async with pair() as two:
        two.b.has(Counts(dimensions=4096))
        request = EncodingRequest(MODEL, ("x",) * 700)
        _, made = await two.a.encoder.encode(request, timeout_s=60)
    assert len(made.vectors.data) > 10 * 2**20
    assert made == vectors(700, dimensions=4096)


async def test_this_node_is_asked_first_and_alone_where_it_has_the_model() -> None:
    async with pair() as two:
        two.a.has(Counts())
        two.b.has(far := Counts())
        routed, _ = await two.a.encoder.encode(REQUEST, timeout_s=20)
    assert (routed.node, routed.kind, far.asked) == ("a", "local", 0)


async def test_an_alias_and_a_pinned_name_mean_the_model_here_and_there() -> None:
    async with pair() as two:
        two.b.has(far := Counts(), name="minilm")
        two.b.models.local["minilm"] = replace(two.b.models.local["minilm"], identity=lambda: "ab" * 32)
        two.a.sees(member("b-000000", models=["minilm"], identity="ab" * 32, capabilities=ABLE, link=two.b_at))
        for name in ("all-minilm", "minilm@sha256:abab"):
            await two.a.encoder.encode(replace(REQUEST, model=name), timeout_s=20)
        assert [request.model for request in far.requests] == ["minilm", "minilm"]
        with pytest.raises(ModelFailed, match=f"no node has minilm@sha256:cd; its file is {'ab' * 32} on b"):
            await two.a.encoder.encode(replace(REQUEST, model="minilm@sha256:cd"), timeout_s=20)
        two.b.models.local["minilm"] = replace(two.b.models.local["minilm"], identity=lambda: "cd" * 32)  # and nobody knows it yet
        with pytest.raises(ModelFailed, match="no node has minilm@sha256:ab"):
            await two.a.encoder.encode(replace(REQUEST, model="minilm@sha256:ab"), timeout_s=20)


async def test_no_request_takes_a_second_hop() -> None:
    async with pair() as two:
        with pytest.raises(ModelUnavailable, match="not on b any more"):
            await two.a.encoder.encode(REQUEST, timeout_s=20)
        two.b.sees(member("a-000000", models=[MODEL], capabilities=ABLE, link=two.b_at))
        with pytest.raises(ModelUnavailable, match="not on b any more"):
            await two.a.encoder.encode(REQUEST, timeout_s=20)


async def test_only_who_can_embed_is_asked() -> None:
    async with pair() as two:
        two.b.has(Counts())
        two.a.sees(member("b-000000", models=[MODEL], link=two.b_at))
        with pytest.raises(InvalidRequest, match="can complete and not embed"):
            await two.a.encoder.encode(REQUEST, timeout_s=20)


@pytest.mark.parametrize("failure", [ModelUnavailable("full"), PeerLost("went away")])
async def test_a_failure_that_hurts_nobody_lets_the_next_one_be_asked(failure: AstromeshError) -> None:
    async with pair() as two:
        two.a.has(Counts(fails=failure))
        two.b.has(Counts())
        routed, made = await two.a.encoder.encode(REQUEST, timeout_s=20)
    assert (routed.node, routed.attempt, made) == ("b", 2, vectors(2))


async def test_a_mistake_of_the_callers_is_told_at_once() -> None:
    async with pair() as two:
        two.a.has(Counts(fails=InvalidRequest("dimensions", param="dimensions")))
        two.b.has(far := Counts())
        with pytest.raises(InvalidRequest):
            await two.a.encoder.encode(REQUEST, timeout_s=20)
    assert far.asked == 0


async def test_a_failure_there_is_the_callers_to_see() -> None:
    async with pair() as two:
        two.b.has(Counts(fails=ModelFailed("broken", code="model_timeout")))
        with pytest.raises(ModelFailed, match="broken") as failure:
            await two.a.encoder.encode(REQUEST, timeout_s=20)
    assert failure.value.code == "model_timeout"


async def test_what_a_node_with_the_file_lacks_is_told_through_another_one() -> None:
    async with pair() as two:
        two.b.models.local[MODEL] = LocalModel(Counts(), lambda: False, problem=lambda: "this node has no ONNX Runtime: pip install it")
        with pytest.raises(ModelUnavailable, match="is not ready on b: this node has no ONNX Runtime: pip install it"):
            await two.a.encoder.encode(REQUEST, timeout_s=20)


def test_bodies_of_a_request_and_of_an_answer_are_read_as_they_were_written() -> None:
    for request in (REQUEST, replace(REQUEST, dimensions=3), replace(REQUEST, task="rerank", query="which way?")):
        assert to_encoding_request(from_encoding_request(request)) == request
    large = vectors(2, dimensions=ROWS_BYTES)
    bodies = list(from_encodings(large))
    assert len(bodies) == 9
    assert to_encodings(bodies, request=REQUEST) == large


@pytest.mark.parametrize("spoilt", [[], [{"rows": b"1234"}], [{"rows": b"123"}, {"dimensions": 1, "usage": [0, 0, 0], "model": "m"}], [{}]])
def test_a_malformed_answer_is_an_error_and_no_guess(spoilt: list[dict[str, object]]) -> None:
    with pytest.raises(MalformedBody):
        to_encodings(spoilt, request=EncodingRequest(MODEL, ("x",)))


def test_another_number_of_rows_than_of_texts_is_no_answer() -> None:
    with pytest.raises(MalformedBody):
        to_encodings(list(from_encodings(vectors(2))), request=EncodingRequest(MODEL, ("x",) * 3))


class Labels(Counts):
    """A model that calls every text one of two."""

    def __init__(self) -> None:
        super().__init__(can=("classify",))

    async def encode(self, request: EncodingRequest, *, timeout_s: float) -> Encodings:
        return replace(vectors(len(request.texts), dimensions=2), labels=("calm", "loud"))


async def test_labels_and_ranks_come_over_a_link_with_what_they_mean() -> None:
    async with pair() as two:
        two.a.sees(member("b-000000", models=[MODEL], capabilities=("classify", "rerank"), link=two.b_at))
        two.b.has(Labels())
        _, labelled = await two.a.encoder.encode(replace(REQUEST, task="classify"), timeout_s=20)
        two.b.has(ranks := Counts(dimensions=1, can=("rerank",)))
        asked = replace(REQUEST, task="rerank", query="which way?")
        _, ranked = await two.a.encoder.encode(asked, timeout_s=20)
    assert (labelled.labels, list(labelled.vectors.numbers())) == (("calm", "loud"), [[0.0, 1.0], [2.0, 3.0]])
    assert ranks.requests == [asked]
    assert list(ranked.vectors.numbers()) == [[0.0], [1.0]]


async def test_a_node_whose_own_engine_cannot_leaves_it_to_one_that_can() -> None:
    async with pair() as two:
        two.a.has(here := Counts(can=("complete",)))
        two.b.has(Counts())
        routed, _ = await two.a.encoder.encode(REQUEST, timeout_s=20)
    assert (routed.node, here.asked) == ("b", 0)


async def test_a_peer_that_still_looks_for_the_file_is_asked_and_one_that_found_it_goes_by_what_it_can() -> None:
    async with pair() as two:
        two.b.has(Counts())
        two.a.sees(member("b-000000", models=[(MODEL, "loading")], link=two.b_at))
        assert (await two.a.encoder.encode(REQUEST, timeout_s=20))[0].node == "b"
        two.a.sees(member("b-000000", models=[(MODEL, "loading")], identity="ab" * 32, link=two.b_at))
        with pytest.raises(InvalidRequest, match="can complete and not embed"):
            await two.a.encoder.encode(REQUEST, timeout_s=20)


@pytest.mark.parametrize(("task", "dimensions"), [("classify", 3), ("rerank", 2)])
def test_rows_of_another_width_than_was_asked_for_are_no_answer(task: Any, dimensions: int) -> None:
    told = list(from_encodings(vectors(2, dimensions=dimensions)))
    with pytest.raises(MalformedBody):
        to_encodings(told, request=replace(REQUEST, task=task))


async def test_a_server_behind_a_node_is_asked_for_vectors_and_for_nothing_that_it_has_not() -> None:
    async with pair() as two:
        two.a.sees(member("b-000000", models=[(MODEL, "remote")], link=two.b_at))
        two.b.has(Counts(can=("complete", "embed")))
        assert (await two.a.encoder.encode(REQUEST, timeout_s=20))[0].node == "b"
        with pytest.raises(InvalidRequest, match="can complete and embed and not classify"):
            await two.a.encoder.encode(replace(REQUEST, task="classify"), timeout_s=20)


async def test_the_breaker_of_a_server_learns_from_vectors_and_keeps_them_from_it() -> None:
    endpoint = Endpoint("lab", "http://lab", rules=BreakerRules(failure_threshold=2))
    async with pair() as two:
        two.a.has(server := Counts(fails=ModelFailed("down", code="model_provider_unavailable", definite=True)))
        two.a.models.local[MODEL] = replace(two.a.models.local[MODEL], endpoint=endpoint)
        for _ in range(3):
            with pytest.raises(ModelFailed) as failure:
                await two.a.encoder.encode(REQUEST, timeout_s=20)
    assert (endpoint.state, server.asked) == ("open", 2)
    assert "its breaker is open" in failure.value.message
