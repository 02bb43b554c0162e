"""What a model's node tells others of the conversations that it would not have to read again. Pure.

A digest stands for the beginning of a conversation up to a message's end. It is a hash under a salt that the worker draws when it starts:
whoever has the same beginning and the salt finds it again, nobody reads a prompt out of it, and a table made in advance is worth nothing.
Over messages and not over tokens, so that a node without the model can look a conversation up, too.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable, Sequence
from typing import Final

from astromesh.dialogue import Message, ToolSchema

SALT_BYTES: Final = 8
DIGEST_BYTES: Final = 7  # of 10,000 conversations, two are taken for one another once in a thousand million times
WARMTH_BYTES_MAX: Final = 512
_ENTRY_BYTES: Final = DIGEST_BYTES + 1
_ENTRIES_MAX: Final = (WARMTH_BYTES_MAX - SALT_BYTES) // _ENTRY_BYTES


def digests(messages: Sequence[Message], tools: Sequence[ToolSchema], *, salt: bytes) -> list[bytes]:
    """One for each beginning of a conversation: the first message, the first two, … all of them."""
    chain = hashlib.blake2b(key=salt, digest_size=16)
    chain.update(_canonical([[tool.name, tool.description, dict(tool.parameters)] for tool in tools]))
    found = []
    for message in messages:
        calls = [[call.name, call.arguments] for call in message.tool_calls]
        chain.update(_canonical([message.role, message.content, calls]))
        found.append(chain.digest()[:DIGEST_BYTES])
    return found


def _canonical(value: object) -> bytes:
    text = json.dumps(value, ensure_ascii=False, sort_keys=True, separators=(",", ":")).encode(errors="replace")
    return len(text).to_bytes(4, "big") + text


def encode(warm: Iterable[tuple[bytes, int]], *, salt: bytes) -> bytes:
    """At most 512 bytes: the salt, then digests, each with the power of two of its tokens."""
    entries: dict[bytes, int] = {}
    for digest, tokens in warm:
        if len(entries) == _ENTRIES_MAX:
            break
        entries.setdefault(digest, min(255, tokens.bit_length()))
    return salt + b"".join(digest + bytes((size,)) for digest, size in entries.items())


def longest(warmth: bytes, messages: Sequence[Message], tools: Sequence[ToolSchema]) -> int:
    """About how many tokens of this conversation are warm there; 0 for none, or for bytes that say nothing."""
    salt, body = warmth[:SALT_BYTES], warmth[SALT_BYTES:WARMTH_BYTES_MAX]
    if len(salt) < SALT_BYTES:
        return 0
    known = {
        body[start : start + DIGEST_BYTES]: body[start + DIGEST_BYTES] for start in range(0, len(body) - _ENTRY_BYTES + 1, _ENTRY_BYTES)
    }
    return max((1 << known[digest] >> 1 for digest in digests(messages, tools, salt=salt) if digest in known), default=0)
