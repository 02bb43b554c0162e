"""One `Mesh` in conversation with peers that exist only as their words: say something to it, and read what it answered to whom."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from random import Random

from tests.maia.keys import key_of

from maia.config import LAN_FAST, Address, MeshConfig, Profile
from maia.core import Mesh
from maia.exchanges import Exchange
from maia.view import MemberView, MeshEvent
from maia.wire.codec import decode, encode, pack
from maia.wire.frames import StreamDecoder
from maia.wire.messages import Ack, Alive, Dead, Message, Ping, PushPull
from maia.wire.tags import encode_tags

ME = "me-000000"


def config_of(name: str, *, number: int, profile: Profile = LAN_FAST, generation: int = 1) -> MeshConfig:
    return MeshConfig(
        name=name, title=name[:-7], signer=key_of(name), generation=generation, gossip=Address("10.0.0.1", 7000 + number), profile=profile
    )


class Talk:
    """Its own peers are `p1-000001`, `p2-000002` and so on, met at the start; they answer pings unless they are `silent`."""

    def __init__(self, *, peers: int = 0, profile: Profile = LAN_FAST, seed: int = 1, **changes: object) -> None:
        self.now = 0.0
        self.config = replace(config_of(ME, number=0, profile=profile), **changes)  # type: ignore[arg-type]
        self.mesh = Mesh(self.config, random=Random(seed), now=0.0)
        self.peers = {
            f"p{number}-{number:06}": config_of(f"p{number}-{number:06}", number=number, profile=profile) for number in range(1, peers + 1)
        }
        self.silent: dict[str, None] = {}
        self.events: list[MeshEvent] = []
        self.exchanges: list[Exchange] = []
        self.sent: list[tuple[float, Address, Message]] = []
        for name in self.peers:
            self.hear(self.alive(name), sender=self.address(name))
        self.sent.clear()
        self.events.clear()

    def address(self, name: str) -> Address:
        return self.peers[name].gossip

    def alive(self, name: str, incarnation: int = 1, **changes: object) -> Alive:
        """What a peer says of itself."""
        config = replace(self.peers[name], **changes)  # type: ignore[arg-type]
        return Alive(incarnation, name, config.gossip, encode_tags(config))

    def hear(self, *messages: Message, sender: Address) -> None:
        """The mesh receives one packet."""
        self.mesh.receive(pack([encode(message) for message in messages]), sender=sender, now=self.now)
        self._drain()

    def pass_time(self, until_s: float) -> None:
        """Let the mesh do what is due; peers that are not silent answer its pings at once."""
        while (due_s := max(self.mesh.deadline(), self.now)) <= until_s:
            self.now = due_s
            self.mesh.tick(now=self.now)
            self._drain()
        self.now = until_s
        self._drain()

    def lose(self, name: str, *, incarnation: int = 1, accuser: str = "p2-000002") -> None:
        """Somebody else gave a peer up, and it does not refute in time."""
        self.hear(Dead(incarnation, name, accuser), sender=self.address(accuser))
        self.pass_time_until(lambda: self.status(name) == "dead")

    def pass_time_until(self, happened: Callable[[], object], *, limit_s: float = 10.0) -> None:
        """Let time pass in hundredths of a second until something happened."""
        end_s = self.now + limit_s
        while not happened():
            assert self.now < end_s, f"nothing of the kind happened in {limit_s:g} s"
            self.pass_time(self.now + 0.01)

    def _drain(self) -> None:
        answers: list[tuple[Message, Address]] = []
        for payload, target in self.mesh.datagrams():
            for message in decode(payload).messages:
                self.sent.append((self.now, target, message))
                name = next((name for name, config in self.peers.items() if config.gossip == target), None)
                if isinstance(message, Ping) and name is not None and name not in self.silent:
                    answers.append((Ack(message.sequence), target))
        self.events += self.mesh.events()
        self.exchanges += self.mesh.exchanges()
        for answer, sender in answers:
            self.hear(answer, sender=sender)

    def said(self, kind: type[Message], *, to: str | Address | None = None) -> list[Message]:
        """What the mesh sent of one kind since the last call of `forget`, to one peer or to all."""
        target = self.address(to) if isinstance(to, str) else to
        return [message for _, receiver, message in self.sent if isinstance(message, kind) and target in (None, receiver)]

    def forget(self) -> None:
        self.sent.clear()
        self.events.clear()
        self.exchanges.clear()

    def member(self, name: str) -> MemberView:
        return self.mesh.view(now=self.now).members[name]

    def status(self, name: str) -> str:
        return self.member(name).status


def read_stream(encoded: bytes) -> PushPull:
    """A whole push/pull."""
    whole = StreamDecoder().feed(encoded)
    assert whole is not None
    return whole
