"""What a node adds to a request: G1, G3 and G4 of the goals.

Five sides answer the same question from the same backend, a stub that costs next to nothing: the backend itself, the bare proxy before it,
the node's OpenAI door, an agent's run without memory, and one that keeps its turn in SQLite, each in a session of its own. They take turns
within each round, after a warm-up, under one load client. All of them stream as well, the agents' runs as events; the goal is the chat's.
What the disk alone takes for such a turn is printed beside them.

    python -m tests.bench.overhead [--rounds N] [--out FILE]      exits 1 when a goal is missed
    python -m tests.bench.overhead --profile chat|run             where the node spends its time instead
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import os
import statistics
import sys
import tempfile
import time
from collections.abc import AsyncIterator, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import psutil
from tests.bench.facts import facts, in_one_line, write_raw
from tests.bench.hotspots import hotspots
from tests.bench.load import LoadClient, Order, Result, load_client
from tests.bench.ratios import Goal, Verdict, beyond, per_round, spread
from tests.rig.documents import agent, provider, runtime
from tests.rig.nodes import ROOT, node_process
from tests.rig.server_process import server_process

SYSTEM = "You are a careful assistant. Answer in one sentence."
QUESTION = "What does a mesh of machines need before it is one computer?"
EXPECT = f"You said: {QUESTION}"
STREAMED_WORDS = 100
# 500 tokens a second, faster than any model that runs on these cores: the shorter a stream, the more of it is tax.
PAUSE_MS = 2
CLIENTS = 16
SYNCED_BYTES = 12 * 1024  # three pages of the write-ahead log, which is what a short turn changes
SYNCS = 50  # a round
NODE_READY_S = 30.0
WIDTH = 26  # of a column

G1_CHAT = Goal(name="G1", what="overhead of a chat over that of the bare proxy", at_most=2)
G1_RUN = Goal(name="G1", what="overhead of an agent run over that of the bare proxy", at_most=5)
G3_CHAT = Goal(name="G3", what="chats a second over those of the bare proxy", at_least=0.7)
G3_RUN = Goal(name="G3", what="agent runs a second over the bare proxy's requests", at_least=0.35)
G4_CHAT = Goal(name="G4", what="total time of a streamed chat over the backend's own stream", at_most=1.01)
ANCHORS = (
    "anchors, measured earlier on two shared cores and not in this run: LiteLLM proxy 11–18 ms and 65–91 requests/s;\n"
    "astromesh 0.74 4–5 ms an agent run and 196–229 runs/s. The naive aiohttp proxy adds 2.8 % to a stream."
)


@dataclass(frozen=True, slots=True, kw_only=True)
class Side:
    """One way to the backend. `pids` are the processes that it adds."""

    name: str
    url: str
    body: Mapping[str, Any]
    pids: tuple[int, ...]
    stream: Order  # the same words from the same slow model, however this side frames them


@dataclass(frozen=True, slots=True, kw_only=True)
class Turn:
    """One side in one round: alone, with many clients, and streaming."""

    one: Result
    many: Result
    stream: Result | None
    cpu_us: float | None  # of the processes that the side adds, a request with many clients

    @property
    def failures(self) -> int:
        parts = (self.one, self.many, *([self.stream] if self.stream else []))
        return sum(sum(part.failures.values()) for part in parts)


Rounds = Sequence[Mapping[str, Turn]]


def cpu_seconds(pids: Sequence[int]) -> float:
    """User and system time of these processes and their children."""
    total = 0.0
    for pid in pids:
        root = psutil.Process(pid)
        for process in (root, *root.children(recursive=True)):
            with contextlib.suppress(psutil.NoSuchProcess):
                times = process.cpu_times()
                total += times.user + times.system
    return total


def p50_ms(result: Result | None) -> float | None:
    return statistics.median(result.latencies_us) / 1000 if result is not None and result.latencies_us else None


@contextlib.asynccontextmanager
async def sides() -> AsyncIterator[dict[str, Side]]:
    """The five sides, up and ready, by name."""
    messages = [{"role": "system", "content": SYSTEM}, {"role": "user", "content": QUESTION}]
    chat = {"model": "stub", "messages": messages}
    words = " ".join(f"word{index}" for index in range(STREAMED_WORDS))
    slow = {"model": "slow", "messages": [{"role": "user", "content": words}], "stream": True}
    told = {"query": words, "stream": True}
    stub_process = server_process("tests.rig.stub_openai", "--models", "stub,slow", "--pause-ms", str(PAUSE_MS))
    async with stub_process as stub, server_process("tests.bench.bare_proxy", "--backend", stub.url) as proxy:
        config = {**runtime(), **provider(f"{stub.url}/v1", models=["stub", "slow"]), **agent("bench", system=SYSTEM)}
        config |= agent("kept", system=SYSTEM, memory={"conversational": {}})
        config |= agent("slow", model="slow", system=SYSTEM)
        config |= agent("slow-kept", model="slow", system=SYSTEM, memory={"conversational": {}})
        async with node_process("bench", config=config, ready_s=NODE_READY_S) as node:
            path = "/v1/chat/completions"
            found = {}
            for name, url, pids in (("direct", stub.url, ()), ("proxy", proxy.url, (proxy.pid,)), ("chat", node.api, (node.pid,))):
                stream = Order(url=url + path, body=slow, expect="[DONE]")
                found[name] = Side(name=name, url=url + path, body=chat, pids=pids, stream=stream)
            for name, quick, streaming in (("run", "bench", "slow"), ("memory", "kept", "slow-kept")):
                at = f"{node.api}/v1/agents/{{}}/run"
                stream = Order(url=at.format(streaming), body=told, expect="event: done")
                found[name] = Side(name=name, url=at.format(quick), body={"query": QUESTION}, pids=(node.pid,), stream=stream)
            yield found


def fsync_ms() -> list[float]:
    """What an appended turn costs on the disk alone, where the nodes under test have their data: among temporary files."""
    took: list[float] = []
    with tempfile.TemporaryFile() as file:
        for _ in range(SYNCS):
            file.write(bytes(SYNCED_BYTES))
            file.flush()
            began = time.perf_counter()
            os.fdatasync(file.fileno())
            took.append((time.perf_counter() - began) * 1e3)
    return took


async def take_turn(load: LoadClient, side: Side, *, requests: int, seconds: float, streams: int) -> Turn:
    one = await load.carry_out(Order(url=side.url, body=side.body, expect=EXPECT, requests=requests))
    before_s = cpu_seconds(side.pids)
    many = await load.carry_out(Order(url=side.url, body=side.body, expect=EXPECT, clients=CLIENTS, seconds=seconds))
    spent_s = cpu_seconds(side.pids) - before_s
    cpu_us = spent_s * 1e6 / len(many.latencies_us) if side.pids and many.latencies_us else None
    stream = None
    if streams:
        stream = await load.carry_out(replace(side.stream, requests=streams))
    return Turn(one=one, many=many, stream=stream, cpu_us=cpu_us)


def verdicts(rounds: Rounds) -> list[Verdict]:
    p50 = {name: [p50_ms(turns[name].one) for turns in rounds] for name in rounds[0]}
    rate: dict[str, list[float | None]] = {name: [turns[name].many.per_second for turns in rounds] for name in rounds[0]}
    stream = {name: [p50_ms(turns[name].stream) for turns in rounds] for name in rounds[0]}
    failures = {name: sum(turns[name].failures for turns in rounds) for name in rounds[0]}
    yardstick = beyond(p50["proxy"], p50["direct"])
    found = [
        Verdict(goal=G1_CHAT, ratio=per_round(beyond(p50["chat"], p50["direct"]), yardstick), failures=failures["chat"]),
        Verdict(goal=G1_RUN, ratio=per_round(beyond(p50["run"], p50["direct"]), yardstick), failures=failures["run"]),
        Verdict(goal=G3_CHAT, ratio=per_round(rate["chat"], rate["proxy"]), failures=failures["chat"]),
        Verdict(goal=G3_RUN, ratio=per_round(rate["run"], rate["proxy"]), failures=failures["run"]),
    ]
    if any(each is not None for each in stream["direct"]):
        found.append(Verdict(goal=G4_CHAT, ratio=per_round(stream["chat"], stream["direct"]), failures=failures["chat"]))
    return found


def table(rounds: Rounds) -> str:
    direct = [p50_ms(turns["direct"].one) for turns in rounds]
    titles = ("p50 ms, 1 client", "over direct ms", f"per second, {CLIENTS} clients", "CPU µs a request", "stream ms")
    lines = [f"{'side':8}" + "".join(f"{title:>{WIDTH}}" for title in titles)]
    for name in rounds[0]:
        turns = [each[name] for each in rounds]
        p50 = [p50_ms(turn.one) for turn in turns]
        columns = (
            ([each for each in p50 if each is not None], ".3f"),
            ([each for each in beyond(p50, direct) if each is not None and name != "direct"], ".3f"),
            ([turn.many.per_second for turn in turns], ".0f"),
            ([turn.cpu_us for turn in turns if turn.cpu_us is not None], ".0f"),
            ([took for turn in turns if (took := p50_ms(turn.stream)) is not None], ".1f"),
        )
        cells = ((spread(numbers), form) for numbers, form in columns)
        lines.append(f"{name:8}" + "".join(f"{format(found, form) if found else '':>{WIDTH}}" for found, form in cells))
        reasons = sorted({reason for turn in turns for part in (turn.one, turn.many, turn.stream) if part for reason in part.failures})
        if reasons:
            lines.append(f"{'':8}{sum(turn.failures for turn in turns)} failures: {', '.join(reasons)}")
    return "\n".join(lines)


async def measure(arguments: argparse.Namespace) -> int:
    standing = facts()
    print(in_one_line(standing))
    shape = {"requests": arguments.requests, "seconds": arguments.seconds, "streams": arguments.streams}
    print(f"{arguments.rounds} rounds, each side in turn: {shape}, after a warm-up. Medians over the rounds (and quartiles)\n", flush=True)
    rounds: list[dict[str, Turn]] = []
    syncs: list[float] = []
    async with sides() as every, load_client() as load:
        for side in every.values():
            await take_turn(load, side, requests=arguments.requests, seconds=0.5, streams=1)
        while len(rounds) < arguments.rounds:
            rounds.append({name: await take_turn(load, side, **shape) for name, side in every.items()})
            syncs += fsync_ms()
    found = verdicts(rounds)
    print(table(rounds), f"an fsync of {SYNCED_BYTES} bytes where the node keeps its turns: {statistics.median(syncs):.3f} ms", sep="\n")
    print(*found, ANCHORS, sep="\n")
    raw = [{name: asdict(turn) for name, turn in turns.items()} for turns in rounds]
    shape_row = {"rounds": arguments.rounds, "clients": CLIENTS, "pause_ms": PAUSE_MS, "streamed_words": STREAMED_WORDS, **shape}
    write_raw(
        arguments.out,
        {
            "bench": "overhead",
            **standing,
            "parameters": shape_row,
            "verdicts": [each.as_json() for each in found],
            "fsync_ms": syncs,
            "rounds": raw,
        },
    )
    broken = sum(turns[name].failures for turns in rounds for name in ("direct", "proxy"))
    if broken:
        print(f"{broken} failures of the yardsticks: this run proves nothing")
    return 0 if not broken and all(each.met for each in found) else 1


async def profile(arguments: argparse.Namespace) -> int:
    async with sides() as every, load_client() as load:
        side = every[arguments.profile]
        await take_turn(load, side, requests=arguments.requests, seconds=0.5, streams=0)
        order = Order(url=side.url, body=side.body, expect=EXPECT, clients=CLIENTS, seconds=arguments.profile_seconds + 1)
        async with asyncio.TaskGroup() as group:
            loading = group.create_task(load.carry_out(order))
            watching = group.create_task(hotspots(side.pids[0], seconds=arguments.profile_seconds))
        result = loading.result()
        print(watching.result())
        print(f"{side.name}, {CLIENTS} clients, {result.per_second:.0f} a second under the profiler, failures: {result.failures or 'none'}")
    return 1 if result.failures else 0


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=10)
    parser.add_argument("--requests", type=int, default=200, help="of one client, a side and round")
    parser.add_argument("--seconds", type=float, default=1.0, help=f"of {CLIENTS} clients, a side and round")
    parser.add_argument("--streams", type=int, default=2, help="streamed one after another, a side and round; 0 leaves G4 out")
    parser.add_argument("--out", type=Path, default=ROOT / "build" / "bench" / "overhead.json", help="where the raw numbers go")
    parser.add_argument("--profile", choices=["chat", "run"], help="watch the node under load instead of measuring")
    parser.add_argument("--profile-seconds", type=float, default=10.0)
    given = parser.parse_args()
    sys.exit(asyncio.run(profile(given) if given.profile else measure(given)))
