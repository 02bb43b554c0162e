"""Embeddings of a model server: its vectors come out as ours, in their order, and what it cannot do is told by name."""

from __future__ import annotations

import base64
from collections.abc import AsyncIterator
from typing import Any

import pytest
from tests.astromesh.providers.test_openai_compat import KEY, calling
from tests.rig.ports import free_port
from tests.rig.stub_openai import StubOpenAI

from astromesh.dialogue import EncodingRequest, Usage
from astromesh.errors import AstromeshError, InvalidRequest, ModelFailed, ModelRefused, Overloaded
from astromesh.providers.backends.openai_compat import OpenAICompat
from astromesh.providers.backends.openai_vectors import TEXTS_AT_ONCE, read_vectors

AMPLE_S = 30.0


@pytest.fixture
async def stub() -> AsyncIterator[StubOpenAI]:
    async with StubOpenAI() as server:
        yield server


@pytest.fixture
async def lab(stub: StubOpenAI) -> AsyncIterator[OpenAICompat]:
    async with calling(stub.endpoint) as provider:
        yield provider


@pytest.mark.parametrize("decimals", [False, True])
async def test_vectors_come_in_the_order_of_the_texts_however_they_are_written(stub: StubOpenAI, lab: OpenAICompat, decimals: bool) -> None:
    stub.decimals = decimals
    made = await lab.encode(EncodingRequest("stub", ("one", "three", "")), timeout_s=AMPLE_S)
    assert list(made.vectors.numbers()) == [[3.0, 0.0], [5.0, 1.0], [0.0, 2.0]]
    assert (made.usage, made.model, made.truncated) == (Usage(6), "stub", ())
    assert stub.requests[-1].body == {"model": "stub", "input": ["one", "three", ""], "encoding_format": "base64"}


async def test_many_texts_go_in_parts_and_dimensions_along(stub: StubOpenAI, lab: OpenAICompat) -> None:
    texts = tuple("x" * (number % 7) for number in range(2 * TEXTS_AT_ONCE + 1))
    made = await lab.encode(EncodingRequest("stub", texts, dimensions=2), timeout_s=AMPLE_S)
    assert [row[0] for row in made.vectors.numbers()] == [float(len(text)) for text in texts]
    assert [(len(asked.body["input"]), asked.body["dimensions"]) for asked in stub.requests] == [(128, 2), (128, 2), (1, 2)]
    assert made.usage == Usage(2 * len(texts))


@pytest.mark.parametrize("status", [404, 405, 501])
async def test_a_server_without_embeddings_is_the_callers_to_know_by_name(stub: StubOpenAI, lab: OpenAICompat, status: int) -> None:
    stub.embeds = status
    with pytest.raises(InvalidRequest, match=r"provider lab makes no embeddings with model stub: .*does not support") as refused:
        await lab.encode(EncodingRequest("stub", ("x",)), timeout_s=AMPLE_S)
    assert refused.value.param == "model"


@pytest.mark.parametrize(
    ("model", "kind"),
    [("refuses-400", ModelRefused), ("fails-500", ModelFailed), ("rate-limits-429", Overloaded), ("none", InvalidRequest)],
)
async def test_what_a_server_refuses_is_the_error_that_it_is_for_an_answer(
    lab: OpenAICompat, model: str, kind: type[AstromeshError]
) -> None:
    with pytest.raises(kind):
        await lab.encode(EncodingRequest(model, ("x",)), timeout_s=AMPLE_S)


async def test_where_nobody_listens_it_certainly_did_not_happen() -> None:
    async with calling(f"http://127.0.0.1:{free_port()}/v1") as provider:
        with pytest.raises(ModelFailed) as failure:
            await provider.encode(EncodingRequest("stub", ("x",)), timeout_s=AMPLE_S)
    assert (failure.value.code, failure.value.definite) == ("model_connection_refused", True)


async def test_the_key_goes_along_and_is_never_repeated() -> None:
    async with StubOpenAI(api_key=KEY) as stub:
        async with calling(stub.endpoint, api_key=KEY) as provider:
            assert len((await provider.encode(EncodingRequest("stub", ("x",)), timeout_s=AMPLE_S)).vectors) == 1
        async with calling(stub.endpoint, api_key="wrong") as provider:
            with pytest.raises(ModelFailed) as failure:
                await provider.encode(EncodingRequest("stub", ("x",)), timeout_s=AMPLE_S)
    assert failure.value.code == "model_missing_api_key"


def rows(*embeddings: Any) -> dict[str, Any]:
    return {"data": [{"index": place, "embedding": row} for place, row in enumerate(embeddings)]}


@pytest.mark.parametrize(
    "answer",
    [
        {},
        {"data": None},
        rows([1.0]),
        rows([1.0], [1.0], [1.0]),
        rows([1.0], [1.0, 2.0]),
        rows([], []),
        rows(["x"], [1.0]),
        rows(None, [1.0]),
        rows("!", "!"),
        rows(base64.b64encode(b"123").decode(), base64.b64encode(b"123").decode()),
        {"data": [{"index": 0, "embedding": [1.0]}, {"index": 5, "embedding": [1.0]}]},
        {"data": [{"index": 0, "embedding": [1.0]}, {"index": 0, "embedding": [1.0]}]},
        {"data": [{"index": [], "embedding": [1.0]}]},
    ],
)
def test_what_is_no_vector_for_each_text_is_refused(answer: dict[str, Any]) -> None:
    with pytest.raises(ValueError):
        read_vectors(answer, texts=2)
