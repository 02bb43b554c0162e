"""The load client counts what was answered in full and as expected, and everything else as a failure with its reason."""

from __future__ import annotations

from typing import Any

import pytest
from tests.bench.load import Answer, Order, load_client
from tests.rig.stub_openai import StubOpenAI

LENGTH = b"HTTP/1.1 200 OK\r\ncontent-length: 5\r\nX-Other: 1\r\n\r\nhello"
CHUNKS = b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n6\r\n0\r\n\r\n!\r\n3\r\nabc\r\n0\r\n\r\n"


@pytest.mark.parametrize("raw", [LENGTH, CHUNKS], ids=["length", "chunks"])
def test_an_answer_is_whole_at_its_last_byte_however_it_is_cut(raw: bytes) -> None:
    for size in range(1, len(raw) + 1):
        answer = Answer()
        pieces = [raw[start : start + size] for start in range(0, len(raw), size)]
        assert [answer.feed(piece) for piece in pieces] == [False] * (len(pieces) - 1) + [True]
        assert answer.complaint(b"") == ""


def test_an_answer_without_a_length_is_refused() -> None:
    with pytest.raises(ValueError, match="unknown length"):
        Answer().feed(b"HTTP/1.1 200 OK\r\n\r\nhello")


def ask(stub: StubOpenAI, model: str, **keys: Any) -> Order:
    body = {"model": model, "messages": [{"role": "user", "content": "ping"}], "stream": keys.pop("stream", False)}
    return Order(url=f"{stub.endpoint}/chat/completions", body=body, **keys)


async def test_every_answer_is_counted_once_by_one_client_and_by_many() -> None:
    async with StubOpenAI() as stub, load_client() as load:
        one = await load.carry_out(ask(stub, "stub", expect="You said: ping", requests=7))
        assert (len(one.latencies_us), one.failures, stub.served) == (7, {}, 7)
        many = await load.carry_out(ask(stub, "stub", expect="You said: ping", requests=50, clients=8))
        assert (len(many.latencies_us), many.failures, stub.served) == (50, {}, 57)
        streamed = await load.carry_out(ask(stub, "stub", expect="[DONE]", requests=3, stream=True))
        assert (len(streamed.latencies_us), streamed.failures) == (3, {})
        timed = await load.carry_out(ask(stub, "stub", expect="You said: ping", seconds=0.1, clients=2))
        assert timed.latencies_us
        assert timed.failures == {}
        assert stub.active == 0


async def test_a_wrong_status_wrong_words_and_a_broken_stream_are_failures() -> None:
    async with StubOpenAI() as stub, load_client() as load:
        assert (await load.carry_out(ask(stub, "fails-500", expect="", requests=3))).failures == {"status 500": 3}
        unexpected = await load.carry_out(ask(stub, "stub", expect="You said: pong", requests=3))
        assert unexpected.failures == {"an answer without the expected words": 3}
        broken = await load.carry_out(ask(stub, "half-a-stream", expect="", requests=5, clients=2, stream=True))
        assert broken.failures == {"the connection was closed in mid-answer": 2}
        assert broken.latencies_us == []
    gone = await _carry_out_without_server()
    assert gone == {"ConnectionRefusedError on connect": 1}


async def _carry_out_without_server() -> dict[str, int]:
    async with load_client() as load:
        return (await load.carry_out(Order(url="http://127.0.0.1:1/", body={}, expect="", requests=1))).failures
