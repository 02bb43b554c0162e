"""`run` and `chat`: the answer on stdout and nothing else there, of a node elsewhere or of one inside this process."""

from __future__ import annotations

import json
import os
import pty
import re
import signal
import subprocess
import sys
import time
from contextlib import suppress
from pathlib import Path

import pytest
from tests.astromesh.cli.conftest import REMEMBERS, Cli, RunningNode
from tests.astromesh.inference.gguf_files import a_gguf
from tests.rig.company import gives
from tests.rig.documents import agent, provider, runtime, write_documents

from astromesh.inference.engines import HOW_TO_GET_ONE

PATIENCE_S = 20.0


def test_run_prints_the_answer_and_nothing_else(cli: Cli, node: RunningNode) -> None:
    answer = cli("run", "desk", "good morning", "--url", node.url)
    assert (answer.exit_code, answer.stdout, answer.stderr) == (0, "You said: good morning\n", "")


def test_run_streams_the_same_text(cli: Cli, node: RunningNode) -> None:
    assert cli("run", "desk", "good morning to all", "--stream", "--url", node.url).stdout == "You said: good morning to all\n"


def test_verbose_says_who_served_it_on_stderr(cli: Cli, node: RunningNode) -> None:
    answer = cli("run", "desk", "good morning", "-v", "--url", node.url)
    assert answer.stdout == "You said: good morning\n"
    assert answer.stderr.startswith("served by solo · home solo · 4 tokens · ")
    assert "first token" in answer.stderr


def test_run_as_json_is_one_document(cli: Cli, node: RunningNode) -> None:
    document = json.loads(cli("run", "desk", "hello", "--session", "s1", "--json", "--url", node.url).stdout)
    assert (document["answer"], document["session_id"], document["node"]) == ("You said: hello", "s1", "solo")


def test_a_stream_as_json_is_a_line_for_each_event(cli: Cli, node: RunningNode) -> None:
    lines = cli("run", "desk", "one two", "--stream", "--json", "--url", node.url).stdout.splitlines()
    events = [json.loads(line) for line in lines]
    assert events[0]["type"] == "route"
    assert "".join(event["content"] for event in events if event["type"] == "token") == "You said: one two"
    assert (events[-1]["type"], events[-1]["answer"]) == ("done", "You said: one two")


@pytest.mark.parametrize("words", [("desk",), ("desk", "-")])
def test_the_question_may_be_piped_in(cli: Cli, node: RunningNode, words: tuple[str, ...]) -> None:
    assert cli("run", *words, "--url", node.url, stdin="from a pipe\n").stdout == "You said: from a pipe\n"


def test_an_empty_pipe_is_no_question(cli: Cli, node: RunningNode) -> None:
    asked = node.stub.served
    answer = cli("run", "desk", "--url", node.url, stdin=" \n")
    assert (answer.exit_code, node.stub.served) == (2, asked)


def test_a_question_on_stdin_has_a_limit(cli: Cli, node: RunningNode) -> None:
    answer = cli("run", "desk", "--url", node.url, stdin="x" * (2**20 + 1))
    assert answer.exit_code == 2
    assert "longer than 1,048,576 bytes" in answer.stderr


def test_an_agent_that_nobody_has_fails_in_the_nodes_words(cli: Cli, node: RunningNode) -> None:
    answer = cli("run", "nobody", "hi", "--json", "--url", node.url)
    assert (answer.exit_code, answer.stdout) == (1, "")
    assert json.loads(answer.stderr)["code"] == "agent_not_found"


def test_a_failure_in_the_middle_of_a_stream_ends_the_line_and_exits_1(cli: Cli, node: RunningNode) -> None:
    node.stub.modes["stub"] = node.stub.modes["half-a-stream"]
    try:
        answer = cli("run", "forgetful", "one two three four", "--stream", "--url", node.url)
    finally:
        del node.stub.modes["stub"]
    assert answer.exit_code == 1
    assert answer.stdout == "You said: one\n"
    assert answer.stderr.startswith("provider stub broke off")


def on_a_terminal(*words: str, stdin: str = "") -> tuple[str, str]:
    """stdout as it is piped on, and what a terminal shows of stderr."""
    ours, theirs = pty.openpty()
    environment = {**os.environ, "TERM": "xterm", "COLUMNS": "120", "NO_COLOR": ""}
    command = [sys.executable, "-m", "astromesh.cli", *words]
    with os.fdopen(ours, "rb") as screen:
        try:
            out = subprocess.run(command, stdout=subprocess.PIPE, stderr=theirs, input=stdin.encode(), env=environment, timeout=PATIENCE_S)
        finally:
            os.close(theirs)
        shown = b""
        # A terminal that nobody holds open any more ends with an error.
        with suppress(OSError):
            while piece := screen.read1():
                shown += piece
    return out.stdout.decode(), shown.decode().replace("\r\n", "\n")


@pytest.mark.parametrize("words", [("run", "lead", "How many?", "--stream"), ("chat", "lead")])
def test_a_terminal_shows_what_an_agent_does_aside_and_whoever_pipes_gets_the_answer_alone(
    node: RunningNode, words: tuple[str, ...]
) -> None:
    node.stub.say("stub", gives(("forgetful", "Count.")), "Two.", gives(), "There are two.")
    out, shown = on_a_terminal(*words, "--url", node.url, stdin="How many?\n")
    assert out == "There are two.\n"
    *aside, footer = [line.removeprefix("\x1b[2m").removesuffix("\x1b[0m") for line in shown.splitlines() if line.startswith("\x1b[2m")]
    assert aside == ["→ forgetful on solo", "· delegate: forgetful, Count. → Two.", "· conclude"]
    assert footer.startswith("served by solo · home solo · ")


def test_a_program_that_reads_stderr_is_told_nothing_of_what_is_done_aside(cli: Cli, node: RunningNode) -> None:
    for words in ((), ("--json",)):
        node.stub.say("stub", gives(("forgetful", "Count.")), "Two.", gives(), "There are two.")
        assert cli("run", "lead", "How many?", "--stream", *words, "--url", node.url).stderr == ""


def test_chat_goes_on_with_one_conversation_until_exit(cli: Cli, node: RunningNode) -> None:
    before = len(node.stub.asked("stub"))
    answer = cli("chat", "desk", "--url", node.url, stdin="first\n\nsecond\n/exit\nthird\n")
    assert (answer.exit_code, answer.stdout) == (0, "You said: first\nYou said: second\n")
    asked = node.stub.asked("stub")[before:]
    assert [message["content"] for message in asked[-1].body["messages"] if message["role"] == "user"] == ["first", "second"]


def test_the_conversation_of_a_chat_is_named_by_the_node_that_keeps_it(cli: Cli, node: RunningNode) -> None:
    told = [json.loads(line) for line in cli("chat", "desk", "--json", "--url", node.url, stdin="first\nsecond\n").stdout.splitlines()]
    first, second = (event["session_id"] for event in told if event["type"] == "done")
    assert first == second
    assert re.fullmatch(r"[0-9a-f]{32}-solo-\w+", first)


def test_chat_ends_with_its_input(cli: Cli, node: RunningNode) -> None:
    assert cli("chat", "desk", "--url", node.url, stdin="only").stdout == "You said: only\n"


def test_chat_says_that_an_agent_without_memory_remembers_nothing(cli: Cli, node: RunningNode) -> None:
    assert "remembers nothing" in cli("chat", "forgetful", "--url", node.url, stdin="hi\n").stderr
    assert cli("chat", "desk", "--url", node.url, stdin="hi\n").stderr == ""


def test_ctrl_c_cancels_the_run_at_the_model_and_exits_130(node: RunningNode) -> None:
    command = [sys.executable, "-m", "astromesh.cli", "run", "slow", "a b c d e f g h i j k l m n o p", "--stream", "--url", node.url]
    cancelled = node.stub.cancelled
    process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, start_new_session=True)
    assert process.stdout is not None
    assert process.stdout.read(3) == b"You"
    os.kill(process.pid, signal.SIGINT)
    process.communicate(timeout=PATIENCE_S)
    assert process.returncode == 130
    deadline = time.monotonic() + PATIENCE_S
    while node.stub.cancelled == cancelled and time.monotonic() < deadline:
        time.sleep(0.02)
    assert node.stub.cancelled == cancelled + 1


def test_where_no_node_listens_one_is_opened_inside_and_answers(cli: Cli, node: RunningNode, tmp_path: Path) -> None:
    config = tmp_path / "config"
    write_documents(config, {**runtime(), **provider(node.stub.endpoint), **agent("porter", **REMEMBERS)})
    answer = cli("run", "porter", "who is there", "--config", str(config), "-v")
    assert (answer.exit_code, answer.stdout) == (0, "You said: who is there\n"), answer.stderr
    assert "served by" in answer.stderr
    before = len(node.stub.asked("stub"))
    assert cli("chat", "porter", "--config", str(config), stdin="one\ntwo\n").stdout == "You said: one\nYou said: two\n"
    assert "one" in [message["content"] for message in node.stub.asked("stub")[before + 1].body["messages"]]


def test_a_node_that_was_named_is_never_replaced_by_one_inside(cli: Cli) -> None:
    assert cli("run", "hello", "hi", "--url", "http://127.0.0.1:1").exit_code == 3


def test_a_model_that_is_not_installed_is_met_with_the_command_that_brings_it(cli: Cli) -> None:
    answer = cli("run", "hello", "hi")
    assert (answer.exit_code, answer.stdout) == (1, "")
    assert answer.stderr.startswith("agent hello uses the model smollm2: there is no model 'smollm2' in ")
    assert answer.stderr.endswith(". astromesh-node models pull smollm2\n")


@pytest.mark.parametrize("models", [[], [{"name": "smollm2"}]])
def test_with_json_nothing_but_the_error_is_on_stderr(cli: Cli, tmp_path: Path, models: list[dict[str, str]]) -> None:
    hello = agent("hello", model="smollm2", provider_name=None)
    write_documents(tmp_path / "config", {**hello, **runtime(inference={"models": models}), "agents/bad.agent.yaml": "kind: ["})
    answer = cli("run", "hello", "hi", "--config", str(tmp_path / "config"), "--json")
    assert (answer.exit_code, answer.stdout) == (1, "")
    refusal = json.loads(answer.stderr)
    assert (refusal["code"], refusal["hint"]) == ("model_unavailable", "astromesh-node models pull smollm2")


def test_a_missing_engine_is_met_with_the_command_that_brings_it(cli: Cli, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "tiny.gguf").write_bytes(a_gguf())
    cli("models", "pull", str(tmp_path / "tiny.gguf"))
    write_documents(tmp_path / "config", agent("hello", model="tiny", provider_name=None))
    monkeypatch.setattr("importlib.util.find_spec", lambda name, package=None: None)
    answer = cli("run", "hello", "hi", "--config", str(tmp_path / "config"), "--json")
    assert answer.exit_code == 1
    assert json.loads(answer.stderr)["hint"] == HOW_TO_GET_ONE


def test_a_bad_file_of_the_nodes_own_is_told_before_the_answer(cli: Cli, node: RunningNode, tmp_path: Path) -> None:
    config = tmp_path / "config"
    write_documents(config, {**provider(node.stub.endpoint), **agent("porter"), "runtime.yaml": "kind: [\n"})
    answer = cli("run", "porter", "hi", "--config", str(config))
    assert answer.stdout == "You said: hi\n"
    assert "is set aside" in answer.stderr
