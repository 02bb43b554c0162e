"""How many tokens an act may still use: under the limits of its own agent, and under those of all who called it. It only ever shrinks."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from typing import Any

from astromesh.guardrails.budget import Budget
from astromesh.guardrails.release import Block
from astromesh.runtime.guarding import Guarding


class Allowance:
    """Of one act. What it uses counts for those that it is a part of, too."""

    def __init__(self, guarding: Guarding, *, session_tokens: Callable[[], int] = int, within: Allowance | None = None) -> None:
        """`session_tokens`: what earlier runs of the session took, as it is then. What is found goes into `guarding`."""
        self._guarding = guarding
        self._session_tokens = session_tokens
        self._within = within
        self.tokens = 0  # of this act and of all that it caused
        self._sharing = 1  # acts side by side that have what is left between them

    @contextmanager
    def shared(self, acts: int) -> Iterator[Callable[[], None]]:
        """As long as this lasts each of so many acts may have its part of what is left. What it gives is called when one of them is over:
        what that one did not use is for the others."""
        self._sharing = max(1, acts)

        def one_less() -> None:
            self._sharing = max(1, self._sharing - 1)

        try:
            yield one_less
        finally:
            self._sharing = 1

    def use(self, tokens: int) -> None:
        self.tokens += tokens
        if self._within is not None:
            self._within.use(tokens)

    def spent(self, attributes: dict[str, Any]) -> Block | None:
        """The limit that lets nothing more be asked, nearest first."""
        block = self._guarding.spent(turn_tokens=self.tokens, session_tokens=self._session_tokens(), attributes=attributes)
        if block is not None or self._within is None:
            return block
        return self._within.spent(attributes)

    def left(self) -> int | None:
        """How many tokens a completion may have now; None: as many as it likes."""
        own = self._guarding.tokens_left(turn_tokens=self.tokens, session_tokens=self._session_tokens())
        callers = self._within.left() if self._within is not None else None
        left = min((rest for rest in (own, callers) if rest is not None), default=None)
        return None if left is None else self._part(left)

    def budgets(self, *, below: Allowance | None = None) -> tuple[Budget, ...]:
        """What is left of every limit that blocks, as limits of one turn: what another node may use of them.

        `below`: without those of that caller, and of who called it.
        """
        if self is below:
            return ()
        callers = self._within.budgets(below=below) if self._within is not None else ()
        rests = [
            (budget, budget.left(turn_tokens=self.tokens, session_tokens=self._session_tokens())) for budget in self._guarding.rails.budgets
        ]
        rests += [(budget, budget.turn_tokens_max) for budget in callers]
        return tuple(
            replace(budget, turn_tokens_max=self._part(rest), session_tokens_max=None) for budget, rest in rests if rest is not None
        )

    def _part(self, tokens: int) -> int:
        return max(min(1, tokens), tokens // self._sharing)
