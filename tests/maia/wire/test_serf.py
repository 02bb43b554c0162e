"""Serf's messages: what stock agents say is read, what we say is what they say, and nothing else gets through."""

from __future__ import annotations

import json
from pathlib import Path

import msgpack
import pytest

from maia.config import Address
from maia.errors import DatagramRejected
from maia.wire.serf import (
    STATE_BYTES_MAX,
    JoinIntent,
    KeyAnswer,
    LeaveIntent,
    Query,
    Relay,
    Response,
    UserEvent,
    UserState,
    decode_key_answer,
    decode_key_request,
    decode_serf,
    decode_state,
    encode_join,
    encode_key_answer,
    encode_key_request,
    encode_leave,
    encode_query,
    encode_relay,
    encode_response,
    encode_state,
)

GOLDEN = json.loads((Path(__file__).parent / "golden" / "serf.json").read_text())
MESSAGES = {name: bytes.fromhex(text) for name, text in GOLDEN["messages"].items()}
STATES = [bytes.fromhex(text) for text in GOLDEN["states"]]
OLD_KEY, NEW_KEY = bytes(range(16)), bytes(range(32))


def test_the_intents_of_a_stock_agent_are_read() -> None:
    assert decode_serf(MESSAGES["join"]) == JoinIntent(1, "stock-2")
    assert decode_serf(MESSAGES["leave"]) == LeaveIntent(4, "stock-2")
    assert decode_serf(MESSAGES["force-leave"]) == LeaveIntent(2, "nobody")
    assert decode_serf(MESSAGES["prune"]) == LeaveIntent(3, "nobody2", prune=True)


def test_of_a_stock_agent_s_event_only_the_time_is_read() -> None:
    assert decode_serf(MESSAGES["event"]) == UserEvent(1)


def test_the_queries_of_a_stock_agent_are_read() -> None:
    query = decode_serf(MESSAGES["query"])
    assert isinstance(query, Query)
    assert (query.time, query.title, query.payload, query.node, query.timeout_s) == (1, b"uptime", b"now?", "stock-2", 1.0)
    assert (query.wants_ack, query.told_on, query.filtered, query.relays) == (True, True, False, 0)
    filtered = decode_serf(MESSAGES["filtered-query"])
    assert isinstance(filtered, Query)
    assert (filtered.wants_ack, filtered.filtered, filtered.relays) == (False, True, 1)


@pytest.mark.parametrize(
    ("name", "title", "key"),
    [
        ("list-keys", b"_serf_list-keys", b""),
        ("install-key", b"_serf_install-key", NEW_KEY),
        ("use-key", b"_serf_use-key", OLD_KEY),
        ("remove-key", b"_serf_remove-key", NEW_KEY),
    ],
)
def test_the_queries_of_a_stock_agent_about_keys_are_read_and_written_alike(name: str, title: bytes, key: bytes) -> None:
    query = decode_serf(MESSAGES[name])
    assert isinstance(query, Query)
    assert (query.title, decode_key_request(query.payload)) == (title, key)
    assert query.payload == encode_key_request(key or None)
    assert msgpack.unpackb(encode_query(query)[1:], raw=True) == msgpack.unpackb(MESSAGES[name][1:], raw=True)


def test_the_answers_of_a_stock_agent_are_read_and_written_alike() -> None:
    response = decode_serf(MESSAGES["response-keys"])
    assert isinstance(response, Response)
    answer = decode_key_answer(response.payload)
    assert (response.node, answer.ok, answer.primary, len(answer.keys)) == ("stock-1x", True, answer.keys[0], 2)
    assert msgpack.unpackb(encode_response(response)[1:], raw=True) == msgpack.unpackb(MESSAGES["response-keys"][1:], raw=True)
    assert msgpack.unpackb(encode_key_answer(answer)[1:], raw=True) == msgpack.unpackb(response.payload[1:], raw=True)
    refusal = decode_serf(MESSAGES["response-refused"])
    assert isinstance(refusal, Response)
    assert decode_key_answer(refusal.payload) == KeyAnswer(False, "Removing the primary key is not allowed")


def test_what_a_stock_agent_relays_is_taken_out_whole() -> None:
    relay = decode_serf(MESSAGES["relay"])
    assert isinstance(relay, Relay)
    inner = decode_serf(relay.body)
    assert isinstance(inner, Response)
    assert (inner.node, relay.target) == ("stock-3x", Address("127.0.183.2", 22313))
    assert decode_serf(encode_relay(relay, node="ours-a-000001")) == relay


def test_the_state_of_a_stock_agent_is_read_without_its_old_events() -> None:
    state = decode_state(STATES[1])
    assert (state.event_time, state.left) == (3, ())
    assert "stock-2" in state.status_times
    assert decode_state(encode_state(UserState(9, {"a": 3, "b": 8}, ("b",), 2, 4))) == UserState(9, {"a": 3, "b": 8}, ("b",), 2, 4)


def test_intents_are_written_as_stock_agents_write_them() -> None:
    assert msgpack.unpackb(encode_leave(LeaveIntent(4, "stock-2"))[1:]) == msgpack.unpackb(MESSAGES["leave"][1:])
    assert encode_join(JoinIntent(1, "stock-2")) == MESSAGES["join"]


@pytest.mark.parametrize(
    ("body", "reason"),
    [
        (b"", "empty"),
        (b"\x2a\x80", "unknown-serf"),
        (b"\x01\x80", "bad-name"),
        (b"\x01" + msgpack.packb({"LTime": 2**63, "Node": "a"}, use_bin_type=False), "hostile-clock"),
        (b"\x01" + msgpack.packb({"LTime": -1, "Node": "a"}, use_bin_type=False), "bad-number"),
        (b"\x00" + msgpack.packb({"LTime": 1, "Node": "a" * 129}, use_bin_type=False), "bad-name"),
        (b"\x04" + msgpack.packb({"LTime": 1, "Filters": [b""] * 65}, use_bin_type=False), "bad-query"),
        (b"\x05" + msgpack.packb({"From": "a", "Payload": b"x" * 1025}, use_bin_type=False), "bad-bytes"),
        (b"\x09\x81\xa8DestAddr\xc0", "bad-relay"),
        (b"\x03\xc1", "bad-msgpack"),
    ],
)
def test_what_is_no_message_of_serf_is_refused_by_its_reason(body: bytes, reason: str) -> None:
    with pytest.raises(DatagramRejected) as refusal:
        decode_serf(body)
    assert refusal.value.reason == reason


@pytest.mark.parametrize(
    ("state", "reason"),
    [
        (b"\x02" + b"\x00" * STATE_BYTES_MAX, "state-too-long"),
        (b"\x01\x80", "unknown-serf"),
        (b"\x02" + msgpack.packb({"StatusLTimes": [1]}), "bad-state"),
        (b"\x02" + msgpack.packb({"LeftMembers": [7]}), "bad-name"),
        (b"\x02" + msgpack.packb({"StatusLTimes": {b"a": 2**63}}, use_bin_type=False), "hostile-clock"),
        (b"\x02\x85", "bad-msgpack"),
    ],
)
def test_what_is_no_state_of_serf_is_refused_by_its_reason(state: bytes, reason: str) -> None:
    with pytest.raises(DatagramRejected) as refusal:
        decode_state(state)
    assert refusal.value.reason == reason


def test_what_another_node_says_is_cut_and_made_fit_to_be_shown() -> None:
    answer = decode_key_answer(encode_key_answer(KeyAnswer(False, "no\x1b[2J " + "x" * 500)))
    assert answer.message.isprintable()
    assert len(answer.message) == 256


def test_no_key_shows_in_what_a_message_says_of_itself() -> None:
    query = decode_serf(MESSAGES["install-key"])
    response = decode_serf(MESSAGES["response-keys"])
    assert isinstance(response, Response)
    for said in (repr(query), repr(response), repr(decode_key_answer(response.payload)), repr(decode_serf(MESSAGES["relay"]))):
        assert "AAEC" not in said
        assert "\\x01\\x02" not in said
