"""The doors for ranks and labels: the shapes that clients of Cohere, Jina, llama.cpp's server and vLLM read, and refusals by name."""

from __future__ import annotations

from array import array
from collections.abc import AsyncIterator
from typing import Any

import pytest
from tests.rig.doors import Doors, open_doors
from tests.rig.mesh_view import member
from tests.rig.rooms import Rooms

from astromesh.dialogue import EncodingRequest, Encodings, Usage, Vectors
from astromesh.errors import AstromeshError, ModelUnavailable, Overloaded
from astromesh.fleet.offers import Capability
from astromesh.inference.encoding import TEXTS_MAX
from astromesh.providers.backends.scripted import Scripted

SHOUTS = ("calm", "loud", "unsure")


class Reads(Scripted):
    """Ranks texts by how many words they share with the query, and calls those loud that have an exclamation mark."""

    def __init__(self, *can: Capability, fails: AstromeshError | None = None) -> None:
        super().__init__(())
        self.capabilities = can
        self.asked: list[EncodingRequest] = []
        self._fails = fails

    async def encode(self, request: EncodingRequest, *, timeout_s: float) -> Encodings:
        self.asked.append(request)
        if self._fails is not None:
            raise self._fails
        cut = tuple(place for place, text in enumerate(request.texts) if len(text) > 40)
        if request.task == "rerank":
            query = set((request.query or "").split())
            scores = array("f", [len(query & set(text.split())) for text in request.texts])
            return Encodings(Vectors(1, scores.tobytes()), Usage(9), request.model, cut)
        rows = [number for text in request.texts for number in ((0.25, 0.5, 0.25) if "!" in text else (0.5, 0.0, 0.5))]
        return Encodings(Vectors(3, array("f", rows).tobytes()), Usage(9), request.model, cut, SHOUTS)


@pytest.fixture
def rooms() -> Rooms:
    return Rooms()


@pytest.fixture
async def doors(rooms: Rooms) -> AsyncIterator[Doors]:
    async with open_doors(rooms) as opened:
        yield opened


async def asked(doors: Doors, path: str, body: dict[str, Any]) -> dict[str, Any]:
    async with doors.http.post(path, json=body) as response:
        assert response.status == 200, await response.text()
        answer: dict[str, Any] = await response.json()
    return answer


async def refusal(doors: Doors, path: str, body: dict[str, Any]) -> tuple[int, dict[str, Any]]:
    async with doors.http.post(path, json=body) as response:
        return response.status, (await response.json())["error"]


DOCUMENTS = ["the sea", "tax law", "the deep blue sea", "sea law"]


async def test_documents_come_back_best_first_by_their_places(rooms: Rooms, doors: Doors) -> None:
    rooms.has(model := Reads("rerank"))
    answer = await asked(doors, "/v1/rerank", {"model": "m", "query": "deep sea", "documents": DOCUMENTS})
    assert answer == {
        "object": "list",
        "model": "m",
        "results": [{"index": index, "relevance_score": score} for index, score in ((2, 2.0), (0, 1.0), (3, 1.0), (1, 0.0))],
        "usage": {"prompt_tokens": 9, "total_tokens": 9},
    }
    assert model.asked == [EncodingRequest("m", tuple(DOCUMENTS), task="rerank", query="deep sea")]


@pytest.mark.parametrize(("top_n", "named"), [(1, [2]), (3, [2, 0, 3]), (99, [2, 0, 3, 1])])
async def test_only_the_best_are_named_where_that_is_asked_for(rooms: Rooms, doors: Doors, top_n: int, named: list[int]) -> None:
    rooms.has(Reads("rerank"))
    answer = await asked(doors, "/v1/rerank", {"model": "m", "query": "deep sea", "documents": DOCUMENTS, "top_n": top_n})
    assert [result["index"] for result in answer["results"]] == named


async def test_documents_may_be_objects_and_are_repeated_where_that_is_asked_for(rooms: Rooms, doors: Doors) -> None:
    rooms.has(Reads("rerank"))
    body = {"model": "m", "query": "sea", "documents": [{"text": "tax"}, "sea"], "return_documents": True}
    assert (await asked(doors, "/v1/rerank", body))["results"] == [
        {"index": 1, "relevance_score": 1.0, "document": {"text": "sea"}},
        {"index": 0, "relevance_score": 0.0, "document": {"text": "tax"}},
    ]


async def test_every_text_gets_its_likeliest_label_and_the_chance_of_each(rooms: Rooms, doors: Doors) -> None:
    rooms.has(model := Reads("classify"))
    answer = await asked(doors, "/v1/classify", {"model": "m", "input": ["Stop!", "well"]})
    assert answer == {
        "object": "list",
        "model": "m",
        "labels": list(SHOUTS),
        "data": [
            {"index": 0, "label": "loud", "probs": [0.25, 0.5, 0.25], "num_classes": 3},
            {"index": 1, "label": "calm", "probs": [0.5, 0.0, 0.5], "num_classes": 3},
        ],
        "usage": {"prompt_tokens": 9, "total_tokens": 9},
    }
    assert (await asked(doors, "/v1/classify", {"model": "m", "input": "Stop!"}))["data"] == answer["data"][:1]
    assert model.asked[-1] == EncodingRequest("m", ("Stop!",), task="classify")


async def test_texts_that_were_cut_and_keys_that_do_nothing_are_named(rooms: Rooms, doors: Doors) -> None:
    rooms.has(Reads("rerank"))
    body = {"model": "m", "query": "sea", "documents": ["sea", "sea " * 20], "max_tokens_per_doc": 5}
    async with doors.http.post("/v1/rerank", json=body) as response:
        assert (await response.json())["warnings"] == ["longer than model m reads, and cut: the texts at 1 of documents"]
        assert response.headers["X-Astromesh-Ignored"] == "max_tokens_per_doc"
        assert (response.headers["X-Astromesh-Node"], response.headers["X-Astromesh-Route"]) == ("here", "local")


@pytest.mark.parametrize(
    ("path", "body", "param"),
    [
        ("/v1/rerank", {"query": "", "documents": ["x"]}, "query"),
        ("/v1/rerank", {"query": "x"}, "documents"),
        ("/v1/rerank", {"query": "x", "documents": []}, "documents"),
        ("/v1/rerank", {"query": "x", "documents": ["x", ""]}, "documents"),
        ("/v1/rerank", {"query": "x", "documents": ["x"] * (TEXTS_MAX + 1)}, "documents"),
        ("/v1/rerank", {"query": "x", "documents": ["x"], "top_n": 0}, "top_n"),
        ("/v1/classify", {"input": ""}, "input"),
        ("/v1/classify", {"input": []}, "input"),
        ("/v1/classify", {"input": ["x"] * (TEXTS_MAX + 1)}, "input"),
    ],
)
async def test_what_cannot_be_read_is_refused_by_name(rooms: Rooms, doors: Doors, path: str, body: dict[str, Any], param: str) -> None:
    rooms.has(model := Reads("rerank", "classify"))
    status, error = await refusal(doors, path, {"model": "m", **body})
    assert (status, error["param"]) == (400, param)
    assert model.asked == []


async def test_a_model_that_does_something_else_is_refused_with_what_it_does(rooms: Rooms, doors: Doors) -> None:
    rooms.has(Reads("embed", "complete"))
    rooms.sees(member("b-000000", models=["theirs"], capabilities=("classify",)))
    for model, said in (("m", "can complete and embed and not rerank"), ("theirs", "can classify and not rerank")):
        status, error = await refusal(doors, "/v1/rerank", {"model": model, "query": "x", "documents": ["x"]})
        assert (status, error["param"]) == (400, "model")
        assert said in error["message"]


async def test_a_model_that_nobody_has_is_404_and_one_whose_node_is_gone_503(rooms: Rooms, doors: Doors) -> None:
    rooms.sees(member("b-000000", status="dead", models=["m"]))
    for model, expected in (("nobody", (404, "model_not_found")), ("m", (503, "model_unavailable"))):
        for path, body in (("/v1/rerank", {"query": "x", "documents": ["x"]}), ("/v1/classify", {"input": "x"})):
            status, error = await refusal(doors, path, {"model": model, **body})
            assert (status, error["code"]) == expected


@pytest.mark.parametrize(("failure", "status"), [(Overloaded("full"), 429), (ModelUnavailable("loading"), 503)])
async def test_what_a_model_refuses_has_its_status(rooms: Rooms, doors: Doors, failure: AstromeshError, status: int) -> None:
    rooms.has(Reads("classify", fails=failure))
    assert (await refusal(doors, "/v1/classify", {"model": "m", "input": "x"}))[0] == status


async def test_the_description_says_what_the_doors_take_and_in_which_shape_they_refuse(doors: Doors) -> None:
    async with doors.http.get("/openapi.json") as response:
        described = await response.json()
    for path, model in (("/v1/rerank", "RerankBody"), ("/v1/classify", "ClassifyBody")):
        operation = described["paths"][path]["post"]
        assert operation["requestBody"]["content"]["application/json"]["schema"] == {"$ref": f"#/components/schemas/{model}"}
        assert operation["responses"]["400"]["content"] == {"application/json": {"schema": {"$ref": "#/components/schemas/OpenAIError"}}}
