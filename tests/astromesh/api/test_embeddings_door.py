"""OpenAI's door for embeddings, with their own client."""

from __future__ import annotations

import base64
import struct
from array import array
from collections.abc import AsyncIterator, Sequence
from typing import Any

import openai
import pytest
from tests.rig.doors import Doors, open_doors
from tests.rig.mesh_view import member
from tests.rig.rooms import Rooms

from astromesh.dialogue import EncodingRequest, Encodings, Usage, Vectors
from astromesh.errors import AstromeshError, ModelUnavailable, Overloaded
from astromesh.fleet.offers import Capability
from astromesh.inference.encoding import TEXTS_MAX
from astromesh.providers.backends.scripted import Scripted


class Lengths(Scripted):
    """A model whose vectors tell how long each text is, and that cuts those of over nine characters."""

    capabilities: tuple[Capability, ...] = ("embed",)

    def __init__(self, *, fails: AstromeshError | None = None) -> None:
        super().__init__(())
        self.asked: list[EncodingRequest] = []
        self._fails = fails

    async def encode(self, request: EncodingRequest, *, timeout_s: float) -> Encodings:
        self.asked.append(request)
        if self._fails is not None:
            raise self._fails
        numbers = array("f", [number for text in request.texts for number in (len(text), 0.5)])
        cut = tuple(place for place, text in enumerate(request.texts) if len(text) > 9)
        return Encodings(Vectors(2, numbers.tobytes()), Usage(7), request.model, cut)


@pytest.fixture
def rooms() -> Rooms:
    return Rooms()


@pytest.fixture
async def doors(rooms: Rooms) -> AsyncIterator[Doors]:
    async with open_doors(rooms) as opened:
        yield opened


@pytest.fixture
async def client(doors: Doors) -> AsyncIterator[openai.AsyncOpenAI]:
    async with doors.openai() as theirs:
        yield theirs


async def refusal(doors: Doors, body: dict[str, Any]) -> tuple[int, dict[str, Any]]:
    async with doors.http.post("/v1/embeddings", json=body) as response:
        return response.status, (await response.json())["error"]


@pytest.mark.parametrize("texts", ["one", ["one", "three"]])
async def test_their_client_reads_a_vector_for_each_text(rooms: Rooms, client: openai.AsyncOpenAI, texts: str | list[str]) -> None:
    rooms.has(Lengths())
    raw = await client.embeddings.with_raw_response.create(model="m", input=texts)
    made = raw.parse()
    assert [(row.index, row.object, row.embedding) for row in made.data] == [(0, "embedding", [3.0, 0.5]), (1, "embedding", [5.0, 0.5])][
        : len(made.data)
    ]
    assert len(made.data) == (1 if isinstance(texts, str) else len(texts))
    assert (made.object, made.model, made.usage.prompt_tokens, made.usage.total_tokens) == ("list", "m", 7, 7)
    assert (raw.headers["X-Astromesh-Node"], raw.headers["X-Astromesh-Route"]) == ("here", "local")
    assert made.model_extra == {}


@pytest.mark.parametrize("encoding", ["float", "base64"])
async def test_vectors_come_as_numbers_or_as_the_base64_of_their_bytes(rooms: Rooms, doors: Doors, encoding: str) -> None:
    rooms.has(Lengths())
    async with doors.http.post("/v1/embeddings", json={"model": "m", "input": ["four"], "encoding_format": encoding}) as response:
        (row,) = (await response.json())["data"]
    numbers = row["embedding"] if encoding == "float" else list(struct.unpack("<2f", base64.b64decode(row["embedding"])))
    assert numbers == [4.0, 0.5]


async def test_many_texts_come_back_whole_and_in_order(rooms: Rooms, client: openai.AsyncOpenAI) -> None:
    rooms.has(Lengths())
    made = await client.embeddings.create(model="m", input=["x" * (1 + n % 9) for n in range(300)], encoding_format="float")
    assert [(row.index, row.embedding[0]) for row in made.data] == [(n, 1.0 + n % 9) for n in range(300)]


async def test_texts_that_were_cut_are_named(rooms: Rooms, client: openai.AsyncOpenAI) -> None:
    rooms.has(Lengths())
    made = await client.embeddings.create(model="m", input=["short", "much too long"])
    assert made.model_extra == {"warnings": ["longer than model m reads, and cut: the texts at 1 of input"]}


@pytest.mark.parametrize(
    ("given", "said"),
    [
        ("", "input is empty"),
        ([], "input is empty"),
        (["one", ""], "an empty text"),
        ([1, 2, 3], "token ids"),
        ([[1, 2], [3]], "token ids"),
        (["x"] * (TEXTS_MAX + 1), f"{TEXTS_MAX} are possible"),
    ],
)
async def test_what_is_no_text_to_embed_is_refused_by_name(rooms: Rooms, doors: Doors, given: Sequence[Any], said: str) -> None:
    rooms.has(model := Lengths())
    status, error = await refusal(doors, {"model": "m", "input": given})
    assert (status, error["param"]) == (400, "input")
    assert said in error["message"]
    assert model.asked == []


async def test_dimensions_reach_the_model_and_unknown_keys_are_named(rooms: Rooms, doors: Doors) -> None:
    rooms.has(model := Lengths())
    body = {"model": "m", "input": "x", "dimensions": 2, "user": "u", "truncate": "END"}
    async with doors.http.post("/v1/embeddings", json=body) as response:
        assert response.headers["X-Astromesh-Ignored"] == "truncate, user"
    assert model.asked == [EncodingRequest("m", ("x",), 2)]


async def test_a_model_that_nobody_ever_offered_is_404(doors: Doors) -> None:
    status, error = await refusal(doors, {"model": "nobody", "input": "x"})
    assert (status, error["code"]) == (404, "model_not_found")


async def test_a_model_whose_node_is_gone_is_503(rooms: Rooms, doors: Doors) -> None:
    rooms.sees(member("b-000000", status="dead", models=["m"]))
    status, error = await refusal(doors, {"model": "m", "input": "x"})
    assert (status, error["code"]) == (503, "model_unavailable")


async def test_a_model_that_writes_texts_only_is_refused_by_name(rooms: Rooms, doors: Doors) -> None:
    rooms.has(Scripted(()))
    rooms.sees(member("b-000000", models=["theirs"]))
    for model in ("m", "theirs"):
        status, error = await refusal(doors, {"model": model, "input": "x"})
        assert (status, error["param"]) == (400, "model")
        assert "can complete and not embed" in error["message"]


@pytest.mark.parametrize(("failure", "status"), [(Overloaded("full"), 429), (ModelUnavailable("loading"), 503)])
async def test_what_a_model_refuses_has_its_status(rooms: Rooms, doors: Doors, failure: AstromeshError, status: int) -> None:
    rooms.has(Lengths(fails=failure))
    assert (await refusal(doors, {"model": "m", "input": "x"}))[0] == status
