"""How soon what comes is known: G11 and G12 of the goals.

- G11: ten bare `MeshDriver` processes; one after the other changes what it offers, and each of the other nine writes when it has heard so.
  Once on a whole network, once with 2 % of all packets lost.
- G12: real nodes on loopback. `a` has no model; in each round `b`, which has one, starts as a new process told to join `a`. Its API is up
  when it says that it is ready; it is routable when `a` answers with its model. Then it leaves, and is told over its API to join again:
  from that command to the first answer is the join alone.

    python -m tests.bench.arrivals [--full] [--out FILE]      exits 1 when a goal is missed
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import sys
import time
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from random import Random

import aiohttp
from tests.bench.cluster import Cluster, Told, cluster, first_words, ours
from tests.bench.facts import facts, in_one_line, write_raw
from tests.bench.network import enter_own_network, lose
from tests.bench.ratios import Goal, Verdict, percentile, spread
from tests.cluster.conftest import FAST
from tests.rig.documents import provider
from tests.rig.nodes import READY_S, ROOT, Node, node_process
from tests.rig.stub_openai import StubOpenAI

SIZE = 10
LOSS_PERCENT = 2
VALUE_BYTES = 150  # what a loaded model with its figures takes
KNOWN_PATIENCE_S = 5.0  # ten times the goal
PAUSE_S = (0.02, 0.2)  # between two changes
MODEL = "lamp"
LOOK_S = 0.01
ROUTABLE_PATIENCE_S = 15.0
GOODBYE_S = 2.0

G11 = Goal(name="G11", what=f"seconds until a change of an offer is known to the other {SIZE - 1}, p99", at_most=0.5)
G12_JOIN = Goal(name="G12", what="seconds from join to routable, median", at_most=1.5)
G12_API = Goal(name="G12", what="seconds from the start of the process until its API is up, median", at_most=1)


@dataclass(frozen=True, slots=True)
class Change:
    """Seconds from the command to each other member's word, soonest first. `unknown`: members who never said so."""

    known_s: Sequence[float]
    unknown: int


@dataclass(frozen=True, slots=True)
class Arrival:
    """One node that came, in seconds; `join_s` is None where it never was routable."""

    api_s: float
    cold_s: float | None  # from the start of the process until `a` answers with its model
    join_s: float | None


def change_of(owner: str, changed_s: float, told: Sequence[Told], others: Sequence[str]) -> Change:
    """From what was said since the command."""
    first = first_words(told, what="offers", about=owner, since_s=changed_s)
    known = sorted(first[name] for name in others if name in first)
    return Change(known, len(others) - len(known))


async def one_change(meshed: Cluster, random: Random, *, number: int) -> Change:
    await asyncio.sleep(random.uniform(*PAUSE_S))
    owner, *others = random.sample(list(meshed.members), len(meshed.members))
    from_here = len(meshed.told)
    changed_s = meshed.say(owner, f"offer models/0 {str(number).ljust(VALUE_BYTES, '.')}")

    def change() -> Change:
        return change_of(owner, changed_s, meshed.told[from_here:], others)

    await meshed.until(lambda: not change().unknown, patience_s=KNOWN_PATIENCE_S)
    return change()


async def changes(number_of: int) -> dict[str, list[Change]]:
    random = Random("arrivals")
    async with cluster(ours("lan-fast"), number=1, size=SIZE) as meshed:
        whole = [await one_change(meshed, random, number=number) for number in range(number_of)]
        lose(LOSS_PERCENT)
        try:
            lossy = [await one_change(meshed, random, number=number_of + number) for number in range(number_of)]
        finally:
            lose(0)
    return {"whole": whole, "lossy": lossy}


async def answers(node: Node, *, began_s: float) -> float | None:
    """Seconds from `began_s` until the node answers with the model; None where it does not in time."""
    body = {"model": MODEL, "messages": [{"role": "user", "content": "Are you there?"}]}
    while time.monotonic() < began_s + ROUTABLE_PATIENCE_S:
        with contextlib.suppress(aiohttp.ClientError):
            async with node.http.post("/v1/chat/completions", json=body) as response:
                await response.read()
                if response.status == 200:
                    return time.monotonic() - began_s
        await asyncio.sleep(LOOK_S)
    return None


async def until_unknown(node: Node) -> None:
    """Until the node has heard the goodbye of whoever had the model."""
    async with asyncio.timeout(GOODBYE_S):
        while (await ready(node)) == 200:
            await asyncio.sleep(LOOK_S)


async def ready(node: Node) -> int:
    async with node.http.get("/v1/ready", params={"model": MODEL}) as response:
        return response.status


async def one_arrival(a: Node, stub: StubOpenAI) -> Arrival:
    began_s = time.monotonic()
    routable = asyncio.create_task(answers(a, began_s=began_s))
    async with node_process("b", config=provider(stub.endpoint, models=[MODEL]), join=[a.gossip], arguments=FAST, ready_s=READY_S) as b:
        api_s = time.monotonic() - began_s
        cold_s = await routable
        await b.post("/v1/mesh/leave", {})
        await until_unknown(a)
        began_s = time.monotonic()
        routable = asyncio.create_task(answers(a, began_s=began_s))
        await b.post("/v1/mesh/join", {"address": a.gossip})
        join_s = await routable
        await b.stop()
    return Arrival(api_s, cold_s, join_s)


async def arrivals(rounds: int) -> list[Arrival]:
    async with StubOpenAI(models=[MODEL]) as stub, node_process("a", arguments=FAST) as a:
        return [await one_arrival(a, stub) for _ in range(rounds)]


def known(found: Sequence[Change]) -> list[float]:
    return [each for change in found for each in change.known_s]


def verdicts(changed: Sequence[Change], arrived: Sequence[Arrival]) -> list[Verdict]:
    times = known(changed)
    joins = [each.join_s for each in arrived if each.join_s is not None]
    return [
        Verdict(goal=G11, ratio=spread([percentile(times, 0.99)] if times else []), failures=sum(change.unknown for change in changed)),
        Verdict(goal=G12_JOIN, ratio=spread(joins), failures=sum(each.join_s is None for each in arrived)),
        Verdict(goal=G12_API, ratio=spread([each.api_s for each in arrived]), failures=0),
    ]


async def measure(arguments: argparse.Namespace) -> int:
    standing = facts()
    print(in_one_line(standing))
    print(f"{arguments.changes} changes on a whole and on a lossy network, {arguments.rounds} nodes that come\n", flush=True)
    changed = await changes(arguments.changes)
    arrived = await arrivals(arguments.rounds)
    print()
    for name, found in changed.items():
        if times := known(found):
            unknown = sum(change.unknown for change in found)
            print(
                f"{name} network: known to each of {SIZE - 1} after p50 {percentile(times, 0.5) * 1000:.1f} ms, "
                f"p99 {percentile(times, 0.99) * 1000:.1f} ms, at most {max(times) * 1000:.1f} ms; {unknown} never heard"
            )
    cold = spread([each.cold_s for each in arrived if each.cold_s is not None])
    print(
        f"from the start of a new process told to join until it is routable: {cold:.3f} s" if cold else "no new process was ever routable"
    )
    judged = verdicts(changed["whole"], arrived)
    print(*judged, sep="\n")
    raw = {
        "changes": {name: [asdict(each) for each in found] for name, found in changed.items()},
        "arrivals": [asdict(each) for each in arrived],
    }
    parameters = {"changes": arguments.changes, "rounds": arguments.rounds, "size": SIZE, "loss_percent": LOSS_PERCENT}
    write_raw(
        arguments.out, {"bench": "arrivals", **standing, "parameters": parameters, "verdicts": [each.as_json() for each in judged], **raw}
    )
    return 0 if all(each.met for each in judged) else 1


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--changes", type=int, default=40, help="of offers, on each network")
    parser.add_argument("--rounds", type=int, default=5, help="nodes that come")
    parser.add_argument("--full", action="store_true", help="200 changes, 20 nodes")
    parser.add_argument("--out", type=Path, default=ROOT / "build" / "bench" / "arrivals.json", help="where the raw numbers go")
    given = parser.parse_args()
    if given.full:
        given.changes, given.rounds = 200, 20
    enter_own_network()
    sys.exit(asyncio.run(measure(given)))
