"""Which turns a prompt gets. Pure."""

from __future__ import annotations

from collections.abc import Sequence

from astromesh.dialogue import Transcript


def sliding_window(turns: Sequence[Transcript], *, turns_max: int) -> Transcript:
    """The last `turns_max` turns as one transcript: a turn goes in whole, since half of one misleads the model."""
    return tuple(message for turn in turns[-turns_max:] for message in turn) if turns_max > 0 else ()
