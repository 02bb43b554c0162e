"""Limits of what runs and sessions may cost, in tokens. Pure."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Literal

from astromesh.guardrails.release import Block
from astromesh.guardrails.rules import MESSAGE_DEFAULT
from astromesh.specs.agent import Guardrail

Direction = Literal["input", "output"]


@dataclass(frozen=True, slots=True)
class Budget:
    """One `cost_limit`. Tokens are those that models read and wrote, as `usage` counts them."""

    direction: Direction
    blocks: bool  # else it only warns
    message: str
    turn_tokens_max: int | None
    session_tokens_max: int | None

    def spent(self, *, turn_tokens: int, session_tokens: int) -> Block | None:
        """What is said instead of going on. `session_tokens` are those of earlier runs."""
        for what, tokens, most in (
            ("turn", turn_tokens, self.turn_tokens_max),
            ("session", session_tokens + turn_tokens, self.session_tokens_max),
        ):
            if most is not None and tokens >= most:
                return Block("cost_limit", f"the {most} tokens of a {what} are used up", self.message)
        return None

    def left(self, *, turn_tokens: int, session_tokens: int) -> int | None:
        """How many tokens a completion may have now; None: as many as it likes."""
        rests = [self.turn_tokens_max - turn_tokens] if self.turn_tokens_max is not None else []
        rests += [self.session_tokens_max - session_tokens - turn_tokens] if self.session_tokens_max is not None else []
        return max(0, min(rests)) if rests and self.blocks else None


def budgets(rails: Iterable[Guardrail], *, direction: Direction) -> tuple[Budget, ...]:
    return tuple(
        Budget(direction, rail.does != "warn", rail.message or MESSAGE_DEFAULT, rail.max_tokens_per_turn, rail.max_tokens_per_session)
        for rail in rails
        if rail.type == "cost_limit"
    )
