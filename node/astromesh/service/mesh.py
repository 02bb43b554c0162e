"""This node's place in the mesh: its driver, what it offers there, and whom it joined.

Leaving ends the present life in the mesh and begins a new, lonely one: what others remember of a node that said goodbye stays true.
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Callable, Iterable, Mapping
from typing import Any

from prometheus_client.core import Metric

from astromesh.errors import ConfigurationError, JoinRefused
from astromesh.fleet.offers import Offer, OfferTooLarge, mere_figures, slots
from astromesh.fleet.roster import Roster
from astromesh.service import mesh_figures
from astromesh.service.addresses import HostPort, parse_seed
from astromesh.service.keys import ClusterKeys
from astromesh.service.ports import LAN_NEEDS, taken
from astromesh.service.record import RecordFile
from astromesh.service.rejections import Rejections
from astromesh.service.settings import NodeSettings
from maia.config import PROFILES, Address, MeshConfig
from maia.drivers.driver import MeshDriver
from maia.drivers.switchboard import Switchboard
from maia.errors import JoinFailed
from maia.identity import node_id_of
from maia.links.greeting import Greeting
from maia.view import (
    GenerationRaised,
    IncarnationRaised,
    KeyMissing,
    KeyringChanged,
    MemberDied,
    MemberJoined,
    MemberLeft,
    MemberReturned,
    MeshEvent,
    MeshView,
)

log = logging.getLogger(__name__)

JOIN_TIMEOUT_S = 10.0
GOODBYE_S = 2.0
REJECTIONS_LOOK_S = 10.0
NAME_SUFFIX_CHARACTERS = 6
NAMES_SHOWN = 3


class MeshMembership:
    """One node's membership, from `start` to `stop`."""

    def __init__(self, settings: NodeSettings, file: RecordFile, *, offer: Callable[[], Offer]) -> None:
        """`offer` says what this node offers now. Raises `ConfigurationError` for a damaged key, record or keyring file."""
        self._settings = settings
        self._file = file
        self.keys = ClusterKeys(settings.keyring_file, driver=self._alive, label=Roster(lambda: self.view).label, members=self._somebody)
        self._key = file.key()
        self._node_id = node_id_of(self._key.public_key)
        self._record = file.read()
        self._offer = offer
        self._offered: dict[str, bytes] = {}
        self._too_large = ""  # the complaint that was made already
        self._driver: MeshDriver | None = None
        self._board: Switchboard | None = None
        self._unanswered = ""  # what to say while this node is alone although it has seeds
        self._unwritten = ""  # why the record on disk is behind
        self._retired = False
        self._moving = asyncio.Lock()  # one join or leave at a time: each ends with a whole life
        self._writing = asyncio.Lock()
        self._begun: set[asyncio.Task[None]] = set()  # carried through, whoever stops
        self._looking: set[asyncio.Task[None]] = set()  # for ever, until this node stops
        self._listeners: list[Callable[[MeshEvent], None]] = []

    @property
    def name(self) -> str:
        """The name on the wire."""
        return f"{self._settings.name}-{self._node_id[:NAME_SUFFIX_CHARACTERS]}"

    @property
    def view(self) -> MeshView | None:
        return self._driver.view if self._driver is not None else None

    @property
    def greeting(self) -> Greeting:
        """How this node introduces itself on a link."""
        return Greeting(self.name, self._node_id)

    async def start(self, board: Switchboard) -> None:
        """Opens the gossip and looks for the seeds, for ever if need be. Raises `ConfigurationError` where its port is in use.

        Links to members that died are hung up on `board`: their calls fail now, not when silence proves it.
        """
        self._board = board
        await self._begin_life()
        _own(self._looking, asyncio.create_task(self._tell_rejections(), name="telling what the mesh refused"))
        seeds = (*self._record.joined, *(str(seed) for seed in self._settings.join))
        if self._record.left:
            log.warning(
                "this node was told to leave the mesh and stays alone until 'astromesh-node join ADDR'; seeds are not asked: %s",
                ", ".join(seeds) or "none",
            )
        elif seeds:
            _own(self._looking, asyncio.create_task(self._look_for(tuple(dict.fromkeys(seeds))), name="joining the mesh"))
        else:
            # Others that count it as left do not look for it, and --join is not remembered as 'join' is.
            log.info("alone: no seed is configured and no mesh was joined before; 'astromesh-node join ADDR' joins one for good")

    async def stop(self) -> None:
        """Says goodbye, so that nobody has to find out. Afterwards the record on disk is what was seen last."""
        for task in self._looking:
            task.cancel()
        await asyncio.gather(*self._looking, *self._begun, return_exceptions=True)
        if self._driver is not None:
            await self._driver.leave(timeout_s=GOODBYE_S)
            await self._driver.stop()
            self.keys.follow()
        await asyncio.gather(*self._begun, return_exceptions=True)
        await self.keys.close()

    async def join(self, address: str) -> int:
        """Joins through a member and remembers it. How many others are known then. Raises `JoinRefused`, `ConfigurationError`."""
        try:
            seed = parse_seed(address)
        except ValueError as mistake:
            raise JoinRefused(f"{address!r} is no address: {mistake}", hint="write HOST:PORT of a member's gossip") from mistake
        if not seed.is_loopback:
            raise ConfigurationError(f"{seed} is another machine", hint=LAN_NEEDS)
        async with self._moving:
            driver = self._alive()
            try:
                await driver.join((_literal(seed),), timeout_s=JOIN_TIMEOUT_S)
            except JoinFailed as failure:
                raise JoinRefused(
                    f"no member of a mesh answers at {seed}: {failure}", hint="is the node there up, and is this its gossip address?"
                ) from failure
            self._record = self._record.with_seed(str(seed))
            await self._save()
            return sum(member.usable for member in driver.view.peers)

    async def leave(self) -> None:
        """Says goodbye, forgets whom it joined, and stays alone until it is told to join again.

        Once begun it is carried through, whoever asked and is gone by then: half of it would be a node that is neither here nor there.
        """
        task = asyncio.create_task(self._begin_alone(), name="leaving the mesh")
        _own(self._begun, task)
        await asyncio.shield(task)

    async def _begin_alone(self) -> None:
        async with self._moving:
            driver = self._alive()
            await driver.leave(timeout_s=GOODBYE_S)
            await driver.stop()
            self.keys.follow()
            for member in driver.view.peers:
                self._hang_up(member.name, "this node left the mesh")
            self._record = self._record.alone()
            self._tell(MemberLeft(self.name))
            await self._begin_life()
            self._tell(MemberReturned(self.name, self._record.generation))

    def _alive(self) -> MeshDriver:
        assert self._driver is not None, "before start"
        return self._driver

    def _somebody(self) -> str:
        """Where a person may look for what this node lacks."""
        others = [member.title for member in self.view.peers if member.usable] if self.view else []
        seeds = [f"the member at {seed}" for seed in dict.fromkeys((*self._record.joined, *map(str, self._settings.join)))]
        return " or ".join((others or seeds)[:NAMES_SHOWN]) or "another member"

    def retire(self) -> None:
        """Offers nothing any more, so that nobody sends what is new; what is under way goes on."""
        self._retired = True
        self.publish()

    def clock(self) -> float:
        return time.monotonic()

    def listen(self, hear: Callable[[MeshEvent], None]) -> Callable[[], None]:
        """Calls `hear` on this loop for every event of the mesh, over all its lives here. Returns how to end that."""

        def heard(event: MeshEvent) -> None:  # one of its own, so that the same callable may listen twice
            hear(event)

        self._listeners = [*self._listeners, heard]

        def end() -> None:
            self._listeners = [other for other in self._listeners if other is not heard]

        return end

    def warnings(self) -> tuple[str, ...]:
        alone = self.view is None or not any(member.usable for member in self.view.peers)
        said = (self._unanswered if alone else "", self._unwritten)
        return (*filter(None, said), *self.keys.warnings())

    def link(self, name: str) -> Mapping[str, Any]:
        stats = self._board.stats().links.get(name) if self._board else None
        return {"state": stats.state if stats else "closed", "rtt_ms": stats.rtt_ms if stats else None}

    def publish(self) -> None:
        """Tells the mesh what changed in what this node offers."""
        if self._driver is None:
            return
        try:
            entries = slots(Offer() if self._retired else self._offer())
        except OfferTooLarge as mistake:
            if str(mistake) != self._too_large:
                self._too_large = str(mistake)
                log.error("not everything here can be offered to the mesh: %s", mistake)
            return
        self._too_large = ""
        for key, value in entries.items():
            if value == self._offered.get(key, b""):
                continue
            if value:
                figures = mere_figures(key, self._offered.get(key, b""), value)
                self._driver.offer(key, value, urgency="figures" if figures else "at once")
            else:
                self._driver.withdraw(key)
        self._offered = entries

    def report_load(self, value: bytes) -> None:
        """Tells the mesh how busy this node is, with the next acks."""
        if self._driver is not None:
            self._driver.report_load(value)

    def heard(self, name: str) -> None:
        """A member answered a call: it lives."""
        if self._driver is not None:
            self._driver.heard(name)

    def figures(self) -> Iterable[Metric]:
        """For Prometheus, read at the moment of the scrape."""
        if self._driver is None:
            return
        yield from mesh_figures.figures(self._driver.counters(), self._driver.view)

    async def _begin_life(self) -> None:
        settings = self._settings
        self._record = self._record.next_life(now=time.time())
        await self._save()
        config = MeshConfig(
            name=self.name,
            title=settings.name,
            signer=self._key,
            generation=self._record.generation,
            incarnation=self._record.incarnation,
            gossip=_literal(settings.gossip),
            api=str(settings.api),
            link=_literal(settings.link),
            role=settings.role,
            profile=PROFILES[settings.profile],
            cluster_id=settings.cluster_id,
            keyring=self.keys.ring,
            serf=settings.serf,
            alone=self._record.left,
        )
        driver = MeshDriver(config)
        driver.subscribe(self._hear)
        try:
            await driver.start()
        except OSError as failure:
            raise taken("gossip", settings.gossip, failure, kinds=("udp", "tcp")) from failure
        self._driver = driver
        self._offered = {}
        self.publish()

    async def _tell_rejections(self) -> None:
        rejections = Rejections()
        while True:
            counters = self._alive().counters()
            for line in rejections.look(counters.rejected, counters.rejected_from, now=self.clock()):
                log.log(logging.INFO if line.harmless else logging.WARNING, "%s", line.text)
            await asyncio.sleep(REJECTIONS_LOOK_S)

    async def _look_for(self, seeds: tuple[str, ...]) -> None:
        addresses = tuple(_literal(parse_seed(seed)) for seed in seeds)
        assert self._driver is not None
        log.info("looking for the mesh: asking %s", ", ".join(seeds))  # what they answer may take a while to come
        try:
            await self._driver.join(addresses, timeout_s=JOIN_TIMEOUT_S)
        except JoinFailed:
            self._unanswered = f"none of {', '.join(seeds)} answers yet; this node is alone and keeps looking{self.keys.doubt()}"
            log.warning("%s", self._unanswered)
        else:
            others = ", ".join(member.title for member in self._alive().view.peers if member.usable)
            log.info("joined the mesh through %s: with %s", ", ".join(seeds), others or "nobody yet")

    def _hear(self, event: MeshEvent) -> None:
        """What the mesh saw, on the node's own loop."""
        match event:
            case MemberDied(name, accuser):
                log.info("%s is dead, says %s", name, accuser)
                self._hang_up(name, "the mesh gave it up")
            case MemberLeft(name):
                # Not hung up: whoever says goodbye has finished its calls or closes the link itself, and a goodbye can be forged.
                log.info("%s left", name)
            case MemberJoined(name):
                log.info("%s is here", name)
            case MemberReturned(name):
                log.info("%s is back", name)
            case IncarnationRaised(incarnation):
                self._record = self._record.raised(incarnation=incarnation)
                _own(self._begun, asyncio.create_task(self._save(), name="writing node.json"))
            case KeyringChanged() | KeyMissing():
                self.keys.hear(event)
            case GenerationRaised(generation):
                self._record = self._record.raised(generation=generation)
                _own(self._begun, asyncio.create_task(self._save(), name="writing node.json"))
        self._tell(event)

    def _tell(self, event: MeshEvent) -> None:
        for hear in self._listeners:
            hear(event)

    def _hang_up(self, name: str, why: str) -> None:
        if self._board is not None:
            self._board.hang_up(name, why)

    async def _save(self) -> None:
        """Writes the record as it is when its turn comes, which is never older than when it was asked for.

        Where the disk does not take it, the mesh goes on: what it says is recovered from the others, only later.
        """
        async with self._writing:
            try:
                await asyncio.to_thread(self._file.write, self._record)
            except OSError as failure:
                self._unwritten = (
                    f"{self._file.path} cannot be written ({failure.strerror}): after a restart this node may not know whom it joined or "
                    "that it left. Make the file and its folder writable for it; it tries again with the next change"
                )
                log.error("%s", self._unwritten)
            else:
                self._unwritten = ""


def _own(tasks: set[asyncio.Task[None]], task: asyncio.Task[None]) -> None:
    tasks.add(task)
    task.add_done_callback(tasks.discard)


def check_seeds(seeds: Iterable[HostPort]) -> None:
    """Raises `ConfigurationError` for a seed on another machine."""
    for seed in seeds:
        if not seed.is_loopback:
            raise ConfigurationError(f"--join {seed} is another machine", hint=LAN_NEEDS)


def _literal(address: HostPort) -> Address:
    """As the mesh wants it, an IP literal; "localhost" is the one name that stands for loopback."""
    return Address("127.0.0.1" if address.host == "localhost" else address.host, address.port)
