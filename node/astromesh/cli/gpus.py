"""The cards of the mesh: where they are, their memory, how busy they are."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from typing import Any

import click

from astromesh.cli.client import DEFAULT_URL
from astromesh.cli.options import Chosen, examples, json_option, print_json, url_option
from astromesh.cli.terminal import dim, size, table, warn


@click.command(epilog=examples("gpus", "gpus --json"))
@url_option
@json_option
def gpus(*, node: Chosen, as_json: bool) -> None:
    """The graphics cards of the whole mesh; without a running node those of this machine."""
    client = node.client
    alone = not node.by_name and not client.listens()
    body = {"nodes": [_here()]} if alone else client.get("/v1/gpus").body
    if as_json:
        print_json(body)
        return
    rows = [line for row in body["nodes"] for line in _lines(row)]
    click.echo(table(("NODE", "CARD", "MEMORY FREE", "OF", "BUSY", "STATE", "NOTE"), rows, sys.stdout))
    warn(f"{row['node']}: {trouble}" for row in body["nodes"] for trouble in row["troubles"])
    if alone:
        click.echo(dim(f"No node answers at {DEFAULT_URL}: these are the cards of this machine.", sys.stderr), err=True)


def _here() -> dict[str, Any]:
    """As a node tells it, looked at now."""
    from astromesh.inference.backends.devices.looking import Looker

    found = Looker().inventory()
    usable = {one.id for one in found.usable}
    keys = ("id", "name", "total_bytes", "free_bytes", "utilisation_percent")
    rows = [
        {**{key: getattr(one, key) for key in keys}, "usable": one.id in usable, "note": one.note or None} for one in found.accelerators
    ]
    return {"node": "here", "known": bool(rows) or not found.troubles, "gpus": rows, "troubles": list(found.troubles)}


def _lines(row: dict[str, Any]) -> Iterator[tuple[str, ...]]:
    for gpu in row["gpus"]:
        busy = gpu["utilisation_percent"]
        yield (
            row["node"],
            gpu["name"],
            _size(gpu["free_bytes"]),
            _size(gpu["total_bytes"]),
            "?" if busy is None else f"{busy} %",
            _state(gpu),
            gpu["note"] or ("'astromesh-node engine status' says why" if gpu["usable"] is False else ""),
        )
    if not row["gpus"]:
        yield (row["node"], "none" if row["known"] else "?", "", "", "", "" if row["known"] else "unknown", "")


def _state(gpu: dict[str, Any]) -> str:
    if gpu["usable"] is False:
        return "unused"
    return "degraded" if gpu["note"] else "ok"


def _size(count: int | None) -> str:
    return "?" if count is None else size(count)
