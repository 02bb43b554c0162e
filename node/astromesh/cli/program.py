"""`astromesh-node`: the verbs, and the way from what went wrong to words on stderr and an exit code."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from typing import Any

import click

from astromesh.cli import failures
from astromesh.cli.agents import agents
from astromesh.cli.asking import chat, run
from astromesh.cli.config import config
from astromesh.cli.engine import engine
from astromesh.cli.gpus import gpus
from astromesh.cli.keys import keys
from astromesh.cli.mesh import join, leave, members, status
from astromesh.cli.models import models
from astromesh.cli.options import examples
from astromesh.cli.providers import providers
from astromesh.cli.trace import trace
from astromesh.cli.up import up
from astromesh.cli.verbs import NoSuchVerb, Verbs, help_unless_verb
from astromesh.errors import AstromeshError


class Program(Verbs):
    def main(  # type: ignore[override]  # always ends the process, as click's does in its usual mode
        self, args: Sequence[str] | None = None, prog_name: str | None = None, **extra: Any
    ) -> None:
        words = list(sys.argv[1:] if args is None else args)
        tell = _tell_json if "--json" in words else _tell_words
        try:
            code = super().main(words, prog_name, standalone_mode=False, **extra)
        except click.exceptions.Abort:
            sys.exit(failures.INTERRUPTED)
        except click.UsageError as mistake:
            tell("usage", mistake.format_message(), _hint(mistake))
            sys.exit(failures.USAGE)
        except click.ClickException as failure:
            tell("failed", failure.format_message(), "")
            sys.exit(failures.FAILED)
        except AstromeshError as error:
            tell(error.code, error.message, error.hint)
            sys.exit(failures.exit_code(error))
        sys.exit(code if isinstance(code, int) else failures.FINE)


def _hint(mistake: click.UsageError) -> str:
    if isinstance(mistake, NoSuchVerb):
        return mistake.hint
    return f"See '{mistake.ctx.command_path} --help'." if mistake.ctx is not None else ""


def _tell_words(_code: str, message: str, hint: str) -> None:
    click.echo(failures.in_words(message, hint), err=True)


def _tell_json(code: str, message: str, hint: str) -> None:
    click.echo(failures.as_json(code, message, hint), err=True)


@click.group(
    cls=Program,
    context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 120},
    epilog=examples("up", 'run hello "What is a mesh?"', "members", "up --help")
    + "\n\n\b\nExit codes: 0 fine, 1 failed, 2 usage, 3 node unreachable, 78 bad configuration.",
)
@click.option("--url", metavar="URL", help="The node to talk to, for every verb that needs one.")
@click.version_option(package_name="astromesh-node", message="astromesh-node %(version)s")
@click.pass_context
def program(context: click.Context, url: str | None) -> None:
    """Every machine on a LAN becomes one computer for AI agents."""
    help_unless_verb(context)


for verb in (up, run, chat, status, members, join, leave, keys, agents, models, gpus, engine, providers, trace, config):
    program.add_command(verb)
