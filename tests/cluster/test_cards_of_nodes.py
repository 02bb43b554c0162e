"""The cards of one node are known on another, and a driver that hangs keeps nobody from anything."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from tests.cluster.conftest import FAST
from tests.rig.c_library import compiled
from tests.rig.eventually import eventually
from tests.rig.nodes import Node, node_process

pytestmark = [pytest.mark.processes, pytest.mark.timeout(180)]

TOLD_GOAL_S = 6.0  # two seconds until a node looks, a second until it tells what are mere figures
HANGS_GOAL_S = 15.0  # ten of them until a driver is given up


async def cards(asked: Node, about: str) -> dict[str, Any]:
    rows = {row["node"]: row for row in (await asked.get("/v1/gpus"))["nodes"]}
    assert about in rows, rows.keys()
    row: dict[str, Any] = rows[about]
    return row


async def test_cards_are_known_to_all_and_a_driver_that_hangs_is_told_as_such(tmp_path: Path) -> None:
    library = compiled("nvml_stub.c", tmp_path / "nvml" / "libnvidia-ml.so.1")
    driver = {"LD_LIBRARY_PATH": str(library.parent)}
    async with (
        node_process("rich", arguments=FAST, env={**driver, "STUB_NVML_CARDS": "2"}) as rich,
        node_process("stuck", arguments=FAST, env={**driver, "STUB_NVML_HANG": "1"}, join=[rich.gossip]) as stuck,
    ):

        async def both_are_told() -> bool:
            row = await cards(stuck, "rich")
            assert [gpu["name"] for gpu in row["gpus"]] == ["NVIDIA Stub 4090"] * 2, row
            assert [gpu["utilisation_percent"] for gpu in row["gpus"]] == [40, 40]  # told in tenths
            return True

        async def the_other_is_doubted() -> bool:
            row = await cards(rich, "stuck")
            assert (row["known"], row["gpus"]) == (False, [])
            return any("nvidia" in trouble and "within" in trouble for trouble in row["troubles"])

        await eventually(both_are_told, TOLD_GOAL_S, what="the other node knows two cards")
        await eventually(the_other_is_doubted, HANGS_GOAL_S, what="the other node knows of the driver that hangs")
        assert [gpu["utilisation_percent"] for gpu in (await cards(rich, "rich"))["gpus"]] == [37, 37]
