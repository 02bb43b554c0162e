"""Machines that lose power together, hang, or have too much to do: nobody is blamed who lives, and nobody is lost who returns."""

from __future__ import annotations

import asyncio
import contextlib
import os
import shutil
import signal
from collections.abc import AsyncIterator, Callable
from pathlib import Path

import aiohttp
import psutil
import pytest
from tests.cluster.conftest import ready_for, sees
from tests.cluster.five import EVERYBODY, NAMES, START_S, WATCHED_S, Five, everybody_lives, five_nodes, offered_everywhere, row, stays
from tests.rig.eventually import eventually
from tests.rig.nodes import Node

pytestmark = [pytest.mark.processes, pytest.mark.timeout(300)]

MEET_GOAL_S = 3.0
DEATH_GOAL_S = 5.0
# Whoever probes as seldom as memberlist is suspected for four seconds at least: its successor is there before that is over.
LATE = ("--profile", "lan")
LATE_DEATH_GOAL_S = 10.0
RETURN_GOAL_S = 5.0
MODELS_GOAL_S = 5.0
# More than the slots of a worker, so that some always wait: both cores decode without a pause.
STREAMS_AT_ONCE = 16
BODY_BYTES = 10 * 2**20
BODIES = 3
# In one of four or five somebody waits for an answer when it begins.
STANDSTILLS_MAX = 40
MODELS = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "astromesh" / "models"


async def everybody_is_alive(five: Five) -> bool:
    for node in five.nodes.values():
        await sees(node, EVERYBODY)
    return True


@pytest.mark.parametrize("remembered", [True, False], ids=["with-their-state", "without-their-state"])
async def test_when_all_five_lose_power_and_start_again_there_are_five_and_no_ghosts(tmp_path: Path, remembered: bool) -> None:
    data = {name: tmp_path / name for name in NAMES}
    async with five_nodes(**{name: {"data": folder} for name, folder in data.items()}) as five:
        before = {name: await row(five["a"], name) for name in NAMES}
        for node in five.nodes.values():
            os.killpg(node.pid, signal.SIGKILL)
        for node in five.nodes.values():
            await node.kill()
        if not remembered:
            for folder in data.values():
                shutil.rmtree(folder)
        async with asyncio.TaskGroup() as starting:
            for node in five.nodes.values():
                starting.create_task(node.start(ready_s=START_S))
        await five.all_see(EVERYBODY, goal_s=MEET_GOAL_S, what="five nodes have met again")
        await eventually(lambda: offered_everywhere(five), RETURN_GOAL_S, what="what e offers is known everywhere again")
        after = {name: await row(five["b"], name) for name in NAMES}
        for name in NAMES:
            assert (after[name]["node_id"] == before[name]["node_id"]) is remembered
            if remembered:
                assert after[name]["incarnation"] > before[name]["incarnation"]
        await stays(lambda: everybody_is_alive(five), WATCHED_S)
        assert all(own.deaths == 0 for own in (await five.doubts()).values())


async def test_a_node_that_lost_its_state_is_a_new_one_and_the_old_one_does_not_haunt_its_address(tmp_path: Path) -> None:
    async with five_nodes(e={"data": tmp_path / "e", "arguments": LATE}) as five:
        old = (await row(five["a"], "e"))["node_id"]
        await five["e"].kill()
        shutil.rmtree(tmp_path / "e")
        await five["e"].start()
        new = (await row(five["e"], "e"))["node_id"]
        assert new != old

        async def told_apart() -> bool:
            for name in "abcd":
                known = {found["node_id"]: found["status"] for found in (await five[name].get("/v1/mesh/state"))["nodes"]}
                assert (known[old], known.get(new), len(known)) == ("dead", "alive", 6), f"{name} knows {known}"
            return True

        await eventually(told_apart, LATE_DEATH_GOAL_S, what="the old one is dead, the new one alive")
        await stays(told_apart, WATCHED_S)


async def test_a_pause_of_half_a_second_is_nobodys_death() -> None:
    async with five_nodes() as five:
        before = await five.doubts()
        five["e"].pause()
        await asyncio.sleep(0.5)
        five["e"].resume()
        await five.all_see(EVERYBODY, goal_s=RETURN_GOAL_S, what="everybody is alive after a pause")
        await stays(lambda: everybody_lives(five), WATCHED_S)
        since = await five.nobody_died_since(before)
        assert since["e"].stalls > 0
        assert since["e"].accusations == 0, f"e blamed others for its own pause\n{await five.evidence()}"


@pytest.mark.parametrize("pause_s", [3.0, 10.0])
async def test_a_node_that_hangs_is_given_up_blames_nobody_and_is_back_with_all_it_offers(pause_s: float) -> None:
    async with five_nodes() as five:
        before = await five.doubts()
        five["e"].pause()
        hangs = asyncio.create_task(asyncio.sleep(pause_s))
        await five.all_see({**EVERYBODY, "e": "dead"}, by="abcd", goal_s=DEATH_GOAL_S, what="e is given up")
        await hangs
        five["e"].resume()
        await five.all_see(EVERYBODY, goal_s=RETURN_GOAL_S, what="e is back")
        await eventually(lambda: offered_everywhere(five), RETURN_GOAL_S, what="what e offers is known everywhere again")
        await stays(lambda: everybody_lives(five), WATCHED_S)
        since = {name: now.since(before[name]) for name, now in (await five.doubts()).items()}
        assert [since[name].deaths for name in NAMES] == [1, 1, 1, 1, 0], f"{since}\n{await five.evidence()}"
        assert since["e"].accusations == 0, f"e blamed others for its own pause\n{await five.evidence()}"
        assert since["e"].stalls > 0
        assert since["e"].refutations > 0


async def test_when_the_whole_machine_stands_still_for_a_second_none_of_its_nodes_blames_another() -> None:
    async with five_nodes() as five:
        before = await five.doubts()
        for _ in range(STANDSTILLS_MAX):
            # One is a little ahead of the others, so that somebody is waiting for its answer when the rest stops, too.
            five["a"].pause()
            await asyncio.sleep(0.05)
            for name in "bcde":
                five[name].pause()
            await asyncio.sleep(1.0)
            for node in five.nodes.values():
                node.resume()
            await five.all_see(EVERYBODY, goal_s=RETURN_GOAL_S, what="everybody is alive after a standstill")
            since = await five.nobody_died_since(before)
            assert not any(own.accusations for own in since.values()), f"{since}\n{await five.evidence()}"
            if any(own.voided for own in since.values()):
                break
        else:
            raise AssertionError(f"in {STANDSTILLS_MAX} standstills nobody ever waited for an answer")
        await stays(lambda: everybody_lives(five), WATCHED_S)
        since = await five.nobody_died_since(before)
        assert not any(own.accusations for own in since.values()), f"{since}\n{await five.evidence()}"


@contextlib.asynccontextmanager
async def decoding(node: Node) -> AsyncIterator[Callable[[], int]]:
    """Streams without a pause for as long as the block lasts; how many tokens came so far."""
    tokens = 0

    async def stream_after_stream(number: int) -> None:
        nonlocal tokens
        body = {
            "model": "smollm2",
            "messages": [{"role": "user", "content": f"Tell story number {number}, a long one."}],
            "max_tokens": 400,
            "stream": True,
        }
        while True:
            async with node.http.post("/v1/chat/completions", json=body, timeout=aiohttp.ClientTimeout(total=None)) as response:
                assert response.status == 200, await response.text()
                async for line in response.content:
                    tokens += line.startswith(b"data:")

    async with asyncio.TaskGroup() as streams:
        tasks = [streams.create_task(stream_after_stream(number)) for number in range(STREAMS_AT_ONCE)]
        yield lambda: tokens
        for task in tasks:
            task.cancel()


@pytest.mark.engine
async def test_a_node_whose_cores_are_busy_decoding_is_not_given_up_and_blames_nobody() -> None:
    async with five_nodes(e={"env": {"ASTROMESH_MODELS_DIR": str(MODELS)}}) as five:
        await eventually(lambda: ready_for(five["e"], "smollm2"), MODELS_GOAL_S, what="e has loaded the model")
        workers = psutil.Process(five["e"].pid).children(recursive=True)
        before, worked_before_s = await five.doubts(), cpu_s(workers)
        async with decoding(five["e"]) as tokens:

            async def begun() -> bool:
                return tokens() > 0

            await eventually(begun, MODELS_GOAL_S, what="tokens come")
            await stays(lambda: everybody_lives(five), WATCHED_S)
            since = await five.nobody_died_since(before)
            print(f"{tokens()} tokens, {cpu_s(workers) - worked_before_s:.1f} s of CPU for them in {WATCHED_S:g} s")
        assert since["e"].accusations == 0, f"e blamed others for being busy itself\n{await five.evidence()}"


def cpu_s(processes: list[psutil.Process]) -> float:
    return sum(times.user + times.system for times in (process.cpu_times() for process in processes))


def many_values(size: int) -> bytes:
    """One JSON object of about `size` bytes, of lists within lists."""
    few = b"[1,[2,[3,[4,{}]]]]"
    return b'{"query":[' + b",".join([few] * (size // (len(few) + 1))) + b"]}"


def text_like_values(size: int) -> bytes:
    """One JSON object of `size` bytes whose only value looks like many."""
    return b'{"query":"' + b",[" * ((size - 12) // 2) + b'"}'


@pytest.mark.parametrize(
    ("body", "refused"), [(many_values, True), (text_like_values, False)], ids=["of-many-values", "of-text-full-of-commas"]
)
async def test_ten_megabytes_of_json_at_a_nodes_door_make_nobody_doubt_it(body: Callable[[int], bytes], refused: bool) -> None:
    async with five_nodes() as five:
        before = await five.doubts()
        large = body(BODY_BYTES - 1024)

        async def knock(path: str) -> None:
            headers = {"Content-Type": "application/json"}
            async with five["e"].http.post(path, data=large, headers=headers) as response:
                assert (response.status == 413) is refused, await response.text()

        for _ in range(BODIES):
            await asyncio.gather(knock("/v1/agents/desk/run"), knock("/v1/chat/completions"))
        since = await five.nobody_died_since(before)
        assert all(own.suspicions == 0 for own in since.values()), f"{since}\n{await five.evidence()}"
