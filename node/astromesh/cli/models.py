"""Models: which the mesh has, and what one node does with its own."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator
from contextlib import closing
from pathlib import Path
from time import monotonic, sleep
from typing import TYPE_CHECKING, Any
from urllib.parse import quote

import click

from astromesh.cli import surroundings
from astromesh.cli.client import DEFAULT_URL
from astromesh.cli.failures import NodeRefused
from astromesh.cli.options import Chosen, config_option, examples, json_option, print_json, print_json_line, url_option
from astromesh.cli.terminal import ProgressLine, dim, duration, size, table, warn
from astromesh.cli.verbs import Verbs, help_unless_verb
from astromesh.errors import StoreError

if TYPE_CHECKING:
    from astromesh.inference.manifest import StoredModel
    from astromesh.inference.store import ModelStore

AGENT_PREFIX = "agent:"  # agents stand among the models for OpenAI's clients; 'agents list' shows them here
LOAD_S = 1800.0  # a large model from a slow disk
POLL_S = 0.2
TOLD_EVERY_S = 0.5  # a line of JSON about a download
_MODELS_OPTION = click.option("--models", "models_dir", metavar="DIR", help="The folder of the models, instead of the node's own.")


@click.group(cls=Verbs)
@click.pass_context
def models(context: click.Context) -> None:
    """Models of the whole mesh, and those of one node: the one that is asked (--url), no other."""
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
    click.echo(table(("NAME", "STATE", "NODE", "CAN", "SPEED", "SIZE"), (line for row in rows for line in _lines(row)), sys.stdout))
    for row in rows:
        for holder in row["nodes"]:
            if holder.get("error"):
                click.echo(f"\n{row['id']} on {holder['name']}: {holder['error']}")


@models.command(epilog=examples("models show smollm2", "models show smollm2 --json"))
@click.argument("model", metavar="NAME")
@url_option
@config_option
@json_option
def show(*, model: str, node: Chosen, config: str | None, as_json: bool) -> None:
    """All that is known of a model: who has it, and of this node's copy its file, licence and what it takes."""
    client = node.client
    if not node.by_name and not client.listens():
        from astromesh.inference.manifest import described

        found = described(installed_models(config, None, quiet=as_json).resolve(model))
        if as_json:
            print_json({"source": "disk", "here": found})
        else:
            click.echo("\n".join(_details(found)))
        return
    row = client.get(f"/v1/models/{quote(model, safe='')}").body
    if as_json:
        print_json(row)
        return
    click.echo(f"{row['id']}\n  can       {_can(row)}\n  identity  {row['identity'] or 'not known: it is behind a model server'}")
    if row["nodes"]:
        lines = [(state, node, *rest) for _, state, node, _, *rest in _lines(row)]
        click.echo("\n" + table(("STATE", "NODE", "SPEED", "SIZE"), lines, sys.stdout))
        for holder in row["nodes"]:
            if why := holder.get("error") or holder.get("refused"):
                click.echo(f"\n{holder['name']}: {why}")
    if (here := row.get("here")) is not None:
        click.echo("\nOn this node")
        click.echo(f"  {here['problem']}" if "problem" in here else "\n".join(_details(here)[1:]))
        if (plan := here.get("plan")) is not None:
            click.echo(f"  memory    {_needs(plan)}")


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
@_MODELS_OPTION
@url_option
@config_option
@json_option
def pull(*, model: str, name: str | None, sha256: str, models_dir: str | None, node: Chosen, config: str | None, as_json: bool) -> None:
    """Install a model: a registered one, a file of a hub or of a web server, or a file of your own, which stays where it is.

    A running node does it itself and has the model at once; without one it is installed in this machine's folder. A download that was cut
    is gone on with. HF_ENDPOINT and HF_TOKEN of whoever downloads are honoured. With --json a line for each step.
    """
    through = node.by_name or (models_dir is None and config is None and node.client.listens())
    if through and models_dir is not None:
        raise click.UsageError("--models is a folder of this machine, and --url names a node with a folder of its own: leave one out")
    if through:
        installed = _pull_there(node, model, name=name, sha256=sha256, as_json=as_json)
    else:
        installed = _pull_here(installed_models(config, models_dir, quiet=as_json), model, name=name, sha256=sha256, as_json=as_json)
    if as_json:
        print_json_line({"type": "done", "model": installed})
    else:
        click.echo("\n".join(_details(installed)))


@models.command(epilog=examples("models load smollm2", "models load smollm2 --dry-run"))
@click.argument("model", metavar="NAME")
@click.option("--dry-run", is_flag=True, help="Only say whether it fits, what it takes, and how fast it would be.")
@click.option("--context", type=click.IntRange(min=1), help="Tokens of context to reckon with, for --dry-run.")
@url_option
@json_option
def load(*, model: str, dry_run: bool, context: int | None, node: Chosen, as_json: bool) -> None:
    """Load a model on the node that is asked, and wait until it is there. One that failed is tried again."""
    path = f"/v1/models/{quote(model, safe='')}"
    if context is not None and not dry_run:
        raise click.UsageError("--context is for --dry-run; the node's own is spec.inference.models[].context", click.get_current_context())
    if dry_run:
        plan = node.client.post(f"{path}/load", {"dry_run": True, "context": context}).body
        if as_json:
            print_json(plan)
        else:
            click.echo("\n".join(_plan(plan)))
        return
    answer = node.client.post(f"{path}/load").body
    name, row = answer["node"], answer["model"]
    line = ProgressLine(shown=not as_json)
    deadline = monotonic() + LOAD_S
    try:
        while row["state"] == "loading" and monotonic() < deadline:
            line.say(f"{row.get('doing', 'loading')} {row.get('progress', 0.0):4.0%}  about {duration(row.get('eta_s', 0))} left")
            sleep(POLL_S)
            row = next((one for one in node.client.get(path).body["nodes"] if one["name"] == name), row)
    finally:
        line.end()
    if row["state"] != "loaded":
        why = row.get("error") or row.get("refused") or ("it is still loading" if row["state"] == "loading" else "it was unloaded again")
        raise NodeRefused(
            f"model {model} is not loaded on {name}: {why}", code="model_unavailable", hint=f"astromesh-node models show {model}"
        )
    if as_json:
        print_json({"node": name, "model": row})
    else:
        click.echo(f"{model} is loaded on {name}")


@models.command(epilog=examples("models unload smollm2"))
@click.argument("model", metavar="NAME")
@click.option("--force", is_flag=True, help="Although somebody is reading from it; their answers break off.")
@url_option
@json_option
def unload(*, model: str, force: bool, node: Chosen, as_json: bool) -> None:
    """Free the memory of a model on the node that is asked. It stays on disk, and is loaded again by whoever asks for it."""
    body = node.client.post(f"/v1/models/{quote(model, safe='')}/unload", {"force": force}).body
    if as_json:
        print_json(body)
    else:
        click.echo(f"{model} is unloaded on {body['node']}")


@models.command("rm", epilog=examples("models rm smollm2", "models rm smollm2 --force"))
@click.argument("model", metavar="NAME")
@click.option("--force", is_flag=True, help="Although it is loaded.")
@_MODELS_OPTION
@url_option
@config_option
@json_option
def remove(*, model: str, force: bool, models_dir: str | None, node: Chosen, config: str | None, as_json: bool) -> None:
    """Forget a model of the node that is asked, and delete its files unless they are your own. Without a running node: in this folder."""
    if node.by_name or (models_dir is None and config is None and node.client.listens()):
        body = node.client.delete(f"/v1/models/{quote(model, safe='')}?force={'true' if force else 'false'}").body
    else:
        installed_models(config, models_dir, quiet=as_json).remove(model)
        body = {"node": None, "name": model, "status": "removed"}
    if as_json:
        print_json(body)
    else:
        click.echo(f"{model} is removed")


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


def _pull_here(store: ModelStore, model: str, *, name: str | None, sha256: str, as_json: bool) -> dict[str, Any]:
    from astromesh.inference.manifest import described
    from astromesh.runtime.engines import missing_for

    if as_json:
        stored = store.pull(model, name=name, sha256=sha256, progress=_json_lines())
    else:
        stored = install(store, model, name=name, sha256=sha256)
    return described(stored) | ({"problem": missing} if (missing := missing_for(stored.kind)) else {})


def _json_lines() -> Callable[[int, int, str], None]:
    """A line of JSON for each half second of a pull."""
    began: dict[str, tuple[float, int]] = {}
    shown_s = 0.0

    def report(done: int, total: int, what: str) -> None:
        nonlocal shown_s
        now = monotonic()
        begun_s, before = began.setdefault(what, (now, done))
        if now - shown_s >= TOLD_EVERY_S:
            shown_s = now
            rate = (done - before) / (now - begun_s) if now > begun_s and done > before else None
            eta_s = (total - done) / rate if rate and total else None
            print_json_line({"type": "progress", "done": done, "total": total, "what": what, "rate": rate, "eta_s": eta_s})

    return report


def _pull_there(node: Chosen, model: str, *, name: str | None, sha256: str, as_json: bool) -> dict[str, Any]:
    path = Path(model).expanduser()
    source = str(path.absolute()) if path.exists() else model
    line = ProgressLine(shown=not as_json)
    events = node.client.pull({"source": source, "name": name, "sha256": sha256})
    with closing(events):
        try:
            for event in events:
                if event.kind == "done":
                    installed: dict[str, Any] = event.data["model"]
                    return installed
                if as_json:
                    print_json_line({"type": event.kind, **event.data})
                else:
                    line.report(event.data["done"], event.data["total"], event.data["what"])
        finally:
            line.end()
    raise StoreError("the node ended the pull without a word", hint="its log says more")


def _list_installed(store: ModelStore, *, as_json: bool) -> None:
    from astromesh.inference.manifest import described

    found, problems = store.list(), store.problems()
    if as_json:
        print_json({"source": str(store.root), "models": [described(model) for model in found], "problems": list(problems)})
        return
    if found:
        rows = ((model.name, "on_disk", size(model.size_bytes), model.licence, str(model.path)) for model in found)
        click.echo(table(("NAME", "STATE", "SIZE", "LICENCE", "PATH"), rows, sys.stdout))
    else:
        click.echo(f"no models in {store.root}; 'astromesh-node models pull smollm2' installs a small one")
    warn(problems)
    click.echo(dim(f"No node answers at {DEFAULT_URL}: these are the models that are installed here.", sys.stderr), err=True)


def _lines(row: dict[str, Any]) -> Iterator[tuple[str, ...]]:
    """One for each node that has the model."""
    for holder in row["nodes"]:
        state = "failed" if holder.get("error") else holder["state"]
        if holder.get("warm"):
            state += ", warm"
        if (progress := holder.get("progress")) is not None:
            left = f" {progress:.0%}, about {duration(holder.get('eta_s', 0))} left" if progress < 1 else ", its last checks"
            state = holder.get("doing", state) + left
        speed = f"{holder['tok_s']:.0f} tok/s" if holder.get("tok_s") else ""
        yield row["id"], state, holder["name"], _can(row), speed, size(holder["size_bytes"]) if holder.get("size_bytes") else ""


def _can(row: dict[str, Any]) -> str:
    return ", ".join(row.get("capabilities", ()))


def _details(model: dict[str, Any]) -> list[str]:
    kinds = (("package ", "as registered"), ("hf:", "as the hub has it"))
    digest = next((words for beginning, words in kinds if model["source"].startswith(beginning)), "as read")
    lines = [
        f"{model['name']} is installed",
        f"  size      {size(model['size_bytes'])}",
        f"  sha256    {model['sha256']} ({digest})",
        f"  source    {model['source']}",
        f"  licence   {model['licence'] or 'not stated in the file'}",
        f"  kind      {' '.join(word for word in (model['kind'], model['architecture'], model['quantisation']) if word)}",
        f"  context   {model['context'] or 'not stated'}",
        f"  template  {model['template']}",
    ]
    lines += [f"  {'path' if file['role'] == 'model' else file['role']:9} {file['path']}" for file in model["files"]]
    return lines + ([f"  note      it cannot run here: {model['problem']}"] if "problem" in model else [])


def _needs(plan: dict[str, Any]) -> str:
    fits = {True: "it fits", False: "it does not fit", None: "whether it fits is not known"}[plan["fits"]]
    fits = "it is loaded" if plan["state"] == "loaded" else fits
    return f"{size(plan['needed_bytes'])} of {size(plan['budget_bytes'])} that models may take: {fits}"


def _plan(plan: dict[str, Any]) -> list[str]:
    lines = [f"{plan['model']} on {plan['node']}: {_needs(plan)}"]
    if (placement := plan["placement"]) is not None:
        lines += [
            f"  weights  {size(placement['weights_bytes'])}",
            f"  cache    {size(placement['cache_bytes'])} for {plan['context']:,} tokens of context, {plan['parallel']} streams",
            f"  prompts  {size(plan['prefix_cache_bytes'])} at most for those that were read",
            f"  memory   {size(placement['host']['free_bytes'] or 0)} are free now",
        ]
        lines += [f"  {part['id']:8} {part['layers']} layers, {size(part['needed_bytes'])}" for part in placement["devices"]]
    if plan["unloads"]:
        lines.append(f"  unloads  {', '.join(plan['unloads'])}")
    if placement is not None:  # of one that writes
        speed = f"{plan['tok_s']:.0f} tok/s, as measured" if plan["tok_s"] else ""
        if not speed and plan["tok_s_estimate"]:
            speed = f"about {plan['tok_s_estimate']:.0f} tok/s, by its size"
        lines.append(f"  speed    {speed or 'not measured yet'}")
    if plan["state"] != "loaded":
        lines.append(f"  time     loaded in about {duration(max(1, plan['load_s']))}")
    notes = [placement["note"]] if placement is not None and placement["note"] else []
    notes += [f"it cannot run here: {plan['problem']}"] if "problem" in plan else []
    return lines + [f"  note     {note}" for note in notes]
