"""How long requests still go to a peer that was killed: G7 of the goals.

Three real nodes on loopback; the agent is on `a`, its model on `b` and `c`, both before a stub that takes its time. Clients ask `a` without
a pause worth the name; in each round one of the two is killed with SIGKILL, and every answer says how many nodes were tried. The last
request that the dead one cost a try, or that failed, ends the round's time; then the dead one returns.

Some more are killed silently: nothing that the dead one's machine would say reaches anybody, as when it loses its power. Then nobody is
told that a connection is gone, so it is when the last request was sent that counts; this is printed, and no goal.

    python -m tests.bench.departures [--full] [--out FILE]      exits 1 when the goal is missed
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import sys
import time
from collections.abc import AsyncIterator, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from random import Random

import aiohttp
from tests.bench.facts import facts, in_one_line, write_raw
from tests.bench.network import cut, enter_own_network
from tests.bench.ratios import Goal, Verdict, percentile, spread
from tests.cluster.conftest import FAST, MEMBERS_GOAL_S, MODELS_GOAL_S, ready_for, sees
from tests.rig.documents import agent, provider
from tests.rig.eventually import eventually
from tests.rig.nodes import ROOT, Node, node_process
from tests.rig.stub_openai import Mode, StubOpenAI

MODEL = "lamp"
CLIENTS = 8
# Of the stub between two tokens, so that a run takes some 50 ms and several are always under way on either node.
TOKEN_PAUSE_S = 0.01
# Between an answer and the same client's next question: together some 130 questions a second, which leave the cores to the gossip.
THINK_S = 0.01
REQUEST_S = 10.0
# Three times the goal for the worst: what is still sent to the dead after that is a bug, and is seen as such.
WATCHED_S = 4.5
SETTLE_S = (0.5, 1.5)
QUIET_S = 1.0  # before a kill: whoever costs a second try then is not the victim

P50 = Goal(name="G7", what="seconds until no request goes to a killed peer, median", at_most=0.5)
P99 = Goal(name="G7", what="seconds until no request goes to a killed peer, p99", at_most=1.5)


@dataclass(frozen=True, slots=True)
class Asked:
    """One request to `a`."""

    began_s: float
    ended_s: float
    status: int  # 0 where nobody answered
    attempts: int


@dataclass(frozen=True, slots=True)
class Departure:
    """One kill. `last_s`: when the last request ended that it cost a try or an answer, in seconds since the kill; 0 where there was none.

    `last_sent_s`: when the last of them began.
    """

    victim: str
    silent: bool
    last_s: float
    last_sent_s: float
    retried: int
    failed: int
    answered: int
    before: int  # tries and answers that were lost in the second before, when everybody lived


def departure_of(victim: str, killed_s: float, asked: Sequence[Asked], *, silent: bool) -> Departure:
    """From every request whose answer came in the second before the kill, or after it."""

    def hurt(one: Asked) -> bool:
        return one.status != 200 or one.attempts > 1

    since = [one for one in asked if one.ended_s >= killed_s]
    return Departure(
        victim=victim,
        silent=silent,
        last_s=max((one.ended_s - killed_s for one in since if hurt(one)), default=0.0),
        last_sent_s=max((max(0.0, one.began_s - killed_s) for one in since if hurt(one)), default=0.0),
        retried=sum(one.status == 200 and one.attempts > 1 for one in since),
        failed=sum(one.status != 200 for one in since),
        answered=sum(one.status == 200 for one in since),
        before=sum(hurt(one) for one in asked if one.ended_s < killed_s),
    )


async def ask(node: Node, asked: list[Asked]) -> None:
    """One client, until it is cancelled."""
    while True:
        status = attempts = 0
        began_s = time.monotonic()
        with contextlib.suppress(aiohttp.ClientError, TimeoutError):
            async with node.http.post(
                "/v1/agents/desk/run", json={"query": "Who is there now?"}, timeout=aiohttp.ClientTimeout(REQUEST_S)
            ) as r:
                await r.read()
                status, attempts = r.status, int(r.headers.get("X-Astromesh-Attempts", "0"))
        asked.append(Asked(began_s, time.monotonic(), status, attempts))
        await asyncio.sleep(THINK_S)


@contextlib.asynccontextmanager
async def asking(node: Node, asked: list[Asked]) -> AsyncIterator[None]:
    tasks = [asyncio.create_task(ask(node, asked), name=f"client {index}") for index in range(CLIENTS)]
    try:
        yield
    finally:
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)


async def one_departure(a: Node, victim: Node, everyone: Sequence[Node], random: Random, *, silent: bool) -> Departure:
    asked: list[Asked] = []
    async with asking(a, asked):
        await asyncio.sleep(random.uniform(*SETTLE_S))
        killed_s = time.monotonic()
        if silent:
            cut([int(address.rpartition(":")[2]) for address in (victim.api, victim.gossip, victim.link)])
        await victim.kill()
        await asyncio.sleep(max(0.0, killed_s + WATCHED_S - time.monotonic()))
    departure = departure_of(victim.name, killed_s, [one for one in asked if one.ended_s >= killed_s - QUIET_S], silent=silent)
    cut([])
    await victim.start()
    alive = {node.name: "alive" for node in everyone}
    for node in everyone:
        await eventually(lambda node=node: sees(node, alive), MEMBERS_GOAL_S, what=f"{node.name} sees everybody")  # type: ignore[misc]
    return departure


def verdicts(departures: Sequence[Departure]) -> list[Verdict]:
    times = [each.last_s for each in departures if not each.silent]
    before = sum(each.before for each in departures)
    return [
        Verdict(goal=P50, ratio=spread(times), failures=before),
        Verdict(goal=P99, ratio=spread([percentile(times, 0.99)] if times else []), failures=before),
    ]


async def measure(arguments: argparse.Namespace) -> int:
    standing = facts()
    print(in_one_line(standing))
    print(
        f"{arguments.rounds} kills and {arguments.silent} silent ones under {CLIENTS} clients, watched for {WATCHED_S:g} s each\n",
        flush=True,
    )
    departures: list[Departure] = []
    random = Random("departures")
    desk = agent("desk", model=MODEL, provider_name=None)
    async with StubOpenAI(models=[MODEL], pause_s=TOKEN_PAUSE_S) as stub, contextlib.AsyncExitStack() as stack:
        stub.modes[MODEL] = Mode.SLOW
        model = provider(stub.endpoint, models=[MODEL])
        a = await stack.enter_async_context(node_process("a", config=desk, arguments=FAST))
        b, c = [await stack.enter_async_context(node_process(name, config=model, join=[a.gossip], arguments=FAST)) for name in ("b", "c")]
        for node in (a, b, c):
            await eventually(
                lambda node=node: sees(node, {"a": "alive", "b": "alive", "c": "alive"}),  # type: ignore[misc]
                MEMBERS_GOAL_S,
                what=f"{node.name} sees everybody",
            )
        await eventually(lambda: ready_for(a, MODEL), MODELS_GOAL_S, what="a knows who has the model")
        for number in range(arguments.rounds + arguments.silent):
            departure = await one_departure(a, (b, c)[number % 2], (a, b, c), random, silent=number >= arguments.rounds)
            departures.append(departure)
            print(
                f"{departure.victim} killed{' silently' if departure.silent else ''}: of the requests that it cost something, the last "
                f"was sent after {departure.last_sent_s:.3f} s and ended after {departure.last_s:.3f} s; "
                f"{departure.retried} tried again, {departure.failed} failed, {departure.answered} answered",
                flush=True,
            )
    judged = verdicts(departures)
    silent = spread([each.last_sent_s for each in departures if each.silent])
    print(f"\nkilled silently: the last request to the dead one was sent after {silent:.3f} s" if silent else "")
    print(*judged, sep="\n")
    parameters = {
        "rounds": arguments.rounds,
        "silent": arguments.silent,
        "clients": CLIENTS,
        "token_pause_s": TOKEN_PAUSE_S,
        "think_s": THINK_S,
    }
    raw = [asdict(each) for each in departures]
    write_raw(
        arguments.out,
        {"bench": "departures", **standing, "parameters": parameters, "verdicts": [each.as_json() for each in judged], "departures": raw},
    )
    return 0 if all(each.met for each in judged) else 1


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=6, help="kills")
    parser.add_argument("--silent", type=int, default=3, help="kills of whole machines")
    parser.add_argument("--full", action="store_true", help="30 kills and 10 silent ones")
    parser.add_argument("--out", type=Path, default=ROOT / "build" / "bench" / "departures.json", help="where the raw numbers go")
    given = parser.parse_args()
    if given.full:
        given.rounds, given.silent = 30, 10
    enter_own_network()
    sys.exit(asyncio.run(measure(given)))
