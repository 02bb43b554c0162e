"""What was computed once: a radix tree over token ids, with the KV state of every path in it. Pure.

The state lies in the node's memory and not in the model's context: kept cells would slow every decode down (attention looks past them;
6,000 of them cost SmolLM2 a sixth of its speed), and copying them back is cheap (600 tokens, 14 MB: 2 ms, where computing them takes 2 s).
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Final

# Shorter tails are computed again sooner than found again: an edge costs more to keep than sixteen tokens cost to read.
TAIL_TOKENS_MIN: Final = 16


@dataclass(frozen=True, slots=True, eq=False)
class State:
    """The cells of the tokens from `start` to `end` of one path, as the engine wrote them."""

    start: int
    end: int
    data: bytes = field(repr=False)


@dataclass(frozen=True, slots=True)
class Part:
    """Take the cells from `start` to `end` out of `state`."""

    state: State
    start: int
    end: int


@dataclass(slots=True, eq=False)
class _Edge:
    """Tokens from `start` on, below `parent`. Only the root has no state, and no tokens."""

    parent: _Edge | None
    start: int
    tokens: tuple[int, ...]
    state: State
    marks: dict[bytes, int] = field(default_factory=dict)  # how far a conversation came whose digest this is
    children: dict[int, _Edge] = field(default_factory=dict)
    used: int = 0

    @property
    def end(self) -> int:
        return self.start + len(self.tokens)


class PrefixTree:
    """At most `bytes_max` of state; what was not used for longest goes first, from the ends of paths."""

    def __init__(self, *, bytes_max: int) -> None:
        self.bytes_max = bytes_max
        self.bytes_kept = 0
        self._root = _Edge(None, 0, (), State(0, 0, b""))
        self._uses = 0
        self._owners: dict[int, int] = {}  # how many edges share a state, by its identity

    def match(self, tokens: Sequence[int]) -> tuple[Part, ...]:
        """Where the state of the longest known beginning of `tokens` lies, without holes, from 0 on. Counts as a use."""
        edges, length = self._walk(tokens)
        self._use(edges)
        parts: list[Part] = []
        for edge in edges:
            end = min(edge.end, length)
            if parts and parts[-1].state is edge.state:  # neighbours out of one state, so that it is read once
                parts[-1] = Part(edge.state, parts[-1].start, end)
            else:
                parts.append(Part(edge.state, edge.start, end))
        return tuple(parts)

    def known(self, tokens: Sequence[int]) -> int:
        """How long that beginning is."""
        return self._walk(tokens)[1]

    def insert(self, tokens: Sequence[int], state: State, *, marks: Mapping[bytes, int]) -> None:
        """Keep the state of `tokens` from `state.start` to their end; all before it is known, or nothing is kept.

        `marks` are digests of conversations, and how far along `tokens` each came.
        """
        edges, length = self._walk(tokens)
        if length < state.start or len(state.data) > self.bytes_max:
            return
        if len(tokens) - length >= TAIL_TOKENS_MIN:
            above = edges[-1] if edges else self._root
            if length < above.end:
                above = edges[-1] = self._split(above, length)
            edge = above.children[tokens[length]] = _Edge(above, length, tuple(tokens[length:]), state)
            self._own(state)
            edges.append(edge)
        self._use(edges)
        for digest, position in marks.items():
            for edge in edges:
                if edge.start < position <= edge.end:
                    edge.marks[digest] = position
        while self.bytes_kept > self.bytes_max:
            self._drop_oldest()

    def warm(self) -> Iterator[tuple[bytes, int]]:
        """Digests of the conversations whose beginnings are known, and how many tokens of each, lately used first."""
        for edge in sorted(self._edges(), key=lambda edge: (-edge.used, -edge.start)):
            yield from sorted(edge.marks.items(), key=lambda mark: -mark[1])

    def _walk(self, tokens: Sequence[int]) -> tuple[list[_Edge], int]:
        """The edges along `tokens`, the last one perhaps not to its end, and how many tokens they share."""
        edges: list[_Edge] = []
        edge, length = self._root, 0
        while length < len(tokens) and (child := edge.children.get(tokens[length])) is not None:
            edges.append(child)
            shared = shared_tokens(child.tokens, tokens[length:])
            length += shared
            if shared < len(child.tokens):
                break
            edge = child
        return edges, length

    def _use(self, edges: Sequence[_Edge]) -> None:
        self._uses += 1
        for edge in edges:
            edge.used = self._uses

    def _split(self, edge: _Edge, position: int) -> _Edge:
        """Two edges instead of one, over the same state; the upper one is returned."""
        kept = position - edge.start
        upper = _Edge(edge.parent, edge.start, edge.tokens[:kept], edge.state, used=edge.used)
        upper.marks = {digest: place for digest, place in edge.marks.items() if place <= position}
        assert edge.parent is not None
        edge.parent.children[upper.tokens[0]] = upper
        edge.parent, edge.start, edge.tokens = upper, position, edge.tokens[kept:]
        edge.marks = {digest: place for digest, place in edge.marks.items() if place > position}
        upper.children[edge.tokens[0]] = edge
        self._own(edge.state)
        return upper

    def _own(self, state: State) -> None:
        owners = self._owners.get(id(state), 0)
        self._owners[id(state)] = owners + 1
        if not owners:
            self.bytes_kept += len(state.data)

    def _drop_oldest(self) -> None:
        leaf = min((edge for edge in self._edges() if not edge.children), key=lambda edge: (edge.used, -edge.start))
        assert leaf.parent is not None
        del leaf.parent.children[leaf.tokens[0]]
        self._owners[id(leaf.state)] -= 1
        if not self._owners[id(leaf.state)]:
            del self._owners[id(leaf.state)]
            self.bytes_kept -= len(leaf.state.data)

    def _edges(self) -> Iterator[_Edge]:
        waiting = list(self._root.children.values())
        while waiting:
            edge = waiting.pop()
            yield edge
            waiting += edge.children.values()


def shared_tokens(one: Sequence[int], other: Sequence[int]) -> int:
    """How many tokens both begin with."""
    return next((index for index, (mine, theirs) in enumerate(zip(one, other, strict=False)) if mine != theirs), min(len(one), len(other)))
