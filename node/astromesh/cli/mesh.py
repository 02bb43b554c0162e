"""The mesh, through a running node: who is in it, joining, leaving, and how the node is."""

from __future__ import annotations

import sys
from datetime import datetime
from typing import Any
from urllib.parse import quote

import click

from astromesh.cli.options import Chosen, examples, json_option, print_json, url_option
from astromesh.cli.terminal import duration, printable, table, warn
from astromesh.cli.waiting import waiting
from astromesh.cli.watching import watch
from astromesh.cli.why import why


@click.command(epilog=examples("join 127.0.0.1:7946", "join 127.0.0.1:7946 --url http://127.0.0.1:8001"))
@click.argument("address", metavar="ADDR")
@url_option
@json_option
def join(*, address: str, node: Chosen, as_json: bool) -> None:
    """Join the mesh of another node. ADDR is HOST:PORT of its gossip, 7946 where the port is left out."""
    with waiting(f"asking {printable(address)}", shown=not as_json):
        answer = node.client.post("/v1/mesh/join", {"address": address}).body
    if as_json:
        print_json(answer)
        return
    others = answer["members"]
    click.echo(f"joined through {address}: {others} other member{'' if others == 1 else 's'}")


@click.command(epilog=examples("leave"))
@url_option
@json_option
def leave(*, node: Chosen, as_json: bool) -> None:
    """Say goodbye to the mesh; the node goes on alone."""
    answer = node.client.post("/v1/mesh/leave").body
    if as_json:
        print_json(answer)
        return
    click.echo("left the mesh; the node goes on alone")


@click.command(epilog=examples("members", "members --json", "members --why kitchen", "members --watch"))
@click.option("--why", "name", metavar="NAME", help="Why this member has its status: who accused it, when, and what led to that.")
@click.option("--watch", "watched", is_flag=True, help="Go on until Ctrl-C: a live table, or a line of JSON for each change.")
@url_option
@json_option
def members(*, name: str | None, watched: bool, node: Chosen, as_json: bool) -> None:
    """Who is in the mesh, as the node sees it."""
    if name is not None and watched:
        raise click.UsageError("--why looks at one member once, --watch at all of them for ever: choose one")
    if watched:
        watch(node.client, as_json=as_json)
    elif name is not None:
        answer = node.client.get(f"/v1/mesh/members/{quote(name, safe='')}")
        if as_json:
            print_json(answer.body)
        else:
            click.echo(why(answer.body, now=answer.at))
    else:
        _list(node, as_json=as_json)


def _list(node: Chosen, *, as_json: bool) -> None:
    state = node.client.get("/v1/mesh/state")
    roles = {row["node_id"]: row["role"] for row in node.client.get("/v1/nodes").body["nodes"]}
    rows = [row | {"role": roles.get(row["node_id"], "")} for row in state.body["nodes"]]
    if as_json:
        print_json(state.body | {"nodes": rows})
        return
    head = ("NAME", "STATUS", "ADDRESS", "API", "ROLE", "INCARNATION", "FOR")
    click.echo(table(head, (_member(row, now=state.at) for row in rows), sys.stdout))


@click.command(epilog=examples("status", "status --json"))
@url_option
@json_option
def status(*, node: Chosen, as_json: bool) -> None:
    """How the node is, in a few lines."""
    answer = node.client.get("/v1/system/status").body
    if as_json:
        print_json(answer)
        return
    mesh, agents = answer["mesh"], f"{answer['agents_loaded']} loaded"
    if answer["agents_broken"]:
        agents += f", {answer['agents_broken']} with mistakes ('agents list' shows them)"
    lines = [
        f"node    {mesh['node_name']}, version {answer['version']}, process {answer['pid']}, up for {duration(answer['uptime_seconds'])}",
        f"API     {node.url}",
        f"mesh    {_mesh_in_words(mesh, answer['peers'])}",
        f"agents  {agents}",
        f"runs    {answer['active_runs']} under way",
    ]
    click.echo("\n".join(lines))
    warn(answer["warnings"])


def _mesh_in_words(mesh: dict[str, Any], peers: list[dict[str, Any]]) -> str:
    if not mesh["enabled"]:
        return "off"
    if not peers:
        return f"{mesh['status']}, alone"
    names = ", ".join(peer["name"] for peer in peers)
    return f"{mesh['status']}, with {names}"


def _member(row: dict[str, Any], *, now: float) -> tuple[str, ...]:
    since = datetime.fromisoformat(row["joined_at"]).timestamp()
    api = (row["url"] or "").removeprefix("http://")
    return row["name"], row["status"], row["gossip"], api, row["role"], str(row["incarnation"]), duration(now - since)
