"""What `/openapi.json` promises is what is answered: no answer is a mistake of ours, and none is one that is not described.

The requests are made by schemathesis from the description itself, some as it says and some as it forbids, the same ones in every run.
"""

from __future__ import annotations

import asyncio
import threading
from collections.abc import AsyncGenerator, Iterator
from concurrent.futures import Future
from contextlib import AsyncExitStack

import pytest
import schemathesis
from hypothesis import HealthCheck, settings
from schemathesis import Case, GenerationMode
from schemathesis.specs.openapi.checks import (
    content_type_conformance,
    response_headers_conformance,
    response_schema_conformance,
    status_code_conformance,
)
from tests.rig.doors import Membership, open_doors
from tests.rig.mesh_view import HERE, member, mesh_view
from tests.rig.rooms import MODEL, Rooms, an_agent

from astromesh.api.app import ROUTES
from astromesh.api.documentation import describe, routes
from astromesh.dialogue import ModelEvent, ModelReply, ModelRequest, TextDelta, Usage

EXAMPLES = 15  # of each operation; all of them together take half a minute
START_S = 30.0
REQUEST_S = 10.0
# Described, and not to be read to an end: one never has any, the other is no exchange of a request for an answer.
ENDLESS = ["/v1/mesh/events", "/v1/ws/agent/{name}"]
# No mistakes of ours: what is not there now, and what was to be fetched from somewhere.
MEANT = {"/v1/ready": 503, "/v1/models/pull": 502}

schema = schemathesis.openapi.from_dict(describe((*ROUTES, *routes(ROUTES)), "1.2.3")).exclude(path=ENDLESS)
schema.config.generation.modes = [GenerationMode.POSITIVE, GenerationMode.NEGATIVE]


class Ready:
    """A model that answers everything at once."""

    async def complete(self, request: ModelRequest, *, timeout_s: float) -> AsyncGenerator[ModelEvent, None]:
        yield TextDelta("Good ")
        yield TextDelta("day.")
        yield ModelReply("Good day.", usage=Usage(1, 2), model=request.model)

    async def close(self) -> None:
        """Nothing is open."""


@pytest.fixture(scope="module")
def url() -> Iterator[str]:
    """A node with an agent, a model and a mesh, on a thread of its own."""
    opened, over = Future[str](), threading.Event()

    async def live() -> None:
        rooms = Rooms()
        rooms.has(Ready())
        rooms.hosts(an_agent("0", memory=rooms.memory))
        me = member(HERE, models=[MODEL], agents=["0"], api="127.0.0.1:8000")
        rooms.view = mesh_view(member("b-000001", agents=["1"], status="dead"), me=me, version=7)
        async with AsyncExitStack() as stack:
            doors = await stack.enter_async_context(open_doors(rooms, mesh=Membership()))
            # Names that come up often: there are then a run and a trace of that id, as there is an agent.
            await doors.run({"query": "Hello"}, agent="0", headers={"X-Request-Id": "0"})
            opened.set_result(doors.url)
            await asyncio.to_thread(over.wait)

    def whole_life() -> None:
        try:
            asyncio.run(live())
        except BaseException as failure:
            if opened.done():
                raise
            opened.set_exception(failure)

    thread = threading.Thread(target=whole_life)
    thread.start()
    try:
        yield opened.result(START_S)
    finally:
        over.set()
        thread.join(START_S)


@schema.parametrize()
@settings(max_examples=EXAMPLES, derandomize=True, deadline=None, database=None, suppress_health_check=list(HealthCheck))
def test_every_answer_is_one_that_is_described(case: Case, url: str) -> None:
    response = case.call(base_url=url, timeout=REQUEST_S)
    assert response.status_code < 500 or response.status_code == MEANT.get(case.operation.path), response.text
    case.validate_response(
        response,
        checks=[status_code_conformance, content_type_conformance, response_headers_conformance, response_schema_conformance],
    )
