"""Leaving and coming back in bad weather: an intent to leave outlives neither a return nor a refutation."""

from __future__ import annotations

import pytest
from tests.simulation.scenario import LOSSY, Scenario, died, scenario, some_seeds

from maia.keyring import Keyring
from maia.sim.weather import Weather
from maia.sim.world import SimulatedNode
from maia.view import KeyQueryEnded, MemberLeft
from maia.wire.codec import encode
from maia.wire.messages import User
from maia.wire.serf import LeaveIntent, encode_leave


def leave(mesh: Scenario, leaver: SimulatedNode) -> None:
    mesh.world.leave(leaver)
    end_s = mesh.world.now + 3.0
    while leaver.mesh is not None and not leaver.mesh.farewell_told and mesh.world.now < end_s:
        mesh.run(0.05)
    mesh.world.crash(leaver)


@some_seeds
@pytest.mark.parametrize("down_s", [0.2, 5.0], ids=["at once", "later"])
def test_who_left_and_returns_is_alive_everywhere_and_dies_like_anybody(seed: int, down_s: float) -> None:
    with scenario(seed, nodes=6, weather=LOSSY) as mesh:
        leaver = mesh.nodes[seed % 6]
        leave(mesh, leaver)
        mesh.run(down_s)
        mesh.world.boot(leaver)
        mesh.settle()
        mesh.run(5.0)  # for its intent to stay
        mesh.world.crash(leaver)
        mesh.run(15.0)
        for node in mesh.everyone_but(leaver):
            assert mesh.status(node, leaver) == "dead", "what it meant in an earlier life counts no more"


@some_seeds
def test_a_node_of_which_somebody_says_that_it_leaves_stays_and_dies_like_anybody(seed: int) -> None:
    with scenario(seed, nodes=6, weather=LOSSY) as mesh:
        slandered, slanderer, hearer = (mesh.nodes[(seed + place) % 6] for place in range(3))
        intent = encode(User(encode_leave(LeaveIntent(1000, slandered.name))))
        mesh.world.slip(intent, sender=slanderer, receiver=hearer)
        mesh.run(10.0)
        for node in mesh.nodes:
            assert mesh.status(node, slandered) == "alive"
        mesh.world.crash(slandered)
        mesh.run(15.0)
        for node in mesh.everyone_but(slandered):
            assert mesh.status(node, slandered) == "dead"


@some_seeds
def test_who_dies_right_after_it_said_that_it_leaves_has_left_in_the_end(seed: int) -> None:
    with scenario(seed, nodes=6, weather=Weather(loss=0.02)) as mesh:
        leaver = mesh.nodes[seed % 6]
        mesh.world.leave(leaver)
        mesh.run(0.01)
        mesh.world.crash(leaver)
        mesh.run(15.0)
        for node in mesh.everyone_but(leaver):
            assert mesh.status(node, leaver) == "left"
            assert sum(event == MemberLeft(leaver.name) for _, event in node.history) == 1
            assert died(node) == []


@some_seeds
def test_a_question_about_keys_reaches_everybody_in_bad_weather(seed: int) -> None:
    with scenario(seed, nodes=10, weather=Weather(loss=0.02), keyring=Keyring((b"k" * 16,))) as mesh:
        asker = mesh.nodes[seed % 10]
        assert asker.mesh is not None
        number = asker.mesh.ask_keys("install", b"n" * 16, now=asker.read_clock(mesh.world.now))
        mesh.run(8.0)
        (ended,) = [event for _, event in asker.history if isinstance(event, KeyQueryEnded)]
        assert (ended.number, len(ended.asked)) == (number, 10)
        assert [reply.node for reply in ended.replies if not reply.ok] == []
        assert len(ended.replies) == 10
        for node in mesh.nodes:
            assert node.mesh is not None
            assert node.mesh.keyring == Keyring((b"k" * 16, b"n" * 16))
