"""`members --why` and `members --watch`: what is said of one member, the table that follows the mesh, and a node that goes away."""

from __future__ import annotations

import http.server
import io
import json
import re
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import pytest
from tests.astromesh.cli.conftest import Cli, RunningNode
from tests.rig.ports import LOOPBACK, free_port

from astromesh.cli.client import Event, NodeClient
from astromesh.cli.failures import NodeRefused, NodeUnreachable
from astromesh.cli.watching import REDRAW_S, Table, draw, mesh_events
from astromesh.cli.why import why

AT = "2026-03-01T12:00:00.123+00:00"


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True

    @property
    def screen(self) -> str:
        """What is on it after the last drawing, without colour."""
        return re.sub(r"\x1b\[\d*m", "", self.getvalue().rpartition("\x1b[H\x1b[2J")[2])


@pytest.fixture(autouse=True)
def window(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TERM", "xterm")
    monkeypatch.setenv("COLUMNS", "100")
    monkeypatch.setenv("LINES", "24")


def row(name: str, status: str = "alive") -> dict[str, Any]:
    return {
        "name": name,
        "wire_name": f"{name}-000000",
        "node_id": "000000",
        "status": status,
        "gossip": "127.0.0.1:7946",
        "url": "http://127.0.0.1:8000",
        "role": "full",
        "incarnation": 1,
        "since": AT,
    }


def members(*names: str) -> Event:
    return Event("members", {"at": AT, "node": "a", "version": 1, "members": [row(name) for name in names]})


def change(kind: str, name: str, status: str, *, accuser: str | None = None, known: bool = True) -> Event:
    member = row(name, status) if known else None
    return Event(kind, {"at": AT, "name": name, "accuser": accuser, "wire_name": f"{name}-000000", "member": member})


LOST = Event("unreachable", {"at": AT, "url": "http://x", "message": "the node was lost"})


# Why.


def test_why_says_what_happened_to_a_member_last(cli: Cli, node: RunningNode) -> None:
    answer = cli("members", "--why", "solo", "--url", node.url)
    assert answer.exit_code == 0, answer.stderr
    assert answer.stdout.startswith("solo is alive, for ")
    assert json.loads(cli("members", "--why", "solo", "--json", "--url", node.url).stdout)["status"] == "alive"


def test_why_of_somebody_unknown_is_met_with_the_nearest_name_and_exits_1(cli: Cli, node: RunningNode) -> None:
    answer = cli("members", "--why", "sole/../x", "--url", node.url)
    assert (answer.exit_code, answer.stdout) == (1, "")
    assert "this node knows no member named 'sole/../x'. Nearest: solo" in answer.stderr


def test_a_death_is_told_with_its_accusers_our_probes_and_how_we_were() -> None:
    failed = {"at": AT, "outcome": "failed", "took_seconds": 0.2, "how": "no answer in 200 ms, directly or through 1 others (0 nacks)"}
    change = {
        "status": "dead",
        "at": AT,
        "accuser": "b",
        "how": "did not refute\x1b[2J",
        "accusers": ["a", "b"],
        "own_health": 2,
        "own_lag_seconds": 0.31,
        "probes": [{"at": AT, "outcome": "acked", "took_seconds": 0.0012, "how": ""}, failed],
    }
    told = why({**row("c", "dead"), "history": [{**change, "status": "suspect"}, change]}, now=0.0)
    assert "dead, says b: did not refute\ufffd[2J" in told
    assert told.index("dead, says b") < told.index("suspect, says b")
    assert "accused by   a, b" in told
    assert "health 2 of 7 (0 is well), timers up to 310 ms late" in told
    assert "answered after 1.2 ms" in told
    assert "failed: no answer in 200 ms" in told


def test_why_and_watch_are_two_questions(cli: Cli) -> None:
    answer = cli("members", "--why", "a", "--watch")
    assert answer.exit_code == 2
    assert "choose one" in answer.stderr


# The table.


def test_the_table_follows_the_mesh_and_says_what_happened_last() -> None:
    out = Terminal()
    table = Table("http://127.0.0.1:8000", out)
    for event in (members("a", "b", "c"), change("suspected", "c", "suspect", accuser="b"), change("died", "c", "dead", accuser="a")):
        table.take(event)
    table.draw()
    lines = out.screen.splitlines()
    assert lines[0].startswith("the mesh as a sees it")
    assert [line.split()[:2] for line in lines[2:6]] == [["NAME", "STATUS"], ["a", "alive"], ["b", "alive"], ["c", "dead"]]
    assert [line.split("  ")[1] for line in lines[7:]] == ["c suspected, says b", "c died, says a"]
    table.take(change("forgotten", "c", "", known=False))
    table.draw()
    assert "c forgotten" in out.screen
    assert not re.search(r"^c +dead", out.screen, re.MULTILINE)


def test_the_table_says_that_the_node_is_gone_and_that_it_is_back() -> None:
    out = Terminal()
    table = Table("http://127.0.0.1:8000", out)
    table.take(members("a", "b"))
    table.take(LOST)
    table.draw()
    assert "the node at http://127.0.0.1:8000 is gone since" in out.screen
    assert re.search(r"^b +alive", out.screen, re.MULTILINE)
    table.take(members("a"))
    table.draw()
    assert "a answers again" in out.screen
    assert "gone since" not in out.screen
    assert not re.search(r"^b +alive", out.screen, re.MULTILINE)


def test_a_table_that_is_too_large_is_cut_to_the_window(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("COLUMNS", "30")
    monkeypatch.setenv("LINES", "12")
    out = Terminal()
    table = Table("http://127.0.0.1:8000", out)
    table.take(members(*(f"node{number:02}" for number in range(50))))
    table.take(LOST)
    table.draw()
    lines = out.screen.splitlines()
    assert len(lines) < 12
    assert max(map(len, lines)) < 30
    assert any(line.startswith("and 46 more") for line in lines)


def test_what_comes_at_once_is_drawn_at_once() -> None:
    out = Terminal()

    def told() -> Iterator[Event]:
        yield members("a", *(f"n{number}" for number in range(200)))
        for number in range(200):
            yield change("died", f"n{number}", "dead", accuser="a")
        raise NodeRefused("too many", code="overloaded", hint="")

    pauses: list[float] = []
    with pytest.raises(NodeRefused, match="too many"):
        draw(told(), Table("http://127.0.0.1:8000", out), pause=pauses.append)
    drawn = out.getvalue().count("\x1b[H")
    assert drawn < 50
    assert pauses == [REDRAW_S] * drawn


# A node that goes away.


class Stream(http.server.BaseHTTPRequestHandler):
    def do_GET(self) -> None:
        self.send_response(200)
        self.send_header("Content-Type", "text/event-stream")
        self.end_headers()
        self.wfile.write(f"event: members\ndata: {json.dumps(members('a').data)}\n\n: the end\n\n".encode())

    def log_message(self, format: str, *arguments: object) -> None:  # noqa: A002  # the name that its class gives it
        """Says nothing."""


@contextmanager
def streaming(port: int) -> Iterator[None]:
    """A node that tells who is there, and ends."""
    with http.server.ThreadingHTTPServer((LOOPBACK, port), Stream) as server:
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
        thread.start()
        try:
            yield
        finally:
            server.shutdown()
            thread.join()


def test_a_node_that_goes_away_is_told_once_and_waited_for() -> None:
    port, looks = free_port(), []
    client = NodeClient(f"http://{LOOPBACK}:{port}")
    with streaming(port):
        events = mesh_events(client, pause=looks.append)
        assert next(events).kind == "members"
    lost = next(events)
    assert (lost.kind, lost.data["url"]) == ("unreachable", client.url)

    class Back(Exception):
        """It has been looked for often enough."""

    def pause(seconds: float) -> None:
        looks.append(seconds)
        if len(looks) == 5:
            raise Back

    with streaming(port):
        events = mesh_events(client, pause=pause)
        assert next(events).kind == "members"
        assert next(events).kind == "unreachable"
    with pytest.raises(Back):
        next(events)  # nobody is there, and that is not said again
    assert looks == [1.0] * 5


def test_a_node_that_was_away_tells_anew_who_is_there() -> None:
    port = free_port()
    with streaming(port):
        events = mesh_events(NodeClient(f"http://{LOOPBACK}:{port}"), pause=lambda _: None)
        assert [next(events).kind for _ in range(5)] == ["members", "unreachable", "members", "unreachable", "members"]


def test_a_node_that_was_never_there_is_not_waited_for() -> None:
    with pytest.raises(NodeUnreachable, match="no node answers"):
        next(mesh_events(NodeClient(f"http://{LOOPBACK}:{free_port()}"), pause=lambda _: None))


def test_watching_nobody_exits_3(cli: Cli) -> None:
    assert cli("members", "--watch").exit_code == 3
