"""Model servers: which the nodes of the mesh call, and whether they answer."""

from __future__ import annotations

import sys
from collections.abc import Mapping
from typing import Any

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
    """Each model server: who calls it, whether it answers, how fast, and what its models cost.

    In brackets: no answer was streamed yet, so it is the time of its health checks.
    """
    body = node.client.get("/v1/providers").body
    if as_json:
        print_json(body)
        return
    rows = body["providers"]
    if not rows:
        click.echo("no node of the mesh has a model server configured; providers.yaml names them")
        return
    lines = [
        (
            row["name"],
            row["node"],
            row["type"],
            row["health"],
            row["breaker"] or "-",
            _latency(row),
            "mesh" if row["shared"] else "its node",
            ", ".join(_model(name, row["cost_per_1k_tokens"].get(name)) for name in row["models"]) or "-",
        )
        for row in rows
    ]
    click.echo(table(("NAME", "NODE", "TYPE", "HEALTH", "BREAKER", "FIRST TOKEN", "FOR", "MODELS"), lines, sys.stdout))


def _latency(row: Mapping[str, Any]) -> str:
    """Of the fastest of its models; of its health checks where no answer was streamed yet."""
    if row["first_token_ms"]:
        return f"{min(row['first_token_ms'].values()):.0f} ms"
    return "-" if row["latency_ms"] is None else f"({row['latency_ms']:.0f} ms)"


def _model(name: str, cost: float | None) -> str:
    return name if cost is None else f"{name} ({cost:g}/1k tokens)"
