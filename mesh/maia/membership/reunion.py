"""How seeds are reached, and how those who were lost are found again, whoever was killed.

A seed that has not answered is asked for an exchange, with growing pauses, for ever. Once it has, it is nobody special: like every member
that is dead here, its address gets a ping now and then, and who answers one is asked for an exchange.
"""

from __future__ import annotations

import math
from typing import Final, NamedTuple

from maia.config import Address, Random
from maia.membership.members import MemberTable

BACKOFF_FIRST_S: Final = 0.25
BACKOFF_MAX_S: Final = 15.0  # a seed that comes up is found this late at worst, and a wrong address costs a dial each quarter of a minute
KNOCK_INTERVALS: Final = 5  # of probing: one ping to somebody lost for every five to the living
# Every so many knocks one goes over TCP as well: where UDP is blocked nothing else reaches whoever was given up. Ten seconds under
# `lan-fast`; Serf dials those whom it lost twice a minute.
KNOCKS_PER_STREAM: Final = 10
KNOCKS_REMEMBERED_MAX: Final = 64  # a minute's under `lan-fast`; who answers later than that is knocked at again
REPEAT_S: Final = 5.0  # between two exchanges that the same address prompts: who answers and is still not living here will not be so sooner


class Knock(NamedTuple):
    """At whose door, and how."""

    address: Address
    name: str  # empty for a seed that nobody known ever gossiped from
    by_stream: bool


class Seed:
    __slots__ = ("answered", "due_s", "pause_s")

    def __init__(self, now: float) -> None:
        self.answered = False
        self.due_s = now
        self.pause_s = BACKOFF_FIRST_S


class Reunion:
    """Whom to dial and whom to ping. It sends nothing itself."""

    def __init__(self, table: MemberTable, *, probe_interval_s: float, random: Random, seeds_max: int, now: float) -> None:
        self._table = table
        self._knock_interval_s = KNOCK_INTERVALS * probe_interval_s
        self._random = random
        self._seeds_max = seeds_max
        self._seeds: dict[Address, Seed] = {}
        self._seeds_s = math.inf  # when the next of them is due
        self._knock_s = now + self._knock_interval_s * random.random()
        self._knocks = 0
        self._knocked: dict[int, Address] = {}
        self._prompted: dict[Address, float] = {}

    def add_seed(self, address: Address, now: float) -> bool:
        """Ask this address from now on; False where it is our own. One beyond the limit takes the place of one that need not be asked."""
        if address == self._table.me.address:
            return False
        if address not in self._seeds and len(self._seeds) >= self._seeds_max:
            # Somebody who wants to join now knows better than a list of before: of those unanswered the first goes, too.
            del self._seeds[next((known for known, seed in self._seeds.items() if seed.answered), next(iter(self._seeds)))]
        self._seeds[address] = Seed(now)
        self._reckon()
        return True

    def is_seed(self, address: Address) -> bool:
        return address in self._seeds

    def due_s(self) -> float:
        return min(self._seeds_s, self._knock_s)

    def _reckon(self) -> None:
        self._seeds_s = min((seed.due_s for seed in self._seeds.values() if not seed.answered), default=math.inf)

    def seeds_to_dial(self, now: float) -> list[Address]:
        """Seeds whose turn it is; each is given its next turn."""
        if self._seeds_s > now:
            return []
        due: list[Address] = []
        for address, seed in self._seeds.items():
            if not seed.answered and seed.due_s <= now:
                # Half to one and a half pauses, so that a hundred nodes started by one script do not dial their seed in step.
                seed.due_s = now + seed.pause_s * (0.5 + self._random.random())
                seed.pause_s = min(BACKOFF_MAX_S, seed.pause_s * 2)
                due.append(address)
        self._reckon()
        return due

    def exchanged(self, address: Address) -> bool:
        """An exchange with this address succeeded; True the first time that a seed answers."""
        seed = self._seeds.get(address)
        if seed is None or seed.answered:
            return False
        seed.answered = True
        self._reckon()
        return True

    def knock(self, now: float) -> Knock | None:
        """At the door of somebody lost, if it is time for one. By its name: another node that now has the address does not answer to it."""
        if self._knock_s > now:
            return None
        # Jittered, or two halves that lost each other at once would also knock at once, both at the door of somebody who is out knocking.
        self._knock_s = now + self._knock_interval_s * (0.5 + self._random.random())
        living = {member.address: None for member in self._table.living}
        departed = {member.address: member for member in self._table.departed() if member.address not in living}
        lost = [(address, member.name) for address, member in departed.items() if member.status == "dead"]
        for address, seed in self._seeds.items():
            left = departed.get(address)
            if seed.answered and address not in living and (left is None or left.status == "left"):
                lost.append((address, left.name if left is not None else ""))
        if not lost:
            return None
        self._knocks += 1
        address, name = lost[self._random.randrange(len(lost))]
        return Knock(address, name, self._knocks % KNOCKS_PER_STREAM == 0)

    def knocked(self, sequence: int, address: Address) -> None:
        if len(self._knocked) >= KNOCKS_REMEMBERED_MAX:
            del self._knocked[next(iter(self._knocked))]
        self._knocked[sequence] = address

    def opened(self, sequence: int) -> Address | None:
        """The address whose knock this ack answers."""
        return self._knocked.pop(sequence, None)

    def prompt(self, address: Address, now: float) -> bool:
        """Somebody we do not count as living showed up at `address`: True if an exchange is worth it now."""
        last_s = self._prompted.get(address)
        if last_s is not None and now < last_s + REPEAT_S:
            return False
        self._prompted.pop(address, None)
        if len(self._prompted) >= KNOCKS_REMEMBERED_MAX:
            oldest = next(iter(self._prompted))
            if self._prompted[oldest] + REPEAT_S > now:
                return False
            del self._prompted[oldest]
        self._prompted[address] = now
        return True
