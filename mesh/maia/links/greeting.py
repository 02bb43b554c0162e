"""Who speaks, and in which versions: what the first frame of each side says."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from maia.errors import ConversationBroken
from maia.links.frames import Hello
from maia.links.limits import FRAME_BYTES_MAX, PIECE_COST_BYTES

VERSION_MIN = 1
VERSION_MAX = 1
# Names are at most 63 characters on the gossip's wire, ids a hash in text; the rest is room for what a name may become.
NAME_CHARACTERS_MAX = 256


@dataclass(frozen=True, slots=True)
class Greeting:
    """A node as it introduces itself on a link: its name in the mesh, and its id. Nothing here is proven."""

    name: str
    node_id: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Introduction:
    """What the other side said, once it was understood."""

    greeting: Greeting
    version: int
    window_bytes: int  # of replies of one call that it lets wait unread


def hello(me: Greeting, *, window_bytes: int, versions: tuple[int, int] = (VERSION_MIN, VERSION_MAX)) -> Hello:
    return Hello({"versions": list(versions), "name": me.name, "node_id": me.node_id, "window_bytes": window_bytes})


def understand(facts: Mapping[str, Any], *, versions: tuple[int, int] = (VERSION_MIN, VERSION_MAX)) -> Introduction:
    """Raises `ConversationBroken`: for two ranges of versions that do not meet it names both. What it does not know it ignores."""
    match facts:
        case {"versions": [int(lowest), int(highest), *_], "name": str(name), "node_id": str(node_id), "window_bytes": int(window_bytes)}:
            pass
        case _:
            raise ConversationBroken("bad_hello", "versions, name, node_id and window_bytes were expected")
    if not (0 < len(name) <= NAME_CHARACTERS_MAX and len(node_id) <= NAME_CHARACTERS_MAX):
        raise ConversationBroken("bad_hello", f"a name of {len(name)} and an id of {len(node_id)} characters: 1 to {NAME_CHARACTERS_MAX}")
    if window_bytes < FRAME_BYTES_MAX + PIECE_COST_BYTES:
        raise ConversationBroken("bad_hello", f"a window of {window_bytes} bytes holds no frame")
    if max(lowest, versions[0]) > min(highest, versions[1]):
        raise ConversationBroken(
            "no_common_version",
            f"{name} speaks versions {lowest} to {highest} of links, this node {versions[0]} to {versions[1]}; update the older one",
        )
    return Introduction(greeting=Greeting(name, node_id), version=min(highest, versions[1]), window_bytes=window_bytes)
