"""A turn as bytes: JSON that a person can read, since an export or a rescue may be all that is left of a conversation. Pure."""

from __future__ import annotations

from typing import Any, cast, get_args

import orjson

from astromesh.dialogue import Message, Role, ToolCall, Transcript
from astromesh.errors import TurnTooLarge
from astromesh.memory.port import TURN_BYTES_MAX


def pack(said: Transcript) -> bytes:
    """Raises `TurnTooLarge`."""
    packed = orjson.dumps([as_json(message) for message in said])
    if len(packed) > TURN_BYTES_MAX:
        raise TurnTooLarge(
            f"what was said in this turn is {len(packed)} bytes, and a history keeps at most {TURN_BYTES_MAX} of one",
            hint="ask in smaller parts, let the tools return less, or leave spec.memory out of this agent",
        )
    return packed


def unpack(packed: bytes) -> Transcript:
    """Raises `ValueError`, `KeyError` or `TypeError` for what `pack` did not write."""
    return tuple(_message(row) for row in orjson.loads(packed))


def as_json(message: Message) -> dict[str, Any]:
    row: dict[str, Any] = {"role": message.role, "content": message.content}
    if message.tool_calls:
        row["tool_calls"] = [{"id": call.id, "name": call.name, "arguments": call.arguments} for call in message.tool_calls]
    if message.tool_call_id is not None:
        row["tool_call_id"] = message.tool_call_id
    return row


def _message(row: dict[str, Any]) -> Message:
    role = row["role"]
    if role not in get_args(Role):
        raise ValueError(f"{role!r} is no role")
    calls = tuple(ToolCall(call["id"], call["name"], call["arguments"]) for call in row.get("tool_calls", ()))
    return Message(cast("Role", role), row["content"], calls, row.get("tool_call_id"))
