"""`up`: a node in the foreground, or with --demo three of them on this machine."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import click

from astromesh.cli import surroundings
from astromesh.cli.options import config_option, examples
from astromesh.cli.terminal import warn


@click.command(
    epilog=examples(
        "up",
        "up --name kitchen --api 127.0.0.1:8001 --gossip 127.0.0.1:7956 --data ~/kitchen --join 127.0.0.1:7946",
        "up --demo",
    )
)
@config_option
@click.option("--name", metavar="N", help="What people call this node; otherwise the machine's name.")
@click.option("--role", type=click.Choice(["full", "gateway", "worker", "inference"]), help="What this node does for the mesh.")
@click.option("--api", metavar="HOST:PORT", help="Where the API listens; otherwise 127.0.0.1:8000.")
@click.option("--gossip", metavar="HOST:PORT", help="Where the gossip listens; otherwise 127.0.0.1:7946.")
@click.option("--link", metavar="HOST:PORT", help="Where links from other nodes arrive; otherwise the port after the gossip's.")
@click.option("--advertise", metavar="HOST", help="The address by which others reach this node.")
@click.option("--join", metavar="ADDR", multiple=True, help="A member of the mesh to join; may be given several times.")
@click.option("--mesh/--no-mesh", default=None, help="Whether there is a mesh at all.")
@click.option("--cluster-id", metavar="ID", help="Members of another cluster are refused; otherwise there is no id to compare.")
@click.option("--keyring-file", metavar="FILE", help="A JSON list of base64 keys, as Serf has it, that seal the gossip; mode 0600.")
@click.option("--serf/--no-serf", default=None, help="Whether stock Serf agents are members of this mesh; otherwise they are refused.")
@click.option("--mdns/--no-mdns", default=None, help="Whether nodes find each other by mDNS; not yet, so --join names them.")
@click.option("--profile", type=click.Choice(["lan-fast", "lan", "wan"]), help="How fast the mesh probes; lan-fast otherwise.")
@click.option("--data", metavar="DIR", help="The folder for what the node keeps.")
@click.option("--models", "models_dir", metavar="DIR", help="The folder of the models; otherwise models in the data folder.")
@click.option("--memory-budget", "memory_budget_mb", metavar="MB", help="What all models together may take; otherwise half of the memory.")
@click.option("--idle-unload", "idle_unload_s", metavar="SECONDS", help="When a model that nobody asks for is unloaded; otherwise 3600.")
@click.option("--demo", is_flag=True, help="Three nodes on this machine, of which one has a model, and a question to another.")
@click.option("--ends-with", type=int, hidden=True, help="The process that started this node, and whose end is the node's.")
@click.option("--json", is_flag=True, expose_value=False, help="Errors as JSON on stderr.")
def up(*, config: str | None, models_dir: str | None, demo: bool, ends_with: int | None, **flags: Any) -> int:
    """Run a node in the foreground. Ctrl-C or SIGTERM drains and leaves; a second one stops at once.

    Flags win over ASTROMESH_* variables, those over runtime.yaml, that over defaults, which work without any file.
    """
    given: dict[str, str | bool | Sequence[str] | None] = {name: value for name, value in flags.items() if value not in (None, ())}
    if demo:
        return _demo(config, models_dir, given)
    if ends_with is not None:
        from astromesh.cli.parent import end_with_parent

        end_with_parent(ends_with)
    written = surroundings.configuration(config)
    surroundings.refuse_unprotected(written)
    settings = surroundings.settled(written, {**given, "models_dir": models_dir})
    warn(settings.warnings)
    from astromesh.service.up import serve

    return serve(settings.values, written)


def _demo(config: str | None, models_dir: str | None, given: dict[str, Any]) -> int:
    unfit = sorted(f"--{name}" for name in (*given, *(["config"] if config is not None else [])))
    if unfit:
        raise click.UsageError(f"--demo chooses names, ports and folders itself: leave out {', '.join(unfit)}", click.get_current_context())
    from astromesh.cli.demo import demonstrate

    return demonstrate(models_dir)
