"""`up --demo`: three real nodes on this machine. Only c has a model: a question to a is answered by it, and agents on all
three work together.

Whatever ends the show (its end, Ctrl-C, SIGTERM, a mistake), its processes end with it and its folder is removed. Should this process be
killed outright, the kernel tells the nodes.
"""

from __future__ import annotations

import signal
import sys
from collections.abc import Callable, Iterator
from contextlib import ExitStack, closing, contextmanager
from pathlib import Path
from tempfile import TemporaryDirectory
from time import monotonic, sleep
from types import FrameType
from typing import Any, NoReturn

import click

from astromesh.cli.answer import Screen, Stopwatch, summary
from astromesh.cli.aside import line_of, within
from astromesh.cli.demo_agents import AGENTS, MODEL, PEER, SUPERVISOR, SWARM, WORKERS
from astromesh.cli.demo_nodes import DemoNode, demo_nodes
from astromesh.cli.failures import NodeRefused, NodeUnreachable
from astromesh.cli.models import install, installed_models
from astromesh.cli.terminal import ProgressLine, bold, dim, is_terminal, table
from astromesh.errors import AstromeshError, MissingExtra, StoreError

AGENT = "hello"
QUESTION = "Why is the sky blue?"
TO_BE_HANDED_OVER = "Write a poem about the sea."
TO_BE_WORKED_ON = "Tell me about honey bees."
LINE_CHARACTERS_MAX = 110
# The goals are seconds; a busy laptop with a cold disk gets its time.
UP_S = 60.0
SEE_EACH_OTHER_S = 60.0
LOAD_S = 180.0
POLL_S = 0.1


class DemoFailed(AstromeshError):
    """A node of the show did not do its part."""

    code = "demo_failed"


def demonstrate(models_dir: str | None) -> int:
    from astromesh.inference.engines import HOW_TO_GET_ONE
    from astromesh.runtime.engines import installed

    if not installed():
        raise MissingExtra(
            "the demo needs an inference engine, and this Python has none", hint=f"in a checkout 'make demo' brings one; {HOW_TO_GET_ONE}"
        )
    with _ended_by_signals(), ExitStack() as stack:
        store = installed_models(None, models_dir)
        try:
            store.resolve(MODEL)
        except StoreError:
            click.echo(f"The model {MODEL} is not in {store.root} yet: installing it.", err=True)
            install(store, MODEL)
        folder = Path(stack.enter_context(TemporaryDirectory(prefix="astromesh-demo-")))
        nodes = stack.enter_context(demo_nodes(folder, model=MODEL, models_dir=store.root, agents=AGENTS))
        a, b, c = nodes
        _until_ready(nodes, c)
        _show_mesh(nodes)
        _ask(a, AGENT, QUESTION, about=f"Asking {a.name}, which has no model")
        swarm = _ask(a, SWARM, TO_BE_HANDED_OVER, about=f"A swarm: {SWARM} lives on {a.name}, {PEER} on {b.name}, their model on {c.name}")
        _show_trace(swarm, nodes)
        left, right = WORKERS
        about = f"A supervisor: {SUPERVISOR} lives on {a.name}, its workers {left} on {b.name} and {right} on {c.name}"
        _show_trace(_ask(a, SUPERVISOR, TO_BE_WORKED_ON, about=about), nodes)
        _show_next(nodes)
        if is_terminal(sys.stdout):
            click.echo(dim("The three nodes run until Ctrl-C.", sys.stdout))
            _stay(nodes)
    return 0


def _until_ready(nodes: tuple[DemoNode, ...], holder: DemoNode) -> None:
    """Waits until everybody knows everybody and sees the model, and says how far that is."""
    line = ProgressLine()
    a = nodes[0]
    began = monotonic()
    try:
        _wait(nodes, lambda: all(node.answers() for node in nodes), UP_S, line, lambda: "starting three nodes")
        _wait(nodes, lambda: all(node.alive() == len(nodes) for node in nodes), SEE_EACH_OTHER_S, line, lambda: _meeting(nodes))
        _wait(
            nodes,
            lambda: a.sees_loaded(MODEL, holder.name),
            LOAD_S,
            line,
            lambda: f"{holder.name} loads {MODEL} {holder.loaded(MODEL):4.0%}",
        )
        everybody = {one["metadata"]["name"] for agents in AGENTS.values() for one in agents}
        ready = lambda: a.sees_agents(everybody) and all(node.sees_loaded(MODEL, holder.name) for node in nodes)  # noqa: E731
        _wait(nodes, ready, SEE_EACH_OTHER_S, line, lambda: "waiting until everybody knows the agents and the model")
    finally:
        line.end()
    click.echo(f"Three nodes see each other, and {a.name} sees the model of {holder.name}, after {monotonic() - began:.1f} s.\n")


def _meeting(nodes: tuple[DemoNode, ...]) -> str:
    return "waiting until each sees three: " + ", ".join(f"{node.name} sees {node.alive()}" for node in nodes)


def _wait(nodes: tuple[DemoNode, ...], true: Callable[[], bool], limit_s: float, line: ProgressLine, what: Callable[[], str]) -> None:
    deadline = monotonic() + limit_s
    while True:
        for node in nodes:
            if (code := node.exit_code) is not None:
                raise DemoFailed(f"node {node.name} ended with exit code {code}. It said last:\n{node.last_words()}")
        try:
            if true():
                return
        except (NodeUnreachable, NodeRefused):
            pass  # not yet
        if monotonic() > deadline:
            words = "\n".join(f"--- {node.name}\n{node.last_words()}" for node in nodes)
            raise DemoFailed(f"{what()}: not within {limit_s:g} s. The nodes said last:\n{words}")
        try:
            line.say(what())
        except (NodeUnreachable, NodeRefused):
            line.say("waiting for the nodes")
        sleep(POLL_S)


def _show_mesh(nodes: tuple[DemoNode, ...]) -> None:
    rows = {row["name"]: row for row in nodes[0].client.get("/v1/mesh/state").body["nodes"]}
    cells = (
        (
            node.name,
            rows[node.name]["status"],
            str(node.pid),
            node.url,
            str(rows[node.name]["gossip"]),
            ", ".join(rows[node.name]["models"]),
            ", ".join(rows[node.name]["agents"]),
        )
        for node in nodes
    )
    click.echo(table(("NODE", "STATUS", "PROCESS", "API", "GOSSIP", "MODELS", "AGENTS"), cells, sys.stdout))


def _ask(node: DemoNode, agent: str, question: str, *, about: str) -> dict[str, Any]:
    """Shows the answer as it comes, and what is done before it. The `done` of the run."""
    click.echo(f"\n{about}:\n{bold('> ' + question, sys.stdout)}")
    watch, screen, done = Stopwatch(), Screen(), None
    with closing(node.client.run(agent, question, session_id=None)) as events, closing(screen):
        for event in events:
            watch.saw(event)
            screen.event(event)
            if (line := line_of(event)) is not None:
                screen.close()
                click.echo(dim(within(line, LINE_CHARACTERS_MAX), sys.stdout))
            if event.kind == "done":
                done = event.data
    assert done is not None, "a run ends with done, or raises"
    click.echo(f"\n{bold(summary(done, watch), sys.stdout)}")
    return done


def _show_trace(done: dict[str, Any], nodes: tuple[DemoNode, ...]) -> None:
    """Who took part, by what the one trace of the run says."""
    spans = done["trace"]["spans"]
    names = {str(span["attributes"].get("node") or span["node"]) for span in spans} | {str(span["node"]) for span in spans}
    pids = {span["attributes"]["pid"] for span in spans if "pid" in span["attributes"]}
    there = ", ".join(f"{node.name} (process {node.pid})" for node in nodes if node.name in names and node.pid in pids)
    click.echo(f"one trace, {len(spans)} acts on {there}: astromesh-node trace {done['trace']['trace_id']} --url {nodes[0].url}")


def _show_next(nodes: tuple[DemoNode, ...]) -> None:
    a, _, c = nodes
    processes = ", ".join(f"{node.name} {node.pid}" for node in nodes)
    click.echo(f"""processes: {processes}

Look at    {a.url}/docs
Ask again  astromesh-node run {AGENT} "Hello!" --stream --url {a.url}
           curl {a.url}/v1/agents/{AGENT}/run -H 'Content-Type: application/json' -d '{{"query": "Hello!"}}'
OpenAI     from openai import OpenAI
           client = OpenAI(base_url="{a.url}/v1", api_key="none")
           client.chat.completions.create(model="{MODEL}", messages=[{{"role": "user", "content": "Hello!"}}])
Break it   kill -9 {c.pid}, then: astromesh-node members --url {a.url}
           Ask again: {a.name} says at once that the model was {c.name}'s, and that {c.name} is gone.
""")


def _stay(nodes: tuple[DemoNode, ...]) -> None:
    """Until somebody ends it, or nobody is left. Who falls is told once."""
    fallen: set[str] = set()
    while len(fallen) < len(nodes):
        for node in nodes:
            if node.exit_code is not None and node.name not in fallen:
                fallen.add(node.name)
                click.echo(f"node {node.name} (process {node.pid}) ended: {node.ending()}")
        sleep(POLL_S)


@contextmanager
def _ended_by_signals() -> Iterator[None]:
    """SIGTERM and a terminal that closes end the show in order, as Ctrl-C does."""

    def end(number: int, _frame: FrameType | None) -> NoReturn:
        # Once is enough: what follows is bounded, and cut short it would leave processes.
        for other in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
            signal.signal(other, signal.SIG_IGN)
        if number == signal.SIGINT:
            raise KeyboardInterrupt
        sys.exit(128 + number)

    before = {number: signal.signal(number, end) for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)}
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
