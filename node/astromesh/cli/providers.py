"""Model servers: which the nodes of the mesh call, and whether they answer."""

from __future__ import annotations

import sys

import click

from astromesh.cli.options import Chosen, examples, json_option, print_json, url_option
from astromesh.cli.terminal import table
from astromesh.cli.verbs import Verbs, help_unless_verb


@click.group(cls=Verbs)
@click.pass_context
def providers(context: click.Context) -> None:
    """The model servers behind the nodes of the mesh."""
    help_unless_verb(context)


@providers.command("list", epilog=examples("providers list", "providers list --json"))
@url_option
@json_option
def list_providers(*, node: Chosen, as_json: bool) -> None:
    """Each model server, who calls it, and whether it answers."""
    body = node.client.get("/v1/providers").body
    if as_json:
        print_json(body)
        return
    rows = body["providers"]
    if not rows:
        click.echo("no node of the mesh has a model server configured; providers.yaml names them")
        return
    lines = [
        (row["name"], row["node"], row["type"], row["health"], "mesh" if row["shared"] else "its node", ", ".join(row["models"]) or "-")
        for row in rows
    ]
    click.echo(table(("NAME", "NODE", "TYPE", "HEALTH", "FOR", "MODELS"), lines, sys.stdout))
