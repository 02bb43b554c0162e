"""What is still to be told of members: one rumour about each, the newest."""

from __future__ import annotations

from typing import Final

from maia.wire.codec import PACKET_BYTES_MAX
from maia.wire.telling import Tellings

RUMOURS_MAX: Final = 2048  # a join into a mesh of a thousand queues one each; beyond it the most told go first


class Rumours(Tellings):
    """By the name of the member."""

    def __init__(self) -> None:
        super().__init__(count_max=RUMOURS_MAX, bytes_max=RUMOURS_MAX * PACKET_BYTES_MAX)
