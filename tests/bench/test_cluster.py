"""What the benchmarks stand on: small processes that meet, are killed, are missed, and return; and who changes an offer is heard of."""

from __future__ import annotations

import os
from random import Random

import pytest
from tests.bench.arrivals import one_change
from tests.bench.cluster import cluster, ours
from tests.bench.detection import one_death, one_return

pytestmark = [pytest.mark.processes, pytest.mark.timeout(120)]

NUMBER = 20 + os.getpid() % 200  # of the addresses, so that runs beside each other do not meet


async def test_a_killed_process_is_missed_by_every_other_and_known_again_when_it_returns() -> None:
    async with cluster(ours("lan-fast"), number=NUMBER, size=3) as meshed:
        victim, death = await one_death(meshed, Random(1))
        assert (len(death.verdicts_s), death.unnoticed, death.false_deaths) == (2, 0, 0)
        print(f"known after {death.verdicts_s[-1]:.3f} s")
        assert meshed.strangers() != []
        await one_return(meshed, victim)
        assert meshed.strangers() == []
        assert meshed.members[victim].life == 2


async def test_a_changed_offer_is_heard_of_by_every_other_and_figures_are_told_on_demand() -> None:
    async with cluster(ours("lan-fast"), number=NUMBER, size=3) as meshed:
        before = await meshed.figures("n1")
        change = await one_change(meshed, Random(1), number=7)
        assert (len(change.known_s), change.unknown) == (2, 0)
        after = await meshed.figures("n1")
        assert after["cpu_s"] > before["cpu_s"] > 0
        assert after["counters"]["datagrams_in"] > before["counters"]["datagrams_in"]
