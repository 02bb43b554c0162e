"""Agents of the whole mesh: what there is, and what one looks like."""

from __future__ import annotations

import sys
from typing import Any
from urllib.parse import quote

import click

from astromesh.cli.options import Chosen, examples, json_option, print_json, url_option
from astromesh.cli.terminal import table
from astromesh.cli.verbs import Verbs, help_unless_verb


@click.group(cls=Verbs)
@click.pass_context
def agents(context: click.Context) -> None:
    """Agents of the whole mesh."""
    help_unless_verb(context)


@agents.command("list", epilog=examples("agents list", "agents list --json"))
@url_option
@json_option
def list_agents(*, node: Chosen, as_json: bool) -> None:
    """The agents of the mesh, where they are, and what is wrong with them."""
    answer = node.client.get("/v1/agents").body
    if as_json:
        print_json(answer)
        return
    rows = answer["agents"]
    if not rows:
        click.echo("no agents; a file agents/NAME.agent.yaml in the folder of the configuration is one")
        return
    click.echo(table(("NAME", "VERSION", "STATUS", "NODES"), (_row(agent) for agent in rows), sys.stdout))
    for agent in rows:
        if agent.get("error"):
            click.echo(f"\n{agent['name']}: {agent['error']}")
        for warning in agent["warnings"]:
            click.echo(f"\n{agent['name']}: warning: {warning}")


@agents.command(epilog=examples("agents show hello", "agents show hello --json"))
@click.argument("name")
@url_option
@json_option
def show(*, name: str, node: Chosen, as_json: bool) -> None:
    """An agent's document, secrets masked."""
    document = node.client.get(f"/v1/agents/{quote(name, safe='')}").body
    if as_json:
        print_json(document)
        return
    click.echo(_as_yaml(document), nl=False)


def _row(agent: dict[str, Any]) -> tuple[str, ...]:
    status = "broken" if agent.get("error") else agent["status"]
    return agent["name"], agent["version"], status, ", ".join(agent["nodes"])


def _as_yaml(document: Any) -> str:
    import yaml

    class Readable(yaml.SafeDumper):
        """Prompts are read by people: text of several lines keeps them."""

    def text(dumper: yaml.SafeDumper, value: str) -> yaml.ScalarNode:
        return dumper.represent_scalar("tag:yaml.org,2002:str", value, style="|" if "\n" in value else None)

    Readable.add_representer(str, text)
    return yaml.dump(document, Dumper=Readable, sort_keys=False, allow_unicode=True, width=120)
