"""How a run went, for people: a list, a tree, and what it says of each act."""

from __future__ import annotations

import io
import json
import re
from typing import Any

from tests.astromesh.cli.conftest import Cli, RunningNode

from astromesh.cli.trace_tree import tree


def span(name: str, start_ms: float, took_ms: float | None = 1.0, *, id: str = "", parent: str = "", node: str = "", **told: Any) -> Any:  # noqa: A002
    return {"name": name, "start_ms": start_ms, "duration_ms": took_ms, "attributes": told, "id": id, "parent": parent, "node": node}


def a_trace(*spans: Any, status: str = "ok", dropped: int = 0) -> dict[str, Any]:
    return {
        "trace_id": "t1",
        "agent": "desk",
        "node": "a",
        "started_at": 1_700_000_000.0,
        "status": status,
        "duration_ms": 1234.0,
        "spans": list(spans),
        "spans_dropped": dropped,
    }


def shown(*spans: Any, **how: Any) -> list[str]:
    return tree(a_trace(*spans, **how), io.StringIO()).splitlines()


def rows(*spans: Any, **how: Any) -> list[list[str]]:
    """The cells of each line of the table."""
    return [re.split(r"  +", line) for line in shown(*spans, **how)[4:]]


def test_acts_stand_under_the_act_that_they_were_a_part_of_in_the_order_in_which_they_began() -> None:
    lines = shown(
        span("llm.complete", 900, id="6", parent="4"),
        span("memory_build", 0, id="2", parent="1"),
        span("agent.run", 0, id="1"),
        span("orchestration", 2, id="3", parent="1"),
        span("delegate", 3, id="4", parent="3"),
        span("peer.call", 4, id="5", parent="4"),
        span("memory_persist", 999, id="7", parent="1"),
    )
    names = [line.split("  +")[0].rstrip() for line in lines[4:]]
    assert names == [
        "└ agent.run",
        "  ├ memory_build",
        "  ├ orchestration",
        "  │ └ delegate",
        "  │   ├ peer.call",
        "  │   └ llm.complete",
        "  └ memory_persist",
    ]


def test_an_act_whose_parent_was_not_kept_stands_at_the_top() -> None:
    assert [row[0] for row in rows(span("a", 0, id="1"), span("b", 1, id="2", parent="999"))] == ["├ a", "└ b"]


def test_acts_without_parents_are_a_flat_list() -> None:
    assert [row[0] for row in rows(span("memory_build", 0), span("llm.complete", 1))] == ["├ memory_build", "└ llm.complete"]


def test_a_completion_says_who_made_how_many_tokens_of_which_model_and_how_it_was_reached() -> None:
    told = {"node": "c", "model": "smollm2", "route": "peer", "tokens_in": 120, "tokens_out": 37, "pid": 4711}
    assert rows(span("llm.complete", 1.25, 812.4, **told)) == [
        ["└ llm.complete", "+1.2 ms", "812 ms", "c", "smollm2 · by peer · 120 → 37 tokens"]
    ]


def test_an_act_that_failed_says_why_and_one_that_lasts_has_no_end() -> None:
    lines = shown(span("tool.call", 1, None, tools=["a", "b"]), span("handoff", 2, error="peer_lost", to="billing"), status="running")
    assert "still running" in lines[1]
    assert lines[4].endswith("a, b")
    assert "…" in lines[4]
    assert lines[5].endswith("billing · failed: peer_lost")


def test_all_tokens_are_counted_and_what_was_dropped_is_told() -> None:
    lines = shown(span("llm.complete", 0, tokens_in=1, tokens_out=2), span("llm.complete", 1, tokens_in=10, tokens_out=20), dropped=3)
    assert "11 → 22 tokens" in lines[1]
    assert lines[-1] == "and 3 more, which were not kept"


def test_a_run_of_which_nothing_was_recorded_says_so() -> None:
    assert shown()[-1] == "no act of it was recorded"


def test_what_a_terminal_would_obey_is_not_printed() -> None:
    assert "\x1b" not in "\n".join(shown(span("llm.\x1b[2J", 0, label="\x1b]0;title")))


def test_a_run_is_found_by_its_id_and_by_its_agent(cli: Cli, node: RunningNode) -> None:
    cli("run", "forgetful", "Hello", "--url", node.url)
    listed = json.loads(cli("trace", "--json", "--url", node.url).stdout)["traces"]
    newest = listed[0]
    assert newest["agent"] == "forgetful"
    by_id = cli("trace", newest["trace_id"], "--url", node.url)
    assert by_id.exit_code == 0, by_id.stderr
    assert by_id.stdout == cli("trace", "--agent", "forgetful", "--url", node.url).stdout
    assert by_id.stdout.splitlines()[0] == newest["trace_id"]
    assert "llm.complete" in by_id.stdout
    assert "stub" in by_id.stdout
    assert json.loads(cli("trace", newest["trace_id"], "--json", "--url", node.url).stdout) == newest


def test_a_list_has_the_last_runs(cli: Cli, node: RunningNode) -> None:
    for _ in range(2):
        cli("run", "forgetful", "Hello", "--url", node.url)
    head, *lines = cli("trace", "--limit", "2", "--url", node.url).stdout.splitlines()
    assert head.split() == ["TRACE", "AGENT", "STATUS", "STARTED", "TOOK", "TOKENS"]
    assert [line.split()[1:3] for line in lines] == [["forgetful", "ok"]] * 2


def test_what_is_not_there_exits_1_and_says_where_to_look(cli: Cli, node: RunningNode) -> None:
    unknown = cli("trace", "nothing", "--url", node.url)
    assert (unknown.exit_code, unknown.stdout) == (1, "")
    assert "no such trace" in unknown.stderr
    nobody = cli("trace", "--agent", "nobody", "--url", node.url)
    assert nobody.exit_code == 1
    assert "'nobody'" in nobody.stderr


def test_an_id_and_an_agent_cannot_both_be_meant(cli: Cli, node: RunningNode) -> None:
    assert cli("trace", "t1", "--agent", "desk", "--url", node.url).exit_code == 2
