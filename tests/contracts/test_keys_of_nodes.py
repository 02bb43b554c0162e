"""What `runtime.yaml` says of a node: where it listens, whom it joins, what its mesh is like."""

from __future__ import annotations

import base64
import json

import pytest
from tests.contracts.files import keys
from tests.contracts.shown import shown
from tests.contracts.witness import Witness
from tests.contracts.words import sample
from tests.rig.documents import runtime
from tests.rig.eventually import eventually
from tests.rig.ports import LOOPBACK, free_node_ports

MEETING_GOAL_S = 3.0
BY_FILE = ("api", "gossip", "name", "mesh")


@pytest.mark.parametrize("profile", ["lan-fast", "lan", "wan"])
async def test_a_node_listens_and_joins_as_its_file_says(witness: Witness, profile: str) -> None:
    keyring = witness.folder / "keys.json"
    keyring.write_text(json.dumps([base64.b64encode(bytes(range(32))).decode()]))
    keyring.chmod(0o600)
    ports = [free_node_ports() for _ in range(2)]
    common = {"enabled": True, "profile": profile, "cluster_id": "home", "serf": False, "mdns": False, "keyring_file": str(keyring)}
    files = [
        runtime(
            api={"host": LOOPBACK, "port": mine.api, "tls": "off"},
            mesh={**common, "node_name": name, "bind": f"{LOOPBACK}:{mine.gossip}", "seeds": [f"{LOOPBACK}:{other.gossip}"]},
        )
        for name, mine, other in (("kitchen", *ports), ("attic", *ports[::-1]))
    ]
    async with (
        witness.node(files[0], name="one", said_by_files=BY_FILE) as kitchen,
        witness.node(files[1], name="two", said_by_files=BY_FILE) as attic,
    ):
        assert (kitchen.url, attic.name) == (f"http://{LOOPBACK}:{ports[0].api}", "attic")

        async def met() -> bool:
            names = {row["name"] for row in (await attic.get("/v1/nodes"))["nodes"] if row["status"] == "alive"}
            return names == {"kitchen", "attic"}

        await eventually(met, MEETING_GOAL_S)
        assert (await kitchen.get("/v1/mesh/keys"))["keys"], "the gossip is sealed"


@pytest.mark.parametrize("kind", ["kind", "Agent", "RuntimeConfig", "ProviderConfig", "Provider"])
async def test_what_files_ask_for_in_vain_is_said_by_the_node_that_runs_on_them(witness: Witness, kind: str) -> None:
    shows = shown()
    told = {item: one for item in keys() if item.startswith(f"{kind} ") and item not in shows and (one := sample(item)).said}
    assert told
    file = {"Agent": "agents/desk.agent.yaml", "RuntimeConfig": "runtime.yaml"}.get(kind, "providers.yaml")
    for number, (item, one) in enumerate(told.items()):
        async with witness.node({file: one.text}, name=f"node-{number}", mesh=False) as node:
            said = "\n".join((await node.get("/v1/system/status"))["warnings"])
            assert one.said.rpartition("` ")[2].partition(".")[0] in said, item
            if kind == "Agent":
                assert one.said.partition("` ")[2].partition(".")[0] in await node.warnings(), item
