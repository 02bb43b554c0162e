"""Five real nodes on hosts of their own, and what each of them holds against the others."""

from __future__ import annotations

import asyncio
import contextlib
import os
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from contextlib import AsyncExitStack
from dataclasses import dataclass
from typing import Any, NamedTuple

from prometheus_client.parser import text_string_to_metric_families
from tests.cluster.conftest import FAST, sees
from tests.rig.documents import agent
from tests.rig.eventually import eventually
from tests.rig.loopback import Host, Loopback, own_loopback
from tests.rig.nodes import READY_S, Node, node_process

from astromesh.cli.why import why

NAMES = ("a", "b", "c", "d", "e")
EVERYBODY = dict.fromkeys(NAMES, "alive")
# How long a mesh is watched in which nothing should happen: a sample in every run, a minute for the proof.
WATCHED_S = float(os.environ.get("FAULTS_SECONDS", "5"))
POLL_S = 0.25
# Five that start at once share what one alone has for itself.
START_S = 5 * READY_S
MEET_GOAL_S = 3.0
# For a node that is to be back before it is given up, however long it takes to start: such a one is suspected for half a minute.
PATIENT = ("--profile", "wan")
# What `e` offers to the others.
OFFERED = "desk"


class Doubts(NamedTuple):
    """What one node has held against others since it started, and what was held against it."""

    suspicions: int
    accusations: int  # of its own: probes that failed
    deaths: int
    refutations: int
    stalls: int
    late: int  # probes that only others, or TCP, could answer
    voided: int  # probes that were under way when it stood still

    def since(self, before: Doubts) -> Doubts:
        return Doubts(*(now - then for now, then in zip(self, before, strict=True)))


async def doubts(node: Node) -> Doubts:
    async with node.http.get("/metrics") as response:
        text = await response.text()
    figures = {
        (sample.name, sample.labels.get("outcome", "")): int(sample.value)
        for family in text_string_to_metric_families(text)
        for sample in family.samples
        if sample.name.startswith("maia_") and "le" not in sample.labels
    }
    return Doubts(
        suspicions=figures["maia_suspicions_total", ""],
        accusations=figures["maia_probes_total", "failed"],
        deaths=figures["maia_deaths_total", ""],
        refutations=figures["maia_refutations_total", ""],
        stalls=figures["maia_stalls_total", ""],
        late=figures["maia_probes_total", "late"],
        voided=figures["maia_probes_total", "voided"],
    )


@dataclass
class Five:
    """The nodes, by name; one that moves is replaced by what runs at its new address."""

    loopback: Loopback
    nodes: dict[str, Node]

    def __getitem__(self, name: str) -> Node:
        return self.nodes[name]

    def hosts(self, names: str) -> list[Host]:
        return [self.nodes[name].host for name in names]

    async def all_see(self, wanted: Mapping[str, str], *, by: str = "abcde", goal_s: float, what: str) -> None:
        """Waits until each of `by` lists exactly these members. Fails with why the others have the status that they have."""

        async def each_does() -> bool:
            for name in by:
                await sees(self.nodes[name], dict(wanted))
            return True

        try:
            await eventually(each_does, goal_s, what=what)
        except AssertionError as failure:
            failure.add_note(await self.evidence())
            raise

    async def doubts(self, names: str = "abcde") -> dict[str, Doubts]:
        return {name: await doubts(self.nodes[name]) for name in names}

    async def nobody_died_since(self, before: Mapping[str, Doubts]) -> dict[str, Doubts]:
        """What happened since then; fails where anybody was given up."""
        since = {name: now.since(before[name]) for name, now in (await self.doubts("".join(before))).items()}
        for name, own in since.items():
            print(f"{name}: {own}")
        if any(own.deaths for own in since.values()):
            raise AssertionError(f"somebody was given up: {since}\n{await self.evidence()}")
        return since

    async def evidence(self) -> str:
        """Why everyone has the status that they have, as far as those who answer say."""
        told = []
        for name, node in self.nodes.items():
            with contextlib.suppress(Exception):
                async with asyncio.timeout(2.0):
                    for row in (await node.get("/v1/mesh/state"))["nodes"]:
                        member = await node.get(f"/v1/mesh/members/{row['node_id']}")
                        if row["name"] != name and len(member["history"]) > 1:
                            told.append(f"--- {name} says:\n{why(member, now=time.time())}")
        return "\n".join(told)


async def stays(still: Callable[[], Awaitable[object]], seconds: float) -> None:
    """`still`, which asserts, is asked again and again for so long."""
    end_s = time.monotonic() + seconds
    while time.monotonic() < end_s:
        await still()
        await asyncio.sleep(POLL_S)


async def row(node: Node, name: str) -> dict[str, Any]:
    """What `node` says of the member `name`."""
    rows = [found for found in (await node.get("/v1/mesh/state"))["nodes"] if found["name"] == name]
    assert len(rows) == 1, f"{node.name} lists {name} {len(rows)} times: {rows}"
    return dict(rows[0])


@contextlib.asynccontextmanager
async def five_nodes(**each: Mapping[str, Any]) -> AsyncIterator[Five]:
    """All alive, and knowing what `e` offers. `each` says by name what else `node_process` is given."""
    with own_loopback() as loopback:
        async with AsyncExitStack() as stack:
            hosts = {name: loopback.host() for name in NAMES}
            seed = f"{hosts['a'].address}:{hosts['a'].ports.gossip}"

            async def start(name: str) -> Node:
                how: dict[str, Any] = {
                    "join": [] if name == "a" else [seed],
                    "config": agent(OFFERED, model="lamp", provider_name=None) if name == "e" else None,
                    "arguments": FAST,
                    "ready_s": START_S,
                    **each.get(name, {}),
                }
                return await stack.enter_async_context(node_process(name, host=hosts[name], **how))

            async with asyncio.TaskGroup() as starting:  # whoever fails ends the others, too, before the stack closes what did start
                tasks = {name: starting.create_task(start(name)) for name in NAMES}
            five = Five(loopback, {name: task.result() for name, task in tasks.items()})
            await five.all_see(EVERYBODY, goal_s=MEET_GOAL_S, what="five nodes have met")
            await eventually(lambda: offered_everywhere(five), MEET_GOAL_S, what="what e offers is known everywhere")
            yield five


async def offered_everywhere(five: Five) -> bool:
    for node in five.nodes.values():
        found = await row(node, "e")
        assert found["agents"] == [OFFERED], f"{node.name} knows of e's agents {found['agents']}"
    return True


async def everybody_lives(five: Five) -> None:
    for name in five.nodes:
        for member in EVERYBODY:
            found = await row(five[name], member)
            # Suspected is last in the order, not out: a cut link may cost an accusation, never a life.
            assert found["status"] in ("alive", "suspect"), f"{name} sees {member} as {found['status']}\n{await five.evidence()}"
