"""What a tool gave back, as text that fits a prompt. Pure."""

from __future__ import annotations

from typing import Any

from pydantic_core import PydanticSerializationError, to_json

from astromesh.tools.port import ToolFailed

BYTES_A_TOKEN = 4  # of English prose; scripts that take more bytes a letter take more tokens a letter, too


def as_text(value: Any) -> str:
    """Text as it is, everything else as JSON; bytes that are no text are counted. Raises `ToolFailed` where JSON has no word for it."""
    match value:
        case str():
            return str(value)
        case None:
            return "done"
        case bytes() | bytearray() | memoryview():
            return shown_bytes(bytes(value))
        case _:
            try:
                return to_json(value, bytes_mode="base64", inf_nan_mode="strings").decode()
            except (PydanticSerializationError, ValueError, RecursionError) as mistake:
                raise ToolFailed(f"it did it, and what it gave back is no JSON: {type(value).__name__}") from mistake


def shown_bytes(data: bytes, *, charset: str = "utf-8", kind: str = "") -> str:
    """Text, or how much of what it is that is none."""
    if b"\0" not in data:
        try:
            return data.decode(charset)
        except (UnicodeDecodeError, LookupError):
            pass
        if kind.startswith("text/") or "json" in kind or "xml" in kind:
            return data.decode("utf-8", "replace")
    return f"[{len(data)} bytes{f' of {kind}' if kind else ''}, not text]"


def fitted(text: str, tokens_max: int) -> str:
    """At most so many tokens of it, by estimate, and a word about what is missing. What UTF-8 cannot say is replaced."""
    bytes_max = tokens_max * BYTES_A_TOKEN
    head = text[: bytes_max + 1].encode("utf-8", "replace")
    if len(head) <= bytes_max:
        return head.decode()
    shown = head[:bytes_max].decode("utf-8", "ignore")
    return f"{shown}\n[cut: the first {len(shown)} of {len(text)} characters; ask for less at once]"
