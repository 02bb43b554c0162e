"""Who serves a model and who hosts an agent, read from a view."""

from __future__ import annotations

import pytest
from tests.rig.mesh_view import HERE, member, mesh_view

from astromesh.fleet.devices import Devices
from astromesh.fleet.offers import Health, OfferedAgent, OfferedModel, OfferedProvider
from astromesh.fleet.roster import Roster
from maia.view import MemberView, MeshView, Status


class Mesh:
    """The attribute that the mesh's thread swaps."""

    def __init__(self, view: MeshView | None) -> None:
        self.view = view


def roster(*others: MemberView) -> Roster:
    view = mesh_view(*others, me=member(HERE, models=["m"], agents=["desk"]))
    return Roster(lambda: view)


def names(members: tuple[MemberView, ...]) -> list[str]:
    return [one.name for one in members]


def test_living_peers_that_offer_a_model_serve_it_and_this_node_is_not_its_own_peer() -> None:
    found = roster(member("b-000002", models=["m"]), member("c-000003", models=["other"]), member("a-000001", models=["m"]))
    assert names(found.serving("m")) == ["a-000001", "b-000002"]
    assert found.serving("nobody's") == ()


def test_a_suspect_still_serves() -> None:
    assert names(roster(member("b-000002", models=["m"], agents=["desk"], status="suspect")).serving("m")) == ["b-000002"]


@pytest.mark.parametrize("status", ["dead", "left"])
def test_who_is_gone_serves_nothing_and_is_missed(status: str) -> None:
    found = roster(member("b-000002", models=["m"], agents=["desk"], status=status))  # type: ignore[arg-type]
    assert (found.serving("m"), found.hosting("desk")) == ((), ())
    assert names(found.missed_for_model("m")) == names(found.missed_for_agent("desk")) == ["b-000002"]


@pytest.mark.parametrize("status", ["alive", "left", "dead"])
def test_who_took_its_offers_back_before_it_went_is_missed_as_if_it_had_not(status: Status) -> None:
    mesh = Mesh(mesh_view(member("b-000002", models=["m"], agents=["desk"], devices=Devices())))
    found = Roster(lambda: mesh.view)
    assert names(found.serving("m")) == names(found.hosting("desk")) == ["b-000002"]
    mesh.view = mesh_view(member("b-000002", status=status), version=2)
    assert (found.serving("m"), found.hosting("desk")) == ((), ())
    assert names(found.missed_for_model("m")) == names(found.missed_for_agent("desk")) == ["b-000002"]


def test_what_a_node_that_lives_does_not_offer_any_more_is_not_missed() -> None:
    mesh = Mesh(mesh_view(member("b-000002", models=["m"], devices=Devices())))
    found = Roster(lambda: mesh.view)
    assert names(found.serving("m")) == ["b-000002"]
    mesh.view = mesh_view(member("b-000002", devices=Devices()), version=2)
    assert (found.serving("m"), found.missed_for_model("m")) == ((), ())


def test_who_has_not_loaded_it_would_have_to_and_a_model_behind_a_server_is_served() -> None:
    found = roster(
        member("b-000002", models=[("m", "loading")]),
        member("c-000003", models=[("m", "on_disk")]),
        member("d-000004", models=[("m", "remote")]),
    )
    assert names(found.serving("m")) == ["d-000004"]
    assert names(found.waking("m")) == ["b-000002", "c-000003"]
    assert found.missed_for_model("m") == ()
    assert found.offered(found.waking("m")[1], "m") == OfferedModel("m", "on_disk")


def test_people_read_the_human_name_unless_two_nodes_share_it() -> None:
    found = roster(member("lab-000001"), member("lab-000002"), member("desk-000003"))
    assert [found.label(name) for name in ("lab-000001", "lab-000002", "desk-000003", "stranger-000009")] == [
        "lab-000001",
        "lab-000002",
        "desk",
        "stranger-000009",
    ]


def test_a_new_view_is_seen_at_once_and_an_old_one_is_indexed_once() -> None:
    mesh = Mesh(mesh_view(member("b-000002", models=["m"])))
    found = Roster(lambda: mesh.view)
    first = found.index()
    assert found.index() is first
    mesh.view = mesh_view(version=2)
    assert found.serving("m") == ()


def test_listings_name_living_peers_with_what_each_offers() -> None:
    found = roster(member("b-000002", models=["m"], agents=["desk"]), member("c-000003", models=["m"], agents=["desk"], status="dead"))
    assert {name: [(one.name, model.state) for one, model in rows] for name, rows in found.models().items()} == {
        "m": [("b-000002", "loaded")]
    }
    assert {name: [one.name for one, _ in rows] for name, rows in found.agents().items()} == {"desk": ["b-000002"]}


def test_without_a_mesh_there_is_nobody() -> None:
    found = Roster(lambda: None)
    assert (found.view(), found.index(), found.serving("m"), found.hosting("desk"), found.models(), found.agents()) == (
        None,
        None,
        (),
        (),
        {},
        {},
    )
    assert (found.missed_for_model("m"), found.missed_for_agent("desk"), found.label("here")) == ((), (), "here")


def server(name: str, health: Health, *models: str, shared: bool = True) -> OfferedProvider:
    return OfferedProvider(name, "vllm", models, health, shared)


@pytest.mark.parametrize(
    ("providers", "serves"),
    [
        ([], True),
        ([server("p", "healthy", "m")], True),
        ([server("p", "degraded", "m")], True),
        ([server("p", "unknown", "m")], True),
        ([server("p", "down", "m")], False),
        ([server("p", "down", "other")], True),
        ([server("p", "down", "m"), server("q", "healthy", "m")], True),
        ([server("p", "down", "m"), server("q", "healthy", "m", shared=False)], False),
    ],
)
def test_a_model_behind_servers_that_are_all_down_is_missed(providers: list[OfferedProvider], serves: bool) -> None:
    found = roster(member("b-000002", models=[("m", "remote")], providers=providers))
    assert names(found.serving("m")) == (["b-000002"] if serves else [])
    assert names(found.missed_for_model("m")) == ([] if serves else ["b-000002"])


def test_a_server_that_is_down_hides_no_model_of_the_node_itself() -> None:
    found = roster(member("b-000002", models=[("m", "loaded")], providers=[server("p", "down", "m")]))
    assert names(found.serving("m")) == ["b-000002"]


def test_only_deployed_agents_answer_and_the_others_are_known() -> None:
    found = roster(
        member("b-000002", agents=[OfferedAgent("desk", status="paused")]),
        member("c-000003", agents=[OfferedAgent("desk", status="draft"), "till"]),
        member("d-000004", agents=["desk"]),
    )
    assert names(found.hosting("desk")) == ["d-000004"]
    assert [(one.name, offered.status) for one, offered in found.holding("desk")] == [
        ("b-000002", "paused"),
        ("c-000003", "draft"),
        ("d-000004", "deployed"),
    ]


def test_of_several_versions_the_highest_of_the_living_answers() -> None:
    def having(version: str, status: Status = "alive") -> MemberView:
        return member(f"b{version}-000002", agents=[OfferedAgent("desk", version=version)], status=status)

    found = roster(having("1.9"), having("1.10"), having("2.0", "dead"), having("1.10-rc1"))
    assert names(found.hosting("desk")) == ["b1.10-000002"]


def test_agents_of_two_namespaces_are_two() -> None:
    found = roster(member("b-000002", agents=[OfferedAgent("desk", "sales")]), member("c-000003", agents=["desk"]))
    assert (names(found.hosting("sales/desk")), names(found.hosting("desk"))) == (["b-000002"], ["c-000003"])
