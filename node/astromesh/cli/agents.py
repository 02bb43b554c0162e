"""Agents of the whole mesh: what there is, what one looks like, and what becomes of it."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any
from urllib.parse import quote

import click

from astromesh.cli.client import NodeClient, agent_path
from astromesh.cli.failures import NodeRefused
from astromesh.cli.options import Chosen, examples, json_option, print_json, url_option
from astromesh.cli.terminal import table, warn
from astromesh.cli.verbs import Verbs, help_unless_verb

if TYPE_CHECKING:
    from astromesh.specs.documents import Document


@click.group(cls=Verbs)
@click.pass_context
def agents(context: click.Context) -> None:
    """Agents of the whole mesh. One outside the namespace 'default' is named NAMESPACE/NAME."""
    help_unless_verb(context)


@agents.command("list", epilog=examples("agents list", "agents list --namespace sales", "agents list --json"))
@click.option("--namespace", metavar="NS", help="Only the agents of this namespace.")
@url_option
@json_option
def list_agents(*, namespace: str | None, node: Chosen, as_json: bool) -> None:
    """The agents of the mesh, where they are, and what is wrong with them."""
    answer = node.client.get("/v1/agents" + ("" if namespace is None else f"?namespace={quote(namespace, safe='')}")).body
    if as_json:
        print_json(answer)
        return
    rows = answer["agents"]
    if not rows:
        click.echo("no agents; a file agents/NAME.agent.yaml in the folder of the configuration is one, 'agents deploy FILE' makes one")
        return
    click.echo(table(("NAME", "VERSION", "STATUS", "NODES"), (_row(agent) for agent in rows), sys.stdout))
    for agent in rows:
        if agent.get("error"):
            click.echo(f"\n{_key(agent)}: {agent['error']}")
        for warning in agent["warnings"]:
            click.echo(f"\n{_key(agent)}: warning: {warning}")


@agents.command(epilog=examples("agents show hello", "agents show hello --draft", "agents show hello --json"))
@click.argument("name")
@click.option("--draft", is_flag=True, help="What was put and is not deployed yet.")
@url_option
@json_option
def show(*, name: str, draft: bool, node: Chosen, as_json: bool) -> None:
    """An agent's document, secrets masked."""
    document = node.client.get(_with(agent_path(name), "state=draft") if draft else agent_path(name)).body
    if as_json:
        print_json(document)
        return
    click.echo(_as_yaml(document), nl=False)


@agents.command(epilog=examples("agents deploy desk.agent.yaml", "agents deploy desk.agent.yaml --draft", "agents deploy desk"))
@click.argument("what", metavar="FILE|NAME")
@click.option("--draft", is_flag=True, help="Only keep what the file says; 'agents deploy NAME' lets it answer.")
@url_option
@json_option
def deploy(*, what: str, draft: bool, node: Chosen, as_json: bool) -> None:
    """Let an agent answer, on every node that holds it. FILE: the agents that are written in it, '-' is stdin."""
    if what != "-" and not what.endswith((".yaml", ".yml", ".json")):
        if draft:
            raise click.UsageError("--draft is for a FILE, which ends in .yaml, .yml or .json", click.get_current_context())
        _told([node.client.post(agent_path(what, "deploy")).body], as_json=as_json)
        return
    told = []
    for document in _documents(what):
        try:
            kept = _keep(node.client, document.value)
        except NodeRefused as refused:
            raise _in_the_file(refused, document, file=what) from refused
        told.append(kept if draft else node.client.post(agent_path(_key(kept), "deploy")).body)
    _told(told, as_json=as_json)


@agents.command(epilog=examples("agents pause desk"))
@click.argument("name")
@url_option
@json_option
def pause(*, name: str, node: Chosen, as_json: bool) -> None:
    """Let an agent answer nobody until it is deployed again; runs under way end as they began."""
    _told([node.client.post(agent_path(name, "pause")).body], as_json=as_json)


@agents.command(epilog=examples("agents remove desk"))
@click.argument("name")
@url_option
@json_option
def remove(*, name: str, node: Chosen, as_json: bool) -> None:
    """Remove an agent from every node that holds it; what it remembers stays."""
    _told([node.client.delete(agent_path(name)).body], as_json=as_json)


def _told(answers: Sequence[dict[str, Any]], *, as_json: bool) -> None:
    if as_json:
        print_json(answers[0] if len(answers) == 1 else answers)
        return
    for answer in answers:
        where = f" on {', '.join(answer['nodes'])}" if "nodes" in answer else ""
        click.echo(f"{_key(answer)}: {'a draft' if answer['status'] in ('registered', 'updated') else answer['status']}{where}")
        warn(answer["warnings"])


def _keep(client: NodeClient, document: dict[str, Any]) -> dict[str, Any]:
    """A draft of it: a new agent, or a new version of the one there is."""
    try:
        return dict(client.post("/v1/agents", document).body)
    except NodeRefused as refused:
        if refused.code != "agent_exists":
            raise
    metadata = document["metadata"]  # it has a name, since there is an agent of it
    named = {"name": metadata["name"], "namespace": metadata.get("namespace") or "default"}
    return dict(client.put(agent_path(_key(named)), document).body)


def _in_the_file(refused: NodeRefused, document: Document, *, file: str) -> NodeRefused:
    """The same, at the lines of the file, which the node has not seen."""
    from astromesh.specs.findings import Mistake, dotted

    if not refused.mistakes:
        return refused
    marks = {dotted(path): mark for path, mark in document.marks.items()}
    lines = []
    for found in refused.mistakes:
        path = str(found.get("path", ""))
        above = max((known for known in marks if path == known or path.startswith((f"{known}.", f"{known}["))), key=len, default="")
        mark = marks.get(above)
        line, column = (mark.line, mark.column) if mark is not None else (0, 0)
        lines.append(str(Mistake(file, line, column, path, str(found.get("message", "")), str(found.get("remedy", "")))))
    return NodeRefused("\n".join(lines), code=refused.code, hint=refused.hint, mistakes=refused.mistakes)


def _documents(file: str) -> list[Document]:
    """What a node would read in it, as JSON values with their lines. Raises `InvalidDocument` with the line of what is no YAML."""
    from astromesh.errors import InvalidDocument
    from astromesh.specs.documents import read_documents
    from astromesh.specs.section import as_written

    try:
        text = sys.stdin.read() if file == "-" else Path(file).read_text(encoding="utf-8-sig")
    except (OSError, UnicodeDecodeError) as failure:
        reason = failure.strerror if isinstance(failure, OSError) else "it is not UTF-8 text"
        raise InvalidDocument(
            f"{file} cannot be read: {reason}", hint="name the file of an agent, or an agent that a node holds"
        ) from failure
    documents, mistakes = read_documents(text, source=file)
    told = [*mistakes, *(mistake for document in documents for mistake in document.mistakes)]
    if told:
        raise InvalidDocument("\n".join(map(str, told)))
    if not documents or not all(isinstance(document.value, dict) for document in documents):
        raise InvalidDocument(f"{file} holds no agent", hint="begin with apiVersion, kind, metadata and spec")
    return [replace(document, value=as_written(document.value)) for document in documents]


def _with(path: str, query: str) -> str:
    return f"{path}{'&' if '?' in path else '?'}{query}"


def _key(agent: dict[str, Any]) -> str:
    return str(agent["name"]) if agent["namespace"] == "default" else f"{agent['namespace']}/{agent['name']}"


def _row(agent: dict[str, Any]) -> tuple[str, ...]:
    status = "broken" if agent.get("error") else agent["status"]
    if "draft" in agent:
        status += f", a draft {agent['draft']}".rstrip() + " waits"
    return _key(agent), agent["version"], status, ", ".join(agent["nodes"])


def _as_yaml(document: Any) -> str:
    import yaml

    class Readable(yaml.SafeDumper):
        """Prompts are read by people: text of several lines keeps them."""

    def text(dumper: yaml.SafeDumper, value: str) -> yaml.ScalarNode:
        return dumper.represent_scalar("tag:yaml.org,2002:str", value, style="|" if "\n" in value else None)

    Readable.add_representer(str, text)
    return yaml.dump(document, Dumper=Readable, sort_keys=False, allow_unicode=True, width=120)
