"""What Serf tells everybody, in a share of the packets that rumours cannot take.

memberlist tells its own messages first, so that a large cluster that changes tells no event any more. Here whatever did not fit beside
rumours three times goes before them once. So either has a part of the way, and neither stops the other.
"""

from __future__ import annotations

from typing import Final

from maia.wire.telling import Tellings

BYTES_MAX: Final = 128 * 1024  # a hundred full packets; beyond it what was told most goes first
COUNT_MAX: Final = 1024  # all that wait are sorted for every packet
PASSED_OVER_MAX: Final = 3  # packets: a quarter of them is the share


class Broadcasts(Tellings):
    """By what they are about: a node for its intents, the bytes themselves for events and queries."""

    def __init__(self) -> None:
        super().__init__(count_max=COUNT_MAX, bytes_max=BYTES_MAX)

    @property
    def urgent(self) -> bool:
        """Whether it is their turn to go first."""
        return self.passed_over >= PASSED_OVER_MAX
