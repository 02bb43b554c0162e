"""What the network does to a packet: lose it, delay it, double it, squeeze it, or refuse to carry it at all."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from random import Random
from typing import Final, Literal

NO_DELAYS: Final[tuple[float, ...]] = ()

# What TCP waits before it sends again what was lost: of a handshake (RFC 6298, §2), and of the rest (Linux's least).
HANDSHAKE_TIMEOUT_S: Final = 1.0
RETRANSMISSION_TIMEOUT_S: Final = 0.2

# What a cut stops: a firewall that drops UDP alone is a common one.
Cut = Literal["everything", "datagrams"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Weather:
    """Shares are of packets, each on its own; latency is uniform between its bounds, and a reordered packet takes the late one on top.

    `stream_loss` is of the packets of streams, each of which comes later by TCP's own timeout. `compression` is the share that arrives as a
    stock agent would have sent it: packed by LZW.
    """

    loss: float = 0.0
    stream_loss: float = 0.0
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

    def heal(self) -> None:
        """Mend every cut."""
        self._cuts.clear()

    def severed(self, node: int) -> int:
        """With how many others it has no way left to talk in time, in one direction or both.

        Streams still are one, unless packets are lost: what is lost of a stream comes a second later, and a probe is over by then.
        """
        others = {
            sender + receiver - node: None
            for (sender, receiver), what in self._cuts.items()
            if node in (sender, receiver) and (what == "everything" or self.weather.loss)
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

    def handshake_s(self) -> float:
        """How long a stream takes to open: there and back."""
        return self._trip_s(HANDSHAKE_TIMEOUT_S) + self._trip_s(HANDSHAKE_TIMEOUT_S)

    def message_s(self) -> float:
        """How long a message on an open stream takes: what is lost comes later."""
        return self._trip_s(RETRANSMISSION_TIMEOUT_S)

    def _trip_s(self, timeout_s: float) -> float:
        trip_s = self.latency_s()
        while self.weather.stream_loss and self._random.random() < self.weather.stream_loss:
            trip_s += timeout_s
            timeout_s *= 2
        return trip_s

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
