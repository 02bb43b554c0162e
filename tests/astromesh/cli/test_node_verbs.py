"""Verbs against a running node: tables for people, one JSON document for programs."""

from __future__ import annotations

import json
from urllib.request import urlopen

import pytest
import yaml
from tests.astromesh.cli.conftest import Cli, RunningNode
from tests.rig.prometheus_lint import complaints


def columns(line: str) -> list[str]:
    return [cell.strip() for cell in line.split("  ") if cell.strip()]


def test_members_is_a_table_of_who_is_here(cli: Cli, node: RunningNode) -> None:
    answer = cli("members", "--url", node.url)
    assert answer.exit_code == 0, answer.stderr
    head, row = answer.stdout.splitlines()
    assert columns(head) == ["NAME", "STATUS", "ADDRESS", "API", "ROLE", "INCARNATION", "FOR"]
    assert columns(row)[:5] == ["solo", "alive", node.gossip, node.url.removeprefix("http://"), "full"]


def test_members_as_json_is_the_state_of_the_mesh_with_roles(cli: Cli, node: RunningNode) -> None:
    state = json.loads(cli("members", "--json", "--url", node.url).stdout)
    assert [(row["name"], row["status"], row["role"]) for row in state["nodes"]] == [("solo", "alive", "full")]
    assert state["leader_id"] == state["nodes"][0]["node_id"]


def test_the_environment_names_the_node_and_a_flag_wins_over_it(cli: Cli, node: RunningNode, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("ASTROMESH_DAEMON_URL", node.url)
    assert "solo" in cli("status").stdout
    assert cli("status", "--url", "http://127.0.0.1:1").exit_code == 3
    assert cli("--url", "http://127.0.0.1:1", "status").exit_code == 3


def test_the_node_may_be_named_before_the_verb(cli: Cli, node: RunningNode) -> None:
    assert "solo" in cli("--url", node.url, "status").stdout


def test_status_is_a_few_lines_and_its_warnings_go_to_stderr(cli: Cli, node: RunningNode) -> None:
    answer = cli("status", "--url", node.url)
    assert [line.split()[0] for line in answer.stdout.splitlines()] == ["node", "API", "mesh", "agents", "runs"]
    assert "alive, alone" in answer.stdout
    assert "4 loaded, 1 with mistakes" in answer.stdout
    assert "agents/broken.agent.yaml" in answer.stderr


def test_agents_list_shows_what_is_broken_and_why(cli: Cli, node: RunningNode) -> None:
    lines = cli("agents", "list", "--url", node.url).stdout.splitlines()
    rows = {columns(line)[0]: columns(line) for line in lines[1:] if line}
    assert rows["desk"] == ["desk", "1.0.0", "deployed", "solo"]
    assert rows["broken"][:3] == ["broken", "-", "broken"]
    assert any(line.startswith("broken: agents/broken.agent.yaml:4") for line in lines)


def test_agents_show_is_yaml_that_reads_back_and_json_where_asked(cli: Cli, node: RunningNode) -> None:
    shown = yaml.safe_load(cli("agents", "show", "desk", "--url", node.url).stdout)
    assert shown["metadata"]["name"] == "desk"
    assert shown == json.loads(cli("agents", "show", "desk", "--json", "--url", node.url).stdout)


def test_what_the_node_refuses_is_said_in_its_words_and_exits_1(cli: Cli, node: RunningNode) -> None:
    answer = cli("agents", "show", "nobody", "--url", node.url)
    assert (answer.exit_code, answer.stdout) == (1, "")
    assert answer.stderr == "no node of this mesh has an agent named 'nobody'. astromesh-node agents list shows what there is\n"
    refusal = json.loads(cli("agents", "show", "nobody", "--json", "--url", node.url).stderr)
    assert refusal["code"] == "agent_not_found"


def test_models_list_shows_each_model_with_its_state_and_leaves_agents_out(cli: Cli, node: RunningNode) -> None:
    lines = cli("models", "list", "--url", node.url).stdout.splitlines()
    assert [columns(line) for line in lines] == [
        ["NAME", "STATE", "NODE", "CAN", "SPEED", "SIZE"],
        ["slow", "remote", "solo", "complete", "-", "-"],
        ["stub", "remote", "solo", "complete", "-", "-"],
    ]
    document = json.loads(cli("models", "list", "--json", "--url", node.url).stdout)
    assert [model["id"] for model in document["models"]] == ["slow", "stub"]


def test_providers_list_says_who_calls_each_server_and_shows_no_key(cli: Cli, node: RunningNode) -> None:
    answer = cli("providers", "list", "--url", node.url)
    head, row = answer.stdout.splitlines()
    assert columns(head) == ["NAME", "NODE", "TYPE", "HEALTH", "BREAKER", "FIRST TOKEN", "FOR", "MODELS"]
    shown = columns(row)
    assert shown[:5] + shown[6:] == ["stub", "solo", "openai_compat", "healthy", "closed", "mesh", "stub, slow"]
    assert "ms" in shown[5]
    document = cli("providers", "list", "--json", "--url", node.url).stdout
    assert json.loads(document)["providers"][0]["health"] == "healthy"
    assert "sk-secret" not in answer.stdout + document


def test_a_join_to_another_machine_is_a_mistake_of_configuration(cli: Cli, node: RunningNode) -> None:
    answer = cli("join", "192.0.2.1", "--url", node.url)
    assert answer.exit_code == 78
    assert "192.0.2.1:7946 is another machine" in answer.stderr


def test_a_server_that_is_no_node_is_told_apart(cli: Cli, node: RunningNode) -> None:
    answer = cli("status", "--url", node.stub.url)
    assert answer.exit_code == 3
    assert "it is no astromesh node" in answer.stderr


def test_prometheus_s_linter_has_nothing_to_say_of_a_node_that_works(cli: Cli, node: RunningNode) -> None:
    cli("run", "desk", "Hello", "--url", node.url)
    with urlopen(f"{node.url}/metrics") as response:
        text = response.read().decode()
    assert "maia_loop_lag_seconds_bucket" in text
    assert "astromesh_runs_total" in text
    assert complaints(text) == []
