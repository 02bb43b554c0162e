"""Embeddings in OpenAI's shape, as a client writes and reads them. Pure."""

from __future__ import annotations

import base64
import sys
from array import array
from collections.abc import Mapping, Sequence
from typing import Any

# Texts of one request to a server. One that ignores `encoding_format` answers in decimals, and to read 128 vectors of 1,536 such numbers
# holds the interpreter for 20 ms.
TEXTS_AT_ONCE = 128
DIMENSIONS_MAX = 65_536  # no model has more; a row is a quarter of a megabyte then


def vectors_body(model: str, texts: Sequence[str], *, dimensions: int | None) -> dict[str, Any]:
    """Base64 is a third of the bytes and one JSON value for each vector; a server that does not know it answers in decimals."""
    body: dict[str, Any] = {"model": model, "input": list(texts), "encoding_format": "base64"}
    return body if dimensions is None else {**body, "dimensions": dimensions}


def read_vectors(answer: Mapping[str, Any], *, texts: int) -> list[bytes]:
    """A row for each text, in their order. Raises `ValueError` for anything else."""
    try:
        rows = {row["index"]: _row(row["embedding"]) for row in answer["data"]}
        found = [rows[place] for place in range(texts)]
    except (KeyError, TypeError, AttributeError, OverflowError) as mistake:
        raise ValueError("not embeddings") from mistake
    if len(rows) != texts or len({len(row) for row in found}) != 1:
        raise ValueError("another number of vectors than of texts, or vectors of different lengths")
    return found


def _row(said: Any) -> bytes:
    """float32, little-endian."""
    if isinstance(said, str):
        data = base64.b64decode(said, validate=True)
    else:
        numbers = array("f", said)
        if sys.byteorder == "big":
            numbers.byteswap()
        data = numbers.tobytes()
    if not data or len(data) % 4 or len(data) > 4 * DIMENSIONS_MAX:
        raise ValueError("no vector")
    return data
