"""A real node with a real model: too many at once, readers that stall or leave, a worker that dies; each gets a clear answer, none two."""

from __future__ import annotations

import asyncio
import json
import os
import signal
import socket
from collections import Counter
from collections.abc import AsyncIterator, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import psutil
import pytest
from tests.rig.documents import runtime
from tests.rig.eventually import eventually
from tests.rig.nodes import Node, node_process
from tests.rig.ports import LOOPBACK

from astromesh.inference.store import StoredModel

pytestmark = [pytest.mark.engine, pytest.mark.processes, pytest.mark.timeout(300)]

LOADED_S = 30.0
IDLE_S = 1.0
STORY_S = 20.0  # 200 tokens, and what they are told with
WRITTEN_AHEAD_BYTES = 64 * 1024  # asyncio's own, before whoever writes has to wait
FLOOD = 200


@pytest.fixture
async def node(smollm2: StoredModel) -> AsyncIterator[Node]:
    served = runtime(inference={"models_dir": str(smollm2.path.parent.parent), "models": [{"name": "smollm2", "context": 512}]})
    async with node_process("alone", config=served) as node:

        async def loaded() -> bool:
            async with node.http.get("/v1/ready", params={"model": "smollm2"}) as response:
                return response.status == 200

        await eventually(loaded, LOADED_S, what="the model is loaded")
        yield node


def body(question: str, **keys: Any) -> dict[str, Any]:
    return {"model": "smollm2", "messages": [{"role": "user", "content": question}], "temperature": 0, **keys}


async def finished(node: Node) -> int:
    """Completions that the worker has carried to their end."""
    async with node.http.get("/metrics") as response:
        lines = (await response.text()).splitlines()
    return int(float(next(line.split()[-1] for line in lines if line.startswith("astromesh_inference_completions_total"))))


async def idle(node: Node) -> bool:
    async with node.http.get("/metrics") as response:
        lines = (await response.text()).splitlines()
    return [line.split()[-1] for line in lines if line.startswith(("astromesh_inference_running{", "astromesh_inference_queued{"))] == [
        "0.0",
        "0.0",
    ]


def worker_of(node: Node) -> psutil.Process:
    (found,) = [child for child in psutil.Process(node.pid).children() if any("llama_cpp" in word for word in child.cmdline())]
    return found


async def test_of_two_hundred_at_once_each_is_answered_or_refused_and_none_twice(node: Node) -> None:
    async def one(number: int) -> tuple[int, str]:
        async with node.http.post("/v1/chat/completions", json=body(f"Say {number}.", max_tokens=2)) as response:
            answer = await response.json()
            if response.status == 200:
                return 200, answer["choices"][0]["message"]["content"]
            assert response.headers["Retry-After"], answer
            return response.status, answer["error"]["code"]

    before = await finished(node)
    answers = await asyncio.gather(*(one(number) for number in range(FLOOD)))
    statuses = Counter(status for status, _ in answers)
    assert set(statuses) <= {200, 429, 503}
    assert statuses[200] >= 4
    assert statuses[200] < FLOOD, "the queue has no bound"
    assert all(text for status, text in answers if status == 200)
    await eventually(lambda: idle(node), IDLE_S, what="nothing is left in the queue")
    assert await finished(node) - before == statuses[200]


async def test_a_worker_killed_in_mid_stream_is_told_to_its_reader_and_the_next_question_is_answered(node: Node) -> None:
    stream = body("Tell a very long story.", max_tokens=300, stream=True)
    async with node.http.post("/v1/chat/completions", json=stream) as response:
        assert response.status == 200
        await response.content.readline()
        os.kill(worker_of(node).pid, signal.SIGKILL)
        rest = (await response.content.read()).decode()
    (error,) = [json.loads(line[6:])["error"] for line in rest.splitlines() if line.startswith('data: {"error"')]
    assert error["code"] == "model_provider_unavailable"
    assert "SIGKILL" in error["message"]
    async with node.http.post("/v1/chat/completions", json=body("Name a colour.", max_tokens=4)) as response:
        assert response.status == 200, await response.text()
    assert node.exit_code is None


async def test_a_prompt_beyond_the_context_is_400_with_both_numbers(node: Node) -> None:
    async with node.http.post("/v1/chat/completions", json=body("word " * 900)) as response:
        answer = await response.json()
    assert response.status == 400
    assert "512" in answer["error"]["message"]
    assert "93" in answer["error"]["message"]  # 900 words and what the template adds


async def test_a_reader_that_leaves_frees_the_worker_and_one_that_stalls_holds_nobody_up(node: Node) -> None:
    leaver = await node.http.post("/v1/chat/completions", json=body("Tell a long story.", max_tokens=400, stream=True))
    await leaver.content.readline()
    leaver.close()
    await eventually(lambda: idle(node), IDLE_S, what="the worker has stopped for whoever left")
    with narrow_socket() as stalled:
        loop = asyncio.get_running_loop()
        await loop.sock_connect(stalled, (LOOPBACK, int(node.api.rpartition(":")[2])))
        # Each token with its twenty nearest: some 400 KB, twice of what lies between the node and who does not read.
        await loop.sock_sendall(stalled, post(body("Tell a long story.", max_tokens=200, stream=True, logprobs=True, top_logprobs=20)))
        read = await loop.sock_recv(stalled, 16)
        async with node.http.post("/v1/chat/completions", json=body("Name a colour.", max_tokens=4)) as response:
            assert response.status == 200
        await eventually(lambda: idle(node), STORY_S, what="the worker has done its part, read or not")
        on_its_way = unread_bytes(stalled) + WRITTEN_AHEAD_BYTES
        while not read.endswith(b"0\r\n\r\n"):  # the last chunk
            read += await asyncio.wait_for(loop.sock_recv(stalled, 65536), 60)
        assert b"data: [DONE]" in read[-64:], read[-500:]
    assert len(read) > on_its_way, "what was not read had room on its way: nobody was held up by that reader"


@contextmanager
def narrow_socket() -> Iterator[socket.socket]:
    """Its other side may send next to nothing ahead: the kernel lets a sender have room for some segments, and these are small."""
    with socket.socket() as narrow:
        narrow.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
        narrow.setsockopt(socket.IPPROTO_TCP, socket.TCP_MAXSEG, 536)
        narrow.setblocking(False)
        yield narrow


def post(asked: dict[str, Any]) -> bytes:
    content = json.dumps(asked).encode()
    head = f"POST /v1/chat/completions HTTP/1.1\r\nHost: {LOOPBACK}\r\nContent-Length: {len(content)}\r\n"
    return f"{head}Content-Type: application/json\r\n\r\n".encode() + content


def unread_bytes(ours: socket.socket) -> int:
    """Of a connection on this machine what lies in the kernel, on both sides of it."""
    ports = {ours.getsockname()[1], ours.getpeername()[1]}
    rows = [line.split() for line in Path("/proc/net/tcp").read_text().splitlines()[1:]]
    queues = [row[4] for row in rows if {int(address.rpartition(":")[2], 16) for address in row[1:3]} == ports]
    assert len(queues) == 2, queues
    return sum(int(size, 16) for queue in queues for size in queue.split(":"))
