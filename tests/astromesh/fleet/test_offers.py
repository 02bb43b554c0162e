"""What a node offers goes into catalogue entries and comes out again; what is malformed offers nothing."""

from __future__ import annotations

from dataclasses import replace

import msgpack
import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from astromesh.fleet.offers import (
    AGENT_SLOTS,
    MODEL_SLOTS,
    PROVIDER_SLOTS,
    SLOT_BYTES_MAX,
    WARMTH_BYTES_MAX,
    WARMTH_SLOTS,
    Offer,
    OfferedAgent,
    OfferedModel,
    OfferedProvider,
    OfferTooLarge,
    mere_figures,
    read,
    slots,
)

names = st.text(min_size=1, max_size=40)
models = st.builds(
    OfferedModel,
    names,
    st.sampled_from(["loaded", "loading", "on_disk", "remote"]),
    st.binary(max_size=32).map(bytes.hex),
    st.sampled_from([("complete",), ("embed",), ("complete", "rerank")]),
    st.text(max_size=16),
    st.none() | st.floats(0.01, 1e5),
)
agents = st.builds(
    OfferedAgent, names, names, st.text(max_size=10), st.sampled_from(["draft", "deployed", "paused"]), st.binary(max_size=6), st.booleans()
)
providers = st.builds(
    OfferedProvider,
    names,
    names,
    st.lists(names, max_size=30).map(tuple),
    st.sampled_from(["healthy", "degraded", "down", "unknown"]),
    st.booleans(),
    st.sampled_from(["", "open"]),
)
offers = st.builds(
    Offer,
    st.lists(models, max_size=12).map(tuple),
    st.lists(agents, max_size=24).map(tuple),
    st.lists(providers, max_size=4, unique_by=lambda provider: provider.name).map(tuple),
)
EVERY_SLOT = {f"models/{slot}" for slot in range(MODEL_SLOTS)} | {f"agents/{slot}" for slot in range(AGENT_SLOTS)}
EVERY_SLOT |= {f"providers/{slot}" for slot in range(PROVIDER_SLOTS)} | {f"prefixes/{slot}" for slot in range(WARMTH_SLOTS)} | {"devices"}


@given(offers)
def test_what_is_offered_is_read_and_every_slot_is_written_within_its_size(offer: Offer) -> None:
    entries = slots(offer)
    assert read(entries) == offer
    assert set(entries) == EVERY_SLOT
    assert max(len(value) for value in entries.values()) <= SLOT_BYTES_MAX


def test_what_is_warm_has_slots_of_its_own_and_as_many_as_there_are() -> None:
    warm = tuple(OfferedModel(f"model-{number}", "loaded", warmth=bytes([number]) * WARMTH_BYTES_MAX) for number in range(WARMTH_SLOTS + 1))
    entries = slots(Offer(models=warm))
    assert read(entries).models == (*warm[:-1], replace(warm[-1], warmth=b""))
    assert max(len(value) for value in entries.values()) <= SLOT_BYTES_MAX
    for key in entries:
        if key.startswith("prefixes/"):
            entries[key] = msgpack.packb([["model-0", b"x" * (WARMTH_BYTES_MAX + 1)], ["model-1", "text"], [7]])
    assert [model.warmth for model in read(entries).models] == [b""] * (WARMTH_SLOTS + 1)


def test_speed_warmth_and_devices_can_wait_and_what_becomes_usable_cannot() -> None:
    slow = OfferedModel("m", "loaded", "ab" * 32, tok_s=40.0)
    before = slots(Offer(models=(slow,)))

    def waits(key: str, model: OfferedModel) -> bool:
        return mere_figures(key, before[key], slots(Offer(models=(model,)))[key])

    assert waits("models/0", replace(slow, tok_s=80.0, kernel="another"))
    assert waits("prefixes/0", replace(slow, warmth=b"warm"))
    assert not waits("models/0", replace(slow, state="on_disk"))
    assert not waits("models/0", replace(slow, capabilities=("embed",)))
    assert not mere_figures("agents/0", b"", slots(Offer(agents=(OfferedAgent("desk"),)))["agents/0"])
    assert mere_figures("devices", b"", b"any")


def test_a_row_of_a_node_that_says_less_or_other_things_is_a_model_all_the_same() -> None:
    identity = bytes.fromhex("ab" * 32)
    rows = [
        ["short", "loaded", identity],
        ["odd", "loaded", identity, "?", 7, "fast"],
        ["newer", "loaded", identity, ["sing"], "k", 5, "?"],
    ]
    found = read({"models/0": msgpack.packb(rows)}).models
    assert found == (
        OfferedModel("short", "loaded", "ab" * 32),
        OfferedModel("odd", "loaded", "ab" * 32),
        OfferedModel("newer", "loaded", "ab" * 32, kernel="k", tok_s=5.0),
    )


def test_agents_that_keep_sessions_say_so_and_a_node_that_says_nothing_of_it_keeps_none() -> None:
    both = (OfferedAgent("desk", keeps=True), OfferedAgent("echo"))
    assert read(slots(Offer(agents=both))).agents == both
    (older,) = read({"agents/0": msgpack.packb([["desk", "default", "1.0.0", "paused", b"digest"]])}).agents
    assert (older.status, older.keeps) == ("paused", False)


def test_what_is_said_of_an_agent_in_a_way_that_nobody_knows_lets_it_not_answer() -> None:
    rows = [["desk", "default", "1.0.0", "retired"], ["till", "default", "1.0.0", 7], ["fine", "sales", "1.0.0", "", "no digest", "?", 1]]
    (found,) = read({"agents/0": msgpack.packb(rows)}).agents
    assert (found.key, found.status, found.digest) == ("sales/fine", "deployed", b"")


def test_a_smaller_offer_withdraws_what_a_larger_one_had_written() -> None:
    many = Offer(agents=tuple(OfferedAgent(f"agent-{number}" * 5) for number in range(60)))
    entries = slots(many)
    assert entries["agents/1"] != b""
    entries.update(slots(Offer(agents=(OfferedAgent("one"),))))
    assert read(entries) == Offer(agents=(OfferedAgent("one"),))


def test_more_than_the_slots_hold_is_refused_and_named() -> None:
    with pytest.raises(OfferTooLarge, match=r"models: model-.* does not fit"):
        slots(Offer(models=tuple(OfferedModel(f"model-{number}", "loaded", "ab" * 32) for number in range(1000))))
    with pytest.raises(OfferTooLarge, match="agents: xxx"):
        slots(Offer(agents=(OfferedAgent("x" * SLOT_BYTES_MAX),)))


@given(st.dictionaries(st.sampled_from(sorted(EVERY_SLOT)), st.binary(max_size=60), max_size=4))
@example({"models/0": msgpack.packb(["not a row", 7, None, {}])})
@example({"models/0": msgpack.packb([["m", "flying", b""], ["", "loaded", b""], [7, "loaded", b""], ["m", "loaded", "text"], ["m"]])})
@example({"agents/0": msgpack.packb([[b"a", "default", ""], ["", "default", ""], ["a", None, ""]])})
@example({"agents/0": msgpack.packb({"a": 1}), "models/0": b"\xff" * 3})
@example({"models/0": b"\xd6\xff\x00\x00\x00\x00", "models/1": b"\xc7\x0c\xff" + b"\xff" * 12, "models/2": b"\x91" * 3000})
def test_whatever_is_malformed_offers_nothing_and_harms_nothing_beside_it(entries: dict[str, bytes]) -> None:
    good = slots(Offer(models=(OfferedModel("good", "loaded"),)))["models/0"]
    offer = read({**entries, "models/7": good})
    assert OfferedModel("good", "loaded") in offer.models


def test_malformed_rows_are_left_out_one_by_one() -> None:
    rows = [["m", "flying", b""], ["", "loaded", b""], [7, "loaded", b""], ["m", "loaded", "text"], ["m"], ["good", "loaded", b""]]
    assert read({"models/0": msgpack.packb(rows)}) == Offer(models=(OfferedModel("good", "loaded"),))


def test_a_health_that_only_newer_nodes_know_is_unknown_and_a_malformed_server_is_none() -> None:
    rows = [["p", "vllm", ["m", 7], "dreaming", True, "", "more"], ["", "vllm", [], "down", True, ""], ["q", "vllm", "m", "down", 1, ""]]
    assert read({"providers/0": msgpack.packb(rows)}).providers == (OfferedProvider("p", "vllm", ("m",), "unknown", True),)


def test_a_server_of_very_many_models_is_one_all_the_same() -> None:
    offer = Offer(
        providers=(OfferedProvider("p", "openrouter", tuple(f"a model, number {number}" for number in range(200)), "healthy", False),)
    )
    assert read(slots(offer)) == offer


def test_a_newer_nodes_further_columns_and_slots_are_ignored() -> None:
    assert read({"models/0": msgpack.packb([["m", "loaded", b"", "new", 7]]), "moods/0": b"\x01"}) == Offer(
        models=(OfferedModel("m", "loaded"),)
    )
