"""How runs went: the last ones of a node in a table, and one of them as a tree."""

from __future__ import annotations

import sys
from datetime import datetime
from typing import Any
from urllib.parse import quote, urlencode

import click

from astromesh.cli.options import Chosen, examples, json_option, print_json, url_option
from astromesh.cli.terminal import table
from astromesh.cli.trace_tree import span_time, tokens, tree

LISTED = 20
LISTED_MAX = 256


@click.command(epilog=examples("trace", "trace 4f0c1d7e9a", "trace --agent hello", "trace --json"))
@click.argument("trace_id", metavar="[ID]", required=False)
@click.option("--agent", metavar="NAME", help="The last run of this agent.")
@click.option(
    "--limit", type=click.IntRange(1, LISTED_MAX), default=LISTED, show_default=True, help="How many runs a list has, the last ones."
)
@url_option
@json_option
def trace(*, trace_id: str | None, agent: str | None, limit: int, node: Chosen, as_json: bool) -> None:
    """How a run went that the node conducted: its acts, when each was, how long it took, on which node, and its tokens.

    ID is the X-Request-Id of the answer. Without one and without --agent: the last runs.
    """
    if trace_id is not None and agent is not None:
        raise click.UsageError("an ID names one run, --agent the last one of an agent: choose one")
    if trace_id is not None:
        found = node.client.get(f"/v1/traces/{quote(trace_id, safe='')}").body
    elif agent is not None:
        runs = node.client.get(f"/v1/traces?{urlencode({'agent': agent, 'limit': 1})}").body["traces"]
        if not runs:
            raise click.ClickException(f"the node at {node.url} keeps no run of an agent {agent!r}; ask the node that conducted it")
        found = runs[0]
    else:
        _list(node, limit, as_json=as_json)
        return
    if as_json:
        print_json(found)
    else:
        click.echo(tree(found, sys.stdout))


def _list(node: Chosen, limit: int, *, as_json: bool) -> None:
    answer = node.client.get(f"/v1/traces?{urlencode({'limit': limit})}").body
    if as_json:
        print_json(answer)
    elif not answer["traces"]:
        click.echo("this node has conducted no run yet")
    else:
        click.echo(table(("TRACE", "AGENT", "STATUS", "STARTED", "TOOK", "TOKENS"), map(_row, answer["traces"]), sys.stdout))


def _row(run: dict[str, Any]) -> tuple[str, ...]:
    started = datetime.fromtimestamp(run["started_at"]).astimezone().strftime("%Y-%m-%d %H:%M:%S")
    took = "" if run["status"] == "running" else span_time(run["duration_ms"])
    return run["trace_id"], run["agent"], run["status"], started, took, tokens(run["spans"])
