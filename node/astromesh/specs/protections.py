"""What of a node's own file nobody may lose by a mistake elsewhere in it: the keys that keep others out. Pure.

A file with mistakes is set aside as a whole, so the node would run on defaults: unsealed, of no cluster. Here is whether the file asks for
more than that. In doubt it does: a node that does not start is noticed, one that is open to everybody is not.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from difflib import get_close_matches
from typing import Any

from astromesh.specs.documents import read_documents

_PROTECTIONS = {"keyringfile": "mesh.keyring_file", "clusterid": "mesh.cluster_id", "tls": "api.tls", "auth": "auth"}
_ALIKE = 0.85  # as for every "did you mean": a slip of the finger, not another word
_OFF = (None, "", False, "off")  # written, and asks for nothing
_COMMENT = re.compile(r"(?:^|\s)#.*", re.MULTILINE)
_WORD = re.compile(r"[A-Za-z][A-Za-z_-]*")


def protections(text: str) -> tuple[str, ...]:
    """Which of them a file names, misspelt ones too, whether it is YAML or not."""
    documents, unreadable = read_documents(text, source="")
    words = [word for document in documents for word in _keys(document.value)]
    if unreadable:
        words += _WORD.findall(_COMMENT.sub("", text))
    named = {meant for word in words if (meant := _meant(word))}
    return tuple(place for place in _PROTECTIONS.values() if place in named)


def _keys(value: Any) -> Iterator[str]:
    """Of a value and of all within it; documents are only so deep."""
    if isinstance(value, dict):
        yield from (key for key, inner in value.items() if inner not in _OFF)
    if isinstance(value, dict | list):
        for inner in value.values() if isinstance(value, dict) else value:
            yield from _keys(inner)


def _meant(word: str) -> str:
    plain = word.lower().replace("_", "").replace("-", "")
    long = [name for name in _PROTECTIONS if len(name) > len("auth")]  # a short word is like too many others
    close = [plain] if plain in _PROTECTIONS else get_close_matches(plain, long, n=1, cutoff=_ALIKE)
    return _PROTECTIONS[close[0]] if close else ""
