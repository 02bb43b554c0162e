"""`gpus`: one line for each card of the mesh, and an honest word where there is none or nobody can tell."""

from __future__ import annotations

import http.server
import json
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import pytest
from tests.astromesh.cli.conftest import Cli, RunningNode
from tests.rig.ports import LOOPBACK

CARD = {
    "id": "GPU-1",
    "name": "A card",
    "total_bytes": 24_000_000_000,
    "free_bytes": 3_000_000_000,
    "utilisation_percent": 37,
    "usable": True,
    "note": None,
}
MESH = {
    "nodes": [
        {"node": "attic", "known": True, "gpus": [CARD, {**CARD, "name": "Another", "usable": False}], "troubles": []},
        {"node": "barn", "known": True, "gpus": [], "troubles": []},
        {"node": "cellar", "known": False, "gpus": [], "troubles": ["nvidia: it hangs"]},
        {
            "node": "den",
            "known": True,
            "gpus": [{**CARD, "name": "Quiet", "free_bytes": None, "utilisation_percent": None, "note": "it is hot"}],
            "troubles": [],
        },
    ]
}


@contextmanager
def somebody_who_says(body: Any) -> Iterator[str]:
    class Handler(http.server.BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            self.send_response(200)
            self.send_header("Content-Type", "application/json")
            self.end_headers()
            self.wfile.write(json.dumps(body).encode())

        def log_message(self, format: str, *args: Any) -> None:  # noqa: A002  its name in the library
            pass

    server = http.server.HTTPServer((LOOPBACK, 0), Handler)
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    try:
        yield f"http://{LOOPBACK}:{server.server_port}"
    finally:
        server.shutdown()
        thread.join()
        server.server_close()


def test_each_card_has_its_line_and_a_node_without_one_too(cli: Cli) -> None:
    with somebody_who_says(MESH) as url:
        shown = cli("gpus", "--url", url)
    lines = [" ".join(line.split()) for line in shown.stdout.splitlines()]
    assert lines[1] == "attic A card 3.0 GB 24.0 GB 37 % ok -"
    assert lines[2].startswith("attic Another 3.0 GB 24.0 GB 37 % unused")
    assert "engine status" in lines[2]
    assert lines[3].startswith("barn none")
    assert lines[4].startswith("cellar ? - - - unknown")
    assert lines[5] == "den Quiet ? 24.0 GB ? degraded it is hot"
    assert shown.stderr == "warning: cellar: nvidia: it hangs\n"


def test_as_json_it_is_what_the_node_says(cli: Cli) -> None:
    with somebody_who_says(MESH) as url:
        assert json.loads(cli("gpus", "--json", "--url", url).stdout) == MESH


def test_a_real_node_is_among_its_own(cli: Cli, node: RunningNode) -> None:
    (row,) = json.loads(cli("gpus", "--json", "--url", node.url).stdout)["nodes"]
    assert row["node"] == "solo"


@pytest.mark.processes
def test_without_a_node_this_machine_is_looked_at(cli: Cli) -> None:
    shown = cli("gpus", "--json")
    assert shown.exit_code == 0
    (row,) = json.loads(shown.stdout)["nodes"]
    assert row["node"] == "here"
    assert "these are the cards of this machine" in cli("gpus").stderr
