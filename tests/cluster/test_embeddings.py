"""Vectors, ranks and labels over a mesh of real processes: one node has the encoders, the other is asked."""

from __future__ import annotations

import openai
import pytest
from tests.cluster.conftest import FAST, ready_for
from tests.rig.documents import provider, runtime
from tests.rig.eventually import eventually
from tests.rig.nodes import node_process
from tests.rig.small_encoders import small_encoder
from tests.rig.stub_openai import StubOpenAI

pytestmark = [pytest.mark.processes, pytest.mark.timeout(180)]


async def test_a_node_without_the_model_answers_with_the_vectors_of_the_one_that_has_it_and_says_so_when_it_is_gone(
    tmp_path_factory: pytest.TempPathFactory,
) -> None:
    folder = tmp_path_factory.mktemp("compass")
    small_encoder(folder, {"east": (1.0, 0.0), "north": (0.0, 1.0)})
    config = runtime(inference={"models": [{"name": "compass", "path": str(folder)}]})
    async with node_process("c", config=config, arguments=FAST) as c, node_process("a", join=[c.gossip], arguments=FAST) as a:

        async def there() -> bool:
            return await ready_for(a, "compass")

        await eventually(there, 10.0)
        async with openai.AsyncOpenAI(base_url=f"{a.api}/v1", api_key="none", max_retries=0) as client:
            raw = await client.embeddings.with_raw_response.create(model="compass", input=["north", "east"])
            assert [row.embedding for row in raw.parse().data] == [[0.0, 1.0], [1.0, 0.0]]
            assert (raw.headers["X-Astromesh-Node"], raw.headers["X-Astromesh-Home"]) == ("c", "a")
            (model,) = [one for one in (await client.models.list()).data if one.id == "compass"]
            assert (model.model_extra or {})["capabilities"] == ["embed"]
            with pytest.raises(openai.BadRequestError, match="can embed and not complete"):
                await client.chat.completions.create(model="compass", messages=[{"role": "user", "content": "north"}])
            await c.kill()

            async def gone() -> bool:
                with pytest.raises(openai.InternalServerError) as refused:
                    await client.embeddings.create(model="compass", input="north")
                return refused.value.status_code == 503

            await eventually(gone, 10.0)


async def test_a_node_without_the_models_answers_with_the_ranks_and_the_labels_of_the_one_that_has_them(
    tmp_path_factory: pytest.TempPathFactory,
) -> None:
    judge, mood = tmp_path_factory.mktemp("judge"), tmp_path_factory.mktemp("mood")
    # It reads the documents alone, so a query that is taken for one shows.
    small_encoder(judge, {"sea": (2.0,), "tax": (-1.0,)}, nodes="second", manifest={"task": "rerank"})
    labels = {"task": "classify", "labels": ["rude", "kind"], "activation": "none"}
    small_encoder(mood, {"thanks": (0.0, 3.0), "idiot": (5.0, 0.0)}, nodes="sums", manifest=labels)
    config = runtime(inference={"models": [{"name": "judge", "path": str(judge)}, {"name": "mood", "path": str(mood)}]})
    async with node_process("c", config=config, arguments=FAST) as c, node_process("a", join=[c.gossip], arguments=FAST) as a:
        for model in ("judge", "mood"):
            await eventually(lambda model=model: ready_for(a, model), 10.0)
        ranked = await a.post("/v1/rerank", {"model": "judge", "query": "sea sea", "documents": ["tax", "sea sea", "sea"], "top_n": 2})
        assert [(one["index"], one["relevance_score"]) for one in ranked["results"]] == [(1, 4.0), (2, 2.0)]
        labelled = await a.post("/v1/classify", {"model": "mood", "input": ["idiot thanks", "thanks"]})
        assert [(row["label"], row["probs"]) for row in labelled["data"]] == [("rude", [5.0, 3.0]), ("kind", [0.0, 3.0])]
        found = {one["id"]: one["capabilities"] for one in (await a.get("/v1/models"))["data"]}
        assert (found["judge"], found["mood"]) == (["rerank"], ["classify"])
        async with a.http.post("/v1/classify", json={"model": "judge", "input": "x"}) as refused:
            assert refused.status == 400
            assert "can rerank and not classify" in (await refused.json())["error"]["message"]


async def test_vectors_of_a_server_behind_another_node_come_through_and_what_it_has_not_is_refused_by_name() -> None:
    async with StubOpenAI(models=["lamp"]) as stub:
        config = provider(stub.endpoint, models=["lamp"])
        async with node_process("c", config=config, arguments=FAST) as c, node_process("a", join=[c.gossip], arguments=FAST) as a:
            await eventually(lambda: ready_for(a, "lamp"), 10.0)
            for node in (a, c):
                made = await node.post("/v1/embeddings", {"model": "lamp", "input": ["one", "three"]})
                assert [row["embedding"] for row in made["data"]] == [[3.0, 0.0], [5.0, 1.0]]
                assert made["usage"]["prompt_tokens"] == 4
            stub.embeds = 501
            for node in (a, c):
                async with node.http.post("/v1/embeddings", json={"model": "lamp", "input": "x"}) as refused:
                    assert refused.status == 400
                    assert "provider stub makes no embeddings with model lamp" in (await refused.json())["error"]["message"]
