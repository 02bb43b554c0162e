"""`config validate` and `config show`, and `up` where it cannot start."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from tests.astromesh.cli.conftest import Cli
from tests.rig.documents import agent, provider, runtime, write_documents

from astromesh.inference.engines import HOW_TO_GET_ONE


def test_the_shipped_defaults_are_fine(cli: Cli) -> None:
    answer = cli("config", "validate")
    assert (answer.exit_code, answer.stderr) == (0, "")
    assert answer.stdout.endswith("(the defaults that come with the program): fine; 7 agents, 0 providers\n")


def test_validate_names_every_mistake_with_its_line_and_exits_78(cli: Cli, tmp_path: Path) -> None:
    broken = "apiVersion: astromesh/v1\nkind: Agent\nmetadata: {name: x}\nspec:\n  model: {primary: {model: m}}\n  tols: []\n"
    write_documents(tmp_path, {"agents/x.agent.yaml": broken})
    answer = cli("config", "validate", str(tmp_path))
    assert answer.exit_code == 78
    lines = answer.stdout.splitlines()
    assert any(line.startswith("mistake: agents/x.agent.yaml:5: ") for line in lines)
    assert any(line.startswith("mistake: agents/x.agent.yaml:6: ") and "tools" in line for line in lines)
    assert lines[-1].endswith("2 mistakes, 0 warnings")


@pytest.mark.parametrize("verb", ["validate", "show"])
def test_the_folder_is_said_either_way_and_once(cli: Cli, tmp_path: Path, verb: str) -> None:
    by_argument = cli("config", verb, str(tmp_path))
    by_option = cli("config", verb, "--config", str(tmp_path))
    assert by_argument.stdout.startswith(str(tmp_path))
    assert (by_option.exit_code, by_option.stdout) == (by_argument.exit_code, by_argument.stdout)
    assert cli("config", verb, str(tmp_path), "--config", str(tmp_path)).exit_code == 2


def test_validate_as_json_says_the_same(cli: Cli, tmp_path: Path) -> None:
    write_documents(tmp_path, {"agents/x.agent.yaml": "kind: Agent\n", **agent("desk", provider_name=None)})
    answer = cli("config", "validate", str(tmp_path), "--json")
    document = json.loads(answer.stdout)
    assert (answer.exit_code, document["valid"], document["agents"]) == (78, False, ["desk"])
    assert {"source", "line", "path", "message", "remedy"} <= document["mistakes"][0].keys()


def test_a_warning_alone_is_no_failure(cli: Cli, tmp_path: Path) -> None:
    write_documents(tmp_path, agent("desk", provider_name=None, knowledge={"pipeline": "p"}))
    answer = cli("config", "validate", str(tmp_path))
    assert answer.exit_code == 0
    assert answer.stdout.startswith("warning: agents/desk.agent.yaml:")


def test_validate_finds_what_only_the_node_would_have_found(cli: Cli, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("ASTROMESH_API", "nowhere:99999")
    write_documents(tmp_path, runtime())
    answer = cli("config", "validate", str(tmp_path))
    assert answer.exit_code == 78
    assert "ASTROMESH_API" in answer.stdout


def test_show_tells_where_each_setting_comes_from(cli: Cli, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("ASTROMESH_NAME", "kitchen")
    write_documents(tmp_path, runtime(api={"port": 8123}))
    shown = cli("config", "show", "--origin", "--config", str(tmp_path)).stdout
    rows = {line.split()[0]: line.split()[1:] for line in shown.splitlines()[3:]}
    assert rows["name"] == ["kitchen", "ASTROMESH_NAME"]
    assert rows["api"] == ["127.0.0.1:8123", "runtime.yaml:8"]
    assert rows["role"] == ["full", "default"]
    assert "ASTROMESH_NAME" not in cli("config", "show", "--config", str(tmp_path)).stdout


def test_show_as_json_has_every_setting_with_its_origin(cli: Cli, tmp_path: Path) -> None:
    write_documents(tmp_path, {**runtime(), **provider("http://127.0.0.1:9", api_key="sk-secret")})
    answer = cli("config", "show", "--json", "--config", str(tmp_path))
    settings = json.loads(answer.stdout)["settings"]
    assert settings["mesh"] == {"value": True, "origin": {"kind": "file", "place": "runtime.yaml:8"}}
    assert settings["join"]["value"] == []
    assert "sk-secret" not in answer.stdout


def test_show_works_where_the_nodes_own_file_is_bad(cli: Cli, tmp_path: Path) -> None:
    write_documents(tmp_path, {"runtime.yaml": "kind: [\n"})
    document = json.loads(cli("config", "show", "--json", "--config", str(tmp_path)).stdout)
    assert document["runtime"] is None
    assert "is set aside" in document["warnings"][0]


def test_a_role_that_does_nothing_yet_says_so(cli: Cli, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("ASTROMESH_ROLE", "gateway")
    assert "ASTROMESH_ROLE: a node of role gateway does everything yet" in cli("config", "show").stderr


@pytest.mark.parametrize(
    ("words", "said"), [(("--api", "x:y"), "--api"), (("--config", "/nowhere"), "/nowhere"), (("--name", "A B"), "--name")]
)
def test_up_exits_78_and_names_what_is_wrong(cli: Cli, words: tuple[str, ...], said: str) -> None:
    answer = cli("up", *words)
    assert answer.exit_code == 78
    assert said in answer.stderr


def test_up_exits_78_where_it_is_told_what_cannot_be(cli: Cli, tmp_path: Path) -> None:
    answer = cli("up", "--config", str(tmp_path), "--api", "127.0.0.1:none", "--json")
    assert (answer.exit_code, json.loads(answer.stderr)["code"]) == (78, "bad_configuration")


def test_a_bad_file_of_the_nodes_own_is_set_aside_and_said(cli: Cli, tmp_path: Path) -> None:
    write_documents(tmp_path, {"runtime.yaml": "kind: [\n"})
    answer = cli("up", "--config", str(tmp_path), "--api", "0.0.0.0:8000", "--data", str(tmp_path / "data"))
    assert answer.exit_code == 78
    assert "is set aside" in answer.stderr
    assert "0.0.0.0:8000" in answer.stderr


SEALED = """apiVersion: astromesh/v1
kind: RuntimeConfig
spec:
  mesh: {keyring_file: keys.json}
  api: {port: none}
  inference: {engine: steam}
"""


NOT_HERE = ("--api", "0.0.0.0:8000")  # refused later on: no node stays up, whatever is broken


def test_a_node_whose_file_seals_its_gossip_does_not_start_unsealed_by_a_mistake_elsewhere(cli: Cli, tmp_path: Path) -> None:
    write_documents(tmp_path, {"runtime.yaml": SEALED})
    answer = cli("up", "--config", str(tmp_path), *NOT_HERE, "--data", str(tmp_path / "data"))
    assert answer.exit_code == 78
    assert "mesh.keyring_file" in answer.stderr
    assert "runtime.yaml:5: spec.api.port" in answer.stderr
    assert "runtime.yaml:6: spec.inference.engine" in answer.stderr
    assert not (tmp_path / "data").exists()


def test_a_second_file_of_the_nodes_own_takes_no_seal_away(cli: Cli, tmp_path: Path) -> None:
    sealed = "apiVersion: astromesh/v1\nkind: RuntimeConfig\nspec:\n  mesh: {keyring_file: keys.json}\n"
    write_documents(tmp_path, {"runtime.yaml": sealed, "providers.yaml": sealed})
    answer = cli("up", "--config", str(tmp_path), *NOT_HERE, "--data", str(tmp_path / "data"))
    assert answer.exit_code == 78
    assert "a node has one RuntimeConfig" in answer.stderr


def test_a_file_of_the_nodes_own_that_cannot_be_read_is_not_taken_for_an_open_one(cli: Cli, tmp_path: Path) -> None:
    (tmp_path / "runtime.yaml").write_bytes(b"spec: \xff\n")
    answer = cli("up", "--config", str(tmp_path), *NOT_HERE, "--data", str(tmp_path / "data"))
    assert answer.exit_code == 78
    assert "runtime.yaml:1: is not UTF-8 text" in answer.stderr


def test_what_counts_in_the_place_of_a_file_that_is_set_aside_is_said(cli: Cli, tmp_path: Path) -> None:
    write_documents(tmp_path, {"runtime.yaml": "kind: [\n"})
    said = json.loads(cli("config", "show", "--json", "--config", str(tmp_path)).stdout)["warnings"][0]
    assert "API 127.0.0.1:8000, gossip 127.0.0.1:7946, no seeds, data " in said


def test_the_demo_chooses_for_itself(cli: Cli) -> None:
    answer = cli("up", "--demo", "--api", "127.0.0.1:8123", "--join", "127.0.0.1:1")
    assert answer.exit_code == 2
    assert "leave out --api, --join" in answer.stderr


def test_the_demo_without_an_engine_says_how_to_get_one(cli: Cli, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("importlib.util.find_spec", lambda name, package=None: None)
    answer = cli("up", "--demo")
    assert answer.exit_code == 1
    assert "make demo" in answer.stderr
    assert HOW_TO_GET_ONE in answer.stderr
