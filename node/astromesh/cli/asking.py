"""Asking an agent from the command line, once or in a conversation: of a running node, or of one inside this process."""

from __future__ import annotations

import sys
from collections.abc import Generator, Iterator
from contextlib import closing, contextmanager
from typing import Any, Protocol

import click

from astromesh.cli import surroundings
from astromesh.cli.answer import Screen, Stopwatch, summary
from astromesh.cli.aside import Aside, show
from astromesh.cli.client import Event
from astromesh.cli.failures import NodeUnreachable, in_words
from astromesh.cli.options import Chosen, config_option, examples, json_option, print_json, print_json_line, url_option
from astromesh.cli.terminal import dim, is_terminal, warn
from astromesh.errors import AstromeshError

QUERY_BYTES_MAX = 2**20  # far beyond what fits into a model's context


class Answers(Protocol):
    """Whoever answers: a node elsewhere or inside."""

    def run(self, agent: str, query: str, *, session_id: str | None) -> Generator[Event, None, None]: ...

    def remembers(self, agent: str) -> bool | None:
        """Whether the agent knows earlier questions of a session; None where the node cannot say."""
        ...


@click.command(epilog=examples('run hello "What is a mesh?"', 'run hello --stream "Tell me a story"', "run hello - < question.txt"))
@click.argument("agent", metavar="NAME")
@click.argument("query", required=False)
@click.option("--session", metavar="S", help="A conversation to go on with. Without it a fresh one.")
@click.option("--stream", is_flag=True, help="Print the tokens as they come.")
@click.option("-v", "--verbose", is_flag=True, help="Say who served it even where stderr is no terminal.")
@config_option
@url_option
@json_option
def run(
    *, agent: str, query: str | None, session: str | None, stream: bool, verbose: bool, config: str | None, node: Chosen, as_json: bool
) -> None:
    """Ask an agent. QUERY may be - or left out to read stdin. Without a running node, one is opened in this process."""
    question = _question(query)
    with _answering(node, agent, config, quiet=as_json) as answers:
        _ask(answers, agent, question, session_id=session, stream=stream, verbose=verbose, as_json=as_json)


@click.command(epilog=examples("chat hello", "chat hello --session kitchen"))
@click.argument("agent", metavar="NAME")
@click.option("--session", metavar="S", help="A conversation to go on with. Without it a fresh one.")
@click.option("-v", "--verbose", is_flag=True, help="Say who served each answer even where stderr is no terminal.")
@config_option
@url_option
@json_option
def chat(*, agent: str, session: str | None, verbose: bool, config: str | None, node: Chosen, as_json: bool) -> None:
    """Talk with an agent, line by line. /exit or the end of the input ends it."""
    session_id = session  # else the one that the node gives it: it names who keeps it, and nothing moves it to another node
    at_keyboard = sys.stdin.isatty() and not as_json
    with _answering(node, agent, config, quiet=as_json) as answers:
        if answers.remembers(agent) is False:
            click.echo(f"{agent} remembers nothing from one line to the next: its document has no spec.memory", err=True)
        for line in _lines(prompt=at_keyboard):
            try:
                session_id = _ask(answers, agent, line, session_id=session_id, stream=True, verbose=verbose, as_json=as_json)
            except AstromeshError as failure:
                # A person may ask something else; a script must learn of it.
                if not at_keyboard or isinstance(failure, NodeUnreachable):
                    raise
                click.echo(in_words(failure.message, failure.hint), err=True)


@contextmanager
def _answering(node: Chosen, agent: str, config: str | None, *, quiet: bool) -> Iterator[Answers]:
    client = node.client
    if node.by_name or client.listens():
        yield client
        return
    from astromesh.cli.inside import ModelNotInstalled, NodeInside
    from astromesh.cli.models import installed_models, offer_to_install

    written = surroundings.configuration(config)
    settled = surroundings.settled(written, {})
    if not quiet:
        warn(settled.warnings)
    settings = settled.values
    # The second opening is for a model that was installed in between.
    with NodeInside(settings, written, quiet=quiet) as inside:
        try:
            inside.prepare(agent)
        except ModelNotInstalled as missing:
            if quiet or not offer_to_install(installed_models(config, None, quiet=True), missing.model):
                raise
        else:
            yield inside
            return
    with NodeInside(settings, written, quiet=quiet) as inside:
        inside.prepare(agent)
        yield inside


def _ask(answers: Answers, agent: str, query: str, *, session_id: str | None, stream: bool, verbose: bool, as_json: bool) -> str:
    """The session of the answer."""
    events = answers.run(agent, query, session_id=session_id)
    if as_json:
        return _ask_as_json(events, stream=stream)
    watch, screen, aside = Stopwatch(), Screen(), Aside()
    done: dict[str, Any] = {}
    with closing(events), closing(screen):
        for event in events:
            watch.saw(event)
            if event.kind == "done":
                done = event.data
                screen.answer(str(done["answer"]))
            elif stream:
                screen.event(event)
                if (line := aside.line(event)) is not None:
                    screen.close()
                    show(line)
    if verbose or is_terminal(sys.stderr):
        click.echo(dim(summary(done, watch), sys.stderr), err=True)
    return str(done["session_id"])


def _ask_as_json(events: Generator[Event, None, None], *, stream: bool) -> str:
    done: dict[str, Any] = {}
    with closing(events):
        for event in events:
            if event.kind == "done":
                done = event.data
            if stream:
                print_json_line({"type": event.kind, **event.data})
            elif event.kind == "done":
                print_json(event.data)
    return str(done["session_id"])


def _question(query: str | None) -> str:
    if query is not None and query != "-":
        return query
    if query is None and sys.stdin.isatty():
        raise click.UsageError("no question; give it as QUERY, or pipe it in", click.get_current_context())
    read = sys.stdin.buffer.read(QUERY_BYTES_MAX + 1)
    if len(read) > QUERY_BYTES_MAX:
        raise click.UsageError(f"the question on stdin is longer than {QUERY_BYTES_MAX:,} bytes", click.get_current_context())
    text = read.decode(errors="replace").strip()
    if not text:
        raise click.UsageError("the question on stdin is empty", click.get_current_context())
    return text


def _lines(*, prompt: bool) -> Iterator[str]:
    """What was said, without empty lines, up to /exit or the end of the input."""
    if prompt:
        import readline  # noqa: F401  the line can be edited, and earlier ones come back with the arrows
    while True:
        if prompt:
            try:
                line = input("> ")
            except EOFError:
                click.echo()
                return
        else:
            line = sys.stdin.readline(QUERY_BYTES_MAX)
            if not line:
                return
        said = line.strip()
        if said == "/exit":
            return
        if said:
            yield said
