"""Local inference beside llama.cpp's own server: G14 and the local half of G13.

The same file, threads, context, slots and sampling on both sides, each through its own HTTP door with the same client; they take turns
within each round, after a warm-up. Then what the prefix cache saves a conversation, and what a long prompt does to the streams beside it.

    python -m tests.bench.inference [--rounds N] [--no-conversations] [--out FILE]       exits 1 when a goal is missed
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import sys
import time
from collections.abc import AsyncIterator, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from itertools import pairwise
from pathlib import Path
from typing import Any

import aiohttp
import orjson
from tests.bench.facts import facts, in_one_line, write_raw
from tests.bench.ratios import Goal, Verdict, per_round, percentile, spread
from tests.engine.conftest import a_store
from tests.rig.documents import runtime
from tests.rig.nodes import node_process
from tests.rig.server_process import server_process

from astromesh.inference.stream import CHUNK_TOKENS

THREADS = 2
SLOTS = 16
CONTEXT = 4096  # of one stream; with sixteen slots both sides have room for 8,192 tokens in all
CELLS = 2 * CONTEXT
STREAMS = {1: 20, 4: 1, 8: 1, 16: 3}  # how often in a round, the sides in turn: what a goal judges is seen often enough to tell 3 % apart
DECODED_TOKENS = 96
PREFILL_WORDS = 350
LOADED_CLIENTS = 8
LOADED_REQUESTS = 40
CONVERSATIONS, TURNS = 8, 6
LONG_PROMPT_TOKENS_AT_LEAST, LONG_PROMPT_WORDS = 3000, 2500
READY_S = 120.0
REQUEST_S = 600.0

G14_ONE = Goal(name="G14", what="tokens a second of one stream over llama.cpp's own server", at_least=0.97)
G14_MANY = Goal(name="G14", what="tokens a second of sixteen streams over llama.cpp's own server", at_least=1.0)
G13_SHARE = Goal(name="G13", what="cached tokens of conversations over an oracle's", at_least=0.9)
STALL = Goal(name="stall", what="longest pause of streams beside a long prompt over 250 ms", at_most=1.0)

# Numbers are words that no cache has met: each prompt begins with another one.
SEA = "The keeper of the lighthouse wrote about the weather, the ships and the harbour, and counted the boats that came home. "


@dataclass(slots=True)
class Seen:
    """One streamed completion as its client saw it. Seconds since the bench began."""

    asked_s: float
    came_s: list[float] = field(default_factory=list)  # of every piece of text
    ended_s: float = 0.0
    tokens_in: int = 0
    tokens_out: int = 0
    cached: int = 0
    text: str = ""

    @property
    def first_s(self) -> float:
        return self.came_s[0] - self.asked_s


@dataclass(frozen=True, slots=True)
class Side:
    name: str
    url: str
    session: aiohttp.ClientSession

    async def ask(self, messages: Sequence[Mapping[str, str]], *, tokens_max: int) -> Seen:
        """Greedy. Raises `RuntimeError` for anything but a whole answer."""
        body = {"model": "smollm2", "messages": list(messages), "max_tokens": tokens_max, "temperature": 0, "stream": True}
        seen = Seen(time.perf_counter())
        async with self.session.post(
            f"{self.url}/v1/chat/completions", json=body | {"stream_options": {"include_usage": True}}
        ) as response:
            if response.status != 200:
                raise RuntimeError(f"{self.name} answered {response.status}: {(await response.text())[:300]}")
            async for line in response.content:
                if line.startswith(b"data: {"):
                    self._note(seen, orjson.loads(line[6:]))
        seen.ended_s = time.perf_counter()
        if not seen.came_s or not seen.tokens_out:
            raise RuntimeError(f"{self.name} ended a stream without an answer")
        return seen

    def _note(self, seen: Seen, chunk: Mapping[str, Any]) -> None:
        if "error" in chunk:
            raise RuntimeError(f"{self.name} broke off: {chunk['error']}")
        for choice in chunk["choices"]:
            if text := choice["delta"].get("content"):
                seen.came_s.append(time.perf_counter())
                seen.text += text
        if usage := chunk.get("usage"):
            seen.tokens_in, seen.tokens_out = usage["prompt_tokens"], usage["completion_tokens"]
            seen.cached = (usage.get("prompt_tokens_details") or {}).get("cached_tokens", 0)


def question(number: int, words: int = 12) -> list[dict[str, str]]:
    """Another one for each number, from its first word on."""
    return [{"role": "user", "content": f"{number} ships: tell a long story of ship {number}. " + (SEA * (words // 20 + 1))[: words * 6]}]


class Numbers:
    """Every question of a run is a new one."""

    def __init__(self) -> None:
        self._next = 1000

    def take(self) -> int:
        self._next += 1
        return self._next


async def decode_rate(side: Side, streams: int, numbers: Numbers) -> float:
    """Tokens a second of all streams together, from the first token of the last one to begin to the first end."""
    seen = await asyncio.gather(*(side.ask(question(numbers.take()), tokens_max=DECODED_TOKENS) for _ in range(streams)))
    begin, end = max(one.came_s[0] for one in seen), min(one.came_s[-1] for one in seen)
    within = sum(begin < at <= end for one in seen for at in one.came_s)
    return within / (end - begin)


async def prefill_rate(side: Side, numbers: Numbers) -> float:
    seen = await side.ask(question(numbers.take(), PREFILL_WORDS), tokens_max=1)
    return seen.tokens_in / seen.first_s


async def first_tokens_under_load(side: Side, numbers: Numbers) -> list[float]:
    """Seconds to the first token of each request, with so many clients that each asks again as soon as it is answered."""
    places = asyncio.Semaphore(LOADED_CLIENTS)

    async def one() -> float:
        async with places:
            return (await side.ask(question(numbers.take()), tokens_max=24)).first_s

    return await asyncio.gather(*(one() for _ in range(LOADED_REQUESTS)))


@dataclass(frozen=True, slots=True)
class Replay:
    """Conversations that share a system prompt, turn by turn."""

    first_s: list[float]
    tokens_in: int
    cached: int
    oracle: int  # what a cache that forgets nothing would know of them, by the token


async def tokens_of(yardstick: Side, messages: Sequence[Mapping[str, str]]) -> list[int]:
    """The prompt that the model's own template makes of these, as llama.cpp's server tokenizes it."""
    async with yardstick.session.post(f"{yardstick.url}/apply-template", json={"messages": list(messages)}) as response:
        prompt = (await response.json())["prompt"]
    content = {"content": prompt, "add_special": False, "parse_special": True}
    async with yardstick.session.post(f"{yardstick.url}/tokenize", json=content) as response:
        tokens: list[int] = (await response.json())["tokens"]
    return tokens


def known_to_an_oracle(prompt: Sequence[int], earlier: Sequence[Sequence[int]]) -> int:
    """Tokens of the longest beginning that any earlier one shares; the last one is always read, since what follows it is asked for."""
    longest = 0
    for one in earlier:
        differ = (place for place, (mine, its) in enumerate(zip(prompt, one, strict=False)) if mine != its)
        longest = max(longest, next(differ, min(len(prompt), len(one))))
    return min(longest, len(prompt) - 1)


async def replay(side: Side, yardstick: Side, numbers: Numbers) -> Replay:
    system = {"role": "system", "content": f"Edition {numbers.take()}. " + SEA * 24}
    conversations = [[system] for _ in range(CONVERSATIONS)]
    first_s: list[float] = []
    tokens_in = cached = oracle = 0
    said: list[list[int]] = []  # every prompt with its answer, as the next turn will have them
    for turn in range(TURNS):
        for index, conversation in enumerate(conversations):
            conversation.append({"role": "user", "content": f"Question {turn} of guest {index}: what happened next?"})
            oracle += known_to_an_oracle(await tokens_of(yardstick, conversation), said)
            seen = await side.ask(conversation, tokens_max=24)
            conversation.append({"role": "assistant", "content": seen.text})
            first_s.append(seen.first_s)
            tokens_in += seen.tokens_in
            cached += seen.cached
            said.append(await tokens_of(yardstick, conversation))
    return Replay(first_s, tokens_in, cached, oracle)


async def longest_pause(side: Side, numbers: Numbers) -> tuple[float, int]:
    """Of eight streams, while a long prompt is read beside them; and how long that was, in tokens."""
    streams = [asyncio.create_task(side.ask(question(numbers.take()), tokens_max=400)) for _ in range(LOADED_CLIENTS)]
    await asyncio.sleep(4.0)  # all of them are past their prompts
    long = await side.ask(question(numbers.take(), LONG_PROMPT_WORDS), tokens_max=1)
    seen = await asyncio.gather(*streams)
    gaps = [gap for one in seen for gap in pairwise(one.came_s)]
    pauses = [later - earlier for earlier, later in gaps if long.asked_s < later < long.ended_s]
    return max(pauses, default=0.0), long.tokens_in


@contextlib.asynccontextmanager
async def sides() -> AsyncIterator[tuple[Side, Side, Side]]:
    """The node, the node without a prefix cache, and the yardstick."""
    store = a_store()
    stored = await asyncio.to_thread(store.pull, "smollm2")
    timeout = aiohttp.ClientTimeout(total=REQUEST_S)

    def served(**keys: Any) -> Any:
        model = {"name": "smollm2", "context": CONTEXT, "parallel": SLOTS, **keys}
        return runtime(inference={"models_dir": str(store.root), "models": [model]})

    arguments = ("--model", str(stored.path), "--threads", str(THREADS), "--context", str(CELLS), "--slots", str(SLOTS), "--port", "0")
    async with (
        aiohttp.ClientSession(timeout=timeout, connector=aiohttp.TCPConnector(limit=0, force_close=True)) as session,
        node_process("cached", config=served()) as node,
        node_process("forgetful", config=served(prefix_cache_mb=0)) as forgetful,
        server_process("tests.bench.yardstick_server", *arguments) as yardstick,
    ):
        ours, without = Side("the node", node.api, session), Side("the node without a prefix cache", forgetful.api, session)
        theirs = Side("llama.cpp's server", yardstick.url, session)
        for side in (ours, without, theirs):
            await warm(side)
        yield ours, without, theirs


async def warm(side: Side) -> None:
    """Until the model is loaded and has answered once. Raises `RuntimeError` after `READY_S`."""
    deadline = time.perf_counter() + READY_S
    while True:
        try:
            await side.ask(question(1), tokens_max=8)
        except (RuntimeError, aiohttp.ClientError):
            if time.perf_counter() > deadline:
                raise
            await asyncio.sleep(0.5)
        else:
            return


@dataclass(frozen=True, slots=True)
class Round:
    """By side: tokens a second by number of streams, each time, and of reading."""

    decode: Mapping[str, Mapping[int, Sequence[float]]]
    prefill: Mapping[str, float]
    first_s: Mapping[str, Sequence[float]]


async def one_round(pair: Sequence[Side], numbers: Numbers) -> Round:
    decode: dict[str, dict[int, list[float]]] = {side.name: {streams: [] for streams in STREAMS} for side in pair}
    for streams, times in STREAMS.items():
        for number in range(times):
            for side in pair if number % 2 == 0 else pair[::-1]:
                decode[side.name][streams].append(await decode_rate(side, streams, numbers))
    prefill = {side.name: await prefill_rate(side, numbers) for side in pair}
    first = {side.name: await first_tokens_under_load(side, numbers) for side in pair}
    return Round(decode, prefill, first)


async def run(rounds_wanted: int, *, conversations: bool) -> dict[str, Any]:
    numbers = Numbers()
    async with sides() as (ours, without, theirs):
        pair = (ours, theirs)
        rounds = []
        for number in range(rounds_wanted):
            rounds.append(await one_round(pair if number % 2 == 0 else pair[::-1], numbers))
            print(f"round {number + 1} of {rounds_wanted}", flush=True)
        figures: dict[str, Any] = {"rounds": [asdict(each) for each in rounds]}
        if conversations:
            replays = {side.name: asdict(await replay(side, theirs, numbers)) for side in (ours, without, theirs)}
            pause_s, long_tokens = await longest_pause(ours, numbers)
            figures |= {"replays": replays, "pause": {"longest_s": pause_s, "prompt_tokens": long_tokens}}
    return figures


def verdicts(figures: Mapping[str, Any]) -> list[Verdict]:
    rounds = figures["rounds"]

    def rates(name: str, streams: int) -> list[float | None]:
        return [rate for each in rounds for rate in each["decode"][name][streams]]

    ours, theirs = "the node", "llama.cpp's server"
    judged = [
        Verdict(goal=G14_ONE, ratio=per_round(rates(ours, 1), rates(theirs, 1)), failures=0),
        Verdict(goal=G14_MANY, ratio=per_round(rates(ours, 16), rates(theirs, 16)), failures=0),
    ]
    if "replays" in figures:
        replayed, pause = figures["replays"][ours], figures["pause"]
        judged += [
            Verdict(goal=G13_SHARE, ratio=spread([replayed["cached"] / replayed["oracle"]]), failures=0),
            Verdict(
                goal=STALL,
                ratio=spread([pause["longest_s"] / 0.25]),
                failures=0 if pause["prompt_tokens"] >= LONG_PROMPT_TOKENS_AT_LEAST else 1,
            ),
        ]
    return judged


def table(figures: Mapping[str, Any]) -> str:
    rounds = figures["rounds"]
    lines = [f"{'':34}" + "".join(f"{f'{streams} streams':>22}" for streams in STREAMS) + f"{'reading':>22}{'first token ms':>18}"]
    for name in rounds[0]["decode"]:
        cells = [spread([rate for each in rounds for rate in each["decode"][name][streams]]) for streams in STREAMS]
        cells.append(spread([each["prefill"][name] for each in rounds]))
        first = [at for each in rounds for at in each["first_s"][name]]
        late = f"{percentile(first, 0.5) * 1e3:.0f} / {percentile(first, 0.99) * 1e3:.0f}"
        lines.append(f"{name:34}" + "".join(f"{cell:.0f}".rjust(22) if cell else "" for cell in cells) + late.rjust(18))
    for name, each in figures.get("replays", {}).items():
        first = each["first_s"]
        lines.append(
            f"{name:34} {CONVERSATIONS} conversations of {TURNS} turns: first token {percentile(first, 0.5) * 1e3:.0f} ms p50, "
            f"{percentile(first, 0.99) * 1e3:.0f} p99; {each['cached']} of {each['tokens_in']} tokens cached, an oracle {each['oracle']}"
        )
    if (pause := figures.get("pause")) is not None:
        longest_ms = pause["longest_s"] * 1e3
        lines.append(f"a prompt of {pause['prompt_tokens']} tokens beside {LOADED_CLIENTS} streams: {longest_ms:.0f} ms at most")
    return "\n".join(lines)


def main(arguments: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=4)
    parser.add_argument("--no-conversations", action="store_true", help="only tokens a second, and first tokens under load")
    parser.add_argument("--out", type=Path)
    given = parser.parse_args(arguments)
    known = facts()
    print(in_one_line(known))
    print(f"SmolLM2-135M Q4_1, {THREADS} threads, {SLOTS} slots, {CELLS} cells, {DECODED_TOKENS} tokens an answer, greedy")
    print(f"batches: the node {CHUNK_TOKENS} tokens at most, its worker at a lower priority; llama.cpp's server its defaults")
    figures = asyncio.run(run(given.rounds, conversations=not given.no_conversations))
    judged = verdicts(figures)
    print(table(figures))
    print("\n".join(map(str, judged)))
    if given.out is not None:
        write_raw(given.out, {**known, "figures": figures, "verdicts": [str(each) for each in judged]})
    return 0 if all(each.met for each in judged) else 1


if __name__ == "__main__":
    sys.exit(main())
