"""What verbs have in common: --json, which node is meant, and how their help ends."""

from __future__ import annotations

import json
import os
from collections.abc import Callable
from typing import Any, NamedTuple, TypeVar

import click

from astromesh.cli.client import DEFAULT_URL, URL_VARIABLE, NodeClient, api_url

F = TypeVar("F", bound=Callable[..., Any])


class Chosen(NamedTuple):
    """The node to talk to. `by_name`: somebody named it, so nothing else will do."""

    url: str
    by_name: bool

    @property
    def client(self) -> NodeClient:
        return NodeClient(self.url)


def json_option(function: F) -> F:
    return click.option("--json", "as_json", is_flag=True, help="One JSON document on stdout; a line for each event of a stream.")(function)


def url_option(function: F) -> F:
    """Gives the verb `node`, a `Chosen`."""
    return click.option(
        "--url",
        "node",
        metavar="URL",
        callback=lambda context, _, value: choose(value or context.find_root().params.get("url")),
        help=f"The node to talk to; else {URL_VARIABLE}, else {DEFAULT_URL}.",
    )(function)


def config_option(function: F) -> F:
    return click.option("--config", metavar="DIR", help="The folder of the configuration; 'config show' says which one is found.")(function)


def choose(told: str | None) -> Chosen:
    named = told or os.environ.get(URL_VARIABLE) or None
    if named is None:
        return Chosen(DEFAULT_URL, by_name=False)
    try:
        return Chosen(api_url(named), by_name=True)
    except ValueError as wrong:
        raise click.UsageError(f"{'--url' if told else URL_VARIABLE}: {wrong}") from None


def examples(*commands: str) -> str:
    """The end of a help text."""
    return "\b\nExamples:\n" + "\n".join(f"  astromesh-node {command}" for command in commands)


def print_json(document: Any) -> None:
    click.echo(json.dumps(document, ensure_ascii=False, indent=2))


def print_json_line(document: Any) -> None:
    click.echo(json.dumps(document, ensure_ascii=False))
