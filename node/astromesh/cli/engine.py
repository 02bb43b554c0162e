"""The engine that runs models on a machine: what is there, and how a better one comes to it."""

from __future__ import annotations

import sys
from collections.abc import Mapping
from pathlib import Path
from time import monotonic
from typing import TYPE_CHECKING, Any

import click

from astromesh.cli.client import DEFAULT_URL, NodeClient
from astromesh.cli.options import Chosen, examples, json_option, print_json, url_option
from astromesh.cli.terminal import ProgressLine, dim, duration, warn
from astromesh.cli.verbs import Verbs, help_unless_verb
from astromesh.errors import MissingExtra

if TYPE_CHECKING:
    from astromesh.inference.engines import Backend, BuildPlan


@click.group(cls=Verbs)
@click.pass_context
def engine(context: click.Context) -> None:
    """The engine that runs models on this machine."""
    help_unless_verb(context)


@engine.command(epilog=examples("engine status", "engine status --json"))
@url_option
@json_option
def status(*, node: Chosen, as_json: bool) -> None:
    """What a node's engine was built for, what it finds, and what to do about it; without a running node that of this machine."""
    client = node.client
    alone = not node.by_name and not client.listens()
    body = {"node": "here", **_here(), "models": []} if alone else client.get("/v1/engine").body
    if as_json:
        print_json(body)
        return
    for label, text in _facts(body):
        click.echo(f"{label:<11}{text}")
    warn(body["warnings"])
    if alone:
        click.echo(dim(f"No node answers at {DEFAULT_URL}: this is the engine of this machine.", sys.stderr), err=True)


@engine.command(epilog=examples("engine install", "engine install --cuda", "engine install --vulkan --dry-run"))
@click.option("--cpu", "backend", flag_value="cpu", help="For the processor alone.")
@click.option("--cuda", "backend", flag_value="cuda", help="For cards of NVIDIA. Needs the CUDA toolkit.")
@click.option("--vulkan", "backend", flag_value="vulkan", help="For cards of anybody. Needs Vulkan's headers and glslc.")
@click.option("--metal", "backend", flag_value="metal", help="For Apple's graphics.")
@click.option("--cached", "cached_only", is_flag=True, help="Only what is compiled already; fails where that would have to be done first.")
@click.option("--dry-run", is_flag=True, help="Say what would be done, and do nothing.")
@json_option
def install(*, backend: Backend | None, cached_only: bool, dry_run: bool, as_json: bool) -> None:
    """Compile llama-cpp-python for this machine and install it beside this program. Without an option: for the cards that are here.

    What was compiled is kept, so that it is compiled once for each processor, compiler, version and backend.
    """
    from astromesh.inference.backends import building
    from astromesh.inference.engines import EXPECTED, PACKAGE, VERSION, plan_build

    chosen = backend or _best()
    plan = plan_build(chosen, building.this_machine())
    wheel = building.cached_wheel(plan)
    if cached_only and wheel is None:
        raise MissingExtra(f"{PACKAGE} {VERSION} for {chosen} is not compiled yet", hint="leave --cached out to compile it")
    if dry_run:
        _tell_plan(plan, building.cache_root() / plan.folder, wheel, as_json=as_json)
        return
    if wheel is None and plan.missing:
        raise MissingExtra(f"{PACKAGE} cannot be compiled for {chosen} here. Missing: {'. Missing: '.join(plan.missing)}")
    began_at = monotonic()
    if wheel is None:
        if not as_json:
            click.echo(f"compiling {PACKAGE} {VERSION} for {chosen}, once: {EXPECTED[chosen]}", err=True)
            click.echo(f"it will be kept in {building.cache_root() / plan.folder}", err=True)
        wheel = _build(plan, quiet=as_json)
    building.install(wheel)
    took_s = monotonic() - began_at
    if as_json:
        print_json({"backend": chosen, "wheel": str(wheel), "seconds": round(took_s, 1)})
        return
    click.echo(f"{PACKAGE} {VERSION} for {chosen} is installed ({duration(took_s)}), from {wheel}")
    if NodeClient(DEFAULT_URL).listens():
        click.echo("A node is running: its models use the new engine after its next start.")


def _build(plan: BuildPlan, *, quiet: bool) -> Path:
    from astromesh.inference.backends import building

    line, began_at = ProgressLine(shown=not quiet), monotonic()

    def tell(done: int, total: int) -> None:
        spent_s = monotonic() - began_at
        left = f", about {duration(spent_s / done * (total - done))} to go" if 0 < done < total else ""
        line.say(f"compiling for {plan.backend}: {done} of {total} files, {duration(spent_s)} so far{left}")

    line.say(f"compiling for {plan.backend}: fetching the source and its build tools")
    try:
        return building.build(plan, tell)
    finally:
        line.end()


def _best() -> Backend:
    from astromesh.inference.backends.devices.looking import Looker
    from astromesh.inference.engines import best_backend

    return best_backend(Looker().inventory(), platform=sys.platform)


def _tell_plan(plan: BuildPlan, folder: Path, wheel: Path | None, *, as_json: bool) -> None:
    if as_json:
        print_json({**plan.as_json(), "folder": str(folder), "cached": str(wheel) if wheel else None})
        return
    shown = plan.as_json()
    click.echo(f"{'package':<11}{shown['package']}, for {plan.backend}")
    click.echo(f"{'with':<11}{' '.join(f'{key}={value!r}' for key, value in plan.environment) or 'no options'}")
    click.echo(f"{'takes':<11}{'seconds: it is compiled already' if wheel else shown['expected']}")
    click.echo(f"{'kept in':<11}{folder}")
    for missing in plan.missing:
        click.echo(f"{'missing':<11}{missing}")


def _here() -> Mapping[str, Any]:
    from astromesh.inference.backends.devices.looking import Looker
    from astromesh.inference.backends.inspecting import inspect

    looker = Looker()
    return inspect(looker, looker.inventory())


def _facts(body: Mapping[str, Any]) -> list[tuple[str, str]]:
    processor = body["processor"]
    facts = [
        ("node", body["node"]),
        ("engine", ", ".join(f"{one['name']} {one['version']}" for one in body["installed"]) or "none"),
        ("backends", ", ".join(body["backends"]) or "-"),
        ("built for", ", ".join(body["built_for"]) or "-"),
        ("processor", f"{processor['name']}, {processor['cores']} cores, {processor['threads']} threads"),
        ("it has", ", ".join(processor["features"]) or "-"),
    ]
    facts += [("kept", f"{backend}: {wheel}") for backend, wheel in body["cached"].items()]
    facts += [("model", f"{one['name']}, {one['state']}, {_kernel(one['kernel'])}") for one in body["models"]]
    return facts


def _kernel(kernel: str | None) -> str:
    return f"kernel {kernel}" if kernel else "no kernel claimed"
