"""Agents from a file to the mesh and back, as people type it; and a node that reads its files again."""

from __future__ import annotations

import json
from pathlib import Path

import yaml
from tests.astromesh.cli.conftest import Cli, RunningNode
from tests.rig.documents import agent, write_documents


def file_of(folder: Path, name: str, *, namespace: str = "", version: str = "1.10", **how: object) -> Path:
    (document,) = agent(name, **how).values()  # type: ignore[arg-type]
    assert not isinstance(document, str)
    metadata = f"metadata: {{name: {name}, version: {version}{f', namespace: {namespace}' if namespace else ''}}}\n"
    whole = {key: value for key, value in document.items() if key != "metadata"}
    path = folder / f"{name}.agent.yaml"
    path.write_text(metadata + yaml.safe_dump(whole))
    return path


def status_of(cli: Cli, node: RunningNode, name: str, namespace: str = "default") -> str:
    rows = json.loads(cli("agents", "list", "--json", "--url", node.url).stdout)["agents"]
    return next((row["status"] for row in rows if (row["name"], row["namespace"]) == (name, namespace)), "")


def test_an_agent_is_deployed_from_its_file_paused_and_removed(cli: Cli, node: RunningNode, tmp_path: Path) -> None:
    file = file_of(tmp_path, "clerk")
    answer = cli("agents", "deploy", str(file), "--url", node.url)
    assert (answer.exit_code, answer.stdout) == (0, "clerk: deployed on solo\n"), answer.stderr
    shown = yaml.safe_load(cli("agents", "show", "clerk", "--url", node.url).stdout)
    assert str(shown["metadata"]["version"]) == "1.10"
    assert cli("run", "clerk", "Hi", "--url", node.url).exit_code == 0

    assert cli("agents", "pause", "clerk", "--url", node.url).stdout == "clerk: paused on solo\n"
    refused = cli("run", "clerk", "Hi", "--url", node.url)
    assert refused.exit_code == 1
    assert "astromesh-node agents deploy clerk" in refused.stderr
    assert cli("agents", "deploy", "clerk", "--url", node.url).exit_code == 0

    assert cli("agents", "remove", "clerk", "--url", node.url).stdout == "clerk: removed on solo\n"
    assert cli("agents", "remove", "clerk", "--url", node.url).exit_code == 1
    assert status_of(cli, node, "clerk") == ""


def test_a_draft_waits_beside_what_is_deployed(cli: Cli, node: RunningNode, tmp_path: Path) -> None:
    assert cli("agents", "deploy", str(file_of(tmp_path, "clerk")), "--draft", "--url", node.url).stdout == "clerk: a draft\n"
    assert status_of(cli, node, "clerk") == "draft"
    refused = cli("run", "clerk", "Hi", "--url", node.url)
    assert "astromesh-node agents deploy clerk" in refused.stderr
    assert cli("agents", "deploy", "clerk", "--url", node.url).exit_code == 0
    second = file_of(tmp_path, "clerk", version="2.0")
    assert cli("agents", "deploy", str(second), "--draft", "--url", node.url).stdout == "clerk: a draft on solo\n"
    assert "deployed, a draft 2.0 waits" in cli("agents", "list", "--url", node.url).stdout
    draft = json.loads(cli("agents", "show", "clerk", "--draft", "--json", "--url", node.url).stdout)
    assert draft["metadata"]["version"] in ("2.0", 2.0)
    assert cli("agents", "remove", "clerk", "--url", node.url).exit_code == 0


def test_an_agent_of_another_namespace_goes_by_both_names(cli: Cli, node: RunningNode, tmp_path: Path) -> None:
    file = file_of(tmp_path, "desk", namespace="sales")
    assert cli("agents", "deploy", str(file), "--url", node.url).stdout == "sales/desk: deployed on solo\n"
    assert cli("run", "sales/desk", "Hi", "--url", node.url).exit_code == 0
    rows = json.loads(cli("agents", "list", "--namespace", "sales", "--json", "--url", node.url).stdout)["agents"]
    assert [(row["namespace"], row["name"]) for row in rows] == [("sales", "desk")]
    assert cli("agents", "remove", "sales/desk", "--url", node.url).exit_code == 0
    assert status_of(cli, node, "desk") == "deployed"


def test_the_document_may_come_by_stdin_and_the_answer_as_json(cli: Cli, node: RunningNode, tmp_path: Path) -> None:
    text = file_of(tmp_path, "clerk").read_text()
    answer = cli("agents", "deploy", "-", "--json", "--url", node.url, stdin=text)
    document = json.loads(answer.stdout)
    assert (document["agent"], document["status"], document["nodes"]) == ("clerk", "deployed", ["solo"])
    assert json.loads(cli("agents", "remove", "clerk", "--json", "--url", node.url).stdout)["status"] == "removed"


def test_every_mistake_of_a_file_is_told_and_nothing_is_kept(cli: Cli, node: RunningNode, tmp_path: Path) -> None:
    wrong = tmp_path / "wrong.agent.yaml"
    wrong.write_text("apiVersion: astromesh/v1\nkind: Agent\nmetadata:\n\tname: tab\n")
    answer = cli("agents", "deploy", str(wrong), "--url", node.url)
    assert answer.exit_code == 1
    assert "wrong.agent.yaml:4" in answer.stderr
    wrong = file_of(tmp_path, "clerk", orchestration={"patern": "react", "max_iterations": "many"})
    answer = cli("agents", "deploy", str(wrong), "--url", node.url)
    assert answer.exit_code == 1
    lines = wrong.read_text().splitlines()
    at = {key: next(number for number, line in enumerate(lines, start=1) if key in line) for key in ("patern", "max_iterations")}
    assert f"{wrong}:{at['patern']}: spec.orchestration.patern: unknown key. Did you mean 'pattern'?" in answer.stderr
    assert f"{wrong}:{at['max_iterations']}: spec.orchestration.max_iterations: expected a whole number, found 'many'" in answer.stderr
    assert ".," not in answer.stderr
    assert status_of(cli, node, "clerk") == ""
    assert "cannot be read" in cli("agents", "deploy", "nowhere.yaml", "--url", node.url).stderr
    assert cli("agents", "deploy", "desk", "--draft", "--url", node.url).exit_code == 2


def test_what_a_file_of_the_node_says_is_not_changed_over_the_api(cli: Cli, node: RunningNode, tmp_path: Path) -> None:
    answer = cli("agents", "deploy", str(file_of(tmp_path, "desk")), "--url", node.url)
    assert answer.exit_code == 1
    assert "agents/desk.agent.yaml:" in answer.stderr
    assert "astromesh-node config reload" in answer.stderr


def test_a_node_reads_its_files_again_or_says_every_mistake_and_exits_78(cli: Cli, node: RunningNode) -> None:
    config = node.folder / "config"
    write_documents(config, agent("fresh"))
    answer = cli("config", "reload", "--url", node.url)
    assert (answer.exit_code, answer.stdout) == (0, "added agents: fresh\n")
    assert cli("config", "reload", "--url", node.url).stdout == "nothing is another than before\n"
    write_documents(config, {"agents/fresh.agent.yaml": "kind: Agent\n", "agents/more.agent.yaml": "kind: [\n"})
    answer = cli("config", "reload", "--url", node.url)
    assert answer.exit_code == 78
    assert "agents/fresh.agent.yaml:1" in answer.stderr
    assert "agents/more.agent.yaml:1" in answer.stderr
    assert status_of(cli, node, "fresh") == "deployed"
    for name in ("fresh", "more"):
        (config / f"agents/{name}.agent.yaml").unlink()
    document = json.loads(cli("config", "reload", "--json", "--url", node.url).stdout)
    assert document["agents"]["removed"] == ["fresh"]
