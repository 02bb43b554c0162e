"""What the network does to a packet: lose it, delay it, double it, squeeze it, or refuse to carry it at all."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from random import Random
from typing import Final, Literal

NO_DELAYS: Final[tuple[float, ...]] = ()

# What a cut stops: a firewall that drops UDP alone is a common one.
Cut = Literal["everything", "datagrams"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Weather:
    """Shares are of packets, each on its own; latency is uniform between its bounds, and a reordered packet takes the late one on top.

    `compression` is the share that arrives as a stock agent would have sent it: packed by LZW.
    """

    loss: float = 0.0
    duplication: float = 0.0
    reordering: float = 0.0
    compression: float = 0.0
    latency_s: tuple[float, float] = (0.0002, 0.002)
    late_s: float = 0.05


FAIR: Final = Weather()


class Sky:
    """The weather over one world, and the cuts in its network."""

    def __init__(self, weather: Weather, random: Random) -> None:
        self.weather = weather
        self._random = random
        self._cuts: dict[tuple[int, int], Cut] = {}

    def cut(self, sender: int, receiver: int, *, what: Cut = "everything") -> None:
        """Nothing passes from `sender` to `receiver` any more; the other way is another cut."""
        self._cuts[sender, receiver] = what

    def partition(self, groups: Sequence[Sequence[int]]) -> None:
        """Nothing passes between nodes of different groups."""
        group_of = {node: number for number, group in enumerate(groups) for node in group}
        for sender, here in group_of.items():
            for receiver, there in group_of.items():
                if here != there:
                    self.cut(sender, receiver)

    def heal(self) -> list[int]:
        """Mend every cut; returns whom that concerns."""
        concerned = sorted({node: None for pair in self._cuts for node in pair})
        self._cuts.clear()
        return concerned

    def severed(self, node: int) -> int:
        """With how many others it cannot exchange everything, in one direction or both."""
        others = {
            sender + receiver - node: None
            for (sender, receiver), what in self._cuts.items()
            if node in (sender, receiver) and what == "everything"
        }
        return len(others)

    def passes(self, sender: int, receiver: int) -> bool:
        """Whether a datagram may."""
        return (sender, receiver) not in self._cuts

    def connects(self, one: int, other: int) -> bool:
        """Whether a stream may."""
        return not self._cuts or "everything" not in (self._cuts.get((one, other)), self._cuts.get((other, one)))

    def squeezes(self) -> bool:
        """Whether the next packet arrives compressed."""
        return self.weather.compression > 0 and self._random.random() < self.weather.compression

    def latency_s(self) -> float:
        low_s, high_s = self.weather.latency_s
        return low_s + (high_s - low_s) * self._random.random()

    def delays_s(self, sender: int, receiver: int) -> tuple[float, ...]:
        """After how long each copy of a packet arrives; no copy where it is lost."""
        weather, random = self.weather, self._random
        if self._cuts and not self.passes(sender, receiver):
            return NO_DELAYS
        if weather.loss and random.random() < weather.loss:
            return NO_DELAYS
        delay_s = self.latency_s()
        if weather.reordering and random.random() < weather.reordering:
            delay_s += weather.late_s * random.random()
        if weather.duplication and random.random() < weather.duplication:
            return delay_s, delay_s + self.latency_s()
        return (delay_s,)
