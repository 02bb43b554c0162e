"""The verbs themselves: which there are, what their help says, and how a slip of the finger is met."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Iterator

import click
import pytest
from tests.astromesh.cli.conftest import Cli

from astromesh.cli.program import program

CONTRACT = {
    "up", "run", "chat", "status", "members", "join", "leave", "agents list", "agents show", "agents deploy",
    "agents pause", "agents remove", "config reload", "models list", "models pull", "providers list",
    "models show", "models load", "models unload", "models rm", "gpus", "engine status", "engine install",
    "keys list", "keys install", "keys use", "keys remove", "config validate", "config show", "trace",
}  # fmt: skip
NEEDS_A_NODE = (
    "status", "members", "join 127.0.0.1:7946", "leave", "agents list", "agents show desk", "agents deploy desk",
    "agents pause desk", "agents remove desk", "config reload",
    "keys list", "keys install --generate", "keys use 1f3a9c0e", "keys remove 1f3a9c0e", "trace", "trace t1", "trace --agent desk",
)  # fmt: skip
# What a node is made of, and what a verb that only talks to one has no use for.
HEAVY = ("aiohttp", "asyncio", "pydantic", "jinja2", "yaml", "orjson", "psutil", "prometheus_client", "maia", "astromesh.runtime")


def leaves(group: click.Group, words: tuple[str, ...] = ()) -> Iterator[tuple[str, click.Command]]:
    for name, command in group.commands.items():
        if isinstance(command, click.Group):
            yield from leaves(command, (*words, name))
        else:
            yield " ".join((*words, name)), command


def test_there_are_the_verbs_that_work_and_no_others() -> None:
    assert {name for name, _ in leaves(program)} == CONTRACT


@pytest.mark.parametrize("verb", sorted(CONTRACT))
def test_every_verb_takes_json_and_its_help_ends_with_examples(cli: Cli, verb: str) -> None:
    shown = cli(*verb.split(), "--help")
    assert shown.exit_code == 0
    assert "--json" in shown.stdout
    assert f"  astromesh-node {verb}" in shown.stdout.rpartition("Examples:")[2]


def test_a_misspelt_verb_is_met_with_the_one_that_was_meant(cli: Cli) -> None:
    answer = cli("memers")
    assert answer.exit_code == 2
    assert answer.stderr == "there is no verb 'memers'. Did you mean 'members'?\n"


def test_a_misspelt_verb_of_a_family_is_met_too(cli: Cli) -> None:
    assert cli("models", "puul").stderr == "there is no verb 'puul'. Did you mean 'pull'?\n"


def test_a_word_that_resembles_none_is_met_with_all_of_them(cli: Cli) -> None:
    assert "Verbs: up, run, chat" in cli("frobnicate").stderr


def test_a_usage_mistake_is_json_where_json_was_asked_for(cli: Cli) -> None:
    answer = cli("agents", "show", "--json")
    assert answer.exit_code == 2
    assert answer.stdout == ""
    assert json.loads(answer.stderr) == {
        "code": "usage",
        "message": "Missing argument 'NAME'.",
        "hint": "See 'astromesh-node agents show --help'.",
    }


@pytest.mark.parametrize("words", [(), ("agents",), ("models",), ("keys",), ("config",)])
def test_without_a_verb_there_is_help(cli: Cli, words: tuple[str, ...]) -> None:
    shown = cli(*words)
    assert shown.exit_code == 0
    assert "Usage: astromesh-node" in shown.stdout


@pytest.mark.parametrize("verb", NEEDS_A_NODE)
def test_where_no_node_listens_a_verb_says_how_to_start_one_and_exits_3(cli: Cli, verb: str) -> None:
    answer = cli(*verb.split())
    assert answer.exit_code == 3
    assert "no node answers at http://127.0.0.1:" in answer.stderr
    assert "'astromesh-node up'" in answer.stderr


def test_an_unreachable_node_is_json_where_json_was_asked_for(cli: Cli) -> None:
    answer = cli("members", "--json")
    assert answer.exit_code == 3
    assert json.loads(answer.stderr)["code"] == "node_unreachable"


@pytest.mark.parametrize("url", ["ftp://x", "http://", "http://h:port", "http://user:password@h", "http://h?x"])
def test_what_is_no_address_of_a_node_is_a_usage_mistake(cli: Cli, url: str) -> None:
    answer = cli("status", "--url", url)
    assert answer.exit_code == 2
    assert "write http://HOST:PORT" in answer.stderr


def test_verbs_that_talk_to_a_node_import_nothing_of_one() -> None:
    code = "import sys; import astromesh.cli.program; print(*sys.modules)"
    loaded = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout.split()
    assert "astromesh.cli.client" in loaded
    assert [name for name in HEAVY if name in loaded] == []


def test_the_program_answers_as_a_module() -> None:
    shown = subprocess.run([sys.executable, "-m", "astromesh.cli", "--version"], capture_output=True, text=True)
    assert (shown.returncode, shown.stdout.split()[0]) == (0, "astromesh-node")
