"""Many small mesh processes on addresses of their own, ours or stock `serf` agents, and what each of them says when it happens.

Every process writes a line for what it learns; the lines are stamped here, on arrival, the same way for both kinds.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import re
import signal
import sys
import time
from asyncio.subprocess import PIPE, STDOUT, Process
from collections.abc import AsyncIterator, Callable, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, Literal

from tests.rig.server_process import ROOT

PORT = 7946
RPC_PORT = 7373
# Twenty Python processes on two busy cores, each a third of a second of imports, and then a gossip that is given time to pass.
START_S = 60.0
# The longest suspicion of `lan` among twenty is 31 s; a death unnoticed for a minute was not noticed.
PATIENCE_S = 60.0
LINE_BYTES_MAX = 1024 * 1024

What = Literal["joined", "died", "doubted", "offers"]


@dataclass(frozen=True, slots=True)
class Told:
    """One member's own word about another, when it came."""

    at_s: float
    by: str
    what: What
    about: str


def first_words(told: Sequence[Told], *, what: What, about: str, since_s: float) -> dict[str, float]:
    """Who said so, and how many seconds after `since_s` it was first said."""
    first: dict[str, float] = {}
    for each in told:
        if each.what == what and each.about == about:
            first.setdefault(each.by, each.at_s - since_s)
    return first


@dataclass(frozen=True, slots=True, kw_only=True)
class Side:
    """A kind of member: how to start one, and how to read what it writes.

    `command` gets a name, a host, the host to join (none for the first) and which life of the member it is.
    """

    name: str
    up: str  # how the line begins by which a member says that it can be joined
    command: Callable[[str, str, str | None, int], Sequence[str]]
    read: Callable[[str], tuple[What, str] | None]


def read_ours(line: str) -> tuple[What, str] | None:
    match line.split(" "):
        case ["joined" | "died" | "doubted" | "offers" as what, about]:
            return what, about
        case _:
            return None


# The verdict itself: what an event handler of serf is told comes up to a second later, since it gathers events first.
SERF_LINES: Sequence[tuple[re.Pattern[str], What]] = (
    (re.compile(r"serf: EventMemberJoin: (\S+) "), "joined"),
    (re.compile(r"serf: EventMemberFailed: (\S+) "), "died"),
    (re.compile(r"memberlist: Suspect (\S+) has failed, no acks received"), "doubted"),
)


def read_serf(line: str) -> tuple[What, str] | None:
    for pattern, what in SERF_LINES:
        if (found := pattern.search(line)) is not None:
            return what, found[1]
    return None


def ours(profile: str) -> Side:
    def command(name: str, host: str, join: str | None, life: int) -> Sequence[str]:
        seed = ["--join", f"{join}:{PORT}"] if join else []
        module = [sys.executable, "-m", "tests.bench.mesh_process"]
        return [*module, name, f"{host}:{PORT}", "--profile", profile, "--life", str(life), *seed]

    return Side(name=profile, up="up", command=command, read=read_ours)


def sealed(side: Side) -> Side:
    """One of ours under AES-GCM."""
    return replace(side, name=f"{side.name}, sealed", command=lambda *each: [*side.command(*each), "--sealed"])


def _serf(name: str, host: str, join: str | None, life: int) -> Sequence[str]:
    del life  # it remembers none
    seed = [f"-join={join}:{PORT}"] if join else []
    return ["serf", "agent", f"-node={name}", f"-bind={host}:{PORT}", f"-rpc-addr={host}:{RPC_PORT}", "-log-level=info", *seed]


SERF = Side(name="serf", up="==> Serf agent running!", command=_serf, read=read_serf)


@dataclass(slots=True)
class Member:
    name: str
    host: str
    life: int = 0
    process: Process | None = None
    reading: asyncio.Task[None] | None = None
    knows: dict[str, None] = field(default_factory=dict)  # whom it counts among the living, itself left out
    up: asyncio.Event = field(default_factory=asyncio.Event)
    said: str = ""  # its last line, for complaints
    figures: asyncio.Future[dict[str, Any]] | None = None

    @property
    def pid(self) -> int:
        assert self.process is not None
        return self.process.pid


class Cluster:
    """`size` members of one side. `told` holds what they said, oldest first."""

    def __init__(self, side: Side, *, number: int, size: int) -> None:
        """`number` tells apart the addresses of clusters in one network."""
        self.side = side
        self.members = {f"n{index}": Member(f"n{index}", f"127.0.{number}.{index}") for index in range(1, size + 1)}
        self.told: list[Told] = []
        self._news = asyncio.Event()

    async def start(self, name: str, *, through: str | None) -> None:
        """Start a member, or start it again, to join through another."""
        member = self.members[name]
        if member.process is not None and member.reading is not None:
            await member.process.wait()
            await member.reading  # to the last word of its earlier life
        member.life += 1
        member.knows.clear()
        join = self.members[through].host if through else None
        member.process = await asyncio.create_subprocess_exec(
            *self.side.command(name, member.host, join, member.life), cwd=ROOT, stdin=PIPE, stdout=PIPE, stderr=STDOUT, limit=LINE_BYTES_MAX
        )
        member.reading = asyncio.create_task(self._read(member, member.process), name=f"what {name} says")

    def kill(self, name: str) -> float:
        """SIGKILL. When it was sent."""
        at_s = time.monotonic()
        process = self.members[name].process
        assert process is not None
        process.kill()
        return at_s

    def pause(self, name: str) -> None:
        self._signal(name, signal.SIGSTOP)

    def resume(self, name: str) -> None:
        self._signal(name, signal.SIGCONT)

    def _signal(self, name: str, number: signal.Signals) -> None:
        process = self.members[name].process
        assert process is not None
        process.send_signal(number)

    def say(self, name: str, line: str) -> float:
        """A line to a member of ours. When it was written."""
        process = self.members[name].process
        assert process is not None
        assert process.stdin is not None
        at_s = time.monotonic()
        process.stdin.write(f"{line}\n".encode())
        return at_s

    async def figures(self, name: str) -> dict[str, Any]:
        """What a member of ours says about itself."""
        member = self.members[name]
        member.figures = asyncio.get_running_loop().create_future()
        self.say(name, "figures")
        return await asyncio.wait_for(member.figures, PATIENCE_S)

    async def until(self, happened: Callable[[], bool], *, patience_s: float = PATIENCE_S) -> bool:
        """Waits for what somebody says to make it true; False where it did not in time."""
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(patience_s):
                while not happened():
                    self._news.clear()
                    await self._news.wait()
        return happened()

    async def until_complete(self) -> None:
        """Waits until everybody counts everybody else among the living. Raises `RuntimeError` with who does not."""
        if not await self.until(lambda: not self.strangers(), patience_s=START_S):
            raise RuntimeError(f"{self.side.name}: after {START_S:g} s still {'; '.join(self.strangers())}")

    def strangers(self) -> list[str]:
        """Who lacks whom."""
        lacking = {name: [other for other in self.members if other not in {name, *member.knows}] for name, member in self.members.items()}
        return [f"{name} lacks {', '.join(others)} (it said {self.members[name].said!r})" for name, others in lacking.items() if others]

    async def _read(self, member: Member, process: Process) -> None:
        assert process.stdout is not None
        while line := await process.stdout.readline():
            at_s = time.monotonic()
            member.said = line.decode(errors="replace").rstrip()
            if member.figures is not None and member.said.startswith("figures "):
                member.figures.set_result(json.loads(member.said.removeprefix("figures ")))
                continue
            if member.said.startswith(self.side.up):
                member.up.set()
            news = self.side.read(member.said)
            if news is None or news[1] == member.name:
                continue
            what, about = news
            if what == "joined":
                member.knows[about] = None
            elif what == "died":
                member.knows.pop(about, None)
            self.told.append(Told(at_s, member.name, what, about))
            self._news.set()

    async def close(self) -> None:
        for member in self.members.values():
            if member.process is not None and member.process.returncode is None:
                with contextlib.suppress(ProcessLookupError):
                    member.process.kill()
        for member in self.members.values():
            if member.process is not None and member.reading is not None:
                await member.process.wait()
                await member.reading


@contextlib.asynccontextmanager
async def cluster(side: Side, *, number: int, size: int) -> AsyncIterator[Cluster]:
    """A cluster in which everybody knows everybody, from here to the end of the block."""
    made = Cluster(side, number=number, size=size)
    try:
        first, *rest = made.members
        await made.start(first, through=None)
        # Stock agents give up where nobody answers.
        await asyncio.wait_for(made.members[first].up.wait(), START_S)
        for name in rest:
            await made.start(name, through=first)
        await made.until_complete()
        yield made
    finally:
        await made.close()
