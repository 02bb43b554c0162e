"""Keys by query: a few meshes that hear each other over bytes ask, answer and change their keyrings."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from random import Random

import pytest
from tests.maia.talk import config_of

from maia.config import Address, MeshConfig
from maia.core import Mesh
from maia.errors import DatagramRejected, MisuseError
from maia.keyring import KEYS_MAX, Keyring, fingerprint_of, text_of
from maia.view import KeyMissing, KeyOperation, KeyQueryEnded, KeyringChanged, MeshEvent, SeedAnswered
from maia.wire.frames import StreamDecoder
from maia.wire.messages import PushPull
from maia.wire.seal import Sealer

OLD, NEW, THIRD = b"o" * 16, b"n" * 32, b"t" * 24


class Cluster:
    """Meshes by name; every datagram and stream between them arrives at once, but at those that are `away`."""

    def __init__(self, count: int, *keys: bytes) -> None:
        self.now = 0.0
        self.away: dict[str, None] = {}
        self.meshes: dict[str, Mesh] = {}
        self.events: dict[str, list[MeshEvent]] = {}
        for number in range(1, count + 1):
            config = config_of(f"n{number}-{number:06}", number=number)
            self.start(replace(config, keyring=Keyring(keys) if keys else None))
        first = next(iter(self.meshes.values()))
        for mesh in list(self.meshes.values())[1:]:
            mesh.join([first.config.gossip], now=0.0)
        self.pass_time(2.0)
        assert all(len(mesh.view(now=self.now).members) == count for mesh in self.meshes.values())

    def start(self, config: MeshConfig) -> Mesh:
        mesh = self.meshes[config.name] = Mesh(config, random=Random(config.name), now=self.now)
        self.events[config.name] = []
        return mesh

    def __getitem__(self, number: int) -> Mesh:
        return self.meshes[f"n{number}-{number:06}"]

    def happened(self, number: int, kind: type[MeshEvent]) -> list[MeshEvent]:
        return [event for event in self.events[self[number].config.name] if isinstance(event, kind)]

    def pass_time(self, seconds: float) -> None:
        end_s = self.now + seconds
        while self.now < end_s:
            self.now += 0.005
            for mesh in self.meshes.values():
                if mesh.config.name not in self.away and mesh.deadline() <= self.now:
                    mesh.tick(now=self.now)
            self.carry()

    def pass_time_until(self, happened: Callable[[], object], *, limit_s: float = 30.0) -> None:
        end_s = self.now + limit_s
        while not happened():
            assert self.now < end_s, f"nothing of the kind in {limit_s:g} s"
            self.pass_time(0.005)

    def carry(self) -> None:
        busy = True
        while busy:
            busy = False
            for mesh in list(self.meshes.values()):
                busy = self._carry_from(mesh) or busy

    def _at(self, address: Address) -> Mesh | None:
        return next((mesh for mesh in self.meshes.values() if mesh.config.gossip == address and mesh.config.name not in self.away), None)

    def _carry_from(self, mesh: Mesh) -> bool:
        datagrams, exchanges = mesh.datagrams(), mesh.exchanges()
        self.events[mesh.config.name] += mesh.events()
        if mesh.config.name in self.away:
            return False
        for payload, target in datagrams:
            receiver = self._at(target)
            if receiver is not None:
                receiver.receive(payload, sender=mesh.config.gossip, now=self.now)
        for exchange in exchanges:
            receiver = self._at(exchange.target)
            try:
                if receiver is None:
                    mesh.exchange_failed(exchange.number)
                    continue
                request = receiver.decoder().feed(exchange.request)
                assert request is not None
                reply = mesh.decoder().feed(receiver.answer(request, now=self.now))
                assert reply is not None
                mesh.reply(exchange.number, reply, now=self.now)
            except DatagramRejected as error:
                mesh.counters.reject(error.reason)
                mesh.exchange_failed(exchange.number)
        return bool(datagrams or exchanges)

    def ask(self, number: int, operation: KeyOperation, key: bytes | None = None) -> KeyQueryEnded:
        """Ask from one node, and wait for the end of it."""
        asked = self[number].ask_keys(operation, key, now=self.now)
        ended: list[MeshEvent] = []

        def over() -> bool:
            ended[:] = [event for event in self.happened(number, KeyQueryEnded) if event.number == asked]  # type: ignore[attr-defined]
            return bool(ended)

        self.pass_time_until(over)
        assert isinstance(ended[0], KeyQueryEnded)
        return ended[0]


def names(count: int) -> tuple[str, ...]:
    return tuple(f"n{number}-{number:06}" for number in range(1, count + 1))


def test_everybody_is_asked_and_says_which_keys_it_has() -> None:
    cluster = Cluster(5, OLD)
    ended = cluster.ask(2, "list")
    assert ended.asked == names(5)
    assert sorted(reply.node for reply in ended.replies) == list(names(5))
    assert {(reply.ok, reply.keys, reply.primary) for reply in ended.replies} == {(True, (text_of(OLD),), text_of(OLD))}


def test_a_rotation_by_queries_changes_every_keyring_and_loses_nobody() -> None:
    cluster = Cluster(5, OLD)
    for operation, key, ring in (("install", NEW, (OLD, NEW)), ("use", NEW, (NEW, OLD)), ("remove", OLD, (NEW,))):
        ended = cluster.ask(3, operation, key)  # type: ignore[arg-type]
        assert [reply.ok for reply in ended.replies] == [True] * 5
        for number in range(1, 6):
            assert cluster[number].keyring == Keyring(ring)
            assert cluster.happened(number, KeyringChanged)[-1] == KeyringChanged()
    for number in range(1, 6):
        assert len(cluster.happened(number, KeyringChanged)) == 3
        assert cluster.happened(number, KeyMissing) == []
        assert cluster[number].counters.rejected == {}
        assert cluster[number].counters.suspicions == 0


def test_who_asks_uses_the_new_key_last_so_that_all_can_read_the_question() -> None:
    cluster = Cluster(3, OLD)
    cluster[1].use_keyring(Keyring((OLD, NEW)))
    cluster[2].use_keyring(Keyring((OLD, NEW)))  # and the third never heard of it
    ended = cluster.ask(1, "use", NEW)
    assert {reply.node: (reply.ok, reply.message) for reply in ended.replies} == {
        names(3)[0]: (True, ""),
        names(3)[1]: (True, ""),
        names(3)[2]: (False, "Requested key is not in the keyring"),
    }
    assert ended.replies[-1].node == names(3)[0]


def test_the_primary_is_not_removed_and_serf_s_words_say_so() -> None:
    cluster = Cluster(2, OLD, NEW)
    ended = cluster.ask(1, "remove", OLD)
    assert {(reply.ok, reply.message) for reply in ended.replies} == {(False, "Removing the primary key is not allowed")}
    assert cluster[1].keyring == cluster[2].keyring == Keyring((OLD, NEW))
    assert cluster.happened(2, KeyringChanged) == []


def test_nobody_takes_more_keys_than_a_keyring_holds_nor_one_of_an_odd_size() -> None:
    cluster = Cluster(2, *(bytes((number,)) * 16 for number in range(KEYS_MAX)))
    assert [reply.ok for reply in cluster.ask(1, "install", NEW).replies] == [False, False]
    assert all("16 keys" in reply.message for reply in cluster.ask(1, "install", NEW).replies)
    few = Cluster(2, OLD)
    assert all("has 16, 24 or 32 bytes" in reply.message for reply in few.ask(1, "install", b"short").replies)


def test_a_cluster_without_keys_says_so_in_serf_s_words() -> None:
    cluster = Cluster(2)
    assert {reply.message for reply in cluster.ask(1, "list").replies} == {"Keyring is empty (encryption not enabled)"}
    assert {reply.message for reply in cluster.ask(1, "install", NEW).replies} == {"No keyring to modify (encryption not enabled)"}


def test_a_node_that_is_alone_asks_itself() -> None:
    ended = Cluster(1, OLD).ask(1, "install", NEW)
    assert (ended.asked, [reply.ok for reply in ended.replies]) == (names(1), [True])


def test_a_question_ends_without_those_who_are_silent() -> None:
    cluster = Cluster(3, OLD)
    cluster.away[names(3)[2]] = None
    before_s = cluster.now
    ended = cluster.ask(1, "list")
    assert ended.asked == names(3)
    assert {reply.node for reply in ended.replies} == set(names(2))
    assert cluster.now - before_s == pytest.approx(3.2, abs=0.1)  # sixteen gossip intervals of a stock agent


def test_a_question_without_its_key_and_too_many_questions_are_refused() -> None:
    cluster = Cluster(2, OLD)
    with pytest.raises(MisuseError, match="takes no key"):
        cluster[1].ask_keys("list", OLD, now=cluster.now)
    with pytest.raises(MisuseError, match="takes no key"):
        cluster[1].ask_keys("use", None, now=cluster.now)
    for _ in range(8):
        cluster[1].ask_keys("list", None, now=cluster.now)
    with pytest.raises(MisuseError, match="8 queries"):
        cluster[1].ask_keys("list", None, now=cluster.now)


def test_no_key_shows_in_what_is_told_of_them() -> None:
    cluster = Cluster(2, OLD)
    cluster.ask(1, "install", NEW)
    cluster.ask(1, "list")
    for events in cluster.events.values():
        assert text_of(OLD) not in repr(events)
        assert text_of(NEW) not in repr(events)
        assert "nnnn" not in repr(events)


# --- a node that was away ---


def test_a_node_that_returns_with_an_old_key_learns_which_one_it_lacks_and_is_let_in_once_it_has_it() -> None:
    cluster = Cluster(4, OLD)
    absent = names(4)[3]
    config = cluster[4].config
    cluster.away[absent] = None
    cluster.pass_time(10.0)
    assert cluster[1].view(now=cluster.now).members[absent].status == "dead"
    cluster.ask(1, "install", NEW)
    cluster.ask(1, "use", NEW)
    del cluster.away[absent]
    cluster.start(replace(config, incarnation=9, generation=9)).join([cluster[1].config.gossip], now=cluster.now)
    cluster.pass_time(3.0)
    assert cluster.happened(4, KeyMissing) == [KeyMissing(fingerprint_of(NEW))]
    assert cluster[4].view(now=cluster.now).peers == ()
    assert cluster.happened(4, SeedAnswered) == []
    cluster.start(replace(config, incarnation=10, generation=10, keyring=Keyring((OLD, NEW)))).join(
        [cluster[1].config.gossip], now=cluster.now
    )
    cluster.pass_time(3.0)
    assert {member.status for member in cluster[4].view(now=cluster.now).peers} == {"alive"}
    assert cluster.happened(4, KeyMissing) == []


def test_what_a_node_with_an_old_key_is_told_holds_nothing_but_names_of_keys() -> None:
    cluster = Cluster(3, OLD)
    cluster.ask(1, "install", NEW)
    cluster.ask(1, "use", NEW)
    sealer = Sealer(Keyring((OLD,)), random=Random(1))
    reply = StreamDecoder(sealer).feed(cluster[1].answer(PushPull((), join=True, keys=fingerprints(OLD)), now=cluster.now))
    assert reply == PushPull((), join=True, keys=fingerprints(NEW, OLD))
    assert list(cluster[1].view(now=cluster.now).members) == list(names(3))


def test_who_has_the_key_in_use_beside_its_own_is_answered_as_ever() -> None:
    cluster = Cluster(2, OLD)
    cluster[1].use_keyring(Keyring((NEW, OLD)))
    cluster[2].use_keyring(Keyring((OLD, NEW)))
    cluster.pass_time(70.0)
    assert cluster[1].counters.exchanges_failed == cluster[2].counters.exchanges_failed == 0
    assert cluster.happened(2, KeyMissing) == cluster.happened(1, KeyMissing) == []


def test_a_node_that_slept_through_a_rotation_gives_up_nobody_and_learns_which_key_it_lacks() -> None:
    cluster = Cluster(4, OLD)
    sleeper = names(4)[3]
    cluster.away[sleeper] = None
    cluster.ask(1, "install", NEW)
    cluster.ask(1, "use", NEW)
    del cluster.away[sleeper]
    cluster.pass_time(50.0)
    assert cluster[4].counters.probes_failed > 10
    assert cluster[4].counters.deaths == 0
    assert all(member.usable for member in cluster[4].view(now=cluster.now).peers)
    assert sorted(event.fingerprint for event in cluster.happened(4, KeyMissing)) == ["", fingerprint_of(NEW)]  # type: ignore[attr-defined]
    cluster[4].use_keyring(Keyring((NEW, OLD)))
    cluster.pass_time(5.0)
    for number in range(1, 5):
        statuses = {member.name: member.status for member in cluster[number].view(now=cluster.now).peers}
        assert set(statuses.values()) == {"alive"}, (number, statuses)


def test_what_strangers_seal_makes_nobody_deaf() -> None:
    cluster = Cluster(2, OLD)
    stranger = Sealer(Keyring((THIRD,)), random=Random(1))
    cluster.away[names(2)[1]] = None
    for _ in range(400):
        cluster[1].receive(stranger.seal(b"\x00anything that is long enough"), sender=Address("10.9.9.9", 1), now=cluster.now)
        cluster.pass_time(0.025)
    assert cluster.happened(1, KeyMissing) == []
    assert cluster[1].view(now=cluster.now).members[names(2)[1]].status == "dead"


def fingerprints(*keys: bytes) -> bytes:
    return b"".join(Keyring(keys).fingerprints)
