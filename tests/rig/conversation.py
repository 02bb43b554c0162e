"""A script tested as what it is, a conversation: it says what it wants, the test answers.

    talk = Conversation(react(part, opening))
    talk << AskModel(opening) >> ModelReply("Noon.") << Note("step", ...) >> None
    assert talk.outcome == Answer("Noon.", by="clock")

`<<` reads: the script says this and nothing else. `>>` reads: this is the reply; an exception is raised inside the script instead.
"""

from __future__ import annotations

from typing import Any, Generic, Self, TypeVar

from astromesh.effects import Effect, Script

T = TypeVar("T")

_NOTHING: Any = object()


class Conversation(Generic[T]):
    def __init__(self, script: Script[T]) -> None:
        """The script runs up to its first effect; what it raises on the way there is raised here."""
        self._script = script
        self._outcome: Any = _NOTHING
        self.effect: Effect[Any] | None = None  # what the script waits for; None once it is over
        self._advance(None)

    def __lshift__(self, expected: Effect[Any]) -> Self:
        assert self.effect == expected, f"the script says {self.effect!r}\ninstead of {expected!r}"
        return self

    def __rshift__(self, reply: Any) -> Self:
        assert self.effect is not None, f"the script is over, nobody waits for {reply!r}"
        self._advance(reply)
        return self

    @property
    def outcome(self) -> T:
        assert self._outcome is not _NOTHING, f"the script is not over: it waits for {self.effect!r}"
        outcome: T = self._outcome
        return outcome

    def _advance(self, reply: Any) -> None:
        self.effect = None
        try:
            self.effect = self._script.throw(reply) if isinstance(reply, BaseException) else self._script.send(reply)
        except StopIteration as end:
            self._outcome = end.value
